"""What the pictures of all environments have in common: NumPy alone, colours as float32 RGB of 0 to 255."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np

from qio_envs.api import lettering
from qio_envs.api.batched import Array

BACKGROUND = np.array([24, 28, 30], np.float32)
TIME_BAR = np.array([120, 150, 190], np.float32)
TEXT, QUIET = np.array([226, 232, 236], np.float32), np.array([150, 165, 175], np.float32)
"""Colours of text: what changes, and names of what is shown."""
MARK = np.array([238, 214, 120], np.float32)
"""Colour of targets and of marks on an axis."""
GAP = 6
"""Pixels around a bar."""
TEXT_ROW = 20
"""Pixels of a line of text in letters of 14 pixels, with a gap above it."""
LEGEND_ROW = 18
"""Pixels of a row of a legend."""
OUTLINE = np.array([250, 250, 250], np.float32)
"""Colour around discs and squares."""
MESSAGE_LOW, MESSAGE_HIGH = np.array([70, 110, 230], np.float32), np.array([235, 80, 60], np.float32)
"""Colours of the numbers -1 and 1 of a message."""
_MESSAGE_MIDDLE = np.array([225, 225, 225], np.float32)  # of 0
_MESSAGE_WIDTH, _MESSAGE_CELL, _MESSAGE_HEIGHT = (
    48,
    8,
    8,
)  # pixels: at most, of a number at most, of a message
_MESSAGE_SHADES = 4  # from 0 to 1: few, so that an animation with few colours shows them as they are
_HEIGHT = 10  # of a bar
HEAD = TEXT_ROW + GAP + _HEIGHT
"""Pixels of the height of `gauges`, which are at the top of every picture."""
_MARK = 14  # side of the square in which the mark of a legend's entry lies, pixels

Entry = tuple[str, Array, str]
"""Of a legend: the kind of mark (cell, frame, disc, square, ring, line, cross, or text for none), its RGB
and its name."""


def bar(width: int, share: float, colour: Array) -> Array:
    """Return a progress bar with a gap above it, float32 ``[16, width, 3]``.

    Args:
        width: Width of the picture, pixels.
        share: Part of the bar that is filled, 0 to 1.
        colour: RGB of the filled part, ``[3]``.
    """
    picture = np.broadcast_to(BACKGROUND, (_HEIGHT + GAP, width, 3)).copy()
    track = picture[GAP:, GAP : width - GAP]
    track[:] = BACKGROUND * 1.8
    track[:, : round(share * track.shape[1])] = colour
    return picture


def gauges(width: int, *items: tuple[str, float | None, Array]) -> Array:
    """Return texts for what changes with each step, each with a bar below it, float32 ``[42, width, 3]``.

    Args:
        width: Of the picture, pixels; the items share it equally, a text that is too long is cut off.
        items: Text, share of the bar that is filled (0 to 1, or None for no bar) and the bar's RGB.
    """
    edges = np.linspace(0, width, len(items) + 1).round().astype(int)
    parts = []
    for (text, share, colour), left, right in zip(items, edges, edges[1:], strict=False):
        words = np.broadcast_to(BACKGROUND, (TEXT_ROW, right - left, 3)).copy()
        lettering.write(words, text, (GAP, GAP), TEXT)
        below = np.broadcast_to(BACKGROUND, (_HEIGHT + GAP, right - left, 3))
        parts.append(np.concatenate([words, below if share is None else bar(right - left, share, colour)]))
    return np.concatenate(parts, axis=1)


def scale_bar(
    width: int, text: str, share: float, colour: Array, marks: Sequence[tuple[float, str]]
) -> Array:
    """Return a share on an axis from 0 to 1 with named marks, float32 ``[h, width, 3]``.

    Args:
        width: Of the picture, pixels.
        text: Stands above the axis: what is shown, and its value.
        share: Part of the axis that is filled, 0 to 1.
        colour: RGB of the filled part, ``[3]``.
        marks: Places on the axis, 0 to 1, and their names, a row of text each.
    """
    head = np.broadcast_to(BACKGROUND, (TEXT_ROW, width, 3)).copy()
    lettering.write(head, text, (GAP, GAP), TEXT)
    axis = bar(width, share, colour)
    names = np.broadcast_to(BACKGROUND, (TEXT_ROW * len(marks) + GAP, width, 3)).copy()
    picture = np.concatenate([head, axis, names])
    placed = []
    for place, name in marks:
        column, size = GAP + round(place * (width - 2 * GAP)), lettering.width(name, 2)
        is_right = column + GAP + size <= width - GAP
        placed.append((not is_right, -column if is_right else column, column, size, name))
    top = TEXT_ROW + axis.shape[0]
    for row, (*_, column, _, _) in enumerate(sorted(placed)):
        picture[TEXT_ROW + GAP - 3 : top + (row + 1) * TEXT_ROW, column - 1 : column + 1] = MARK
    for row, (is_left, _, column, size, name) in enumerate(sorted(placed)):
        left, start = column - GAP - size if is_left else column + GAP, top + row * TEXT_ROW + GAP
        picture[start - 2 : start + 16, left - 2 : left + size + 2] = BACKGROUND
        lettering.write(picture, name, (start, left), QUIET)
    return picture


def legend(width: int, entries: Sequence[Entry], scale: int = 2) -> Array:
    """Return what marks and colours mean, float32 ``[h, width, 3]``, ``h`` a multiple of `LEGEND_ROW` and a gap.

    Entries stand beside each other as long as there is room, then in the next row.

    Args:
        width: Of the picture, pixels.
        entries: In the order in which they are shown.
        scale: Pixels a point of the letters.
    """
    plain = tuple((kind, tuple(float(part) for part in colour), text) for kind, colour, text in entries)
    return _legend(width, plain, scale).copy()


@functools.lru_cache(maxsize=64)
def _legend(width: int, entries: tuple[tuple[str, tuple[float, ...], str], ...], scale: int) -> Array:
    places, row, column = [], 0, GAP
    for kind, _, text in entries:
        size = (_MARK + GAP if kind != "text" else 0) + lettering.width(text, scale)
        if column > GAP and column + size > width - GAP:
            row, column = row + 1, GAP
        places.append((row, column))
        column += size + 2 * GAP
    picture = np.broadcast_to(BACKGROUND, ((row + 1) * LEGEND_ROW + GAP, width, 3)).copy()
    for (row, column), (kind, rgb, text) in zip(places, entries, strict=True):
        colour = np.array(rgb, np.float32)
        middle = np.array([column + _MARK / 2, row * LEGEND_ROW + GAP + _MARK / 2])
        _draw_mark(picture, kind, colour, middle)
        top = round(middle[1] - lettering.HEIGHT * scale / 2)
        lettering.write(picture, text, (top, column + (_MARK + GAP if kind != "text" else 0)), QUIET, scale)
    return picture


def _draw_mark(canvas: Array, kind: str, colour: Array, middle: Array) -> None:
    half = _MARK / 2
    low, high = np.round(middle - half).astype(int), np.round(middle + half).astype(int)
    if kind in ("cell", "frame"):
        canvas[low[1] : high[1], low[0] : high[0]] = colour
        if kind == "frame":
            canvas[low[1] + 2 : high[1] - 2, low[0] + 2 : high[0] - 2] = BACKGROUND
    elif kind == "line":
        line(canvas, colour, middle - np.array([half, 0]), middle + np.array([half, 0]), 2.5)
    elif kind == "cross":
        for arm in (np.array([half - 2, half - 2]), np.array([half - 2, 2 - half])):
            line(canvas, colour, middle - arm, middle + arm, 2.5)
    elif kind == "ring":
        part, columns, rows = patch(canvas, middle - half, middle + half)
        paint(part, colour, 1.5 - np.abs(np.hypot(columns - middle[0], rows - middle[1]) - half + 2))
    elif kind == "square":
        square(canvas, colour, OUTLINE, middle, half - 1)
    elif kind == "disc":
        disc(canvas, colour, OUTLINE, middle, half - 1)


def paint(canvas: Array, colour: Array, coverage: Array, opacity: float = 1.0) -> None:
    """Lay a colour over a canvas.

    Args:
        canvas: Float32 ``[h, w, 3]``, is written.
        colour: RGB, ``[3]``.
        coverage: How much of each pixel is covered, ``[h, w]``; clipped to [0, 1].
        opacity: Of the colour, 0 to 1.
    """
    canvas += opacity * np.clip(coverage, 0, 1)[..., None] * (colour - canvas)


def patch(canvas: Array, low: Array, high: Array) -> tuple[Array, Array, Array]:
    """Return the part of the canvas between two corners (column, row), and its pixels' columns and rows.

    Args:
        canvas: Float32 ``[h, w, 3]``; the part is a view of it, empty outside.
        low: Upper left corner, ``[2]``.
        high: Lower right corner, ``[2]``.
    """
    limits = np.array([canvas.shape[1], canvas.shape[0]])
    left, top = np.clip(np.floor(low).astype(int) - 1, 0, limits)
    right, bottom = np.clip(np.ceil(high).astype(int) + 1, 0, limits)
    return canvas[top:bottom, left:right], np.arange(left, right) + 0.5, np.arange(top, bottom)[:, None] + 0.5


def line(canvas: Array, colour: Array, start: Array, end: Array, width: float, opacity: float = 1.0) -> None:
    """Draw a line between two points (column, row) that is ``width`` pixels wide."""
    part, columns, rows = patch(canvas, np.minimum(start, end) - width, np.maximum(start, end) + width)
    along = end - start
    share = ((columns - start[0]) * along[0] + (rows - start[1]) * along[1]) / max(float(along @ along), 1e-9)
    share = np.clip(share, 0, 1)
    distance = np.hypot(columns - start[0] - share * along[0], rows - start[1] - share * along[1])
    paint(part, colour, width / 2 + 0.5 - distance, opacity)


def thin_line(canvas: Array, colour: Array, start: Array, end: Array, opacity: float = 1.0) -> None:
    """Draw a line between two points (column, row) that is one pixel wide; much cheaper than `line` if it is long."""
    along = np.asarray(end, float) - start
    steep = abs(along[1]) > abs(along[0])
    major, minor = (1, 0) if steep else (0, 1)
    low, high = sorted((float(start[major]), float(end[major])))
    places = np.arange(math.floor(low), math.floor(high) + 1)
    slope = along[minor] / along[major] if along[major] else 0.0
    exact = start[minor] + (places + 0.5 - start[major]) * slope - 0.5
    nearest = np.floor(exact).astype(int)
    limits = canvas.shape[:2] if steep else canvas.shape[1::-1]
    for offset, weight in ((0, 1 - (exact - nearest)), (1, exact - nearest)):
        other = nearest + offset
        inside = (places >= 0) & (places < limits[0]) & (other >= 0) & (other < limits[1])
        rows, columns = (places, other) if steep else (other, places)
        at = rows[inside], columns[inside]
        canvas[at] += (opacity * weight[inside])[:, None].astype(np.float32) * (colour - canvas[at])


def disc(canvas: Array, colour: Array, outline: Array, centre: Array, radius: float) -> None:
    """Draw a disc (centre: column, row; radius in pixels) with an outline; what lies below shines through."""
    part, columns, rows = patch(canvas, centre - radius, centre + radius)
    distance = np.hypot(columns - centre[0], rows - centre[1])
    paint(part, colour, radius + 0.5 - distance, 0.7)
    paint(part, outline, 1.5 - np.abs(distance - radius + 1))


def square(canvas: Array, colour: Array, outline: Array, centre: Array, half: float) -> None:
    """Draw a square (centre: column, row; half its side in pixels) with an outline, as `disc` does."""
    part, columns, rows = patch(canvas, centre - half, centre + half)
    distance = np.maximum(np.abs(columns - centre[0]), np.abs(rows - centre[1]))
    paint(part, colour, half + 0.5 - distance, 0.7)
    paint(part, outline, 1.5 - np.abs(distance - half + 1))


def draw_message(canvas: Array, message: Array, middle: Array) -> None:
    """Draw the numbers of a message as cells from left to right, between `MESSAGE_LOW` and `MESSAGE_HIGH` in colour.

    Args:
        canvas: Float32 ``[h, w, 3]``, is written; what lies outside is left out.
        message: Float ``[B]`` in [-1, 1]; of more than 48 numbers the first ones are shown.
        middle: Column and row.
    """
    numbers = np.clip(message[:_MESSAGE_WIDTH], -1, 1)
    cell = max(1, min(_MESSAGE_CELL, _MESSAGE_WIDTH // len(numbers)))
    shares = np.round(np.abs(numbers) * _MESSAGE_SHADES)[:, None] / _MESSAGE_SHADES
    ends = np.where(numbers[:, None] < 0, MESSAGE_LOW, MESSAGE_HIGH)
    colours = (_MESSAGE_MIDDLE + shares * (ends - _MESSAGE_MIDDLE)).astype(np.float32)
    strip = np.broadcast_to(BACKGROUND, (_MESSAGE_HEIGHT + 2, cell * len(numbers) + 2, 3)).copy()
    strip[1:-1, 1:-1] = colours.repeat(cell, 0)
    left, top = (round(float(middle[axis]) - strip.shape[1 - axis] / 2) for axis in (0, 1))
    rows, columns = top + np.arange(strip.shape[0]), left + np.arange(strip.shape[1])
    seen = (rows >= 0) & (rows < canvas.shape[0]), (columns >= 0) & (columns < canvas.shape[1])
    canvas[np.ix_(rows[seen[0]], columns[seen[1]])] = strip[np.ix_(*seen)]


def message_entries(messages: Array | None) -> list[Entry]:
    """Return what a legend says of messages; nothing where there are none."""
    if messages is None:
        return []
    return [("cell", MESSAGE_LOW, "message -1"), ("cell", MESSAGE_HIGH, "message 1")]


def mark_target(canvas: Array, colour: Array, centre: Array) -> None:
    """Draw a ring with a cross (centre: column, row), 42 pixels wide."""
    part, columns, rows = patch(canvas, centre - 16, centre + 16)
    paint(part, colour, 1.5 - np.abs(np.hypot(columns - centre[0], rows - centre[1]) - 15))
    for arm in (np.array([21.0, 0.0]), np.array([0.0, 21.0])):
        line(canvas, colour, centre - arm, centre + arm, 1.5)

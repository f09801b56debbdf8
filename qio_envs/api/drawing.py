"""What the pictures of all environments have in common: NumPy alone, colours as float32 RGB of 0 to 255."""

from __future__ import annotations

import numpy as np

from qio_envs.api.batched import Array

BACKGROUND = np.array([24, 28, 30], np.float32)
TIME_BAR = np.array([120, 150, 190], np.float32)
GAP = 6
"""Pixels around a bar."""
_HEIGHT = 10  # of a bar


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


def line(canvas: Array, colour: Array, start: Array, end: Array, width: float) -> None:
    """Draw a line between two points (column, row) that is ``width`` pixels wide."""
    part, columns, rows = patch(canvas, np.minimum(start, end) - width, np.maximum(start, end) + width)
    along = end - start
    share = ((columns - start[0]) * along[0] + (rows - start[1]) * along[1]) / max(float(along @ along), 1e-9)
    share = np.clip(share, 0, 1)
    distance = np.hypot(columns - start[0] - share * along[0], rows - start[1] - share * along[1])
    paint(part, colour, width / 2 + 0.5 - distance)


def disc(canvas: Array, colour: Array, outline: Array, centre: Array, radius: float) -> None:
    """Draw a disc (centre: column, row; radius in pixels) with an outline; what lies below shines through."""
    part, columns, rows = patch(canvas, centre - radius, centre + radius)
    distance = np.hypot(columns - centre[0], rows - centre[1])
    paint(part, colour, radius + 0.5 - distance, 0.7)
    paint(part, outline, 1.5 - np.abs(distance - radius + 1))


def mark_target(canvas: Array, colour: Array, centre: Array) -> None:
    """Draw a ring with a cross (centre: column, row), 42 pixels wide."""
    part, columns, rows = patch(canvas, centre - 16, centre + 16)
    paint(part, colour, 1.5 - np.abs(np.hypot(columns - centre[0], rows - centre[1]) - 15))
    for arm in (np.array([21.0, 0.0]), np.array([0.0, 21.0])):
        line(canvas, colour, centre - arm, centre + arm, 1.5)

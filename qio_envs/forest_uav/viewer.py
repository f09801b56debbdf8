"""Pictures of the UAV forest with NumPy alone: no display, no drawing library."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from qio_envs.api import Array
from qio_envs.api.drawing import (
    BACKGROUND,
    GAP,
    QUIET,
    TEXT_ROW,
    TIME_BAR,
    Entry,
    draw_message,
    gauges,
    legend,
    message_entries,
    thin_line,
)
from qio_envs.api.lettering import HEIGHT, width, write, write_centred

_WIDTH = 480  # pixels of the picture, more for maps of more than 120 cells
_BELIEF = 226  # pixels of the longer side of the belief's map, about

_SHADES = 6  # of vegetation: few, so that an animation with few colours shows them as they are
_KNOWN = np.array([[222, 206, 148], [78, 150, 70]], np.float32)  # monitored: dry grass to dense forest
_WILD = np.array([[78, 76, 62], [26, 54, 36]], np.float32)  # the same in the dark: not monitored yet
_ROCK = np.array([132, 128, 132], np.float32)
_MISSED = np.array([214, 132, 56], np.float32)  # monitored, but the chosen UAV does not know
_UAV = np.array([206, 58, 40], np.float32)
_CHOSEN = np.array([30, 96, 200], np.float32)
_CROWD = np.array([168, 30, 130], np.float32)  # a cell with several UAVs
_OUTLINE = np.array([255, 255, 255], np.float32)
_RADIO = np.array([96, 220, 255], np.float32)
_COVERAGE_BAR = np.array([122, 190, 96], np.float32)


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a picture shows of one environment; maps are ``[H, W]``."""

    vegetation: Array  # float32 in [0, 1)
    blocked: Array  # bool
    monitored: Array  # bool
    believed: Array  # bool, what the chosen UAV believes monitored
    position: Array  # int [N, 2], row and column
    links: Array  # int [L, 2], pairs of UAVs of which one heard the other in this step
    sensing_radius: int
    step: int
    max_steps: int
    chosen: int = 0  # UAV whose belief is shown
    messages: Array | None = (
        None  # float [N, B] in [-1, 1], told in the last step; None where no policy talks
    )

    @property
    def coverage(self) -> float:
        """Share of the free cells that are monitored."""
        return float(self.monitored.sum() / max((~self.blocked).sum(), 1))


def draw(scene: Scene) -> Array:
    """Return uint8 ``[h, w, 3]``, for a square map of 20 x 20 cells ``[778, 480, 3]``.

    From top to bottom: step and coverage, as text and bars; the map; what one UAV believes, beside the legend.

    Cells have the colours of their vegetation, from dry grass to dense forest, in the dark until they are monitored;
    rocks cannot be entered. UAVs are discs with their numbers (a purple disc counts several in one cell), in the square
    that they sense. Lines join UAVs of which at least one has heard the other in this step. What a policy told its
    others stands above its UAV (below it in the first row), a cell for each number. In the map of beliefs,
    cells that are monitored without the UAV's knowledge are orange.
    """
    rows, columns = scene.vegetation.shape
    cell = max(4, _WIDTH // max(rows, columns))
    picture_width = max(_WIDTH, columns * cell)
    truth = np.zeros((rows * cell, picture_width, 3), np.float32) + BACKGROUND
    left = (picture_width - columns * cell) // 2
    _draw_truth(truth[:, left : left + columns * cell], scene, cell)
    head = gauges(
        picture_width,
        (f"step {scene.step}/{scene.max_steps}", scene.step / scene.max_steps, TIME_BAR),
        (f"coverage {scene.coverage:.1%}", scene.coverage, _COVERAGE_BAR),
    )
    gap = np.broadcast_to(BACKGROUND, (GAP, picture_width, 3))
    picture = np.concatenate([head, gap, truth, _draw_belief(scene, picture_width), gap])
    return np.clip(picture, 0, 255).astype(np.uint8)


def _ground(scene: Scene, known: Array) -> Array:
    """Return the colours of the cells, float32 ``[H, W, 3]``; those that are not ``known`` lie in the dark."""
    density = ((np.floor(scene.vegetation * _SHADES) + 0.5) / _SHADES)[..., None].astype(np.float32)
    colours = np.where(
        known[..., None],
        _KNOWN[0] + density * (_KNOWN[1] - _KNOWN[0]),
        _WILD[0] + density * (_WILD[1] - _WILD[0]),
    )
    colours[scene.blocked] = _ROCK
    return colours


def _draw_truth(canvas: Array, scene: Scene, cell: int) -> None:
    canvas[:] = _ground(scene, scene.monitored).repeat(cell, 0).repeat(cell, 1)
    canvas[::cell] *= 0.94  # a thin grid
    canvas[:, ::cell] *= 0.94
    radius = scene.sensing_radius
    for row, column in scene.position:
        top, left = max(row - radius, 0) * cell, max(column - radius, 0) * cell
        part = canvas[top : (row + radius + 1) * cell, left : (column + radius + 1) * cell]
        for edge in (np.s_[:1], np.s_[-1:], np.s_[1:-1, :1], np.s_[1:-1, -1:]):
            part[edge] += (_OUTLINE - part[edge]) * 0.6
    centres = (scene.position[:, ::-1] + 0.5) * cell
    for one, other in scene.links:
        thin_line(canvas, _RADIO, centres[one], centres[other], 0.55)
    cells, whose, counts = np.unique(scene.position, axis=0, return_inverse=True, return_counts=True)
    whose = whose.reshape(-1)
    for place, ((row, column), count) in enumerate(zip(cells, counts, strict=True)):
        first = int(np.flatnonzero(whose == place)[0])
        colour = _CROWD if count > 1 else _CHOSEN if first == scene.chosen else _UAV
        patch = canvas[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        for part, shade in zip(_disc(cell), (_OUTLINE, colour), strict=True):
            patch += part[..., None] * (shade - patch)
        text = f"x{count}" if count > 1 else str(first)
        scale = 2 if width(text, 2) + 4 <= cell and cell >= 2 * HEIGHT + 6 else 1
        if width(text, scale) < cell and cell >= HEIGHT + 2:
            write_centred(canvas, text, (np.array([column, row]) + 0.5) * cell, _OUTLINE, scale)
    if scene.messages is not None and scene.step > 0:
        for centre, message in zip(centres, scene.messages, strict=True):
            away = cell / 2 + 5
            draw_message(canvas, message, centre + np.array([0, -away if centre[1] > cell else away]))


def _draw_belief(scene: Scene, picture_width: int) -> Array:
    """Return the map of what the chosen UAV believes and the legend on its right, float32 ``[h, w, 3]``."""
    rows, columns = scene.vegetation.shape
    cell = max(2, _BELIEF // max(rows, columns))
    colours = _ground(scene, scene.believed)
    colours[scene.monitored & ~scene.believed & ~scene.blocked] = _MISSED
    part = colours.repeat(cell, 0).repeat(cell, 1)
    row, column = scene.position[scene.chosen]
    patch = part[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
    patch[:] = _OUTLINE
    patch[1:-1, 1:-1] = _CHOSEN
    left = max(columns * cell, width("beliefs of UAV 0", 2)) + GAP
    names = legend(picture_width - left, _entries(scene))
    height = TEXT_ROW + GAP + max(rows * cell, names.shape[0])
    canvas = np.broadcast_to(BACKGROUND, (height, picture_width, 3)).copy()
    write(canvas, f"beliefs of UAV {scene.chosen}", (GAP, GAP), QUIET)
    canvas[TEXT_ROW + GAP : TEXT_ROW + GAP + rows * cell, GAP : GAP + columns * cell] = part
    canvas[TEXT_ROW : TEXT_ROW + names.shape[0], left:] = names
    return canvas


def _entries(scene: Scene) -> list[Entry]:
    """Return the legend; what cannot occur is left out."""
    several = len(scene.position) > 1
    entries = [
        ("cell", (_WILD[0] + _WILD[1]) / 2, "not monitored"),
        ("cell", _KNOWN[0], "monitored, grass"),
        ("cell", _KNOWN[1], "monitored, dense"),
        *([("cell", _ROCK, "rock")] if scene.blocked.any() else []),
        *([("cell", _MISSED, f"unknown to UAV {scene.chosen}")] if several else []),
        ("disc", _CHOSEN, f"UAV {scene.chosen}"),
        *([("disc", _UAV, "UAV"), ("disc", _CROWD, "several in a cell")] if several else []),
        ("frame", _OUTLINE, "sensed by a UAV"),
        *([("line", _RADIO, "radio in this step")] if several else []),
        *message_entries(scene.messages),
    ]
    return entries


def draw_text(scene: Scene) -> str:
    """Return the map as lines of text: ``.`` monitored, ``*`` not yet, ``#`` blocked, digits count UAVs."""
    marks = np.where(scene.monitored, ".", "*")
    marks[scene.blocked] = "#"
    cells, counts = np.unique(scene.position, axis=0, return_counts=True)
    for (row, column), count in zip(cells, counts, strict=True):
        marks[row, column] = str(count) if count < 10 else "+"
    status = f"step {scene.step}/{scene.max_steps}  coverage {scene.coverage:.1%}"
    return "\n".join([*(" ".join(line) for line in marks), status])


@functools.lru_cache(maxsize=8)
def _disc(cell: int) -> tuple[Array, Array]:
    """Return the opacity of a disc's outline and of its filling, float32 ``[cell, cell]``."""
    samples = 4
    axis = (np.arange(cell * samples) + 0.5) / samples - cell / 2
    distance = np.hypot(axis[:, None], axis[None, :])

    def opacity(radius: float) -> Array:
        inside = (distance <= radius).reshape(cell, samples, cell, samples)
        return inside.mean(axis=(1, 3)).astype(np.float32)

    return opacity(0.48 * cell), opacity(0.38 * cell)

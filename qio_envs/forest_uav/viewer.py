"""Pictures of the UAV forest with NumPy alone: no display, no drawing library."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from qio_envs.api import Array
from qio_envs.api.drawing import BACKGROUND, GAP, TIME_BAR, bar

_CANVAS = 560  # pixels of the longer side of the map, about

_WILD = np.array([[58, 92, 66], [16, 42, 30]], np.float32)  # not monitored: sparse to dense vegetation
_KNOWN = np.array([[236, 232, 190], [146, 190, 106]], np.float32)  # monitored: sparse to dense
_BLOCKED = np.array([116, 82, 62], np.float32)
_UAV = np.array([232, 84, 48], np.float32)
_CROWD = np.array([190, 30, 120], np.float32)  # a cell with several UAVs
_OUTLINE = np.array([255, 255, 255], np.float32)
_COVERAGE_BAR = np.array([146, 190, 106], np.float32)


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a picture shows of one environment; maps are ``[H, W]``."""

    vegetation: Array  # float32 in [0, 1)
    blocked: Array  # bool
    monitored: Array  # bool
    position: Array  # int [N, 2], row and column
    sensing_radius: int
    step: int
    max_steps: int

    @property
    def coverage(self) -> float:
        """Share of the free cells that are monitored."""
        return float(self.monitored.sum() / max((~self.blocked).sum(), 1))


def draw(scene: Scene) -> Array:
    """Return uint8 ``[height, width, 3]``: the map, a bar for coverage and a bar for elapsed time.

    Dark green is not monitored yet, light is monitored, brown cannot be entered; discs are UAVs (purple where
    several share a cell), and what they sense is lightened.
    """
    height, width = scene.vegetation.shape
    cell = max(4, _CANVAS // max(height, width))
    density = scene.vegetation[..., None]
    colours = np.where(
        scene.monitored[..., None],
        _KNOWN[0] + density * (_KNOWN[1] - _KNOWN[0]),
        _WILD[0] + density * (_WILD[1] - _WILD[0]),
    )
    colours[scene.blocked] = _BLOCKED
    seen = np.zeros((height, width), bool)
    radius = scene.sensing_radius
    for row, column in scene.position:
        seen[max(row - radius, 0) : row + radius + 1, max(column - radius, 0) : column + radius + 1] = True
    colours[seen] += (255 - colours[seen]) * 0.18
    canvas = colours.repeat(cell, 0).repeat(cell, 1)
    canvas[::cell] *= 0.94  # a thin grid
    canvas[:, ::cell] *= 0.94
    cells, counts = np.unique(scene.position, axis=0, return_counts=True)
    for (row, column), count in zip(cells, counts, strict=True):
        patch = canvas[row * cell : (row + 1) * cell, column * cell : (column + 1) * cell]
        for part, colour in zip(_disc(cell), (_OUTLINE, _UAV if count == 1 else _CROWD), strict=True):
            patch += part[..., None] * (colour - patch)
    bars = [
        bar(canvas.shape[1], scene.coverage, _COVERAGE_BAR),
        bar(canvas.shape[1], scene.step / scene.max_steps, TIME_BAR),
    ]
    picture = np.concatenate([canvas, *bars, np.broadcast_to(BACKGROUND, (GAP, canvas.shape[1], 3))])
    return np.clip(picture, 0, 255).astype(np.uint8)


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

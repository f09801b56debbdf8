"""Pictures of the swarm with NumPy alone: no display, no drawing library."""

from __future__ import annotations

import dataclasses

import numpy as np

from qio_envs.api import Array
from qio_envs.api.drawing import BACKGROUND, GAP, TIME_BAR, bar, disc, line, mark_target, paint

_CANVAS = 560  # pixels of the side of the picture
_MARGIN = 1.08  # half the side of the picture, in radii of the arena
_AGENT = 9.0  # radius of an agent, pixels
_SECONDS = 0.8  # a velocity is drawn as the way that it would lead in this time
_ROWS, _COLUMNS = 21, 43  # of the text

_FLOOR = np.array([40, 48, 54], np.float32)
_LINE = np.array([66, 78, 86], np.float32)
_BORDER = np.array([150, 165, 175], np.float32)
_TARGET = np.array([238, 214, 120], np.float32)
_OUTLINE = np.array([250, 250, 250], np.float32)
_GONE = np.array([92, 100, 106], np.float32)
_TEAMS = np.array(
    [
        [86, 170, 236],
        [236, 112, 72],
        [122, 200, 110],
        [204, 130, 220],
        [226, 190, 84],
        [96, 206, 196],
        [240, 150, 180],
        [150, 130, 240],
        [180, 150, 120],
        [200, 220, 140],
    ],
    np.float32,
)  # then again from the first


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a picture shows of one environment."""

    position: Array  # float [N, 2], units of length, y upwards
    velocity: Array  # float [N, 2], units of length a unit of time
    alive: Array  # bool [N]
    team: Array  # int [N]
    target: Array | None  # float [2]; None where no point counts
    out_radius: float
    score: float
    step: int
    max_steps: int


def draw(scene: Scene) -> Array:
    """Return uint8 ``[582, 560, 3]``: the arena, its target, the agents, and a bar for elapsed time.

    Agents are discs in the colour of their team, with a line for their velocity; those that have left are grey.
    The inner rings are at quarters of the radius beyond which an agent is out.
    """
    half = _MARGIN * scene.out_radius
    scale = _CANVAS / (2 * half)  # pixels a unit of length
    axis = ((np.arange(_CANVAS) + 0.5) / scale - half).astype(np.float32)
    x, y = axis[None, :], -axis[:, None]
    canvas = np.broadcast_to(BACKGROUND, (_CANVAS, _CANVAS, 3)).copy()
    radius = np.hypot(x, y)
    paint(canvas, _FLOOR, (scene.out_radius - radius) * scale + 0.5)
    for quarter in (0.25, 0.5, 0.75):
        paint(canvas, _LINE, 1.0 - np.abs(radius - quarter * scene.out_radius) * scale)
    paint(canvas, _BORDER, 1.7 - np.abs(radius - scene.out_radius) * scale)
    if scene.target is not None:
        mark_target(canvas, _TARGET, _pixel(scene.target, half, scale))
    for n in _bottom_up(scene):
        centre = _pixel(scene.position[n], half, scale)
        colour = _TEAMS[scene.team[n] % len(_TEAMS)] if scene.alive[n] else _GONE
        if scene.alive[n]:
            tip = centre + scene.velocity[n] * np.array([1, -1]) * _SECONDS * scale
            line(canvas, colour, centre, tip, 4.0)
        disc(canvas, colour, _OUTLINE if scene.alive[n] else _LINE, centre, _AGENT)
    time = bar(_CANVAS, scene.step / scene.max_steps, TIME_BAR)
    picture = np.concatenate([canvas, time, np.broadcast_to(BACKGROUND, (GAP, _CANVAS, 3))])
    return np.clip(picture, 0, 255).astype(np.uint8)


def draw_text(scene: Scene) -> str:
    """Return the arena as lines of text: ``.`` inside, ``+`` the target, agents by number, ``x`` where one left."""
    half = _MARGIN * scene.out_radius
    rows = half - (np.arange(_ROWS) + 0.5) * 2 * half / _ROWS
    columns = (np.arange(_COLUMNS) + 0.5) * 2 * half / _COLUMNS - half
    marks = np.where(np.hypot(rows[:, None], columns) <= scene.out_radius, ".", " ").astype("<U3")

    def put(point: Array, mark: str) -> None:
        row = int((half - point[1]) / (2 * half) * _ROWS)
        column = int((point[0] + half) / (2 * half) * _COLUMNS)
        marks[min(max(row, 0), _ROWS - 1), min(max(column, 0), _COLUMNS - 1)] = mark

    if scene.target is not None:
        put(scene.target, "+")
    for n in _bottom_up(scene):
        put(scene.position[n], str(n % 10) if scene.alive[n] else "x")
    living = f"{int(scene.alive.sum())} of {len(scene.alive)} agents"
    status = f"step {scene.step}/{scene.max_steps}  score {scene.score:.1f}  {living}"
    return "\n".join([*("".join(letters).rstrip() for letters in marks), status])


def _bottom_up(scene: Scene) -> list[int]:
    """Return the agents in the order in which they are drawn: the living on top, the first of them last."""
    return sorted(range(len(scene.alive)), key=lambda n: (bool(scene.alive[n]), -n))


def _pixel(point: Array, half: float, scale: float) -> Array:
    """Return where a point lies in the picture: column and row."""
    return np.array([(point[0] + half) * scale, (half - point[1]) * scale])

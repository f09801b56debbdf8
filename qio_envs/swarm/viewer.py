"""Pictures of the swarm with NumPy alone: no display, no drawing library."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from qio_envs.api import Array
from qio_envs.api.drawing import (
    BACKGROUND,
    TIME_BAR,
    Entry,
    disc,
    draw_message,
    gauges,
    legend,
    line,
    mark_target,
    message_entries,
    paint,
    square,
    thin_line,
)
from qio_envs.api.lettering import write_centred

_CANVAS = 560  # pixels of the side of the picture
_MARGIN = 1.08  # half the side of the picture, in radii of the arena
_AGENT = 12.0  # radius of an agent, pixels
_SECONDS = 0.8  # a velocity is drawn as the way that it would lead in this time
_SEGMENT = 2  # steps between two points of a trail that are joined
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

    task: str  # cooperative, competitive or mixed
    position: Array  # float [N, 2], units of length, y upwards
    trail: Array  # float [N, K, 2], positions after the last K steps, the latest last
    velocity: Array  # float [N, 2], units of length a unit of time
    alive: Array  # bool [N]
    team: Array  # int [N]
    informed: Array  # bool [N], observes a target that is drawn at reset
    target: Array | None  # float [2]; None where no point counts
    out_radius: float
    sensing_range: float | None  # at which others are no longer observed; None for no limit
    score: float
    step: int
    max_steps: int
    messages: Array | None = None  # float [N, B] in [-1, 1], told in the last step; None where nobody talks


def draw(scene: Scene) -> Array:
    """Return uint8 ``[h, 560, 3]``, ``h`` as the legend needs: step and score, the arena with its agents, the legend.

    Agents are discs with their numbers in the colour of their team, squares where they observe a target that others do
    not; the line ahead is the velocity, the fading line behind where they were in the last 15 steps. Those that have
    left are grey. The inner rings are at quarters of the radius beyond which an agent is out. With ``sensing_range``
    thin lines join agents that are near enough to observe each other. What an agent told the others in the last step
    stands above it, a cell for each number.
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
    for one, other in _observing(scene):
        seer, seen = (_pixel(scene.position[n], half, scale) for n in (one, other))
        thin_line(canvas, _BORDER, seer, seen, 0.5)
    for n in _bottom_up(scene):
        centre = _pixel(scene.position[n], half, scale)
        if not scene.alive[n]:
            disc(canvas, _GONE, _LINE, centre, _AGENT)
            continue
        colour = _TEAMS[scene.team[n] % len(_TEAMS)]
        points = [*scene.trail[n, :-1][::_SEGMENT], scene.position[n]]
        for place, (start, end) in enumerate(itertools.pairwise(points)):
            if (start != end).any():
                first, last = (_pixel(point, half, scale) for point in (start, end))
                line(canvas, colour, first, last, 3.0, 0.8 * (place + 1) / len(points))
        speed = float(np.hypot(*scene.velocity[n]))
        if speed > 0:
            way = scene.velocity[n] * np.array([1, -1]) / speed * (_AGENT + speed * _SECONDS * scale)
            line(canvas, _OUTLINE, centre, centre + way, 3.0)
        (square if scene.informed[n] else disc)(canvas, colour, _OUTLINE, centre, _AGENT)
        write_centred(canvas, str(n), centre, _OUTLINE, 2 if n < 10 else 1)
        if scene.messages is not None and scene.step > 0:
            draw_message(canvas, scene.messages[n], centre - np.array([0, _AGENT + 7]))
    head = gauges(
        _CANVAS,
        (f"step {scene.step}/{scene.max_steps}", scene.step / scene.max_steps, TIME_BAR),
        (f"score {scene.score:.1f}", None, TIME_BAR),
    )
    picture = np.concatenate([head, canvas, legend(_CANVAS, _entries(scene))])
    return np.clip(picture, 0, 255).astype(np.uint8)


def _entries(scene: Scene) -> list[Entry]:
    """Return the legend; what cannot occur is left out."""
    if scene.task == "mixed":
        teams = [("disc", _TEAMS[0], "team A, scored"), ("disc", _TEAMS[1], "team B")]
    elif scene.task == "competitive":
        teams = [("disc", _TEAMS[0], "agent 0, scored"), ("disc", _TEAMS[1], "others")]
    else:
        teams = [("disc", _TEAMS[0], "agent")]
    return [
        *teams,
        *([("square", _TEAMS[0], "knows the target")] if scene.informed.any() else []),
        *([("ring", _TARGET, "target")] if scene.target is not None else []),
        *([("line", _BORDER, "in sight")] if scene.sensing_range else []),
        ("line", _OUTLINE, "velocity"),
        ("line", _TEAMS[0], "last 15 steps"),
        ("disc", _GONE, "has left"),
        *message_entries(scene.messages),
    ]


def _observing(scene: Scene) -> Array:
    """Return pairs of living agents within ``sensing_range``, int ``[P, 2]``; none without a limit."""
    if not scene.sensing_range:
        return np.empty((0, 2), int)
    away = np.linalg.norm(scene.position[:, None] - scene.position, axis=-1)
    near = (away < scene.sensing_range) & scene.alive[:, None] & scene.alive
    return np.argwhere(np.triu(near, 1))


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

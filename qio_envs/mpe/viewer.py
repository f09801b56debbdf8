"""Pictures of the particle environments with NumPy alone: no display, no drawing library."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from qio_envs.api import Array
from qio_envs.api.drawing import (
    BACKGROUND,
    GAP,
    QUIET,
    TIME_BAR,
    Entry,
    disc,
    draw_message,
    gauges,
    legend,
    line,
    message_entries,
    paint,
    patch,
)
from qio_envs.api.lettering import write, write_centred

_CANVAS = 560  # pixels of the side of the picture
_HALF = 1.25  # half the side of what is shown at least, units of length
_MARGIN = 0.1  # around the outermost entity, units of length
_SECONDS = 0.25  # a velocity is drawn as the way that it would lead in this time
_LETTERED = 10.0  # least radius of an agent with a large number, pixels
_BOX = 14  # side of a symbol's box, pixels
_ABOVE = 7  # from an agent's edge to the middle of its message, pixels
_ROWS, _COLUMNS = 21, 43  # of the text

_FLOOR = np.array([40, 48, 54], np.float32)
_LINE = np.array([66, 78, 86], np.float32)
_BORDER = np.array([150, 165, 175], np.float32)
_GOAL = np.array([238, 214, 120], np.float32)
_OUTLINE = np.array([250, 250, 250], np.float32)
LANDMARK = np.array([150, 158, 164], np.float32)
"""Colour of a landmark that looks like all others."""
PRIMARY = np.array([[226, 92, 84], [96, 196, 104], [92, 132, 236]], np.float32)
"""Colours of three landmarks that differ: red, green, blue; ``[3, 3]``."""
FOOD, FOREST = np.array([120, 140, 240], np.float32), np.array([70, 120, 74], np.float32)
_GOOD = np.array(
    [[86, 170, 236], [96, 206, 196], [180, 150, 240], [150, 210, 110], [200, 220, 140]], np.float32
)  # then again from the first
_ADVERSARY = np.array([[236, 84, 72], [240, 140, 70], [236, 110, 150], [210, 90, 60]], np.float32)


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a picture shows of one environment; entities are agents, then landmarks."""

    position: Array  # float [M, 2], units of length, y upwards
    velocity: Array  # float [N, 2], units of length a unit of time
    radius: Array  # float [M]
    adversary: Array  # bool [N]
    movable: Array  # bool [N]
    solid: Array  # bool [M], whether others collide with it
    landmark_colour: Array  # float [M - N, 3]
    aims: tuple[tuple[int, int], ...]  # an agent, or -1, and a landmark by number, which is marked for it
    messages: Mapping[int, Array]  # what those who speak have said, float [C] each, by agent
    names: tuple[str, ...]  # of the agents
    score: float
    step: int
    max_steps: int
    told: Array | None = (
        None  # float [N, B] in [-1, 1], what a policy told others in the last step; None without
    )


def draw(scene: Scene) -> Array:
    """Return uint8 ``[h, 560, 3]``, ``h`` as the legend needs: step and score, the scene, the legend.

    Agents are outlined discs with their numbers and a line for their velocity: red and orange for adversaries, blue
    and green for others.
    What is solid has a light border; landmarks that are goals have yellow rings, with a line to the agent
    that is to go there. Messages are rows of boxes, a box for each symbol, between the colour and the name of who
    speaks; what a policy tells others beside its actions stands above the agent, a cell for each number.
    The square is that in which agents start.
    """
    half = _extent(scene)
    scale = _CANVAS / (2 * half)  # pixels a unit of length
    canvas = np.broadcast_to(BACKGROUND, (_CANVAS, _CANVAS, 3)).copy()
    axis = ((np.arange(_CANVAS) + 0.5) / scale - half).astype(np.float32)
    border = np.maximum(np.abs(axis[None, :]), np.abs(axis[:, None])) - 1.0
    paint(canvas, _FLOOR, 0.5 - border * scale)
    paint(canvas, _LINE, 1.5 - np.abs(border) * scale)
    agents = len(scene.velocity)
    centre = np.stack([(scene.position[:, 0] + half) * scale, (half - scene.position[:, 1]) * scale], axis=1)
    for m in sorted(range(agents, len(centre)), key=lambda m: -scene.radius[m]):
        colour = scene.landmark_colour[m - agents]
        outline = _BORDER if scene.solid[m] else colour
        disc(canvas, colour, outline, centre[m], max(scene.radius[m] * scale, 4.0))
    for agent, landmark in scene.aims:
        place = centre[agents + landmark]
        if agent >= 0:
            line(canvas, 0.6 * _colour(scene, agent), centre[agent], place, 2.0)
        _ring(canvas, place, scene.radius[agents + landmark] * scale + 6.0)
    for n in reversed(range(agents)):
        colour = _colour(scene, n)
        radius = max(scene.radius[n] * scale, 5.0)
        speed = float(np.hypot(*scene.velocity[n]))
        if scene.movable[n] and speed > 0:
            way = scene.velocity[n] * np.array([1, -1]) / speed * (radius + speed * _SECONDS * scale)
            line(canvas, _OUTLINE, centre[n], centre[n] + way, 2.0)
        disc(
            canvas,
            colour,
            _OUTLINE if scene.movable[n] else _BORDER,
            centre[n],
            radius,
        )
        write_centred(canvas, str(n), centre[n], _OUTLINE, 2 if radius >= _LETTERED else 1)
    if scene.told is not None and scene.step > 0:
        for n, message in enumerate(scene.told):
            draw_message(
                canvas, message, centre[n] - np.array([0, max(scene.radius[n] * scale, 5.0) + _ABOVE])
            )
    _draw_messages(canvas, scene)
    head = gauges(
        _CANVAS,
        (f"step {scene.step}/{scene.max_steps}", scene.step / scene.max_steps, TIME_BAR),
        (f"score {scene.score:.1f}", None, TIME_BAR),
    )
    picture = np.concatenate([head, canvas, legend(_CANVAS, _entries(scene))])
    return np.clip(picture, 0, 255).astype(np.uint8)


def draw_text(scene: Scene) -> str:
    """Return the scene as lines of text: agents by number, landmarks by letter, those that are goals in capitals.

    ``.`` is the square in which agents start. Messages stand below, as the symbol that is loudest.
    """
    half = _extent(scene)
    rows = half - (np.arange(_ROWS) + 0.5) * 2 * half / _ROWS
    columns = (np.arange(_COLUMNS) + 0.5) * 2 * half / _COLUMNS - half
    inside = np.maximum(np.abs(rows[:, None]), np.abs(columns)) <= 1.0
    marks = np.where(inside, ".", " ").astype("<U1")
    agents, goals = len(scene.velocity), {landmark for _, landmark in scene.aims}
    for m in reversed(range(len(scene.position))):
        x, y = scene.position[m]
        mark = str(m % 10) if m < agents else chr(ord("a") + (m - agents) % 26)
        row, column = int((half - y) / (2 * half) * _ROWS), int((x + half) / (2 * half) * _COLUMNS)
        marks[row, column] = mark.upper() if m - agents in goals else mark
    words = [
        f"{scene.names[n]} says {int(message.argmax()) if message.any() else 'nothing'}"
        for n, message in scene.messages.items()
    ]
    status = "  ".join([f"step {scene.step}/{scene.max_steps}", f"score {scene.score:.1f}", *words])
    return "\n".join([*("".join(letters).rstrip() for letters in marks), status])


def _entries(scene: Scene) -> list[Entry]:
    """Return the legend; what the task does not have is left out."""
    looks = [
        (LANDMARK, "landmark"),
        (PRIMARY[0], "landmark"),
        (PRIMARY[1], "landmark"),
        (PRIMARY[2], "landmark"),
        (FOOD, "food"),
        (FOREST, "forest"),
    ]
    here = [
        ("disc", colour, name)
        for colour, name in looks
        if (scene.landmark_colour == colour).all(axis=-1).any()
    ]
    landmarks = list({name: ("disc", colour, name) for _, colour, name in reversed(here)}.values())
    return [
        *([] if scene.adversary.all() else [("disc", _GOOD[0], "agent")]),
        *([("disc", _ADVERSARY[0], "adversary")] if scene.adversary.any() else []),
        *reversed(landmarks),
        *([("ring", _GOAL, "goal")] if scene.aims else []),
        ("line", _OUTLINE, "velocity"),
        *message_entries(scene.told),
    ]


def _extent(scene: Scene) -> float:
    """Return half the side of what is shown, which grows with the outermost entity."""
    return max(_HALF, float(np.abs(scene.position).max()) + _MARGIN)


def _colour(scene: Scene, agent: int) -> Array:
    adversaries = int(scene.adversary.sum())
    if scene.adversary[agent]:
        return _ADVERSARY[agent % len(_ADVERSARY)]
    return _GOOD[(agent - adversaries) % len(_GOOD)]


def _ring(canvas: Array, centre: Array, radius: float) -> None:
    part, columns, rows = patch(canvas, centre - radius - 2, centre + radius + 2)
    paint(part, _GOAL, 2.0 - np.abs(np.hypot(columns - centre[0], rows - centre[1]) - radius))


def _draw_messages(canvas: Array, scene: Scene) -> None:
    for row, (n, message) in enumerate(scene.messages.items()):
        top = GAP + row * (_BOX + 4)
        canvas[top : top + _BOX, GAP : GAP + _BOX] = _colour(scene, n)
        for c, loudness in enumerate(message):
            left = GAP + (c + 1) * (_BOX + 4) + 6
            box = canvas[top : top + _BOX, left : left + _BOX]
            box[:] = _LINE
            box[2:-2, 2:-2] = BACKGROUND + float(np.clip(loudness, 0, 1)) * (_OUTLINE - BACKGROUND)
        write(canvas, f"{scene.names[n]} says", (top, GAP + (len(message) + 1) * (_BOX + 4) + 12), QUIET)

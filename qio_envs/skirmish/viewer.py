"""Pictures of the skirmish with NumPy alone: no display, no drawing library."""

from __future__ import annotations

import dataclasses

import numpy as np

from qio_envs.api import Array
from qio_envs.api.drawing import (
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
from qio_envs.api.lettering import write_centred
from qio_envs.skirmish.config import FIRST_ATTACK, UNITS
from qio_envs.skirmish.kernels.sides import attacked

_CANVAS = 640  # pixels of the longer side of the map
_GRID = 4  # units of length between the lines of the floor
_RADIUS = 10.0  # of a unit at least, pixels, so that its letter can be read
_WIDE = 560  # pixels of a map beside whose step and score there is room for the teams
_CELLS = 24  # of the text along the longer side of the map, two letters wide

_FLOOR = np.array([40, 48, 54], np.float32)
_LINE = np.array([50, 59, 66], np.float32)
_BORDER = np.array([150, 165, 175], np.float32)
_OUTLINE = np.array([20, 24, 26], np.float32)
_LETTER = np.array([250, 250, 250], np.float32)
_GONE = np.array([92, 100, 106], np.float32)
_TEAMS = np.array([[86, 170, 236], [236, 112, 72]], np.float32)
_GOOD, _BAD = np.array([122, 200, 110], np.float32), np.array([232, 84, 74], np.float32)

_LETTERS = [unit.letter for unit in UNITS.values()]
_RADII = np.array([unit.radius for unit in UNITS.values()])


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a picture shows of one environment; ``U`` units, allies first."""

    position: Array  # float [U, 2], units of length, y upwards
    kind: Array  # int [U], index in UNITS
    alive: Array  # bool [U]
    health: Array  # float [U], share of that at the start
    action: Array  # int [U], of the last step
    num_allies: int
    size: tuple[int, int]  # width and height of the map, units of length
    score: float
    step: int
    max_steps: int
    enemy_agents: bool = False  # whether enemies are agents too; the script counts allies from the last on
    enemy_score: float = 0.0  # where they are
    messages: Array | None = (
        None  # float [N, B] in [-1, 1], told by agents in the last step; None where nobody talks
    )

    @property
    def teams(self) -> tuple[slice, slice]:
        """Units of the allies and of the enemies."""
        return slice(0, self.num_allies), slice(self.num_allies, len(self.alive))

    def target(self, unit: int) -> int | None:
        """Return the living unit that a unit attacked in the last step; None if it attacked none."""
        action = int(self.action[unit])
        if action < FIRST_ATTACK or not self.alive[unit]:
            return None
        target = attacked(action, unit, self.num_allies, not self.enemy_agents)
        return target if self.alive[target] else None

    @property
    def scores(self) -> str:
        """What the sides have earned, in words."""
        return (
            f"{self.score:.2f} to {self.enemy_score:.2f}" if self.enemy_agents else f"score {self.score:.2f}"
        )


def draw(scene: Scene) -> Array:
    """Return uint8 ``[h, w, 3]``, 640 pixels along the longer side of the map: what the teams have left, map, legend.

    Allies are blue, enemies orange. A unit is a disc with the letter of its type, of its size or a little larger, with
    its health as a bar above, above that what a policy told the others, and a line to what it attacks. Crosses are
    where units fell. The bars of the teams are their health.
    """
    scale = _CANVAS / max(scene.size)
    width, height = (round(side * scale) for side in scene.size)
    canvas = np.broadcast_to(_FLOOR, (height, width, 3)).copy()
    for place in np.arange(_GRID, max(scene.size), _GRID) * scale:
        canvas[height - 1 - round(place) : height - round(place)] = _LINE
        canvas[:, round(place) : round(place) + 1] = _LINE
    for edge in (np.s_[:2], np.s_[-2:], np.s_[:, :2], np.s_[:, -2:]):
        canvas[edge] = _BORDER
    centres = np.stack([scene.position[:, 0] * scale, height - scene.position[:, 1] * scale], axis=1)
    order = np.argsort(scene.alive, kind="stable")
    for unit in order:
        if not scene.alive[unit]:
            _cross(canvas, _shade(scene, unit), centres[unit])
    for unit in order:
        target = scene.target(unit)
        if target is not None:
            line(canvas, _shade(scene, unit) * 0.75, centres[unit], centres[target], 1.5)
    for unit in order[scene.alive[order]]:
        radius = max(_RADII[scene.kind[unit]] * scale, _RADIUS)
        disc(canvas, _shade(scene, unit), _OUTLINE, centres[unit], radius)
        write_centred(canvas, _LETTERS[scene.kind[unit]], centres[unit], _LETTER)
    for unit in order[scene.alive[order]]:
        radius = max(_RADII[scene.kind[unit]] * scale, _RADIUS)
        _health(canvas, float(scene.health[unit]), centres[unit] - np.array([0, radius + 4]), radius)
    if scene.messages is not None and scene.step > 0:
        for unit in np.flatnonzero(scene.alive[: len(scene.messages)]):
            radius = max(_RADII[scene.kind[unit]] * scale, _RADIUS)
            draw_message(canvas, scene.messages[unit], centres[unit] - np.array([0, radius + 13]))
    items = [
        (f"step {scene.step}/{scene.max_steps}", scene.step / scene.max_steps, TIME_BAR),
        (scene.scores, None, TIME_BAR),
    ]
    for name, team, colour in zip(("allies", "enemies"), scene.teams, _TEAMS, strict=True):
        left = f"{name} {int(scene.alive[team].sum())}/{len(scene.alive[team])}"
        items.append((left, min(float(scene.health[team].mean()), 1.0), colour))
    rows = [items] if width >= _WIDE else [items[:2], items[2:]]
    head = [gauges(width, *row) for row in rows]
    picture = np.concatenate([*head, canvas, legend(width, _entries(scene))])
    return np.clip(picture, 0, 255).astype(np.uint8)


def _entries(scene: Scene) -> list[Entry]:
    """Return the legend, with the types of units that there are."""
    names = list(UNITS)
    units = ", ".join(f"{_LETTERS[kind]} {names[kind]}" for kind in np.unique(scene.kind))
    return [
        ("disc", _TEAMS[0], "ally"),
        ("disc", _TEAMS[1], "enemy"),
        ("line", _TEAMS[0] * 0.75, "attacks"),
        ("cross", _GONE, "fell"),
        ("cell", _GOOD, "health"),
        ("text", _LETTER, units),
        *message_entries(scene.messages),
    ]


def draw_text(scene: Scene) -> str:
    """Return the map as lines of text: allies as the letters of their types, enemies with ``'``, ``x`` the fallen."""
    width, height = scene.size
    columns, rows = (max(round(_CELLS * side / max(scene.size)), 1) for side in scene.size)
    marks = np.full((rows, columns), " .", "<U2")
    for unit in np.argsort(scene.alive, kind="stable"):
        row = int((1 - scene.position[unit, 1] / height) * rows)
        column = int(scene.position[unit, 0] / width * columns)
        mark = _LETTERS[scene.kind[unit]] if scene.alive[unit] else "x"
        mark = f"{mark}'" if scene.alive[unit] and unit >= scene.num_allies else f" {mark}"
        marks[min(max(row, 0), rows - 1), min(max(column, 0), columns - 1)] = mark
    ours, theirs = scene.alive[: scene.num_allies], scene.alive[scene.num_allies :]
    status = (
        f"step {scene.step}/{scene.max_steps}  {scene.scores}  "
        f"allies {int(ours.sum())} of {len(ours)}  enemies {int(theirs.sum())} of {len(theirs)}"
    )
    return "\n".join([*("".join(row).rstrip() for row in marks), status])


def _shade(scene: Scene, unit: int) -> Array:
    """Return the colour of a unit's team."""
    return _TEAMS[int(unit >= scene.num_allies)]


def _cross(canvas: Array, colour: Array, centre: Array) -> None:
    for arm in (np.array([4.0, 4.0]), np.array([4.0, -4.0])):
        line(canvas, (colour + 2 * _GONE) / 3, centre - arm, centre + arm, 1.5)


def _health(canvas: Array, share: float, centre: Array, half: float) -> None:
    """Draw a bar that is full at the health of the start, green there and red near death."""
    for end, colour in ((1.0, _OUTLINE), (min(share, 1.0), share * _GOOD + (1 - share) * _BAD)):
        low = centre - np.array([half, 1.5])
        high = centre + np.array([(2 * end - 1) * half, 1.5])
        part, columns, rows = patch(canvas, low, high)
        inside = np.minimum(columns - low[0], high[0] - columns) + 0.5
        paint(part, colour, np.minimum(inside, np.minimum(rows - low[1], high[1] - rows) + 0.5))

"""Pictures of the greedy casino with NumPy alone: no display, no drawing library."""

from __future__ import annotations

import dataclasses

import numpy as np

from qio_envs.api import Array
from qio_envs.api.drawing import BACKGROUND, GAP, TIME_BAR, bar, disc, mark_target

_WIDTH, _HEIGHT = 480, 320  # pixels of the table, without the bars
_COLUMNS = (140, 340)  # where the machines stand
_ROW = 170
_HALF = (62, 92)  # half of a machine's width and height, pixels

_BODY = np.array([66, 78, 86], np.float32)
_DARK = np.array([40, 48, 54], np.float32)
_OUTLINE = np.array([250, 250, 250], np.float32)
_INTENT = np.array([238, 214, 120], np.float32)
_WON = np.array([122, 200, 110], np.float32)
_LOST = np.array([206, 84, 84], np.float32)
_LIGHT = np.array([120, 200, 240], np.float32)
_MARKS = (0.15, 0.30, 0.45)  # on the bar of payouts


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a picture shows of one environment."""

    drunk: bool  # in the round to come
    blinking: bool  # in the round to come
    intent: int  # in the round to come
    intended: int  # in the last round; -1 before the first
    machine: int  # in the last round; -1 before the first
    paid: bool
    payouts: int
    played: int  # rounds so far
    rounds: int  # rounds of the episode


def draw(scene: Scene) -> Array:
    """Return uint8 ``[358, 480, 3]``: the two machines, a bar for the share of rounds that paid, one for elapsed ones.

    The frame around a machine is the last choice, green if it paid and red if not. The cross is on the machine that the
    agent intends to play next. Lamps are lit while the machines blink, the small disc below is there while the agent is
    drunk; both are hidden from it. The marks on the bar of payouts are those of intuition, of every policy that does
    not know the intention, and of the best that does.
    """
    canvas = np.broadcast_to(BACKGROUND, (_HEIGHT, _WIDTH, 3)).copy()
    for index, column in enumerate(_COLUMNS):
        if index == scene.machine:
            _box(canvas, _WON if scene.paid else _LOST, column, _ROW, _HALF[0] + 8, _HALF[1] + 8)
        _box(canvas, _BODY, column, _ROW, *_HALF)
        _box(canvas, _DARK, column, _ROW, _HALF[0] - 14, 34)
        lamp = np.array([column, _ROW - _HALF[1] + 26.0])
        disc(canvas, _LIGHT if scene.blinking else _DARK, _OUTLINE, lamp, 14.0)
    mark_target(canvas, _INTENT, np.array([float(_COLUMNS[scene.intent]), float(_ROW)]))
    if scene.drunk:
        disc(canvas, _INTENT, _OUTLINE, np.array([_WIDTH / 2, _HEIGHT - 24.0]), 12.0)
    paid = bar(_WIDTH, scene.payouts / scene.played if scene.played else 0.0, _WON)
    for mark in _MARKS:
        place = GAP + round(mark * (_WIDTH - 2 * GAP))
        paid[GAP - 3 :, place - 1 : place + 1] = _INTENT
    time = bar(_WIDTH, scene.played / scene.rounds, TIME_BAR)
    picture = np.concatenate([canvas, paid, time, np.broadcast_to(BACKGROUND, (GAP, _WIDTH, 3))])
    return np.clip(picture, 0, 255).astype(np.uint8)


def draw_text(scene: Scene) -> str:
    """Return the last round, what is hidden in the next one, and the score as lines of text."""
    lines = []
    if scene.played:
        result = "paid" if scene.paid else "nothing"
        lines.append(f"intended {scene.intended}  played {scene.machine}: {result}")
    lines.append(f"next: drunk {scene.drunk:d}  blinking {scene.blinking:d}  intends {scene.intent}")
    return "\n".join([*lines, f"round {scene.played}/{scene.rounds}  paid {scene.payouts}"])


def _box(canvas: Array, colour: Array, column: int, row: int, width: int, height: int) -> None:
    canvas[row - height : row + height, column - width : column + width] = colour

"""Pictures of the greedy casino with NumPy alone: no display, no drawing library."""

from __future__ import annotations

import dataclasses

import numpy as np

from qio_envs.api import Array
from qio_envs.api.drawing import (
    BACKGROUND,
    TEXT,
    TIME_BAR,
    Entry,
    disc,
    gauges,
    legend,
    mark_target,
    scale_bar,
)
from qio_envs.api.lettering import write_centred

_WIDTH, _HEIGHT = 480, 260  # pixels of the table
_COLUMNS = (140, 340)  # where the machines stand
_ROW = 140
_HALF = (62, 92)  # half of a machine's width and height, pixels

_BODY = np.array([66, 78, 86], np.float32)
_DARK = np.array([40, 48, 54], np.float32)
_OUTLINE = np.array([250, 250, 250], np.float32)
_INTENT = np.array([238, 214, 120], np.float32)
_WON = np.array([122, 200, 110], np.float32)
_LOST = np.array([206, 84, 84], np.float32)
_LIGHT = np.array([120, 200, 240], np.float32)
_MARKS = (
    (0.15, "intuition 0.15"),
    (0.30, "intention unknown 0.30"),
    (0.45, "best 0.45"),
)  # on the axis of payouts
_LEGEND: tuple[Entry, ...] = (
    ("frame", _WON, "played, paid"),
    ("frame", _LOST, "played, nothing"),
    ("ring", _INTENT, "intends next"),
    ("disc", _LIGHT, "blinking (hidden)"),
    ("disc", _INTENT, "drunk (hidden)"),
)


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
    """Return uint8 ``[h, 480, 3]``: rounds so far, the two machines, the legend, and the share of rounds that paid.

    The frame around a machine is the last choice, green if it paid and red if not. The cross is on the machine that the
    agent intends to play next. Lamps are lit while the machines blink, the small disc below is there while the agent is
    drunk; both are hidden from it. On the axis of payouts are those of intuition, of every policy that does not know
    the intention, and of the best that does.
    """
    canvas = np.broadcast_to(BACKGROUND, (_HEIGHT, _WIDTH, 3)).copy()
    for index, column in enumerate(_COLUMNS):
        if index == scene.machine:
            _box(canvas, _WON if scene.paid else _LOST, column, _ROW, _HALF[0] + 8, _HALF[1] + 8)
        _box(canvas, _BODY, column, _ROW, *_HALF)
        _box(canvas, _DARK, column, _ROW, _HALF[0] - 14, 34)
        lamp = np.array([column, _ROW - _HALF[1] + 26.0])
        disc(canvas, _LIGHT if scene.blinking else _DARK, _OUTLINE, lamp, 14.0)
        write_centred(canvas, f"machine {index}", np.array([column, _ROW + _HALF[1] - 28.0]), TEXT)
        if index == scene.machine:
            result = "paid" if scene.paid else "nothing"
            write_centred(
                canvas, result, np.array([column, _ROW - _HALF[1] - 24.0]), _WON if scene.paid else _LOST
            )
    mark_target(canvas, _INTENT, np.array([float(_COLUMNS[scene.intent]), float(_ROW)]))
    if scene.drunk:
        disc(canvas, _INTENT, _OUTLINE, np.array([_WIDTH / 2, _HEIGHT - 24.0]), 12.0)
    share = scene.payouts / scene.played if scene.played else 0.0
    head = gauges(
        _WIDTH,
        (f"round {scene.played}/{scene.rounds}", scene.played / scene.rounds, TIME_BAR),
        (f"paid {scene.payouts} of {scene.played}", None, TIME_BAR),
    )
    paid = scale_bar(_WIDTH, f"payout rate {share:.3f}", share, _WON, _MARKS)
    picture = np.concatenate([head, canvas, legend(_WIDTH, _LEGEND), paid])
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

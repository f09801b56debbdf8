"""Pictures of the CHSH game with NumPy alone: no display, no drawing library."""

from __future__ import annotations

import dataclasses

import numpy as np

from qio_envs.api import Array
from qio_envs.api.drawing import BACKGROUND, GAP, TIME_BAR, bar

_WIDTH, _HEIGHT = 480, 320  # pixels of the table, without the bars
_COLUMNS = (120, 360)  # where Alice and Bob sit
_ROWS = (90, 230)  # question and answer
_LABEL = 40  # half the side of a card, pixels

_CARD = np.array([40, 48, 54], np.float32)
_EMPTY = np.array([66, 78, 86], np.float32)
_QUESTION = np.array([238, 214, 120], np.float32)
_AGENTS = (np.array([86, 170, 236], np.float32), np.array([236, 112, 72], np.float32))
_WON = np.array([122, 200, 110], np.float32)
_LOST = np.array([206, 84, 84], np.float32)
_CLASSICAL, _QUANTUM = 0.75, float(np.cos(np.pi / 8) ** 2)  # marks on the bar of rounds won


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a picture shows of one environment; Alice comes first."""

    question: Array  # int [2], of the round to come
    asked: Array  # int [2], of the last round; -1 before the first
    answer: Array  # int [2], of the last round; -1 before the first
    wins: int
    played: int  # rounds so far
    rounds: int  # rounds of the episode

    @property
    def won(self) -> bool | None:
        """Whether the last round was won; None before the first."""
        if self.played == 0:
            return None
        return bool((self.answer[0] ^ self.answer[1]) == (self.asked[0] & self.asked[1]))


def draw(scene: Scene) -> Array:
    """Return uint8 ``[358, 480, 3]``: the last round, a bar for the share of rounds won, one for elapsed rounds.

    Alice is on the left, Bob on the right; the question is above, the answer below: a ring is 0, a stroke 1. Before
    the first round its questions are shown. The frame is green if the round was won and red if not. The marks on the
    bar of rounds won are the classical and the quantum bound.
    """
    canvas = np.broadcast_to(BACKGROUND, (_HEIGHT, _WIDTH, 3)).copy()
    first = scene.won is None
    frame = _EMPTY if first else (_WON if scene.won else _LOST)
    middle = np.array([_WIDTH / 2, _HEIGHT / 2])
    _box(canvas, frame, middle, np.array([_WIDTH / 2 - GAP, _HEIGHT / 2 - GAP]))
    _box(canvas, BACKGROUND, middle, np.array([_WIDTH / 2 - GAP - 5, _HEIGHT / 2 - GAP - 5]))
    _box(canvas, _EMPTY, middle, np.array([1.5, _HEIGHT / 2 - 30]))  # they cannot talk
    questions = scene.question if first else scene.asked
    for column, colour, question, answer in zip(_COLUMNS, _AGENTS, questions, scene.answer, strict=True):
        _box(canvas, _EMPTY, np.array([column, sum(_ROWS) / 2]), np.array([2.0, 40.0]))
        _card(canvas, np.array([column, _ROWS[0]]), _QUESTION, int(question))
        _card(canvas, np.array([column, _ROWS[1]]), colour, int(answer))
    share = scene.wins / scene.played if scene.played else 0.0
    won = bar(_WIDTH, share, _WON)
    for bound in (_CLASSICAL, _QUANTUM):
        place = GAP + round(bound * (_WIDTH - 2 * GAP))
        won[GAP - 3 :, place - 1 : place + 1] = _QUESTION
    time = bar(_WIDTH, scene.played / scene.rounds, TIME_BAR)
    picture = np.concatenate([canvas, won, time, np.broadcast_to(BACKGROUND, (GAP, _WIDTH, 3))])
    return np.clip(picture, 0, 255).astype(np.uint8)


def draw_text(scene: Scene) -> str:
    """Return the last round and the score as lines of text; before the first round its questions."""
    if scene.won is None:
        lines = [f"alice x={scene.question[0]}  bob y={scene.question[1]}"]
    else:
        (x, y), (a, b) = scene.asked, scene.answer
        result = "won" if scene.won else "lost"
        lines = [
            f"alice x={x} a={a}  bob y={y} b={b}",
            f"a XOR b = {a ^ b}, x AND y = {x & y}: {result}",
        ]
    return "\n".join([*lines, f"round {scene.played}/{scene.rounds}  won {scene.wins}"])


def _box(canvas: Array, colour: Array, centre: Array, half: Array) -> None:
    left, top = np.round(centre - half).astype(int)
    right, bottom = np.round(centre + half).astype(int)
    canvas[top:bottom, left:right] = colour


def _card(canvas: Array, centre: Array, colour: Array, bit: int) -> None:
    """Draw a card with a ring for 0, a stroke for 1, and nothing for -1."""
    _box(canvas, _EMPTY if bit < 0 else colour, centre, np.full(2, _LABEL + 3.0))
    _box(canvas, _CARD, centre, np.full(2, float(_LABEL)))
    if bit == 1:
        _box(canvas, colour, centre, np.array([4.0, 24.0]))
    elif bit == 0:
        x, y = np.arange(_WIDTH) + 0.5 - centre[0], np.arange(_HEIGHT)[:, None] + 0.5 - centre[1]
        coverage = np.clip(4.5 - np.abs(np.hypot(x / 0.75, y) - 21), 0, 1)[..., None]
        canvas += coverage * (colour - canvas)

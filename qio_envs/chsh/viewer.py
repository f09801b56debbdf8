"""Pictures of the CHSH game with NumPy alone: no display, no drawing library."""

from __future__ import annotations

import dataclasses

import numpy as np

from qio_envs.api import Array
from qio_envs.api.drawing import BACKGROUND, GAP, QUIET, TEXT, TIME_BAR, gauges, scale_bar
from qio_envs.api.lettering import write, write_centred

_WIDTH, _HEIGHT = 480, 320  # pixels of the table
_COLUMNS = (200, 380)  # where Alice and Bob sit
_ROWS = (96, 206)  # question and answer
_LABEL = 38  # half the side of a card, pixels
_NAMES = ("Alice", "Bob")

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
    """Return uint8 ``[h, 480, 3]``: rounds so far, the last round, and the share of rounds won.

    Cards are questions and answers of Alice and Bob, between whom no word passes; before the first round its
    questions are shown. The frame is green if the round was won and red if not; the line of text says why. On the axis
    of the share of rounds won are the best that is possible without and with entanglement.
    """
    canvas = np.broadcast_to(BACKGROUND, (_HEIGHT, _WIDTH, 3)).copy()
    first = scene.won is None
    frame = _EMPTY if first else (_WON if scene.won else _LOST)
    middle = np.array([_WIDTH / 2, _HEIGHT / 2])
    _box(canvas, frame, middle, np.array([_WIDTH / 2 - GAP, _HEIGHT / 2 - GAP]))
    _box(canvas, BACKGROUND, middle, np.array([_WIDTH / 2 - GAP - 5, _HEIGHT / 2 - GAP - 5]))
    wall = np.array([sum(_COLUMNS) / 2, sum(_ROWS) / 2])
    _box(canvas, _EMPTY, wall, np.array([1.5, (_ROWS[1] - _ROWS[0]) / 2 + _LABEL]))  # they cannot talk
    questions = scene.question if first else scene.asked
    for row, text in zip(_ROWS, ("question", "answer"), strict=True):
        write(canvas, text, (row - 7, 26), QUIET)
    for name, column, colour, question, answer in zip(
        _NAMES, _COLUMNS, _AGENTS, questions, scene.answer, strict=True
    ):
        write_centred(canvas, name, np.array([column, 34]), colour, 3)
        _card(canvas, np.array([column, _ROWS[0]]), _QUESTION, int(question))
        _card(canvas, np.array([column, _ROWS[1]]), colour, int(answer))
    (x, y), (a, b) = questions, scene.answer
    rule = "won if a XOR b = x AND y" if first else f"{a} XOR {b} = {a ^ b}   {x} AND {y} = {x & y}"
    write_centred(canvas, rule, np.array([_WIDTH / 2, 268]), TEXT)
    if not first:
        write_centred(canvas, "won" if scene.won else "lost", np.array([_WIDTH / 2, 294]), frame)
    share = scene.wins / scene.played if scene.played else 0.0
    head = gauges(
        _WIDTH,
        (f"round {scene.played}/{scene.rounds}", scene.played / scene.rounds, TIME_BAR),
        (f"won {scene.wins} of {scene.played}", None, TIME_BAR),
    )
    marks = ((_CLASSICAL, f"classical {_CLASSICAL:.2f}"), (_QUANTUM, f"entangled {_QUANTUM:.4f}"))
    won = scale_bar(_WIDTH, f"win rate {share:.3f}", share, _WON, marks)
    picture = np.concatenate([head, canvas, won])
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
    """Draw a card with a bit, or with nothing for -1."""
    _box(canvas, _EMPTY if bit < 0 else colour, centre, np.full(2, _LABEL + 3.0))
    _box(canvas, _CARD, centre, np.full(2, float(_LABEL)))
    if bit >= 0:
        # the letter O: a large 0 of these points has a stroke that looks like an 8
        write_centred(canvas, "O1"[bit], centre, colour, 6)

"""Pictures of matrix games with NumPy alone: no display, no drawing library."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from qio_envs.api import Array
from qio_envs.api.drawing import BACKGROUND, GAP, TEXT, TEXT_ROW, TIME_BAR, Entry, gauges, legend
from qio_envs.api.lettering import width, write, write_centred

_WIDTH, _TABLE = 480, 220  # pixels of the picture's width and of the table's height
_LEFT, _TOP = 130, 34  # pixels beside and above the table, for the names of actions
_LINES = 4  # agents whose payoffs stand below the table

_CELL = np.array([40, 48, 54], np.float32)
_CHOSEN = np.array([122, 200, 110], np.float32)
_BEST = np.array([238, 214, 120], np.float32)
_AGENTS = (
    np.array([110, 185, 245], np.float32),
    np.array([240, 130, 90], np.float32),
    np.array([190, 150, 240], np.float32),
    np.array([120, 210, 190], np.float32),
)  # further agents begin anew


@dataclasses.dataclass(frozen=True)
class Scene:
    """What a picture shows of one environment."""

    game: str
    payoffs: Array  # float [N, A_1, ..., A_N], of the stage that is shown
    names: tuple[str, ...]  # of the actions
    stage: int  # of the last round; before the first, of the one to come
    stages: int
    actions: Array  # int [N], of the last round; -1 before the first
    returns: Array  # float [N], so far
    played: int  # rounds so far
    rounds: int  # rounds of the episode

    @property
    def table(self) -> Array:
        """Payoffs ``[N, rows, columns]`` by the first two agents' actions, where the others do what they last did."""
        if len(self.payoffs) == 1:
            return self.payoffs[:, :, None]
        others: tuple[Any, ...] = tuple(np.maximum(self.actions[2:], 0).tolist())
        return self.payoffs[(..., *others)]

    @property
    def last(self) -> Array | None:
        """Payoffs of the last round, ``[N]``; None before the first."""
        return self.payoffs[(slice(None), *self.actions)] if self.played else None


def draw(scene: Scene) -> Array:
    """Return uint8 ``[h, 480, 3]``: rounds so far, the table of payoffs, the legend, and what each agent was paid.

    Rows are the first agent's actions, columns the second's. The thick frame is around the joint action of the last
    round, the thin one around the greatest sum of payoffs in the table. Of more than two agents the table holds the
    others' last actions fixed; of tables with many actions the numbers are left out.
    """
    canvas = np.broadcast_to(BACKGROUND, (_TOP + _TABLE + GAP, _WIDTH, 3)).copy()
    table = scene.table
    _, rows, columns = table.shape
    tops = _TOP + np.linspace(0, _TABLE, rows + 1).round().astype(int)
    lefts = _LEFT + np.linspace(0, _WIDTH - _LEFT - GAP, columns + 1).round().astype(int)
    total = table.sum(axis=0)
    for row in range(rows):
        for column in range(columns):
            corners = (tops[row], tops[row + 1], lefts[column], lefts[column + 1])
            is_last = scene.played > 0 and (row, column) == (*scene.actions[:2], 0)[:2]
            is_best = bool(total[row, column] == total.max() > total.min())
            frames = [(_CHOSEN, 5)] * is_last + [(_BEST, 2)] * is_best
            _cell(canvas, corners, frames, table[:, row, column])
    shown = table.shape[0] > 1
    _labels(canvas, scene, tops, lefts, shown)
    stage = f"stage {scene.stage + 1} of {scene.stages}" if scene.stages > 1 else scene.game
    head = gauges(
        _WIDTH,
        (f"round {scene.played}/{scene.rounds}", scene.played / scene.rounds, TIME_BAR),
        (stage, None, TIME_BAR),
    )
    places = (" (rows)", " (columns)", "", "")
    key: list[Entry] = [("cell", _colour(n), f"agent_{n}{places[n]}") for n in range(min(len(table), _LINES))]
    key += [("frame", _CHOSEN, "last round"), ("frame", _BEST, "greatest sum")]
    picture = np.concatenate([head, canvas, legend(_WIDTH, key), _paid(scene)])
    return np.clip(picture, 0, 255).astype(np.uint8)


def draw_text(scene: Scene) -> str:
    """Return the last round and what each agent was paid as lines of text."""
    stage = f", stage {scene.stage + 1} of {scene.stages}" if scene.stages > 1 else ""
    lines = [f"{scene.game}{stage}"]
    for n, total in enumerate(scene.returns):
        last = scene.last
        now = "" if last is None else f"  {scene.names[scene.actions[n]]}: {last[n]:g}"
        lines.append(f"agent_{n}{now}  return {total:g}")
    return "\n".join([*lines, f"round {scene.played}/{scene.rounds}"])


def _colour(agent: int) -> Array:
    return _AGENTS[agent % len(_AGENTS)]


def _cell(
    canvas: Array, corners: tuple[int, int, int, int], frames: list[tuple[Array, int]], payoffs: Array
) -> None:
    """Draw one cell of the table: frames from the outer one on, and the agents' payoffs where there is room."""
    top, bottom, left, right = (int(edge) for edge in corners)
    inset = 1
    for colour, thick in [*frames, (_CELL, 0)]:
        canvas[top + inset : bottom - inset, left + inset : right - inset] = colour
        inset += thick
    texts = [f"{value:.4g}" for value in payoffs]
    gap = width("  ", 2)
    needed = sum(width(text, 2) for text in texts) + gap * (len(texts) - 1)
    if needed > right - left - 16 or bottom - top < 30:
        return
    column = (left + right - needed) // 2
    for n, text in enumerate(texts):
        write(canvas, text, ((top + bottom) // 2 - 7, column), _colour(n))
        column += width(text, 2) + gap


def _labels(canvas: Array, scene: Scene, tops: Array, lefts: Array, has_columns: bool) -> None:
    """Write the names of the actions where there is room for them."""
    for row in range(len(tops) - 1):
        name = scene.names[row]
        if tops[row + 1] - tops[row] >= 16:
            write(
                canvas,
                name,
                ((tops[row] + tops[row + 1]) // 2 - 7, _LEFT - GAP - width(name, 2)),
                _colour(0),
            )
    for column in range(len(lefts) - 1):
        name = scene.names[column]
        if has_columns and width(name, 2) + 4 <= lefts[column + 1] - lefts[column]:
            write_centred(
                canvas, name, np.array([(lefts[column] + lefts[column + 1]) / 2, _TOP - 14]), _colour(1)
            )


def _paid(scene: Scene) -> Array:
    """Return a line of text for each of the first agents: the payoff of the last round and the sum so far."""
    agents, last = len(scene.returns), scene.last
    picture = np.broadcast_to(BACKGROUND, (TEXT_ROW * min(agents, _LINES) + GAP, _WIDTH, 3)).copy()
    for n in range(min(agents, _LINES)):
        now = "" if last is None else f"{scene.names[scene.actions[n]]}, paid {last[n]:g}"
        write(picture, f"agent_{n}", (n * TEXT_ROW + 3, GAP), _colour(n))
        write(picture, now, (n * TEXT_ROW + 3, 112), TEXT)
        write(picture, f"return {scene.returns[n]:g}", (n * TEXT_ROW + 3, 344), TEXT)
    return picture

"""Named games: their payoffs, names of their actions, and an equilibrium of each."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qio_envs.api import Array

END = -1
"""In the place of a next stage: the game is over."""


class NamedGame(NamedTuple):
    """A game of ``N`` agents in ``S`` stages; all agents have as many actions."""

    payoffs: Array  # float64 [S, N, A_1, ..., A_N]
    next_stage: Array  # int64 [S, A_1, ..., A_N], `END` for none
    equilibrium: Array  # float64 [S, N, A], probability of each action
    actions: tuple[str, ...]  # their names


def _one_stage(payoffs: list, equilibrium: list, actions: tuple[str, ...] = ()) -> NamedGame:
    table = np.array([payoffs], np.float64)
    count = table.shape[2]
    names = actions or tuple(str(action) for action in range(count))
    stages = np.zeros((1, *table.shape[2:]), np.int64)
    return NamedGame(table, stages, np.array([equilibrium], np.float64), names)


def _common(payoffs: list, best: int) -> NamedGame:
    chosen = np.eye(len(payoffs))[best].tolist()
    return _one_stage([payoffs, payoffs], [chosen, chosen])


def _symmetric(payoffs: list, strategy: list, actions: tuple[str, ...]) -> NamedGame:
    """Return a game of two agents in which either is paid ``payoffs[own action][the other's]``."""
    other = np.transpose(payoffs).tolist()
    return _one_stage([payoffs, other], [strategy, strategy], actions)


def _two_step() -> NamedGame:
    zero, seven, eight = np.zeros((2, 2)), np.full((2, 2), 7.0), np.array([[0.0, 1.0], [1.0, 8.0]])
    payoffs = np.stack([np.stack([table, table]) for table in (zero, seven, eight)])
    over = np.full((2, 2), END)
    next_stage = np.stack([np.array([[1, 1], [2, 2]]), over, over])
    second = np.broadcast_to(
        [0.0, 1.0], (3, 2, 2)
    )  # whatever agent 1 does first, and both after the wrong choice
    return NamedGame(payoffs, next_stage, second.copy(), ("0", "1"))


_THIRDS = [1 / 3, 1 / 3, 1 / 3]

NAMED_GAMES = {
    "climbing": _common([[11, -30, 0], [-30, 7, 6], [0, 0, 5]], best=0),
    "penalty": _common([[10, 0, -100], [0, 2, 0], [-100, 0, 10]], best=0),
    "prisoners_dilemma": _symmetric([[3, 0], [5, 1]], [0, 1], ("cooperate", "defect")),
    "chicken": _symmetric([[6, 2], [7, 0]], [2 / 3, 1 / 3], ("swerve", "straight")),
    "stag_hunt": _symmetric([[4, 0], [3, 2]], [1, 0], ("stag", "hare")),
    "rock_paper_scissors": _symmetric(
        [[0, -1, 1], [1, 0, -1], [-1, 1, 0]], _THIRDS, ("rock", "paper", "scissors")
    ),
    "shapley": _one_stage(
        [[[1, 0, 0], [0, 1, 0], [0, 0, 1]], [[0, 1, 0], [0, 0, 1], [1, 0, 0]]], [_THIRDS, _THIRDS]
    ),
    "matching_pennies": _one_stage(
        [[[1, -1], [-1, 1]], [[-1, 1], [1, -1]]], [[0.5, 0.5], [0.5, 0.5]], ("heads", "tails")
    ),
    "two_step": _two_step(),
}
"""Games by name; the sources stand in the documentation of `qio_envs.matrix_game.env.MatrixGame`."""

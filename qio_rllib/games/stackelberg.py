"""Strong Stackelberg equilibria: what a leader earns that commits to a mixed strategy."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qio_rllib.games.game import (
    TOLERANCE,
    Array,
    Game,
    as_probabilities,
    check_player,
    solve_program,
    two_players,
)


class StackelbergEquilibrium(NamedTuple):
    """What the leader commits to, and how the follower answers."""

    strategy: Array  # float64 [leader's actions]
    response: int  # the follower's action
    values: Array  # float64 [2], of the first and the second player


def stackelberg_equilibrium(game: Game, leader: int = 0) -> StackelbergEquilibrium:
    """Return the strong Stackelberg equilibrium of a game of two players: ties of the follower help the leader.

    One linear program for each action of the follower, with the constraint that it is a best response; the best of
    them (Conitzer and Sandholm, "Computing the optimal strategy to commit to", EC 2006).

    Args:
        game: Of two players.
        leader: 0 or 1, who commits to a mixed strategy that the other one observes.

    Raises:
        GameError: Another number of players, or no such leader.
    """
    payoffs = two_players(game, "stackelberg_equilibrium")
    check_player(game, leader, "leader")
    own, other = (payoffs[0], payoffs[1]) if leader == 0 else (payoffs[1].T, payoffs[0].T)
    own, other = own / game.scale, other / game.scale
    count, answers = own.shape
    best: tuple[float, Array, int] | None = None
    for response in range(answers):
        solved = solve_program(
            "stackelberg_equilibrium",
            c=-own[:, response],
            A_ub=(other - other[:, [response]]).T,
            b_ub=np.zeros(answers),
            A_eq=np.ones((1, count)),
            b_eq=[1.0],
            bounds=[(0, None)] * count,
        )
        if solved is not None and (best is None or -solved[1] > best[0] + TOLERANCE):
            best = (-solved[1], as_probabilities(solved[0]), response)
    assert best is not None  # every strategy has a best response
    _, strategy, response = best
    answer = np.eye(answers)[response]
    profile = (strategy, answer) if leader == 0 else (answer, strategy)
    return StackelbergEquilibrium(strategy, response, game.values(profile))

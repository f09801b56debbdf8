"""What a player can secure by itself, and the solution of zero-sum games, by linear programming."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qio_rllib.games.game import (
    TOLERANCE,
    Array,
    Game,
    GameError,
    as_probabilities,
    check_player,
    solve_program,
    two_players,
)


class Security(NamedTuple):
    """A value, and the strategy or distribution that secures it."""

    value: float
    strategy: Array


class ZeroSumSolution(NamedTuple):
    """The solution of a zero-sum game of two players."""

    value: float  # of the first player
    strategies: tuple[Array, Array]  # float64 [rows], [columns]: an equilibrium


def maximin(game: Game, player: int) -> Security:
    """Return the most that a player can expect whatever the others do together, and a mixed strategy for it, ``[A_n]``.

    Von Neumann's linear program: the greatest v with x @ payoffs >= v for all joint actions of the others.

    Raises:
        GameError: ``player`` is none.
    """
    check_player(game, player)
    payoffs = _payoffs(game, player)
    count, others = payoffs.shape
    value, strategy = _secured(payoffs, "maximin", count, others)
    return Security(value, strategy)


def minimax(game: Game, player: int) -> Security:
    """Return the least to which the others together can hold a player, and their distribution over joint actions.

    The others may correlate their actions; so the value is `maximin`'s (von Neumann, 1928), though with three players
    and more independent strategies may hold it less. The distribution has the shape of the others' actions.

    Raises:
        GameError: ``player`` is none.
    """
    check_player(game, player)
    payoffs = _payoffs(game, player)
    count, others = payoffs.shape
    value, distribution = _secured(-payoffs.T, "minimax", others, count)
    shape = [actions for other, actions in enumerate(game.num_actions) if other != player]
    return Security(-value, distribution.reshape(shape))


def solve_zero_sum(game: Game) -> ZeroSumSolution:
    """Return the value of a zero-sum game and an equilibrium, by a linear program for each player.

    A game whose payoffs have another constant sum goes too.

    Raises:
        GameError: Another number of players, or payoffs without a constant sum.
    """
    two_players(game, "solve_zero_sum")
    total = game.payoffs.sum(axis=0)
    if np.ptp(total) > TOLERANCE * game.scale:
        raise GameError(
            f"solve_zero_sum: the payoffs' sum is not constant, {total.min():g} to {total.max():g}; "
            "nash_equilibria takes any game of 2 players"
        )
    first, second = maximin(game, 0), maximin(game, 1)
    return ZeroSumSolution(first.value, (first.strategy, second.strategy))


def _payoffs(game: Game, player: int) -> Array:
    """Return the player's payoffs as ``[own action, joint action of the others]``."""
    own = np.moveaxis(game.payoffs[player], player, 0)
    return own.reshape(own.shape[0], -1)


def _secured(payoffs: Array, what: str, count: int, others: int) -> tuple[float, Array]:
    """Return the greatest v and x with x @ payoffs >= v for all of ``others`` columns."""
    scale, middle = float(np.ptp(payoffs)) or 1.0, float(payoffs.mean())
    unit = (payoffs - middle) / scale
    solved = solve_program(
        what,
        c=np.r_[np.zeros(count), -1],
        A_ub=np.hstack([-unit.T, np.ones((others, 1))]),
        b_ub=np.zeros(others),
        A_eq=np.r_[np.ones(count), 0][None],
        b_eq=[1.0],
        bounds=[(0, None)] * count + [(None, None)],
    )
    assert solved is not None  # any strategy with a value that is low enough
    strategy = as_probabilities(solved[0][:count])
    return float((strategy @ payoffs).min()), strategy

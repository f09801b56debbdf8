"""How far profiles and distributions are from equilibria: best responses, regrets, NashConv."""

from __future__ import annotations

import numpy as np

from qio_rllib.games.game import TOLERANCE, Array, Game, Profile


def best_responses(game: Game, profile: Profile) -> list[list[int]]:
    """Return each player's best actions while the others follow a profile; several where they earn as much.

    Raises:
        GameError: The profile does not fit.
    """
    margin = TOLERANCE * game.scale
    return [np.flatnonzero(own >= own.max() - margin).tolist() for own in game.action_values(profile)]


def regrets(game: Game, profile: Profile) -> Array:
    """Return what each player would gain by a best response, float64 ``[N]``, at least 0.

    Raises:
        GameError: The profile does not fit.
    """
    best = np.array([own.max() for own in game.action_values(profile)])
    return np.maximum(best - game.values(profile), 0)


def nash_conv(game: Game, profile: Profile) -> float:
    """Return the sum of all players' regrets: 0 in a Nash equilibrium and nowhere else.

    Lanctot et al., "A unified game-theoretic approach to multiagent reinforcement learning", NeurIPS 2017.

    Raises:
        GameError: The profile does not fit.
    """
    return float(regrets(game, profile).sum())


def exploitability(game: Game, profile: Profile) -> float:
    """Return `nash_conv` divided by the number of players.

    In a zero-sum game of two players it is what a best responder earns on average over both seats, less the value.

    Raises:
        GameError: The profile does not fit.
    """
    return nash_conv(game, profile) / game.num_players


def external_regrets(game: Game, distribution: Array) -> Array:
    """Return what each player would gain by one action in the place of what a distribution tells it, ``[N]``.

    No number is above 0 in a coarse correlated equilibrium and nowhere else (Moulin and Vial, 1978).

    Args:
        game: The game.
        distribution: Over joint actions, ``[A_1, ..., A_N]``.

    Raises:
        GameError: The distribution does not fit.
    """
    joint, found = game.checked_joint(distribution), np.empty(game.num_players)
    for player in range(game.num_players):
        payoffs, chances = _rows(game, joint, player)
        found[player] = (payoffs @ chances.sum(axis=0)).max() - (payoffs * chances).sum()
    return found


def swap_regrets(game: Game, distribution: Array) -> Array:
    """Return what each player would gain by the best rule "where told a, do b", float64 ``[N]``, at least 0.

    All are 0 in a correlated equilibrium and nowhere else (Aumann, Econometrica 55, 1987).

    Args:
        game: The game.
        distribution: Over joint actions, ``[A_1, ..., A_N]``.

    Raises:
        GameError: The distribution does not fit.
    """
    joint, found = game.checked_joint(distribution), np.empty(game.num_players)
    for player in range(game.num_players):
        payoffs, chances = _rows(game, joint, player)
        values = payoffs @ chances.T  # [b, a]: earned where told a and done b, times the probability of a
        found[player] = (values.max(axis=0) - values.diagonal()).sum()
    return found


def _rows(game: Game, joint: Array, player: int) -> tuple[Array, Array]:
    """Return payoffs and probabilities as ``[own action, joint action of the others]``."""
    count = game.num_actions[player]
    return (
        np.moveaxis(game.payoffs[player], player, 0).reshape(count, -1),
        np.moveaxis(joint, player, 0).reshape(count, -1),
    )

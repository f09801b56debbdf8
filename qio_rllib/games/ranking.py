"""Rankings: alpha-rank of the strategies of a game, and Elo ratings from results."""

from __future__ import annotations

import itertools
from typing import NamedTuple

import numpy as np
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components
from scipy.special import expit, logsumexp

from qio_rllib.games.elo import ELO_SCALE
from qio_rllib.games.game import Array, Game, GameError

MAX_PROFILES = 2_000
"""Joint actions at most of `alpha_rank`: its time grows with their third power."""


class AlphaRank(NamedTuple):
    """How long evolution stays with each joint action (or strategy, of one population)."""

    distribution: Array  # float64 [A_1, ..., A_N], or [S]: the stationary distribution, the sum is 1
    transitions: (
        Array  # float64 [J, J] in the order of the distribution's numbers, or [S, S]; rows have the sum 1
    )


def alpha_rank(game: Game, alpha: float = 100.0, population: int = 50) -> AlphaRank:
    """Return the stationary distribution over the joint actions of ``N`` populations, one for each player.

    Omidshafiei et al., "alpha-Rank: multi-agent evaluation by evolution", Scientific Reports 9, 2019. Each population
    plays one action; a mutant of one of them appears and takes its population over with the probability

        (1 - exp(-alpha d)) / (1 - exp(-alpha m d))

    with m the population's size and d what it earns more than the residents, all else being equal; 1 / m for d = 0.
    The distribution is computed from logarithms without subtractions (Grassmann, Taksar and Heyman, 1985), and so is
    exact for any alpha, where probabilities themselves would vanish.

    Args:
        game: The game, of up to `MAX_PROFILES` joint actions.
        alpha: Strength of selection, above 0, in units of 1 / payoff. The ranking is that of large values.
        population: Size of each population, at least 2.

    Raises:
        GameError: An argument that does not fit.
    """
    joint = int(np.prod(game.num_actions))
    _check(joint, alpha, population)
    index = np.arange(joint).reshape(game.num_actions)
    mutants = sum(count - 1 for count in game.num_actions)
    logs = np.full((joint, joint), -np.inf)
    for player, count in enumerate(game.num_actions):
        payoffs = np.moveaxis(game.payoffs[player], player, 0).reshape(count, -1)
        places = np.moveaxis(index, player, 0).reshape(count, -1)
        for resident, mutant in itertools.permutations(range(count), 2):
            gain = payoffs[mutant] - payoffs[resident]
            logs[places[resident], places[mutant]] = _log_fixation(gain, alpha, population) - np.log(mutants)
    distribution, transitions = _stationary(logs)
    return AlphaRank(distribution.reshape(game.num_actions), transitions)


def alpha_rank_symmetric(payoffs: Array, alpha: float = 100.0, population: int = 50) -> AlphaRank:
    """Return the stationary distribution over the strategies of one population that plays against itself.

    As `alpha_rank`, with d the difference between what mutant and resident earn against each other.

    Args:
        payoffs: ``[S, S]``, of the row's strategy against the column's.
        alpha: As for `alpha_rank`.
        population: As for `alpha_rank`.

    Raises:
        GameError: An argument that does not fit.
    """
    own = Game.symmetric(payoffs).payoffs[0]
    count = len(own)
    _check(count, alpha, population)
    logs = _log_fixation(own.T - own, alpha, population) - np.log(max(count - 1, 1))  # [resident, mutant]
    np.fill_diagonal(logs, -np.inf)
    return AlphaRank(*_stationary(logs))


def elo_ratings(scores: Array, mean: float = 1500.0) -> Array:
    """Return the ratings under which results are most likely, float64 ``[P]``.

    The model of Bradley and Terry (Biometrika 39, 1952) on Elo's scale: i beats j with the probability
    1 / (1 + 10^((R_j - R_i) / 400)). A draw counts as half a win of either.

    Args:
        scores: What each player scored against each other one, ``[P, P]``, not negative: 1 for a win, 0.5 for a draw;
            the diagonal does not matter.
        mean: Of the ratings, which only matter up to a constant.

    Raises:
        GameError: No such matrix; or no ratings are the most likely ones, since some players never scored against the
            others, or never met them (Ford, 1957).
    """
    points = np.array(scores, np.float64)
    if points.ndim != 2 or points.shape[0] != points.shape[1] or not points.size:
        raise GameError(f"scores: expected a square matrix, got shape {list(points.shape)}")
    np.fill_diagonal(points, 0)
    if not (np.isfinite(points) & (points >= 0)).all():
        raise GameError("scores: expected finite numbers of at least 0")
    parts, labels = connected_components(points.T > 0, connection="strong")
    if parts > 1:
        # a group whose members score against nobody outside
        weak = next(
            group for group in range(parts) if not points[np.ix_(labels == group, labels != group)].any()
        )
        names = ", ".join(str(player) for player in np.flatnonzero(labels == weak))
        raise GameError(
            f"scores: no ratings are the most likely ones, player {names} never scored against the others"
        )
    games, won = points + points.T, points.sum(axis=1)

    def strengths(free: Array) -> Array:
        return np.r_[0.0, free]

    def loss(free: Array) -> float:
        differences = np.subtract.outer(strengths(free), strengths(free))
        return float((points * np.logaddexp(0, -differences)).sum())

    def chances(free: Array) -> Array:
        return expit(np.subtract.outer(strengths(free), strengths(free)))

    def gradient(free: Array) -> Array:
        return ((games * chances(free)).sum(axis=1) - won)[1:]

    def curvature(free: Array) -> Array:
        weights = games * chances(free) * chances(free).T
        return (np.diag(weights.sum(axis=1)) - weights)[1:, 1:]

    free = np.zeros(len(points) - 1)
    if len(free):
        free = minimize(
            loss, free, method="trust-exact", jac=gradient, hess=curvature, options={"gtol": 1e-8 * won.sum()}
        ).x
    ratings = ELO_SCALE * strengths(free)
    return ratings - ratings.mean() + mean


def _check(states: int, alpha: float, population: int) -> None:
    if states > MAX_PROFILES:
        raise GameError(f"payoffs: {states} joint actions; allowed: up to {MAX_PROFILES}")
    if not (np.isfinite(alpha) and alpha > 0):
        raise GameError(f"alpha: expected a number above 0, got {alpha!r}")
    if not isinstance(population, int | np.integer) or isinstance(population, bool) or population < 2:
        raise GameError(f"population: expected an integer of at least 2, got {population!r}")


def _log_fixation(gain: Array, alpha: float, population: int) -> Array:
    """Return the logarithm of the probability that a mutant with a gain takes a population over."""
    strength = alpha * np.abs(gain)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(-np.expm1(-strength)) - np.log(-np.expm1(-population * strength))
    logs = ratio - np.where(gain < 0, (population - 1) * strength, 0)
    return np.where(strength > 0, logs, -np.log(population))


def _stationary(logs: Array) -> tuple[Array, Array]:
    """Return the stationary distribution and the transition matrix of an irreducible chain.

    Args:
        logs: Logarithms of the probabilities of going from row to column, ``[J, J]``; the diagonal does not matter.
    """
    transitions = np.exp(logs)
    np.fill_diagonal(transitions, 0)
    np.fill_diagonal(transitions, 1 - transitions.sum(axis=1))
    reduced = logs.copy()
    for last in range(len(logs) - 1, 0, -1):  # the chain watched in the states before `last` only
        out = logsumexp(reduced[last, :last])
        reduced[:last, last] -= out
        detour = reduced[:last, last, None] + reduced[last, :last]
        reduced[:last, :last] = np.logaddexp(reduced[:last, :last], detour)
    weights = np.zeros(len(logs))
    for state in range(1, len(logs)):
        weights[state] = logsumexp(weights[:state] + reduced[:state, state])
    return np.exp(weights - logsumexp(weights)), transitions

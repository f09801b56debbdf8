"""Who beats whom: payoffs of policies against each other with intervals, ratings, and the game that they make."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence

import numpy as np

from qio_rllib.games.diversity import effective_diversity
from qio_rllib.games.game import Game
from qio_rllib.games.ranking import alpha_rank_symmetric, elo_ratings
from qio_rllib.games.zero_sum import solve_zero_sum

_Z = 1.959964  # standard deviations on either side of a normal distribution's mean that hold 95% of it


@dataclasses.dataclass(frozen=True)
class Pairing:
    """Games of two policies in two teams.

    Attributes:
        policy: Index of the one that played ``team``.
        opponent: Of the one that played all other teams.
        team: Index of the team.
        own: Mean return of an agent of the team, by episode, ``[E]``.
        others: That of all other agents, ``[E]``.
    """

    policy: int
    opponent: int
    team: int
    own: np.ndarray
    others: np.ndarray

    @property
    def scores(self) -> np.ndarray:
        """1 for episodes in which the team had more, 0.5 for as much, 0 for less, ``[E]``."""
        return 0.5 * (1.0 + np.sign(self.own - self.others))


@dataclasses.dataclass(frozen=True)
class CrossPlay:
    """What policies earn and score against each other.

    Attributes:
        payoffs: Mean return of an agent of the row's policy against the column's, over all teams that it played,
            float64 ``[P, P]``.
        payoff_errors: Half the width of their 95% intervals over episodes (normal approximation), ``[P, P]``; 0 for
            one episode.
        scores: Mean scores likewise, from 0 to 1, ``[P, P]``.
        score_errors: Likewise.
        elo: Ratings, mean 1500, ``[P]`` (`elo_ratings`); every two policies count as having drawn one game more, so
            that one that always wins has a rating too.
        alpha_rank: Stationary distribution of one population whose strategies are the policies, ``[P]``
            (`alpha_rank_symmetric`).
        nash: Equilibrium of the zero-sum game in which a policy wins what it earns more than its opponent,
            ``[P]``.
    """

    payoffs: np.ndarray
    payoff_errors: np.ndarray
    scores: np.ndarray
    score_errors: np.ndarray
    elo: np.ndarray
    alpha_rank: np.ndarray
    nash: np.ndarray

    @property
    def diversity(self) -> float:
        """`effective_diversity` of the scores less 0.5; a score within its interval of 0.5 counts as a draw."""
        above = self.scores - 0.5
        return effective_diversity(np.where(np.abs(above) > self.score_errors, above, 0.0))

    @classmethod
    def of(cls, pairings: Sequence[Pairing], policies: int) -> CrossPlay:
        """Sum up pairings, of which there is at least one of every ordered pair of policies.

        Alpha-rank selects as strongly as its ranking no longer changes with: payoffs are divided by the largest
        difference between two of them, and ``alpha`` is 100.
        """
        payoffs, payoff_errors = _means(pairings, policies, lambda one: one.own)
        scores, score_errors = _means(pairings, policies, lambda one: one.scores)
        games = np.full((policies, policies), 0.5)
        for one in pairings:
            if one.policy != one.opponent:
                games[one.policy, one.opponent] += one.scores.sum()
                games[one.opponent, one.policy] += (1.0 - one.scores).sum()
        spread = float(payoffs.max() - payoffs.min()) or 1.0
        advantage = (payoffs - payoffs.T) / spread
        return cls(
            payoffs,
            payoff_errors,
            scores,
            score_errors,
            elo_ratings(games),
            alpha_rank_symmetric(payoffs / spread).distribution,
            solve_zero_sum(Game.zero_sum(advantage)).strategies[0],
        )


def _means(
    pairings: Sequence[Pairing], policies: int, values_of: Callable[[Pairing], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """Return means by pair of policies, and half the widths of their intervals."""
    means, errors = np.zeros((policies, policies)), np.zeros((policies, policies))
    for row in range(policies):
        for column in range(policies):
            found = [values_of(one) for one in pairings if (one.policy, one.opponent) == (row, column)]
            # Each team counts alike, however many episodes it has; errors of independent means add up in squares.
            means[row, column] = np.mean([values.mean() for values in found])
            variances = [values.var(ddof=1) / len(values) if len(values) > 1 else 0.0 for values in found]
            errors[row, column] = _Z * math.sqrt(sum(variances)) / len(found)
    return means, errors

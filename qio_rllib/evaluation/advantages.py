"""True advantages of actions, measured on branches of an episode that share their random numbers."""

from __future__ import annotations

import dataclasses

import numpy as np

Array = np.ndarray


@dataclasses.dataclass(frozen=True, eq=False)
class TrueAdvantages:
    """Advantages of every action in ``D`` decisions of ``A`` actions each; NaN for illegal actions.

    Attributes:
        probabilities: Of the policy, float64 ``[D, A]``; 0 for illegal actions.
        returns: Discounted return of each branch, float64 ``[D, A, B]``.
        values: Mean returns, ``Q(s, a)``, ``[D, A]``.
        advantages: ``Q(s, a)`` less the policy's mean of it over the actions, ``[D, A]``.
        errors: Standard errors of the advantages, ``[D, A]``; NaN with one branch.
    """

    probabilities: Array
    returns: Array
    values: Array
    advantages: Array
    errors: Array

    @classmethod
    def of(cls, returns: Array, probabilities: Array) -> TrueAdvantages:
        """Measure advantages: A(s, a) = Q(s, a) - sum over a' of pi(a' | o) Q(s, a').

        The difference is taken branch by branch, so that what all actions of a branch have in common, its random
        numbers, is gone before the spread over branches is taken.

        Args:
            returns: ``[D, A, B]``; branch ``b`` of every action met the same random numbers. NaN for illegal actions.
            probabilities: ``[D, A]``, each row sums to 1.

        Raises:
            ValueError: Shapes that do not fit.
        """
        returns, probabilities = np.asarray(returns, np.float64), np.asarray(probabilities, np.float64)
        if returns.ndim != 3 or probabilities.shape != returns.shape[:2]:
            raise ValueError(
                f"probabilities: expected shape {returns.shape[:2]}, got {probabilities.shape}; returns are [D, A, B]"
            )
        differences = _less_mean(returns, probabilities)
        return cls(
            probabilities,
            returns,
            returns.mean(axis=-1),
            differences.mean(axis=-1),
            standard_errors(differences),
        )

    def by_branch(self) -> Array:
        """Return the advantages of each branch by itself, ``[D, A, B]``."""
        return _less_mean(self.returns, self.probabilities)

    def unpaired_errors(self) -> Array:
        """Return what the errors were, had each action's branches random numbers of their own, ``[D, A]``."""
        count = self.probabilities.shape[1]
        weights = np.eye(count) - self.probabilities[:, None]  # [D, A, A]
        variances = np.nan_to_num(np.square(standard_errors(self.returns)))
        if self.returns.shape[-1] < 2:
            variances = np.full(self.probabilities.shape, np.nan)
        found = np.sqrt(np.einsum("dab,db->da", np.square(weights), variances))
        return np.where(np.isnan(self.values), np.nan, found)

    def ordered_pairs(self) -> tuple[Array, Array]:
        """Return which of two actions is better, and by how many standard errors of the difference.

        Returns:
            Differences ``Q(s, a) - Q(s, a')``, ``[D, A, A]``, and whether they exceed two standard errors, bool.
        """
        pairs = self.returns[:, :, None] - self.returns[:, None]
        means = pairs.mean(axis=-1)
        return means, is_distinguishable(means, standard_errors(pairs))


def mean_over_policy(values: Array, probabilities: Array) -> Array:
    """Return the policy's mean of what each action has, ``[D, ...]``.

    Args:
        values: ``[D, A, ...]``; those of actions of probability 0 do not matter.
        probabilities: ``[D, A]``.
    """
    weights = probabilities.reshape(*probabilities.shape, *(1,) * (values.ndim - 2))
    return np.where(weights > 0, weights * values, 0.0).sum(axis=1)


def _less_mean(values: Array, probabilities: Array) -> Array:
    return values - mean_over_policy(values, probabilities)[:, None]


def standard_errors(samples: Array) -> Array:
    """Return the standard error of the mean over the last axis; NaN for one sample."""
    count = samples.shape[-1]
    if count < 2:
        return np.full(samples.shape[:-1], np.nan)
    return samples.std(axis=-1, ddof=1) / np.sqrt(count)


def is_distinguishable(values: Array, errors: Array) -> Array:
    """Return whether values differ from 0 by more than two standard errors; never where the error is NaN."""
    with np.errstate(invalid="ignore"):
        return np.abs(values) > np.maximum(2 * errors, _ROUNDING)


_ROUNDING = 1e-6  # of float32 rewards: with no randomness standard errors are 0

"""How well an estimator of advantages agrees with the true ones: error, bias and noise, signs and orders."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from qio_rllib.evaluation.advantages import (
    Array,
    TrueAdvantages,
    is_distinguishable,
    mean_over_policy,
    standard_errors,
)

RESAMPLES = 2000
_ROUNDING = 1e-9  # of numbers that are all equal: they have no correlation


@dataclasses.dataclass(frozen=True)
class Interval:
    """A statistic of the decisions with its 95% bootstrap interval; NaN where it is not defined.

    Attributes:
        value: Of all decisions.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Agreement:
    """An estimator beside the truth, in the decisions' taken actions.

    An estimate is a draw: it depends on what happened to follow. Its mean over the branches of a decision is what the
    estimator says of the action, and the rest is noise. What its mean is off by is in part the same for all actions of
    a state, as where a value network errs: an offset, which leaves the mean of the policy gradient alone, as any
    baseline does, and adds to its variance. The part that differs between actions is a distortion, and biases it. Up
    to sampling, ``rmse^2 = offset^2 + distortion^2 + noise^2``.

    Attributes:
        bias: Mean over decisions of the estimator's mean over branches less the true advantage.
        offset: Root mean square over decisions of the policy's mean, over the actions, of that difference.
        distortion: Root mean square of the rest of it. Of both what the branches' spread explains is taken off.
        noise: Root mean variance of an estimate about its mean over branches; NaN with one branch.
        rmse: Root mean squared error of the single estimate that the episode gave; the truth's own is taken off.
        correlation: Pearson's, of these estimates with the true advantages.
        sign: Share of these estimates with the sign of the true advantage, where that is known.
        order: Share of pairs of actions that the estimator's means order as the truth, where that is known.
        signs: Decisions whose true advantage differs from 0 by two standard errors.
        pairs: Pairs of actions whose true values differ by two standard errors.
    """

    bias: Interval
    offset: Interval
    distortion: Interval
    noise: Interval
    rmse: Interval
    correlation: Interval
    sign: Interval
    order: Interval
    signs: int
    pairs: int

    @classmethod
    def of(cls, truth: TrueAdvantages, estimates: Array, taken: Array, seed: int = 0) -> Agreement:
        """Compare estimates with true advantages.

        Args:
            truth: ``D`` decisions, ``A`` actions, ``B`` branches.
            estimates: ``[D, A, 1 + B]``: those that the episode itself gave first, then those of the branches.
            taken: Index of the action of each decision, int ``[D]``.
            seed: Of the bootstrap over decisions, which are independent if no two are of one episode.

        Raises:
            ValueError: Estimates of another shape.
        """
        count, actions, branches = truth.returns.shape
        if estimates.shape != (count, actions, 1 + branches):
            raise ValueError(
                f"estimates: expected shape {(count, actions, 1 + branches)}, got {estimates.shape}"
            )
        every = np.arange(count)
        advantage, error = truth.advantages[every, taken], truth.errors[every, taken]
        single, drawn = estimates[every, taken, 0], estimates[every, taken, 1:]
        wrong = estimates[..., 1:] - truth.by_branch()
        common = mean_over_policy(wrong, truth.probabilities)
        offset, distortion = (_mean_squares(part) for part in (common, wrong[every, taken] - common))
        gap = wrong[every, taken].mean(axis=-1)
        spread = drawn.var(axis=-1, ddof=1) if branches > 1 else np.full(count, np.nan)
        squares = np.square(single - advantage) - np.nan_to_num(np.square(error))
        known = is_distinguishable(advantage, error)
        agrees = np.sign(single) == np.sign(advantage)
        right, pairs = _ordered(truth, estimates[..., 1:].mean(axis=-1))

        def interval(statistic: Callable[[Array], Array]) -> Interval:
            return bootstrap(statistic, count, seed)

        return cls(
            bias=interval(lambda rows: gap[rows].mean(axis=-1)),
            offset=interval(lambda rows: _root(offset[rows].mean(axis=-1))),
            distortion=interval(lambda rows: _root(distortion[rows].mean(axis=-1))),
            noise=interval(lambda rows: _root(spread[rows].mean(axis=-1))),
            rmse=interval(lambda rows: _root(squares[rows].mean(axis=-1))),
            correlation=interval(lambda rows: _correlation(single[rows], advantage[rows])),
            sign=interval(lambda rows: _ratio((agrees & known)[rows].sum(-1), known[rows].sum(-1))),
            order=interval(lambda rows: _ratio(right[rows].sum(-1), pairs[rows].sum(-1))),
            signs=int(known.sum()),
            pairs=int(pairs.sum()),
        )

    def row(self) -> dict[str, float]:
        """Return all numbers by name, for a table; ends of intervals have ``_low`` and ``_high`` behind."""
        found: dict[str, float] = {}
        for name, value in vars(self).items():
            if isinstance(value, Interval):
                found |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
            else:
                found[name] = value
        return found


def bootstrap(statistic: Callable[[Array], Array], count: int, seed: int) -> Interval:
    """Return a statistic with its 95% percentile interval over resampled rows.

    Args:
        statistic: Takes indices of rows, int ``[..., n]``, and gives one number for each leading index.
        count: Rows.
        seed: Of the resampling.
    """
    rows = np.random.default_rng(seed).integers(count, size=(RESAMPLES, count))
    found = statistic(rows)
    found = found[~np.isnan(found)]
    value = float(statistic(np.arange(count)[None])[0])
    if not len(found) or np.isnan(value):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(found, [0.025, 0.975])
    return Interval(value, float(low), float(high))


def _ordered(truth: TrueAdvantages, means: Array) -> tuple[Array, Array]:
    """Return how many pairs of actions are ordered rightly in each decision, and how many have a known order."""
    differences, known = truth.ordered_pairs()
    known &= np.triu(np.ones(known.shape[1:], bool), 1)
    claimed = means[:, :, None] - means[:, None]
    return (known & (np.sign(claimed) == np.sign(differences))).sum(axis=(1, 2)), known.sum(axis=(1, 2))


def _mean_squares(samples: Array) -> Array:
    """Return the squares of means over the last axis, less what the samples' spread adds to them."""
    return np.square(samples.mean(axis=-1)) - np.nan_to_num(np.square(standard_errors(samples)))


def _root(squares: Array) -> Array:
    return np.sqrt(np.maximum(squares, 0.0))


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.full(np.shape(whole), np.nan), where=whole > 0)


def _correlation(first: Array, second: Array) -> Array:
    one, other = (values - values.mean(axis=-1, keepdims=True) for values in (first, second))
    scale = np.sqrt(np.square(one).sum(axis=-1) * np.square(other).sum(axis=-1))
    flat = scale <= _ROUNDING * np.abs(first).max(axis=-1) * np.abs(second).max(axis=-1)
    return _ratio((one * other).sum(axis=-1), np.where(flat, 0.0, scale))

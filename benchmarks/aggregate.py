"""Scores over several seeds: interquartile mean with a stratified-bootstrap interval.

Agarwal et al., "Deep reinforcement learning at the edge of the statistical precipice", NeurIPS 2021.
"""

from __future__ import annotations

import numpy as np
from scipy import stats


def interquartile_mean(scores: np.ndarray) -> float:
    """Return the mean of the middle half of all scores, whatever their shape."""
    return float(stats.trim_mean(np.asarray(scores, float), 0.25, axis=None))


def bootstrap_interval(
    scores: np.ndarray, confidence: float = 0.95, resamples: int = 5000, seed: int = 0
) -> tuple[float, float]:
    """Return a percentile interval of the interquartile mean.

    Args:
        scores: ``[runs, tasks]``; runs are drawn with replacement within each task (the strata).
        confidence: Mass of the interval.
        resamples: Number of bootstrap samples.
        seed: Of the resampling.
    """
    scores = np.atleast_2d(np.asarray(scores, float).T).T
    runs, tasks = scores.shape
    rng = np.random.default_rng(seed)
    rows = rng.integers(runs, size=(resamples, runs, tasks))
    drawn = np.take_along_axis(scores[None], rows, axis=1).reshape(resamples, -1)
    means = stats.trim_mean(drawn, 0.25, axis=1)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)

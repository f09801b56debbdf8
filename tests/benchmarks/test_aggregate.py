"""The statistics behind every table of learning results."""

import sys
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

from aggregate import bootstrap_interval, interquartile_mean


def test_interquartile_mean_is_the_mean_of_the_middle_half():
    assert interquartile_mean(np.array([100.0, 1.0, 2.0, -50.0])) == 1.5
    assert interquartile_mean(np.arange(8.0).reshape(2, 4)) == 3.5


def test_interval_agrees_with_scipy_on_one_task():
    scores = np.random.default_rng(1).normal(10, 2, 40)
    expected = stats.bootstrap(
        (scores,),
        lambda x, axis: stats.trim_mean(x, 0.25, axis=axis),
        method="percentile",
        n_resamples=5000,
        rng=2,
    ).confidence_interval
    assert bootstrap_interval(scores) == pytest.approx((expected.low, expected.high), abs=0.1)


def test_strata_are_kept_apart():
    """Tasks on scales far apart: resampling across tasks would widen the interval to their distance."""
    scores = np.stack([np.full(6, 0.0), np.full(6, 100.0)], axis=1)
    assert bootstrap_interval(scores) == (50.0, 50.0)


def test_the_same_seed_gives_the_same_interval():
    scores = np.random.default_rng(3).normal(size=(5, 2))
    assert bootstrap_interval(scores, seed=4) == bootstrap_interval(scores, seed=4)

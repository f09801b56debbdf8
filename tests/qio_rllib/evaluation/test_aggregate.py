"""The statistics behind every table of learning results."""

import numpy as np
import pytest
from scipy import stats

from qio_rllib.evaluation.aggregate import Summary, bootstrap_interval, describe, interquartile_mean


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
    scores = np.stack([np.full(10, 0.0), np.full(10, 100.0)], axis=1)
    assert bootstrap_interval(scores) == (50.0, 50.0)


def test_the_same_seed_gives_the_same_interval():
    scores = np.random.default_rng(3).normal(size=(12, 2))
    assert bootstrap_interval(scores, seed=4) == bootstrap_interval(scores, seed=4)


def test_fewer_than_ten_seeds_have_no_interval():
    """Their interquartile mean is not far from a mean, and its bootstrap interval is too short."""
    scores = np.arange(9.0)
    with pytest.raises(ValueError, match="an interval needs at least 10 seeds, got 9"):
        bootstrap_interval(scores)
    found = Summary.of([1.0, 2.0, 6.0])
    assert (found.seeds, found.statistic, found.score) == (3, "mean, min to max", 3.0)
    assert (found.low, found.high) == (1.0, 6.0)


def test_ten_seeds_have_an_interquartile_mean_with_an_interval():
    scores = np.random.default_rng(5).normal(size=10)
    found = Summary.of(scores)
    assert (found.seeds, found.statistic) == (10, "IQM, 95% interval")
    assert found.score == interquartile_mean(scores)
    assert (found.low, found.high) == bootstrap_interval(scores)


def test_one_text_for_a_group_of_seeds():
    assert describe([395.0, 395.4, 395.5, 395.6, 396.1]) == "395.5 (mean of 5 seeds, 395.0 to 396.1)"
    assert describe([2.0] * 12) == "IQM 2.0, 95% interval 2.0 to 2.0 (12 seeds)"
    assert describe([0.12345], 3) == "0.123 (1 seed)"
    with pytest.raises(ValueError, match="scores: there are none"):
        describe([])

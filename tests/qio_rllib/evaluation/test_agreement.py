"""How estimators are judged, on truths and estimators that are made up."""

import numpy as np
import pytest

from qio_rllib.evaluation.advantages import TrueAdvantages
from qio_rllib.evaluation.agreement import Agreement, bootstrap

COUNT, BRANCHES = 400, 64


def made_up(seed=0, noise=1.0):
    """Decisions with two equally likely actions of advantages -x and x, and returns with noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, COUNT)
    advantages = np.stack([-x, x], axis=1)
    returns = 3 + advantages[..., None] + noise * rng.normal(size=(COUNT, 2, BRANCHES))
    truth = TrueAdvantages.of(returns, np.full((COUNT, 2), 0.5))
    return rng, advantages, truth, rng.integers(2, size=COUNT)


def test_error_bias_and_noise_are_those_of_an_estimator_that_was_made_so():
    rng, advantages, truth, taken = made_up()
    # Off by 0.3 on average, by 0.4 more or less from state to state and by 0.6 between actions; noise of 1.2.
    off = 0.3 + 0.4 * rng.choice([-1, 1], size=(COUNT, 1, 1))
    off = off + 0.6 * rng.choice([-1, 1], size=(COUNT, 1, 1)) * np.array([[[-1], [1]]])
    estimates = advantages[..., None] + off + rng.normal(0, 1.2, (COUNT, 2, BRANCHES + 1))
    found = Agreement.of(truth, estimates, taken)
    assert found.bias.value == pytest.approx(0.3, abs=0.08)
    assert found.bias.low < 0.3 < found.bias.high
    assert found.offset.value == pytest.approx(0.5, abs=0.04)
    assert found.distortion.value == pytest.approx(0.6, abs=0.02)
    assert found.noise.value == pytest.approx(1.2, abs=0.02)
    whole = np.sqrt(0.25 + 0.36 + 1.44)
    assert found.rmse.value == pytest.approx(whole, abs=0.12)
    assert found.rmse.low < whole < found.rmse.high
    scale = np.sqrt(1 + 0.16 + 0.36 + 1.44)  # of the estimates; the advantages' is 1
    assert found.correlation.value == pytest.approx(1 / scale, abs=0.08)


def test_the_error_of_the_truth_is_taken_off():
    """An estimator that is right is said to be right though the truth has an error of 0.35 itself."""
    _, advantages, truth, taken = made_up(noise=4.0)
    assert np.nanmean(truth.errors) > 0.3
    found = Agreement.of(truth, np.repeat(advantages[..., None], BRANCHES + 1, axis=2), taken)
    assert found.rmse.value < 0.12
    assert found.offset.value < 0.12
    assert found.distortion.value < 0.12
    assert found.noise.value == pytest.approx(0, abs=1e-12)


def test_signs_and_orders_count_where_the_truth_is_known():
    _, advantages, truth, taken = made_up()
    right = Agreement.of(truth, np.repeat(advantages[..., None], BRANCHES + 1, axis=2), taken)
    wrong = Agreement.of(truth, np.repeat(-advantages[..., None], BRANCHES + 1, axis=2), taken)
    assert right.sign.value > 0.98  # two standard errors are not certainty
    assert wrong.sign.value == pytest.approx(1 - right.sign.value)
    assert right.order.value > 0.98
    assert wrong.order.value == pytest.approx(1 - right.order.value)
    assert right.correlation.value == pytest.approx(-wrong.correlation.value)
    assert 0.7 * COUNT < right.signs < 0.95 * COUNT
    assert right.pairs == pytest.approx(right.signs, rel=0.05)
    assert {"sign_low", "order_high", "signs", "pairs"} < right.row().keys()


def test_what_the_episode_itself_gave_is_the_single_estimate():
    _, advantages, truth, taken = made_up()
    estimates = np.repeat(advantages[..., None], BRANCHES + 1, axis=2)
    estimates[..., 0] = 7.0
    found = Agreement.of(truth, estimates, taken)
    assert found.rmse.value == pytest.approx(np.sqrt(1 + 49), abs=0.3)
    assert np.isnan(found.correlation.value)
    assert np.isnan(found.correlation.low)
    assert found.offset.value < 0.1
    assert found.order.value > 0.98


def test_one_branch_leaves_noise_signs_and_orders_open():
    truth = TrueAdvantages.of(np.array([[[1.0], [3.0]], [[2.0], [0.0]]]), np.full((2, 2), 0.5))
    found = Agreement.of(truth, np.repeat(truth.by_branch(), 2, axis=2), np.array([0, 1]))
    assert np.isnan([found.noise.value, found.sign.value, found.order.value]).all()
    assert (found.signs, found.pairs) == (0, 0)
    assert found.rmse.value == found.bias.value == 0


def test_estimates_of_another_shape_are_refused():
    truth = TrueAdvantages.of(np.zeros((1, 2, 3)), [[0.5, 0.5]])
    with pytest.raises(ValueError, match=r"expected shape \(1, 2, 4\), got \(1, 2, 3\)"):
        Agreement.of(truth, np.zeros((1, 2, 3)), np.array([0]))


def test_the_bootstrap_interval_of_a_mean_is_about_two_standard_errors_wide():
    values = np.random.default_rng(1).normal(5, 2, 300)
    found = bootstrap(lambda rows: values[rows].mean(axis=-1), 300, seed=0)
    assert found.value == values.mean()
    half = 1.96 * values.std(ddof=1) / np.sqrt(300)
    assert found.low == pytest.approx(found.value - half, abs=0.02)
    assert found.high == pytest.approx(found.value + half, abs=0.02)

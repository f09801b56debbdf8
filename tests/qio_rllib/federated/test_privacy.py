"""Clipping, noise and the ledger, against closed forms and published figures."""

import math

import numpy as np
import pytest
from dp_accounting.pld import privacy_loss_distribution
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import brentq
from scipy.special import ive
from scipy.stats import norm as normal
from scipy.stats import skellam as skellam_law

from qio_envs.api import ConfigError
from qio_rllib.federated.privacy import (
    GaussianMechanism,
    Ledger,
    SkellamMechanism,
    clip,
    gaussian_mean,
    round_within,
    rounded_norm,
    skellam,
    skellam_rdp,
)


@settings(max_examples=60, deadline=None)
@given(arrays(np.float32, st.integers(1, 200), elements=st.floats(-1e4, 1e4, width=32)), st.floats(0.01, 100))
def test_clipping_never_leaves_more_than_the_norm(update, norm):
    found = clip(update, norm)
    assert np.linalg.norm(found.astype(np.float64)) <= norm
    length = np.linalg.norm(update.astype(np.float64))
    if length <= norm:
        assert (found == update).all()
    else:
        assert found == pytest.approx(update * (norm / length), rel=1e-5, abs=1e-6)


def test_the_noise_of_the_mean_has_its_deviation_and_the_denominator_is_fixed():
    total = np.full(40_000, 12.0)
    found = gaussian_mean(total, norm=2.0, noise_multiplier=1.5, expected=4.0, rng=np.random.default_rng(0))
    assert found.mean() == pytest.approx(3.0, abs=5 * 0.75 / 200)
    assert found.std() == pytest.approx(1.5 * 2.0 / 4.0, rel=0.03)


def gaussian_epsilon(noise_multiplier, rounds, delta):
    """Balle and Wang, 2018, theorem 8, of the composition: one Gaussian of sensitivity sqrt(rounds)."""
    mu = math.sqrt(rounds) / noise_multiplier

    def excess(epsilon):
        return (
            normal.cdf(mu / 2 - epsilon / mu) - math.exp(epsilon) * normal.cdf(-mu / 2 - epsilon / mu) - delta
        )

    return brentq(excess, 0, 200)


@pytest.mark.parametrize(("multiplier", "rounds", "delta"), [(5.0, 50, 1e-5), (1.0, 1, 1e-6), (3.0, 7, 1e-4)])
def test_without_sampling_epsilon_is_the_closed_form(multiplier, rounds, delta):
    found = GaussianMechanism(1.0, multiplier).epsilon(rounds, delta)
    assert found == pytest.approx(gaussian_epsilon(multiplier, rounds, delta), abs=1e-3)


@pytest.mark.parametrize(
    ("sampling", "multiplier", "rounds", "delta", "published"),
    [(0.1, 1.0, 100, 1e-5, 7.0473), (1.0, 5.0, 50, 1e-5, 6.57297), (0.01, 0.8, 1000, 1e-6, 3.70619)],
)
def test_epsilon_is_that_of_another_accountant(sampling, multiplier, rounds, delta, published):
    """Figures of the package prv-accountant, an independent implementation."""
    assert GaussianMechanism(sampling, multiplier).epsilon(rounds, delta) == pytest.approx(
        published, abs=1e-3
    )


def test_what_a_round_loses_is_computed_once(monkeypatch):
    calls = []
    one_round = privacy_loss_distribution.from_gaussian_mechanism

    def counted(*args, **kwargs):
        calls.append(args)
        return one_round(*args, **kwargs)

    monkeypatch.setattr(privacy_loss_distribution, "from_gaussian_mechanism", counted)
    ledger = Ledger(GaussianMechanism(0.125, 3.0), 1e-5, simulated=True)
    spent = []
    for _ in range(3):
        ledger.charge()
        spent.append(ledger.epsilon)
    assert len(calls) == 1
    assert spent == sorted(set(spent))


def test_more_rounds_or_less_noise_or_rarer_sampling_show():
    spent = [GaussianMechanism(1.0, 3.0).epsilon(rounds, 1e-5) for rounds in (1, 2, 8)]
    assert spent == sorted(spent)
    assert spent[2] > GaussianMechanism(1.0, 4.0).epsilon(8, 1e-5)
    assert spent[2] > GaussianMechanism(0.5, 3.0).epsilon(8, 1e-5)


def test_integer_noise_is_skellam():
    found = skellam(60_000, 6.0, np.random.default_rng(0))
    assert found.dtype == np.int64
    assert found.var() == pytest.approx(6.0, rel=0.03)
    law = skellam_law(3.0, 3.0)
    for value in range(-5, 6):
        assert (found == value).mean() == pytest.approx(law.pmf(value), abs=0.006)


@pytest.mark.parametrize(("variance", "shift"), [(4.0, 1), (20.0, 2), (50.0, 5)])
def test_the_divergence_bound_holds_in_one_dimension(variance, shift):
    """Numerically: the Renyi divergence between integer noise and the same moved by one client's number."""
    reach = int(20 * math.sqrt(variance))
    values = np.arange(-reach, reach + 1)
    first, second = (np.log(ive(np.abs(values - moved), variance)) for moved in (0, shift))
    assert np.exp(first) == pytest.approx(skellam_law(variance / 2, variance / 2).pmf(values), abs=1e-9)
    for alpha in (2, 3, 8, 16):
        exact = np.logaddexp.reduce(alpha * second + (1 - alpha) * first) / (alpha - 1)
        bound = skellam_rdp(alpha, variance, shift, shift)
        assert exact <= bound * (1 + 1e-9)
        assert bound <= 3 * exact  # a bound that says something


def test_rounding_stays_within_its_norm():
    rng = np.random.default_rng(0)
    for size, length in ((10, 3.0), (500, 40.0), (3000, 900.0)):
        update = rng.normal(size=size)
        update *= length / np.linalg.norm(update)
        bound = rounded_norm(length, size)
        for _ in range(20):
            found = round_within(update, bound, rng)
            assert np.linalg.norm(found) <= bound
            assert np.abs(found - update).max() < 1
    assert rounded_norm(3.0, 10) <= 3.0 + math.sqrt(10)
    with pytest.raises(ConfigError, match="does not round to one of"):
        round_within(np.full(10, 9.0), 1.0, rng)


def test_a_ledger_counts_released_rounds_and_goes_on():
    ledger = Ledger(GaussianMechanism(1.0, 3.0), 1e-5, simulated=True)
    assert ledger.epsilon == 0
    for _ in range(3):
        ledger.charge()
    assert ledger.epsilon == pytest.approx(gaussian_epsilon(3.0, 3, 1e-5), abs=1e-3)
    other = Ledger(GaussianMechanism(1.0, 3.0), 1e-5, simulated=True)
    other.set_state(ledger.get_state())
    assert other.epsilon == ledger.epsilon


def test_a_budget_says_how_many_rounds():
    ledger = Ledger(GaussianMechanism(1.0, 5.0), 1e-5, simulated=False)
    budget = gaussian_epsilon(5.0, 5, 1e-5) + 0.01
    assert ledger.rounds_within(budget) == 5
    assert ledger.rounds_within(0.01) == 0


def test_integer_noise_costs_more_than_gaussian_noise_of_its_variance_and_not_much():
    size, length = 1000, 2000.0
    variance = (2.0 * length) ** 2
    found = SkellamMechanism(variance, length, size).epsilon(10, 1e-5)
    exact = GaussianMechanism(1.0, 2.0).epsilon(10, 1e-5)
    assert exact < found < 1.2 * exact


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: GaussianMechanism(0.0, 1.0), r"privacy.sampling: expected a probability in \(0, 1\]"),
        (lambda: GaussianMechanism(1.1, 1.0), "privacy.sampling"),
        (lambda: GaussianMechanism(0.5, 0.0), "privacy.noise_multiplier: expected a number above 0"),
        (lambda: SkellamMechanism(0.0, 1.0, 5), "privacy.variance"),
        (lambda: SkellamMechanism(1.0, 0.0, 5), "privacy.norm"),
        (lambda: Ledger(GaussianMechanism(0.5, 1.0), 1.0, True), "privacy.delta"),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ConfigError, match=message):
        call()

"""Distortion-rate bounds: known functions, channels and quantisers that no bound may exceed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qio_rllib.evaluation.rate_distortion import disc_distance, distances, distortion_rate

SLOPES = np.geomspace(0.05, 12, 40)


def entropy(share):
    return -share * np.log2(share) - (1 - share) * np.log2(1 - share)


@pytest.mark.parametrize("wrong", [0.01, 0.1, 0.25, 0.4])
def test_a_coin_with_hamming_distortion_needs_one_bit_less_its_entropy(wrong):
    found = distortion_rate(np.array([0.5, 0.5]), 1 - np.eye(2), SLOPES)
    assert found.at(1 - entropy(wrong)) == pytest.approx(wrong, abs=5e-4)
    assert found.at(1 - entropy(wrong)) <= wrong + 1e-9
    assert 0.49 < found.at(0.0) <= 0.5
    assert found.at(1.5) == 0


@pytest.mark.parametrize("bias", [0.1, 0.3])
def test_a_biased_coin_needs_the_difference_of_the_entropies(bias):
    found = distortion_rate(np.array([bias, 1 - bias]), 1 - np.eye(2), SLOPES)
    for wrong in (0.02, 0.05, 0.9 * bias):
        rate = entropy(bias) - entropy(wrong)
        assert wrong - 2e-3 <= found.at(rate) <= wrong + 1e-6


def test_letters_that_are_rotations_of_each_other_can_stand_for_all():
    """A uniform source of four letters: R(D) = 2 - h(D) - D log2 3."""
    letters = 1 - np.eye(4)
    whole = distortion_rate(np.full(4, 0.25), letters, SLOPES)
    turned = distortion_rate(np.ones(1), letters[:1, None, :], SLOPES)
    for wrong in (0.05, 0.2, 0.5):
        rate = 2 - entropy(wrong) - wrong * np.log2(3)
        assert whole.at(rate) == pytest.approx(wrong, abs=2e-3)
        assert turned.at(rate) == pytest.approx(whole.at(rate), abs=1e-4)


@settings(max_examples=40)
@given(seed=st.integers(0, 100_000), letters=st.integers(2, 5), others=st.integers(2, 6))
def test_no_channel_does_better(seed, letters, others):
    rng = np.random.default_rng(seed)
    source = rng.dirichlet(np.ones(letters))
    distortion = rng.random((letters, others))
    channel = rng.dirichlet(np.full(others, rng.choice([0.1, 1.0])), size=letters) + 1e-12
    joint = source[:, None] * channel / channel.sum(axis=1, keepdims=True)
    bits = float((joint * np.log2(joint / np.outer(source, joint.sum(axis=0)))).sum())
    bound = distortion_rate(source, distortion, [0.3, 1.0, 3.0, 10.0])
    assert bound.at(max(bits, 0.0)) <= (joint * distortion).sum() + 1e-6


def test_reproductions_that_are_checked_only_lower_the_bound_and_slack_does_too():
    source = np.full(5, 0.2)
    places = np.linspace(0, 1, 5)
    coarse, fine = (np.abs(places[:, None] - np.linspace(0, 1, count)) for count in (3, 41))
    rates = np.linspace(0, 2, 9)
    alone = distortion_rate(source, coarse, SLOPES).at(rates)
    best = distortion_rate(source, fine, SLOPES).at(rates)
    checked = distortion_rate(source, coarse, SLOPES, fine).at(rates)
    assert (checked <= best + 1e-6).all()
    assert (checked < alone + 1e-9).all()
    assert (checked < alone - 1e-3).any()
    loose = distortion_rate(source, coarse, SLOPES, fine, slack=0.01).at(rates)
    np.testing.assert_allclose(loose, np.maximum(checked - 0.01, 0), atol=1e-6)


def test_the_bound_of_a_disc_lies_below_what_quantisers_attain_and_not_far():
    bound = disc_distance(2.0)
    rng = np.random.default_rng(0)
    radius, angle = 2 * np.sqrt(rng.random(100_000)), 2 * np.pi * rng.random(100_000)
    for sectors in (1, 2, 3, 4, 6):
        turn = np.mod(angle, 2 * np.pi / sectors) - np.pi / sectors  # from the middle of the own sector
        x, y = radius * np.cos(turn), radius * np.sin(turn)
        attained = min(np.hypot(x - middle, y).mean() for middle in np.linspace(0, 1.8, 60))
        least = float(bound.at(np.log2(sectors)))
        assert 0.72 * attained < least <= attained + 0.005, sectors
    assert bound.at(0.0) == pytest.approx(4 / 3, rel=0.015)
    rates = np.linspace(0, 12, 100)
    found = bound.at(rates)
    assert (np.diff(found) < 0).all()
    assert (np.diff(found, 2) > -1e-9).all()  # convex
    assert (found >= 2 * np.sqrt(2) / np.e * 2 ** (-rates / 2) * 0.999).all()
    np.testing.assert_allclose(disc_distance(1.0).at(rates), found / 2, rtol=1e-6)


def test_distances_are_those_of_the_plane():
    found = distances(np.array([0.0, 2.0]), np.array([1.0]), np.array([0.0, np.pi / 2, np.pi]))
    np.testing.assert_allclose(found[:, 0], [[1, 1, 1], [1, 5**0.5, 3]])

"""Rounds of a federation with noise: its deviation, what epsilon is of, and the ledger."""

import math

import numpy as np
import pytest
from toy_servers import SEEDED, SIZE, played, server_of, updates_of

from qio_rllib.federated.privacy import GaussianMechanism, SkellamMechanism, rounded_norm
from qio_rllib.federated.settings import (
    ParticipationSettings,
    PrivacySettings,
    QuantizationSettings,
    SecureSettings,
)


def test_gaussian_noise_has_the_deviation_that_epsilon_is_of():
    """sum of clipped updates + N(0, (z C)^2), over the expected number of clients."""
    privacy = PrivacySettings(clip=0.25, noise_multiplier=2.0, **SEEDED)
    noise = []
    for seed in range(200):
        server = server_of(
            10, seed=seed, privacy=privacy, participation=ParticipationSettings(probability=0.5)
        )
        plan = server.plan()
        given_updates = updates_of(plan.trains, scale=1.0)  # norms near 6: all are clipped
        server.finish(plan, given_updates)
        clipped = sum(
            (0.25 * update.vector / np.linalg.norm(update.vector) for update in given_updates.values()),
            start=np.zeros(SIZE),
        )
        noise.append(server.weights - clipped / 5)
    assert np.std(noise) == pytest.approx(2.0 * 0.25 / 5, rel=0.03)
    assert np.mean(noise) == pytest.approx(0, abs=0.004)
    assert server.ledger.epsilon == pytest.approx(GaussianMechanism(0.5, 2.0).epsilon(1, 1e-5))
    assert server.ledger.simulated


def test_skellam_noise_of_the_fewest_clients_is_what_epsilon_is_of():
    privacy = PrivacySettings("skellam", clip=0.5, noise_multiplier=1.5, colluders=1, **SEEDED)
    quantization = QuantizationSettings(fraction_bits=12)
    found = []
    for seed in range(120):
        server = server_of(
            6, seed=seed, privacy=privacy, quantization=quantization, secure=SecureSettings(min_clients=4)
        )
        plan = server.plan()
        given_updates = updates_of(plan.trains, scale=0.01)
        server.finish(plan, given_updates)
        exact = np.mean([update.vector for update in given_updates.values()], axis=0)
        found.append(server.weights - exact)
    steps = rounded_norm(0.5 * 4096, SIZE)
    # six clients add shares that make the noise of three: of four at least, one of whom colludes
    expected = math.sqrt(6 / 3) * 1.5 * steps / 4096 / 6
    assert np.std(found) == pytest.approx(expected, rel=0.04)
    mechanism = SkellamMechanism((1.5 * steps) ** 2, steps, SIZE)
    assert server.ledger.epsilon == pytest.approx(mechanism.epsilon(1, 1e-5))


def test_noise_of_the_operating_system_cannot_be_repeated():
    weights = []
    for _ in range(2):
        server = server_of(privacy=PrivacySettings())
        played(server)
        assert not server.ledger.simulated
        weights.append(server.weights)
    assert not np.array_equal(*weights)


def test_an_empty_cohort_is_a_round_of_noise():
    """Where nobody is drawn the weights still move: that nobody was there must not show."""
    server = server_of(
        4, seed=3, privacy=PrivacySettings(**SEEDED), participation=ParticipationSettings(probability=1e-9)
    )
    report = server.finish(server.plan(), {})
    assert report.failure is None
    assert server.ledger.rounds == 1
    assert np.std(server.weights) > 0


def test_the_ledger_is_restored_and_keys_are_not_kept():
    server = server_of(5, secure=SecureSettings(), privacy=PrivacySettings("skellam", clip=0.5, **SEEDED))
    played(server, 2)
    state = server.get_state()
    restored = server_of(5, secure=SecureSettings(), privacy=PrivacySettings("skellam", clip=0.5, **SEEDED))
    restored.set_state(state)
    assert restored.ledger.epsilon == server.ledger.epsilon > 0
    assert "key" not in str(state).lower()

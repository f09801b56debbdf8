"""Rules of aggregation and server optimisers, against definitions, SciPy and torch."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import minimize
from scipy.stats import trim_mean

from qio_envs.api import ConfigError
from qio_rllib.federated.aggregation import (
    distance_filter,
    geometric_median,
    mean,
    median,
    multi_krum,
    trimmed_mean,
)
from qio_rllib.federated.attacks import ATTACKS, poisoned
from qio_rllib.federated.server_optimizers import ServerOptimizer, ServerOptimizerSettings

UPDATES = arrays(
    np.float32, st.tuples(st.integers(5, 9), st.integers(1, 6)), elements=st.floats(-9, 9, width=32)
)
RULES = {
    "mean": mean,
    "median": median,
    "trimmed_mean": lambda updates: trimmed_mean(updates, 0.2),
    "geometric_median": geometric_median,
    "multi_krum": lambda updates: multi_krum(updates, 1),
    "distance_filter": lambda updates: distance_filter(updates, 0.2)[0],
}


@pytest.mark.parametrize("rule", RULES.values(), ids=RULES)
@settings(max_examples=25, deadline=None)
@given(updates=UPDATES, shift=st.integers(-3, 3))
def test_rules_agree_on_agreement_and_follow_shifts(rule, updates, shift):
    same = np.repeat(updates[:1], len(updates), axis=0)
    assert rule(same) == pytest.approx(updates[0], abs=1e-5)
    found = rule(updates)
    assert found.dtype == np.float32
    assert (found >= updates.min(0) - 1e-4).all()
    assert (found <= updates.max(0) + 1e-4).all()
    assert found.shape == updates.shape[1:]


@pytest.mark.parametrize("name", ["mean", "median", "trimmed_mean", "geometric_median"])
@settings(max_examples=25, deadline=None)
@given(updates=UPDATES, order=st.randoms())
def test_the_order_of_clients_does_not_matter(name, updates, order):
    rows = list(range(len(updates)))
    order.shuffle(rows)
    assert RULES[name](updates[rows]) == pytest.approx(RULES[name](updates), abs=1e-4)


@settings(max_examples=25, deadline=None)
@given(UPDATES)
def test_means_and_medians_equal_numpy_and_scipy(updates):
    weights = np.arange(1, len(updates) + 1)
    assert mean(updates, weights) == pytest.approx(np.average(updates, axis=0, weights=weights), abs=1e-5)
    assert median(updates) == pytest.approx(np.median(updates, axis=0), abs=1e-6)
    if len(updates) == 5:
        assert trimmed_mean(updates, 0.2) == pytest.approx(trim_mean(updates, 0.2, axis=0), abs=1e-5)


def test_a_share_is_trimmed_in_whole_clients_at_either_end():
    updates = np.array([[1.0], [2.0], [3.0], [4.0], [100.0]])
    assert trimmed_mean(updates, 0.2)[0] == 3
    assert trimmed_mean(updates, 0.21)[0] == 3  # two at either end
    assert trimmed_mean(updates, 0)[0] == 22


def test_the_geometric_median_minimises_the_sum_of_distances():
    rng = np.random.default_rng(3)
    for _ in range(5):
        updates, weights = rng.normal(size=(9, 4)), rng.uniform(0.2, 2, 9)
        found = geometric_median(updates, weights, tolerance=1e-9, max_iterations=2000)

        def cost(point, updates=updates, weights=weights):
            return weights @ np.linalg.norm(updates - point, axis=1)

        best = minimize(
            cost,
            updates.mean(0),
            method="Nelder-Mead",
            options={"xatol": 1e-9, "fatol": 1e-12, "maxiter": 9000},
        )
        assert cost(found) <= best.fun + 1e-6
    corners = np.array([[0.0, 0], [0, 0], [0, 0], [10, 0]])  # more than half in one place: there
    assert np.linalg.norm(geometric_median(corners)) < 1e-4


def test_krum_takes_the_update_with_the_nearest_neighbours():
    rng = np.random.default_rng(0)
    updates = np.concatenate([rng.normal(0, 0.1, (7, 3)), rng.normal(50, 0.1, (2, 3))])
    count, byzantine = 9, 2
    scores = []
    for one in range(count):
        distances = sorted(
            ((updates[one] - updates[other]) ** 2).sum() for other in range(count) if other != one
        )
        scores.append(sum(distances[: count - byzantine - 2]))
    assert multi_krum(updates, 2, 1) == pytest.approx(updates[int(np.argmin(scores))], abs=1e-6)
    best = np.argsort(scores)[:4]
    assert multi_krum(updates, 2, 4) == pytest.approx(updates[best].mean(0), abs=1e-6)
    assert np.abs(multi_krum(updates, 2)).max() < 1


def test_the_filter_keeps_the_honest_and_says_whom():
    rng = np.random.default_rng(0)
    updates = np.concatenate([rng.normal(1, 0.1, (7, 20)), rng.normal(-5, 0.1, (3, 20))])
    found, kept = distance_filter(updates, 0.3)
    assert kept.tolist() == [True] * 7 + [False] * 3
    assert found == pytest.approx(updates[:7].mean(0), abs=1e-6)
    wide, everybody = distance_filter(updates, 0.3, radius=100.0)
    assert everybody.all()
    assert wide == pytest.approx(updates.mean(0), abs=1e-6)
    # A tight radius that keeps fewer than the honest ones gives way to the radius itself.
    _, loose = distance_filter(updates, 0.3, radius=0.6, tight=0.05)
    assert loose.tolist() == kept.tolist()


@pytest.mark.parametrize("attack", ATTACKS)
def test_robust_rules_stay_near_the_honest_mean_and_the_mean_does_not(attack):
    rng = np.random.default_rng(1)
    honest = rng.normal(1.0, 0.3, (10, 50)).astype(np.float32)
    malicious = np.arange(10) < 3
    sent = poisoned(attack, honest, malicious, 20.0, rng)
    assert (sent[3:] == honest[3:]).all()
    centre = honest[3:].mean(0)
    scale = np.linalg.norm(centre)
    assert np.linalg.norm(mean(sent) - centre) > scale
    for name in ("median", "geometric_median"):
        assert np.linalg.norm(RULES[name](sent) - centre) < 0.4 * scale, name
    for found in (trimmed_mean(sent, 0.3), multi_krum(sent, 3), distance_filter(sent, 0.3)[0]):
        assert np.linalg.norm(found - centre) < 0.4 * scale


def test_attacks_are_what_they_say():
    rng = np.random.default_rng(0)
    updates = rng.normal(1, 1, (6, 4000)).astype(np.float32)
    malicious = np.array([True, *[False] * 5])
    assert poisoned("sign_flip", updates, malicious, 3.0, rng)[0] == pytest.approx(-3 * updates[0], abs=1e-5)
    noise = poisoned("noise", updates, malicious, 2.0, rng)[0]
    assert np.linalg.norm(noise) == pytest.approx(2 * np.linalg.norm(updates[0]), rel=0.1)
    assert abs(np.corrcoef(noise, updates[0])[0, 1]) < 0.1
    against = poisoned("normalized", updates, malicious, 1.0, rng)[0]
    centre = updates[1:].mean(0)
    assert np.linalg.norm(against) == pytest.approx(np.median(np.linalg.norm(updates[1:], axis=1)), rel=1e-4)
    assert against @ centre == pytest.approx(-np.linalg.norm(against) * np.linalg.norm(centre), rel=1e-4)


def test_server_sgd_and_momentum_follow_torch():
    rng = np.random.default_rng(0)
    for momentum in (0.0, 0.9):
        weights = rng.normal(size=5).astype(np.float32)
        parameter = torch.nn.Parameter(torch.from_numpy(weights.copy()))
        theirs = torch.optim.SGD([parameter], lr=0.5, momentum=momentum)
        ours = ServerOptimizer(ServerOptimizerSettings(lr=0.5, momentum=momentum), 5)
        for _ in range(4):
            update = rng.normal(size=5).astype(np.float32)
            parameter.grad = torch.from_numpy(-update)
            theirs.step()
            weights = ours.apply(weights, update)
        assert weights == pytest.approx(parameter.detach().numpy(), abs=1e-5)


def test_server_adam_is_fedadam_of_the_paper():
    settings_ = ServerOptimizerSettings(type="adam", lr=0.1, betas=(0.9, 0.99), epsilon=1e-3)
    ours = ServerOptimizer(settings_, 1)
    weights, m, v = np.zeros(1, np.float32), 0.0, 0.0
    for update in (1.0, -2.0, 0.5):
        m, v = 0.9 * m + 0.1 * update, 0.99 * v + 0.01 * update**2
        expected = weights[0] + 0.1 * m / (v**0.5 + 1e-3)
        weights = ours.apply(weights, np.array([update]))
        assert weights[0] == pytest.approx(expected, abs=1e-6)


def test_a_restored_server_optimiser_goes_on():
    for settings_ in (ServerOptimizerSettings(momentum=0.5), ServerOptimizerSettings(type="adam")):
        first, second = ServerOptimizer(settings_, 3), ServerOptimizer(settings_, 3)
        weights = first.apply(np.zeros(3, np.float32), np.ones(3))
        second.set_state(first.get_state())
        assert (first.apply(weights, np.ones(3)) == second.apply(weights, np.ones(3))).all()
        with pytest.raises(ConfigError, match="3 numbers, expected 4"):
            ServerOptimizer(settings_, 4).set_state(first.get_state())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda u: mean(u, np.zeros(5)), "weights: expected 5 numbers of at least 0, not all 0"),
        (lambda u: mean(u, np.array([1, 1, 1, 1, -1])), "weights: expected 5 numbers"),
        (lambda u: trimmed_mean(u, 0.5), "trim: expected a share in"),
        (lambda u: trimmed_mean(u, 0.45), "that leaves some of 5 updates"),
        (lambda u: multi_krum(u, 2), r"byzantine: expected 0 to 1 of 5 updates"),
        (lambda u: multi_krum(u, 1, 5), "keep: expected 1 to 4, got 5"),
        (lambda u: distance_filter(u, 0.5), "byzantine: expected a share"),
        (lambda u: distance_filter(u, 0.1, radius=0.0), "radius, tight: expected positive"),
        (lambda u: mean(u[0]), r"updates: expected shape \(clients, numbers\)"),
        (lambda u: median(np.where(u == u[2, 1], np.nan, u)), "updates: that of client 2 is not finite"),
        (lambda u: poisoned("sing_flip", u, np.zeros(5, bool), 1, None), "did you mean 'sign_flip'"),
        (
            lambda u: poisoned("noise", u, np.zeros(5, bool), 0, None),
            "attack scale: expected a number above 0",
        ),
    ],
)
def test_bad_input(call, message):
    with pytest.raises(ConfigError, match=message):
        call(np.random.default_rng(0).normal(size=(5, 3)))


@pytest.mark.parametrize(
    "wrong", [{"type": "rmsprop"}, {"lr": 0.0}, {"momentum": 1.0}, {"betas": (0.9, 1.0)}, {"epsilon": 0.0}]
)
def test_bad_server_settings(wrong):
    with pytest.raises(ConfigError, match=rf"server\.{next(iter(wrong))}: expected"):
        ServerOptimizerSettings.of(wrong)


def test_bad_updates_do_not_reach_the_weights():
    server = ServerOptimizer(ServerOptimizerSettings(), 3)
    for wrong in (np.zeros(2), np.array([0, np.nan, 0])):
        with pytest.raises(ConfigError, match="update: expected 3 finite numbers"):
            server.apply(np.zeros(3, np.float32), wrong)
    assert (server.get_state()["first"] == 0).all()


def test_all_pairs_count_in_the_filter():
    """The central update has more than half within reach, itself included: with five of nine it is found."""
    updates = np.concatenate([np.zeros((5, 2)), np.array(list(itertools.product([9, -9], repeat=2)), float)])
    _, kept = distance_filter(updates, 0.45, radius=1.0)
    assert kept.tolist() == [True] * 5 + [False] * 4

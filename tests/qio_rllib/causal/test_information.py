"""Conditional mutual information by masked networks: against closed forms, false edges, and what is refused."""

import numpy as np
import pytest
import torch

from qio_envs.api import ConfigError
from qio_rllib.causal import information
from qio_rllib.causal.information import InformationSettings, information_graph
from qio_rllib.causal.masks import CausalMaskSettings, find_mask
from qio_rllib.causal.moments import DataError
from qio_rllib.causal.transitions import transition_graph

QUICK = InformationSettings(hiddens=(32, 32), updates=600, batch_size=128)


def linear(count, seed, correlation=0.0):
    rng = np.random.default_rng(seed)
    x = np.sqrt(1 - correlation) * rng.standard_normal((count, 3))
    x += np.sqrt(correlation) * rng.standard_normal((count, 1))
    noise = rng.standard_normal((count, 2))
    return x, np.stack([x[:, 0] + noise[:, 0], 0.5 * x[:, 1] - x[:, 2] + 0.5 * noise[:, 1]], axis=1)


@pytest.mark.parametrize("correlation", [0.0, 0.6])
def test_linear_gaussian_information_is_that_of_partial_correlations(correlation):
    """I = -log(1 - r^2) / 2 with the partial correlation r of target and input, given the other inputs."""
    covariance = np.full((3, 3), correlation) + (1 - correlation) * np.eye(3)
    left = 1 / np.linalg.inv(covariance).diagonal()  # variance of each input given the others
    slopes, deviations = np.array([[1, 0, 0], [0, 0.5, -1]]), np.array([[1.0], [0.5]])
    r_squared = slopes**2 * left / (slopes**2 * left + deviations**2)
    found = information_graph(*linear(4000, 0, correlation), settings=QUICK)
    np.testing.assert_allclose(found.information, -0.5 * np.log1p(-r_squared), atol=0.03)
    np.testing.assert_array_equal(found.mask, slopes != 0)
    assert found.inputs == ("x0", "x1", "x2")
    assert found.targets == ("y0", "y1")


def bumps(x):
    """Legendre's polynomial of degree 4 on [-2, 2]: no polynomial of a lower degree tells anything of it."""
    return np.polynomial.legendre.legval(x / 2, [0, 0, 0, 0, 1])


def test_what_no_polynomial_of_low_degree_shows_is_found():
    rng = np.random.default_rng(1)
    x = rng.uniform(-2, 2, (1200, 3))
    noise = rng.standard_normal((1200, 2))
    y = np.stack([bumps(x[:, 0]) + 0.1 * noise[:, 0], (0.2 + np.abs(x[:, 1])) * noise[:, 1]], axis=1)
    truth = np.array([[1, 0, 0], [0, 1, 0]], bool)
    np.testing.assert_array_equal(information_graph(x, y, settings=QUICK).mask, truth)
    assert not transition_graph(x, y, degree=3).mask[truth].any()


def test_inputs_without_influence_are_no_causes():
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal((400, 5)), rng.standard_normal((400, 8))
    found = information_graph(x, y, alpha=0.01, settings=QUICK)
    assert found.mask.sum() <= 2  # of 40
    np.testing.assert_allclose(found.information, 0, atol=0.1)


def test_the_seed_decides_and_the_global_generator_stays():
    data = linear(200, 3)
    settings = InformationSettings(hiddens=(8,), updates=60)
    state = torch.random.get_rng_state()
    one, same, other = (information_graph(*data, seed=seed, settings=settings) for seed in (0, 0, 1))
    assert torch.equal(state, torch.random.get_rng_state())
    np.testing.assert_array_equal(one.information, same.information)
    np.testing.assert_array_equal(one.p_values, same.p_values)
    assert not np.array_equal(one.information, other.information)


def test_a_discrete_action_is_a_cause_as_a_whole():
    rng = np.random.default_rng(4)
    action = rng.integers(3, size=600)
    x = np.column_stack([rng.standard_normal(600), np.eye(3)[action]])
    y = np.stack([action + 0.3 * rng.standard_normal(600), x[:, 0] + 0.3 * rng.standard_normal(600)], axis=1)
    found = information_graph(x, y, num_one_hot=3, settings=QUICK)
    np.testing.assert_array_equal(found.mask, [[0, 1, 1, 1], [1, 0, 0, 0]])


def test_masks_of_models_can_be_sought_by_it(monkeypatch):
    monkeypatch.setattr(information, "InformationSettings", lambda: QUICK)
    rng = np.random.default_rng(5)
    obs, actions = rng.uniform(-2, 2, (600, 2)), rng.uniform(-1, 1, (600, 1))
    change = np.stack([bumps(obs[:, 1]), actions[:, 0]], axis=1) + 0.1 * rng.standard_normal((600, 2))
    given = (obs, actions, obs + change, np.zeros(600))
    found = find_mask(*given, CausalMaskSettings.of({"test": "information"}))
    np.testing.assert_array_equal(found[:2], [[0, 1, 0], [0, 0, 1]])
    assert not find_mask(*given, CausalMaskSettings())[0].any()
    with pytest.raises(ConfigError, match="causal_mask: samples: 50; networks need at least 100"):
        find_mask(*(part[:50] for part in given), CausalMaskSettings(test="information"))


def changed(column, value):
    x, y = linear(200, 0)
    x[:, column] = value(x)
    return x, y


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: information_graph(*changed(2, lambda x: 3.0)), DataError, "x2: constant"),
        (
            lambda: information_graph(*changed(2, lambda x: x[:, 0] + x[:, 1])),
            DataError,
            "inputs: they are collinear",
        ),
        (
            lambda: information_graph(*changed(1, lambda x: np.nan)),
            DataError,
            "x1: holds numbers that are not finite",
        ),
        (lambda: information_graph(*linear(99, 0)), DataError, "samples: 99; networks need at least 100"),
        (
            lambda: information_graph(np.zeros((4, 2)), np.zeros((5, 1))),
            DataError,
            "4 rows of inputs, 5 of targets",
        ),
        (lambda: information_graph(linear(200, 0)[0], np.ones((200, 1))), DataError, "y0: constant"),
        (
            lambda: information_graph(*linear(200, 0), alpha=1),
            ConfigError,
            "alpha: expected a number in (0, 1)",
        ),
    ],
)
def test_what_is_wrong_is_refused(make, error, message):
    with np.errstate(invalid="ignore"), pytest.raises(error) as found:
        make()
    assert message in str(found.value)

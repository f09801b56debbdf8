"""Masks of factored models: what is found in transitions, when it is sought, what is refused."""

import numpy as np
import pytest

from qio_envs.api import ConfigError
from qio_rllib.causal.masks import CausalMaskSettings, find_mask


def transitions(count, seed=0, discrete=False):
    """o0 moves with o1 and the action, o1 is constant noise around itself, o2 never moves; the reward sees o0."""
    rng = np.random.default_rng(seed)
    obs = rng.uniform(-1, 1, (count, 3)).astype(np.float32)
    if discrete:
        chosen = rng.integers(3, size=count)
        actions, push = np.eye(3, dtype=np.float32)[chosen], 0.3 * (chosen - 1)
    else:
        actions = rng.uniform(-1, 1, (count, 2)).astype(np.float32)
        push = 0.3 * actions[:, 0]
    following = obs.copy()
    following[:, 0] += 0.4 * obs[:, 1] + push + 0.05 * rng.standard_normal(count)
    following[:, 1] = 0.1 * rng.standard_normal(count)
    rewards = (following[:, 0] ** 2 + 0.01 * rng.standard_normal(count)).astype(np.float32)
    return obs, actions, following, rewards


def test_what_moves_has_its_causes_and_what_does_not_has_none():
    found = find_mask(*transitions(800), CausalMaskSettings())
    assert found[:3].astype(int).tolist() == [
        [0, 1, 0, 1, 0],  # the change of o0 does not depend on o0 itself
        [0, 1, 0, 0, 0],  # o1 forgets itself: its change is all of it
        [0, 0, 0, 0, 0],
    ]
    assert found[3].astype(int).tolist() == [1, 1, 0, 1, 0]
    np.testing.assert_array_equal(found[4], found[3])  # the end of an episode as the reward


def test_a_discrete_action_is_a_cause_as_a_whole():
    found = find_mask(*transitions(800, discrete=True), CausalMaskSettings(), is_discrete=True)
    assert found[0].astype(int).tolist() == [0, 1, 0, 1, 1, 1]
    assert found[1].astype(int).tolist() == [0, 1, 0, 0, 0, 0]


def test_inputs_that_do_not_vary_are_left_out():
    obs, actions, following, rewards = transitions(800)
    obs[:, 2] = 5.0
    following[:, 2] = 5.0
    found = find_mask(obs, actions, following, rewards, CausalMaskSettings())
    assert not found[:, 2].any()
    assert found[0, 1]
    still = find_mask(obs, actions, obs, np.zeros(800, np.float32), CausalMaskSettings())
    assert not still.any()


@pytest.mark.parametrize(
    ("env_steps", "expected"), [(0, 0), (99, 0), (100, 1), (199, 1), (200, 2), (399, 2), (400, 3), (6400, 7)]
)
def test_causes_are_sought_when_there_is_twice_as_much(env_steps, expected):
    assert CausalMaskSettings().searches(env_steps, 100) == expected


def test_searches_follow_the_growth():
    assert CausalMaskSettings(growth=10.0).searches(999, 10) == 2
    assert CausalMaskSettings(growth=10.0).searches(1000, 10) == 3
    assert CausalMaskSettings().searches(1, 0) == 1


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"use": "masks"}, "causal_mask.use: expected mask or consistency, got 'masks'"),
        ({"weight": -1}, "causal_mask.weight: expected a number of at least 0, got -1"),
        ({"alpha": 0}, "causal_mask.alpha: expected a number in (0, 1), got 0"),
        ({"alpha": True}, "causal_mask.alpha: expected a number in (0, 1), got True"),
        (
            {"test": "information gain"},
            "causal_mask.test: expected regression or information, got 'information gain'",
        ),
        ({"degree": 4}, "causal_mask.degree: expected 1, 2 or 3, got 4"),
        ({"samples": 5}, "causal_mask.samples: expected an integer of at least 10, got 5"),
        ({"interventions": -1}, "causal_mask.interventions: expected an integer of at least 0, got -1"),
        ({"growth": 1}, "causal_mask.growth: expected a number above 1, got 1"),
        ({"alfa": 0.1}, "causal_mask: unknown key 'alfa'"),
    ],
)
def test_settings_that_cannot_be_are_refused(given, message):
    with pytest.raises(ConfigError) as error:
        CausalMaskSettings.of(given)
    assert message in str(error.value)


def test_defaults_and_none():
    assert CausalMaskSettings.of(None) is None
    assert CausalMaskSettings.of({}) == CausalMaskSettings()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda obs: obs[:, [0, 1, 0]], "causal_mask: inputs: their products up to degree 2 are collinear"),
        (lambda obs: np.full_like(obs, np.nan), "causal_mask: obs[0]: holds numbers that are not finite"),
    ],
)
def test_data_that_cannot_be_is_refused_by_the_settings_name(change, message):
    obs, actions, following, rewards = transitions(100)
    with np.errstate(invalid="ignore"), pytest.raises(ConfigError) as error:
        find_mask(change(obs), actions, following, rewards, CausalMaskSettings())
    assert message in str(error.value)


def test_too_few_transitions_are_refused():
    with pytest.raises(ConfigError, match="causal_mask: samples: 20; degree 2 of 5 inputs makes 21 features"):
        find_mask(*transitions(20), CausalMaskSettings())

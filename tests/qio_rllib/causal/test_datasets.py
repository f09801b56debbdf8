"""Transitions from environments: they follow the dynamics, interventions make inputs independent, names fit."""

import numpy as np
import pytest

import qio_envs
from qio_envs.api import ConfigError, UnsupportedError
from qio_rllib.causal.datasets import (
    intervened_transitions,
    observed_transitions,
    true_mask,
    variable_names,
)
from qio_rllib.causal.transitions import transition_graph


def drift(num_envs=8, **settings):
    return qio_envs.environment("drift_control_v0").batched_env(num_envs, **settings)


@pytest.mark.parametrize("gather", [observed_transitions, intervened_transitions])
def test_rows_are_steps_of_the_environment(gather):
    data = gather(drift(process_noise=0.0, drive_noise=0.0), 500, 3)
    assert data.input_names == ("s0", "s1", "s2", "s3", "a0", "a1")
    assert data.target_names == ("s0'", "s1'", "s2'", "s3'", "reward")
    assert data.inputs.shape == (500, 6)
    assert data.targets.shape == (500, 5)
    s0, s1, s2, s3, a0, a1 = data.inputs.T
    expected = np.stack(
        [
            s0 + 0.1 * a0 + 0.05 * np.sin(s1),
            s1 + 0.1 * a1 + 0.02 * s0 * s2,
            0.9 * s2 + 0.1 * np.tanh(a0 + a1),
            0.95 * s3,
        ],
        axis=1,
    )
    np.testing.assert_allclose(data.targets[:, :4], expected, atol=1e-6)
    cost = (expected**2).sum(1) + 0.01 * (a0**2 + a1**2)
    np.testing.assert_allclose(data.targets[:, 4], -cost, atol=1e-5)
    assert list(data.columns()) == [*data.input_names, *data.target_names]
    np.testing.assert_array_equal(data.columns()["s1'"], data.targets[:, 1])


def test_data_repeats_with_its_seed():
    one, same, other = (intervened_transitions(drift(), 50, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.inputs, same.inputs)
    np.testing.assert_array_equal(one.targets, same.targets)
    assert not np.array_equal(one.inputs, other.inputs)


def test_interventions_part_what_goes_together_in_play():
    env = drift(16, scenario="distractors")
    seen, done = observed_transitions(env, 2000, 0), intervened_transitions(env, 2000, 0)
    place = seen.input_names.index("d0")
    assert np.corrcoef(seen.inputs[:, 0], seen.inputs[:, place])[0, 1] > 0.95
    correlation = np.corrcoef(done.inputs.T)
    assert np.abs(correlation - np.eye(len(correlation))).max() < 0.1
    limit = env.intervention_spaces["s0"].high.item()
    assert 0.95 * limit < np.abs(done.inputs[:, 0]).max() <= limit


def test_the_graph_of_drift_control_is_found_from_two_hundred_interventions():
    env = drift(20)
    data = intervened_transitions(env, 200, 0)
    found = transition_graph(data.inputs, data.targets, data.input_names, data.target_names)
    np.testing.assert_array_equal(found.mask[:4], true_mask(env)[:4])
    assert found.to_graph().parents("s1'") == {"s0", "s1", "s2", "a1"}


def test_the_true_mask_follows_causes_within_the_step():
    mask = true_mask(drift(1, scenario="distractors"))
    names, actions = variable_names(drift(1, scenario="distractors"))
    inputs = (*names, *actions)
    by_target = dict(zip((*names, "reward"), mask, strict=True))
    assert {name for name, one in zip(inputs, by_target["d1"], strict=True) if one} == {
        "d1",
        "s0",
        "s1",
        "s2",
        "a1",
    }
    assert {name for name, one in zip(inputs, by_target["reward"], strict=True) if one} == {
        "s0", "s1", "s2", "s3", "a0", "a1",
    }  # fmt: skip
    hidden = true_mask(drift(1, scenario="hidden"))
    assert hidden.shape == (3, 4)  # s0', s3', reward by s0, s3, a0, a1
    assert hidden.tolist() == [[1, 0, 1, 0], [0, 1, 0, 0], [1, 1, 1, 1]]


def test_environments_without_a_graph_number_their_variables():
    env = qio_envs.environment("swarm_cooperative_v0").batched_env(1)
    names, actions = variable_names(env)
    assert names[:2] == ("obs[0]", "obs[1]")
    assert len(names) == env.observation_space.shape[0]
    assert actions == ("action[0]", "action[1]")
    discrete = drift(4, actions="discrete")
    data = observed_transitions(discrete, 20, 0)
    assert data.input_names[4:] == tuple(f"a[{i}]" for i in range(9))
    np.testing.assert_array_equal(data.inputs[:, 4:].sum(1), 1.0)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: observed_transitions(drift(), 0, 0), ConfigError, "count: expected at least 1"),
        (
            lambda: observed_transitions(qio_envs.environment("swarm_cooperative_v0").batched_env(1), 5, 0),
            ConfigError,
            "agents; transitions are those of one",
        ),
        (
            lambda: intervened_transitions(qio_envs.environment("qubit_control_v0").batched_env(1), 5, 0),
            ConfigError,
            "there is no variable before the step that an intervention can set",
        ),
        (
            lambda: true_mask(qio_envs.environment("qubit_control_v0").batched_env(1)),
            UnsupportedError,
            "no description of its causal graph",
        ),
        (lambda: true_mask(drift(1, actions="discrete")), ConfigError, "are not the variables of its graph"),
    ],
)
def test_what_is_wrong_is_refused(make, error, message):
    with pytest.raises(error) as found:
        make()
    assert message in str(found.value)


def test_interventions_leave_the_mechanisms_of_the_step_alone():
    env = qio_envs.environment("causal_chain_v0").batched_env(20)  # x2' and x3' can be set too
    data = intervened_transitions(env, 1000, 0).columns()
    slopes = np.linalg.lstsq(np.stack([data["x1"], data["a0"]], axis=1), data["x2'"], rcond=None)[0]
    np.testing.assert_allclose(slopes, [0.7, 0.5], atol=0.05)

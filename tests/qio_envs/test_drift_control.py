"""Drift control: the kernels against the oracle, rules, counterfactuals, saved states and interfaces."""

import copy
import pickle

import gymnasium
import numpy as np
import pytest
from batch_and_singles import check_batch_against_singles
from drift_oracle import DriftOracle
from drift_settings import actions_of, close, drift_configs, seeds
from hypothesis import given, settings
from hypothesis import strategies as st
from one_agent_play import check_against_oracle, check_spaces

from qio_envs import drift_control_v0
from qio_envs.api import ConfigError, InvalidActionError
from qio_envs.drift_control import DriftControl, DriftControlConfig, mean_next_state
from qio_envs.testing import CHECKS, check_parallel_env, table

SCENARIOS = drift_control_v0.scenarios()


def assert_close_to_oracle(env, oracle):
    close(env.observe()[0, 0], oracle.observe())
    close(env.state()[0], oracle.state())
    info, expected = env.info(), oracle.info()
    assert list(info) == list(expected)
    for key, value in expected.items():
        np.testing.assert_allclose(info[key][0], value, rtol=2e-5, atol=2e-4, err_msg=key)


def play_against_oracle(config, seed, steps, episode=0):
    env, oracle = DriftControl(config), DriftOracle(config, seed, episode)
    env.reset([seed])
    for _ in range(episode):
        env.reset()
    check_against_oracle(
        env, oracle, lambda t: actions_of(env, t, seed % 1000), steps, assert_close_to_oracle, close
    )


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_every_scenario_conforms(scenario):
    results = check_parallel_env(lambda **kwargs: drift_control_v0.parallel_env(scenario, **kwargs), steps=30)
    assert [result.name for result in results] == list(CHECKS)
    assert all(result.passed for result in results), table(results)
    assert [result.name for result in results if result.label == "skip"] == ["action masks"]


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_kernels_equal_the_oracle_on_the_scenarios(scenario):
    for seed in (0, 2**64 - 7):
        play_against_oracle(drift_control_v0.config(scenario), seed, 40)


@settings(max_examples=100)
@given(drift_configs(), seeds, st.integers(0, 2))
def test_kernels_equal_the_oracle_with_any_settings(config, seed, episode):
    play_against_oracle(config, seed, 40, episode)


@settings(max_examples=40)
@given(config=drift_configs(), seed=st.integers(0, 2**63), num_envs=st.integers(1, 4), data=st.data())
def test_an_environment_of_a_batch_is_the_environment_of_its_seed_alone(config, seed, num_envs, data):
    check_batch_against_singles(lambda count: DriftControl(config, count), actions_of, seed, num_envs, data)


@given(drift_configs(), seeds)
def test_everything_lies_in_its_space(config, seed):
    env = DriftControl(config, 2)
    env.reset([seed, seed // 2])
    check_spaces(env, lambda t: actions_of(env, t), 40)


# -- rules


def test_starts_are_uniform_in_the_cube():
    env = drift_control_v0.batched_env(4000)
    env.reset(0)
    start = env.state()[:, :4].astype(float)
    assert np.abs(start).max() <= 1
    assert np.abs(start.mean(axis=0)).max() < 4 * np.sqrt(1 / 3 / 4000)
    assert np.abs(start.var(axis=0) - 1 / 3).max() < 0.03
    assert np.abs(np.corrcoef(start.T) - np.eye(4)).max() < 4 / np.sqrt(4000)


def test_leaving_the_ball_is_termination_and_is_paid_in_full():
    env = drift_control_v0.batched_env(3, process_noise=0.0, drive_noise=0.0)
    env.reset(0)
    env.arrays.components[:] = [(2.95, 0, 0, 0), (2.85, 0, 0, 0), (0, 0, 0, 3.2)]
    rewards, terminated, truncated = env.step(np.array([[[1, 0]], [[1, 0]], [[0, 0]]], np.float32))
    assert terminated[:, 0].tolist() == [True, False, True]  # 3.05, 2.95 and 3.04
    assert not truncated.any()
    assert env.info()["out"].tolist() == [1, 0, 1]
    assert env.running.tolist() == [False, True, False]
    close(
        rewards[:, 0],
        [-(3.05**2 + np.tanh(1) ** 2 / 100 + 0.01), -(2.95**2 + np.tanh(1) ** 2 / 100 + 0.01), -(3.04**2)],
    )


def test_the_time_limit_is_truncation_unless_the_ball_is_left_in_that_very_step():
    env = drift_control_v0.batched_env(2, max_steps=3, process_noise=0.0)
    env.reset(0)
    for _ in range(3):
        assert env.running.all()
        env.arrays.components[1] = (2.95, 0, 0, 0) if env.arrays.step[1] == 2 else 0
        _, terminated, truncated = env.step(np.tile(np.float32([1, 0]), (2, 1, 1)))
    assert (terminated[:, 0].tolist(), truncated[:, 0].tolist()) == ([False, True], [True, False])
    assert not env.running.any()
    assert env.info()["steps"].tolist() == [3, 3]


def test_actions_are_clipped_counted_and_charged_as_executed():
    config = {"process_noise": 0.0, "drive_noise": 0.0, "action_cost": 0.5}
    env, same = (drift_control_v0.batched_env(1, **config) for _ in range(2))
    env.reset(3)
    same.reset(3)
    far = np.array([[[7, -1.5]]], np.float32)
    one, other = env.step(far), same.step(np.array([[[1, -1]]], np.float32))
    np.testing.assert_array_equal(env.observe(), same.observe())
    np.testing.assert_array_equal(one.rewards, other.rewards)
    assert far.tolist() == [[[7, -1.5]]]
    assert (env.info()["clipped_actions"].tolist(), same.info()["clipped_actions"].tolist()) == ([1], [0])
    close(one.rewards[0, 0], -np.square(env.observe()).sum() - 0.5 * 2)
    with pytest.raises(InvalidActionError, match="action of agent_0 in env 0: expected finite numbers"):
        env.step(np.full((1, 1, 2), np.nan, np.float32))


def test_discrete_actions_are_nine_of_the_continuous_ones():
    env, same = drift_control_v0.batched_env(9, "discrete"), drift_control_v0.batched_env(9)
    env.reset(0)
    same.reset(0)
    env.step(np.arange(9)[:, None])
    numbers = [(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)]
    same.step(np.array(numbers, np.float32)[:, None])
    np.testing.assert_array_equal(env.state(), same.state())
    assert env.action_space == gymnasium.spaces.Discrete(9)


# -- observations


def test_hidden_components_and_distractors_have_their_places():
    env = drift_control_v0.batched_env(5, hidden=[1, 2], distractors=3)
    env.reset(0)
    env.step(actions_of(env, 0))
    layout, seen = env.config.observation_layout, env.observe()[:, 0]
    assert layout == {"components": slice(0, 2), "distractors": slice(2, 5)}
    assert seen.shape == (5, 5)
    assert (env.config.visible, env.config.observation_size) == ((0, 3), 5)
    np.testing.assert_array_equal(seen[:, layout["components"]], env.arrays.components[:, [0, 3]])
    np.testing.assert_array_equal(seen[:, layout["distractors"]], env.arrays.distractors)
    np.testing.assert_array_equal(
        env.state()[:, env.config.state_layout["components"]], env.arrays.components
    )
    assert "distractors" not in DriftControlConfig().observation_layout


def random_play(scenario, num_envs=400, steps=60, **settings):
    """Return components and distractors of random play, ``[steps, num_envs, ...]`` each, and rewards."""
    env = drift_control_v0.batched_env(num_envs, scenario, out_radius=50.0, **settings)
    env.reset(0)
    player = env.scripted_policies["random"](env)
    seen = []
    for _ in range(steps):
        rewards = env.step(player.act()).rewards
        seen.append((env.arrays.components.copy(), env.arrays.distractors.copy(), rewards))
    return [np.stack(parts).astype(float) for parts in zip(*seen, strict=True)]


def test_nothing_depends_on_distractors_or_on_what_is_hidden():
    plain = random_play("default")
    for scenario in ("distractors", "sensor_shift", "hidden"):
        components, _, rewards = random_play(scenario)
        np.testing.assert_array_equal(components, plain[0])
        np.testing.assert_array_equal(rewards, plain[2])


def test_distractors_follow_s0_and_s1_until_they_are_noise_of_the_same_scale():
    components, followers, _ = random_play("distractors")
    _, noise, _ = random_play("sensor_shift")
    for i in range(8):
        target = components[..., i % 2].ravel()
        assert np.corrcoef(followers[..., i].ravel(), target)[0, 1] > 0.98
        assert abs(np.corrcoef(noise[..., i].ravel(), target)[0, 1]) < 0.05
        assert noise[..., i].std() == pytest.approx((1.4, 0.6)[i % 2], rel=0.03)
    assert np.abs(np.corrcoef(noise.reshape(-1, 8).T) - np.eye(8)).max() < 0.05
    assert np.abs(np.corrcoef(noise[1:].ravel(), noise[:-1].ravel())[0, 1]) < 0.02  # white
    env = drift_control_v0.batched_env(3000, "distractors")
    env.reset(0)
    player, squares = env.scripted_policies["random"](env), []
    while len(squares) < 200:  # of episodes as they are, ends included
        env.step(player.act())
        squares.append(np.square(env.arrays.distractors[:, :2], dtype=float))
        env.reset(mask=~env.running)
    assert np.sqrt(np.mean(squares, axis=(0, 1))) == pytest.approx([1.4, 0.6], rel=0.06)


# -- counterfactuals and saved states


@given(drift_configs(actions="continuous", max_steps=40), seeds, st.integers(0, 10))
def test_another_action_from_a_saved_state_meets_the_same_noise(config, seed, when):
    env = DriftControl(config)
    env.reset([seed])
    for t in range(when):
        if env.running.all():
            env.step(actions_of(env, t))
    if not env.running.all():
        return
    saved, noises = env.get_state(), []
    for action in ((0.3, -0.7), (-1.0, 0.2)):
        env.set_state(saved)
        env.step(np.array([[action]], np.float32))
        noises.append(env.arrays.components - mean_next_state(saved["components"], np.array([action])))
    np.testing.assert_allclose(*noises, rtol=0, atol=2e-6 * config.out_radius)


def test_a_counterfactual_equals_the_episode_in_which_the_other_action_was_taken():
    env, other = (drift_control_v0.batched_env(3, "distractors") for _ in range(2))
    env.reset(11)
    other.reset(11)
    for t in range(10):
        saved = env.get_state()
        env.step(actions_of(env, t))
        other.step(actions_of(other, t) if t < 9 else np.zeros((3, 1, 2), np.float32))
    assert (env.observe() != other.observe()).any()
    env.set_state(saved)  # before the last action
    env.step(np.zeros((3, 1, 2), np.float32))
    for t in range(10, 20):
        for one, two in zip(env.get_state().values(), other.get_state().values(), strict=True):
            np.testing.assert_array_equal(one, two)
        env.step(actions_of(env, t))
        other.step(actions_of(other, t))


def test_an_intervention_on_a_component_reaches_its_effects_only():
    env = drift_control_v0.batched_env(1)
    changed = {}
    for target in range(4):
        env.reset(5)
        env.step(actions_of(env, 0))
        saved = env.get_state()
        env.step(actions_of(env, 1))
        before = env.arrays.components[0].copy()
        saved["components"][0, target] += 0.5
        env.set_state(saved)
        env.step(actions_of(env, 1))
        changed[target] = np.flatnonzero(env.arrays.components[0] != before).tolist()
    assert changed == {0: [0, 1], 1: [0, 1], 2: [1, 2], 3: [3]}


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_copies_and_saved_states_continue_exactly(copier):
    env = drift_control_v0.batched_env(3, "distractors", out_radius=2.0)
    env.reset(0)
    env.step(actions_of(env, 0))
    duplicate, third = copier(env), drift_control_v0.batched_env(3, "distractors", out_radius=2.0)
    third.set_state(env.get_state())

    def go_on(env):
        seen = []
        for t in range(1, 60):
            if not env.running.all():
                env.reset(mask=~env.running)
            seen += [*env.step(actions_of(env, t)), env.observe()]
        return seen

    for one, *others in zip(go_on(env), go_on(duplicate), go_on(third), strict=True):
        for other in others:
            np.testing.assert_array_equal(one, other)


def test_what_a_step_returns_is_the_caller_s_own_and_observe_writes_where_it_is_told():
    env = drift_control_v0.batched_env(2, "distractors")
    env.reset(0)
    arrays = [*env.step(actions_of(env, 0)), env.observe(), env.state(), *env.info().values()]
    kept = [array.copy() for array in arrays]
    env.step(actions_of(env, 8))
    for array, before in zip(arrays, kept, strict=True):
        np.testing.assert_array_equal(array, before)
    out = np.full((2, 1, 12), np.nan, np.float32)
    assert env.observe(out) is out
    np.testing.assert_array_equal(out, env.observe())
    with pytest.raises(ValueError, match="out: expected writable C-contiguous float32 of shape"):
        env.observe(out[:1])


# -- settings and interfaces


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"out_radius": 1.9}, "out_radius: expected a number from 2.0 to 100.0, got 1.9"),
        ({"distractors": -1}, "distractors: expected an integer from 0 to 256, got -1"),
        ({"process_noise": -0.1}, "process_noise: expected a number from 0.0 to 1.0, got -0.1"),
        ({"hidden": 1}, "hidden: expected a list of integers from 0 to 3, got 1"),
        ({"hidden": [1, 4]}, "hidden: expected a list of integers from 0 to 3, got [1, 4]"),
        ({"hidden": ["s1"]}, "hidden: expected a list of integers from 0 to 3, got ['s1']"),
        ({"hidden": [True]}, "hidden: expected a list of integers from 0 to 3, got [True]"),
        ({"hidden": [2, 1]}, "hidden: expected increasing component indices, got [2, 1]"),
        ({"hidden": [1, 1]}, "hidden: expected increasing component indices, got [1, 1]"),
        (
            {"hidden": [0, 1, 2, 3]},
            "hidden: at least one of the components 0 to 3 must be observed, got all of them",
        ),
        (
            {"sensor_shift": True},
            "sensor_shift: there are no distractors to become noise; allowed: false, or distractors above 0",
        ),
        (
            {"actions": "discret"},
            "actions: expected one of continuous, discrete, got 'discret' (did you mean 'discrete'?)",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(values, message):
    with pytest.raises(ConfigError) as caught:
        DriftControlConfig(**values)
    assert str(caught.value) == message


def test_lists_and_tuples_are_one_setting():
    assert SCENARIOS == ("default", "distractors", "sensor_shift", "hidden", "discrete")
    config = drift_control_v0.config(hidden=np.array([1, 2]).tolist())
    assert config.hidden == (1, 2)
    assert config == drift_control_v0.config("hidden") == DriftControlConfig(hidden=(1, 2))
    assert config.as_dict()["hidden"] == [1, 2]
    hashes = {drift_control_v0.content_hash(scenario) for scenario in SCENARIOS}
    assert len(hashes) == len(SCENARIOS)
    assert drift_control_v0.content_hash(hidden=(1, 2)) == drift_control_v0.content_hash("hidden")
    assert hash(config) == hash(drift_control_v0.config("hidden"))


def test_the_gymnasium_forms():
    env = gymnasium.make("qio_envs/DriftControl-v0", distractors=2)
    seen, _ = env.reset(seed=3)
    assert env.observation_space.contains(seen)
    assert seen.shape == (6,)
    _, reward, terminated, truncated, info = env.step(np.array([0.5, -0.5], np.float32))
    assert reward == pytest.approx(-info["cost"])
    assert (terminated, truncated, info["steps"]) == (False, False, 1)
    envs = gymnasium.make_vec("qio_envs/DriftControl-v0", num_envs=3, max_steps=5)
    envs.reset(seed=3)
    for _ in range(5):
        _, _, _, truncated, infos = envs.step(np.zeros((3, 2), np.float32))
    assert truncated.all()
    assert infos["final_obs"][0].shape == (4,)

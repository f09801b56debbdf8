"""The kernels of the swarm against the oracle, batches against single environments, and saved states."""

import copy
import pickle

import numpy as np
import pytest
from batch_and_singles import check_batch_against_singles
from hypothesis import given, settings
from hypothesis import strategies as st
from swarm_oracle import SwarmOracle
from swarm_settings import IDS, SCENARIOS, TASKS, actions_of, close, make, seeds, swarm_configs

from qio_envs import environment, swarm_cooperative_v0
from qio_envs.api.random import MAX_NORMAL
from qio_envs.swarm import CooperativeConfig, CooperativeSwarm, Swarm


def assert_close_to_oracle(env, index, oracle):
    close(env.observe()[index], oracle.observe())
    close(env.state()[index], oracle.state())
    expected = oracle.info()
    info = {key: values[index] for key, values in env.info().items()}
    assert info.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_allclose(info[key], value, rtol=2e-5, atol=5e-4, err_msg=key)


def play_against_oracle(config, seed, steps, episode=0):
    env, oracle = make(config), SwarmOracle(config, seed, episode)
    env.reset([seed])
    for _ in range(episode):
        env.reset()
    assert_close_to_oracle(env, 0, oracle)
    for t in range(steps):
        actions = actions_of(env, t, seed % 1000)
        transition = env.step(actions)
        rewards, terminated, truncated = oracle.step(actions[0])
        close(transition.rewards[0], rewards)
        assert [array.dtype for array in transition] == [np.float32, bool, bool]
        assert transition.terminated[0].tolist() == terminated
        assert transition.truncated[0].tolist() == truncated
        running = any(oracle.alive) and oracle.t < config.max_steps
        assert env.running[0] == running
        assert env.agents_alive()[0].tolist() == [lives and running for lives in oracle.alive]
        assert_close_to_oracle(env, 0, oracle)
        if not running:
            return


@pytest.mark.parametrize(("env_id", "scenario"), SCENARIOS)
def test_kernels_equal_the_oracle_on_the_scenarios(env_id, scenario):
    play_against_oracle(environment(env_id).config(scenario), 2**64 - 7, 12)


@settings(max_examples=150)
@given(swarm_configs(), seeds, st.integers(0, 2))
def test_kernels_equal_the_oracle_on_small_swarms(config, seed, episode):
    play_against_oracle(config, seed, 40, episode)


@pytest.mark.parametrize(
    "motion", [{}, {"time_step": 0.25, "damping": 0.7}, {"time_step": 0.04, "damping": 0.98}]
)
def test_kernels_equal_the_oracle_over_a_whole_episode(motion):
    play_against_oracle(CooperativeConfig(out_radius=3.0, **motion), 5, 200)


@pytest.mark.parametrize("task", ["cooperative", "competitive", "mixed"])
def test_time_step_and_damping_move_agents_as_documented(task):
    env = make(TASKS[task].config_class(time_step=0.5, damping=0.25, process_noise=0.0))
    env.reset(0)
    env.arrays.body[0, 0] = (0.5, -0.5, 0.4, 0.0)
    env.step(np.tile(np.float32([1, -1]), (1, env.num_agents, 1)))
    close(env.arrays.body[0, 0], (0.5 + 0.5 * 0.225, -0.5 - 0.5 * 0.125, 0.25 * 0.9, -0.25 * 0.5))


@settings(max_examples=60)
@given(config=swarm_configs(), seed=st.integers(0, 2**63), num_envs=st.integers(1, 4), data=st.data())
def test_an_environment_of_a_batch_is_the_environment_of_its_seed_alone(config, seed, num_envs, data):
    check_batch_against_singles(lambda count: make(config, count), actions_of, seed, num_envs, data)


@given(swarm_configs(max_steps=25), seeds)
def test_everything_lies_in_its_space(config, seed):
    env = make(config, 2)
    env.reset([seed, seed // 2])
    for t in range(25):
        for index in range(2):
            assert env.state_space.contains(env.state()[index])
            for row in env.observe()[index]:
                assert env.observation_space.contains(row)
        for key, values in env.info().items():
            assert values.shape in ((2,), (2, env.num_agents)), key
            assert np.isfinite(values).all(), key
        if not env.running.all():
            return
        env.step(actions_of(env, t))


@pytest.mark.parametrize(
    ("motion", "bound"), [({}, 0.9), ({"time_step": 0.2, "damping": 0.5}, 0.2), ({"damping": 0.95}, 1.9)]
)
def test_the_bounds_hold_where_everything_pushes_one_way(motion, bound):
    config = CooperativeConfig(num_agents=2, out_radius=100.0, process_noise=0.0, **motion)
    env = CooperativeSwarm(config)
    env.reset(0)
    for _ in range(200):
        env.step(np.ones((1, 2, 2), np.float32))
    speed = env.arrays.body[..., 2:]
    assert (speed > 0.98 * bound).all()
    assert (speed <= config.max_speed).all()
    assert config.max_speed == pytest.approx(1.001 * bound)
    assert CooperativeConfig().max_speed == pytest.approx(1.001 * (0.9 + 10 * MAX_NORMAL * 0.02))


# -- saved states


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env)), Swarm.clone])
@pytest.mark.parametrize("env_id", IDS)
def test_a_copy_continues_exactly_and_apart(env_id, copier):
    env = environment(env_id).batched_env(3, out_radius=2.2)
    env.reset(0)
    for t in range(10):
        env.step(actions_of(env, t))
    duplicate = copier(env)

    def go_on(env):
        seen = []
        for t in range(10, 60):
            if not env.running.all():
                env.reset(mask=~env.running)
            seen += [*env.step(actions_of(env, t)), env.observe()]
        return seen

    for one, other in zip(go_on(env), go_on(duplicate), strict=True):
        np.testing.assert_array_equal(one, other)


@given(swarm_configs(max_steps=20), seeds, st.integers(0, 19))
def test_a_saved_state_continues_exactly(config, seed, when):
    env, other = make(config), make(config)
    env.reset([seed])
    other.reset(0)
    for t in range(when):
        if env.running.all():
            env.step(actions_of(env, t))
    saved = env.get_state()
    other.set_state(saved)
    for array in saved.values():
        array[...] = 0  # neither side keeps a reference
    for t in range(when, 20):
        assert (env.running == other.running).all()
        if env.running.all():
            for one, two in zip(env.step(actions_of(env, t)), other.step(actions_of(other, t)), strict=True):
                np.testing.assert_array_equal(one, two)
    for name, array in env.get_state().items():
        np.testing.assert_array_equal(other.get_state()[name], array, err_msg=name)
    env.reset()
    other.reset()
    np.testing.assert_array_equal(env.observe(), other.observe())


def test_what_a_step_returns_is_the_caller_s_own():
    env = swarm_cooperative_v0.batched_env(2)
    env.reset(0)
    arrays = [*env.step(actions_of(env, 0)), env.observe(), env.state(), *env.info().values()]
    kept = [array.copy() for array in arrays]
    env.step(actions_of(env, 8))
    for array, before in zip(arrays, kept, strict=True):
        np.testing.assert_array_equal(array, before)


def test_a_step_leaves_the_actions_as_they_are():
    env = swarm_cooperative_v0.batched_env(2)
    env.reset(0)
    actions = np.full((2, 3, 2), 3, np.float32)
    env.step(actions)
    assert (actions == 3).all()


def test_observe_writes_into_the_array_that_it_is_given():
    env = swarm_cooperative_v0.batched_env(2, "hidden_target")
    env.reset(0)
    out = np.full((2, 3, 10), np.nan, np.float32)
    assert env.observe(out) is out
    np.testing.assert_array_equal(out, env.observe())
    frozen = out.copy()
    frozen.flags.writeable = False
    for wrong in (out[:1], out.astype(np.float64), np.asfortranarray(out), frozen):
        with pytest.raises(ValueError, match="out: expected writable C-contiguous float32 of shape"):
            env.observe(wrong)

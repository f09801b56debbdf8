import copy
import pickle

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from swarm_oracle import SwarmOracle
from swarm_settings import SCENARIOS, actions_of, make, seeds, swarm_configs

from qio_envs import environment, swarm_competitive_v0, swarm_cooperative_v0, swarm_mixed_v0
from qio_envs.api import ConfigError, InvalidActionError, ResetNeededError
from qio_envs.api.random import MAX_NORMAL
from qio_envs.swarm import CompetitiveConfig, CooperativeConfig, CooperativeSwarm, MixedConfig, Swarm

IDS = ["swarm_cooperative_v0", "swarm_competitive_v0", "swarm_mixed_v0"]


def close(given, expected):
    np.testing.assert_allclose(given, expected, rtol=2e-5, atol=5e-5)


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


def test_kernels_equal_the_oracle_over_a_whole_episode():
    play_against_oracle(CooperativeConfig(out_radius=3.0), 5, 200)


@settings(max_examples=60)
@given(config=swarm_configs(), seed=st.integers(0, 2**63), copies=st.integers(1, 4), data=st.data())
def test_a_copy_of_a_batch_is_the_environment_of_its_seed_alone(config, seed, copies, data):
    batch, singles = make(config, copies), [make(config) for _ in range(copies)]
    batch.reset(seed)
    for index, single in enumerate(singles):
        single.reset(seed + index)
    for t in range(12):
        draws = data.draw(st.lists(st.integers(0, 9), min_size=copies, max_size=copies))
        again = ~batch.running | (np.array(draws) == 0)
        if again.any():  # second and later episodes, at different times
            batch.reset(mask=again)
            for index in np.flatnonzero(again):
                singles[index].reset()
        actions = actions_of(batch, t, copies)
        parts = [*batch.step(actions), batch.observe(), batch.agents_alive(), batch.state()]
        parts += batch.info().values()
        for index, single in enumerate(singles):
            own = [*single.step(actions[index : index + 1]), single.observe(), single.agents_alive()]
            own += [single.state(), *single.info().values()]
            for whole, part in zip(parts, own, strict=True):
                np.testing.assert_array_equal(whole[index], part[0])
    for index, single in enumerate(singles):
        whole = batch.get_state()
        for name, array in single.get_state().items():
            np.testing.assert_array_equal(whole[name][index], array[0], err_msg=name)


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


def test_the_bounds_hold_where_everything_pushes_one_way():
    config = CooperativeConfig(num_agents=2, out_radius=100.0, process_noise=0.0)
    env = CooperativeSwarm(config)
    env.reset(0)
    for _ in range(200):
        env.step(np.ones((1, 2, 2), np.float32))
    speed = env.arrays.body[..., 2:]
    assert (speed > 0.8999).all()
    assert (speed <= config.max_speed).all()
    assert CooperativeConfig().max_speed == pytest.approx(1.001 * (0.9 + 10 * MAX_NORMAL * 0.02))


# -- the first observations, and what they hold


def test_sizes_and_layouts():
    env = swarm_cooperative_v0.batched_env()
    assert env.observation_space.shape == (8,)
    assert env.state_space.shape == (16,)
    assert env.action_space == gymnasium.spaces.Box(-1, 1, (2,), np.float32)
    assert env.possible_agents == ("agent_0", "agent_1", "agent_2")
    assert env.config.observation_layout == {
        "position": slice(0, 2),
        "velocity": slice(2, 4),
        "others": slice(4, 8),
    }
    hidden = swarm_cooperative_v0.batched_env(1, "hidden_target")
    assert hidden.observation_space.shape == (10,)
    assert hidden.config.observation_layout["target"] == slice(8, 10)
    assert hidden.config.state_layout["target"] == slice(15, 17)
    assert hidden.state_space.shape == (18,)
    mixed = swarm_mixed_v0.batched_env(1, "outnumbered", actions="discrete")
    assert mixed.action_space == gymnasium.spaces.Discrete(5)
    assert mixed.possible_agents == ("team_a_0", "team_a_1", "team_b_0", "team_b_1", "team_b_2", "team_b_3")
    assert swarm_mixed_v0.batched_env().num_agents == 4
    assert swarm_cooperative_v0.batched_env(1, "solo").observation_space.shape == (4,)


def test_team_mates_come_first_then_opponents_each_around_the_list():
    env = swarm_mixed_v0.batched_env(1, "default", team_a=2, team_b=3, observation_noise=0.0)
    env.reset(0)
    position = env.arrays.body[0, :, :2]
    seen = env.observe()[0, :, 4:].reshape(5, 4, 2)
    for agent, order in enumerate([[1, 2, 3, 4], [0, 2, 3, 4], [3, 4, 0, 1], [4, 2, 0, 1], [2, 3, 0, 1]]):
        np.testing.assert_array_equal(seen[agent], position[order] - position[agent])


def test_agents_start_at_rest_uniformly_in_the_disc():
    env = swarm_cooperative_v0.batched_env(3000, "solo")
    env.reset(0)
    assert not env.arrays.body[..., 2:].any()
    x, y = env.arrays.body[:, 0, :2].T.astype(float)
    radius = np.hypot(x, y)
    assert radius.max() <= 2
    counts = np.histogram((radius / 2) ** 2, bins=10, range=(0, 1))[0]
    counts = np.concatenate([counts, np.histogram(np.arctan2(y, x), bins=10, range=(-np.pi, np.pi))[0]])
    assert ((counts - 300) ** 2 / 300).sum() < 43.8  # chi-squared, 18 degrees of freedom, p = 0.0006


def test_targets_are_uniform_in_their_disc_and_shown_to_the_informed_only():
    env = swarm_cooperative_v0.batched_env(2000, "hidden_target")
    env.reset(0)
    radius = np.hypot(*env.arrays.target.T)
    assert radius.max() <= 2
    assert abs((radius**2).mean() / 4 - 0.5) < 4 / np.sqrt(12 * 2000)
    seen = env.observe()
    np.testing.assert_array_equal(seen[:, 0, 8:], env.arrays.target - env.arrays.body[:, 0, :2])
    assert not seen[:, 1:, 8:].any()
    assert not seen[:, :, 4:8].any()  # nobody is seen
    first = env.arrays.target.copy()
    env.reset()
    assert (env.arrays.target != first).all()


def test_others_out_of_range_read_zero():
    env = swarm_cooperative_v0.batched_env(200, "nearsighted", observation_noise=0.0)
    env.reset(0)
    position, seen = env.arrays.body[..., :2], env.observe()[..., 4:].reshape(200, 3, 2, 2)
    for agent in range(3):
        for k in range(2):
            offset = position[:, (agent + 1 + k) % 3] - position[:, agent]
            near = np.hypot(*offset.T) < 1
            assert 0 < near.sum() < 200
            np.testing.assert_array_equal(seen[:, agent, k], offset * near[:, None])


# -- noise


def test_observation_noise_is_normal_and_on_the_others_alone():
    env = swarm_cooperative_v0.batched_env(4000, "default", observation_noise=0.3)
    exact = swarm_cooperative_v0.batched_env(4000, "default", observation_noise=0.0)
    env.reset(0)
    exact.reset(0)
    noise = (env.observe() - exact.observe()) / np.float32(0.3)
    assert not noise[..., :4].any()
    draws = noise[..., 4:].reshape(4000, 12).astype(float)
    assert abs(draws.mean()) < 4 / np.sqrt(draws.size)
    assert abs(draws.std() - 1) < 4 / np.sqrt(2 * draws.size)
    assert np.abs(np.corrcoef(draws.T) - np.eye(12)).max() < 5 / np.sqrt(4000)


def test_observation_noise_is_the_same_whenever_and_however_one_looks():
    env, twin = (swarm_cooperative_v0.batched_env(3) for _ in range(2))
    env.reset(0)
    twin.reset(0)
    first = env.observe()
    np.testing.assert_array_equal(env.observe(), first)
    actions = actions_of(env, 0)
    env.step(actions)
    twin.step(actions)  # which nobody observed before
    np.testing.assert_array_equal(env.observe(), twin.observe())
    relative = first[..., 4:] - env.observe()[..., 4:]
    assert (np.abs(relative) > 1e-4).mean() > 0.99  # another step, another noise


def test_process_noise_is_normal_and_on_velocity_and_position():
    env = swarm_cooperative_v0.batched_env(4000, "default", process_noise=0.05)
    env.reset(0)
    start = env.arrays.body.copy()
    env.step(np.zeros((4000, 3, 2)))
    velocity = env.arrays.body[..., 2:] / 0.05
    position = (env.arrays.body[..., :2] - start[..., :2]) / 0.05 - 0.1 * velocity
    draws = np.concatenate([velocity, position], axis=2).reshape(4000, 12).astype(float)
    assert abs(draws.mean()) < 4 / np.sqrt(draws.size)
    assert abs(draws.std() - 1) < 4 / np.sqrt(2 * draws.size)
    assert np.abs(np.corrcoef(draws.T) - np.eye(12)).max() < 5 / np.sqrt(4000)


def test_the_dynamics_without_noise():
    env = swarm_cooperative_v0.batched_env(1, "solo", process_noise=0.0)
    env.reset(0)
    x, y = env.arrays.body[0, 0, :2].astype(float)
    env.step([[[1.0, -0.5]]])
    close(env.arrays.body[0, 0], [x + 0.009, y - 0.0045, 0.09, -0.045])
    env.step([[[0.0, 0.0]]])
    close(env.arrays.body[0, 0], [x + 0.009 + 0.0081, y - 0.0045 - 0.00405, 0.081, -0.0405])


# -- actions


@pytest.mark.parametrize("env_id", IDS)
def test_discrete_actions_are_the_continuous_ones_that_they_stand_for(env_id):
    discrete = environment(env_id).batched_env(4, "discrete")
    continuous = environment(env_id).batched_env(4)
    discrete.reset(9)
    continuous.reset(9)
    five = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
    for t in range(30):
        actions = np.random.default_rng(t).integers(0, 5, (4, discrete.num_agents))
        for one, other in zip(discrete.step(actions), continuous.step(five[actions]), strict=True):
            np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(discrete.observe(), continuous.observe())
    assert not discrete.info()["clipped_actions"].any()
    assert (discrete.action_mask() == 1).all()


def test_actions_out_of_bounds_are_clipped_and_counted():
    env, twin = (swarm_cooperative_v0.batched_env(2) for _ in range(2))
    env.reset(0)
    twin.reset(0)
    actions = np.zeros((2, 3, 2), np.float32)
    actions[0, 0], actions[0, 1], actions[1, 2] = (1.5, -7.0), (1.0, -1.0), (0.2, np.float32(1.0000001))
    env.step(actions)
    twin.step(np.clip(actions, -1, 1))
    np.testing.assert_array_equal(env.observe(), twin.observe())
    assert env.info()["clipped_actions"].tolist() == [1, 1]
    env.step(actions * 10)
    assert env.info()["clipped_actions"].tolist() == [3, 2]
    assert twin.info()["clipped_actions"].tolist() == [0, 0]
    env.reset()
    assert env.info()["clipped_actions"].tolist() == [0, 0]


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_actions_that_are_not_finite_are_refused_by_name_and_change_nothing(value):
    env = swarm_mixed_v0.batched_env(2)
    env.reset(0)
    before = env.get_state()
    actions = np.zeros((2, 4, 2), np.float32)
    actions[1, 2, 1] = value
    with pytest.raises(InvalidActionError) as caught:
        env.step(actions)
    expected = (
        f"action of team_b_0 in copy 1: expected finite numbers, got {np.array([0, value], np.float32)}"
    )
    assert str(caught.value) == expected
    for name, array in env.get_state().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_the_parallel_face_refuses_them_by_name():
    env = swarm_cooperative_v0.parallel_env()
    env.reset(seed=0)
    actions = dict.fromkeys(env.agents, np.zeros(2, np.float32))
    with pytest.raises(InvalidActionError) as caught:
        env.step(actions | {"agent_1": np.array([np.nan, 0])})
    assert str(caught.value) == "action of agent_1 in copy 0: expected finite numbers, got [nan  0.]"
    with pytest.raises(InvalidActionError) as caught:
        env.step(actions | {"agent_2": 3})
    assert str(caught.value) == "action of agent_2: expected numbers of shape (2,), got 3"
    with pytest.raises(InvalidActionError, match=r"^no action for agent_0$"):
        env.step({agent: action for agent, action in actions.items() if agent != "agent_0"})
    assert env.batch.arrays.step[0] == 0


def test_actions_of_those_who_left_are_ignored_whatever_they_are():
    env, twin = (walk_out(swarm_cooperative_v0.batched_env(1, process_noise=0.0)) for _ in range(2))
    actions = np.zeros((1, 3, 2), np.float32)
    twin.step(actions)
    actions[0, 0] = np.nan
    env.step(actions)
    np.testing.assert_array_equal(env.observe(), twin.observe())
    actions[0, 0] = 50
    env.step(actions)
    assert env.info()["clipped_actions"][0] == 0


# -- leaving


def walk_out(env, leaver=0):
    """Place one agent at the edge and let it step out; the others stand still where they are told."""
    env.reset(0)
    body = env.arrays.body
    body[0, :, 2:] = 0
    body[0, :, :2] = [(0.5 * n, 0.25) for n in range(env.num_agents)]
    body[0, leaver] = (4.99, 0.0, 0.9, 0.0)
    env.step(np.zeros((1, env.num_agents, 2), np.float32))
    return env


def test_who_leaves_terminates_alone_and_is_rewarded_once_more():
    env = swarm_cooperative_v0.batched_env(1, process_noise=0.0, exit_penalty=7.0)
    env.reset(0)
    env.arrays.body[0] = [(4.99, 0, 0.9, 0), (0.3, 0, 0, 0), (0, 0.4, 0, 0)]
    transition = env.step(np.zeros((1, 3, 2), np.float32))
    away = 4.99 + 0.081
    assert transition.terminated.tolist() == [[True, False, False]]
    assert not transition.truncated.any()
    assert env.running.all()
    assert env.agents_alive().tolist() == [[False, True, True]]
    close(
        transition.rewards[0],
        [-away - 0.05 * (away - 0.3 + np.hypot(away, 0.4)) - 7.0, -0.3 - 0.05 * 0.5, -0.4 - 0.05 * 0.5],
    )
    seen, place = env.observe(), env.arrays.body[0, 0].copy()
    returned = env.info()["agent_return"][0, 0]
    assert env.info()["exits"][0] == 1
    for _ in range(5):
        transition = env.step(np.ones((1, 3, 2), np.float32) * 0.1)
        assert transition.rewards[0, 0] == 0
        assert not transition.terminated.any()
        np.testing.assert_array_equal(env.arrays.body[0, 0], place)  # stays where it left
    assert env.info()["agent_return"][0, 0] == returned
    offset = env.observe()[0, 1, 6:8] - (env.arrays.body[0, 0, :2] - env.arrays.body[0, 1, :2])
    assert (np.abs(offset) < 0.6).all()  # agent_1 goes on seeing it, noisily
    assert (offset != 0).all()
    np.testing.assert_array_equal(seen[0, 0, :4], env.observe()[0, 0, :4])
    close(env.info()["coordination"], [0.0])  # of two, which are equally far from their centroid
    assert env.info()["success"][0] == 0


def test_an_episode_ends_when_nobody_is_left():
    env = swarm_competitive_v0.batched_env(2, process_noise=0.0)
    env.reset(0)
    env.arrays.body[0] = [(4.99, 0, 0.9, 0), (-4.99, 0, -0.9, 0), (0, 4.99, 0, 0.9)]
    env.arrays.body[1] = [(4.99, 0, 0.9, 0), (-1, 0, 0, 0), (0, 0.5, 0, 0)]
    transition = env.step(np.zeros((2, 3, 2), np.float32))
    assert transition.terminated.tolist() == [[True] * 3, [True, False, False]]
    close(transition.rewards, [[-0.1, -0.1, -0.1], [-0.1, -0.1, 1.0]])
    assert env.running.tolist() == [False, True]
    assert env.info()["exits"].tolist() == [3, 1]
    assert env.info()["coordination"][0] == 0
    with pytest.raises(ResetNeededError, match="copy 0 of swarm_competitive_v0 has ended"):
        env.step(np.zeros((2, 3, 2), np.float32))
    env.reset(mask=~env.running)
    assert env.agents_alive().tolist() == [[True] * 3, [False, True, True]]
    env.step(np.zeros((2, 3, 2), np.float32))


def test_at_the_time_limit_who_is_left_is_truncated_and_never_terminated():
    env = swarm_cooperative_v0.batched_env(1, max_steps=3, process_noise=0.0)
    walk_out(env)
    env.step(np.zeros((1, 3, 2)))
    env.arrays.body[0, 1] = (0, 4.99, 0, 0.9)  # leaves in the last step
    last = env.step(np.zeros((1, 3, 2)))
    assert last.terminated.tolist() == [[False, True, False]]
    assert last.truncated.tolist() == [[False, False, True]]
    assert not env.running.any()
    assert env.state()[0, -1] == 0
    assert env.info()["exits"][0] == 2


@pytest.mark.parametrize("env_id", IDS)
def test_an_undisturbed_episode_lasts_as_long_as_it_says(env_id):
    env = environment(env_id).batched_env(3)
    env.reset(0)
    for t in range(200):
        transition = env.step(np.zeros((3, env.num_agents, 2), np.float32))
        assert not transition.terminated.any()
        assert (transition.truncated == (t == 199)).all()
    assert not env.running.any()


def test_the_parallel_face_of_agents_that_leave_one_by_one():
    env = swarm_mixed_v0.parallel_env(process_noise=0.0)
    env.reset(seed=0)
    env.batch.arrays.body[0] = [(4.99, 0, 0.9, 0), (0, 0, 0, 0), (1, 0, 0, 0), (0, 4.95, 0, 0.9)]
    actions = {agent: np.zeros(2, np.float32) for agent in env.agents}
    seen, rewards, terminated, truncated, infos = env.step(actions)
    for dictionary in (seen, rewards, terminated, truncated, infos):
        assert list(dictionary) == env.possible_agents  # the last observation is given
    assert [agent for agent, flag in terminated.items() if flag] == ["team_a_0", "team_b_1"]
    assert env.agents == ["team_a_1", "team_b_0"]
    assert rewards["team_a_1"] == pytest.approx(0.05)  # no mate is left, one opponent at distance 1
    seen, rewards, terminated, truncated, infos = env.step(actions)  # more actions than agents will do
    for dictionary in (seen, rewards, terminated, truncated, infos):
        assert list(dictionary) == ["team_a_1", "team_b_0"]
    assert infos["team_a_1"]["exits"] == 2
    assert infos["team_a_1"]["distance"] == 0
    assert infos["team_b_0"]["distance"] == 1
    saved = env.get_state()
    env.batch.arrays.body[0, 1] = (4.99, 0, 0.9, 0)
    env.batch.arrays.body[0, 2] = (4.99, 0, 0.9, 0)
    env.step(actions)
    assert env.agents == []
    env.set_state(saved)
    assert env.agents == ["team_a_1", "team_b_0"]
    assert len(env.reset()[0]) == 4


def test_leaving_pays_unless_it_is_penalised():
    """What the documentation warns of: with the rule as given, running away beats idling far from the target."""

    def total(penalty, away):
        env = swarm_cooperative_v0.batched_env(1, "solo", exit_penalty=penalty, spawn_radius=0.0)
        env.reset(0)
        env.arrays.body[0, 0, :2] = (2.0, 0.0)
        while env.running.all():
            env.step([[[away, 0.0]]])
        return env.info()["team_return"][0]

    assert total(0.0, 1.0) > total(0.0, 0.0) > total(1000.0, 1.0)


# -- rewards by hand


def test_the_rewards_of_each_task():
    body = [(0.3, 0.4, 0, 0), (-0.6, 0.8, 0, 0), (0.3, -0.6, 0, 0)]
    expected = {
        "swarm_cooperative_v0": -np.array([0.5, 1.0, np.hypot(0.3, 0.6)])
        - 0.05 * np.array([0.9849 + 1.0, 0.9849 + 1.6643, 1.0 + 1.6643]),
        "swarm_competitive_v0": [1.0, -0.1, -0.1],
        "swarm_mixed_v0": [-0.09849 + 0.05, -0.09849 + 0.05 * 0.3357, 0.05 + 0.05 * 0.3357],
    }
    for env_id, rewards in expected.items():
        sizes = {"team_a": 2, "team_b": 1} if env_id == "swarm_mixed_v0" else {}
        env = environment(env_id).batched_env(1, process_noise=0.0, **sizes)
        env.reset(0)
        env.arrays.body[0] = body
        given = env.step(np.zeros((1, 3, 2))).rewards[0]
        np.testing.assert_allclose(given, rewards, atol=1e-4)
        info = env.info()
        first = {"swarm_cooperative_v0": 3, "swarm_competitive_v0": 1, "swarm_mixed_v0": 2}[env_id]
        np.testing.assert_allclose(info["team_reward"][0], np.sum(rewards[:first]), atol=1e-4)
        np.testing.assert_allclose(info["total_return"][0], np.sum(rewards), atol=1e-4)


def test_of_equally_near_agents_the_first_wins():
    env = swarm_competitive_v0.batched_env(1, process_noise=0.0)
    env.reset(0)
    env.arrays.body[0] = [(1, 0, 0, 0), (0, 0.5, 0, 0), (-0.5, 0, 0, 0)]
    close(env.step(np.zeros((1, 3, 2))).rewards[0], [-0.1, 1.0, -0.1])


def test_success_of_the_cooperative_task_is_to_be_there_all_of_them():
    env = swarm_cooperative_v0.batched_env(1, process_noise=0.0)
    env.reset(0)
    env.arrays.body[0] = [(0.49, 0, 0, 0), (0, 0.1, 0, 0), (0, 0, 0, 0)]
    assert env.info()["success"].tolist() == [1]
    env.arrays.body[0, 0, 0] = 0.51
    assert env.info()["success"].tolist() == [0]


# -- copies and states


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env)), Swarm.clone])
@pytest.mark.parametrize("env_id", IDS)
def test_a_copy_continues_exactly_and_apart(env_id, copier):
    env = environment(env_id).batched_env(3, out_radius=2.2)
    env.reset(0)
    for t in range(10):
        env.step(actions_of(env, t))
    twin = copier(env)

    def go_on(env):
        seen = []
        for t in range(10, 60):
            if not env.running.all():
                env.reset(mask=~env.running)
            seen += [*env.step(actions_of(env, t)), env.observe()]
        return seen

    for one, other in zip(go_on(env), go_on(twin), strict=True):
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
    for wrong in (out[:1], out.astype(np.float64), np.asfortranarray(out)):
        with pytest.raises(ValueError, match="out: expected C-contiguous float32 of shape"):
            env.observe(wrong)


# -- settings and faces


@pytest.mark.parametrize(
    ("config", "values", "message"),
    [
        (CooperativeConfig, {"num_agents": 0}, "num_agents: expected an integer from 1 to 100, got 0"),
        (CompetitiveConfig, {"num_agents": 1}, "num_agents: expected an integer from 2 to 100, got 1"),
        (MixedConfig, {"team_b": 0}, "team_b: expected an integer from 1 to 50, got 0"),
        (MixedConfig, {"process_noise": -0.1}, "process_noise: expected a number from 0.0 to 1.0, got -0.1"),
        (
            CooperativeConfig,
            {"actions": "discret"},
            "actions: expected one of continuous, discrete, got 'discret' (did you mean 'discrete'?)",
        ),
        (
            CooperativeConfig,
            {"sensing_range": -1.0},
            "sensing_range: expected a number from 0.0 to 1000.0 or null, got -1.0",
        ),
        (
            CompetitiveConfig,
            {"spawn_radius": 6},
            "spawn_radius: 6 is more than out_radius 5; allowed: 0 to 5",
        ),
        (
            CooperativeConfig,
            {"target_spread": 5.5},
            "target_spread: 5.5 is more than out_radius 5; allowed: 0 to 5",
        ),
        (
            CooperativeConfig,
            {"informed_agents": 4},
            "informed_agents: 4 is more than num_agents 3; allowed: 0 to 3 or null",
        ),
        (
            CooperativeConfig,
            {"cue_steps": 3},
            "cue_steps: there is no target to show; allowed: null, or target_spread above 0",
        ),
        (
            CooperativeConfig,
            {"cue_steps": 20, "max_steps": 20, "target_spread": 1.0},
            "cue_steps: 20 is not less than max_steps 20; allowed: 1 to 19 or null",
        ),
        (
            CooperativeConfig,
            {"cue_steps": 0, "target_spread": 1.0},
            "cue_steps: expected an integer of at least 1 or null, got 0",
        ),
    ],
)
def test_settings_that_cannot_be_are_refused(config, values, message):
    with pytest.raises(ConfigError) as caught:
        config(**values)
    assert str(caught.value) == message


def test_settings_of_another_task_are_unknown():
    with pytest.raises(ConfigError, match="unknown environment setting 'target_spread'"):
        swarm_competitive_v0.batched_env(target_spread=1.0)
    with pytest.raises(ConfigError, match="unknown environment setting 'num_agents'"):
        swarm_mixed_v0.batched_env(num_agents=4)
    with pytest.raises(
        ConfigError, match=r"unknown scenario 'solo'; allowed: default, discrete, duel, crowd"
    ):
        swarm_competitive_v0.batched_env(scenario="solo")


def test_each_task_has_its_scenarios_and_hashes():
    assert swarm_cooperative_v0.scenarios() == (
        "default",
        "discrete",
        "crowd",
        "nearsighted",
        "hidden_target",
        "remembered_target",
        "solo",
    )
    assert swarm_mixed_v0.scenarios() == ("default", "discrete", "three_a_side", "outnumbered", "crowd")
    hashes = {environment(env_id).content_hash(scenario) for env_id, scenario in SCENARIOS}
    assert len(hashes) == len(SCENARIOS)


def test_the_gymnasium_forms_of_one_agent():
    env = gymnasium.make("qio_envs/Swarm-v0")
    seen, _ = env.reset(seed=3)
    assert env.observation_space.contains(seen)
    _, reward, terminated, truncated, info = env.step(np.array([0.5, -0.5], np.float32))
    assert reward == pytest.approx(-info["distance"])
    assert (terminated, truncated) == (False, False)
    batch = env.unwrapped.batch
    batch.arrays.body[0, 0] = (4.99, 0, 0.9, 0)
    *_, terminated, truncated, info = env.step(np.zeros(2, np.float32))
    assert (terminated, truncated, info["exits"]) == (True, False, 1)
    envs = gymnasium.make_vec("qio_envs/Swarm-v0", num_envs=3, max_steps=5)
    envs.reset(seed=3)
    for _ in range(5):
        seen, *_, truncated, infos = envs.step(np.zeros((3, 2), np.float32))
    assert truncated.all()
    assert infos["final_obs"][0].shape == seen[0].shape == (4,)


def test_the_aec_form_plays_to_the_end():
    env = swarm_competitive_v0.env(out_radius=2.1, max_steps=50)
    env.reset(seed=1)
    env.action_space("agent_0").seed(0)
    left = set()
    for agent in env.agent_iter():
        *_, terminated, truncated, _ = env.last()
        if terminated:
            left.add(agent)
        over = terminated or truncated
        env.step(None if over else np.array([1.0, 0.0], np.float32))
    assert left

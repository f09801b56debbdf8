"""Actions, leaving, endings and rewards of the swarm, by hand."""

import numpy as np
import pytest
from swarm_settings import IDS, close

from qio_envs import environment, swarm_competitive_v0, swarm_cooperative_v0, swarm_mixed_v0
from qio_envs.api import InvalidActionError, ResetNeededError

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
    env, duplicate = (swarm_cooperative_v0.batched_env(2) for _ in range(2))
    env.reset(0)
    duplicate.reset(0)
    actions = np.zeros((2, 3, 2), np.float32)
    actions[0, 0], actions[0, 1], actions[1, 2] = (1.5, -7.0), (1.0, -1.0), (0.2, np.float32(1.0000001))
    env.step(actions)
    duplicate.step(np.clip(actions, -1, 1))
    np.testing.assert_array_equal(env.observe(), duplicate.observe())
    assert env.info()["clipped_actions"].tolist() == [1, 1]
    env.step(actions * 10)
    assert env.info()["clipped_actions"].tolist() == [3, 2]
    assert duplicate.info()["clipped_actions"].tolist() == [0, 0]
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
    expected = f"action of team_b_0 in env 1: expected finite numbers, got {np.array([0, value], np.float32)}"
    assert str(caught.value) == expected
    for name, array in env.get_state().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_the_parallel_interface_refuses_them_by_name():
    env = swarm_cooperative_v0.parallel_env()
    env.reset(seed=0)
    actions = dict.fromkeys(env.agents, np.zeros(2, np.float32))
    with pytest.raises(InvalidActionError) as caught:
        env.step(actions | {"agent_1": np.array([np.nan, 0])})
    assert str(caught.value) == "action of agent_1 in env 0: expected finite numbers, got [nan  0.]"
    with pytest.raises(InvalidActionError) as caught:
        env.step(actions | {"agent_2": 3})
    assert str(caught.value) == "action of agent_2: expected numbers of shape (2,), got 3"
    with pytest.raises(InvalidActionError, match=r"^no action for agent_0$"):
        env.step({agent: action for agent, action in actions.items() if agent != "agent_0"})
    assert env.batch.arrays.step[0] == 0


def test_actions_of_those_who_left_are_ignored_whatever_they_are():
    env, duplicate = (walk_out(swarm_cooperative_v0.batched_env(1, process_noise=0.0)) for _ in range(2))
    actions = np.zeros((1, 3, 2), np.float32)
    duplicate.step(actions)
    actions[0, 0] = np.nan
    env.step(actions)
    np.testing.assert_array_equal(env.observe(), duplicate.observe())
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
    with pytest.raises(ResetNeededError, match="env 0 of swarm_competitive_v0 has ended"):
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


def test_the_parallel_interface_of_agents_that_leave_one_by_one():
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


def test_coordination_is_the_episodes_mean_of_the_variance_of_distances_to_the_centroid():
    """Of the last step it would be 0 here: all have come together by then."""
    env = swarm_cooperative_v0.batched_env(1, process_noise=0.0)
    env.reset(0)
    assert env.info()["coordination"][0] == 0
    variances = []
    for spread in (2.0, 1.0, 0.0):
        env.arrays.body[0] = [(0, 0, 0, 0), (0, 0, 0, 0), (spread, 0, 0, 0)]
        env.step(np.zeros((1, 3, 2), np.float32))
        variances.append(np.var([spread / 3, spread / 3, 2 * spread / 3]))
    assert env.info()["coordination"][0] == pytest.approx(np.mean(variances), rel=1e-5)
    assert env.info()["coordination"][0] > 0.03
    env.reset()
    assert env.info()["coordination"][0] == 0

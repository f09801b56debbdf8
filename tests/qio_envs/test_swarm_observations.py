"""What agents of the swarm observe, the noise on it, and the dynamics."""

import gymnasium
import numpy as np
from swarm_settings import actions_of, close

from qio_envs import swarm_cooperative_v0, swarm_mixed_v0

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
    env, duplicate = (swarm_cooperative_v0.batched_env(3) for _ in range(2))
    env.reset(0)
    duplicate.reset(0)
    first = env.observe()
    np.testing.assert_array_equal(env.observe(), first)
    actions = actions_of(env, 0)
    env.step(actions)
    duplicate.step(actions)  # which nobody observed before
    np.testing.assert_array_equal(env.observe(), duplicate.observe())
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

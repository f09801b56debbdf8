"""The particle environments are mpe2's: the same states and actions give the same."""

import numpy as np
import pytest
from mpe_settings import IDS, original, put_state

from qio_envs import environment

STATES = 1000
OTHER_SIZES = [
    ("mpe_spread_v0", {"num_agents": 5, "local_ratio": 0.2}, {"N": 5, "local_ratio": 0.2}),
    ("mpe_reference_v0", {"local_ratio": 0.9}, {"local_ratio": 0.9}),
    ("mpe_adversary_v0", {"num_good": 4}, {"N": 4}),
    (
        "mpe_tag_v0",
        {"num_good": 2, "num_adversaries": 4, "num_obstacles": 1},
        {"num_good": 2, "num_adversaries": 4, "num_obstacles": 1},
    ),
    (
        "mpe_world_comm_v0",
        {"num_good": 3, "num_adversaries": 2, "num_obstacles": 2, "num_food": 1, "num_forests": 3},
        {"num_good": 3, "num_adversaries": 2, "num_obstacles": 2, "num_food": 1, "num_forests": 3},
    ),
]
CASES = [(env_id, {}, {}) for env_id in IDS] + OTHER_SIZES


def crowd(env, generator):
    """Put the batch in random states: crowded, fast, beyond the borders, with messages said."""
    arrays = env.arrays
    env.reset(1)
    arrays.position[:] = generator.normal(0, 0.6, arrays.position.shape)
    arrays.position[: env.num_envs // 2] *= 0.4  # many contacts
    arrays.velocity[:] = generator.normal(0, 0.8, arrays.velocity.shape) * env.world.movable[:, None]
    arrays.message[:] = generator.uniform(0, 1, arrays.message.shape) * env.world.speaks[:, None]


def own_part(env, actions, n):
    """Return the action of agent ``n`` as mpe2 takes it."""
    return actions[n] if np.ndim(actions[n]) == 0 else actions[n, : env.action_sizes[n]]


def random_actions(env, generator):
    shape = (env.num_envs, env.num_agents)
    if env.config.continuous_actions:
        return generator.uniform(-0.2, 1.2, (*shape, *env.action_space.shape)).astype(np.float32)
    return generator.integers(0, env.action_sizes, shape)


def step_both(env, other, env_id, actions, index):
    """Return what mpe2 gives for environment ``index``: observations, rewards and endings by agent."""
    named = {name: own_part(env, actions[index], n) for n, name in enumerate(env.possible_agents)}
    return other.step(named)[:4]


def assert_same(env, index, other, given, transition, observed):
    world = other.unwrapped.world
    np.testing.assert_allclose(
        env.arrays.position[index], [entity.state.p_pos for entity in world.entities], atol=1e-9
    )
    np.testing.assert_allclose(
        env.arrays.velocity[index], [agent.state.p_vel for agent in world.agents], atol=1e-9
    )
    observations, rewards, terminated, truncated = given
    for n, name in enumerate(env.possible_agents):
        size = env.observation_sizes[n]
        assert observations[name].shape == (size,)
        np.testing.assert_allclose(observed[index, n, :size], observations[name], atol=1e-5, rtol=1e-6)
        assert (observed[index, n, size:] == 0).all()
        assert transition.rewards[index, n] == pytest.approx(rewards[name], abs=1e-5, rel=1e-6)
        assert (transition.terminated[index, n], transition.truncated[index, n]) == (
            terminated[name],
            truncated[name],
        )


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize(("env_id", "ours", "theirs"), CASES)
def test_a_step_from_random_states(env_id, ours, theirs, continuous):
    states = STATES if not ours else 100
    env = environment(env_id).batched_env(states, continuous_actions=continuous, **ours)
    other = original(env_id, max_cycles=10**6, continuous_actions=continuous, **theirs)
    assert tuple(other.possible_agents) == env.possible_agents
    generator = np.random.default_rng(0)
    crowd(env, generator)
    before, actions = env.clone().arrays, random_actions(env, generator)
    transition, observed = env.step(actions), env.observe()
    for index in range(states):
        put_state(other, env_id, before, index)
        given = step_both(env, other, env_id, actions, index)
        assert_same(env, index, other, given, transition, observed)


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("env_id", IDS)
def test_a_whole_episode(env_id, continuous):
    env = environment(env_id).batched_env(1, continuous_actions=continuous)
    other = original(env_id, continuous_actions=continuous)
    env.reset(7)
    put_state(other, env_id, env.arrays, 0)
    generator, steps = np.random.default_rng(1), 0
    while other.agents:
        actions = random_actions(env, generator)
        transition = env.step(actions)
        given = step_both(env, other, env_id, actions, 0)
        assert_same(env, 0, other, given, transition, env.observe())
        steps += 1
    assert steps == env.config.max_steps == 25
    assert not env.running.any()


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize("env_id", IDS)
def test_sizes_are_those_of_the_spaces(env_id, continuous):
    env = environment(env_id).batched_env(continuous_actions=continuous)
    other = original(env_id, continuous_actions=continuous)
    for n, name in enumerate(env.possible_agents):
        assert other.observation_space(name).shape == (env.observation_sizes[n],)
        space = other.action_space(name)
        assert env.action_sizes[n] == (space.shape[0] if continuous else space.n)
    radii = [entity.size for entity in other.unwrapped.world.entities]
    np.testing.assert_array_equal(env.world.radius, radii)

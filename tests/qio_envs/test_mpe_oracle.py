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


def step_theirs(env, other, actions):
    """Return what mpe2 makes of the actions of one environment, by name, for all agents."""
    observations, rewards, terminated, truncated, _ = other.step(
        {name: own_part(env, actions, n) for n, name in enumerate(env.possible_agents)}
    )
    return after_step(env, other, observations, rewards, terminated, truncated)


def step_their_world(env, other, actions):
    """As `step_theirs` without the wrappers, which take most of the time: of those, one clips actions."""
    inner, names = other.unwrapped, env.possible_agents
    inner.current_actions = [own_part(env, actions, n) for n in range(len(names))]
    if env.config.continuous_actions:
        inner.current_actions = [np.clip(action, 0, 1) for action in inner.current_actions]
    inner._execute_world_step()
    observations = {name: inner.observe(name) for name in names}
    return after_step(env, other, observations, inner.rewards, inner.terminations, inner.truncations)


def after_step(env, other, observations, rewards, terminated, truncated):
    names, world = env.possible_agents, other.unwrapped.world
    size = env.observation_space.shape[0]
    return {
        "positions": [entity.state.p_pos for entity in world.entities],
        "velocities": [agent.state.p_vel for agent in world.agents],
        "observations": [
            np.pad(observations[name], (0, size - own))
            for name, own in zip(names, env.observation_sizes, strict=True)
        ],
        "rewards": [rewards[name] for name in names],
        "endings": [(terminated[name], truncated[name]) for name in names],
    }


def step_ours(env, actions):
    transition = env.step(actions)
    return {
        "positions": env.arrays.position.copy(),
        "velocities": env.arrays.velocity.copy(),
        "observations": env.observe(),
        "rewards": transition.rewards,
        "endings": np.stack([transition.terminated, transition.truncated], axis=2),
    }


def assert_same(ours, theirs):
    """Compare a batch with as many steps of mpe2."""
    for name, values in ours.items():
        expected = np.array([step[name] for step in theirs])
        exact = name in ("positions", "velocities")
        np.testing.assert_allclose(
            values, expected, atol=1e-9 if exact else 1e-5, rtol=0 if exact else 1e-6, err_msg=name
        )


@pytest.mark.parametrize("continuous", [False, True], ids=["discrete", "continuous"])
@pytest.mark.parametrize(("env_id", "ours", "theirs"), CASES)
def test_a_step_from_random_states(env_id, ours, theirs, continuous):
    states = 100 if ours else STATES
    env = environment(env_id).batched_env(states, continuous_actions=continuous, **ours)
    other = original(env_id, max_cycles=10**6, continuous_actions=continuous, **theirs)
    assert tuple(other.possible_agents) == env.possible_agents
    generator = np.random.default_rng(0)
    crowd(env, generator)
    before, actions = env.clone().arrays, random_actions(env, generator)
    expected = []
    for index in range(states):
        put_state(other, env_id, before, index)
        expected.append(step_their_world(env, other, actions[index]))
    assert_same(step_ours(env, actions), expected)


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
        assert_same(step_ours(env, actions), [step_theirs(env, other, actions[0])])
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

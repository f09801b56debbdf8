"""What all particle environments have in common, and the settings that mpe2 has not."""

import numpy as np
import pytest
from batch_and_singles import check_batch_against_singles
from hypothesis import given, settings
from hypothesis import strategies as st
from mpe_settings import IDS

from qio_envs import environment, mpe_spread_v0, mpe_tag_v0, mpe_world_comm_v0
from qio_envs.api import ConfigError, InvalidActionError
from qio_envs.testing import CHECKS, check_parallel_env, table

MASKED = {"mpe_speaker_listener_v0", "mpe_world_comm_v0"}  # where agents have different discrete actions
CONFORMING = [(env_id, "default") for env_id in IDS]
CONFORMING += [(env_id, "continuous") for env_id in ("mpe_spread_v0", "mpe_world_comm_v0")]


def random_actions(env, seed, num_envs=None):
    generator = np.random.default_rng(seed)
    shape = (num_envs or env.num_envs, env.num_agents)
    if env.config.continuous_actions:
        return generator.random((*shape, *env.action_space.shape), np.float32)
    return generator.integers(0, env.action_sizes, shape)


def played(env, steps=3, seed=0):
    env.reset(seed)
    for t in range(steps):
        env.step(random_actions(env, t))
    return env


@pytest.mark.parametrize("env_id", IDS)
@given(data=st.data())
@settings(max_examples=3)
def test_a_batch_is_as_many_singles(env_id, data):
    def make(num_envs):
        return environment(env_id).batched_env(num_envs, max_steps=5)

    check_batch_against_singles(make, random_actions, data.draw(st.integers(0, 2**40)), 3, data)


@pytest.mark.parametrize(("env_id", "scenario"), CONFORMING)
def test_environments_conform(env_id, scenario):
    make = environment(env_id).parallel_env
    results = check_parallel_env(lambda **kwargs: make(scenario, **kwargs), steps=30)
    assert [result.name for result in results] == list(CHECKS)
    assert all(result.passed for result in results), table(results)
    skipped = [result.name for result in results if result.label == "skip"]
    masked = env_id in MASKED and scenario == "default"
    assert skipped == ([] if masked else ["action masks"])


@pytest.mark.parametrize("env_id", IDS)
def test_agents_start_at_rest_and_landmarks_stay(env_id):
    env = environment(env_id).batched_env(2000)
    env.reset(0)
    position, spawn = env.arrays.position.copy(), env.world.spawn
    assert (np.abs(position) <= spawn[:, None]).all()
    np.testing.assert_allclose(position.mean(axis=(0, 2)), 0, atol=0.06)
    np.testing.assert_allclose(position.var(axis=(0, 2)), spawn**2 / 3, rtol=0.1)  # of a uniform distribution
    assert (env.arrays.velocity == 0).all()
    for g, choices in enumerate(env.world.goal_choices):
        shares = np.bincount(env.arrays.goal[:, g], minlength=choices) / 2000
        np.testing.assert_allclose(shares, 1 / choices, atol=0.05)
        others = env.arrays.goal[:, :g]
        np.testing.assert_allclose(
            (others == env.arrays.goal[:, g : g + 1]).mean(axis=0), 1 / choices, atol=0.05
        )
    played(env, 2, 0)
    landmarks = np.s_[:, env.num_agents :]
    np.testing.assert_array_equal(env.arrays.position[landmarks], position[landmarks])
    moved = (env.arrays.position[:, : env.num_agents] != position[:, : env.num_agents]).any(axis=(0, 2))
    np.testing.assert_array_equal(moved, env.world.movable)


@pytest.mark.parametrize("env_id", IDS)
def test_an_episode_begins_with_nothing_of_the_one_before(env_id):
    used, fresh = (environment(env_id).batched_env(4) for _ in range(2))
    played(used, 5)
    used.reset(7)
    fresh.reset(7)
    for name, array in fresh.get_state().items():
        np.testing.assert_array_equal(used.get_state()[name], array, err_msg=name)


@pytest.mark.parametrize("env_id", IDS)
def test_masks_say_which_actions_agents_have_and_the_others_are_as_0(env_id):
    env = environment(env_id).batched_env(4)
    assert env.has_action_mask == (env_id in MASKED)
    played(env)
    mask = env.action_mask()
    assert mask.dtype == np.int8
    for n, size in enumerate(env.action_sizes):
        assert (mask[:, n, :size] == 1).all()
        assert (mask[:, n, size:] == 0).all()
    lacking = np.array(env.action_sizes) < env.action_space.n
    if lacking.any():
        other, actions = env.clone(), random_actions(env, 9)
        other.step(np.where(lacking, env.action_space.n - 1, actions))
        env.step(np.where(lacking, 0, actions))
        for name, array in env.get_state().items():
            np.testing.assert_array_equal(array, other.get_state()[name], err_msg=name)


@pytest.mark.parametrize("env_id", sorted(MASKED))
def test_continuous_numbers_that_an_agent_lacks_are_ignored(env_id):
    env = environment(env_id).batched_env(4, continuous_actions=True)
    played(env)
    other, actions = env.clone(), random_actions(env, 9)
    changed = actions.copy()
    for n, size in enumerate(env.action_sizes):
        changed[:, n, size:] = 1 - changed[:, n, size:]
    assert (changed != actions).any()
    np.testing.assert_array_equal(env.step(actions).rewards, other.step(changed).rewards)
    np.testing.assert_array_equal(env.observe(), other.observe())


@pytest.mark.parametrize(("env_id", "adversaries"), [("mpe_spread_v0", 0), ("mpe_tag_v0", 3)])
def test_who_changes_places_changes_what_is_given(env_id, adversaries):
    """Agents of one side are alike: with two of them exchanged, the two get each other's rewards."""
    env = environment(env_id).batched_env(50)
    played(env, 6)
    other, order = env.clone(), np.arange(env.num_agents)
    order[:2] = 1, 0
    entities = np.concatenate([order, np.arange(env.num_agents, len(env.world.radius))])
    other.arrays.position[:] = env.arrays.position[:, entities]
    other.arrays.velocity[:] = env.arrays.velocity[:, order]
    actions = random_actions(env, 3)
    given, exchanged = env.step(actions), other.step(actions[:, order])
    np.testing.assert_allclose(exchanged.rewards, given.rewards[:, order], rtol=1e-6)
    np.testing.assert_allclose(other.observe()[:, order, :4], env.observe()[:, :, :4], rtol=1e-5, atol=1e-6)


def test_two_at_one_point_stay_finite():
    env = mpe_spread_v0.batched_env(1)
    env.reset(0)
    env.arrays.position[0, :2] = 0.25
    env.step(np.zeros((1, 3), np.int64))
    assert np.isfinite(env.observe()).all()
    np.testing.assert_array_equal(env.arrays.velocity[0, :2], 0)


def test_a_push_shows_in_the_velocity_at_once_and_in_the_position_a_step_later():
    env = mpe_spread_v0.batched_env(1, num_agents=1)
    env.reset(0)
    start = env.arrays.position[0, 0].copy()
    env.step(np.array([[2]]))
    np.testing.assert_array_equal(env.arrays.position[0, 0], start)
    np.testing.assert_allclose(env.arrays.velocity[0, 0], [0.5, 0])
    env.step(np.array([[3]]))
    np.testing.assert_allclose(env.arrays.position[0, 0], [start[0] + 0.05, start[1]])
    np.testing.assert_allclose(env.arrays.velocity[0, 0], [0.375, -0.5])


def test_speeds_are_limited_where_the_task_says_so():
    env = mpe_tag_v0.batched_env(1, num_obstacles=0)
    env.reset(0)
    env.arrays.position[0] = [[0, 0], [9, 0], [0, 9], [9, 9]]
    for _ in range(20):
        env.step(np.full((1, 4), 2))
    np.testing.assert_allclose(np.hypot(*env.arrays.velocity[0].T), [1.0, 1.0, 1.0, 1.3])


def both(**changes):
    """Return two batches in the same crowded states with the same actions, the second with other settings."""
    envs = [mpe_spread_v0.batched_env(64, **values) for values in ({}, changes)]
    for env in envs:
        env.reset(3)
        env.arrays.position[:] *= 0.4
    return envs


def test_an_agent_in_collision_with_itself_pays_for_it_at_every_step():
    plain, counted = both(self_collision=True)
    for t in range(25):
        actions = random_actions(plain, t)
        rewards, dearer = plain.step(actions).rewards, counted.step(actions).rewards
        np.testing.assert_allclose(dearer, rewards - 0.5, atol=1e-6)  # one collision times local_ratio
    np.testing.assert_array_equal(plain.info()["collisions"], counted.info()["collisions"])


def test_rewards_in_epymarls_unit():
    plain, published = both(**mpe_spread_v0.config("epymarl").as_dict())
    for t in range(25):
        actions = random_actions(plain, t)
        rewards, common = plain.step(actions).rewards, published.step(actions).rewards
        expected = 2 * rewards.sum(axis=1) - 3  # halves undone, all agents, one collision of each with itself
        np.testing.assert_allclose(common, np.repeat(expected[:, None], 3, axis=1), rtol=1e-5)
    np.testing.assert_allclose(
        published.info()["team_return"], 2 * plain.info()["team_return"] - 75, rtol=1e-6
    )


def test_the_score_is_that_of_the_side_that_the_task_names():
    for env_id in IDS:
        env = played(environment(env_id).batched_env(5), 6)
        returns = env.info()["agent_return"]
        hunt = env_id in ("mpe_tag_v0", "mpe_world_comm_v0")
        side = returns[:, : env.world.adversaries] if hunt else returns[:, env.world.adversaries :]
        assert 0 < side.shape[1] < env.num_agents or not env.world.adversaries
        np.testing.assert_allclose(env.info()["team_return"], side.sum(axis=1), rtol=1e-12)


def test_metrics_of_spread():
    env = mpe_spread_v0.batched_env(1)
    env.reset(0)
    env.arrays.position[0] = [[0, 0], [0.2, 0], [0.9, 0.9], [0.05, 0], [0.9, 0.75], [-0.5, 0]]
    env.step(np.zeros((1, 3), np.int64))
    info = env.info()
    assert info["collisions"] == 1
    assert info["occupied"] == 1  # 0.05 away; the second is 0.15 away and the third 0.5
    np.testing.assert_allclose(info["distance"], (0.05 + 0.15 + 0.5) / 3)
    env.arrays.position[0] = [[-1, 0], [0, 0], [1, 0]] * 2
    env.arrays.velocity[:] = 0
    env.step(np.zeros((1, 3), np.int64))
    info = env.info()
    assert info["collisions"] == 1  # summed
    assert info["occupied"] == 2  # averaged, as the distance
    np.testing.assert_allclose(info["distance"], (0.05 + 0.15 + 0.5) / 6)


def measured(env):
    """The metrics of a step from the places alone, by name; how they are put together over steps is said elsewhere."""
    world, agents, hunters = env.world, env.num_agents, env.world.adversaries
    gap = np.linalg.norm(env.arrays.position[:, :, None] - env.arrays.position[:, None], axis=3)
    touching = gap < world.radius[:, None] + world.radius
    prey = slice(hunters, agents)
    caught = touching[:, prey, :hunters].sum(axis=(1, 2))
    if env.id == "mpe_tag_v0":
        return {"captures": caught, "distance": gap[:, prey, :hunters].min(axis=2).mean(axis=1)}
    if env.id == "mpe_world_comm_v0":
        first = agents + env.config.num_obstacles
        eaten = touching[:, prey, first : first + env.config.num_food].sum(axis=(1, 2))
        nearest = gap[:, :hunters, prey].min(axis=2)
        return {"captures": caught, "eaten": eaten, "distance": nearest.mean(axis=1)}
    rows, goals = np.arange(env.num_envs), agents + env.arrays.goal.T
    away = np.stack([gap[rows, goal] for goal in goals], axis=2)  # of each entity from each goal
    if env.id == "mpe_adversary_v0":
        return {"adversary_distance": away[:, 0, 0], "distance": away[:, 1:agents, 0].min(axis=1)}
    if env.id == "mpe_push_v0":
        return {"contacts": touching[:, 0, 1], "adversary_distance": away[:, 0, 0], "distance": away[:, 1, 0]}
    bound = away[:, [1], 0] if env.id == "mpe_speaker_listener_v0" else away[:, [1, 0], [0, 1]]
    return {"arrived": (bound < 0.1).sum(axis=1), "distance": bound.mean(axis=1)}


@pytest.mark.parametrize("env_id", sorted(set(IDS) - {"mpe_spread_v0", "mpe_crypto_v0"}))
def test_metrics_are_those_of_the_places(env_id):
    several = {"num_good": 2} if env_id in ("mpe_tag_v0", "mpe_adversary_v0") else {}
    env = environment(env_id).batched_env(200, **several)
    env.reset(0)
    generator, totals = np.random.default_rng(0), {}
    for _ in range(3):
        env.arrays.position[:] = generator.normal(0, 0.15, env.arrays.position.shape)
        env.arrays.velocity[:] = 0
        env.step(random_actions(env, 1))
        for name, values in measured(env).items():
            totals[name] = totals.get(name, 0) + values
    assert set(totals) == {*env.sums, *env.means}
    for name, total in totals.items():
        assert total.std() > 0
        np.testing.assert_allclose(env.info()[name], total / (1 if name in env.sums else 3), rtol=1e-9)


def test_random_play_beside_a_planned_one_has_the_seed_that_is_given():
    env = mpe_tag_v0.batched_env(20)
    env.reset(0)
    one, same, other = (env.scripted_policies["oracle"](env, seed).act() for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, same)
    assert (one[:, 3] != other[:, 3]).any()


def test_the_state_has_its_parts_where_the_layout_says():
    env = mpe_world_comm_v0.batched_env(3)
    played(env, 5)
    state, layout = env.state(), env.state_layout
    np.testing.assert_array_equal(
        state[:, layout["position"]], env.arrays.position.reshape(3, -1).astype(np.float32)
    )
    np.testing.assert_allclose(state[:, layout["time_left"]], 1 - 5 / 25)
    assert (state[:, layout["message"]].sum(axis=1) == 1).all()  # of the leader
    env = environment("mpe_reference_v0").batched_env(50)
    env.reset(0)
    goals = env.state()[:, env.state_layout["goal"]].reshape(50, 2, 3)
    np.testing.assert_array_equal(goals.argmax(axis=2), env.arrays.goal)
    assert (goals.sum(axis=2) == 1).all()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_agents": 0}, "num_agents: expected an integer from 1 to 100, got 0"),
        ({"local_ratio": 1.5}, "local_ratio: expected a number from 0.0 to 1.0, got 1.5"),
        ({"max_steps": 2.5}, "max_steps: expected an integer from 1 to 1000000, got 2.5"),
        ({"continuous_actions": 1}, "continuous_actions: expected true or false, got 1"),
        (
            {"self_collisions": True},
            r"unknown environment setting 'self_collisions' \(did you mean 'self_collision'",
        ),
        ({"scenario": "epymarI"}, r"unknown scenario 'epymarI' \(did you mean 'epymarl'\?\)"),
    ],
)
def test_settings_that_cannot_be(settings, message):
    with pytest.raises(ConfigError, match=message):
        mpe_spread_v0.batched_env(**settings)


def test_actions_that_cannot_be():
    env = mpe_spread_v0.batched_env(2)
    env.reset(0)
    with pytest.raises(
        InvalidActionError, match="action of agent_1 in env 0: expected an integer from 0 to 4, got 5"
    ):
        env.step(np.array([[0, 5, 0], [0, 0, 0]]))
    env = mpe_spread_v0.batched_env(2, "continuous")
    env.reset(0)
    with pytest.raises(InvalidActionError, match=r"actions: expected shape \(2, 3, 5\), got \(2, 3\)"):
        env.step(np.zeros((2, 3)))

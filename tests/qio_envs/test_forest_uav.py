import copy
import pickle
from fractions import Fraction
from math import floor

import numpy as np
import pytest
from forest_oracle import ForestOracle
from forest_settings import forest_configs, seeds
from hypothesis import given
from hypothesis import strategies as st

from qio_envs import forest_uav_v0
from qio_envs.api import InvalidActionError, ResetNeededError
from qio_envs.forest_uav import ForestConfig, ForestUAV

SCENARIOS = forest_uav_v0.scenarios()


def actions_of(env, step, key=0):
    return np.random.default_rng([key, step]).integers(0, 5, (env.num_envs, env.num_agents))


def assert_equal_to_oracle(env, index, oracle):
    np.testing.assert_array_equal(env.observe()[index], oracle.observe())
    np.testing.assert_array_equal(env.action_mask()[index], oracle.action_mask())
    np.testing.assert_array_equal(env.state()[index], oracle.state())
    assert {key: values[index] for key, values in env.info().items()} == oracle.info()


def play_against_oracle(config, seed, steps, episode=0):
    env, oracle = ForestUAV(config), ForestOracle(config, seed, episode)
    env.reset([seed])
    for _ in range(episode):
        env.reset()
    assert_equal_to_oracle(env, 0, oracle)
    for t in range(min(steps, config.max_steps)):
        actions = actions_of(env, t, seed % 1000)
        transition = env.step(actions)
        rewards, truncated = oracle.step(actions[0])
        np.testing.assert_array_equal(transition.rewards[0], rewards)
        assert transition.rewards.dtype == np.float32
        assert not transition.terminated.any()
        assert (transition.truncated == truncated).all()
        assert env.running[0] == (not truncated)
        assert_equal_to_oracle(env, 0, oracle)


@pytest.mark.parametrize("scenario", ["default", "sprint", "wooded", "solo"])
def test_kernels_equal_the_oracle_on_the_scenarios(scenario):
    play_against_oracle(ForestConfig.from_scenario(scenario), 7, 24)


def test_kernels_equal_the_oracle_on_the_wide_scenario():
    play_against_oracle(ForestConfig.from_scenario("wide", num_uavs=12), 2**64 - 1, 11, episode=1)


@pytest.mark.parametrize("radius", [3, 4, 28, 29, 64])
def test_kernels_equal_the_oracle_where_a_crop_is_wider_than_a_byte_or_a_word(radius):
    config = ForestConfig(
        height=67, width=71, num_uavs=4, sensing_radius=radius, comm_budget=0.4, obstacle_density=0.1
    )
    play_against_oracle(config, 11, 8)


@given(forest_configs(), seeds, st.integers(0, 2))
def test_kernels_equal_the_oracle_on_small_forests(config, seed, episode):
    play_against_oracle(config, seed, 25, episode)


@pytest.mark.parametrize("loss", [0.0, 0.5])
@pytest.mark.parametrize("reach", [None, 3.0])
def test_kernels_equal_the_oracle_when_radio_is_all_there_is(loss, reach):
    config = ForestConfig(
        height=7, width=9, num_uavs=5, sensing_radius=0, comm_budget=0.5, comm_loss=loss, comm_range=reach
    )
    play_against_oracle(config, 3, 40)


@given(
    config=st.sampled_from(SCENARIOS).map(ForestConfig.from_scenario) | forest_configs(),
    seed=st.integers(0, 2**63),
    num_envs=st.integers(1, 4),
    data=st.data(),
)
def test_an_environment_of_a_batch_is_the_environment_of_its_seed_alone(config, seed, num_envs, data):
    batch = ForestUAV(config, num_envs)
    singles = [ForestUAV(config) for _ in range(num_envs)]
    batch.reset(seed)
    for index, single in enumerate(singles):
        single.reset(seed + index)
    for t in range(12):
        ended = ~batch.running
        draws = data.draw(st.lists(st.integers(0, 9), min_size=num_envs, max_size=num_envs))
        again = ended | (np.array(draws) == 0)
        if again.any():  # second and later episodes, at different times
            batch.reset(mask=again)
            for index in np.flatnonzero(again):
                singles[index].reset()
        actions = actions_of(batch, t, num_envs)
        transition = batch.step(actions)
        parts = [*transition, batch.observe(), batch.action_mask(), batch.state(), *batch.info().values()]
        for index, single in enumerate(singles):
            alone = single.step(actions[index : index + 1])
            own = [*alone, single.observe(), single.action_mask(), single.state(), *single.info().values()]
            for whole, part in zip(parts, own, strict=True):
                np.testing.assert_array_equal(whole[index], part[0])
    for index, single in enumerate(singles):
        state, whole = single.get_state(), batch.get_state()
        for name, array in state.items():
            np.testing.assert_array_equal(whole[name][index], array[0], err_msg=name)


@given(forest_configs(), seeds)
def test_a_belief_never_claims_a_cell_that_is_not_monitored(config, seed):
    env = ForestUAV(config)
    env.reset([seed])
    free = env.without_margin(env.unpack(env.arrays.blocked[0])) == 0
    known = 0
    for t in range(config.max_steps):
        env.step(actions_of(env, t))
        believed = env.without_margin(env.unpack(env.arrays.belief[0])) == 0
        monitored = env.without_margin(env.unpack(env.arrays.monitored[0])) == 1
        assert not (believed & free & ~monitored).any()
        own = env.arrays.position[0]
        assert believed[np.arange(config.num_uavs), own[:, 0], own[:, 1]].all()
        now = int((believed & free).sum())
        assert now >= known
        known = now


@given(forest_configs(reward="local"), seeds)
def test_local_rewards_sum_to_the_team_reward(config, seed):
    env = ForestUAV(config)
    env.reset([seed])
    for t in range(config.max_steps):
        rewards = env.step(actions_of(env, t)).rewards
        np.testing.assert_allclose(rewards.sum(), env.info()["team_reward"][0], atol=1e-5)


@given(forest_configs(reward="difference"), seeds)
def test_the_difference_reward_is_what_the_team_loses_without_the_uav(config, seed):
    env = ForestUAV(config)
    env.reset([seed])
    for t in range(config.max_steps):
        before = env.without_margin(env.unpack(env.arrays.monitored[0])).copy()
        rewards = env.step(actions_of(env, t)).rewards[0]

        def team(positions, before=before):
            cells, counts = np.unique(positions, axis=0, return_counts=True)
            new = sum(before[row, column] == 0 for row, column in cells)
            return config.cell_reward * int(new) - config.collision_penalty * int((counts > 1).sum())

        whole = team(env.arrays.position[0])
        assert whole == env.info()["team_reward"][0]
        for n in range(config.num_uavs):
            rest = np.delete(env.arrays.position[0], n, axis=0)
            assert rewards[n] == np.float32(whole - (team(rest) if len(rest) else 0))


@given(st.integers(0, 1000), st.integers(1, 3000))
def test_the_radio_budget_is_exact(thousandths, steps):
    budget = thousandths / 1000
    config = ForestConfig(height=5, width=5, num_uavs=2, sensing_radius=0, comm_budget=budget, max_steps=3000)
    env = ForestUAV(config)
    env.reset(0)
    stay = np.zeros((1, 2), int)
    for _ in range(steps):
        env.step(stay)
    assert env.info()["messages"][0] == 2 * floor(steps * Fraction(thousandths, 1000))


def test_without_budget_nothing_is_ever_heard():
    env = forest_uav_v0.batched_env(2, "silent")
    env.reset(0)
    heard = env.config.observation_layout["coarse_heard"]
    for t in range(60):
        env.step(actions_of(env, t))
        assert not env.observe()[..., heard].any()
    assert (env.info()["messages"] == 0).all()


def test_radio_reaches_no_farther_than_its_range():
    config = ForestConfig(height=20, width=20, num_uavs=8, comm_budget=1.0, comm_range=4.0)
    env = ForestUAV(config)
    env.reset(5)
    heard_some = False
    for t in range(50):
        env.step(actions_of(env, t))
        position = env.arrays.position[0].astype(float)
        distance = np.hypot(*(position[:, None] - position[None]).transpose(2, 0, 1))
        now = env.arrays.heard_step[0] == env.arrays.step[0]
        expected = (distance <= 4) & ~np.eye(8, dtype=bool)
        np.testing.assert_array_equal(now, expected)
        heard_some |= expected.any()
    assert heard_some


def test_messages_are_lost_at_their_rate():
    config = ForestConfig(num_uavs=20, comm_budget=1.0, comm_loss=0.3, max_steps=100)
    env = ForestUAV(config)
    env.reset(1)
    received = 0
    for t in range(100):
        env.step(actions_of(env, t))
        received += int((env.arrays.heard_step[0] == t + 1).sum())
    sent = int(env.info()["messages"][0])
    assert sent == 100 * 20 * 19
    assert abs(received / sent - 0.7) < 4 * np.sqrt(0.21 / sent)


@given(forest_configs(), seeds)
def test_obstacles_keep_the_free_cells_in_one_piece(config, seed):
    env = ForestUAV(config)
    env.reset([seed])
    free = env.without_margin(env.unpack(env.arrays.blocked[0])) == 0
    assert free.sum() == env.arrays.free_count[0] >= config.free_cells
    reached = np.zeros_like(free)
    reached[tuple(np.argwhere(free)[0])] = True
    for _ in range(free.size):
        grown = reached.copy()
        grown[1:] |= reached[:-1]
        grown[:-1] |= reached[1:]
        grown[:, 1:] |= reached[:, :-1]
        grown[:, :-1] |= reached[:, 1:]
        reached = grown & free
    np.testing.assert_array_equal(reached, free)


def test_a_fifth_of_the_wooded_forest_is_blocked():
    env = forest_uav_v0.batched_env(20, "wooded")
    env.reset(0)
    assert (env.arrays.free_count == 320).all()


@given(forest_configs(), seeds)
def test_start_cells_are_free_and_distinct(config, seed):
    env = ForestUAV(config)
    env.reset([seed])
    assert len(np.unique(env.arrays.position[0], axis=0)) == config.num_uavs
    row, column = env.arrays.position[0].T
    assert not env.without_margin(env.unpack(env.arrays.blocked[0]))[row, column].any()


def test_start_cells_are_uniform():
    env = ForestUAV(ForestConfig(height=5, width=5, num_uavs=1, sensing_radius=0), 5000)
    env.reset(0)
    row, column = env.arrays.position[:, 0].T
    counts = np.bincount(row * 5 + column, minlength=25)
    assert ((counts - 200) ** 2 / 200).sum() < 51.2  # chi-squared with 24 degrees of freedom, p = 0.001


@given(forest_configs(), seeds)
def test_everything_lies_in_its_space(config, seed):
    env = ForestUAV(config, 2)
    env.reset([seed, seed // 2])
    assert env.has_action_mask == config.mask_blocked_moves
    for t in range(min(config.max_steps, 15)):
        env.step(actions_of(env, t))
        masks = env.action_mask()
        assert masks.dtype == np.int8
        assert np.isin(masks, (0, 1)).all()
        assert (masks[..., 0] == 1).all()
        for index in range(2):
            assert env.state_space.contains(env.state()[index])
            for row in env.observe()[index]:
                assert env.observation_space.contains(row)


def test_a_move_that_the_mask_forbids_is_a_stay():
    env = forest_uav_v0.batched_env(4, "wooded")
    env.reset(3)
    refused = 0
    for t in range(30):
        masks, before = env.action_mask(), env.arrays.position.copy()
        actions = actions_of(env, t)
        env.step(actions)
        legal = np.take_along_axis(masks, actions[..., None], 2)[..., 0] == 1
        stayed = (env.arrays.position == before).all(axis=2)
        np.testing.assert_array_equal(stayed, ~legal | (actions == 0))
        refused += int((~legal).sum())
    assert refused > 0


def test_the_parts_of_an_observation_are_where_the_layout_says():
    config = ForestConfig()
    layout = config.observation_layout
    assert config.observation_size == 153
    assert [part.start for part in layout.values()][1:] == [part.stop for part in layout.values()][:-1]
    assert {name: part.stop - part.start for name, part in layout.items()} == {
        "unmonitored": 25,
        "vegetation": 25,
        "others": 25,
        "blocked": 25,
        "coarse_unmonitored": 25,
        "coarse_heard": 25,
        "position": 2,
        "time_left": 1,
    }
    env = ForestUAV(config)
    env.reset(0)
    first = env.observe()[0]
    assert (first[:, layout["coarse_unmonitored"]] == 1).all()
    np.testing.assert_allclose(first[:, layout["position"]] * 19, env.arrays.position[0], rtol=1e-6)
    assert (first[:, layout["time_left"]] == 1).all()


def test_an_episode_is_truncated_and_never_terminated():
    env = forest_uav_v0.batched_env(2, "sprint")
    env.reset(0)
    for t in range(60):
        transition = env.step(actions_of(env, t))
        assert not transition.terminated.any()
        assert (transition.truncated == (t == 59)).all()
    assert (env.observe()[..., -1] == 0).all()
    with pytest.raises(ResetNeededError, match="env 0 of forest_uav_v0 has ended or was never reset"):
        env.step(actions_of(env, 60))


def scripted_walk(env, moves):
    for move in moves:
        env.step(np.full((1, env.num_agents), move))


def test_the_metrics_of_a_walk_that_is_known():
    env = ForestUAV(ForestConfig(height=5, width=5, num_uavs=1, sensing_radius=0, max_steps=200))
    env.reset(0)
    row, column = env.arrays.position[0, 0]
    scripted_walk(env, [1] * int(row) + [3] * int(column))  # to the corner, then row by row
    walk = ([4] * 4 + [2] + [3] * 4 + [2]) * 2 + [4] * 4
    seen, steps_to_90, steps_to_95 = 0, -1, -1
    for move in walk:
        scripted_walk(env, [move])
        seen, now = round(float(env.info()["coverage"][0]) * 25), int(env.arrays.step[0])
        steps_to_90 = now if seen == 23 and steps_to_90 < 0 else steps_to_90
        steps_to_95 = now if seen == 24 and steps_to_95 < 0 else steps_to_95
    info = {key: values[0] for key, values in env.info().items()}
    assert info["coverage"] == 1.0
    assert info["team_return"] == 25.0
    assert (info["steps_to_90"], info["steps_to_95"]) == (steps_to_90, steps_to_95)
    assert 0 < steps_to_90 < steps_to_95 < env.arrays.step[0]
    assert info["collisions"] == 0


def test_uavs_that_share_a_cell_collide_once_a_step():
    env = ForestUAV(ForestConfig(height=5, width=5, num_uavs=3, comm_budget=0.0, max_steps=50))
    env.reset(0)
    scripted_walk(env, [1, 1, 1, 1, 3, 3, 3, 3])  # all in the corner
    before = int(env.info()["collisions"][0])
    for t in range(5):
        rewards = env.step(np.zeros((1, 3), int)).rewards
        assert (rewards == -0.25).all()
        assert env.info()["collisions"][0] == before + t + 1


@pytest.mark.parametrize(
    "copier", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env)), ForestUAV.clone]
)
def test_a_copy_continues_exactly_and_apart(copier):
    env = forest_uav_v0.batched_env(3, "wide", num_uavs=6)
    env.reset(0)
    for t in range(25):
        env.step(actions_of(env, t))
    duplicate = copier(env)
    expected = []
    for t in range(25, 60):
        env.step(actions_of(env, t))
        expected.append(env.observe())
    for t in range(25, 60):
        duplicate.step(actions_of(duplicate, t))
        np.testing.assert_array_equal(duplicate.observe(), expected[t - 25])


@given(forest_configs(max_steps=20), seeds, st.integers(0, 19))
def test_a_saved_state_continues_exactly(config, seed, when):
    env, other = ForestUAV(config), ForestUAV(config)
    env.reset([seed])
    other.reset(0)
    for t in range(when):
        env.step(actions_of(env, t))
    saved = env.get_state()
    for t in range(when, 20):
        env.step(actions_of(env, t))
    other.set_state(saved)
    for array in saved.values():
        array[...] = 0  # neither side keeps a reference
    for t in range(when, 20):
        other.step(actions_of(other, t))
    for name, array in env.get_state().items():
        np.testing.assert_array_equal(other.get_state()[name], array, err_msg=name)
    env.reset()
    other.reset()
    np.testing.assert_array_equal(env.observe(), other.observe())


def test_a_state_of_another_configuration_is_refused():
    env = forest_uav_v0.batched_env()
    env.reset(0)
    state = env.get_state()
    with pytest.raises(ValueError, match=r"state\['\w+'\]: expected \w+ of shape"):
        forest_uav_v0.batched_env(2).set_state(state)
    del state["belief"]
    with pytest.raises(ValueError, match="state: expected the arrays"):
        env.set_state(state)


@pytest.mark.parametrize("bad", [np.full((1, 10), 5), np.array([[0] * 9 + [-1]]), np.zeros((1, 9), int)])
def test_a_refused_action_changes_nothing(bad):
    env = forest_uav_v0.batched_env()
    env.reset(0)
    before = env.get_state()
    with pytest.raises(InvalidActionError):
        env.step(bad)
    for name, array in env.get_state().items():
        np.testing.assert_array_equal(before[name], array, err_msg=name)


def test_observe_writes_into_the_array_that_it_is_given():
    env = forest_uav_v0.batched_env(2)
    env.reset(0)
    out = np.full((2, 10, 153), np.nan, np.float32)
    assert env.observe(out) is out
    np.testing.assert_array_equal(out, env.observe())
    for wrong in (out[:1], out.astype(np.float64), np.asfortranarray(out)):
        with pytest.raises(ValueError, match="out: expected writable C-contiguous float32 of shape"):
            env.observe(wrong)

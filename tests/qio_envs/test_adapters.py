import copy
import pickle
import random
import warnings

import gymnasium
import numpy as np
import pytest
import supersuit
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space
from pettingzoo.test import api_test, parallel_api_test, parallel_seed_test, seed_test

from qio_envs import forest_uav_v0
from qio_envs.api import InvalidActionError, ResetNeededError

SCENARIOS = forest_uav_v0.scenarios()
SMALL = {"height": 8, "width": 8, "num_uavs": 3, "max_steps": 12}


def equal(first, second):
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(equal(first[key], second[key]) for key in first)
    return np.array_equal(first, second)


def walk(env, steps, key=0):
    """The same actions for the same key; returns what the steps gave."""
    generator, given = np.random.default_rng(key), []
    for _ in range(steps):
        if not env.agents:
            break
        given.append(env.step({agent: int(generator.integers(5)) for agent in env.agents}))
    return given


# -- PettingZoo


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_pettingzoo_parallel_api(scenario):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel_api_test(forest_uav_v0.parallel_env(scenario), num_cycles=100)


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_pettingzoo_parallel_seed(scenario):
    parallel_seed_test(lambda: forest_uav_v0.parallel_env(scenario), num_cycles=20)


# PettingZoo would rather have no dictionaries as observations, though its own classic games have them.
@pytest.mark.filterwarnings("ignore:Observation")
@pytest.mark.parametrize("masked", [False, True])
def test_pettingzoo_aec_api(masked, capsys):
    api_test(forest_uav_v0.env(mask_blocked_moves=masked, **SMALL), num_cycles=40)
    assert "Passed" in capsys.readouterr().out


def test_pettingzoo_aec_seed():
    seed_test(lambda: forest_uav_v0.env(**SMALL), num_cycles=20)


def test_the_aec_form_plays_a_whole_episode():
    env = forest_uav_v0.env(**SMALL)
    env.reset(seed=0)
    turns = 0
    for agent in env.agent_iter():
        *_, terminated, truncated, _ = env.last()
        assert not terminated
        env.step(None if truncated else env.action_space(agent).sample())
        turns += not truncated
    assert turns == 12 * 3


def test_observations_with_masks_are_dictionaries():
    env = forest_uav_v0.parallel_env("wooded")
    seen, _ = env.reset(seed=1)
    space = env.observation_space("uav_0")
    assert isinstance(space, gymnasium.spaces.Dict)
    assert space["action_mask"] == gymnasium.spaces.Box(0, 1, (5,), np.int8)
    batch = forest_uav_v0.batched_env(1, "wooded")
    batch.reset(1)
    for n, agent in enumerate(env.agents):
        assert space.contains(seen[agent])
        np.testing.assert_array_equal(seen[agent]["observation"], batch.observe()[0, n])
        np.testing.assert_array_equal(seen[agent]["action_mask"], batch.action_mask()[0, n])


def test_the_parallel_interface_gives_what_the_batch_gives():
    env, batch = forest_uav_v0.parallel_env(**SMALL), forest_uav_v0.batched_env(1, **SMALL)
    seen, infos = env.reset(seed=9)
    batch.reset(9)
    generator = np.random.default_rng(0)
    for t in range(12):
        np.testing.assert_array_equal(np.stack(list(seen.values())), batch.observe()[0])
        np.testing.assert_array_equal(env.state(), batch.state()[0])
        expected = {key: values[0].item() for key, values in batch.info().items()}
        assert infos == dict.fromkeys(env.agents, expected)
        assert env.agents == ["uav_0", "uav_1", "uav_2"]
        row = generator.integers(0, 5, 3)
        transition = batch.step(row[None])
        seen, rewards, terminated, truncated, infos = env.step(dict(zip(env.agents, row, strict=True)))
        assert list(rewards.values()) == transition.rewards[0].tolist()
        assert set(terminated.values()) == {False}
        assert set(truncated.values()) == {t == 11}
    assert env.agents == []
    assert infos["uav_0"]["coverage"] == batch.info()["coverage"][0]  # the last step's infos are kept
    with pytest.raises(ResetNeededError):
        env.step({"uav_0": 0})


def test_resetting_without_a_seed_goes_on_to_the_next_episode():
    env, other = forest_uav_v0.parallel_env(), forest_uav_v0.parallel_env()
    first = env.reset(seed=4)[0]
    second, third = env.reset()[0], env.reset()[0]
    assert not equal(first, second)
    assert not equal(second, third)
    other.reset(seed=4)
    assert equal(other.reset()[0], second)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"uav_1": 5}, "action of uav_1 in env 0: expected an integer from 0 to 4, got 5"),
        ({"uav_2": -1}, "action of uav_2 in env 0: expected an integer from 0 to 4, got -1"),
        ({"uav_2": 1.0}, "action of uav_2: expected an integer from 0 to 4, got 1.0"),
        ({"uav_1": float("nan")}, "action of uav_1: expected an integer from 0 to 4, got nan"),
        ({"uav_0": None}, "action of uav_0: expected an integer from 0 to 4, got None"),
        ({"uav_1": "up"}, "action of uav_1: expected an integer from 0 to 4, got 'up'"),
        ({"uav_2": [0, 1]}, "action of uav_2: expected an integer from 0 to 4, got [0, 1]"),
        ({"uav_1": 2**70}, f"action of uav_1: expected an integer from 0 to 4, got {2**70}"),
        (
            {"uav_3": 0},
            "action of unknown agent 'uav_3' (did you mean 'uav_2'?); allowed: uav_0, uav_1, uav_2",
        ),
        ({"uav_1": "missing", "uav_2": "missing"}, "no action for uav_1, uav_2"),
    ],
)
def test_bad_actions_are_refused_and_change_nothing(change, message):
    env = forest_uav_v0.parallel_env(**SMALL)
    env.reset(seed=0)
    walk(env, 3)
    before = env.get_state()
    actions = {"uav_0": 0, "uav_1": 0, "uav_2": 0} | change
    actions = {agent: action for agent, action in actions.items() if action != "missing"}
    with pytest.raises(InvalidActionError) as caught:
        env.step(actions)
    assert str(caught.value) == message
    assert equal(env.get_state(), before)
    assert env.agents == ["uav_0", "uav_1", "uav_2"]


def test_actions_of_all_agents_with_an_axis_too_many_are_refused():
    env = forest_uav_v0.parallel_env(**SMALL)
    env.reset(seed=0)
    with pytest.raises(
        InvalidActionError, match=r"action of uav_0: expected an integer from 0 to 4, got \[0\]"
    ):
        env.step({agent: [0] for agent in env.agents})
    with pytest.raises(InvalidActionError, match="actions: expected a dictionary by agent, got list"):
        env.step([0, 0, 0])


def test_bad_seeds_are_refused():
    env = forest_uav_v0.parallel_env()
    for seed in (-1, 1.5, "a"):
        with pytest.raises(ValueError, match=r"seeds: expected integers from 0 to 2\*\*64 - 1, got"):
            env.reset(seed=seed)


@pytest.mark.parametrize("copier", [copy.deepcopy, lambda env: pickle.loads(pickle.dumps(env))])
def test_a_copy_is_exact_and_apart(copier):
    env = forest_uav_v0.parallel_env("wooded", render_mode="rgb_array")
    env.reset(seed=2)
    walk(env, 11)
    duplicate = copier(env)
    ahead = walk(env, 30, 5)
    assert _same(ahead, walk(duplicate, 30, 5))
    np.testing.assert_array_equal(env.render(), duplicate.render())


def _same(first, second):
    """Whether two walks gave the same."""
    return len(first) == len(second) and all(
        equal(a, b) for one, other in zip(first, second, strict=True) for a, b in zip(one, other, strict=True)
    )


def test_a_saved_state_continues_in_another_environment():
    env, other = forest_uav_v0.parallel_env(**SMALL), forest_uav_v0.parallel_env(**SMALL)
    env.reset(seed=2)
    walk(env, 5)
    saved = env.get_state()
    ahead = walk(env, 20, 1)
    other.set_state(saved)
    assert other.agents == other.possible_agents
    behind = walk(other, 20, 1)
    assert len(ahead) == len(behind) == 7
    assert _same(ahead, behind)


def test_the_global_generators_are_not_touched():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002  # the global generator is what is watched
    before = random.getstate(), np.random.get_state()  # noqa: NPY002
    env = forest_uav_v0.parallel_env("wooded", render_mode="rgb_array")
    env.reset()
    env.reset(seed=3)
    walk(env, 20)
    env.render()
    after = random.getstate(), np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert all(np.array_equal(a, b) for a, b in zip(before[1], after[1], strict=True))


def test_supersuit_wraps_it():
    env = supersuit.pettingzoo_env_to_vec_env_v1(forest_uav_v0.parallel_env(**SMALL))
    many = supersuit.concat_vec_envs_v1(env, 2, num_cpus=1, base_class="gymnasium")
    observation, _ = many.reset(seed=1)
    assert observation.shape == (6, 153)
    for _ in range(13):  # over the end of an episode
        observation, rewards, *_ = many.step(np.ones(6, int))
    assert observation.shape == (6, 153)
    assert rewards.shape == (6,)
    many.close()


@pytest.mark.parametrize("make", [forest_uav_v0.parallel_env, forest_uav_v0.env])
def test_an_unknown_render_mode_is_refused(make):
    with pytest.raises(ValueError, match="render_mode: expected one of human, rgb_array, ansi, got 'rgb'"):
        make(render_mode="rgb")


def test_a_parallel_environment_is_one_copy():
    from qio_envs.adapters.pettingzoo import BatchedParallelEnv

    with pytest.raises(ValueError, match="num_envs: a PettingZoo environment is a single environment, got 2"):
        BatchedParallelEnv(forest_uav_v0.batched_env(2))


# -- Gymnasium


def test_gymnasium_check_env():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        env = gymnasium.make("qio_envs/ForestUAV-v0", render_mode="rgb_array").unwrapped
        check_env(env)


def test_gymnasium_make_takes_settings():
    env = gymnasium.make("qio_envs/ForestUAV-v0", max_steps=3, mask_blocked_moves=True)
    seen, info = env.reset(seed=0)
    assert seen["action_mask"].shape == (5,)
    assert info["coverage"] == 0
    for t in range(3):
        seen, reward, terminated, truncated, info = env.step(0)
        assert type(reward) is float
        assert (terminated, truncated) == (False, t == 2)
    assert info["team_return"] == 1.0
    with pytest.raises(ResetNeededError):
        env.unwrapped.step(0)


def test_gymnasium_environments_have_one_agent():
    with pytest.raises(
        ValueError, match="forest_uav_v0 has 10 agents here and Gymnasium environments have one"
    ):
        forest_uav_v0.gym_env()
    with pytest.raises(ValueError, match="forest_uav_v0 has 10 agents here"):
        forest_uav_v0.vector_env(4)


@pytest.mark.parametrize("masked", [False, True])
def test_gymnasium_vector_environment_equals_single_ones(masked):
    settings = {"max_steps": 4, "mask_blocked_moves": masked}
    many = gymnasium.make_vec("qio_envs/ForestUAV-v0", num_envs=3, **settings)
    singles = [gymnasium.make("qio_envs/ForestUAV-v0", **settings) for _ in range(3)]
    assert many.metadata["autoreset_mode"] == AutoresetMode.SAME_STEP
    assert many.observation_space == batch_space(singles[0].observation_space, 3)
    assert many.action_space == batch_space(singles[0].action_space, 3)
    rows, infos = many.reset(seed=7)
    own = [single.reset(seed=7 + index) for index, single in enumerate(singles)]
    generator = np.random.default_rng(0)
    for t in range(10):
        assert many.observation_space.contains(rows)
        for index in range(3):
            row = {key: value[index] for key, value in rows.items()} if masked else rows[index]
            assert equal(row, own[index][0])
            assert infos["coverage"][index] == own[index][1]["coverage"]
        actions = generator.integers(0, 5, 3)
        rows, rewards, terminated, truncated, infos = many.step(actions)
        assert rewards.dtype == np.float64
        ended = (t + 1) % 4 == 0
        assert not terminated.any()
        assert (truncated == ended).all()
        assert ("final_obs" in infos) == ended
        own = []
        for index, single in enumerate(singles):
            seen, reward, *_, info = single.step(int(actions[index]))
            assert reward == rewards[index]
            if ended:
                assert equal(infos["final_obs"][index], seen)
                assert infos["final_info"]["team_return"][index] == info["team_return"]
                assert infos["_final_obs"].all()
                seen, info = single.reset()
            own.append((seen, info))


def test_gymnasium_vector_environment_resets_some_environments():
    many = forest_uav_v0.vector_env(3, "solo", max_steps=5)
    many.reset(seed=[1, 2, 3])
    many.step(np.array([1, 1, 1]))
    kept = many.batch.get_state()
    mask = np.array([True, False, False])
    many.reset(options={"reset_mask": mask})
    assert many.batch.arrays.step.tolist() == [0, 1, 1]
    assert many.batch.arrays.episode.tolist() == [1, 0, 0]
    for _ in range(3):
        many.step(np.array([1, 1, 1]))
    *_, truncated, infos = many.step(np.array([1, 1, 1]))  # environments 1 and 2 end, 0 goes on
    assert truncated.tolist() == [False, True, True]
    assert infos["_final_obs"].tolist() == infos["final_info"]["_coverage"].tolist() == [False, True, True]
    assert infos["final_obs"][0] is None
    assert many.batch.arrays.step.tolist() == [4, 0, 0]
    assert kept["step"].tolist() == [1, 1, 1]


def test_gymnasium_vector_environment_takes_a_seed_for_some_environments():
    many, other = forest_uav_v0.vector_env(2, "solo"), forest_uav_v0.vector_env(2, "solo")
    many.reset(seed=[1, 2])
    other.reset(seed=[1, 2])
    rows, _ = many.reset(seed=[5, None])
    assert many.batch.arrays.seed.tolist() == [5, 2]
    assert many.batch.arrays.episode.tolist() == [0, 1]
    np.testing.assert_array_equal(rows[1], other.reset()[0][1])


def test_gymnasium_vector_environment_renders_every_copy():
    many = forest_uav_v0.vector_env(2, "solo", render_mode="rgb_array")
    many.reset(seed=0)
    frames = many.render()
    assert len(frames) == 2
    assert frames[0].shape[2] == 3
    assert (frames[0] != frames[1]).any()
    with pytest.raises(ValueError, match="render_mode: expected rgb_array or None, got 'human'"):
        forest_uav_v0.vector_env(2, "solo", render_mode="human")

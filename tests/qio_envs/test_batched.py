import subprocess
import sys

import numpy as np
import pytest
from toy_envs import Walk, WalkConfig

from qio_envs import forest_uav_v0
from qio_envs.adapters.pettingzoo import BatchedParallelEnv
from qio_envs.api import InvalidActionError, ResetNeededError


def message_of(error, call, *args, **kwargs):
    with pytest.raises(error) as caught:
        call(*args, **kwargs)
    return str(caught.value)


# -- seeds and masks


@pytest.mark.parametrize(
    ("seeds", "message"),
    [
        ([1], "seeds: expected one or 2 integers, got shape (1,)"),
        ([[1, 2]], "seeds: expected one or 2 integers, got shape (1, 2)"),
        ([1, -1], "seeds: expected integers from 0 to 2**64 - 1, got -1"),
        ([1, 2**64], f"seeds: expected integers from 0 to 2**64 - 1, got {2**64}"),
        (2**64 - 1, f"seeds: expected integers from 0 to 2**64 - 1, got {2**64}"),
        ([1, 2.0], "seeds: expected integers from 0 to 2**64 - 1, got 2.0"),
        ([1, None], "seeds: expected integers from 0 to 2**64 - 1, got None"),
        ([1, True], "seeds: expected integers from 0 to 2**64 - 1, got True"),
        (True, "seeds: expected one or 2 integers, got shape ()"),
        (1.5, "seeds: expected one or 2 integers, got shape ()"),
    ],
)
def test_bad_seeds_are_refused_and_change_nothing(seeds, message):
    env = Walk(num_envs=2)
    env.reset(3)
    before = env.get_state()
    assert message_of(ValueError, env.reset, seeds) == message
    for name, array in env.get_state().items():
        np.testing.assert_array_equal(array, before[name])


def test_seeds_may_be_an_integer_a_list_or_an_array():
    one, two, three = Walk(num_envs=2), Walk(num_envs=2), Walk(num_envs=2)
    one.reset(2**63 - 1)
    two.reset([2**63 - 1, 2**63])  # NumPy alone would make floats of these
    three.reset(np.array([2**63 - 1, 2**63], np.uint64))
    assert one.arrays.seed.tolist() == two.arrays.seed.tolist() == three.arrays.seed.tolist()
    assert one.arrays.seed.tolist() == [2**63 - 1, 2**63]


@pytest.mark.parametrize("mask", [[1, 0], [True], np.ones((2, 1), bool), "yes"])
def test_bad_masks_are_refused(mask):
    env = Walk(num_envs=2)
    assert message_of(ValueError, env.reset, 0, mask).startswith("mask: expected bool of shape (2,), got ")


def test_a_masked_reset_leaves_the_other_environments_alone():
    env = Walk(num_envs=3)
    env.reset(0)
    env.step(np.ones((3, 3, 1)))
    before = env.get_state()
    env.reset(mask=np.array([False, True, False]))
    after = env.get_state()
    for name, array in after.items():
        np.testing.assert_array_equal(array[[0, 2]], before[name][[0, 2]], err_msg=name)
    assert after["step"].tolist() == [1, 0, 1]
    assert after["episode"].tolist() == [0, 1, 0]
    assert (after["place"][1] != before["place"][1]).all()


def test_without_a_seed_each_first_reset_draws_another():
    first, second = Walk(num_envs=2), Walk(num_envs=2)
    first.reset()
    second.reset()
    assert len({*first.arrays.seed.tolist(), *second.arrays.seed.tolist()}) == 4


def test_episodes_of_a_seed_differ_and_begin_again_with_it():
    env = Walk()
    env.reset(5)
    first = env.observe()
    env.reset()
    assert (env.observe()[..., 0] != first[..., 0]).any()
    env.reset(5)
    np.testing.assert_array_equal(env.observe(), first)


@pytest.mark.parametrize("num_envs", [0, -1])
def test_there_is_at_least_one_environment(num_envs):
    text = message_of(ValueError, forest_uav_v0.batched_env, num_envs)
    assert text == f"num_envs: expected an integer of at least 1, got {num_envs}"
    with pytest.raises(TypeError):
        forest_uav_v0.batched_env(1.5)


# -- actions


@pytest.mark.parametrize(
    ("action", "message"),
    [
        (5, "action of uav_3 in env 1: expected an integer from 0 to 4, got 5"),
        (-1, "action of uav_3 in env 1: expected an integer from 0 to 4, got -1"),
        (1.0, "actions: expected an integer from 0 to 4 each, got dtype float64"),
        (np.nan, "actions: expected an integer from 0 to 4 each, got dtype float64"),
        ("up", "actions: expected an integer from 0 to 4 each, got dtype <U"),
        (None, "actions: expected an integer from 0 to 4 each, got dtype object"),
    ],
)
def test_bad_discrete_actions_are_refused(action, message):
    env = forest_uav_v0.batched_env(2)
    env.reset(0)
    actions = np.zeros((2, 10), int).tolist()
    actions[1][3] = action
    assert message_of(InvalidActionError, env.step, actions).startswith(message)


def test_actions_of_another_shape_are_refused():
    env = forest_uav_v0.batched_env(2)
    env.reset(0)
    text = message_of(InvalidActionError, env.step, np.zeros((2, 9), int))
    assert text == "actions: expected shape (2, 10), got (2, 9)"


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int32, np.uint64])
def test_any_integer_type_and_layout_will_do(dtype):
    env, other = forest_uav_v0.batched_env(3), forest_uav_v0.batched_env(3)
    env.reset(0)
    other.reset(0)
    actions = np.random.default_rng(0).integers(0, 5, (10, 3))
    env.step(actions.T)
    other.step(np.asfortranarray(actions.T.astype(dtype)))
    np.testing.assert_array_equal(env.observe(), other.observe())


def test_an_unsigned_number_beyond_all_integers_is_refused():
    env = forest_uav_v0.batched_env()
    env.reset(0)
    actions = np.full((1, 10), 2**64 - 1, np.uint64)
    assert "expected an integer from 0 to 4" in message_of(InvalidActionError, env.step, actions)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
def test_continuous_actions_must_be_finite_in_the_type_of_the_space(value):
    env = Walk(num_envs=2)
    env.reset(0)
    before = env.get_state()
    actions = np.zeros((2, 3, 1))
    actions[1, 2] = value
    text = message_of(InvalidActionError, env.step, actions)
    assert text == f"action of walker_2 in env 1: expected finite numbers, got {np.array([value])}"
    np.testing.assert_array_equal(env.get_state()["place"], before["place"])


def test_continuous_actions_are_numbers():
    env = Walk()
    env.reset(0)
    text = message_of(InvalidActionError, env.step, np.zeros((1, 3, 1), str))
    assert text == "actions: expected finite numbers, got dtype <U1"
    text = message_of(InvalidActionError, env.step, np.zeros((1, 3)))
    assert text == "actions: expected shape (1, 3, 1), got (1, 3)"


# -- endings


def test_rows_of_agents_that_have_ended_are_ignored():
    env = Walk(num_envs=2)
    env.reset(0)
    assert env.agents_alive().all()
    first = env.step(np.tile([[[2.0], [0.0], [0.0]]], (2, 1, 1)))
    assert first.terminated.tolist() == [[True, False, False]] * 2
    assert env.agents_alive().tolist() == [[False, True, True]] * 2
    actions = np.full((2, 3, 1), 0.25)
    actions[:, 0] = np.nan
    second = env.step(actions)
    assert np.isfinite(env.observe()).all()
    assert second.rewards.tolist() == [[0, 0.25, 0.25]] * 2
    assert not second.terminated.any()
    actions[:, 1] = np.nan
    with pytest.raises(InvalidActionError, match="walker_1 in env 0"):
        env.step(actions)


def test_some_agents_terminate_while_others_are_truncated():
    env = Walk(WalkConfig(max_steps=2))
    env.reset(0)
    env.step(np.zeros((1, 3, 1)))
    last = env.step(np.array([[[2.0], [0.0], [0.0]]]))
    assert last.terminated.tolist() == [[True, False, False]]
    assert last.truncated.tolist() == [[False, True, True]]
    assert not env.running.any()
    text = message_of(ResetNeededError, env.step, np.zeros((1, 3, 1)))
    assert text == "env 0 of walk_v0 has ended or was never reset: call reset() first"


def test_a_step_before_the_first_reset_is_refused():
    for env in (Walk(num_envs=2), forest_uav_v0.batched_env(2)):
        assert "never reset" in message_of(ResetNeededError, env.step, np.zeros((2, env.num_agents), int))


def test_continuous_actions_have_no_mask():
    assert (
        message_of(TypeError, Walk().action_mask) == "walk_v0 has continuous actions: there is no action mask"
    )


def test_what_a_step_returns_is_the_caller_s_own():
    env = forest_uav_v0.batched_env(2)
    env.reset(0)
    first = env.step(np.ones((2, 10), int))
    observation, running = env.observe(), env.running
    kept = [array.copy() for array in (*first, observation)]
    env.step(np.full((2, 10), 2))
    for array, before in zip((*first, observation), kept, strict=True):
        np.testing.assert_array_equal(array, before)
    running[:] = False
    assert env.running.all()


# -- independence


def test_the_package_is_light_to_import():
    code = (
        "import sys, qio_envs; "
        "print([name for name in ('ray', 'torch', 'numba', 'pygame', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_environment_itself_needs_neither_ray_nor_torch():
    code = (
        "import sys; from qio_envs import forest_uav_v0; forest_uav_v0.parallel_env().reset(seed=0); "
        "print([name for name in ('ray', 'torch', 'pygame', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_parallel_interface_of_agents_that_end_one_by_one():
    env = BatchedParallelEnv(Walk(WalkConfig(max_steps=3)))
    env.reset(seed=0)
    assert env.agents == ["walker_0", "walker_1", "walker_2"]
    seen, rewards, terminated, truncated, infos = env.step(
        {"walker_0": [2.0], "walker_1": [0.0], "walker_2": np.zeros(1)}
    )
    assert (
        set(seen)
        == set(rewards)
        == set(terminated)
        == set(truncated)
        == set(infos)
        == set(env.possible_agents)
    )
    assert terminated == {"walker_0": True, "walker_1": False, "walker_2": False}
    assert env.agents == ["walker_1", "walker_2"]
    assert infos["walker_0"]["place"] == seen["walker_0"][0] > 2
    seen, rewards, terminated, truncated, infos = env.step({"walker_1": [0.25], "walker_2": [0.5]})
    assert rewards == {"walker_1": 0.25, "walker_2": 0.5}
    assert list(seen) == list(infos) == ["walker_1", "walker_2"]
    saved = env.get_state()
    *_, truncated, _ = env.step({"walker_0": [np.nan], "walker_1": [0.0], "walker_2": [0.0]})
    assert truncated == {"walker_1": True, "walker_2": True}
    assert env.agents == []
    env.set_state(saved)
    assert env.agents == ["walker_1", "walker_2"]
    with pytest.raises(
        InvalidActionError, match=r"action of walker_2: expected numbers of shape \(1,\), got 0"
    ):
        env.step({"walker_1": [0.0], "walker_2": 0.0})
    with pytest.raises(InvalidActionError, match="action of walker_1 in env 0: expected finite numbers"):
        env.step({"walker_1": [np.nan], "walker_2": [0.0]})
    with pytest.raises(InvalidActionError, match="no action for walker_2"):
        env.step({"walker_1": [0.0]})

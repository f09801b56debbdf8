"""What runners remember: states, checkpoints, and runners in processes of their own."""

import os
import signal
import time

import numpy as np
import pytest
from toy_lives import Locked
from toy_runners import MASKED, assert_same, config_of, forest, lives, metrics_of, runner_of

from qio_rllib.sampling.vector_env import InvalidSampleError

# -- state --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "make",
    [
        lambda: forest(fragment=5, **MASKED),
        lambda: lives(fragment=4),
        lambda: config_of("CartPole-v1", fragment=9),
        lambda: config_of("Pendulum-v1", fragment=9),
    ],
)
def test_a_restored_runner_goes_on_bit_for_bit(make):
    runner = runner_of(make())
    runner.sample()
    runner.sample()
    state = runner.get_state()
    expected = [runner.sample(), runner.sample()]
    other = runner_of(make().debugging(seed=99))
    other.sample()
    other.set_state(state)
    for rollouts in expected:
        assert_same(rollouts, other.sample())
    one, two = metrics_of(runner), metrics_of(other)
    for key in one:
        if "episode_" in key and "lifetime" not in key:
            assert one[key] == two[key], key


def test_a_state_saved_to_disk_goes_on_bit_for_bit(tmp_path):
    runner = runner_of(forest(fragment=5))
    runner.sample()
    runner.save_to_path(str(tmp_path))
    expected = runner.sample()
    other = runner_of(forest(fragment=5).debugging(seed=99))
    other.restore_from_path(str(tmp_path))
    assert_same(expected, other.sample())
    assert other.num_env_steps_sampled_lifetime == 20


def test_where_pickling_fails_a_restored_runner_starts_new_episodes():
    def env():
        return lives(Locked, fragment=3)

    runner = runner_of(env())
    first = runner.sample()[0].modules["shared"].observations
    state = runner.get_state()
    assert state["sampling"]["stepper"]["env"] is None
    seen = []
    for _ in range(2):
        other = runner_of(env())
        other.set_state(state)
        seen.append(other.sample()[0].modules["shared"].observations)
        assert (other.episodes.lengths == 3).all()
    np.testing.assert_array_equal(seen[0], seen[1])
    assert (seen[0][0] != first[0]).any()  # new ones, not those of the beginning


def test_parts_of_a_state():
    runner = runner_of(forest())
    runner.sample()
    assert set(runner.get_state(components="rl_module")) == {
        "num_env_steps_sampled_lifetime", "rl_module", "weights_seq_no",
    }  # fmt: skip
    assert "rl_module" not in runner.get_state(not_components="rl_module")
    other = runner_of(forest(), worker_index=1)
    second = runner_of(forest(), worker_index=1)
    weights = {k: v + 1 for k, v in runner.get_state()["rl_module"]["shared"].items()}
    fresh = runner_of(forest(), worker_index=1)
    # RLlib gives a runner that it restarted the state of the local one: it keeps random numbers of its own, but not
    # those of the beginning.
    other.set_state(runner.get_state() | {"rl_module": {"shared": weights}, "weights_seq_no": 3})
    steps = "num_env_steps_sampled_lifetime"
    second.set_state({steps: runner.get_state()[steps]})
    for name, value in other.module["shared"].get_state().items():
        np.testing.assert_array_equal(value, weights[name])
    one, two, three = (r.sample()[0].modules["shared"].observations[0] for r in (other, second, fresh))
    np.testing.assert_array_equal(one, two)
    assert (one != three).any()
    # Weights that are older than its own are not taken.
    other.set_state({"rl_module": runner.get_state()["rl_module"], "weights_seq_no": 2})
    np.testing.assert_array_equal(
        next(iter(other.module["shared"].get_state().values())), next(iter(weights.values()))
    )
    assert runner_of(forest(num_envs=3)).get_state()["sampling"]["started"] is False


def test_a_state_of_another_number_of_environments_starts_new_episodes():
    runner = runner_of(forest(num_envs=2))
    runner.sample()
    wider = runner_of(forest(num_envs=3))
    wider.set_state(runner.get_state())
    assert len(wider.sample()[0]) == 3


# -- remote runners -----------------------------------------------------------------------------------------------


def remote(algorithm, function):
    return algorithm.env_runner_group.foreach_env_runner(function, local_env_runner=False)


def episode_returns(runner):
    return list(runner.episodes.finished["episode_return_mean"])


def check_training(algorithm, runners, iteration):
    """Train once; check metrics, and that the runners have the Learner's weights."""
    result = algorithm.train()
    returns = remote(algorithm, episode_returns)
    assert len(returns) == runners
    assert result["env_runners"]["episode_return_mean"] == pytest.approx(
        np.mean([np.mean(r) for r in returns])
    )
    assert result["env_runners"]["episode_return_min"] == min(map(min, returns))
    assert result["env_runners"]["episode_return_max"] == max(map(max, returns))
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] == 40 * iteration
    assert np.isfinite(result["learners"]["shared"]["total_loss"])
    check_weights(algorithm)


def check_weights(algorithm):
    learned = algorithm.learner_group.get_weights()["shared"]
    for weights in remote(algorithm, lambda runner: runner.module["shared"].get_state()):
        for name, value in weights.items():
            np.testing.assert_array_equal(value, learned[name])


@pytest.fixture(scope="module")
def two_runners(ray_runtime):
    config = forest(fragment="auto").env_runners(num_env_runners=2)
    config.training(train_batch_size_per_learner=40, minibatch_size=40)
    algorithm = config.fault_tolerance(delay_between_env_runner_restarts_s=0).build_algo()
    yield algorithm
    algorithm.stop()


@pytest.mark.ray
def test_two_remote_runners_train(two_runners):
    for iteration in (1, 2):
        check_training(two_runners, 2, iteration)


@pytest.mark.ray
def test_a_remote_runner_plays_as_one_at_home(two_runners):
    states = remote(two_runners, lambda runner: runner.get_state())
    found = remote(two_runners, lambda runner: runner.sample())
    for index, (state, rollouts) in enumerate(zip(states, found, strict=True), start=1):
        here = runner_of(two_runners.config, worker_index=index)
        here.set_state(state)
        assert_same(here.sample(), rollouts)
    one, other = (rollouts[0].modules["shared"].actions for rollouts in found)
    assert (one != other).any()


@pytest.mark.ray
def test_an_older_checkpoint_takes_the_place_of_what_remote_runners_have(two_runners, tmp_path):
    checkpoint = two_runners.save_to_path(str(tmp_path))
    before = two_runners.learner_group.get_weights()["shared"]
    two_runners.train()
    two_runners.restore_from_path(checkpoint)
    for name, value in two_runners.learner_group.get_weights()["shared"].items():
        np.testing.assert_array_equal(value, before[name])
    check_weights(two_runners)
    two_runners.train()
    check_weights(two_runners)


@pytest.mark.ray
def test_a_runner_that_is_killed_comes_back_with_the_present_weights(two_runners):
    before = remote(two_runners, lambda runner: os.getpid())
    assert os.getpid() not in before
    os.kill(before[0], signal.SIGKILL)
    deadline = time.monotonic() + 3600  # a new process starts slowly beside other work
    while True:
        result = two_runners.train()
        assert np.isfinite(result["env_runners"]["episode_return_mean"])
        assert np.isfinite(result["learners"]["shared"]["total_loss"])
        after = remote(two_runners, lambda runner: os.getpid())
        if len(after) == 2:
            break
        assert time.monotonic() < deadline
    assert before[0] not in after
    assert before[1] in after
    two_runners.train()
    check_weights(two_runners)


def break_down(runner):
    for env in runner.env.envs:
        env.faults = {"reward": 2}


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_one_remote_runner_trains_and_its_error_reaches_the_driver():
    config = lives(fragment="auto").env_runners(num_env_runners=1)
    config.training(train_batch_size_per_learner=40, minibatch_size=40)
    algorithm = config.build_algo()
    for iteration in (1, 2):
        check_training(algorithm, 1, iteration)
    remote(algorithm, break_down)
    with pytest.raises(InvalidSampleError, match="environment 0, step 2 of its episode: reward of c is nan"):
        algorithm.train()
    algorithm.stop()

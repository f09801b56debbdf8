"""``sampling_lag: 1``: remote runners sample the next round while the Learner updates."""

import pytest
from toy_off_policy import DQNConfig, config_of

from qio_envs.api import ConfigError
from qio_rllib.algorithms.base import _NEXT_ROUND

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]

UPDATES = 4  # 64 steps of a round, a gradient step for 16 of them


def lagging(task="forest", **training):
    config = config_of(task, algorithm=DQNConfig, **{"sampling_lag": 1, **training})
    return config.env_runners(num_env_runners=1)


@pytest.fixture
def watched():
    """An algorithm that says for each update whether runners were sampling meanwhile."""
    algorithm = lagging().build_algo()
    found, learn = [], algorithm.learn

    def learn_and_look(*args, **kwargs):
        found.append(algorithm.env_runner_group.num_in_flight_async_reqs(_NEXT_ROUND))
        learn(*args, **kwargs)

    algorithm.learn = learn_and_look
    yield algorithm, found
    algorithm.stop()


def test_runners_sample_during_updates_and_nothing_is_lost_or_counted_twice(watched):
    algorithm, meanwhile = watched
    lags, kept, sampled = [], [], []
    for _ in range(6):
        algorithm.training_step()
        results = algorithm.metrics.peek("replay")
        lags.append(results.get("policy_lag"))
        kept.append(results["joint_steps"])
        sampled.append(algorithm.env_steps_sampled)
    # One round of 64 steps warms up, the second one is the first to be learned from: 128 steps are asked for.
    assert meanwhile == [1] * 5
    assert lags == [None, 0, UPDATES, UPDATES, UPDATES, UPDATES]
    assert sampled == [64 * round_ for round_ in range(1, 7)]
    assert kept == sampled
    assert algorithm.metrics.peek(("learners", "shared", "updates_lifetime")) == 5 * UPDATES


def test_a_checkpoint_holds_the_round_that_is_being_sampled(watched, tmp_path):
    algorithm, _ = watched
    for _ in range(3):
        algorithm.training_step()
    path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    assert not algorithm.env_runner_group.num_in_flight_async_reqs(_NEXT_ROUND)
    ahead = sum(rollout.env_steps() for rollout in algorithm._ahead)
    assert ahead == 64
    assert len(algorithm.replay) == 192
    other = lagging().build_algo()
    try:
        other.restore_from_path(path)
        assert len(other.replay) == 192
        for one in (algorithm, other):
            one.training_step()
            assert len(one.replay) == 256
            assert one.metrics.peek(("replay", "policy_lag")) == UPDATES
            assert one.env_steps_sampled == 256  # those of the round ahead were counted when it was taken
    finally:
        other.stop()


def test_an_error_in_an_environment_reaches_the_driver():
    config = lagging("pole").environment("toy_broken:Broken", env_config={"fault": "error"})
    algorithm = config.build_algo()
    try:
        for _ in range(3):
            algorithm.training_step()
        with pytest.raises(Exception, match="the arm is stuck"):  # in step 55; a round has 16
            algorithm.training_step()
    finally:
        algorithm.stop()


@pytest.mark.parametrize(
    ("training", "runners", "message"),
    [
        ({}, 0, "sampling_lag: remote runners alone sample while the Learner updates; set num_env_runners"),
        ({"sampling_lag": 2}, 1, "sampling_lag: expected an integer from 0 to 1, got 2"),
        ({"sampling_lag": 0.5}, 1, "sampling_lag: expected an integer, got 0.5"),
    ],
)
def test_bad_settings_are_refused(training, runners, message):
    with pytest.raises(ConfigError, match=message):
        lagging(**training).env_runners(num_env_runners=runners).validate()

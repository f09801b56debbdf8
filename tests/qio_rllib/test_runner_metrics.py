"""What runners report of episodes, and what callbacks are told."""

from collections import Counter

import gymnasium
import numpy as np
import pytest
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from toy_lives import Lives
from toy_runners import config_of, lives, metrics_of, runner_of

from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.episodes import EpisodeRecord
from qio_rllib.sampling.evaluation import evaluate, policy_from_modules
from qio_rllib.sampling.rollout import Rollout
from qio_rllib.sampling.runner import BatchedEnvRunner
from qio_rllib.sampling.vector_env import VectorEnv

# -- metrics ------------------------------------------------------------------------------------------------------


class Schedule(gymnasium.Env):
    """Episode ``i`` lasts ``lengths[i]`` steps and pays ``i`` in each; every third one says when it was found."""

    observation_space = gymnasium.spaces.Box(-1, 1, (1,), np.float32)
    action_space = gymnasium.spaces.Discrete(2)
    lengths = (2, 3, 5, 1, 4)

    def __init__(self):
        self.episode = -1

    def reset(self, *, seed=None, options=None):
        self.episode, self.time = self.episode + 1, 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.time += 1
        over = self.time == self.lengths[self.episode % 5]
        info = {
            "twice": 2 * self.episode,
            "steps_to_find": -1 if self.episode % 3 else 7,
            "name": "x",
            "flag": True,
        }
        return np.zeros(1, np.float32), float(self.episode), over, False, info


def schedule(fragment, **settings):
    register_env("schedule", lambda env_config: Schedule())
    return config_of("schedule", None, 1, fragment).reporting(**settings)


def test_metrics_are_those_computed_by_hand():
    runner = runner_of(schedule(fragment=1, metrics_num_episodes_for_smoothing=2))
    runner.sample()
    metrics = metrics_of(runner)
    assert not any("mean" in key for key in metrics)  # no episode has ended, nothing is NaN
    assert metrics["num_episodes"] == 0
    returns = [i * Schedule.lengths[i % 5] for i in range(12)]
    ends = np.cumsum([Schedule.lengths[i % 5] for i in range(12)])
    for step in range(2, 31):
        runner.sample()
        metrics = metrics_of(runner)
        done = int((ends <= step).sum())
        assert metrics["num_env_steps_sampled"] == 1
        assert metrics["num_env_steps_sampled_lifetime"] == 1
        assert metrics["num_episodes"] == (step in ends)
        assert metrics["num_agent_steps_sampled"] == {"default_agent": 1}
        assert metrics["num_module_steps_sampled"] == {"default_policy": 1}
        last = range(max(0, done - 2), done)
        assert metrics["episode_return_mean"] == np.mean([returns[i] for i in last])
        assert metrics["episode_return_min"] == min(returns[i] for i in last)
        assert metrics["episode_return_max"] == max(returns[i] for i in last)
        assert metrics["episode_len_mean"] == np.mean([Schedule.lengths[i % 5] for i in last])
        assert metrics["twice"] == np.mean([2 * i for i in last])
        assert metrics["steps_to_find"] == 7  # in two of three iterations nobody found it
        assert not {"name", "flag"} & set(metrics)
    assert runner.num_env_steps_sampled_lifetime == 30


def test_metrics_of_agents_and_modules():
    config = lives(fragment=10).multi_agent(policies={"first": ["a"], "rest": ["b", "c"]})
    runner = runner_of(config)
    runner.sample()
    metrics = metrics_of(runner)
    assert metrics["agent_episode_returns_mean"] == {"a": 3, "b": 12, "c": 15}
    assert metrics["module_episode_returns_mean"] == {"first": 3, "rest": 27}
    assert metrics["episode_return_mean"] == 30
    assert metrics["episode_len_mean"] == 5
    assert metrics["time"] == 5
    assert metrics["num_episodes"] == 4
    assert metrics["num_env_steps_sampled"] == 20
    assert metrics["num_agent_steps_sampled"] == {"a": 8, "b": 12, "c": 20}
    assert metrics["num_module_steps_sampled"] == {"first": 8, "rest": 32}


def test_each_environment_has_its_own_account():
    """The second environment is three episodes ahead, so that the two end at different times."""
    ahead = iter((-1, 2))

    def create(env_config):
        env = Schedule()
        env.episode = next(ahead)
        return env

    register_env("two_schedules", create)
    config = config_of("two_schedules", None, 2, 16).reporting(metrics_num_episodes_for_smoothing=100)
    runner = runner_of(config)
    runner.sample()
    first = [i * Schedule.lengths[i % 5] for i in range(5)]  # 15 steps, and one of the next
    second = [i * Schedule.lengths[i % 5] for i in range(3, 9)]  # 16 steps
    metrics = metrics_of(runner)
    assert metrics["num_episodes"] == len(first) + len(second)
    assert metrics["episode_return_mean"] == pytest.approx(np.mean(first + second))
    assert metrics["episode_return_max"] == max(second)
    assert runner.episodes.lengths.tolist() == [1, 0]
    assert runner.episodes.returns[:, 0].tolist() == [5.0, 0.0]


def test_of_several_runners_means_are_averaged_and_counts_are_added():
    """Two runners; the second one plays twice as long, of which the last half counts for the means."""
    logger, found = MetricsLogger(root=True), []
    for index, steps in ((1, 15), (2, 30)):
        config = schedule(fragment=15, metrics_num_episodes_for_smoothing=10)
        config.env_runners(num_env_runners=2).training(train_batch_size_per_learner=30)
        runner = runner_of(config, worker_index=index)
        runner.sample(num_timesteps=steps)
        found.append(runner.get_metrics())
    logger.aggregate(found, key="runners")
    total = logger.peek("runners")
    returns = [[i * Schedule.lengths[i % 5] for i in range(first, first + 5)] for first in (0, 5)]
    assert total["episode_return_mean"] == pytest.approx(np.mean(returns))
    assert total["episode_return_min"] == 0
    assert total["episode_return_max"] == max(returns[1])
    assert total["twice"] == pytest.approx(np.mean([2 * i for i in range(10)]))
    assert total["num_episodes"] == 5 + 10
    assert total["num_env_steps_sampled"] == 45


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
def test_nothing_is_nan_in_any_iteration():
    algorithm = schedule(fragment=1).training(train_batch_size_per_learner=2, minibatch_size=2).build_algo()
    for iteration in range(1, 8):
        result = algorithm.train()["env_runners"]
        numbers = {key: value for key, value in result.items() if isinstance(value, int | float | np.number)}
        assert all(np.isfinite(value) for value in numbers.values()), numbers
        assert result["num_env_steps_sampled_lifetime"] == 2 * iteration
        assert result["num_agent_steps_sampled_lifetime"] == {"default_agent": 2 * iteration}
        assert result["num_episodes_lifetime"] == int((np.cumsum([2, 3, 5, 1, 4]) <= 2 * iteration).sum())
        assert "steps_to_find" in numbers
    algorithm.stop()


# -- callbacks ----------------------------------------------------------------------------------------------------


class Listener(RLlibCallback):
    """Writes down what it is told."""

    def __init__(self):
        self.log = []

    def hear(self, callback, arguments):
        runner = arguments["env_runner"]
        assert isinstance(runner, BatchedEnvRunner)
        assert arguments["metrics_logger"] is runner.metrics
        assert arguments.get("env", runner.env) is runner.env
        episode = arguments.get("episode")
        if episode is not None:
            assert isinstance(episode, EpisodeRecord)
            assert isinstance(arguments["env"], VectorEnv)
            assert arguments["rl_module"] is runner.module
            assert arguments["env_index"] == episode.env_index
        self.log.append((callback, arguments))

    def on_environment_created(self, **arguments):
        self.hear("created", arguments)

    def on_episode_start(self, **arguments):
        self.hear("start", arguments)

    def on_episode_step(self, **arguments):
        self.hear("step", arguments)

    def on_episode_end(self, **arguments):
        self.hear("end", arguments)

    def on_sample_end(self, **arguments):
        self.hear("sample", arguments)


def test_callbacks_hear_what_they_are_promised():
    runner = runner_of(lives(fragment=6).callbacks(Listener))
    (listener,) = runner.callbacks.listeners
    assert [(name, dict(arguments["env_context"])) for name, arguments in listener.log] == [("created", {})]
    rollouts = runner.sample()
    log = listener.log[1:]
    names = [name for name, _ in log]
    assert Counter(names) == {"start": 4, "step": 12, "end": 2, "sample": 1}
    assert names[:4] == ["start", "start", "step", "step"]
    assert names[-7:] == ["end", "end", "start", "start", "step", "step", "sample"]
    records = [arguments["episode"] for name, arguments in log if name == "step"]
    assert [len(record) for record in records[::2]] == [1, 2, 3, 4, 5, 1]
    assert [record.get_return() for record in records[::2]] == [2, 6, 12, 20, 30, 2]
    ends = [arguments["episode"] for name, arguments in log if name == "end"]
    assert [end.env_index for end in ends] == [0, 1]
    for end in ends:
        assert end == EpisodeRecord({"a": 3, "b": 12, "c": 15}, 5, {"time": 5}, end.env_index)
    starts = [arguments["episode"] for name, arguments in log if name == "start"]
    assert all(len(start) == 0 == start.get_return() for start in starts)
    assert log[-1][1]["samples"] is rollouts
    assert all(isinstance(rollout, Rollout) for rollout in rollouts)


def test_callback_functions_hear_and_log():
    returns, samples = [], []

    def at_end(*, episode, metrics_logger, **rest):
        returns.append(episode.get_return())
        metrics_logger.log_value("mine", len(episode), window=1)

    def at_sample(*, env_runner, metrics_logger, samples: list, seen=samples):
        seen.extend(samples)

    runner = runner_of(lives(fragment=5).callbacks(on_episode_end=at_end, on_sample_end=[at_sample]))
    rollouts = runner.sample()
    assert returns == [30, 30]
    assert samples == rollouts
    assert metrics_of(runner)["mine"] == 5


# -- windows and means over agents --------------------------------------------------------------------------------


@pytest.mark.parametrize(("runners", "window"), [(1, 5), (2, 3), (4, 2), (9, 1)])
def test_runners_share_the_window_of_finished_episodes(runners, window):
    config = schedule(fragment=15, metrics_num_episodes_for_smoothing=5)
    config.env_runners(num_env_runners=runners).training(train_batch_size_per_learner=15 * runners)
    runner = runner_of(config, worker_index=1)
    runner.sample(num_timesteps=30)  # ten episodes: each length twice
    returns = [i * Schedule.lengths[i % 5] for i in range(10)]
    metrics = metrics_of(runner)
    assert metrics["episode_return_mean"] == np.mean(returns[-window:])
    assert metrics["twice"] == np.mean([2 * i for i in range(10)][-window:])


class Own(Lives):
    """Each agent tells a number of its own, and one that all share."""

    def step(self, actions):
        seen, rewards, terminated, truncated, infos = super().step(actions)
        numbers = {"a": 1.0, "b": 4.0, "c": 13.0}
        return seen, rewards, terminated, truncated, {a: {"own": numbers[a], "team": 0.1} for a in infos}


def evaluated(config, runner, seeds):
    """Return one row of the runner's policy for each seed."""
    policy = policy_from_modules(dict(runner.module.items()), config)
    return evaluate(policy, config.env, config.env_config, seeds, True)


def test_numbers_of_agents_are_means_over_agents_in_training_and_evaluation():
    config = lives(Own, fragment=5)
    runner = runner_of(config)
    runner.sample()
    metrics = metrics_of(runner)
    (row,) = evaluated(config, runner, [3])
    # In the last step there are b and c.
    assert metrics["own"] == row["own"] == 8.5
    assert metrics["team"] == row["team"] == 0.1


def test_numbers_of_agents_of_a_batch_are_means_over_agents_in_training_and_evaluation():
    settings = {"max_steps": 6, "actions": "discrete"}
    config = config_of("swarm_cooperative_v0", settings, num_envs=1, fragment=6)
    runner = runner_of(config)
    part = runner.sample()[0].modules["shared"]
    expected = part.rewards.sum(axis=0, dtype=np.float64).mean()
    assert metrics_of(runner)["agent_return"] == pytest.approx(expected, rel=1e-5)
    for row in evaluated(config, runner, [3, 4]):
        assert row["agent_return"] == pytest.approx(row["episode_return"] / 3, rel=1e-5)

"""`BatchedEnvRunner`: what it samples, refuses, reports, calls back and remembers."""

import os
import signal
import time
from collections import Counter

import gymnasium
import numpy as np
import pytest
import torch
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig as StockPPOConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core.columns import Columns
from scipy import stats
from toy_lives import Lives, Locked, Masked

from qio_envs.api import ConfigError
from qio_rllib.acting.distributions import Distributions
from qio_rllib.algorithms import PPOConfig
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.episodes import EpisodeRecord
from qio_rllib.sampling.rollout import Rollout
from qio_rllib.sampling.runner import BatchedEnvRunner
from qio_rllib.sampling.vector_env import Copies, InvalidSampleError

FOREST = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 7}
MASKED = {"mask_blocked_moves": True, "obstacle_density": 0.2}


def config_of(env, env_config=None, copies=2, fragment=10, **training):
    return (
        PPOConfig()
        .environment(env, env_config=env_config or {})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=copies, rollout_fragment_length=fragment)
        .training(train_batch_size_per_learner=copies * fragment, minibatch_size=8, num_epochs=1, **training)
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=3)
    )


def forest(copies=2, fragment=10, **env_config):
    return config_of("forest_uav_v0", FOREST | env_config, copies, fragment)


def lives(cls=Lives, copies=2, fragment=12):
    register_env("lives", lambda env_config: cls())
    return config_of("lives", None, copies, fragment)


def faulty(cls=Lives, fragment=12, **faults):
    """Return a runner of two copies of which the second has the faults."""
    runner = runner_of(lives(cls, fragment=fragment))
    runner.copies.envs[1].faults = faults
    return runner


def runner_of(config, **kwargs):
    return BatchedEnvRunner(config=config, **kwargs)


def arrays_of(rollouts):
    for rollout in rollouts:
        for part in rollout.modules.values():
            for name, value in sorted(vars(part).items()):
                if isinstance(value, np.ndarray):
                    yield name, value


def assert_same(one, other):
    for (name, left), (_, right) in zip(arrays_of(one), arrays_of(other), strict=True):
        np.testing.assert_array_equal(left, right, name)


def metrics_of(runner):
    def values(stats):
        if isinstance(stats, dict):
            return {key: values(value) for key, value in stats.items()}
        return float(stats.peek())

    return values(runner.get_metrics())


# -- what is sampled ----------------------------------------------------------------------------------------------


def test_shapes_and_types():
    runner = runner_of(forest(copies=4, **MASKED))
    (rollout,) = runner.sample()
    part = rollout.modules["shared"]
    space = runner.copies.observation_spaces["uav_0"]["observation"]
    expected = {
        "observations": ((11, 4, 3, *space.shape), np.float32),
        "action_mask": ((11, 4, 3, 5), bool),
        "actions": ((10, 4, 3), np.int64),
        "dist_inputs": ((10, 4, 3, 5), np.float32),
        "logp": ((10, 4, 3), np.float32),
        "rewards": ((10, 4, 3), np.float32),
        "terminated": ((10, 4, 3), bool),
        "truncated": ((10, 4, 3), bool),
        "acted": ((10, 4, 3), bool),
        "continues": ((10, 4, 3), bool),
        "slots": ((3,), np.int64),
        "final_index": ((12, 3), np.int64),
        "final_observations": ((12, *space.shape), np.float32),
    }
    assert {name: (a.shape, a.dtype) for name, a in arrays_of([rollout])} == expected
    assert part.agents == ("uav_0", "uav_1", "uav_2")
    assert part.acted.all()
    assert (len(rollout), rollout.env_steps(), rollout.agent_steps()) == (4, 40, 120)
    assert np.take_along_axis(part.action_mask[:-1], part.actions[..., None], -1).all()
    assert not part.action_mask.all()


def test_continuous_actions_are_kept_as_the_module_gave_them():
    runner = runner_of(config_of("Pendulum-v1", {"max_episode_steps": 7}))
    (rollout,) = runner.sample()
    part = rollout.modules["default_policy"]
    assert part.agents == (None,)
    assert (part.actions.shape, part.actions.dtype) == ((10, 2, 1, 1), np.float32)
    assert part.dist_inputs.shape == (10, 2, 1, 2)
    assert np.abs(part.actions).max() > 1  # neither clipped nor scaled to [-2, 2]
    assert part.final_index.tolist() == [[6, 0, 0], [6, 1, 0]]
    runner.stop()


def play_alone(config, part, copy, steps):
    """Replay a copy's actions in a single environment; return observations, and the last one of each episode."""
    from qio_rllib.sampling.environments import make_env

    env = make_env(config.env, config.env_config)
    seeds = np.random.Generator(np.random.Philox(np.random.SeedSequence((config.seed, 0, 0)))).integers(
        2**64, size=part.rewards.shape[1], dtype=np.uint64
    )
    seen, _ = env.reset(seed=int(seeds[copy]))
    observations, finals, rewards = [], {}, []
    for t in range(steps):
        observations.append([seen[agent] for agent in part.agents])
        actions = dict(zip(part.agents, part.actions[t, copy].tolist(), strict=True))
        seen, gains, _, cut, _ = env.step(actions)
        rewards.append([gains[agent] for agent in part.agents])
        if all(cut.values()):
            finals[t] = [seen[agent] for agent in part.agents]
            seen, _ = env.reset()
    observations.append([seen[agent] for agent in part.agents])
    return np.array(observations), finals, np.array(rewards, np.float32)


def test_a_rollout_is_what_the_environment_alone_gives():
    config = forest(copies=3, fragment=16)
    part = runner_of(config).sample()[0].modules["shared"]
    for copy in range(3):
        observations, finals, rewards = play_alone(config, part, copy, 16)
        np.testing.assert_array_equal(part.observations[:, copy], observations)
        np.testing.assert_array_equal(part.rewards[:, copy], rewards)
        assert list(finals) == [6, 13]
        for t, final in finals.items():
            for agent in range(3):
                (row,) = np.flatnonzero((part.final_index == [t, copy, agent]).all(axis=1))
                np.testing.assert_array_equal(part.final_observations[row], final[agent])
                assert (final[agent] != observations[t + 1][agent]).any()  # what follows is another episode


@pytest.mark.parametrize("amplification", [None, {"eta": 0.3, "h_min": 0.2, "tau": 0.9}])
@pytest.mark.parametrize("masks", [{}, MASKED])
def test_stored_logp_is_the_modules(amplification, masks):
    runner = runner_of(forest(**masks).training(amplification=amplification))
    part = runner.sample()[0].modules["shared"]
    rows = torch.from_numpy(part.observations[:-1].reshape(60, -1))
    if masks:
        rows = {"observation": rows, "action_mask": torch.from_numpy(part.action_mask[:-1].reshape(60, -1))}
    with torch.no_grad():
        inputs = runner.module["shared"].forward_inference({Columns.OBS: rows})[Columns.ACTION_DIST_INPUTS]
    np.testing.assert_allclose(part.dist_inputs.reshape(60, -1), inputs, rtol=1e-5, atol=1e-6)
    logp = Distributions(inputs, True).logp(torch.from_numpy(part.actions.reshape(-1)))
    np.testing.assert_allclose(part.logp.reshape(-1), logp, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("masks", [{}, MASKED])
def test_samples_join_without_a_gap(masks):
    """Two samples of 5 steps are one of 10, bit for bit."""
    whole = runner_of(forest(fragment=10, **masks)).sample()[0].modules["shared"]
    runner = runner_of(forest(fragment=5, **masks))
    first, second = (runner.sample()[0].modules["shared"] for _ in range(2))
    np.testing.assert_array_equal(first.observations[-1], second.observations[0])
    for name in ("actions", "rewards", "logp", "truncated"):
        joined = np.concatenate([getattr(first, name), getattr(second, name)])
        np.testing.assert_array_equal(joined, getattr(whole, name), name)
    np.testing.assert_array_equal(second.observations, whole.observations[5:])
    if masks:
        np.testing.assert_array_equal(second.action_mask, whole.action_mask[5:])


def test_seeds_repeat_a_runner_and_tell_runners_apart():
    config = forest()
    first = runner_of(config, worker_index=1).sample()
    assert_same(first, runner_of(config, worker_index=1).sample())
    others = [runner_of(config, worker_index=2), runner_of(forest().debugging(seed=4), worker_index=1)]
    # RLlib adds the index to the seed: this one would be the first runner again.
    others.append(runner_of(forest().debugging(seed=2), worker_index=2))
    for other in others:
        rollout = other.sample()
        for name in ("observations", "actions"):
            one, two = (getattr(r[0].modules["shared"], name) for r in (first, rollout))
            assert (one != two).any(), name


def test_agents_that_are_away_do_not_act():
    part = runner_of(lives()).sample()[0].modules["shared"]
    cycle = [[1, 0, 1], [1, 0, 1], [0, 1, 1], [0, 1, 1], [0, 1, 1]]
    for e in range(2):
        assert part.acted[:, e].astype(int).tolist() == (cycle * 3)[:12]
        assert np.argwhere(part.terminated[:, e]).tolist() == [[1, 0], [4, 1], [6, 0], [9, 1], [11, 0]]
        assert np.argwhere(part.truncated[:, e]).tolist() == [[4, 2], [9, 2]]
    assert part.final_index.tolist() == [[4, 0, 2], [4, 1, 2], [9, 0, 2], [9, 1, 2]]
    assert part.final_observations[:, 1].tolist() == [5] * 4
    np.testing.assert_array_equal(part.final_observations[:, 2], part.actions[[4, 4, 9, 9], [0, 1, 0, 1], 2])


def test_so_many_episodes():
    runner = runner_of(forest(copies=2))
    runner.sample()
    for wanted, steps in ((1, 7), (2, 7), (3, 14), (20, 70)):
        rollouts = runner.sample(num_episodes=wanted)
        ends = sum(rollout.modules["shared"].truncated[:, :, 0].sum() for rollout in rollouts)
        assert ends >= wanted
        assert sum(rollout.modules["shared"].num_steps for rollout in rollouts) == steps
        assert rollouts[0].modules["shared"].truncated[6].all()  # from the start of an episode


def test_so_many_steps():
    runner = runner_of(forest(copies=4))
    assert runner.sample(num_timesteps=9)[0].env_steps() == 12
    assert runner.sample(num_timesteps=2, force_reset=True)[0].env_steps() == 4
    assert runner.sample(num_timesteps=28)[0].modules["shared"].truncated[5].all()  # one step after the reset
    with pytest.raises(ValueError, match="one of them"):
        runner.sample(num_timesteps=1, num_episodes=1)
    with pytest.raises(ValueError, match="at least 1"):
        runner.sample(num_episodes=0)


@pytest.mark.parametrize("by_config", [True, False])
def test_without_exploration_actions_are_the_most_probable(by_config):
    config = forest(**MASKED)
    runner = runner_of(config.env_runners(explore=False) if by_config else config)
    part = runner.sample(**({} if by_config else {"explore": False}))[0].modules["shared"]
    np.testing.assert_array_equal(part.actions, part.dist_inputs.argmax(-1))
    continuous = runner_of(config_of("Pendulum-v1")).sample(explore=False)[0].modules["default_policy"]
    np.testing.assert_array_equal(continuous.actions[..., 0], continuous.dist_inputs[..., 0])


def test_random_actions_are_uniform_over_legal_ones():
    config = forest(copies=16, fragment=60, **MASKED).training(amplification={"eta": 5.0, "h_min": 0.0})
    part = runner_of(config).sample(random_actions=True)[0].modules["shared"]
    mask = part.action_mask[:-1]
    rank = np.take_along_axis(mask.cumsum(-1), part.actions[..., None], -1)[..., 0] - 1
    for legal in (3, 4, 5):
        counts = np.bincount(rank[mask.sum(-1) == legal], minlength=legal)
        assert len(counts) == legal
        assert counts.sum() > 100
        assert stats.chisquare(counts).pvalue > 0.01
    np.testing.assert_allclose(part.logp, -np.log(mask.sum(-1)), rtol=1e-5)


def test_modules_of_different_spaces():
    config = config_of("mpe2.simple_speaker_listener_v4", {"max_cycles": 6})
    rollout = runner_of(config).sample()[0]
    speaker, listener = rollout.modules["speaker_0"], rollout.modules["listener_0"]
    assert (speaker.agents, listener.agents) == (("speaker_0",), ("listener_0",))
    assert speaker.observations.shape == (11, 2, 1, 3)
    assert listener.observations.shape == (11, 2, 1, 11)
    assert (speaker.dist_inputs.shape[-1], listener.dist_inputs.shape[-1]) == (3, 5)
    # The listener hears the word that the speaker said in the step before.
    heard = listener.observations[1:5, :, 0, -3:].argmax(-1)
    np.testing.assert_array_equal(heard, speaker.actions[:4, :, 0])


def test_a_mapping_of_ones_own_gives_each_agent_its_module():
    config = forest(copies=3).multi_agent(policies={"pair": ["uav_2", "uav_0"], "single": ["uav_1"]})
    runner = runner_of(config)
    rollout = runner.sample()[0]
    assert rollout.modules["pair"].agents == ("uav_0", "uav_2")
    assert rollout.modules["single"].agents == ("uav_1",)
    runner = runner_of(forest(copies=3))
    together = runner.sample()[0].modules["shared"]
    for module_id, slots in (("pair", [0, 2]), ("single", [1])):
        part = rollout.modules[module_id]
        np.testing.assert_array_equal(part.observations[0], together.observations[0][:, slots])
        assert len(part.final_index) == 3 * len(slots)


def test_stock_config_with_a_tune_environment_and_its_context():
    def create(context):
        env = gymnasium.make("CartPole-v1", max_episode_steps=context["limit"])
        env.unwrapped.context = context
        return env

    tune.register_env("cart", create)
    config = StockPPOConfig().environment("cart", env_config={"limit": 4})
    config.env_runners(env_runner_cls=BatchedEnvRunner, rollout_fragment_length=9, num_envs_per_env_runner=2)
    runner = runner_of(config, worker_index=2)
    contexts = [env.env.unwrapped.context for env in runner.copies.envs]
    assert [(context.worker_index, dict(context)) for context in contexts] == [(2, {"limit": 4})] * 2
    assert runner.sample()[0].modules["default_policy"].truncated[3].all()


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda c: c.multi_agent(policy_mapping_fn=lambda agent, *_: {"uav_0": "shared"}[agent]),
            r"policy_mapping_fn fails for agent uav_1 \(KeyError: 'uav_1'\)",
        ),
        (
            lambda c: c.multi_agent(
                policy_mapping_fn=lambda agent, *_: "shred" if agent == "uav_2" else "shared"
            ),
            "gives agent uav_2 the module 'shred'; allowed: shared",
        ),
        (lambda c: c.rl_module(model_config={"use_lstm": True}), "module 'shared' is recurrent"),
        (
            lambda c: c.env_runners(env_to_module_connector=lambda env, spaces, device: MeanStdFilter()),
            "env_to_module_connector is not used",
        ),
        (
            lambda c: c.env_runners(module_to_env_connector=lambda env, spaces, device: None),
            "module_to_env_connector is not used",
        ),
        (lambda c: c.env_runners(batch_mode="complete_episodes"), "batch_mode='complete_episodes'"),
    ],
)
def test_what_it_cannot_do_is_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        runner_of(change(forest()))


def test_complete_episodes_are_for_evaluation_only():
    config = forest().env_runners(batch_mode="complete_episodes")
    config.in_evaluation = True
    assert runner_of(config).sample(num_episodes=2)[0].modules["shared"].num_steps == 7


def test_agents_of_different_spaces_cannot_share_a_module():
    config = config_of("mpe2.simple_speaker_listener_v4")
    config.multi_agent(policies={"one"}, policy_mapping_fn=lambda agent, *_: "one")
    with pytest.raises(
        ConfigError, match="speaker_0 and listener_0 share the module 'one', but their observation"
    ):
        runner_of(config)


def test_agents_without_policies_are_refused():
    config = StockPPOConfig().environment(lambda context: Lives()).env_runners(num_env_runners=0)
    with pytest.raises(ConfigError, match="has the agents a, b, c; say who acts"):
        runner_of(config)


@pytest.mark.parametrize(
    ("faults", "cls", "message"),
    [
        ({"observation": 3}, Lives, r"copy 1, step 3 of its episode: observation of c is nan at \[1\]"),
        ({"observation": 0, "value": np.inf}, Lives, r"copy 1, step 0 .* observation of c is inf at \[1\]"),
        ({"observation": 5}, Lives, r"copy 1, step 5 .* observation of c is nan"),  # its last one
        ({"observation": 2, "value": 1e60}, Lives, "copy 1, step 2 .* observation of c is inf"),
        ({"reward": 4}, Lives, "copy 1, step 4 of its episode: reward of c is nan"),
        ({"reward": 1, "value": -np.inf}, Lives, "copy 1, step 1 .* reward of c is -inf"),
        ({"missing": 3}, Lives, "copy 1, step 3 .* observation of c is None"),
        ({"shape": 3}, Lives, r"copy 1, step 3 .* observation of c is .* expected numbers of shape \(3,\)"),
        ({"stuck": 3}, Masked, r"copy 1, step 3 .* action mask of c is \[0 0 0\]"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow", "ignore:invalid value")
def test_what_cannot_be_learned_from_is_refused_by_name(faults, cls, message):
    # In its second episode, in the middle of a rollout.
    class Later(cls):
        episode = -1

        def reset(self, *args, **kwargs):
            self.episode += 1
            return super().reset(*args, **kwargs)

        def happens(self, fault):
            return self.episode == 1 and super().happens(fault)

    runner = faulty(Later, **faults)
    with pytest.raises(InvalidSampleError, match=message):
        runner.sample()


def test_the_episodes_step_is_told_also_across_samples():
    runner = faulty(reward=4, fragment=3)
    runner.sample()
    with pytest.raises(InvalidSampleError, match="step 4 of its episode"):
        runner.sample()


def test_an_error_of_the_environment_reaches_the_caller_and_the_next_sample_starts_anew():
    runner = faulty(raises=3, fragment=2)
    runner.sample()
    with pytest.raises(OSError, match="the simulator is gone"):
        runner.sample()
    part = runner.sample()[0].modules["shared"]
    assert part.observations[:, :, 2, 1].tolist() == [[0, 0], [1, 1], [2, 2]]


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
        assert arguments.get("env", runner.copies) is runner.copies
        episode = arguments.get("episode")
        if episode is not None:
            assert isinstance(episode, EpisodeRecord)
            assert isinstance(arguments["env"], Copies)
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
    (listener,) = runner._callbacks
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
    assert state["sampling"]["copies"] is None
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
    twin = runner_of(forest(), worker_index=1)
    weights = {k: v + 1 for k, v in runner.get_state()["rl_module"]["shared"].items()}
    fresh = runner_of(forest(), worker_index=1)
    # RLlib gives a runner that it restarted the state of the local one: it keeps random numbers of its own, but not
    # those of the beginning.
    other.set_state(runner.get_state() | {"rl_module": {"shared": weights}, "weights_seq_no": 3})
    steps = "num_env_steps_sampled_lifetime"
    twin.set_state({steps: runner.get_state()[steps]})
    for name, value in other.module["shared"].get_state().items():
        np.testing.assert_array_equal(value, weights[name])
    one, two, three = (r.sample()[0].modules["shared"].observations[0] for r in (other, twin, fresh))
    np.testing.assert_array_equal(one, two)
    assert (one != three).any()
    # Weights that are older than its own are not taken.
    other.set_state({"rl_module": runner.get_state()["rl_module"], "weights_seq_no": 2})
    np.testing.assert_array_equal(
        next(iter(other.module["shared"].get_state().values())), next(iter(weights.values()))
    )
    assert runner_of(forest(copies=3)).get_state()["sampling"]["started"] is False


def test_a_state_of_another_number_of_copies_starts_new_episodes():
    runner = runner_of(forest(copies=2))
    runner.sample()
    wider = runner_of(forest(copies=3))
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
def test_a_runner_that_is_killed_comes_back_with_the_present_weights(two_runners):
    before = remote(two_runners, lambda runner: os.getpid())
    assert os.getpid() not in before
    os.kill(before[0], signal.SIGKILL)
    deadline = time.monotonic() + 60
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
    for env in runner.copies.envs:
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
    with pytest.raises(InvalidSampleError, match="copy 0, step 2 of its episode: reward of c is nan"):
        algorithm.train()
    algorithm.stop()

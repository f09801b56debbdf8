"""`BatchedEnvRunner`: what it samples and refuses."""

import gymnasium
import numpy as np
import pytest
import torch
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig as StockPPOConfig
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.connectors.env_to_module import MeanStdFilter
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from scipy import stats
from toy_lives import Lives, Masked
from toy_runners import MASKED, arrays_of, assert_same, config_of, faulty, forest, lives, runner_of

from qio_envs.api import ConfigError
from qio_rllib.acting.distributions import Distributions
from qio_rllib.algorithms.ppo import PPOLearner
from qio_rllib.sampling.environments import make_env
from qio_rllib.sampling.runner import BatchedEnvRunner
from qio_rllib.sampling.streams import generator
from qio_rllib.sampling.vector_env import InvalidSampleError

# -- what is sampled ----------------------------------------------------------------------------------------------


def test_shapes_and_types():
    runner = runner_of(forest(num_envs=4, **MASKED))
    (rollout,) = runner.sample()
    part = rollout.modules["shared"]
    space = runner.env.observation_spaces["uav_0"]["observation"]
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
        "fresh": ((4, 3), bool),
        "agent_index": ((3,), np.int64),
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
    assert part.columns["dist_inputs"].shape == (10, 2, 1, 2)
    assert np.abs(part.actions).max() > 1  # neither clipped nor scaled to [-2, 2]
    assert part.final_index.tolist() == [[6, 0, 0], [6, 1, 0]]
    runner.stop()


def play_alone(config, part, e, steps):
    """Replay actions in a single environment; return observations, the last one of each episode, and rewards."""
    env = make_env(config.env, config.env_config)
    seeds = generator(config.seed, "runner", 0, 0).integers(
        2**64, size=part.rewards.shape[1], dtype=np.uint64
    )
    seen, _ = env.reset(seed=int(seeds[e]))
    observations, finals, rewards = [], {}, []
    for t in range(steps):
        observations.append([seen[agent] for agent in part.agents])
        actions = dict(zip(part.agents, part.actions[t, e].tolist(), strict=True))
        seen, gains, _, cut, _ = env.step(actions)
        rewards.append([gains[agent] for agent in part.agents])
        if all(cut.values()):
            finals[t] = [seen[agent] for agent in part.agents]
            seen, _ = env.reset()
    observations.append([seen[agent] for agent in part.agents])
    return np.array(observations), finals, np.array(rewards, np.float32)


def test_a_rollout_is_what_the_environment_alone_gives():
    config = forest(num_envs=3, fragment=16)
    part = runner_of(config).sample()[0].modules["shared"]
    for e in range(3):
        observations, finals, rewards = play_alone(config, part, e, 16)
        np.testing.assert_array_equal(part.observations[:, e], observations)
        np.testing.assert_array_equal(part.rewards[:, e], rewards)
        assert list(finals) == [6, 13]
        for t, final in finals.items():
            for agent in range(3):
                (row,) = np.flatnonzero((part.final_index == [t, e, agent]).all(axis=1))
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
    np.testing.assert_allclose(part.columns["dist_inputs"].reshape(60, -1), inputs, rtol=1e-5, atol=1e-6)
    logp = Distributions(inputs, True).logp(torch.from_numpy(part.actions.reshape(-1)))
    np.testing.assert_allclose(part.columns["logp"].reshape(-1), logp, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("masks", [{}, MASKED])
def test_samples_join_without_a_gap(masks):
    """Two samples of 5 steps are one of 10, bit for bit."""
    whole = runner_of(forest(fragment=10, **masks)).sample()[0].modules["shared"]
    runner = runner_of(forest(fragment=5, **masks))
    first, second = (runner.sample()[0].modules["shared"] for _ in range(2))
    np.testing.assert_array_equal(first.observations[-1], second.observations[0])
    for name in ("actions", "rewards", "truncated"):
        joined = np.concatenate([getattr(first, name), getattr(second, name)])
        np.testing.assert_array_equal(joined, getattr(whole, name), name)
    for name in ("dist_inputs", "logp"):
        joined = np.concatenate([first.columns[name], second.columns[name]])
        np.testing.assert_array_equal(joined, whole.columns[name], name)
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
    ended = np.argwhere(part.terminated | part.truncated)
    assert part.final_index.tolist() == ended.tolist()
    assert (
        part.final_observations[:, 1].tolist() == (ended[:, 0] % 5 + 1).tolist()
    )  # the step that was the last
    np.testing.assert_array_equal(part.final_observations[:, 2], part.actions[tuple(ended.T)])


def test_so_many_episodes():
    runner = runner_of(forest(num_envs=2))
    runner.sample()
    for wanted, steps in ((1, 7), (2, 7), (3, 14), (20, 70)):
        rollouts = runner.sample(num_episodes=wanted)
        ends = sum(rollout.modules["shared"].truncated[:, :, 0].sum() for rollout in rollouts)
        assert ends >= wanted
        assert sum(rollout.modules["shared"].num_steps for rollout in rollouts) == steps
        assert rollouts[0].modules["shared"].truncated[6].all()  # from the start of an episode


def test_so_many_steps():
    runner = runner_of(forest(num_envs=4))
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
    np.testing.assert_array_equal(part.actions, part.columns["dist_inputs"].argmax(-1))
    continuous = runner_of(config_of("Pendulum-v1")).sample(explore=False)[0].modules["default_policy"]
    np.testing.assert_array_equal(continuous.actions[..., 0], continuous.columns["dist_inputs"][..., 0])


@pytest.mark.parametrize("explore", [None, False])
def test_random_actions_are_uniform_over_legal_ones(explore):
    config = forest(num_envs=16, fragment=60, **MASKED).training(amplification={"eta": 5.0, "h_min": 0.0})
    part = runner_of(config).sample(random_actions=True, explore=explore)[0].modules["shared"]
    mask = part.action_mask[:-1]
    rank = np.take_along_axis(mask.cumsum(-1), part.actions[..., None], -1)[..., 0] - 1
    for legal in (3, 4, 5):
        counts = np.bincount(rank[mask.sum(-1) == legal], minlength=legal)
        assert len(counts) == legal
        assert counts.sum() > 100
        assert stats.chisquare(counts).pvalue > 0.01
    np.testing.assert_allclose(part.columns["logp"], -np.log(mask.sum(-1)), rtol=1e-5)
    inputs = torch.from_numpy(part.columns["dist_inputs"].reshape(-1, 5))
    recorded = Distributions(inputs, True).logp(torch.from_numpy(part.actions.reshape(-1)))
    np.testing.assert_allclose(recorded, part.columns["logp"].reshape(-1), rtol=1e-5)


def test_modules_of_different_spaces():
    config = config_of("mpe2.simple_speaker_listener_v4", {"max_cycles": 6})
    rollout = runner_of(config).sample()[0]
    speaker, listener = rollout.modules["speaker_0"], rollout.modules["listener_0"]
    assert (speaker.agents, listener.agents) == (("speaker_0",), ("listener_0",))
    assert speaker.observations.shape == (11, 2, 1, 3)
    assert listener.observations.shape == (11, 2, 1, 11)
    assert (speaker.columns["dist_inputs"].shape[-1], listener.columns["dist_inputs"].shape[-1]) == (3, 5)
    # The listener hears the word that the speaker said in the step before.
    heard = listener.observations[1:5, :, 0, -3:].argmax(-1)
    np.testing.assert_array_equal(heard, speaker.actions[:4, :, 0])


def test_a_mapping_of_ones_own_gives_each_agent_its_module():
    config = forest(num_envs=3).multi_agent(policies={"pair": ["uav_2", "uav_0"], "single": ["uav_1"]})
    runner = runner_of(config)
    rollout = runner.sample()[0]
    assert rollout.modules["pair"].agents == ("uav_0", "uav_2")
    assert rollout.modules["single"].agents == ("uav_1",)
    runner = runner_of(forest(num_envs=3))
    together = runner.sample()[0].modules["shared"]
    for module_id, index in (("pair", [0, 2]), ("single", [1])):
        part = rollout.modules[module_id]
        np.testing.assert_array_equal(part.observations[0], together.observations[0][:, index])
        assert len(part.final_index) == 3 * len(index)


def test_stock_config_with_a_tune_environment_and_its_context():
    def create(context):
        env = gymnasium.make("CartPole-v1", max_episode_steps=context["limit"])
        env.unwrapped.context = context
        return env

    tune.register_env("cart", create)
    config = StockPPOConfig().environment("cart", env_config={"limit": 4})
    config.env_runners(env_runner_cls=BatchedEnvRunner, rollout_fragment_length=9, num_envs_per_env_runner=2)
    runner = runner_of(config.learners(learner_class=PPOLearner), worker_index=2)
    contexts = [env.env.unwrapped.context for env in runner.env.envs]
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
        (
            lambda c: c.rl_module(
                rl_module_spec=RLModuleSpec(module_class=DefaultPPOTorchRLModule),
                model_config={"use_lstm": True},
            ),
            "DefaultPPOTorchRLModule is recurrent; .* recurrent policies of this package",
        ),
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


def test_a_learner_that_takes_no_rollouts_is_refused():
    config = StockPPOConfig().environment("CartPole-v1").env_runners(env_runner_cls=BatchedEnvRunner)
    with pytest.raises(ConfigError, match="learner_class: PPOTorchLearner cannot learn from the rollouts"):
        runner_of(config, worker_index=1)


def test_agents_without_policies_are_refused():
    config = StockPPOConfig().environment(lambda context: Lives()).env_runners(num_env_runners=0)
    with pytest.raises(ConfigError, match="has the agents a, b, c; say who acts"):
        runner_of(config)


@pytest.mark.parametrize(
    ("faults", "cls", "message"),
    [
        (
            {"observation": 3},
            Lives,
            r"environment 1, step 3 of its episode: observation of c is nan at \[1\]",
        ),
        (
            {"observation": 0, "value": np.inf},
            Lives,
            r"environment 1, step 0 .* observation of c is inf at \[1\]",
        ),
        ({"observation": 5}, Lives, r"environment 1, step 5 .* observation of c is nan"),  # its last one
        ({"observation": 2, "value": 1e60}, Lives, "environment 1, step 2 .* observation of c is inf"),
        ({"reward": 4}, Lives, "environment 1, step 4 of its episode: reward of c is nan"),
        ({"reward": 1, "value": -np.inf}, Lives, "environment 1, step 1 .* reward of c is -inf"),
        ({"missing": 3}, Lives, "environment 1, step 3 .* observation of c is None"),
        (
            {"shape": 3},
            Lives,
            r"environment 1, step 3 .* observation of c is .* expected numbers of shape \(3,\)",
        ),
        ({"stuck": 3}, Masked, r"environment 1, step 3 .* action mask of c is \[0 0 0\]"),
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

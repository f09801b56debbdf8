"""A central value: what it sees, what it learns from, what acting is spared, and what is refused."""

import itertools

import gymnasium
import numpy as np
import pytest
import torch
from pettingzoo import ParallelEnv
from qio_rllib.models.amplified import ACTION_MASK
from qio_rllib.models.central import SLOTS, STATE_ROWS, CentralCritic
from ray import tune
from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.algorithms.ppo import PPO
from ray.rllib.algorithms.ppo import PPOConfig as StockPPOConfig
from ray.rllib.algorithms.ppo.torch.default_ppo_torch_rl_module import DefaultPPOTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.evaluation.postprocessing import Postprocessing
from toy_endings import Endings
from toy_lives import Lives, Masked

from qio_envs.api import ConfigError
from qio_rllib.algorithms import A2CConfig, PPOConfig
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.experiments.experiment import Experiment
from qio_rllib.learners.on_policy import ValueScale
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds, load_policy_from_checkpoint

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]

FOREST, SPREAD = "forest_uav_v0", "mpe2.simple_spread_v3"
SMALL = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 12, "mask_blocked_moves": True}
STATE_OF_SMALL = 4 * 36 + 1
ENDS = {"a": (3, "terminated"), "b": (7, "truncated"), "c": (7, "truncated")}
TAG = {"adversaries": ["adversary_0", "adversary_1", "adversary_2"], "good": ["agent_0"]}


def small_config(env: str = FOREST, config_class=PPOConfig, policies=None, **training):
    sizes = {"train_batch_size_per_learner": 40}
    if config_class is PPOConfig:
        sizes |= {"minibatch_size": 30, "num_epochs": 2, "vf_clip_param": 1e4}
    config = (
        config_class()
        .environment(env, env_config=SMALL if env == FOREST else {})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=20)
        .training(**{"central_value": "state", **sizes, **training})
        .rl_module(model_config={"fcnet_hiddens": [16, 8], "head_fcnet_hiddens": [8]})
        .debugging(seed=0)
    )
    return config.multi_agent(policies=policies) if policies else config


class EndingsWithState(Endings):
    """Says how large its state is."""

    state_space = gymnasium.spaces.Box(0, 100, (1,), np.float32)


@pytest.fixture(autouse=True, scope="module")
def toys(ray_runtime):
    register_env("central_endings", lambda env_config: EndingsWithState(ENDS))
    register_env("central_lives", lambda env_config: Lives())
    register_env("central_masked", lambda env_config: Masked())


def concatenated(critic: CentralCritic, states, observations, slots) -> torch.Tensor:
    """Return the values by the textbook: one long input vector for each row."""
    place = torch.nn.functional.one_hot(slots, critic.widths[2]).float()
    joint = torch.cat([states, observations.flatten(1), place], dim=1)
    return critic.head(critic.rest(critic.first(joint))).squeeze(-1)


# -- the network --------------------------------------------------------------------------------------------------


def critic_and_inputs():
    torch.manual_seed(0)
    critic = CentralCritic(5, 4, 3, gymnasium.spaces.Discrete(2), {"fcnet_hiddens": [16, 8]})
    rows, slots = torch.tensor([0, 0, 1, 1, 1, 0]), torch.tensor([0, 1, 0, 1, 2, 2])
    return critic, torch.randn(2, 5), torch.randn(6, 2, 2), rows, slots


def test_states_that_are_looked_at_once_give_what_long_input_vectors_give():
    critic, states, seen, rows, slots = critic_and_inputs()
    torch.testing.assert_close(
        critic(states, seen, rows, slots), concatenated(critic, states[rows], seen, slots)
    )


def test_a_value_depends_on_the_state_the_observation_and_the_agent():
    critic, states, seen, rows, slots = critic_and_inputs()
    before = critic(states, seen, rows, slots)
    of_state = critic(states + torch.tensor([[1.0], [0.0]]), seen, rows, slots)
    assert ((of_state != before) == (rows == 0)).all()
    assert (critic(states, seen + 1, rows, slots) != before).all()
    assert (critic(states, seen, rows, (slots + 1) % 3) != before).all()


@pytest.mark.parametrize(
    "settings", [{"fcnet_hiddens": [7]}, {"fcnet_use_layernorm": True}, {"fcnet_activation": "relu"}]
)
def test_hidden_layers_are_those_of_the_model_config(settings):
    critic = CentralCritic(5, 4, 3, gymnasium.spaces.Discrete(2), {"fcnet_hiddens": [16, 8], **settings})
    sizes = [layer.out_features for layer in critic.modules() if isinstance(layer, torch.nn.Linear)]
    assert sizes == [*settings.get("fcnet_hiddens", [16, 8]), 1]
    kinds = {type(layer) for layer in critic.rest}
    assert (torch.nn.LayerNorm in kinds) == settings.get("fcnet_use_layernorm", False)
    assert (torch.nn.ReLU in kinds) == (settings.get("fcnet_activation") == "relu")


# -- the configuration --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_order_of_calls_does_not_matter(order):
    config = PPOConfig()
    calls = [
        lambda: config.environment(SPREAD),
        lambda: config.training(central_value="observations", amplification={"eta": 0.3}),
        lambda: config.rl_module(model_config={"fcnet_hiddens": [4]}),
        lambda: config.training(lr=1e-3),
    ]
    for index in order:
        calls[index]()
    config.multi_agent(policies="independent")
    found = config.model_config
    assert config.central_value == found["state_source"] == "observations"
    assert (found["state_size"], found["num_agents"], found["fcnet_hiddens"]) == (54, 3, [4])
    assert found["amplification"]["eta"] == 0.3
    config.validate()


def test_another_environment_is_measured_anew_and_none_takes_all_back():
    config = small_config()
    assert config.model_config["state_size"] == STATE_OF_SMALL
    config.environment(env_config={**SMALL, "height": 5, "num_uavs": 4})
    assert (config.model_config["state_size"], config.model_config["num_agents"]) == (4 * 30 + 1, 4)
    config.training(central_value=None)
    assert config.central_value is None
    assert not {"state_source", "state_size", "num_agents"} & set(config.model_config)


class Nameless(ParallelEnv):
    """Does not say which agents there can be."""

    metadata = {"name": "nameless"}  # noqa: RUF012


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda: small_config(central_value="stat"),
            r"central_value: expected state, observations or None, got 'stat'.*state",
        ),
        (
            lambda: small_config("central_lives"),
            r"central_value: central_lives has no state\(\): take 'observations'",
        ),
        (lambda: small_config("CartPole-v1"), r"central_value: CartPole-v1 has no state\(\)"),
        (
            lambda: (
                register_env("central_nameless", lambda env_config: Nameless())
                or PPOConfig().training(central_value="observations").environment("central_nameless")
            ),
            "central_nameless has no possible_agents; .*central critics need fixed agent slots",
        ),
        (
            lambda: small_config().env_runners(env_runner_cls=None).validate(),
            "env_runner_cls: central_value needs BatchedEnvRunner, which records states, got None",
        ),
        (
            lambda: (
                small_config(central_value=None, normalize_values=True)
                .env_runners(env_runner_cls=None)
                .validate()
            ),
            "env_runner_cls: normalize_values needs BatchedEnvRunner, got None",
        ),
        (
            lambda: small_config().rl_module(model_config={"vf_share_layers": True}).validate(),
            "vf_share_layers: a central value has a network of its own",
        ),
        (
            lambda: small_config(use_critic=False).validate(),
            "use_critic: false leaves nothing to learn a central value with",
        ),
        (
            lambda: PPOConfig().training(central_value="state").environment(gymnasium.Env).validate(),
            "central_value: set the environment by name",
        ),
        (
            lambda: small_config().rl_module(model_config={"use_lstm": True}).build_algo(),
            "use_lstm: a central value network has no memory",
        ),
        (
            lambda: (
                small_config(SPREAD)
                .rl_module(rl_module_spec=RLModuleSpec(module_class=DefaultPPOTorchRLModule))
                .build_algo()
            ),
            "rl_module_spec: central_value needs a module with CentralValue, .*'shared' is a DefaultPPOTorch",
        ),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(change, message):
    with pytest.raises(ConfigError, match=message) as caught:
        change()
    assert "\n" not in str(caught.value)


def test_a_file_says_it_in_one_line():
    def config_of(value):
        values = {"run": "PPO", "env": SPREAD, "stop": {"training_iteration": 1}}
        return Experiment.from_mapping({**values, "config": {"central_value": value}}).algorithm_config()

    assert config_of("state").model_config["state_size"] == 54
    assert config_of(None).central_value is None
    with pytest.raises(ConfigError, match=r"config.central_value: expected state or observations or null"):
        config_of("obs")


# -- what the runner records --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "env", ["central_lives", "central_masked", FOREST, "mpe2.simple_speaker_listener_v4"]
)
def test_joined_observations_are_those_of_all_modules_and_zeros_for_the_dead(env):
    policies = "shared" if env == FOREST else "independent"
    algorithm = small_config(env, central_value="observations", policies=policies).build_algo()
    for _ in range(2):  # the second goes on from the last state of the first
        (rollout,) = algorithm.env_runner.sample()
        parts = rollout.modules.values()
        living = [np.where(part.acted[..., None], part.observations[:-1], 0) for part in parts]
        expected = np.concatenate([seen.reshape(20, 2, -1) for seen in living], axis=-1)
        for part in parts:
            assert part.states.shape[0] == 21
            np.testing.assert_array_equal(part.states[:-1], expected)
            assert len(part.final_states) == len(part.final_index)
    algorithm.stop()


def test_states_are_the_environments_own_also_at_the_end_of_an_episode():
    algorithm = small_config("central_endings", policies="independent").build_algo()
    (rollout,) = algorithm.env_runner.sample()
    part = rollout.modules["b"]
    np.testing.assert_array_equal(part.states[:, 0, 0], np.arange(21) % 7)
    np.testing.assert_array_equal(part.final_states, np.full((4, 1), 7.0))  # two episodes of two copies
    assert not len(rollout.modules["a"].final_states)  # it terminates
    algorithm.stop()


class Relay(Lives):
    """Agent ``a`` is cut in step 2, in which ``b`` comes."""

    def step(self, actions):
        seen, rewards, terminated, truncated, infos = super().step(actions)
        if self.time == 2:
            terminated["a"], truncated["a"] = False, True
        return seen, rewards, terminated, truncated, infos


def test_the_last_state_of_a_cut_agent_holds_those_that_have_just_come():
    register_env("central_relay", lambda env_config: Relay())
    config = small_config("central_relay", central_value="observations", policies="independent")
    algorithm = config.build_algo()
    (rollout,) = algorithm.env_runner.sample()
    part = rollout.modules["a"]
    assert len(part.final_index) == 2 * 4  # an episode has five steps
    for (step, copy, _), state in zip(part.final_index, part.final_states, strict=True):
        a, b, c = state.reshape(3, 3)
        assert [seen[1] for seen in (a, b, c)] == [2, 2, 2]
        np.testing.assert_array_equal(state[3:], part.states[step + 1, copy][3:])
    algorithm.stop()


# -- credit -------------------------------------------------------------------------------------------------------

CASES = {
    "masks": (FOREST, "state", None),
    "spread": (SPREAD, "state", None),
    "different ends": ("central_endings", "state", "independent"),
    "come and go": ("central_lives", "observations", "independent"),
    "one module, come and go": ("central_masked", "observations", "shared"),
    "speaker and listener": ("mpe2.simple_speaker_listener_v4", "observations", "independent"),
    "tag": ("mpe2.simple_tag_v3", "state", TAG),
}


def textbook_targets(critic: CentralCritic, part, gamma: float, lambda_: float) -> np.ndarray:
    """Return advantage + value of every step in which an agent acted, by plain loops and long input vectors."""
    final = {
        tuple(index): (seen, state)
        for index, seen, state in zip(
            part.final_index, part.final_observations, part.final_states, strict=True
        )
    }

    def value(state, seen, m):
        with torch.no_grad():
            rows = torch.from_numpy(state)[None], torch.from_numpy(np.asarray(seen))[None]
            return float(concatenated(critic, *rows, torch.tensor([part.slots[m]])))

    targets = np.zeros_like(part.rewards)
    for e, m in np.ndindex(part.rewards.shape[1:]):
        carried = 0.0
        for t in reversed(range(part.num_steps)):
            if not part.acted[t, e, m]:
                continue
            here = value(part.states[t, e], part.observations[t, e, m], m)
            if part.terminated[t, e, m]:
                ahead = carried = 0.0
            elif part.truncated[t, e, m]:
                seen, state = final[t, e, m]
                ahead, carried = value(state, seen, m), 0.0
            else:
                ahead = value(part.states[t + 1, e], part.observations[t + 1, e, m], m)
            carried = part.rewards[t, e, m] + gamma * ahead - here + gamma * lambda_ * carried
            targets[t, e, m] = carried + here
    return targets[part.acted]


@pytest.mark.parametrize("case", CASES)
def test_value_targets_equal_the_textbooks_and_every_part_learns(case):
    env, source, policies = CASES[case]
    config = small_config(env, central_value=source, policies=policies, gamma=0.9, lambda_=0.8)
    algorithm = config.build_algo()
    learner = algorithm.learner_group._learner
    (rollout,) = algorithm.env_runner.sample(num_timesteps=60)
    cut = 0
    for module_id, part in rollout.modules.items():
        critic = learner.module[module_id].vf
        table = learner._state_table(module_id, [part])
        assert table.data_ptr() == part.states.__array_interface__["data"][0]  # no copy
        batch = learner._credited(module_id, [part], table)
        np.testing.assert_allclose(
            batch[Postprocessing.VALUE_TARGETS],
            textbook_targets(critic, part, 0.9, 0.8),
            rtol=2e-4,
            atol=2e-4,
        )
        cut += len(part.final_index)
        assert (ACTION_MASK in batch) == (part.action_mask is not None)
    assert cut  # there was something to continue
    before = {
        module_id: {name: value.clone() for name, value in learner.module[module_id].state_dict().items()}
        for module_id in rollout.modules
    }
    learner.update(episodes=[rollout], num_epochs=1, minibatch_size=10)
    for module_id, weights in before.items():
        for name, moved in learner.module[module_id].state_dict().items():
            if name.endswith("weight"):
                assert not torch.equal(weights[name], moved), (module_id, name)
    algorithm.stop()


def test_rollouts_of_several_runners_have_one_table():
    algorithm = small_config("central_lives", central_value="observations", policies="shared").build_algo()
    learner = algorithm.learner_group._learner
    parts = [algorithm.env_runner.sample(num_timesteps=n)[0].modules["shared"] for n in (20, 30)]
    table = learner._state_table("shared", parts)
    assert table.shape == (2 * 11 + 2 * 16, 9)
    batch = learner._credited("shared", parts, table)
    expected = np.concatenate([part.observations[:-1][part.acted] for part in parts])
    np.testing.assert_array_equal(batch[Columns.OBS], expected)
    for row in range(0, len(expected), 7):
        state = table[batch[STATE_ROWS][row]].reshape(3, 3)
        np.testing.assert_array_equal(state[batch[SLOTS][row]], batch[Columns.OBS][row])
    algorithm.stop()


# -- gradients ----------------------------------------------------------------------------------------------------


def gradients_of(monkeypatch, choose) -> tuple[dict[str, torch.Tensor | None], CentralCritic]:
    """Return the gradients that one step of a chosen loss leaves behind."""
    algorithm = small_config(grad_clip=None).build_algo()
    learner = algorithm.learner_group._learner
    (rollout,) = algorithm.env_runner.sample()
    part = rollout.modules["shared"]
    table = learner._state_table("shared", [part])
    batch = {name: rows[5:60] for name, rows in learner._credited("shared", [part], table).items()}
    module = learner.module["shared"]
    expected = concatenated(module.vf, table[batch[STATE_ROWS]], batch[Columns.OBS], batch[SLOTS])

    def loss(module_id, config, batch, policy, values):
        torch.testing.assert_close(values, expected)
        return choose(policy, values), {}

    monkeypatch.setattr(learner, "rollout_loss", loss)
    learner._step("shared", learner.config.get_config_for_module("shared"), batch, table)
    algorithm.stop()
    return {name: parameter.grad for name, parameter in module.named_parameters()}, module.vf


def test_the_value_loss_reaches_every_part_of_the_critic_and_nothing_of_the_actor(monkeypatch):
    gradients, critic = gradients_of(monkeypatch, lambda policy, values: (values**2).mean())
    for name, gradient in gradients.items():
        if name.startswith("vf."):
            assert gradient.abs().sum() > 0, name
        else:
            assert gradient is None or not gradient.any(), name
    for part in gradients["vf.first.weight"].split(critic.widths, dim=1):
        assert part.abs().sum() > 0


def test_the_policy_loss_leaves_the_critic_alone(monkeypatch):
    gradients, _ = gradients_of(monkeypatch, lambda policy, values: policy.entropy().mean())
    assert all((value is None) == name.startswith("vf.") for name, value in gradients.items())


# -- standardised values ------------------------------------------------------------------------------------------


def test_a_new_scale_leaves_the_estimates_as_they_were_but_for_the_first():
    torch.manual_seed(0)
    layer, inputs, scale = torch.nn.Linear(4, 1), torch.randn(9, 4), ValueScale()
    first = layer(inputs).detach()
    scale.update(-20.0, 409.0, layer)
    assert (scale.mean, scale.deviation) == (pytest.approx(-20.0), pytest.approx(3.0))
    torch.testing.assert_close(layer(inputs), first, rtol=0, atol=0)
    before = layer(inputs).detach() * scale.deviation + scale.mean
    scale.update(-10.0, 104.0, layer)
    mean, square = (-20.0 * 0.99 - 10.0) / 1.99, (409.0 * 0.99 + 104.0) / 1.99  # the debiased running moments
    assert scale.mean == pytest.approx(mean)
    assert scale.deviation == pytest.approx((square - mean**2) ** 0.5)
    torch.testing.assert_close(layer(inputs) * scale.deviation + scale.mean, before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("central_value", ["state", None])
def test_standardised_targets_are_learned_and_estimates_stay_in_units_of_reward(central_value):
    config = small_config(SPREAD, central_value=central_value, normalize_values=True, lr=1e-6)
    algorithm = config.build_algo()
    metrics = algorithm.train()["learners"]["shared"]
    mean, deviation = metrics["value_mean"], metrics["value_deviation"]
    assert mean < -1
    assert metrics["vf_loss"] == pytest.approx(1.0, abs=0.5)  # of targets with mean 0 and deviation 1
    learner = algorithm.learner_group._learner
    assert learner.get_state()["value_scales"]["shared"]["mean"] == pytest.approx(mean)
    (rollout,) = algorithm.env_runner.sample()
    part = rollout.modules["shared"]
    table = learner._state_table("shared", [part])
    targets = learner._credited("shared", [part], table)[Postprocessing.VALUE_TARGETS]
    assert abs(float(targets.mean()) - mean) < 3 * deviation
    algorithm.stop()


# -- algorithms, checkpoints, policies ----------------------------------------------------------------------------


def test_acting_needs_no_critic(tmp_path):
    algorithm = small_config().build_algo()
    algorithm.train()
    runner = algorithm.env_runner.module["shared"]
    assert not any("vf" in name or "critic" in name for name in runner.state_dict())
    learner = algorithm.learner_group._learner.module["shared"]
    assert any(name.startswith("vf.first") for name in learner.state_dict())
    for name, values in runner.state_dict().items():
        torch.testing.assert_close(values, learner.state_dict()[name], rtol=0, atol=0)
    path = algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.stop()
    policy = load_policy_from_checkpoint(path)
    loaded = load_policy(save_policy(policy, tmp_path / "policy.pt"))
    for explore in (False, True):
        rows = [evaluate(p, FOREST, SMALL, evaluation_seeds(3), explore) for p in (policy, loaded)]
        assert rows[0] == rows[1]


def test_evaluation_scores_it():
    algorithm = small_config().evaluation(evaluation_interval=1, evaluation_duration=2).build_algo()
    assert np.isfinite(algorithm.train()["evaluation"]["greedy"]["episode_return"])
    algorithm.stop()


def test_rllibs_own_ppo_takes_it_as_a_plain_mapping(tmp_path):
    settings = small_config(SPREAD).to_dict()
    algorithm = PPO(config=settings)
    assert type(algorithm.config) is StockPPOConfig
    module = algorithm.learner_group._learner.module["shared"]
    assert module.has_central_value
    before = module.vf.first.weight.detach().clone()
    algorithm.train()
    for part in (module.vf.first.weight - before).split(module.vf.widths, dim=1):
        assert part.any()
    algorithm.stop()


def test_tune_runs_it(tmp_path):
    analysis = tune.run(
        "PPO",
        config=small_config(SPREAD),
        stop={"training_iteration": 1},
        storage_path=str(tmp_path),
        verbose=0,
    )
    assert np.isfinite(analysis.trials[0].last_result["learners"]["shared"]["vf_loss"])


@pytest.mark.parametrize("config_class", [PPOConfig, A2CConfig])
def test_a_resumed_run_equals_an_uninterrupted_one(config_class, tmp_path):
    def losses(algorithm, count):
        return [algorithm.train()["learners"]["shared"]["total_loss"] for _ in range(count)]

    config = small_config(config_class=config_class, normalize_values=True)
    config.reporting(min_sample_timesteps_per_iteration=40)
    whole = config.copy(copy_frozen=False).build_algo()
    expected = losses(whole, 4)
    whole.stop()
    first = config.copy(copy_frozen=False).build_algo()
    assert losses(first, 2) == expected[:2]
    path = first.save_to_path(str(tmp_path / "checkpoint"))
    first.stop()
    second = Algorithm.from_checkpoint(path)
    assert losses(second, 2) == expected[2:]
    second.stop()


def test_remote_runners_and_learners_share_the_work():
    config = small_config(train_batch_size_per_learner=20, minibatch_size=20, normalize_values=True)
    config.env_runners(num_env_runners=1).learners(num_learners=2)
    algorithm = config.build_algo()
    before = algorithm.learner_group.get_weights()["shared"]
    mean = algorithm.train()["learners"]["shared"]["value_mean"]

    def weights_and_scale(learner):
        module = learner.module["shared"].unwrapped()
        weights = {name: value.detach().numpy().copy() for name, value in module.named_parameters()}
        return weights, learner.get_state()["value_scales"]["shared"]

    found = algorithm.learner_group.foreach_learner(weights_and_scale)
    (first, scale), (second, other) = (entry.get() for entry in found)
    assert scale == other
    assert scale["mean"] == pytest.approx(mean)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])
        assert name not in before or (values != before[name]).any()
    assert any(name.startswith("vf.") for name in first)
    algorithm.stop()


def test_rollouts_without_states_are_refused():
    algorithm = small_config().build_algo()
    learner = algorithm.learner_group._learner
    (rollout,) = algorithm.env_runner.sample()
    rollout.modules["shared"].states = None
    with pytest.raises(ConfigError, match="central_value: the rollouts of module 'shared' have no states"):
        learner.update(episodes=[rollout])
    with pytest.raises(ConfigError, match="central_value: there are no states in the batch"):
        learner.module["shared"].compute_values({Columns.OBS: torch.zeros(1, 3)})
    algorithm.stop()

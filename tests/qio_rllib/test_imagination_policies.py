"""Imagination-augmented policies: what they imagine, what learns from what, acting, runs, and what is refused."""

import itertools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import gymnasium
import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from toy_runners import config_of as toy_config_of
from toy_runners import learner_of, lives, runner_of

from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import ActorInputs, NetworkActor
from qio_rllib.algorithms import A2CConfig, PPOConfig
from qio_rllib.algorithms.ppo import PPOLearner
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.cli import main
from qio_rllib.experiments.experiment import Experiment, load_experiment
from qio_rllib.learners.imagination import MODEL, experience_of, fit, imagination_of
from qio_rllib.models.actor_critic import INPUTS, ActorCritic, ModuleInputs
from qio_rllib.models.imagination import Experience, Imagination, ImaginationSettings, Shape
from qio_rllib.models.values import CentralInputs
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds, load_policy_from_checkpoint, mean_scores

ROOT = Path(__file__).parents[2]
TINY = {
    "horizon": 3, "members": 2, "model_hiddens": [7], "policy_hiddens": [5], "encoder_hiddens": [6, 4],
    "model_batch_size": 16,
}  # fmt: skip
BOX, DISCRETE = gymnasium.spaces.Box(-1, 1, (3,), np.float32), gymnasium.spaces.Discrete(4)
CONTINUOUS = gymnasium.spaces.Box(-1, 1, (2,), np.float32)
spaces = pytest.mark.parametrize("actions", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
encoders = pytest.mark.parametrize("encoder", ["mlp", "gru"])


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def module_of(actions=DISCRETE, observations=BOX, settings=None, **model_config):
    torch.manual_seed(0)
    settings = TINY if settings is None else settings
    return ActorCritic(
        observation_space=observations,
        action_space=actions,
        model_config={"fcnet_hiddens": [8], "imagination": settings, **model_config},
    )


def experience(imagination, rows=200, seed=0):
    """Return steps of simple dynamics: ``o' = o + 0.5 B a``, ``r = -|o'|^2``; it ends where ``o'_0 > 1``."""
    draws = torch.Generator().manual_seed(seed)
    obs = 2 * torch.rand(rows, 3, generator=draws) - 1
    size = imagination.num_actions
    if imagination.is_discrete:
        actions = torch.nn.functional.one_hot(torch.randint(size, (rows,), generator=draws), size).float()
        targets = torch.softmax(torch.stack([obs[:, 0], -obs[:, 0], obs[:, 1], obs[:, 2]], 1), -1)
    else:
        actions = 2 * torch.rand(rows, size, generator=draws) - 1
        targets = -obs[:, :size]
    push = torch.linspace(-1, 1, 3 * size).reshape(size, 3)
    following = obs + 0.5 * actions @ push
    ended = (following[:, 0] > 1).float()
    return Experience(obs, actions, -(following**2).sum(-1), following, ended, targets)


def experienced(imagination):
    """Take in scales that are far from 0 and 1."""
    imagination.take_in(experience(imagination)._replace(rewards=3 + 2 * torch.randn(200)))
    return imagination


# -- what is imagined ---------------------------------------------------------------------------------------------


def layers(parameters, prefix, rows, activation, last=False):
    """Apply the linear layers of a state dictionary; the last one without activation."""
    names = sorted(key for key in parameters if key.startswith(prefix) and key.endswith("weight"))
    for number, name in enumerate(names):
        rows = parameters[name] @ rows + parameters[name.replace("weight", "bias")]
        if not (last and number == len(names) - 1):
            rows = activation(rows)
    return rows


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def imagined_by_hand(parameters, obs, discrete, rollouts, horizon):
    """Return the steps of the rollouts of one observation, ``[R, H, C]``, in NumPy."""
    p = {key.removeprefix("policy.imagination."): value for key, value in parameters.items()}

    def scale(name):
        mean = p[f"model.{name}.mean"]
        return mean, np.maximum(np.sqrt(p[f"model.{name}.squares"] / p[f"model.{name}.count"]), 1e-3)

    (in_mean, in_dev), (out_mean, out_dev) = scale("input_scale"), scale("target_scale")
    size = len(obs)

    def act(state):
        found = layers(p, "rollout_policy.", (state - in_mean[:size]) / in_dev[:size], np.tanh, last=True)
        return np.eye(len(found))[found.argmax()] if discrete else found.clip(-1, 1)

    found = []
    for r in range(rollouts):
        action = act(obs) if not discrete and r == 0 else p["first_actions"][r]
        state, reach, steps = obs, 1.0, []
        for _ in range(horizon):
            row = (np.concatenate([state, action]) - in_mean) / in_dev
            means, goes_on = [], []
            for k in range(p["model.networks.layers.0.weight"].shape[0]):
                hidden = (
                    row @ p["model.networks.layers.0.weight"][k] + p["model.networks.layers.0.bias"][k, 0]
                )
                hidden = hidden * sigmoid(hidden)
                out = (
                    hidden @ p["model.networks.layers.2.weight"][k] + p["model.networks.layers.2.bias"][k, 0]
                )
                means.append(out[: size + 1])
                goes_on.append(sigmoid(out[-1]))
            target = np.mean(means, 0) * out_dev + out_mean
            state, reach = state + target[:size], reach * np.mean(goes_on)
            seen = (state - in_mean[:size]) / in_dev[:size]
            reward = (target[-1] - out_mean[-1]) / out_dev[-1]
            assert max(abs(seen).max(), abs(reward)) < 10
            steps.append(np.concatenate([seen, action, [reward, reach]]))
            action = act(state)
        found.append(steps)
    return np.array(found)


def encoded_by_hand(p, prefix, steps, encoder):
    """Return the features of rollouts ``[R, H, C]``."""
    found = []
    for rollout in steps:
        if encoder == "mlp":
            found.append(layers(p, f"{prefix}.layers.", rollout.reshape(-1), np.tanh))
            continue
        state = np.zeros(4)
        for step in rollout[::-1]:
            row = layers(p, f"{prefix}.layers.", step, np.tanh)
            i = np.split(p[f"{prefix}.cell.weight_ih"] @ row + p[f"{prefix}.cell.bias_ih"], 3)
            h = np.split(p[f"{prefix}.cell.weight_hh"] @ state + p[f"{prefix}.cell.bias_hh"], 3)
            reset, update = sigmoid(i[0] + h[0]), sigmoid(i[1] + h[1])
            state = (1 - update) * np.tanh(i[2] + reset * h[2]) + update * state
        found.append(state)
    return np.mean(found, 0)


@spaces
@encoders
def test_features_are_those_that_numpy_gives(actions, encoder):
    module = module_of(actions, settings={**TINY, "encoder": encoder})
    experienced(module.policy.imagination)
    p = {key: value.double().numpy() for key, value in module.state_dict().items()}
    rows = torch.randn(6, 3)
    seen = module.policy.perceived(rows)
    shape = module.policy.imagination.shape
    assert shape == ((4 if actions is DISCRETE else 5), 3, 3 + (4 if actions is DISCRETE else 2) + 2)
    assert seen.shape == (6, 3 + shape.size)
    features, _ = module.policy.features(seen, None)
    values = module.compute_values({Columns.OBS: rows})
    for row, whole, feature, value in zip(rows, seen, features, values, strict=True):
        obs = row.double().numpy()
        steps = imagined_by_hand(p, obs, actions is DISCRETE, *shape[:2])
        np.testing.assert_allclose(whole[3:].numpy(), steps.reshape(-1), atol=2e-4)
        by_part = {}
        for part in ("policy", "value"):
            own = layers(p, f"{part}.encoder.model_free.", obs, np.tanh)
            pooled = encoded_by_hand(p, f"{part}.encoder.rollouts", steps, encoder)
            by_part[part] = np.concatenate([own, pooled])
        np.testing.assert_allclose(feature.detach().numpy(), by_part["policy"], atol=2e-4)
        expected = layers(p, "value.head.", by_part["value"], np.tanh, last=True)
        np.testing.assert_allclose(value.item(), expected[0], atol=2e-4)
    # leading axes do not matter
    torch.testing.assert_close(module.policy.perceived(rows.reshape(2, 3, 3)), seen.reshape(2, 3, -1))


def test_discrete_rollouts_begin_with_each_action_and_continuous_ones_apart():
    module = module_of(DISCRETE)
    steps = module.policy.imagination(torch.randn(5, 3)).reshape(5, *module.policy.imagination.shape)
    assert torch.equal(steps[:, :, 0, 3:7], torch.eye(4).expand(5, 4, 4))
    assert torch.equal(steps[..., 3:7].sum(-1), torch.ones(5, 4, 3))  # one-hot in every step
    module = module_of(CONTINUOUS, settings={**TINY, "rollouts": 9})
    steps = module.policy.imagination(torch.randn(5, 3)).reshape(5, *module.policy.imagination.shape)
    first = steps[:, :, 0, 3:5]
    assert not torch.equal(first[0, 0], first[1, 0])  # the rollout policy's
    assert torch.equal(first[:, 1:], first[:1, 1:].expand(5, -1, -1))
    assert first.abs().max() <= 1
    assert min((a - b).norm() for a, b in itertools.combinations(first[0, 1:], 2)) > 0.1


def test_what_leads_far_away_is_cut():
    imagination = module_of(settings={**TINY, "horizon": 50}).policy.imagination
    with torch.no_grad():
        for parameter in imagination.parameters():
            parameter.mul_(30)
    found = imagination(torch.randn(5, 3))
    assert found.isfinite().all()
    assert found.abs().max() == 10


@spaces
@pytest.mark.parametrize("memory", [{}, {"use_gru": True, "gru_cell_size": 5}], ids=["plain", "gru"])
@encoders
def test_acting_gives_the_numbers_of_the_module_and_follows_its_model(actions, memory, encoder):
    module = module_of(actions, settings={**TINY, "encoder": encoder}, **memory)
    actor = NetworkActor(module.policy, ActionSpec.of(actions, True), ("dist_inputs",), module.value)

    def acted(obs, mask=None):
        state = {name: np.zeros((*obs.shape[:2], size), np.float32) for name, size in actor.memory.items()}
        found = actor.act(ActorInputs(obs, mask), state, None, explore=False)
        return torch.from_numpy(found.extras["dist_inputs"]), found.actions

    for change in (lambda: None, lambda: experienced(module.policy.imagination)):
        change()
        for shape in ((1, 1), (13, 2)):
            obs = np.random.default_rng(0).normal(size=(*shape, 3)).astype(np.float32)
            batch = {Columns.OBS: torch.from_numpy(obs).flatten(0, 1)}
            if memory:
                rows = len(batch[Columns.OBS])
                batch[Columns.OBS] = batch[Columns.OBS].unsqueeze(1)
                states = {name: torch.zeros(rows, size) for name, size in module.memory_sizes().items()}
                batch[Columns.STATE_IN] = states
            expected = module._forward_inference(batch)[Columns.ACTION_DIST_INPUTS].reshape(*shape, -1)
            torch.testing.assert_close(acted(obs)[0], expected, atol=1e-6, rtol=1e-5)
        if actions is DISCRETE:
            mask = np.ones((*shape, 4), bool)
            mask[..., 1] = False
            masked, chosen = acted(obs, mask)
            assert (masked.exp()[..., 1] == 0).all()
            assert (chosen != 1).all()
    assert isinstance(actor._forward, torch.jit.ScriptModule) or memory


# -- what learns from what ----------------------------------------------------------------------------------------


@spaces
def test_a_policys_loss_leaves_the_model_and_the_models_loss_the_policy(actions):
    module = module_of(actions)
    imagination = imagination_of(module)
    rows = torch.randn(20, 3)
    dist_inputs, values = module.evaluate(ModuleInputs(module.policy.perceived(rows)))
    (dist_inputs.square().sum() + values.sum()).backward()
    assert all(parameter.grad is None for parameter in imagination.parameters())
    others = {key: value for key, value in module.named_parameters() if ".imagination." not in key}
    assert all(value.grad is not None and value.grad.any() for value in others.values())
    before = {key: value.clone() for key, value in module.state_dict().items()}
    module.zero_grad(set_to_none=True)
    optimizer = torch.optim.Adam(imagination.trained_parameters(), 1e-3)
    fit(imagination, optimizer, experience(imagination), torch.Generator().manual_seed(0))
    assert all(parameter.grad is None for parameter in module.parameters())
    assert not any(parameter.requires_grad for parameter in imagination.parameters())
    for key, value in module.state_dict().items():
        same = ".imagination." not in key or key.endswith("first_actions")
        assert torch.equal(value, before[key]) == same, key


@spaces
def test_the_model_learns_simple_dynamics_and_the_rollout_policy_the_policy(actions):
    imagination = module_of(actions, settings={**TINY, "model_hiddens": [32]}).policy.imagination
    optimizer = torch.optim.Adam(imagination.trained_parameters(), 1e-2)
    noise = torch.Generator().manual_seed(0)
    stats = [fit(imagination, optimizer, experience(imagination, 200, k), noise) for k in range(40)]
    assert set(stats[0]) == {"model_loss", "model_error", "continuation_loss", "rollout_policy_loss"}
    assert stats[-1]["model_loss"] < stats[0]["model_loss"] - 5
    assert stats[-1]["model_error"] < 0.1 * stats[0]["model_error"]
    new = experience(imagination, 100, 99)
    found = imagination.model.step(new.obs, new.actions)
    assert (found.state - new.next_obs).square().mean() < 0.02 * (new.next_obs - new.obs).square().mean()
    assert (found.rewards - new.rewards).square().mean() < 0.1 * new.rewards.var()
    if actions is DISCRETE:
        best = new.targets.topk(2).values
        clear = best[:, 0] > best[:, 1] + 0.1
        same = imagination.act(new.obs).argmax(-1) == new.targets.argmax(-1)
        assert same[clear].float().mean() > 0.9
    else:
        assert (imagination.act(new.obs) - new.targets).square().mean() < 0.05


def test_steps_are_learned_from_with_what_followed_them_also_at_an_end():
    """Observations are (number, step, last action), a reward is the step; agents die, come and are cut."""
    config = lives().training(imagination=TINY)
    runner = runner_of(config)
    (rollout,) = runner.sample()
    learner = learner_of(config, runner)
    ((name, part),) = rollout.modules.items()
    imagination = imagination_of(learner.module[name].unwrapped())
    found = experience_of(imagination, [part, part], "cpu")
    rows = int(part.acted.sum())
    assert len(found.rewards) == 2 * rows
    assert torch.equal(found.next_obs[:, 0], found.obs[:, 0])
    assert torch.equal(found.next_obs[:, 1], found.obs[:, 1] + 1)
    assert torch.equal(found.next_obs[:, 2], found.actions.argmax(-1).float())
    assert torch.equal(found.rewards, found.next_obs[:, 1])
    agents = np.broadcast_to(np.arange(3), part.acted.shape)[part.acted]
    expected = ((agents == 0) & (found.rewards[:rows].numpy() == 2)) | (
        (agents == 1) & (found.rewards[:rows].numpy() == 5)
    )
    np.testing.assert_array_equal(found.terminated[:rows].numpy(), expected)
    assert expected.any()
    dist_inputs = torch.from_numpy(part.columns["dist_inputs"][part.acted])
    torch.testing.assert_close(found.targets[:rows], torch.softmax(dist_inputs, -1))


# -- ablations ----------------------------------------------------------------------------------------------------


@spaces
def test_without_rollouts_there_are_as_many_parameters_that_see_zeros(actions):
    learned = module_of(actions)
    for source in ("none", "random"):
        other = module_of(actions, settings={**TINY, "source": source})
        sizes = [{key: p.shape for key, p in module.named_parameters()} for module in (learned, other)]
        assert sizes[0] == sizes[1]
    blind = module_of(actions, settings={**TINY, "source": "none"})
    rows = torch.randn(5, 3)
    assert not blind.policy.perceived(rows)[:, 3:].any()
    assert imagination_of(blind) is None
    assert imagination_of(module_of(actions, imagination=None)) is None


def test_a_random_model_stays_as_drawn_while_the_rollout_policy_learns():
    module = module_of(settings={**TINY, "source": "random"})
    imagination = imagination_of(module)
    before = {key: value.clone() for key, value in imagination.state_dict().items()}
    optimizer = torch.optim.Adam(imagination.trained_parameters(), 1e-3)
    stats = fit(imagination, optimizer, experience(imagination), torch.Generator().manual_seed(0))
    assert set(stats) == {"rollout_policy_loss"}
    for key, value in imagination.state_dict().items():
        assert torch.equal(value, before[key]) != key.startswith("rollout_policy."), key
    assert imagination(torch.randn(4, 3)).any()


def test_values_share_layers_or_are_central_where_asked_for():
    shared = module_of(vf_share_layers=True)
    names = {key.split(".")[1] for key, _ in shared.value.named_parameters()}
    assert names == {"layers"}
    assert shared.value.head.layers[0].in_features == 8 + 4
    assert shared.compute_values({Columns.OBS: torch.randn(5, 3)}).shape == (5,)
    central = module_of(state_source="state", state_size=6, num_agents=2)
    rows = torch.arange(5) % 2
    seen = central.policy.perceived(torch.randn(5, 3))
    inputs = CentralInputs(torch.randn(2, 6), rows, rows)
    _, values = central.evaluate(ModuleInputs(seen, central=inputs))
    seen[:, 3:] = 0
    assert torch.equal(central.evaluate(ModuleInputs(seen, central=inputs))[1], values)


# -- training -----------------------------------------------------------------------------------------------------


class FirstRatio(PPOLearner):
    """Keeps the ratios of the first minibatch of the last update."""

    ratio: ClassVar[list[torch.Tensor]] = []

    def losses(self, module_id, config, batch, policy, values) -> Any:
        log_ratio = policy.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP]
        FirstRatio.ratio.append(log_ratio.exp().detach())
        return super().losses(module_id, config, batch, policy, values)


MASKED = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 12, "mask_blocked_moves": True}
ENVIRONMENTS = {
    "qio_envs/DriftControl-v0": {"max_steps": 12},
    "forest_uav_v0": MASKED,
    "swarm_cooperative_v0": {"max_steps": 12},
}


def config_of(config_class, env, model_config=None, **training):
    sizes = {"train_batch_size_per_learner": 32, "lr": 1e-2}
    if config_class is PPOConfig:
        sizes |= {"minibatch_size": 32, "num_epochs": 2, "use_kl_loss": False}
    config = (
        config_class()
        .environment(env, env_config=ENVIRONMENTS[env])
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=16)
        .reporting(min_sample_timesteps_per_iteration=32)
        .evaluation(evaluation_interval=1, evaluation_duration=2)
        .training(**sizes, **{"imagination": TINY, **training})
        .rl_module(model_config={"fcnet_hiddens": [8], **(model_config or {})})
        .debugging(seed=0)
    )
    return config.learners(learner_class=FirstRatio) if config_class is PPOConfig else config


@pytest.mark.ray
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize(
    ("config_class", "env", "training", "model_config"),
    [
        (PPOConfig, "qio_envs/DriftControl-v0", {}, {}),
        (PPOConfig, "forest_uav_v0", {"amplification": {"eta": 0.3}, "agent_id": True}, {}),
        (PPOConfig, "swarm_cooperative_v0", {"central_value": "state", "normalize_values": True}, {}),
        (A2CConfig, "qio_envs/DriftControl-v0", {"imagination": {**TINY, "encoder": "gru"}}, {}),
        (A2CConfig, "forest_uav_v0", {}, {"use_gru": True, "gru_cell_size": 6, "max_seq_len": 4}),
        (PPOConfig, "qio_envs/DriftControl-v0", {}, {"vf_share_layers": True}),
        (PPOConfig, "forest_uav_v0", {"imagination": {**TINY, "source": "none"}}, {}),
    ],
    ids=["ppo", "ppo-masked", "ppo-central", "a2c", "a2c-memory", "ppo-shared", "none"],
)  # fmt: skip
def test_it_trains_and_acts_equally_from_checkpoint_and_policy_file(
    config_class, env, training, model_config, tmp_path
):
    config = config_of(config_class, env, model_config, **training)
    algorithm = config.build_algo()
    (name,) = algorithm.env_runner.module.keys()
    blind = config.imagination.get("source") == "none"
    learner = algorithm.learner_group._learner.module[name].unwrapped()
    before = {key: value.detach().clone() for key, value in learner.named_parameters()}
    for _ in range(2):  # the second update has weights that were synced, and a model that has learned
        FirstRatio.ratio.clear()
        result = algorithm.train()
        if config_class is PPOConfig:
            first = FirstRatio.ratio[0]
            torch.testing.assert_close(first, torch.ones_like(first), atol=1e-4, rtol=0)
    metrics = result["learners"][name]
    assert ("model_loss" in metrics) != blind
    if not blind:
        assert math.isfinite(metrics["model_loss"])
        assert metrics[f"{MODEL}_learning_rate"] == 1e-3
    for key, value in learner.named_parameters():
        unused = blind and (".imagination." in key or ".rollouts.layers.0.weight" in key)
        assert torch.equal(value, before[key]) == unused, key
    acting = algorithm.env_runner.module[name].unwrapped()
    for key, value in acting.state_dict().items():
        assert torch.equal(value, learner.state_dict()[key]), key
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.stop()
    policy = load_policy_from_checkpoint(tmp_path / "checkpoint")
    loaded = load_policy(save_policy(policy, tmp_path / "policy.pt"))
    for mode, explore in (("greedy", False), ("sampled", True)):
        rows = evaluate(policy, env, ENVIRONMENTS[env], evaluation_seeds(2), explore)
        scores = mean_scores(rows)
        assert scores == {key: result["evaluation"][mode][key] for key in scores}
        assert evaluate(loaded, env, ENVIRONMENTS[env], evaluation_seeds(2), explore) == rows


def test_log_probabilities_of_the_runner_are_those_of_the_learner_after_learning():
    config = toy_config_of("forest_uav_v0", MASKED, imagination=TINY, use_kl_loss=False)
    runner = runner_of(config)
    learner = learner_of(config, runner)
    for _ in range(2):
        (rollout,) = runner.sample()
        ((name, part),) = rollout.modules.items()
        batch = learner.prepare(name, [part])
        module = learner.module[name].unwrapped()
        with torch.no_grad():
            found = module._forward_train({INPUTS: batch.inputs})[Columns.ACTION_DIST_INPUTS]
        torch.testing.assert_close(
            found, torch.from_numpy(part.columns["dist_inputs"][part.acted]), atol=1e-4, rtol=1e-4
        )
        learner.update(episodes=[rollout], num_epochs=1, minibatch_size=8)
        runner.module[name].load_state_dict(
            {key: module.state_dict()[key] for key in runner.module[name].state_dict()}
        )


# -- what is refused ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"horizn": 4}, r"imagination: unknown key 'horizn' .did you mean 'horizon'"),
        (
            {"source": "lerned"},
            "imagination.source: expected one of learned, random, none, .* mean 'learned'",
        ),
        ({"encoder": "lstm"}, "imagination.encoder: expected one of mlp, gru, got 'lstm'"),
        ({"horizon": 0}, "imagination.horizon: expected an integer from 1 to 50, got 0"),
        ({"horizon": 2.0}, "imagination.horizon: expected an integer from 1 to 50, got 2.0"),
        ({"members": 21}, "imagination.members: expected an integer from 1 to 20, got 21"),
        ({"rollouts": 0}, "imagination.rollouts: expected an integer from 1 to 1000 or none, got 0"),
        ({"rollouts": True}, "imagination.rollouts: expected an integer"),
        ({"encoder_hiddens": []}, r"imagination.encoder_hiddens: expected sizes of at least 1, got \[\]"),
        ({"model_hiddens": 8}, "imagination.model_hiddens: expected sizes of at least 1, got 8"),
        ({"policy_hiddens": [0]}, r"imagination.policy_hiddens: expected sizes of at least 1, got \[0\]"),
        ({"model_lr": 0}, "imagination.model_lr: expected a finite number above 0, got 0"),
        ({"model_lr": "fast"}, "imagination.model_lr: expected a finite number above 0, got 'fast'"),
        ({"model_batch_size": 0}, "imagination.model_batch_size: expected an integer from 1"),
        ({"model_epochs": 101}, "imagination.model_epochs: expected an integer from 1 to 100, got 101"),
        (3, "imagination: .*got 3"),
    ],
)
def test_bad_settings_are_refused_in_one_line(settings, message):
    with pytest.raises(ConfigError, match=message) as caught:
        A2CConfig().training(imagination=settings)
    assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match=message):
        ImaginationSettings.of(settings)


@pytest.mark.parametrize(
    ("algorithm", "env", "config", "message"),
    [
        ("PPO", "CartPole-v1", {"circuit": {}}, "imagination: does not go with circuit; set one of the two"),
        (
            "PPO",
            "chsh_v0",
            {"env_config": {"as_team": True}, "coordination": {}},
            "imagination: does not go with coordination; set one of the two to null",
        ),
        (
            "A2C",
            "CartPole-v1",
            {"imagination": {"rollouts": 3}},
            "imagination.rollouts: each of the 2 discrete actions has a rollout; leave it out",
        ),
        (
            "PPO",
            "CartPole-v1",
            {"num_learners": 2},
            "num_learners: imagination fits its model in one Learner",
        ),
        ("A2C", "Pendulum-v1", {"normalize_actions": False}, "normalize_actions: imagination's model takes"),
        (
            "DQN",
            "CartPole-v1",
            {},
            "imagination: DQN's networks see no imagined rollouts; PPO's and A2C's do",
        ),
        (
            "WorldModel",
            "CartPole-v1",
            {},
            "imagination: WorldModel's agents plan or learn inside their model",
        ),
    ],
)
def test_what_does_not_go_with_it_is_refused_before_a_run(algorithm, env, config, message):
    given = {"run": algorithm, "env": env, "stop": {"training_iteration": 1}}
    with pytest.raises(ConfigError, match=message) as caught:
        Experiment.from_mapping({**given, "config": {"imagination": {}, **config}}).validate()
    assert "\n" not in str(caught.value)


def test_images_and_rllibs_own_runner_are_refused():
    image = gymnasium.spaces.Box(0, 1, (16, 16, 3), np.float32)
    with pytest.raises(ConfigError, match=r"imagination: .* flat observations, got images of \(16, 16, 3\)"):
        module_of(observations=image)
    config = PPOConfig().environment("CartPole-v1").env_runners(env_runner_cls=None)
    with pytest.raises(ConfigError, match="env_runner_cls: imagination needs BatchedEnvRunner"):
        config.training(imagination={}).validate()


def test_null_takes_it_back_and_other_network_settings_leave_it():
    config = PPOConfig().training(imagination=TINY).rl_module(model_config={"fcnet_hiddens": [4]})
    assert config.imagination == TINY
    assert config.training(imagination=None).imagination is None
    assert module_of(imagination=None).policy.imagination is None


def test_the_ready_experiment_has_a_model_free_twin(tmp_path, monkeypatch, capsys):
    path = ROOT / "tune_configs" / "drift_control_i2a.yaml"
    config = load_experiment(path).algorithm_config()
    assert config.imagination["source"] == "learned"
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", str(path), "--set", "imagination.source=nothing"]) == 2
    err = capsys.readouterr().err
    assert "imagination.source: expected one of learned, random, none, got 'nothing'" in err
    assert err.count("\n") == 1


def test_the_shape_says_what_an_imagination_returns():
    settings = ImaginationSettings.of(TINY)
    shape = Shape.of(settings, 3, 2, False)
    imagination = Imagination(shape, 3, 2, False, settings)
    assert imagination(torch.zeros(0, 3)).shape == (0, shape.size)
    assert imagination(torch.zeros(2, 4, 3)).shape == (2, 4, 5 * 3 * 7)

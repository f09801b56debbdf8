"""Networks that imagine: what they imagine, what learns from what, and the controls."""

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from ray.rllib.core.columns import Columns
from toy_imagination import CONTINUOUS, DISCRETE, TINY, experience, experienced, module_of
from toy_runners import learner_of, lives, runner_of

from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.actor import ActorInputs, NetworkActor
from qio_rllib.learners.imagination import experience_of, fit, imagination_of
from qio_rllib.models.actor_critic import ModuleInputs
from qio_rllib.models.imagination import Imagination, ImaginationSettings, Shape
from qio_rllib.models.values import CentralInputs

spaces = pytest.mark.parametrize("actions", [DISCRETE, CONTINUOUS], ids=["discrete", "continuous"])
encoders = pytest.mark.parametrize("encoder", ["mlp", "gru"])


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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
    dist_inputs, values, _ = module.evaluate(ModuleInputs(module.policy.perceived(rows)))
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
    _, values, _ = central.evaluate(ModuleInputs(seen, central=inputs))
    seen[:, 3:] = 0
    assert torch.equal(central.evaluate(ModuleInputs(seen, central=inputs))[1], values)


def test_the_shape_says_what_an_imagination_returns():
    settings = ImaginationSettings.of(TINY)
    shape = Shape.of(settings, 3, 2, False)
    imagination = Imagination(shape, 3, 2, False, settings)
    assert imagination(torch.zeros(0, 3)).shape == (0, shape.size)
    assert imagination(torch.zeros(2, 4, 3)).shape == (2, 4, 5 * 3 * 7)

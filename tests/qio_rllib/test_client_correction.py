"""What keeps clients near the global model: gradients and terms against oracles, who is left alone, refusals."""

import copy

import numpy as np
import pytest
import torch
from ray.rllib.algorithms.ppo.ppo import PPOConfig as RLlibPPOConfig
from toy_corrections import (
    RATE,
    PlainDQN,
    PlainMADDPG,
    added_to_gradients,
    corrected,
    layout_of,
    off_policy,
    on_policy,
    step_of,
    vectors_of,
    weights_of,
)
from toy_off_policy import DQNConfig, MADDPGConfig, MASACConfig
from toy_runners import config_of, forest, learner_of, runner_of

from qio_envs.api import ConfigError
from qio_rllib.algorithms import A2CConfig
from qio_rllib.algorithms.a2c import A2CLearner
from qio_rllib.algorithms.ppo import PPOLearner
from qio_rllib.federated.layout import ParameterLayout
from qio_rllib.learners.client_correction import ClientCorrection, CorrectionSettings
from qio_rllib.learners.common import as_module, descend


@pytest.mark.parametrize("kind", ["fedprox", "scaffold"])
def test_gradients_of_an_on_policy_learner_are_corrected(kind):
    plain, rollout = on_policy()
    learner, _ = on_policy()
    layout, before = layout_of(learner), weights_of(learner)
    assert (weights_of(plain) == before).all()
    anchor, server, own = before + 1, *vectors_of(layout.size, 2)
    corrected(learner, layout, kind, anchor, server, own)
    for each in (plain, learner):
        step_of(each, rollout)
    gradient = (before - weights_of(plain)) / RATE
    expected = gradient + added_to_gradients(kind, before, anchor, server, own)
    assert np.abs(gradient).max() > 0.1
    np.testing.assert_allclose((before - weights_of(learner)) / RATE, expected, atol=2e-4)


TASKS = [("swarm", MADDPGConfig, PlainMADDPG), ("pole", DQNConfig, PlainDQN)]


@pytest.mark.parametrize("kind", ["fedprox", "scaffold"])
@pytest.mark.parametrize("setting", TASKS, ids=["maddpg", "dqn"])
def test_each_optimizer_of_an_off_policy_learner_gets_the_correction_of_its_own_parameters(setting, kind):
    """Beside steps that are taken by hand, one objective after the other: actors see critics that have moved."""
    by_hand, setup = off_policy(*setting), off_policy(*setting)
    learner, layout = setup.learner, layout_of(setup.learner)
    before = weights_of(learner)
    server, own = vectors_of(layout.size, 2)
    anchor = before + vectors_of(layout.size, 1, seed=8)[0]
    corrected(learner, layout, kind, anchor, server, own)
    learner.gradient_step(setup.rows)
    module = as_module(by_hand.learner.module)
    for objective in by_hand.learner.losses(by_hand.rows):
        chosen = {
            parameter
            for module_id in objective.losses
            for group in by_hand.learner.get_optimizer(module_id, objective.optimizer).param_groups
            for parameter in group["params"]
        }
        mine = {name: value for name, value in module.named_parameters() if value in chosen}
        found = torch.autograd.grad(sum(objective.losses.values()), [*mine.values()])
        present = layout.read(module)
        added = layout.arrays(added_to_gradients(kind, present, anchor, server, own))
        with torch.no_grad():
            for (name, parameter), gradient in zip(mine.items(), found, strict=True):
                parameter -= RATE * (gradient + torch.from_numpy(added[name].copy()))
    np.testing.assert_allclose(weights_of(learner), layout.read(module), atol=2e-6)
    assert np.abs(weights_of(learner) - before).min() > 0


def test_what_is_added_over_all_clients_is_nothing():
    """With c the mean of all c_i, the mean of the corrected gradients is the mean of the plain ones."""
    layout = layout_of(on_policy()[0])
    variates = vectors_of(layout.size, 4)
    moves = []
    for own in variates:
        learner, rollout = on_policy()
        before = weights_of(learner)
        corrected(learner, layout, "scaffold", None, variates.mean(axis=0), own)
        step_of(learner, rollout)
        moves.append(before - weights_of(learner))
    plain, rollout = on_policy()
    step_of(plain, rollout)
    assert np.abs(moves[0] - moves[1]).max() > RATE
    np.testing.assert_allclose(np.mean(moves, axis=0), before - weights_of(plain), atol=1e-6)


def test_the_new_variate_is_option_two_with_plain_descent_on_policy():
    learner, rollout = on_policy()
    layout, before = layout_of(learner), weights_of(learner)
    server, own = 0.1 * vectors_of(layout.size, 2)
    correction = corrected(learner, layout, "scaffold", None, server, own)
    assert rollout.modules["shared"].acted.sum() == 60
    learner.update(episodes=[rollout], num_epochs=3, minibatch_size=20)
    steps = 3 * 3
    expected = own - server + (before - weights_of(learner)) / (steps * RATE)
    np.testing.assert_allclose(correction.mean_gradient(), expected, atol=2e-5)
    assert correction.mean_gradient().dtype == np.float32


@pytest.mark.parametrize("setting", TASKS, ids=["maddpg", "dqn"])
def test_the_new_variate_is_option_two_with_plain_descent_off_policy(setting):
    setup = off_policy(*setting)
    learner, layout = setup.learner, layout_of(setup.learner)
    before = weights_of(learner)
    server, own = 0.1 * vectors_of(layout.size, 2)
    correction = corrected(learner, layout, "scaffold", None, server, own)
    learner.update(episodes=[setup.steps], num_epochs=4)
    expected = own - server + (before - weights_of(learner)) / (4 * RATE)
    np.testing.assert_allclose(correction.mean_gradient(), expected, atol=2e-5)


def test_the_new_variate_holds_gradients_before_they_are_clipped():
    learner, rollout = on_policy()
    plain, _ = on_policy()
    layout, before = layout_of(learner), weights_of(learner)
    learner.config.get_config_for_module("shared").grad_clip = 1e-3
    correction = corrected(learner, layout, "scaffold")
    for each in (plain, learner):
        step_of(each, rollout)
    assert np.abs(before - weights_of(learner)).max() <= 1e-3 * RATE * 1.01
    np.testing.assert_allclose(
        correction.mean_gradient(), (before - weights_of(plain)) / RATE, atol=2e-4, rtol=1e-4
    )


def test_a_new_client_begins_anew_and_steps_that_were_not_taken_keep_the_variate():
    config = config_of("mpe2.simple_speaker_listener_v4", {"max_cycles": 9}).multi_agent(
        policies="independent"
    )
    learner, rollout = on_policy(config)
    layout = layout_of(learner)
    (own,) = vectors_of(layout.size, 1)
    correction = corrected(learner, layout, "scaffold", None, None, own)
    step_of(learner, rollout)
    correction.begin(layout, weights_of(learner), None, own)
    np.testing.assert_array_equal(correction.mean_gradient(), own)
    (only,) = [part for module_id, part in rollout.modules.items() if module_id == "listener_0"]
    before = weights_of(learner)
    learner._step(
        "listener_0",
        learner.config.get_config_for_module("listener_0"),
        learner.prepare("listener_0", [only]),
    )
    found, kept = layout.arrays(correction.mean_gradient()), layout.arrays(own)
    moved = layout.arrays((before - weights_of(learner)) / RATE)
    for name in found:
        if name.startswith("speaker_0."):
            np.testing.assert_array_equal(found[name], kept[name])
        else:
            np.testing.assert_allclose(found[name] - kept[name], moved[name], atol=2e-4)


def test_corrections_come_before_clipping_and_where_there_are_gradients():
    torch.manual_seed(0)
    layers = torch.nn.ModuleDict({name: torch.nn.Linear(2, 1) for name in ("used", "idle")})
    start = copy.deepcopy(layers)
    optimizer = torch.optim.SGD(layers.parameters(), lr=1.0)
    seen = []

    def correct(gradients):
        seen.extend(gradients)
        for gradient in gradients.values():
            gradient.add_(10.0)

    (norm,) = descend([optimizer], layers["used"](torch.ones(1, 2)).sum(), 0.5, "global_norm", correct)
    assert {*seen} == {*layers["used"].parameters()}
    assert norm == pytest.approx(11 * np.sqrt(3))  # gradients of 1, and 10
    moved = torch.cat(
        [(a - b).flatten() for a, b in zip(start.parameters(), layers.parameters(), strict=True)]
    )
    torch.testing.assert_close(moved, torch.tensor([0.5 / 3**0.5] * 3 + [0.0] * 3), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", ["fedprox", "scaffold"])
def test_parameters_that_stay_with_a_client_are_left_alone(kind):
    plain, rollout = on_policy()
    learner, _ = on_policy()
    layout = layout_of(learner, personal=["shared.value"])
    before = weights_of(learner)
    shared = layout.read(as_module(learner.module))
    correction = corrected(learner, layout, kind, shared + 1, *vectors_of(layout.size, 2))
    for each in (plain, learner):
        step_of(each, rollout)
    whole = layout_of(learner)
    found, expected = whole.arrays(weights_of(learner)), whole.arrays(weights_of(plain))
    assert any((expected[name] != values).any() for name, values in whole.arrays(before).items())
    for name in found:
        assert (found[name] == expected[name]).all() == name.startswith("shared.value")
    if kind == "scaffold":
        assert correction.mean_gradient().shape == (layout.size,)


def test_equal_variates_are_plain_training_bit_for_bit_and_leave_nothing_behind():
    trained = []
    for with_correction in (False, True):
        config = forest().training(grad_clip=0.5)
        torch.manual_seed(0)
        runner = runner_of(config)
        learner = learner_of(config, runner)
        assert learner.correction is None
        (rollout,) = runner.sample()
        if with_correction:
            layout = layout_of(learner)
            (same,) = vectors_of(layout.size, 1)
            corrected(learner, layout, "scaffold", None, same, same)
        learner.update(episodes=[rollout], num_epochs=2, minibatch_size=16)
        learner.correction = None
        learner.update(episodes=[rollout], num_epochs=1, minibatch_size=16)
        trained.append(weights_of(learner))
    np.testing.assert_array_equal(*trained)


# -- refusals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (
            {"type": "prox", "coefficient": 1.0},
            "correction.type: expected fedprox, scaffold or fedkl, got 'prox'",
        ),
        ({"coefficient": 1.0}, "correction.type: expected fedprox, scaffold or fedkl, got None"),
        ({"type": "fedprox"}, "correction.coefficient: expected a finite number above 0, got None"),
        (
            {"type": "fedkl", "coefficient": 0},
            "correction.coefficient: expected a finite number above 0, got 0",
        ),
        (
            {"type": "fedkl", "coefficient": float("inf")},
            "correction.coefficient: expected a finite number above",
        ),
        (
            {"type": "fedprox", "coefficient": True},
            "correction.coefficient: expected a finite number above 0",
        ),
        (
            {"type": "scaffold", "coefficient": 1.0},
            "correction.coefficient: expected none with scaffold, got 1.0",
        ),
        ({"type": "fedprox", "mu": 1.0}, "unknown key 'mu'"),
    ],
)
def test_settings_that_are_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        CorrectionSettings.of(given)


def test_off_policy_learners_have_no_policy_gradient_for_fedkl():
    settings = CorrectionSettings.of({"type": "fedkl", "coefficient": 1.0})
    message = "^correction.type: {} takes fedprox or scaffold, got fedkl$"
    for config in (MADDPGConfig(), DQNConfig(), MASACConfig()):
        with pytest.raises(ConfigError, match=message.format(config.learner_class.__name__)):
            settings.check_learner(config.learner_class)
    learner = off_policy().learner
    with pytest.raises(ConfigError, match=message.format("PlainMADDPG")):
        ClientCorrection(settings, learner)
    for taken in (PPOLearner, A2CLearner):
        settings.check_learner(taken)
    with pytest.raises(ConfigError, match="correction.type: PPOTorchLearner takes none, got fedkl"):
        settings.check_learner(RLlibPPOConfig().get_default_learner_class())


def test_vectors_and_layouts_that_do_not_fit_are_refused():
    learner, _ = on_policy()
    layout = layout_of(learner)
    correction = ClientCorrection(CorrectionSettings.of({"type": "scaffold"}), learner)
    with pytest.raises(ValueError, match=rf"correction: expected {layout.size} numbers, got shape \(3,\)"):
        correction.begin(layout, weights_of(learner), np.zeros(3, np.float32))
    with pytest.raises(ConfigError, match="parameters: policy.encoder.layers.0.bias is expected to have"):
        correction.begin(ParameterLayout.of(learner.module["shared"]), weights_of(learner))
    learner.correction = correction
    with pytest.raises(ConfigError, match="correction: corrects what is learned from rollouts of Batched"):
        learner.update(episodes=[])


def test_a2c_is_corrected_too():
    config = A2CConfig().environment("forest_uav_v0", env_config={"height": 6, "width": 6, "num_uavs": 3})
    config.env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=10)
    config.rl_module(model_config={"fcnet_hiddens": [8]})
    runner = runner_of(config)
    learner = learner_of(config, runner)
    layout = layout_of(learner)
    server, own = vectors_of(layout.size, 2)
    correction = corrected(learner, layout, "scaffold", None, server, own)
    learner.update(episodes=runner.sample())
    assert (correction.mean_gradient() != own).all()

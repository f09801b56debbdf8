"""Learners by kernels against the same Learners by torch: the gradients of every minibatch, and what is reported."""

import contextlib
import logging
import math

import numpy as np
import pytest
import torch
from gymnasium import spaces
from toy_lives import Lives
from toy_runners import config_of, forest, learner_of, lives, runner_of
from toy_spaces import Nested

from qio_rllib.algorithms import A2CConfig
from qio_rllib.fused import losses as fused_losses
from qio_rllib.fused import use
from qio_rllib.learners import common, joint_update, on_policy
from qio_rllib.sampling.environments import register_env

NETWORK = {"fcnet_hiddens": [12, 8]}


def a2c(**training):
    return (
        A2CConfig()
        .environment("forest_uav_v0", env_config={"height": 6, "width": 6, "num_uavs": 3, "max_steps": 7})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=2, rollout_fragment_length=10)
        .training(train_batch_size_per_learner=20, **training)
        .rl_module(model_config=NETWORK)
        .debugging(seed=3)
    )


def pendulum(**training):
    return config_of("Pendulum-v1", {"max_episode_steps": 7}, **training)


def masked(**training):
    return forest(mask_blocked_moves=True, obstacle_density=0.2).training(**training)


pytestmark = pytest.mark.usefixtures("computing_on_one_thread")


class Digits(Nested):
    """Actions are two discrete numbers."""

    action_space = spaces.MultiDiscrete([3, 2])

    def step(self, action):
        self.taken.append(action)
        return self._look(), float(action[0] == 1), False, len(self.taken) >= 10, {}


def several(cls, **training):
    """Return PPO for actions of several numbers."""
    register_env("several", lambda env_config: cls())
    return config_of("several", **training)


CASES = {
    "plain": lambda: forest().training(use_kl_loss=False),
    "divergence": lambda: forest().training(kl_coeff=0.7, entropy_coeff=0.05),
    "tight clips": lambda: forest().training(clip_param=0.01, vf_clip_param=0.05, vf_loss_coeff=0.7),
    "no critic": lambda: forest().training(use_critic=False, use_gae=False),
    "masks": lambda: masked(entropy_coeff=0.05),
    "masks, operator": lambda: masked(amplification={"eta": 0.4, "h_min": 0.3, "tau": 0.8}),
    "operator": lambda: forest().training(amplification={"eta": 0.6}, entropy_coeff=0.05),
    "entropy floor": lambda: forest().training(amplification={"eta": 0.0, "h_min": 0.97}),
    "temperature": lambda: forest().training(amplification={"operator": "temperature"}),
    "random operator": lambda: forest().training(amplification={"operator": "random"}),
    "annealing": lambda: forest().training(
        entropy_annealing={"law": "quantum", "alpha_0": 0.1, "alpha_min": 0.01, "decay": 0.5}
    ),
    "deaths": lambda: lives(Lives),
    "Gaussian": lambda: pendulum(kl_coeff=0.5, entropy_coeff=0.03),
    "Gaussian, plain": lambda: pendulum(use_kl_loss=False, clip_param=0.05),
    "product": lambda: several(Nested, kl_coeff=0.5, entropy_coeff=0.03),
    "product, plain": lambda: several(Nested, use_kl_loss=False, clip_param=0.05),
    "product, discrete": lambda: several(
        Digits, kl_coeff=0.5, entropy_coeff=0.03, amplification={"eta": 0.3}
    ),
    "free deviations": lambda: pendulum().rl_module(model_config=NETWORK | {"free_log_std": True}),
    "relu": lambda: forest().rl_module(model_config=NETWORK | {"fcnet_activation": "relu"}),
    "silu, deep heads": lambda: forest().rl_module(
        model_config=NETWORK
        | {"fcnet_activation": "silu", "head_fcnet_hiddens": [9], "head_fcnet_activation": "tanh"}
    ),
    "layer normalisation": lambda: forest().rl_module(model_config=NETWORK | {"fcnet_use_layernorm": True}),
    "shared layers": lambda: forest().rl_module(model_config=NETWORK | {"vf_share_layers": True}),
    "no hidden layers": lambda: forest().rl_module(model_config={"fcnet_hiddens": []}),
    "central value": lambda: forest().training(central_value="state", normalize_values=True),
    "team reward": lambda: forest().training(central_value="state", team_reward="sum"),
    "memory": lambda: forest().rl_module(
        model_config=NETWORK | {"use_lstm": True, "lstm_cell_size": 8, "max_seq_len": 4}
    ),
    "normalised": lambda: forest().training(normalize_observations=True, normalize_rewards=True),
    "messages": lambda: forest().training(communication={"bandwidth": 2}),
    "A2C": lambda: a2c(entropy_coeff=0.05),
    "A2C, operator": lambda: a2c(amplification={}, standardize_advantages=True),
}


def updated(make, fused, monkeypatch):
    """Return the gradients of all minibatches of an update, what it reports, and how many losses a kernel found."""
    with monkeypatch.context() as patch:
        if not fused:
            patch.setattr(common, "fused_kernels", contextlib.nullcontext)
        found, count = [], []
        real_descend, real_loss = on_policy.descend, fused_losses.actor_critic_loss

        def descend(optimizers, loss, limit, by, correct=None):
            def record(gradients):
                found.append({key: value.clone() for key, value in gradients.items()})

            return real_descend(optimizers, loss, limit, by, record)

        def counting(*args):
            result = real_loss(*args)
            count.append(result is not None)
            return result

        patch.setattr(on_policy, "descend", descend)
        patch.setattr(joint_update, "descend", descend)
        patch.setattr(common, "actor_critic_loss", counting)
        config = make()
        runner = runner_of(config)
        learner = learner_of(config, runner)
        learner.module.set_state(runner.get_state()["rl_module"])
        torch.manual_seed(0)
        with (
            torch.no_grad()
        ):  # away from the policy that samples, so that ratios are clipped and divergences above 0
            for module in learner.module.values():
                for parameter in module.parameters():
                    parameter.add_(0.2 * torch.randn(parameter.shape))
        result = learner.update(episodes=runner.sample(), minibatch_size=20, num_epochs=2)
        module_id = next(iter(learner.module.keys()))
        reports = {
            name: float(stats.peek())
            for name, stats in result[module_id].items()
            if name not in ("weights_seq_no",)
        }
        gradients = [[*step.values()] for step in found]
        return gradients, reports, sum(count)


@pytest.mark.parametrize("name", list(CASES))
def test_gradients_and_reports_are_those_of_torch(name, monkeypatch):
    expected, reports, none = updated(CASES[name], False, monkeypatch)
    gradients, found, some = updated(CASES[name], True, monkeypatch)
    assert none == 0
    assert some == len(gradients) or name == "messages"
    assert len(gradients) == len(expected) >= 1
    for ours, theirs in zip(gradients, expected, strict=True):
        scale = max(1.0, *(float(each.abs().max()) for each in theirs))
        for mine, other in zip(ours, theirs, strict=True):
            assert (mine - other).abs().max() <= 1e-5 * scale
    assert found.keys() == reports.keys()
    for key, value in reports.items():
        assert found[key] == pytest.approx(value, rel=1e-4, abs=1e-5, nan_ok=True), key


def test_a_number_that_is_not_finite_ends_an_update():
    for where in ("rewards", "weights"):
        config = forest()
        runner = runner_of(config)
        learner = learner_of(config, runner)
        rollouts = runner.sample()
        if where == "rewards":
            rollouts[0].modules["shared"].rewards[2, 0, 0] = np.nan
        else:
            with torch.no_grad():
                learner.module["shared"].policy.encoder.layers[0].weight[0, 0] = math.nan
        with pytest.raises(FloatingPointError):
            learner.update(episodes=rollouts, minibatch_size=20, num_epochs=1)


@pytest.mark.parametrize(
    "change",
    [
        {"actions": torch.tensor([0, 9, 1])},
        {"actions": torch.tensor([0, -1, 1])},
        {"values": torch.zeros(4)},
        {"targets": torch.zeros(3).double()},
        {"inputs_before": torch.zeros(3, 5)},
        {"logp_before": torch.zeros(6)[::2]},
        {"inputs": torch.zeros(3, 4).double()},
    ],
    ids=str,
)
def test_a_kernel_takes_what_fits_and_touches_nothing_else(change):
    rows = {
        "inputs": torch.zeros(3, 4, requires_grad=True),
        "inputs_before": torch.zeros(3, 4),
        "values": torch.zeros(3),
        "actions": torch.tensor([0, 3, 1]),
        "logp_before": torch.zeros(3),
        "advantages": torch.ones(3),
        "targets": torch.zeros(3),
    }
    terms = fused_losses.Terms(0.2, 0.01, 0.5, 10.0, 0.1)
    assert fused_losses.actor_critic_loss(terms, True, (), **rows) is None
    with use.fused_kernels():
        found = fused_losses.actor_critic_loss(terms, True, (), **rows)
        assert found is not None
        assert math.isfinite(found.loss.item())
        found = fused_losses.actor_critic_loss(terms, True, (), **{**rows, **change})
    assert (found is None) == ("actions" not in change)
    if found is not None:
        assert math.isnan(found.loss.item())


def test_an_action_outside_its_factor_touches_nothing_and_shows():
    terms = fused_losses.Terms(0.2, 0.01, 0.5, 10.0, 0.1)
    rows = [torch.zeros(3) for _ in range(4)]
    inputs = torch.zeros(3, 7)
    for number in (3.0, -1.0, math.nan, 1.0):
        actions = torch.tensor([[0.0, 1, 0.5], [number, 1, 0.5], [2, 0, 0.5]])
        with use.fused_kernels():
            found = fused_losses.actor_critic_loss(
                terms, False, (3, 2), inputs, inputs, rows[0], actions, *rows[1:]
            )
        assert found is not None
        assert math.isnan(found.loss.item()) == (number != 1.0)


def test_the_log_names_networks_that_torch_computes(caplog):
    config = forest().rl_module(model_config=NETWORK | {"fcnet_use_layernorm": True})
    with caplog.at_level(logging.INFO, logger="qio_rllib"):
        learner_of(config, runner_of(config))
    (line,) = [record.message for record in caplog.records if "torch alone" in record.message]
    assert "shared: policy.encoder.layers, shared: value.encoder.layers" in line
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="qio_rllib"):
        config = forest()
        learner_of(config, runner_of(config))
    assert not [record for record in caplog.records if "torch alone" in record.message]


def test_more_threads_are_torchs_and_updates_repeat():
    weights = []
    for cpus in (1, 1, 2):
        config = forest().learners(num_cpus_per_learner=cpus)
        runner = runner_of(config)
        learner = learner_of(config, runner)
        learner.module.set_state(runner.get_state()["rl_module"])
        for _ in range(2):
            learner.update(episodes=runner.sample(), minibatch_size=20, num_epochs=2)
        weights.append([each.detach().clone() for each in learner.module["shared"].parameters()])
    for one, two, eager in zip(*weights, strict=True):
        assert torch.equal(one, two)
        torch.testing.assert_close(one, eager, atol=1e-4, rtol=1e-4)
    assert any(not torch.equal(one, eager) for one, _, eager in zip(*weights, strict=True))

"""The losses of PPO and A2C, row by row; the KL coefficient follows the divergence up and down."""

import math

import numpy as np
import pytest
import torch
from toy_runners import config_of, forest, learner_of, runner_of

from qio_rllib.acting.distributions import Distributions
from qio_rllib.algorithms import A2CConfig

ROWS = 40


def made_up(discrete: bool):
    """Return a batch of rows, the present policy's parameters and the present values."""
    rng = np.random.default_rng(4)
    before = rng.normal(size=(ROWS, 6))
    now = before + (0.5 if discrete else 0.15) * rng.normal(size=(ROWS, 6))
    if discrete:
        actions = rng.integers(6, size=ROWS)
        logp = before[np.arange(ROWS), actions] - np.log(np.exp(before).sum(-1))
    else:
        actions = before[:, :3] + np.exp(before[:, 3:]) * rng.normal(size=(ROWS, 3))
        logp = normal_logp(before, actions)
    batch = {
        "actions": actions,
        "action_logp": logp,
        "action_dist_inputs": before,
        "advantages": rng.normal(size=ROWS),
        "value_targets": rng.normal(size=ROWS),
    }
    return {name: torch.from_numpy(array) for name, array in batch.items()}, now, rng.normal(size=ROWS)


def normal_logp(inputs, actions):
    mean, log_deviation = inputs[:, :3], inputs[:, 3:]
    scaled = (actions - mean) / np.exp(log_deviation)
    return (-0.5 * scaled**2 - log_deviation - 0.5 * np.log(2 * np.pi)).sum(-1)


def moments(discrete: bool, before, now, actions):
    """Return log-probabilities of actions, entropies, and the divergence of the new policy from the old one."""
    if discrete:
        one, two = (row - np.log(np.exp(row).sum(-1, keepdims=True)) for row in (before, now))
        logp = two[np.arange(ROWS), actions]
        return logp, -(np.exp(two) * two).sum(-1), (np.exp(one) * (one - two)).sum(-1)
    entropy = (now[:, 3:] + 0.5 * np.log(2 * np.pi * np.e)).sum(-1)
    ratio = np.exp(2 * (before[:, 3:] - now[:, 3:]))
    shift = (before[:, :3] - now[:, :3]) / np.exp(now[:, 3:])
    return normal_logp(now, actions), entropy, 0.5 * (ratio + shift**2 - 1 - np.log(ratio)).sum(-1)


def losses_of(config, discrete: bool, coefficient: float | None = None):
    """Return a Learner's loss and statistics of the made-up rows, and the rows."""
    learner = learner_of(config, runner_of(config))
    if coefficient is not None:
        learner.curr_kl_coeffs_per_module["shared"].data.fill_(coefficient)
    batch, now, values = made_up(discrete)
    loss, stats = learner.losses(
        "shared",
        learner.config.get_config_for_module("shared"),
        batch,
        Distributions(torch.from_numpy(now), discrete),
        torch.from_numpy(values),
    )
    rows = {name: tensor.numpy() for name, tensor in batch.items()}
    return float(loss), {name: float(value) for name, value in stats.items()}, rows, now, values


@pytest.mark.parametrize("discrete", [True, False])
@pytest.mark.parametrize("critic", [True, False])
@pytest.mark.parametrize("divergence", [True, False])
def test_ppos_loss_by_plain_loops(discrete, critic, divergence):
    config = forest().training(
        clip_param=0.25, vf_clip_param=1.5, vf_loss_coeff=0.7, entropy_coeff=0.05,
        kl_coeff=0.2, use_critic=critic, use_kl_loss=divergence,
    )  # fmt: skip
    loss, stats, rows, now, values = losses_of(config, discrete, 0.6 if divergence else None)
    logp, entropy, apart = moments(discrete, rows["action_dist_inputs"], now, rows["actions"])
    gains, errors, sides = [], [], set()
    for row in range(ROWS):
        ratio = math.exp(logp[row] - rows["action_logp"][row])
        advantage = rows["advantages"][row]
        gains.append((min(ratio, 1.25) if advantage > 0 else max(ratio, 0.75)) * advantage)
        sides.add((advantage > 0, ratio > 1.25, ratio < 0.75))
        errors.append((values[row] - rows["value_targets"][row]) ** 2)
    assert len(sides) == 6  # below, within and above the clip, with advantages of both signs
    assert min(errors) < 1.5 < max(errors)
    clipped = np.minimum(errors, 1.5).mean()
    expected = {"policy_loss": -np.mean(gains), "entropy": entropy.mean()}
    total = -np.mean(gains) - 0.05 * entropy.mean()
    if critic:
        expected |= {"vf_loss": clipped, "vf_loss_unclipped": np.mean(errors)}
        total += 0.7 * clipped
    if divergence:
        expected["mean_kl_loss"] = apart.mean()
        total += 0.6 * apart.mean()  # the adapted coefficient, not the configured one
    assert stats == pytest.approx(expected, rel=1e-6)
    assert loss == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize("discrete", [True, False])
def test_a2cs_loss_by_plain_loops(discrete):
    config = (
        A2CConfig()
        .environment("forest_uav_v0", env_config={"height": 6, "width": 6, "num_uavs": 3})
        .training(vf_loss_coeff=0.7, entropy_coeff=0.05)
        .rl_module(model_config={"fcnet_hiddens": [8]})
    )
    loss, stats, rows, now, values = losses_of(config, discrete)
    logp, entropy, _ = moments(discrete, rows["action_dist_inputs"], now, rows["actions"])
    gain = sum(logp[row] * rows["advantages"][row] for row in range(ROWS)) / ROWS
    error = sum((values[row] - rows["value_targets"][row]) ** 2 for row in range(ROWS)) / ROWS
    assert stats == pytest.approx({"policy_loss": -gain, "vf_loss": error, "entropy": entropy.mean()})
    assert loss == pytest.approx(-gain + 0.7 * error - 0.05 * entropy.mean(), rel=1e-6)


# -- the KL coefficient -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("share", "factor"), [(0.4, 1.5), (0.6, 1.0), (1.9, 1.0), (2.1, 0.5)])
def test_the_kl_coefficient_rises_above_twice_the_target_and_falls_below_half_of_it(share, factor):
    """``share`` is the target in units of the divergence of the update, which a first Learner measures."""

    def updated(target):
        config = forest().training(lr=3e-3, kl_coeff=0.3, kl_target=target)
        runner = runner_of(config)
        learner = learner_of(config, runner)
        result = learner.update(episodes=runner.sample(), minibatch_size=20, num_epochs=2)
        return learner, float(result["shared"]["mean_kl_loss"].peek())

    _, divergence = updated(1.0)
    assert divergence > 0
    learner, again = updated(share * divergence)
    assert again == pytest.approx(divergence)
    assert float(learner.curr_kl_coeffs_per_module["shared"]) == pytest.approx(0.3 * factor)


def test_the_kl_coefficient_of_a_module_that_rested_stays_also_after_other_updates():
    config = forest().training(kl_target=1e3)  # so that the coefficient of who learns falls
    config.multi_agent(policies={"pair": ["uav_0", "uav_1"], "single": ["uav_2"]})
    runner = runner_of(config)
    learner = learner_of(config, runner)
    learner.module.set_state(runner.get_state()["rl_module"])
    learner.update(episodes=runner.sample(), minibatch_size=20, num_epochs=1)
    before = {name: float(value) for name, value in learner.curr_kl_coeffs_per_module.items()}
    rollout = runner.sample()[0]
    rollout.modules["single"].acted[:] = False
    learner.update(episodes=[rollout], minibatch_size=20, num_epochs=1)
    after = {name: float(value) for name, value in learner.curr_kl_coeffs_per_module.items()}
    assert after["single"] == before["single"]
    assert after["pair"] == before["pair"] / 2


def test_box_actions_of_a_whole_update_have_a_ratio_of_one_at_first(monkeypatch):
    config = config_of("Pendulum-v1", {"max_episode_steps": 7}, num_envs=2)
    runner = runner_of(config)
    learner = learner_of(config, runner)
    learner.module.set_state(runner.get_state()["rl_module"])
    ratios, losses = [], learner.losses

    def recording(module_id, config, batch, policy, values):
        ratios.append((policy.logp(batch["actions"]) - batch["action_logp"]).detach())
        return losses(module_id, config, batch, policy, values)

    monkeypatch.setattr(learner, "losses", recording)
    learner.update(episodes=runner.sample(), minibatch_size=10, num_epochs=1)
    torch.testing.assert_close(ratios[0], torch.zeros_like(ratios[0]), rtol=0, atol=1e-5)
    assert ratios[-1].abs().max() > 1e-4

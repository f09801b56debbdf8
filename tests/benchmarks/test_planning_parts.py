"""The parts of planning with a recurrent model: what it learns from outside of a run, and how costs are counted."""

import dataclasses
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import drift_fits
import drift_play
import estimate_fits
import planning_parts

from qio_envs import drift_control_v0
from qio_envs.drift_control import mean_next_state
from qio_rllib.world_models.model import Sequences

CONFIG = {
    "world_model": {"type": "rssm", "deterministic": 8, "stochastic": 2, "embedding": 8, "hiddens": [8]},
    "model_lr": [[0, 1e-2], [1, 1e-2]],
    "train_batch_size_per_learner": 4,
    "model_sequence_length": 8,
}


def test_mixed_play_is_whole_episodes_of_random_play_and_of_a_noisy_regulator():
    found = drift_play.played_steps("mixed", 20, seed=0)
    assert found.obs.shape == (200, 20, 2)
    assert found.fresh[0].all()
    assert (found.learned == 1).all()
    goes_on = ~found.fresh[1:]
    torch.testing.assert_close(found.obs[1:][goes_on], found.next_obs[:-1][goes_on])
    assert (found.obs[1:] != found.next_obs[:-1]).any(-1)[found.fresh[1:]].all()
    torch.testing.assert_close(
        found.fresh[1:], found.terminated[:-1] > 0
    )  # the time limit comes after the last step
    random, regulated = found.rewards.split(10, dim=1)
    assert random.mean() < 3 * regulated.mean() < 0
    assert found.terminated[:, :10].any()
    assert found.actions[:, :10].abs().mean() > 0.45


@pytest.mark.parametrize(("source", "count"), [("excited", 20), ("both", 10)])
def test_excited_actions_are_noise_and_what_is_observed_of_s0(source, count):
    found = drift_play.played_steps(source, 20, seed=0)
    rng, noise, others = np.random.default_rng(0), np.zeros((20, 1, 2)), []
    rng.choice(drift_play.NOISES, size=(20, 1, 1))  # of the regulator
    for obs, actions in zip(found.obs.numpy(), found.actions.numpy(), strict=True):
        noise = drift_play.coloured_noise(noise, rng)
        expected = np.stack([noise[:, 0, 0] - obs[:, 0], noise[:, 0, 1]], axis=-1).clip(-1, 1)
        np.testing.assert_allclose(actions[:count], expected[:count], atol=1e-6)
        others.append(np.abs(actions - expected)[count:])
    assert source == "excited" or np.mean(others) > 0.1


def test_sequences_are_drawn_as_they_were_played():
    steps = torch.arange(30.0).reshape(10, 3)  # row and column can be told from a number
    rows = steps.unsqueeze(-1)
    data = Sequences(rows, rows + 3, -rows, steps, steps + 1, steps + 2, steps == 0)
    found = drift_fits.drawn_sequences(data, 500, 4, np.random.default_rng(0))
    assert found.obs.shape == (4, 500, 1)
    torch.testing.assert_close(found.obs[1:], found.obs[:-1] + 3)  # the next step of the same column
    starts = {*found.rewards[0].tolist()}
    assert starts == {float(step) for step in range(21)}  # four steps fit behind each of these
    torch.testing.assert_close(found.next_obs[..., 0], found.rewards + 3)
    torch.testing.assert_close(found.actions[..., 0], -found.rewards)
    torch.testing.assert_close(found.terminated, found.rewards + 1)
    torch.testing.assert_close(found.learned, found.rewards + 2)
    torch.testing.assert_close(found.fresh, found.rewards == 0)
    around = drift_fits.drawn_sequences(data, 500, 4, np.random.default_rng(0), around=True).rewards
    assert {*around[0].tolist()} == {float(step) for step in range(30)}
    torch.testing.assert_close(around[1:], (around[:-1] + 3) % 30)


@pytest.mark.parametrize("settings", [CONFIG["world_model"], {"type": "kalman", "unobserved": 2}], ids=str)
def test_a_model_learns_from_what_was_played_and_depends_on_the_seed_alone(settings):
    data, config = drift_play.played_steps("mixed", 6, seed=1), CONFIG | {"world_model": settings}
    few, many = (drift_fits.fitted_model(data, config, updates, 0) for updates in (1, 40))
    again = drift_fits.fitted_model(data, config, 1, 0)
    other = drift_fits.fitted_model(data, config, 1, 1)
    for name, value in few.state_dict().items():
        torch.testing.assert_close(again.state_dict()[name], value, rtol=0, atol=0)
    assert any((other.state_dict()[name] != value).any() for name, value in few.state_dict().items())
    whole = torch.Generator().manual_seed(0)
    with torch.no_grad():
        losses = [float(model.learn(data, whole.manual_seed(0)).loss) for model in (few, many)]
    assert losses[1] < 0.8 * losses[0]


class _TrueRewards(estimate_fits.RewardHead):
    def mean(self, inputs):
        return -(inputs[..., :4] ** 2).sum(-1) - 0.01 * (inputs[..., 4:] ** 2).sum(-1)

    def loss(self, inputs, rewards):
        raise NotImplementedError


def test_a_reward_belongs_to_the_estimate_after_its_step_and_ends_have_none():
    data = drift_play.played_steps("mixed", 2, seed=0)
    fresh = torch.zeros_like(data.fresh)
    fresh[[0, 3]] = torch.tensor([[True, True], [False, True]])
    estimates = torch.arange(200.0 * 2 * 4).reshape(200, 2, 4)
    found = estimate_fits.estimated(dataclasses.replace(data, fresh=fresh), estimates)
    kept = [(step, env) for step in range(199) for env in range(2) if (step, env) != (2, 1)]
    assert len(found.rewards) == len(kept)
    for row in (0, 1, 4, 5, 300):
        step, env = kept[row]
        torch.testing.assert_close(found.before[row], estimates[step, env])
        torch.testing.assert_close(found.after[row], estimates[step + 1, env])
        torch.testing.assert_close(found.actions[row], data.actions[step, env])
        assert found.rewards[row] == data.rewards[step, env]


def test_estimates_are_those_that_the_regulator_acts_on():
    data, estimates = drift_play.filtered_steps("mixed", 4, seed=0)
    torch.testing.assert_close(estimates[..., 0], data.obs[..., 0])  # s0 and s3 are observed exactly
    torch.testing.assert_close(estimates[..., 3], data.obs[..., 1])
    settled = estimates[
        20:, 2:, 1
    ]  # of the regulated half: an estimate of s1 that no longer starts from nothing
    assert settled.std() > 0.02
    found = estimate_fits.estimated(data, estimates)
    inputs = torch.cat([found.after, found.actions], dim=-1)
    gap = _TrueRewards().mean(inputs) - found.rewards  # what the filter does not know of s1 and s2
    assert gap.abs().median() < 0.1


def test_the_true_rewards_rate_plans_as_the_true_model_does():
    rng = np.random.default_rng(0)
    start, plans = rng.uniform(-1, 1, (3, 4)), rng.uniform(-1, 1, (3, 5, 7, 2)).astype(np.float32)
    total, _ = drift_play.true_returns(start, plans.astype(np.float64), 0.01)
    found = planning_parts._Fitted(_TrueRewards(), None).returns(start, torch.from_numpy(plans))
    np.testing.assert_allclose(found, total, rtol=1e-4)


def _random_steps(count):
    """Steps from states and actions in [-1, 1], by the true dynamics and rewards without noise."""
    generator = torch.Generator().manual_seed(0)
    before, actions = (2 * torch.rand(count, size, generator=generator) - 1 for size in (4, 2))
    after = torch.from_numpy(
        mean_next_state(before.double().numpy(), actions.double().numpy()).astype(np.float32)
    )
    rewards = _TrueRewards().mean(torch.cat([after, actions], dim=-1))
    return estimate_fits.Estimates(before, actions, after, rewards)


def _split(data, count):
    return (
        estimate_fits.Estimates(*(part[rows] for part in data)) for rows in (slice(count), slice(count, None))
    )


@pytest.mark.parametrize("kind", estimate_fits.HEADS)
def test_a_reward_head_learns_a_quadratic_reward_and_depends_on_the_seed_alone(kind):
    data, others = _split(_random_steps(4000), 3000)
    few, again, many = (estimate_fits.fitted_head(kind, data, updates, 0) for updates in (1, 1, 600))
    inputs = torch.cat([others.after, others.actions], dim=-1)
    torch.testing.assert_close(again.mean(inputs), few.mean(inputs), rtol=0, atol=0)
    errors = [float(((head.mean(inputs) - others.rewards) ** 2).mean()) for head in (few, many)]
    assert errors[1] < 0.4 * float(others.rewards.var()) < errors[0]


def test_dynamics_learn_what_follows_and_lead_plans_along_the_true_states():
    data, others = _split(_random_steps(4000), 3000)
    few, many = (estimate_fits.fitted_dynamics(data, updates, 0) for updates in (1, 600))
    change = (others.after - others.before).var(0)
    errors = [
        ((dynamics(others.before, others.actions) - others.after) ** 2).mean(0) / change
        for dynamics in (few, many)
    ]
    assert (errors[1] < 0.02).all()
    assert (errors[0] > 0.1).all()
    rng = np.random.default_rng(0)
    start, plans = rng.uniform(-0.5, 0.5, (3, 4)), rng.uniform(-1, 1, (3, 20, 5, 2)).astype(np.float32)
    rated = [
        planning_parts._Fitted(_TrueRewards(), dynamics).returns(start, torch.from_numpy(plans))
        for dynamics in (None, many)
    ]
    torch.testing.assert_close(rated[0], rated[1], atol=0.1, rtol=0.05)


def test_a_planner_takes_what_rates_plans_in_place_of_the_true_model():
    env = drift_control_v0.batched_env(4, scenario="hidden")
    seeds = np.arange(4, dtype=np.uint64)
    settings = planning_parts.PLANNERS["iCEM, 8 steps"]

    class Reversed(_TrueRewards):
        def mean(self, inputs):
            return -super().mean(inputs)

    actions = []
    for head in (None, _TrueRewards(), Reversed()):
        env.reset(seeds)
        fitted = None if head is None else planning_parts._Fitted(head, None)
        actions.append(planning_parts._Plans(env, seeds, settings, True, fitted).act())
    np.testing.assert_allclose(actions[0], actions[1], atol=1e-3)
    assert np.abs(actions[0] - actions[2]).max() > 0.5


class _Constant:
    def __init__(self, actions):
        self.actions = np.array(actions, np.float32)[:, None]

    def act(self):
        return self.actions


def test_an_episode_that_ends_early_counts_once():
    env = drift_control_v0.batched_env(2, scenario="hidden", max_steps=60)
    actions = [[1.0, 1.0], [0.0, 0.0]]  # the first drifts out of the radius
    cost = drift_play.mean_cost(env, np.array([5, 6], np.uint64), _Constant(actions))
    alone = []
    for seed, action in zip((5, 6), actions, strict=True):
        single = drift_control_v0.batched_env(1, scenario="hidden", max_steps=60)
        single.reset(np.array([seed], np.uint64))
        while single.running.any():
            single.step(np.array([[action]], np.float32))
        alone.append((float(single.info()["cost"][0]), int(single.info()["steps"][0])))
    assert alone[0][1] < 60
    np.testing.assert_allclose(cost, np.mean([found for found, _ in alone]), rtol=1e-5)

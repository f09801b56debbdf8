"""What a Learner's update does beside its loss: standardised values, recorded entropies, annealing, statistics."""

import math

import numpy as np
import pytest
import torch
from toy_runners import MASKED, config_of, forest, learner_of, runner_of

from qio_rllib.algorithms import A2CConfig
from qio_rllib.learners import entropy_annealing
from qio_rllib.learners.advantages import compute_advantages
from qio_rllib.learners.entropy_annealing import EntropyCoefficients
from qio_rllib.learners.popart import PopArt

GAMMA, LAMBDA = 0.9, 0.8
EXPONENTIAL = {"law": "exponential", "alpha_0": 0.1, "alpha_min": 0.001, "decay": 0.3}


def built(config):
    """Return a runner's rollout and the Learner."""
    runner = runner_of(config)
    return runner.sample()[0], learner_of(config, runner)


def a2c(**training):
    return (
        A2CConfig()
        .environment("forest_uav_v0", env_config={"height": 6, "width": 6, "num_uavs": 3, "max_steps": 7})
        .env_runners(num_envs_per_env_runner=2, rollout_fragment_length=10)
        .training(train_batch_size_per_learner=20, gamma=GAMMA, lambda_=LAMBDA, **training)
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=3)
    )


def reported(result, module_id="shared"):
    """Return an update's numbers of a module, by name."""
    return {key: float(stats.peek()) for key, stats in result[module_id].items()}


# -- PopArt -------------------------------------------------------------------------------------------------------


def test_credit_is_in_units_of_reward_whatever_the_scale_of_values():
    rollout, learner = built(a2c(normalize_values=True))
    part = rollout.modules["shared"]
    moments = {"weight": 0.5, "first": -10.0, "second": 0.5 * (400.0 + 9.0)}
    learner._popart["shared"].set_state({**moments, "mean": -20.0, "deviation": 3.0})
    network = learner.module["shared"].value

    def values(obs):
        with torch.no_grad():
            return network(torch.from_numpy(obs).flatten(-1))[0].numpy() * 3.0 - 20.0

    before = values(part.observations)
    expected = compute_advantages(part, before, values(part.final_observations), GAMMA, LAMBDA)
    batch = learner.prepare("shared", [part])
    np.testing.assert_allclose(batch.columns["advantages"], expected[part.acted], rtol=1e-4, atol=1e-4)
    scale = learner._popart["shared"]
    targets = (expected + before[:-1])[part.acted]
    found = batch.columns["value_targets"] * scale.deviation + scale.mean
    np.testing.assert_allclose(found, targets, rtol=1e-4, atol=1e-4)
    # The moments have moved towards the targets, and the last layer with them: what it says stays what it was.
    assert scale.mean == pytest.approx((0.99 * -10.0 + 0.01 * targets.mean()) / (0.99 * 0.5 + 0.01))
    with torch.no_grad():
        after = network(torch.from_numpy(part.observations).flatten(-1))[0].numpy()
    np.testing.assert_allclose(after * scale.deviation + scale.mean, before, rtol=1e-4, atol=1e-4)


def test_moments_are_weighted_means_of_all_updates_and_estimates_stay_from_the_second_on():
    rng = np.random.default_rng(2)
    layer, inputs = torch.nn.Linear(3, 1).double(), torch.randn(5, 3, dtype=torch.double)
    scale, weights, means, squares = PopArt(), [], [], []
    assert (scale.mean, scale.deviation) == (0.0, 1.0)
    for update in range(4):
        targets = rng.normal(10.0 * update, 1.0 + update, size=20)
        with torch.no_grad():
            before = layer(inputs)
            said = before * scale.deviation + scale.mean
            scale.update(targets.mean(), (targets**2).mean(), layer)
            after = layer(inputs)
        if update:
            torch.testing.assert_close(after * scale.deviation + scale.mean, said)
        else:
            assert torch.equal(after, before)
        weights = [*(0.99 * np.array(weights)), 0.01]
        means, squares = [*means, targets.mean()], [*squares, (targets**2).mean()]
        mean, square = np.average(means, weights=weights), np.average(squares, weights=weights)
        assert scale.mean == pytest.approx(mean)
        assert scale.deviation == pytest.approx(np.sqrt(square - mean**2))
    same = PopArt()
    same.update(7.0, 49.0, layer)
    assert (same.mean, same.deviation) == (pytest.approx(7.0), 1e-4)  # of equal targets


# -- entropy ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", [{}, {"use_lstm": True, "lstm_cell_size": 4, "max_seq_len": 5}])
def test_the_entropy_is_over_legal_actions_all_minibatches_and_all_epochs(memory, monkeypatch):
    config = forest(num_envs=4, **MASKED).training(lr=0.03, entropy_annealing=EXPONENTIAL, use_kl_loss=False)
    rollout, learner = built(config.rl_module(model_config={"fcnet_hiddens": [8], **memory}))
    normalized, per_minibatch, losses = [], [], learner.losses

    def recording(module_id, config, batch, policy, values):
        legal = (policy.log_probs > -1e30).sum(-1)
        assert (legal < 5).any()
        entropy = -(policy.probs * policy.log_probs).sum(-1).detach() / legal.double().log()
        normalized.extend(entropy.tolist())
        loss, stats = losses(module_id, config, batch, policy, values)
        per_minibatch.append({name: float(value) for name, value in stats.items()})
        return loss, stats

    monkeypatch.setattr(learner, "losses", recording)
    found = reported(learner.update(episodes=[rollout], minibatch_size=40, num_epochs=2))
    assert len(normalized) == 2 * 120
    assert len(per_minibatch) == 2 * 3
    assert found["normalized_entropy"] == pytest.approx(np.mean(normalized), rel=1e-5)
    # Epochs and minibatches differ enough that a mean over some of them would be seen.
    parts = [np.mean(normalized[:120]), np.mean(normalized[120:]), np.mean(normalized[-40:])]
    assert min(abs(part - np.mean(normalized)) for part in parts) > 1e-4
    for name in ("policy_loss", "vf_loss", "entropy"):
        values = [stats[name] for stats in per_minibatch]
        assert found[name] == pytest.approx(np.mean(values), rel=1e-5), name
        assert found[name] != pytest.approx(values[-1], rel=1e-4), name


def test_rows_with_one_legal_action_have_no_entropy_and_break_nothing():
    coefficients = EntropyCoefficients(None, lambda module_id: 0.0, "cpu")
    entropies = torch.tensor([0.0, math.log(3), math.log(2)])
    coefficients.record("shared", entropies, torch.tensor([1, 3, 4]))
    assert coefficients.advance(0)["shared", "normalized_entropy"] == pytest.approx(1.5 / 3)
    coefficients.record("shared", torch.full((2,), math.log(2)), 8)  # of this update alone
    assert coefficients.advance(0)["shared", "normalized_entropy"] == pytest.approx(1 / 3)
    coefficients.record("shared", torch.zeros(2), 1)
    assert coefficients.advance(0)["shared", "normalized_entropy"] == 0.0


def test_several_learners_entropy_is_the_mean_over_all_their_rows(monkeypatch):
    coefficients = EntropyCoefficients(
        {"law": "quantum", "alpha_0": 0.1, "alpha_min": 0.0, "decay": 0.5}, lambda module_id: 0.0, "cpu"
    )
    # What the other Learner has: 30 rows of entropy 0.5, beside 10 rows of entropy 1 here.
    monkeypatch.setattr(
        entropy_annealing,
        "reduce_over_learners",
        lambda sums: sums + torch.tensor([15.0, 30.0], dtype=torch.float64),
    )
    coefficients.record("shared", torch.full((10,), math.log(4)), 4)
    moved = coefficients.advance(0)
    assert moved["shared", "normalized_entropy"] == pytest.approx(25 / 40)
    assert moved["shared", "alpha"] == pytest.approx(0.1 * math.exp(-0.5 * math.sqrt(1 - (25 / 40) ** 2)))


def pendulum(law, **training):
    config = config_of("Pendulum-v1", {"max_episode_steps": 7}, num_envs=4, fragment=10)
    return config.training(entropy_annealing=law, **training)


@pytest.mark.parametrize("memory", [{}, {"use_gru": True, "gru_cell_size": 4, "max_seq_len": 5}])
def test_with_box_actions_the_exponential_law_moves_by_one_update_each(memory):
    config = pendulum(EXPONENTIAL).rl_module(model_config={"fcnet_hiddens": [8], **memory})
    rollout, learner = built(config)
    for count in range(1, 4):
        assert learner.entropy_coefficients.current("default_policy") == pytest.approx(
            0.1 * math.exp(-0.3 * (count - 1))
        )
        found = reported(
            learner.update(episodes=[rollout], minibatch_size=10, num_epochs=3), "default_policy"
        )
        assert found["alpha"] == pytest.approx(0.1 * math.exp(-0.3 * count))
        assert "normalized_entropy" not in found  # a differential entropy has no bounds to divide by


def test_with_box_actions_a_law_that_looks_at_the_entropy_stands_still():
    rollout, learner = built(pendulum({**EXPONENTIAL, "law": "quantum"}))
    found = reported(learner.update(episodes=[rollout]), "default_policy")
    assert found["alpha"] == 0.1


def test_only_modules_that_took_part_move_their_law():
    config = forest().training(entropy_annealing=EXPONENTIAL)
    config.multi_agent(policies={"pair": ["uav_0", "uav_1"], "single": ["uav_2"]}, policies_to_train=["pair"])
    rollout, learner = built(config)
    result = learner.update(episodes=[rollout], minibatch_size=10, num_epochs=2)
    assert reported(result, "pair")["alpha"] == pytest.approx(0.1 * math.exp(-0.3))
    assert learner.entropy_coefficients.current("single") == 0.1


@pytest.mark.parametrize("make", [forest, a2c])
def test_a_schedule_of_the_coefficient_goes_by_environment_steps(make):
    rollout, learner = built(make().training(entropy_coeff=[[0, 0.4], [100, 0.2]]))
    used, losses = [], learner.losses

    def recording(*given):
        used.append(float(learner.entropy_coefficients.current("shared")))
        return losses(*given)

    learner.losses = recording
    for steps, coefficient in ((50, 0.3), (75, 0.25), (500, 0.2)):
        found = reported(
            learner.update(episodes=[rollout], timesteps={"num_env_steps_sampled_lifetime": steps})
        )
        assert found["curr_entropy_coeff"] == pytest.approx(coefficient)
        assert float(learner.entropy_coefficients.current("shared")) == pytest.approx(coefficient)
    assert used == pytest.approx([0.4, 0.3, 0.25])

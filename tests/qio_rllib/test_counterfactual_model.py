"""Counterfactual baselines by a learned model: its columns, its way through checkpoints, what it does to advantages."""

import gymnasium
import numpy as np
import pytest
import torch
from ray.rllib.evaluation.postprocessing import Postprocessing
from toy_runners import learner_of, runner_of

from qio_envs.api import ConfigError
from qio_rllib.acting.actor import DIST_INPUTS
from qio_rllib.algorithms import PPOConfig
from qio_rllib.causal.baseline import CounterfactualBaselineSettings
from qio_rllib.causal.model import Outcome
from qio_rllib.learners.counterfactual_model import CounterfactualModel
from qio_rllib.learners.training_batch import PLAIN_ADVANTAGES
from qio_rllib.sampling.counterfactuals import OBSERVATIONS, REWARDS, TERMINATED

FOREST = {"height": 6, "width": 6, "num_uavs": 2, "max_steps": 7}


def config_of(env="causal_chain_v0", env_config=None, steps=100, **training):
    return (
        PPOConfig()
        .environment(env, env_config=env_config or {})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=4, rollout_fragment_length=steps)
        .training(
            **{
                "train_batch_size_per_learner": 4 * steps,
                "minibatch_size": 4 * steps,
                "num_epochs": 1,
                "gamma": 0.0,
                "counterfactual_baseline": {"source": "model", "samples": 6},
                **training,
            }
        )
        .rl_module(model_config={"fcnet_hiddens": [8]})
        .debugging(seed=3)
    )


def rollout_of(config):
    runner = runner_of(config)
    (rollout,) = runner.sample()
    return runner, rollout


def test_the_noise_is_gone_from_the_advantages_of_the_chain_once_the_model_has_learned(monkeypatch):
    """x3 less its mean over other actions is 0.4 times the action less theirs: no noise is left in it."""
    given = {"source": "model", "samples": 16, "model_steps": 60, "model_hiddens": [16]}
    config = config_of(steps=500, counterfactual_baseline=given)
    runner, rollout = rollout_of(config)
    learner = learner_of(config, runner)
    monkeypatch.setattr(learner, "_standardized", lambda advantages, valid: advantages)
    part = rollout.modules["shared"]
    first = learner.prepare("shared", [part]).columns[Postprocessing.ADVANTAGES]
    model, errors = learner._counterfactual_model, []
    for _ in range(6):
        (fresh,) = runner.sample()
        errors.append(model.learn("shared", [fresh.modules["shared"]], None))
    assert errors[-1] < 0.8 * errors[0]
    (fresh,) = runner.sample()
    new = fresh.modules["shared"]
    batch = learner.prepare("shared", [new])
    assert PLAIN_ADVANTAGES not in batch.columns
    found = batch.columns[Postprocessing.ADVANTAGES].numpy().reshape(-1)
    mean = np.clip(new.columns[DIST_INPUTS][..., 0], -1, 1).reshape(-1)
    wanted = 0.4 * (np.clip(new.actions[..., 0], -1, 1).reshape(-1) - mean)
    assert np.corrcoef(found, wanted)[0, 1] > 0.9
    assert found.var() < 0.6 * first.numpy().var()  # the reward's noise, which the first batch still had


def test_the_action_that_was_taken_leads_to_what_happened():
    """Discrete actions are all tried: the outcome of the taken one is the recorded step, up to rounding."""
    config = config_of("forest_uav_v0", FOREST, steps=20)
    runner, rollout = rollout_of(config)
    learner = learner_of(config, runner)
    model = learner._counterfactual_model
    part = rollout.modules["shared"]
    count = int(runner.env.env.action_space.n)
    assert model.with_outcomes("shared", [part], count) == [part]  # nothing learned yet
    model.learn("shared", [part], count)
    (found,) = model.with_outcomes("shared", [part], count)
    rewards, observations = found.columns[REWARDS], found.columns[OBSERVATIONS]
    assert rewards.shape == (*part.acted.shape, count)
    assert observations.shape == (*part.acted.shape, count, *part.observations.shape[3:])
    places = np.nonzero(part.acted)
    taken = (*places, part.actions[part.acted])
    assert len(places[0]) > 100
    np.testing.assert_allclose(rewards[taken], part.rewards[part.acted], atol=1e-4)
    np.testing.assert_allclose(observations[taken], part.next_observations()[part.acted], atol=1e-4)
    assert np.ptp(rewards[part.acted], axis=-1).max() > 1e-3  # others lead elsewhere
    assert (found.columns[TERMINATED] == part.terminated[..., None]).all()


def test_continuous_actions_are_drawn_in_pairs_about_the_mean(monkeypatch):
    config = config_of()
    runner, rollout = rollout_of(config)
    model = learner_of(config, runner)._counterfactual_model
    part = rollout.modules["shared"]
    model.learn("shared", [part], None)
    seen = []

    def spy(step, action):
        seen.append(action)
        count = len(action)
        return Outcome(torch.zeros(count, np.shape(step.state)[1]), torch.zeros(count))

    monkeypatch.setattr(model._models["shared"], "counterfactual", spy)
    model.with_outcomes("shared", [part], None)
    drawn = np.stack(seen)
    mean = np.split(part.columns[DIST_INPUTS][part.acted], 2, axis=-1)[0]
    inside = (np.abs(drawn[:3]) < 1) & (np.abs(drawn[3:]) < 1)
    assert inside.sum() > 100
    np.testing.assert_allclose(
        ((drawn[:3] + drawn[3:]) / 2)[inside], np.broadcast_to(mean, drawn[:3].shape)[inside], atol=1e-5
    )
    assert np.abs(drawn).max() == 1


def test_a_restored_model_goes_on_as_the_first_would():
    config = config_of(steps=20)
    runner, rollout = rollout_of(config)
    part = rollout.modules["shared"]
    settings = CounterfactualBaselineSettings.of({"source": "model", "samples": 3, "model_steps": 5})
    first, second = CounterfactualModel(settings, 1), CounterfactualModel(settings, 2)
    first.learn("shared", [part], None)
    second.set_state(first.get_state())
    for model in (first, second):
        model.learn("shared", [part], None)
    one, other = (model.with_outcomes("shared", [part], None)[0].columns for model in (first, second))
    for name in (REWARDS, OBSERVATIONS):
        assert (one[name] == other[name]).all()
    learner, again = learner_of(config, runner), learner_of(config, runner)
    learner._counterfactual_model.learn("shared", [part], None)
    again.set_state(learner.get_state())
    assert again._counterfactual_model._models.keys() == {"shared"}
    assert (
        "counterfactual_baseline"
        not in learner_of(config_of(counterfactual_baseline=None), runner).get_state()
    )


@pytest.mark.usefixtures("ray_runtime")
def test_training_goes_through_in_an_environment_that_cannot_be_branched():
    config = config_of("CartPole-v1", steps=25, gamma=0.99, counterfactual_baseline={"source": "model"})
    algorithm = config.build_algo()
    try:
        rows = [algorithm.train()["learners"]["default_policy"] for _ in range(3)]
    finally:
        algorithm.stop()
    assert float(rows[0]["advantage_variance_ratio"]) == 1  # nothing was known yet
    assert float(rows[2]["advantage_variance_ratio"]) != 1
    assert float(rows[2]["counterfactual_model_error"]) < float(rows[0]["counterfactual_model_error"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: config_of("forest_uav_v0", FOREST, central_value="state"),
            "counterfactual_baseline.source: a model predicts what an agent observes",
        ),
        (
            lambda: config_of().learners(num_learners=2),
            "num_learners: counterfactual_baseline fits its model",
        ),
        (
            lambda: config_of().environment(normalize_actions=False),
            r"normalize_actions: the model of counterfactual_baseline takes actions in \[-1, 1\]",
        ),
        (
            lambda: config_of().rl_module(
                model_config={"use_gru": True, "gru_cell_size": 4, "max_seq_len": 4}
            ),
            "counterfactual_baseline: follows other actions without memory; set use_gru to false",
        ),
        (
            lambda: config_of(counterfactual_baseline={"source": "modle"}),
            "counterfactual_baseline.source: expected environment or model, got 'modle'",
        ),
        (
            lambda: config_of(counterfactual_baseline={"source": "model", "model_steps": 0}),
            "counterfactual_baseline.model_steps: expected an integer of at least 1, got 0",
        ),
        (
            lambda: config_of(counterfactual_baseline={"source": "model", "model_hiddens": []}),
            r"counterfactual_baseline.model_hiddens: expected sizes of at least 1, got \[\]",
        ),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(ConfigError, match=message):
        make().validate()


def test_environments_with_draws_that_depend_on_actions_take_the_model():
    config_of("qubit_control_v0", {"gate_noise": 0.1}).validate()
    assert gymnasium.make("CartPole-v1").action_space.n == 2

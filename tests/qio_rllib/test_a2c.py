"""A2C: its loss, its place in Tune, what it refuses."""

import numpy as np
import pytest
import torch
from ray import tune
from ray.rllib.core.columns import Columns

from qio_envs.api import ConfigError
from qio_rllib.acting.distributions import Distributions
from qio_rllib.algorithms import A2C, A2CConfig
from qio_rllib.exploration import ExponentialAnnealing

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]

SMALL = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 20}


def small_config(env: str = "forest_uav_v0", runners: int = 0) -> A2CConfig:
    return (
        A2CConfig()
        .environment(env, env_config=SMALL if env == "forest_uav_v0" else {})
        .env_runners(num_env_runners=runners, num_envs_per_env_runner=2, rollout_fragment_length=10)
        .training(train_batch_size_per_learner=20 * max(1, runners))
        .reporting(min_sample_timesteps_per_iteration=40)
        .rl_module(model_config={"fcnet_hiddens": [16]})
        .debugging(seed=0)
    )


def test_the_loss_is_the_policy_gradient_with_value_and_entropy_terms():
    algorithm = small_config().training(vf_loss_coeff=0.7, entropy_coeff=0.03).build_algo()
    learner = algorithm.learner_group._learner
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(30, 5, generator=generator)
    actions = torch.randint(0, 5, (30,), generator=generator)
    advantages, targets, values = torch.randn(3, 30, generator=generator)
    loss, stats = learner.losses(
        "shared",
        learner.config.get_config_for_module("shared"),
        {Columns.ACTIONS: actions, "advantages": advantages, "value_targets": targets},
        Distributions(logits, discrete=True),
        values,
    )
    policy = torch.distributions.Categorical(logits=logits)
    expected = (
        -(policy.log_prob(actions) * advantages).mean()
        + 0.7 * ((values - targets) ** 2).mean()
        - 0.03 * policy.entropy().mean()
    )
    torch.testing.assert_close(loss, expected)
    assert stats["entropy"] == pytest.approx(policy.entropy().mean().item(), rel=1e-5)
    algorithm.stop()


@pytest.mark.parametrize(("env", "runners"), [("forest_uav_v0", 1), ("mpe2.simple_speaker_listener_v4", 0)])
def test_every_update_is_one_step_and_moves_every_module(env, runners):
    algorithm = small_config(env, runners).build_algo()
    before = algorithm.learner_group.get_weights()
    result = algorithm.train()
    after = algorithm.learner_group.get_weights()
    assert result["env_runners"]["num_env_steps_sampled_lifetime"] == 40
    for module_id, weights in before.items():
        assert any(np.any(weights[name] != after[module_id][name]) for name in weights)
        assert np.isfinite(result["learners"][module_id]["total_loss"])
    algorithm.stop()


def test_annealing_counts_updates():
    law = {"law": "exponential", "alpha_0": 0.1, "alpha_min": 0.01, "decay": 0.3}
    algorithm = small_config().training(entropy_annealing=law, amplification={}).build_algo()
    expected = ExponentialAnnealing(alpha_0=0.1, alpha_min=0.01, decay=0.3)
    for _ in range(2):
        alphas = []
        for _ in range(2):  # updates in an iteration; what is reported is their mean
            expected.update(0.5)
            alphas.append(expected.alpha)
        assert algorithm.train()["learners"]["shared"]["alpha"] == pytest.approx(np.mean(alphas))
    algorithm.stop()


def test_schedules_go_by_the_environment_steps_of_all_updates():
    schedules = {"lr": [[0, 1e-2], [400, 0.0]], "entropy_coeff": [[0, 0.4], [400, 0.0]]}
    algorithm = small_config().training(**schedules).build_algo()
    learner = algorithm.learner_group._learner
    for steps in (40, 80):
        algorithm.train()
        (optimizer,) = learner._named_optimizers.values()
        assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 * (1 - steps / 400))
        assert float(learner.entropy_coefficients.current("shared")) == pytest.approx(0.4 * (1 - steps / 400))
    algorithm.stop()


@pytest.mark.long
def test_tune_knows_the_name_and_takes_a_plain_mapping(tmp_path):
    analysis = tune.run(
        "A2C",
        config={"env": "CartPole-v1", "lr": 1e-3},
        stop={"training_iteration": 1},
        storage_path=str(tmp_path),
        verbose=0,
    )
    (trial,) = analysis.trials
    assert trial.get_trainable_cls() is A2C
    assert trial.last_result["env_runners"]["num_env_steps_sampled_lifetime"] >= 40


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda config: config.env_runners(env_runner_cls=None),
            "env_runner_cls: A2C needs BatchedEnvRunner",
        ),
        (lambda config: config.training(lambda_=1.5), "lambda_: expected a number from 0 to 1, got 1.5"),
        (lambda config: config.training(vf_loss_coeff=-1.0), "vf_loss_coeff: .* at least 0, got -1.0"),
    ],
)
def test_bad_settings_are_refused(change, message):
    with pytest.raises(ConfigError, match=message):
        change(small_config()).validate()

"""PPO on the new API stack with the Q operator and entropy annealing, on RLlib's own runners and learner."""

from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from ray import tune
from ray.rllib.algorithms.ppo import PPOConfig as StockPPOConfig
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from qio_envs.api import ConfigError
from qio_rllib.algorithms import PPOConfig
from qio_rllib.algorithms.ppo import PPOLearner
from qio_rllib.exploration import LOG_FLOOR, QuantumAnnealing
from qio_rllib.models.actor_critic import ActorCritic

pytestmark = [pytest.mark.ray, pytest.mark.usefixtures("ray_runtime")]

SMALL = {"height": 6, "width": 6, "num_uavs": 3, "max_steps": 20}
LAW = {"law": "quantum", "alpha_0": 0.1, "alpha_min": 0.01, "decay": 0.5}


class RecordingLearner(PPOLearner):
    """Writes the ratio of the first minibatch of every update into the metrics."""

    def before_gradient_based_update(self, *, timesteps) -> None:
        super().before_gradient_based_update(timesteps=timesteps)
        self.is_first = True

    def losses(self, module_id, config, batch, policy, values) -> Any:
        if self.is_first:
            ratio = torch.exp(policy.logp(batch[Columns.ACTIONS]) - batch[Columns.ACTION_LOGP])
            self.metrics.log_value((module_id, "first_ratio_low"), ratio.min().item(), window=1)
            self.metrics.log_value((module_id, "first_ratio_high"), ratio.max().item(), window=1)
        self.is_first = False
        return super().losses(module_id, config, batch, policy, values)


def small_config(runners: int = 0, **env_config: Any) -> PPOConfig:
    return (
        PPOConfig()
        .environment("forest_uav_v0", env_config=SMALL | env_config)
        .env_runners(num_env_runners=runners, num_envs_per_env_runner=2)
        .training(
            lr=1e-3,
            train_batch_size_per_learner=80,
            minibatch_size=60,
            num_epochs=2,
            use_kl_loss=False,
            amplification={"eta": 0.3, "h_min": 0.2, "tau": 0.9},
            entropy_annealing=LAW,
        )
        .rl_module(model_config={"fcnet_hiddens": [16], "vf_share_layers": False})
        .debugging(seed=0)
    )


@pytest.mark.parametrize("runners", [0, 1])
def test_ratio_is_one_on_the_first_minibatch(runners):
    config = small_config(runners).learners(learner_class=RecordingLearner)
    algorithm = config.build_algo()
    for _ in range(2):  # the second update has weights that were synced
        metrics = algorithm.train()["learners"]["shared"]
        assert metrics["first_ratio_low"] == pytest.approx(1.0, abs=2e-6)
        assert metrics["first_ratio_high"] == pytest.approx(1.0, abs=2e-6)
    values = algorithm.env_runner_group.foreach_env_runner(
        lambda runner: float(runner.module["shared"].policy.eta), local_env_runner=runners == 0
    )
    assert values == [pytest.approx(0.3)]
    algorithm.stop()


def test_alpha_follows_the_law_and_survives_a_checkpoint(tmp_path):
    law = QuantumAnnealing(alpha_0=0.1, alpha_min=0.01, decay=0.5)
    algorithm = small_config().build_algo()
    entropies, alphas = [], []
    for _ in range(3):
        metrics = algorithm.train()["learners"]["shared"]
        entropies.append(metrics["normalized_entropy"])
        alphas.append(metrics["alpha"])
    algorithm.save_to_path(str(tmp_path / "checkpoint"))
    algorithm.stop()
    restored = small_config().build_algo()
    restored.restore_from_path(str(tmp_path / "checkpoint"))
    for _ in range(2):
        metrics = restored.train()["learners"]["shared"]
        entropies.append(metrics["normalized_entropy"])
        alphas.append(metrics["alpha"])
    restored.stop()
    assert alphas == pytest.approx([law.update(entropy) for entropy in entropies], rel=1e-6)
    assert len(set(alphas)) == 5  # it moves
    exponent = np.cumsum(np.sqrt(1 - np.square(entropies)))
    assert alphas == pytest.approx(np.maximum(0.01, 0.1 * np.exp(-0.5 * exponent)), rel=1e-5)


def test_the_loss_takes_its_coefficient_from_the_law():
    """Same weights and batch: the loss differs by alpha times the entropy and by nothing else."""
    algorithm = small_config().build_algo()
    learner = algorithm.learner_group._learner
    module = learner.module["shared"]
    batch = {
        Columns.OBS: torch.rand(6, *module.observation_space.shape),
        Columns.ACTIONS: torch.zeros(6, dtype=torch.long),
        Columns.ACTION_LOGP: torch.full((6,), -1.6),
        Columns.ACTION_DIST_INPUTS: torch.zeros(6, 5),
        "advantages": torch.ones(6),
        "value_targets": torch.zeros(6),
    }
    config = learner.config.get_config_for_module("shared")

    def loss() -> tuple[float, torch.Tensor]:
        output = module.forward_train(batch)
        value = learner.compute_loss_for_module(
            module_id="shared", config=config, batch=batch, fwd_out=output
        )
        return value.item(), output[Columns.ACTION_DIST_INPUTS]

    before, log_probs = loss()
    law = learner.entropy_coeff_schedulers_per_module["shared"].law
    law.set_state(law.get_state())
    for _ in range(3):
        law.update(0.2)
    after, _ = loss()
    entropy = -(log_probs.exp() * log_probs).sum(-1).mean().item()
    assert law.alpha < 0.05
    assert after - before == pytest.approx((0.1 - law.alpha) * entropy, rel=1e-4)
    algorithm.stop()


def test_stock_config_takes_module_and_learner():
    config = (
        StockPPOConfig()
        .environment("CartPole-v1")
        .env_runners(num_env_runners=0)
        .rl_module(
            rl_module_spec=RLModuleSpec(
                module_class=ActorCritic,
                model_config={"fcnet_hiddens": [16], "amplification": {"h_min": 0.3}},
            )
        )
        .learners(learner_class=PPOLearner, learner_config_dict={"entropy_annealing": LAW})
        .training(train_batch_size_per_learner=200, minibatch_size=100, num_epochs=1)
    )
    algorithm = config.build_algo()
    metrics = algorithm.train()["learners"]["default_policy"]
    module = algorithm.get_module()
    assert metrics["normalized_entropy"] >= 0.3
    assert metrics["alpha"] <= 0.1
    assert {"policy.eta", "policy.h_min", "policy.tau"} <= set(module.get_state())
    assert float(module.policy.h_min) == pytest.approx(0.3)
    algorithm.stop()


def test_masked_actions_are_never_taken():
    config = small_config(mask_blocked_moves=True, obstacle_density=0.2)
    algorithm = config.build_algo()
    algorithm.train()
    (rollout,) = algorithm.env_runner.sample(num_timesteps=40)
    part = rollout.modules["shared"]
    assert part.action_mask is not None
    assert not part.action_mask.all()
    assert np.take_along_axis(part.action_mask[:-1], part.actions[..., None], axis=-1).all()
    algorithm.stop()


def test_metrics_of_the_environment_are_in_every_result():
    algorithm = small_config().build_algo()
    for _ in range(2):
        result = algorithm.train()["env_runners"]
        assert 0 < result["coverage"] <= 1
        assert result["team_return"] <= 36
        # every UAV gets the whole team reward
        assert result["episode_return_mean"] == pytest.approx(3 * result["team_return"], rel=0.2)
    algorithm.stop()


def test_connectors_are_built_for_rllibs_runners_alone():
    """Each looks through the whole call stack when it is built."""
    config = small_config()
    assert config.build_learner_connector(None, None) is None
    assert len(config.env_runners(env_runner_cls=None).build_learner_connector(None, None)) > 5


@pytest.mark.parametrize(
    "env_id",
    ["mpe2.simple_spread_v3", "mpe2.simple_speaker_listener_v4", "CartPole-v1", "Pendulum-v1"],
)
def test_other_environments_train_and_evaluate(env_id):
    config = (
        PPOConfig()
        .environment(env_id)
        .env_runners(num_env_runners=0)
        .evaluation(evaluation_interval=1, evaluation_duration=2)
        .training(train_batch_size_per_learner=100, minibatch_size=50, num_epochs=1)
    )
    algorithm = config.build_algo()
    result = algorithm.train()
    for name in ("greedy", "sampled"):
        assert np.isfinite(result["evaluation"][name]["episode_return"])
    algorithm.stop()


def test_continuous_actions_are_refused_where_they_make_no_sense():
    config = PPOConfig().environment("Pendulum-v1").env_runners(num_env_runners=0).training(amplification={})
    with pytest.raises(ConfigError, match="discrete actions"):
        config.build_algo()


@pytest.mark.long
def test_tune_run_takes_name_and_config(tmp_path):
    analysis = tune.run(
        "PPO",
        config=small_config(),
        stop={"training_iteration": 1},
        storage_path=str(tmp_path),
        verbose=0,
    )
    (trial,) = analysis.trials
    assert trial.last_result["learners"]["shared"]["alpha"] < 0.1


def test_clipped_actions_keep_the_loss_finite():
    env = gymnasium.make("CartPole-v1")
    module = ActorCritic(
        observation_space=env.observation_space,
        action_space=env.action_space,
        model_config={"fcnet_hiddens": [4], "amplification": {"eta": 10.0, "h_min": 0.0}},
    )
    inputs = module._forward_train({Columns.OBS: torch.randn(16, 4) * 100})[Columns.ACTION_DIST_INPUTS]
    assert inputs.min() >= LOG_FLOOR - 1e-3
    inputs.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)

"""Do agents with a world model learn? Drift control, a few episodes, fixed thresholds."""

import pytest

from qio_envs import drift_control_v0
from qio_envs.drift_control import LQRPolicy
from qio_rllib.algorithms import WorldModelConfig
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds, policy_from_modules

EPISODES = 4
SHORT = {"max_steps": 60}
PLANNER = {"horizon": 8, "candidates": 48, "iterations": 3, "elites": 6}
MODELS = {
    "ensemble": {"world_model": {"members": 3, "hiddens": [64, 64]}, "pretraining_updates": 1000},
    "rssm": {
        "world_model": {
            "type": "rssm", "deterministic": 64, "stochastic": 16, "embedding": 64, "hiddens": [64],
            "latent_hiddens": [64],
            "reward_hiddens": [64],
            "continuation_hiddens": [64],
        },
        "model_sequence_length": 15,
        "train_batch_size_per_learner": 24,
        "pretraining_updates": 400,
    },
}  # fmt: skip


def regulator_cost() -> float:
    env = drift_control_v0.batched_env(EPISODES, **SHORT)
    env.reset(evaluation_seeds(EPISODES))
    policy = LQRPolicy(env)
    while env.running.any():
        env.step(policy.act())
    return float(env.info()["cost"].mean())


def cost_of(config) -> float:
    """Train until the first update, and return the mean cost of episodes without exploration."""
    algorithm = config.build_algo()
    try:
        while "learners" not in algorithm.train():
            pass
        modules = dict(algorithm.env_runner.module.items())
        policy = policy_from_modules(modules, algorithm.config)
    finally:
        algorithm.stop()
    rows = evaluate(policy, config.env, config.env_config, evaluation_seeds(EPISODES), explore=False)
    return sum(row["cost"] for row in rows) / EPISODES


def config_of(env_config, sampled, **training) -> WorldModelConfig:
    return (
        WorldModelConfig()
        .environment("drift_control_v0", env_config={**SHORT, **env_config})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=10, rollout_fragment_length=20)
        .training(
            num_steps_sampled_before_learning_starts=sampled,
            env_steps_per_update=200,
            replay_capacity=10_000,
            train_batch_size_per_learner=256,
            model_lr=2e-3,
        )
        .training(**training)
        .reporting(min_sample_timesteps_per_iteration=1)
        .debugging(seed=0)
    )


@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize(("model", "most"), [("ensemble", 1.3), ("rssm", 2.0)])
def test_a_planner_over_a_learned_model_comes_near_the_regulator(model, most):
    """2,000 (ensemble) or 4,000 random steps; random play costs 14 times as much as the regulator."""
    config = config_of({}, 2000 if model == "ensemble" else 4000, **MODELS[model], planner=PLANNER)
    ratio = cost_of(config) / regulator_cost()
    assert ratio < most, f"{ratio:.2f} times the regulator's cost"


@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize("actions", ["continuous", pytest.param("discrete", marks=pytest.mark.long)])
def test_an_actor_learns_inside_a_model(actions):
    """2,000 random steps, then 400 updates of model, actor and critic (1,000 with discrete actions)."""
    settings = {**MODELS["ensemble"], "behaviour": "actor", "imagination_horizon": 8, "actor_lr": 1e-3}
    settings["pretraining_updates"] = 400 if actions == "continuous" else 1000
    config = config_of({"actions": actions}, 2000, **settings, critic_lr=1e-3, gamma=0.97)
    ratio = cost_of(config.training(train_batch_size_per_learner=64)) / regulator_cost()
    assert ratio < 1.6, f"{ratio:.2f} times the regulator's cost"

"""Does memory learn what only memory can? The committed experiment, a quarter of its steps, and its control."""

import pytest

import qio_envs
from qio_envs.api import normalized_score, reference_scores
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.sampling.evaluation import (
    FIRST_EVALUATION_SEED,
    evaluate,
    evaluation_seeds,
    policy_from_modules,
)

EPISODES = 40
SETTINGS = {"scenario": "remembered_target"}


def score_after(env_steps: int, use_lstm: bool) -> float:
    """Return the score with sampled actions between random play and the controller."""
    overrides = ["evaluation_interval=null", f"model_config.use_lstm={str(use_lstm).lower()}"]
    experiment = load_experiment("tune_configs/swarm_memory_ppo.yaml", overrides)
    algorithm = experiment.algorithm_config().build_algo()
    steps = 0
    while steps < env_steps:
        steps = algorithm.train()["num_env_steps_sampled_lifetime"]
    policy = policy_from_modules(dict(algorithm.env_runner.module.items()), algorithm.config)
    rows = evaluate(policy, experiment.env, SETTINGS, evaluation_seeds(EPISODES), explore=True)
    algorithm.stop()
    env = qio_envs.environment(experiment.env).batched_env(EPISODES, **SETTINGS)
    scripted = reference_scores(env, FIRST_EVALUATION_SEED)
    mean = sum(row["team_return"] for row in rows) / EPISODES
    return normalized_score(mean, scripted["random"], scripted["controller"])


@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.usefixtures("ray_runtime")
def test_a_policy_with_memory_remembers_the_target():
    assert score_after(130_000, use_lstm=True) >= 0.4


@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.usefixtures("ray_runtime")
def test_a_policy_without_memory_cannot():
    assert abs(score_after(60_000, use_lstm=False)) <= 0.25

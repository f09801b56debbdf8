"""Does MADDPG learn? The committed experiment, a fifth of its steps, a fixed threshold."""

import pytest

from qio_envs import swarm_cooperative_v0
from qio_envs.api import normalized_score, reference_scores
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.sampling.evaluation import (
    FIRST_EVALUATION_SEED,
    evaluate,
    evaluation_seeds,
    policy_from_modules,
)

EPISODES = 20


@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.usefixtures("ray_runtime")
def test_maddpg_learns_to_gather_a_swarm():
    """12,800 environment steps; the score is the team return without noise on 20 fixed seeds."""
    experiment = load_experiment("tune_configs/swarm_maddpg.yaml", ["evaluation_interval=null"])
    algorithm = experiment.algorithm_config().build_algo()
    steps = 0
    while steps < 12_800:
        steps = algorithm.train()["num_env_steps_sampled_lifetime"]
    policy = policy_from_modules(dict(algorithm.env_runner.module.items()), algorithm.config)
    rows = evaluate(policy, experiment.env, {}, evaluation_seeds(EPISODES), explore=False)
    algorithm.stop()
    score = sum(row["team_return"] for row in rows) / EPISODES
    scripted = reference_scores(swarm_cooperative_v0.batched_env(EPISODES), FIRST_EVALUATION_SEED)
    normalized = normalized_score(score, scripted["random"], scripted["controller"])
    assert normalized >= 0.9, f"team return {score:.1f}, scripted: {scripted}"

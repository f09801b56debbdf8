"""Does PPO learn with the counterfactual baseline? The committed experiment, a third of its steps, fixed thresholds."""

import pytest

from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds, policy_from_modules


@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.usefixtures("ray_runtime")
def test_ppo_learns_confounded_control_with_less_variance():
    """24,000 steps, 2 CPU seconds: zero action scores -396, the regulator -19.5."""
    experiment = load_experiment("tune_configs/confounded_control_ppo.yaml", ["evaluation_interval=null"])
    algorithm = experiment.algorithm_config().build_algo()
    ratios = []
    for _ in range(15):
        ratios.append(algorithm.train()["learners"]["shared"]["advantage_variance_ratio"])
    policy = policy_from_modules(dict(algorithm.env_runner.module.items()), algorithm.config)
    rows = evaluate(policy, experiment.env, {}, evaluation_seeds(50), explore=False)
    algorithm.stop()
    score = sum(row["team_return"] for row in rows) / 50
    assert score > -25, score
    assert sum(ratios) / len(ratios) < 0.9, ratios

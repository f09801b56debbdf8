"""Does the interventional-consistency term keep a policy from following what only goes along? PPO, 40,960 steps."""

import pytest

from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds, policy_from_modules


def returns_after(env_steps: int, *overrides: str) -> tuple[float, float]:
    """Return the mean returns beside distractors, as in training, and beside noise in their place."""
    config = "tune_configs/drift_control_consistency.yaml"
    experiment = load_experiment(config, ["evaluation_interval=null", *overrides])
    algorithm = experiment.algorithm_config().build_algo()
    steps = 0
    while steps < env_steps:
        steps = algorithm.train()["num_env_steps_sampled_lifetime"]
    policy = policy_from_modules(dict(algorithm.env_runner.module.items()), algorithm.config)
    algorithm.stop()
    found = []
    for scenario in ("distractors", "sensor_shift"):
        rows = evaluate(policy, experiment.env, {"scenario": scenario}, evaluation_seeds(20), explore=False)
        found.append(sum(row["episode_return"] for row in rows) / len(rows))
    return found[0], found[1]


@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.long
@pytest.mark.usefixtures("ray_runtime")
def test_a_policy_with_the_term_is_hardly_changed_by_the_shift_and_one_without_is():
    before, after = returns_after(40_960)
    assert before > -13  # random play: -308, the regulator: -9.6
    assert after > 1.1 * before
    before, after = returns_after(40_960, "interventional_consistency=null")
    assert before > -13
    assert after < 1.5 * before

"""Do circuits learn? The committed experiments, fixed thresholds."""

import numpy as np
import pytest

from qio_envs import chsh_v0
from qio_rllib.evaluation import evaluate, evaluation_seeds, policy_from_modules
from qio_rllib.experiment import load_experiment

STEPS = "num_env_steps_sampled_lifetime"
ROUNDS, COPIES = 100, 1000


def trained(path, steps, *overrides):
    """Return the policy after so many environment steps, and its experiment."""
    experiment = load_experiment(path, ["evaluation_interval=null", *overrides])
    algorithm = experiment.algorithm_config().build_algo()
    try:
        while algorithm.train()[STEPS] < steps:
            pass
        module = algorithm.env_runner.module
        modules = dict(module.items()) if hasattr(module, "items") else {"default_policy": module}
        return policy_from_modules(modules, algorithm.config), experiment
    finally:
        algorithm.stop()


@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize(
    ("name", "steps", "target"),
    [("ppo", 24_000, "uniform"), ("dqn", 6_000, "default")],
)
def test_circuits_find_the_shortest_way_to_a_state(name, steps, target):
    """At least 9 of 10 greedy episodes reach a fidelity of 0.95 after the fewest gates possible."""
    policy, experiment = trained(
        f"tune_configs/qubit_circuit_{name}.yaml", steps, f"env_config.scenario={target}"
    )
    rows = evaluate(policy, experiment.env, {"scenario": target}, evaluation_seeds(10), explore=False)
    optimal = [
        row["fidelity"] >= 0.95 and row["gates"] == row["steps_to_success_optimal"] == 2 for row in rows
    ]
    assert sum(optimal) >= 9, rows


@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize(("resource", "low", "high"), [("entangled", 0.84, 0.86), ("separable", 0.7, 0.755)])
def test_only_entangled_agents_pass_the_classical_bound(resource, low, high):
    """The share of 100,000 rounds of the CHSH game that is won after learning from reward alone."""
    policy, _ = trained("tune_configs/chsh_entangled_ppo.yaml", 120_000, f"coordination.resource={resource}")
    (module,) = policy.modules.values()
    env = chsh_v0.batched_env(COPIES, as_team=True, rounds=ROUNDS)
    env.reset(0)
    rng = np.random.default_rng(0)
    for _ in range(ROUNDS):
        env.step(module.act(env.observe()[:, 0], None, rng.random(COPIES))[:, None])
    assert low <= env.info()["win_rate"].mean() <= high

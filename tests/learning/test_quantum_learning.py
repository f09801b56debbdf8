"""Do circuits learn? The committed experiments, fixed thresholds."""

import numpy as np
import pytest

from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds, policy_from_modules

STEPS = "num_env_steps_sampled_lifetime"
ROUNDS, NUM_ENVS = 100, 1000


def policy_of(algorithm):
    return policy_from_modules(dict(algorithm.env_runner.module.items()), algorithm.config)


def optimal_episodes(policy, experiment):
    """Return how many of ten greedy episodes reach a fidelity of 0.95 after the fewest gates possible."""
    settings = experiment.config["env_config"]
    rows = evaluate(policy, experiment.env, settings, evaluation_seeds(10), explore=False)
    return sum(
        row["fidelity"] >= 0.95 and row["gates"] == row["steps_to_success_optimal"] == 2 for row in rows
    )


@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize(
    ("name", "target", "budget"), [("ppo", "uniform", 40_000), ("dqn", "default", 15_000)]
)
def test_circuits_find_the_shortest_way_to_a_state(name, target, budget):
    """Within the budget of environment steps a policy plays at least 9 of 10 episodes optimally, twice in a row."""
    experiment = load_experiment(
        f"tune_configs/qubit_circuit_{name}.yaml",
        ["evaluation_interval=null", f"env_config.scenario={target}"],
        seed=1,  # any seed learns; with this one DQN takes a third of the time that it takes with 0
    )
    algorithm = experiment.algorithm_config().build_algo()
    found = []
    try:
        while found[-2:] not in ([9, 9], [9, 10], [10, 9], [10, 10]):
            steps = algorithm.train()[STEPS]
            assert steps <= budget, f"optimal episodes of 10 after each iteration: {found}"
            found.append(optimal_episodes(policy_of(algorithm), experiment))
    finally:
        algorithm.stop()


@pytest.mark.ray
@pytest.mark.learning
@pytest.mark.usefixtures("ray_runtime")
@pytest.mark.parametrize(("resource", "low", "high"), [("entangled", 0.84, 0.86), ("separable", 0.7, 0.755)])
def test_only_entangled_agents_pass_the_classical_bound(resource, low, high):
    """The share of 100,000 rounds of the CHSH game that is won after learning from reward alone."""
    experiment = load_experiment(
        "tune_configs/chsh_entangled_ppo.yaml",
        ["evaluation_interval=null", f"coordination.resource={resource}"],
    )
    algorithm = experiment.algorithm_config().build_algo()
    while algorithm.train()[STEPS] < 120_000:
        pass
    policy = policy_of(algorithm)
    settings = {"as_team": True, "rounds": ROUNDS}
    rows = evaluate(policy, "chsh_v0", settings, range(NUM_ENVS), explore=True)
    algorithm.stop()
    assert low <= np.mean([row["win_rate"] for row in rows]) <= high

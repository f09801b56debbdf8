"""Six different forests: one policy of all, federated, against every forest alone and against pooled experience.

    python benchmarks/federated_forests.py --seeds 5
    python benchmarks/federated_forests.py --seeds 5 --table      # of what is there, no training

All arms take the same environment steps in the same forests (family ``six_forests``) with the same networks, PPO with
the Q operator: 40 iterations a forest. A score is the team's return over the number of free cells (at most 1), sampled,
the mean of 50 fixed evaluation episodes.

- pooled: one learner over the rollouts of all forests, what a federation can hope for;
- alone: a learner for each forest, scored on its own forest and on all six;
- averaging after 1 and after 4 iterations, and of the latter the corrections, a server with Adam, and personal heads.

Raw: results/federated/forests.csv, one row a seed, arm and forest.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from ray.rllib.core import COMPONENT_RL_MODULE
from tables import append, read, write

import qio_envs
from qio_envs.api import reference_scores
from qio_rllib.algorithms import FederatedConfig
from qio_rllib.artifacts.run_description import run_description
from qio_rllib.evaluation.aggregate import Summary
from qio_rllib.federated.clients import Client
from qio_rllib.sampling.evaluation import (
    FIRST_EVALUATION_SEED,
    evaluate,
    evaluation_seeds,
    mean_scores,
    policy_from_modules,
)
from qio_rllib.sampling.runner import BatchedEnvRunner

OUT = Path("results/federated/forests.csv")
ITERATIONS, EPISODES = 40, 50
LOCAL = {
    "run": "PPO",
    "num_envs_per_env_runner": 8,
    "train_batch_size_per_learner": 800,
    "num_epochs": 4,
    "minibatch_size": 800,
    "lr": 1e-3,
    "gamma": 0.99,
    "lambda_": 0.95,
    "vf_clip_param": 1e4,
    "use_kl_loss": False,
    "grad_clip": 0.5,
    "entropy_coeff": 0.01,
    "amplification": {"eta": 0.1, "h_min": 0.05},
    "model_config": {"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"},
}
ARMS: dict[str, dict[str, Any]] = {
    "averaging after 1": {"local_iterations": 1},
    "averaging after 4": {"local_iterations": 4},
    "FedProx": {"local_iterations": 4, "correction": {"type": "fedprox", "coefficient": 0.001}},
    "SCAFFOLD": {"local_iterations": 4, "correction": {"type": "scaffold"}},
    "FedKL": {"local_iterations": 4, "correction": {"type": "fedkl", "coefficient": 0.1}},
    "server Adam": {"local_iterations": 4, "server": {"type": "adam", "lr": 0.01}},
    "personal heads": {"local_iterations": 4, "personal": ["policy.head", "value"]},
    "personal values": {"local_iterations": 4, "personal": ["value"]},
}
POOLED, ALONE = "pooled", "alone"


def config_of(seed: int, **settings: Any) -> FederatedConfig:
    """Return the federation of an arm."""
    first = qio_envs.family("six_forests")[0]
    config = FederatedConfig().environment(first.env, env_config=first.env_config).debugging(seed=seed)
    config.evaluation(evaluation_duration=EPISODES)
    return config.training(local=LOCAL, clients="six_forests", **settings)


def score(policy: Any, client: Client) -> float:
    """Return the sampled team return of a policy in a client's forest, over its free cells."""
    rows = evaluate(policy, client.env, client.env_config, evaluation_seeds(EPISODES), explore=True)
    return mean_scores(rows)["team_return"] / free_cells(client)


def free_cells(client: Client) -> float:
    """Return the mean number of cells without a tree in a client's evaluation episodes."""
    env = qio_envs.environment(client.env).batched_env(EPISODES, **client.env_config)
    env.reset(np.array(evaluation_seeds(EPISODES), np.uint64))
    return float(np.mean(env.arrays.free_count))


def references() -> list[dict[str, Any]]:
    """Return the scores of random play and of the best scripted controller in each forest."""
    rows = []
    for client in config_of(0).all_clients():
        env = qio_envs.environment(client.env).batched_env(EPISODES, **client.env_config)
        scores = reference_scores(env, seed=FIRST_EVALUATION_SEED)
        for policy, value in (("random", scores["random"]), ("best scripted", max(scores.values()))):
            rows.append(
                {"policy": policy, "forest": client.label, "score": round(value / free_cells(client), 4)}
            )
    return rows


def federated(seed: int, settings: dict[str, Any]) -> dict[str, float]:
    """Return the score of each client's policy in its own forest."""
    algorithm = config_of(seed, **settings).build_algo()
    for _ in range(ITERATIONS // settings["local_iterations"]):
        algorithm.train()
    found = {client.label: score(algorithm.client_policy(client), client) for client in algorithm.clients}
    algorithm.stop()
    return found


def alone(seed: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return each learner's score in its own forest, and its mean over all six."""
    config = config_of(seed)
    clients = config.all_clients()
    own, everywhere = {}, {}
    for client in clients:
        algorithm = config.client_config(client).build_algo()
        for _ in range(ITERATIONS):
            algorithm.training_step()
        modules = dict(algorithm.env_runner.module.items())
        scores = {
            other.label: score(policy_from_modules(modules, config.client_config(other)), other)
            for other in clients
        }
        own[client.label] = scores[client.label]
        everywhere[client.label] = float(np.mean([*scores.values()]))
        algorithm.stop()
    return own, everywhere


def pooled(seed: int) -> dict[str, float]:
    """Return the score of one learner over the rollouts of all forests."""
    config = config_of(seed)
    clients = config.all_clients()
    runners = [BatchedEnvRunner(config=config.client_config(client)) for client in clients]
    algorithm = config.client_config(clients[0]).build_algo()
    learner = algorithm.learner_group
    for _ in range(ITERATIONS):
        weights = learner._learner.module.get_state(inference_only=True)
        rollouts = []
        for runner in runners:
            runner.set_state({COMPONENT_RL_MODULE: weights})
            rollouts += runner.sample(num_timesteps=LOCAL["train_batch_size_per_learner"])
        # As many gradient steps as each client takes: minibatches are as many times larger as there is more experience.
        learner.update(
            episodes=rollouts,
            num_epochs=LOCAL["num_epochs"],
            minibatch_size=LOCAL["minibatch_size"] * len(clients),
            timesteps={"num_env_steps_sampled_lifetime": 0},
        )
    modules = dict(learner._learner.module.items())
    found = {
        client.label: score(policy_from_modules(modules, config.client_config(client)), client)
        for client in clients
    }
    for runner in runners:
        runner.stop()
    algorithm.stop()
    return found


def train(seeds: range, out: Path, arms: list[str]) -> None:
    for seed in seeds:
        for arm in arms:
            if any(row["arm"] == arm and int(row["seed"]) == seed for row in read(out)):
                continue
            started = time.process_time()
            if arm == ALONE:
                own, everywhere = alone(seed)
            else:
                own = pooled(seed) if arm == POOLED else federated(seed, ARMS[arm])
                everywhere = dict.fromkeys(own, float(np.mean([*own.values()])))
            seconds = time.process_time() - started
            rows = [
                {
                    "seed": seed,
                    "arm": arm,
                    "forest": forest,
                    "own": round(own[forest], 4),
                    "all_six": round(everywhere[forest], 4),
                    "cpu_seconds": round(seconds, 1),
                }
                for forest in own
            ]
            append(out, rows)
            print(
                f"seed {seed}, {arm}: {np.mean([*own.values()]):.3f}, worst {min(own.values()):.3f}",
                flush=True,
            )


def table(out: Path) -> None:
    """Print each arm: mean over the six forests, the worst forest, and what a policy scores on all six."""
    rows = read(out)
    print(f"{'arm':20} {'mean of own forest':30} {'worst forest':30} {'all six':30}")
    for arm in dict.fromkeys(row["arm"] for row in rows):
        mine = [row for row in rows if row["arm"] == arm]
        by_seed = {row["seed"]: [one for one in mine if one["seed"] == row["seed"]] for row in mine}
        parts = [
            [np.mean([float(row["own"]) for row in part]) for part in by_seed.values()],
            [min(float(row["own"]) for row in part) for part in by_seed.values()],
            [np.mean([float(row["all_six"]) for row in part]) for part in by_seed.values()],
        ]
        print(f"{arm:20}", *(f"{Summary.of(part).text(3):30}" for part in parts))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--arms", nargs="+", default=[POOLED, ALONE, *ARMS], choices=[POOLED, ALONE, *ARMS])
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="of what is there, no training")
    arguments = parser.parse_args()
    if not arguments.table:
        train(
            range(arguments.first_seed, arguments.first_seed + arguments.seeds), arguments.out, arguments.arms
        )
        info = run_description(["python", "benchmarks/federated_forests.py"])
        write(arguments.out.with_name("forest_references.csv"), references())
        arguments.out.with_suffix(".json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    table(arguments.out)


if __name__ == "__main__":
    main()

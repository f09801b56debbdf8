"""What an opponent model is worth against opponents with habits: with it, its loss alone, without it.

    python benchmarks/opponent_model.py --seeds 5

PPO plays rock, paper, scissors in episodes of 20 rounds against a pool of 16 opponents that stays as it is: random
networks with deterministic play, which answer the last 3 rounds. Which of them an episode is against is not told. The
same opponents meet every variant and seed: ``none`` (no opponent model), ``loss`` (the prediction shapes the features,
``feed: false``), ``feed`` (what is predicted enters the policy too), ``wide`` (no opponent model, and a hidden layer
that makes up for its parameters). The score is the mean payoff of a round over three rollouts of the policy as it is
sampled, 3,840 rounds: 0 at random, at most 1. ``parameters`` are those of the policy network.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from tables import append

from qio_rllib.acting.pooled_actor import LEARNING
from qio_rllib.algorithms import PPOConfig
from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.experiments.resources import quiet_ray
from qio_rllib.models.policy_network import CATEGORICAL, PolicyNetwork, PolicySpec

ENVS, ROUNDS, HISTORY, OPPONENTS, HIDDEN = 64, 20, 3, 16, 32
VARIANTS: dict[str, tuple[dict[str, Any] | None, int]] = {
    "none": (None, HIDDEN),
    "wide": (None, 138),
    "loss": ({"feed": False}, HIDDEN),
    "feed": ({}, HIDDEN),
}
"""By name: the setting ``opponent_model``, and the units of the policy's hidden layer."""
RESULTS = Path(__file__).parents[1] / "results" / "opponent_model.csv"


def algorithm(variant: str, seed: int) -> Any:
    """Return PPO against the pool."""
    model, hidden = VARIANTS[variant]
    game = {"game": "rock_paper_scissors", "rounds": ROUNDS, "memory": HISTORY}
    config = (
        PPOConfig()
        .environment("matrix_game_v0", env_config=game)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=ENVS, rollout_fragment_length=ROUNDS)
        .training(
            lr=3e-3,
            gamma=0.0,
            train_batch_size_per_learner=ENVS * ROUNDS,
            minibatch_size=320,
            num_epochs=4,
            entropy_coeff=0.01,
            opponent_model=model,
            self_play={"pool_size": OPPONENTS, "snapshot_interval": 1_000_000, "current_share": 0.0},
        )
        .rl_module(model_config={"fcnet_hiddens": [hidden]})
        .debugging(seed=seed)
    )
    found = config.build_algo()
    opponents = found.opponents
    for number in range(OPPONENTS):
        opponents.pool.add({"shared": habits(opponents.present()["shared"], number)})
    opponents.share()
    return found


def habits(weights: dict[str, Any], number: int) -> dict[str, Any]:
    """Return weights of a policy, given any, with which it plays as the opponent of a number does."""
    size = weights["encoder.layers.0.weight"].shape[1]
    network = PolicySpec((size,), CATEGORICAL, 3, network={"fcnet_hiddens": [HIDDEN]})
    torch.manual_seed(number)
    played = {name: array.numpy() for name, array in PolicyNetwork(network).state_dict().items()}
    found = {name: array.copy() for name, array in weights.items()}
    for name in (
        "encoder.layers.0.weight",
        "encoder.layers.0.bias",
        "head.layers.0.weight",
        "head.layers.0.bias",
    ):
        scale = 1000.0 if name.startswith("head") else 1.0  # so that play is deterministic
        found[name][...] = 0.0  # more units than the opponent has, and predictions, count for nothing
        found[name][tuple(slice(length) for length in played[name].shape)] = scale * played[name]
    return found


def payoff(runner: Any) -> float:
    """Return the mean payoff of a round against the pool."""
    parts = [runner.sample()[0].modules["shared"] for _ in range(3)]
    return float(np.mean(np.concatenate([part.rewards[part.columns[LEARNING]] for part in parts])))


def run(variant: str, seed: int, iterations: int) -> list[dict[str, Any]]:
    """Train, and return a row for every tenth iteration."""
    one = algorithm(variant, seed)
    module = one.env_runner.module["shared"].unwrapped()
    parameters = sum(parameter.numel() for parameter in module.policy.parameters())
    rows, start = [], time.process_time()
    for iteration in range(1, iterations + 1):
        result = one.train()
        if iteration % 10 == 0 or iteration == iterations:
            learned = result["learners"]["shared"]
            rows.append(
                {
                    "variant": variant,
                    "seed": seed,
                    "iteration": iteration,
                    "env_steps": iteration * ENVS * ROUNDS,
                    "payoff": round(payoff(one.env_runner), 4),
                    "opponent_accuracy": round(float(learned.get("opponent_accuracy", float("nan"))), 4),
                    "parameters": parameters,
                    "cpu_seconds": round(time.process_time() - start, 1),
                    "cpu": cpu_model(),
                }
            )
    one.stop()
    return rows


def main() -> None:
    """Train, print the last row of each run, and keep all."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=5, help="seeds of each variant")
    parser.add_argument("--iterations", type=int, default=150, help="training iterations of each run")
    parser.add_argument("--out", type=Path, default=RESULTS, help="CSV that rows are added to")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with quiet_ray():
        ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
    for seed in range(options.seeds):
        for variant in VARIANTS:
            rows = run(variant, seed, options.iterations)
            print({key: value for key, value in rows[-1].items() if key != "cpu"}, flush=True)
            append(options.out, rows)
    ray.shutdown()


if __name__ == "__main__":
    main()

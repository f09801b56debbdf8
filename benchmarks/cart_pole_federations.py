"""What the studies of `federated_cart_pole.py` share: federations of equal clients, scores, and tables that grow."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tables import append

from qio_rllib.algorithms import Federated, FederatedConfig
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds, mean_scores, policy_from_modules

ENV = "cart_pole_v0"
LOCAL: dict[str, Any] = {
    "run": "A2C",
    "gamma": 0.99,
    "lambda_": 0.95,
    "entropy_coeff": 0.0,
    "model_config": {"fcnet_hiddens": [16, 16], "fcnet_activation": "tanh"},
}
FEDERATION, SAMPLED = 1000, 100
"""Clients in all, and in a round, of all but the speed-up."""


def local_of(sampling: dict[str, int], lr: float) -> dict[str, Any]:
    """Return the local algorithm: one gradient step from a fragment of each environment."""
    steps = sampling["num_envs_per_env_runner"] * sampling["rollout_fragment_length"]
    batch = {"train_batch_size_per_learner": steps, "min_sample_timesteps_per_iteration": steps}
    return {**LOCAL, **sampling, **batch, "lr": lr}


def config_of(seed: int, count: int, local: dict[str, Any], **settings: Any) -> FederatedConfig:
    """Return a federation of equal clients."""
    config = FederatedConfig().environment(ENV).debugging(seed=seed)
    return config.training(local=local, clients=[{"count": count}], evaluation_clients=0, **settings)


def score(algorithm: Federated, episodes: int, explore: bool) -> float:
    """Return the mean return of the common policy."""
    policy = policy_from_modules(dict(algorithm.common_modules().items()), algorithm.config)
    return mean_scores(evaluate(policy, ENV, {}, evaluation_seeds(episodes), explore))["team_return"]


def is_there(rows: Sequence[dict[str, str]], **where: Any) -> bool:
    """Return whether a row has these values."""
    return any(all(row[key] == str(value) for key, value in where.items()) for row in rows)


def append_shown(out: Path, row: dict[str, Any]) -> None:
    """Add a row to a table at once, and print it."""
    append(out, [row])
    print(row, flush=True)

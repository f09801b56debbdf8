"""Does the batched path learn otherwise than RLlib's own? One difference at a time, on the forest, over several seeds.

    python benchmarks/rllib_differences.py            # about ten minutes; RLlib's own path takes most of it

Loss and gradients of the same rows are equal (tests/qio_rllib/test_parity.py). What differs is named here, and each
difference is put back alone: RLlib goes through the rows of its first epoch unshuffled, agent by agent; its PettingZoo
wrapper makes an end of a time limit. The score is the mean of the evaluations on the way (20 fixed episodes, sampled),
team return by environment steps: it is higher the faster a policy is learned.
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
from pathlib import Path

import numpy as np
import ray
from tables import write

from qio_rllib.algorithms.ppo import PPOConfig, PPOLearner
from qio_rllib.evaluation.aggregate import describe
from qio_rllib.experiments.stock_learners import StockPPOLearner, stock_config
from qio_rllib.sampling.evaluation import evaluate_algorithm


class UnshuffledFirstEpoch(PPOLearner):
    """RLlib's order: the first epoch takes one agent's steps after the other's."""

    def credit(self, module_id, rollout, values, final):
        """Note the shape of the rollout."""
        self._shape = rollout.rewards.shape
        return super().credit(module_id, rollout, values, final)

    def row_order(self, epoch, rows):
        """Return the rows of one environment and agent after those of another in the first epoch."""
        if epoch:
            return super().row_order(epoch, rows)
        return np.arange(rows).reshape(self._shape).transpose(1, 2, 0).reshape(-1)


class TimeLimitEnds(PPOLearner):
    """A time limit is taken for a termination: no value follows it."""

    def credit(self, module_id, rollout, values, final):
        """Return advantages without a value after the limit."""
        ended = dataclasses.replace(rollout, terminated=rollout.terminated | rollout.truncated)
        return super().credit(module_id, ended, values, final)


VARIANTS = {
    "this package": PPOLearner,
    "first epoch unshuffled": UnshuffledFirstEpoch,
    "time limit as an end": TimeLimitEnds,
    "RLlib's own path": None,
}


def config_of(learner: type | None, seed: int) -> PPOConfig:
    config = (
        PPOConfig()
        .environment("forest_uav_v0", env_config={"reward": "local"})
        .env_runners(num_env_runners=0, num_envs_per_env_runner=8)
        .evaluation(evaluation_duration=20)
        .training(
            lr=3e-4, gamma=0.99, lambda_=0.95, train_batch_size_per_learner=1600, minibatch_size=1600, num_epochs=4,
            clip_param=0.2, vf_loss_coeff=0.5, vf_clip_param=1e4, entropy_coeff=0.01, use_kl_loss=False,
            grad_clip=0.5, grad_clip_by="global_norm",
        )
        .rl_module(model_config={"fcnet_hiddens": [64, 64], "fcnet_activation": "tanh"})
        .debugging(seed=seed)
    )  # fmt: skip
    return (
        stock_config(config, StockPPOLearner) if learner is None else config.learners(learner_class=learner)
    )


def scores(learner: type | None, seed: int, steps: int, every: int) -> list[float]:
    """Train, and return the team return at each evaluation."""
    algorithm = config_of(learner, seed).build_algo()
    found = []
    for iteration in range(1, steps // 1600 + 1):
        algorithm.train()
        if iteration % every == 0:
            results, _, _ = evaluate_algorithm(algorithm)
            found.append(results["sampled"]["team_return"])
    algorithm.stop()
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=32_000, help="environment steps of a run")
    parser.add_argument("--every", type=int, default=4, help="iterations of 1600 steps between evaluations")
    parser.add_argument("--out", type=Path, default=Path("results/rllib_differences.csv"))
    arguments = parser.parse_args()
    logging.disable(logging.ERROR)
    ray.init(
        "local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level=logging.CRITICAL
    )
    rows = []
    print(f"{'variant':<26}{'mean on the way':<44}  {'at the end'}")
    for name, learner in VARIANTS.items():
        curves = np.array(
            [scores(learner, seed, arguments.steps, arguments.every) for seed in range(arguments.seeds)]
        )
        print(f"{name:<26}{describe(curves.mean(axis=1)):<44}  {describe(curves[:, -1])}", flush=True)
        for seed, curve in enumerate(curves):
            for index, value in enumerate(curve, start=1):
                step = index * arguments.every * 1600
                rows.append({"variant": name, "seed": seed, "env_steps": step, "team_return": value})
        write(arguments.out, rows)
    ray.shutdown()


if __name__ == "__main__":
    main()

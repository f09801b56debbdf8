"""Soft actor-critic on Pendulum-v1, here and in Stable-Baselines3, with the same sizes, steps and threads, in turns.

    python benchmarks/beside_stable_baselines3.py --seeds 3

Each run trains on 20,000 environment steps with a gradient step after each (from 1,000 on), networks of 256 x 256,
batches of 256, learning rates of 1e-3, a replay of all steps and an automatic temperature, on one torch thread. Seconds
are those of training, evaluations left out, by the clock and of the CPU, which a busy machine stretches less; the
return is the mean over 20 evaluation episodes on fixed seeds without noise. Neither side was tuned beyond these sizes.
Each run adds its row to results/beside_stable_baselines3.csv as it ends; runs that are there are not repeated.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from tables import append, read

from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.sampling.evaluation import evaluation_seeds

ROOT = Path(__file__).parents[1]
STEPS, EPISODES = 20_000, 20


def clocks() -> tuple[float, float]:
    """Return wall and CPU seconds of this process."""
    return time.perf_counter(), time.process_time()


def elapsed(start: tuple[float, float]) -> dict[str, float]:
    now = clocks()
    return {"seconds": now[0] - start[0], "cpu_seconds": now[1] - start[1]}


def ours(seed: int) -> dict[str, Any]:
    import ray

    from qio_rllib.experiments.experiment import load_experiment, quiet_ray

    experiment = load_experiment(ROOT / "tune_configs" / "pendulum_masac.yaml", seed=seed)
    with quiet_ray():
        ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False)
        config = experiment.algorithm_config()
        config.evaluation(evaluation_interval=None)
        algorithm = config.build_algo()
        start = clocks()
        sampled = 0
        while sampled < STEPS:
            sampled = algorithm.train()["num_env_steps_sampled_lifetime"]
        spent = elapsed(start)
        result = algorithm.evaluate()
    score = float(result["greedy"]["episode_return"])
    return {"package": "qio", "seed": seed, "steps": int(sampled), **spent, "return": score}


def theirs(seed: int) -> dict[str, Any]:
    import stable_baselines3

    model = stable_baselines3.SAC(
        "MlpPolicy", gymnasium.make("Pendulum-v1"), learning_rate=1e-3, buffer_size=STEPS, learning_starts=1_000,
        batch_size=256, tau=0.005, gamma=0.99, train_freq=1, gradient_steps=1, seed=seed, device="cpu",
        policy_kwargs={"net_arch": [256, 256]},
    )  # fmt: skip
    start = clocks()
    model.learn(STEPS)
    spent = elapsed(start)
    env, returns = gymnasium.make("Pendulum-v1"), []
    for episode in evaluation_seeds(EPISODES):
        observation, _ = env.reset(seed=episode)
        total, over = 0.0, False
        while not over:
            action, _ = model.predict(observation, deterministic=True)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return {
        "package": "stable-baselines3",
        "seed": seed,
        "steps": STEPS,
        **spent,
        "return": float(np.mean(returns)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="runs of each package")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "beside_stable_baselines3.csv")
    parser.add_argument("--one", nargs=2, metavar=("PACKAGE", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.one:
        package, seed = arguments.one
        row = (ours if package == "qio" else theirs)(int(seed))
        print("row", *row.values(), sep="\t")
        return
    done_before = {(row["package"], int(row["seed"])) for row in read(arguments.out)}
    for seed in range(arguments.seeds):
        for package in ("qio", "stable-baselines3"):  # in turns, so that both meet the same machine
            if (package, seed) in done_before:
                continue
            command = [sys.executable, __file__, "--one", package, str(seed)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            (line,) = [text for text in done.stdout.splitlines() if text.startswith("row\t")]
            _, name, _, steps, seconds, cpu_seconds, score = line.split("\t")
            row = {
                "package": name,
                "seed": seed,
                "env_steps": int(steps),
                "seconds": round(float(seconds), 1),
                "cpu_seconds": round(float(cpu_seconds), 1),
                "greedy_return": round(float(score), 2),
                "cpu": cpu_model(),
            }
            print(row, flush=True)
            append(arguments.out, [row])


if __name__ == "__main__":
    main()

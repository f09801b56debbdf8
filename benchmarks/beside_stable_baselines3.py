"""Pendulum-v1 here and beside Stable-Baselines3's soft actor-critic, with the same steps and threads, in turns.

    python benchmarks/beside_stable_baselines3.py --seeds 3
    python benchmarks/beside_stable_baselines3.py few_steps --seeds 5

Soft actor-critic (``sac``): each run trains on 20,000 environment steps with a gradient step after each (from 1,000
on), networks of 256 x 256, batches of 256, learning rates of 1e-3, a replay of all steps and an automatic temperature,
on one torch thread. Seconds are those of training, evaluations left out, by the clock and of the CPU, which a busy
machine stretches less; the return is the mean over 20 evaluation episodes on fixed seeds without noise. Neither side
was tuned beyond these sizes.

Few steps (``few_steps``): a planner over a learned model (tune_configs/pendulum_pets.yaml), soft actor-critic with
Stable-Baselines3's defaults and with the settings of `FEW_STEPS_SETTINGS`, each on 2,000 environment steps; the return
is the mean over 100 episodes. Four settings of each side were tried on other seeds, SAC's on one (its trials:
results/beside_stable_baselines3_trials.csv); of SAC's the defaults were best there.

Each run adds its row to a table under results/ as it ends; runs that are there are not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
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
SIZES: dict[str, Any] = {
    "learning_rate": 1e-3, "buffer_size": 20_000, "learning_starts": 1_000, "batch_size": 256, "tau": 0.005,
    "gamma": 0.99, "train_freq": 1, "gradient_steps": 1, "policy_kwargs": {"net_arch": [256, 256]},
}  # fmt: skip
FEW_STEPS_SETTINGS: dict[str, Any] = {"learning_rate": 1e-3, "learning_starts": 200}


@dataclasses.dataclass(frozen=True)
class Study:
    """What is trained, and how it is evaluated.

    Attributes:
        steps: Environment steps of a training.
        episodes: Of the evaluation.
        ours: Ready experiments by the name in the column ``package``.
        theirs: Arguments of Stable-Baselines3's SAC, likewise.
        out: Table under results/.
    """

    steps: int
    episodes: int
    ours: dict[str, str]
    theirs: dict[str, dict[str, Any]]
    out: str


STUDIES = {
    "sac": Study(
        20_000, 20, {"qio": "pendulum_masac"}, {"stable-baselines3": SIZES}, "beside_stable_baselines3.csv"
    ),
    "few_steps": Study(
        2_000,
        100,
        {"qio PETS": "pendulum_pets"},
        {"stable-baselines3 SAC": {}, "stable-baselines3 SAC, learning rate 1e-3": FEW_STEPS_SETTINGS},
        "beside_stable_baselines3_few_steps.csv",
    ),
}


def clocks() -> tuple[float, float]:
    """Return wall and CPU seconds of this process."""
    return time.perf_counter(), time.process_time()


def elapsed(start: tuple[float, float]) -> dict[str, float]:
    now = clocks()
    return {"seconds": now[0] - start[0], "cpu_seconds": now[1] - start[1]}


def ours(study: Study, package: str, seed: int) -> dict[str, Any]:
    """Train and evaluate a ready experiment."""
    import ray

    from qio_rllib.experiments.experiment import load_experiment
    from qio_rllib.experiments.resources import quiet_ray
    from qio_rllib.sampling.evaluation import evaluate, policy_from_modules

    experiment = load_experiment(ROOT / "tune_configs" / f"{study.ours[package]}.yaml", seed=seed)
    with quiet_ray():
        ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
        config = experiment.algorithm_config()
        config.evaluation(evaluation_interval=None)
        algorithm = config.build_algo()
        start = clocks()
        sampled = 0
        while sampled < study.steps:
            sampled = algorithm.train()["num_env_steps_sampled_lifetime"]
        spent = elapsed(start)
        policy = policy_from_modules(dict(algorithm.env_runner.module.items()), algorithm.config)
        rows = evaluate(policy, "Pendulum-v1", {}, evaluation_seeds(study.episodes), explore=False)
    return {"steps": int(sampled), **spent, "return": float(np.mean([row["episode_return"] for row in rows]))}


def theirs(study: Study, package: str, seed: int) -> dict[str, Any]:
    """Train and evaluate Stable-Baselines3's SAC."""
    import stable_baselines3

    model = stable_baselines3.SAC(
        "MlpPolicy", gymnasium.make("Pendulum-v1"), seed=seed, device="cpu", **study.theirs[package]
    )
    start = clocks()
    model.learn(study.steps)
    spent = elapsed(start)
    env, returns = gymnasium.make("Pendulum-v1"), []
    for episode in evaluation_seeds(study.episodes):
        observation, _ = env.reset(seed=episode)
        total, over = 0.0, False
        while not over:
            action, _ = model.predict(observation, deterministic=True)
            observation, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return {"steps": study.steps, **spent, "return": float(np.mean(returns))}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("study", nargs="?", choices=STUDIES, default="sac", help="see above (sac)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each package")
    parser.add_argument("--out", type=Path, help="default: the study's table under results/")
    parser.add_argument("--one", nargs=2, metavar=("PACKAGE", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    study = STUDIES[arguments.study]
    if arguments.one:
        package, seed = arguments.one
        row = (ours if package in study.ours else theirs)(study, package, int(seed))
        print("row", *row.values(), sep="\t")
        return
    out = arguments.out or ROOT / "results" / study.out
    done_before = {(row["package"], int(row["seed"])) for row in read(out)}
    for seed in range(arguments.seeds):
        for package in (*study.ours, *study.theirs):  # in turns, so that all meet the same machine
            if (package, seed) in done_before:
                continue
            command = [sys.executable, __file__, arguments.study, "--one", package, str(seed)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            (line,) = [text for text in done.stdout.splitlines() if text.startswith("row\t")]
            _, steps, seconds, cpu_seconds, score = line.split("\t")
            row = {
                "package": package,
                "seed": seed,
                "env_steps": int(steps),
                "seconds": round(float(seconds), 1),
                "cpu_seconds": round(float(cpu_seconds), 1),
                "greedy_return": round(float(score), 2),
                "cpu": cpu_model(),
            }
            print(row, flush=True)
            append(out, [row])


if __name__ == "__main__":
    main()

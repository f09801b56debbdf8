"""QMIX and MADDPG here and BenchMARL's, each tuned for 60,000 frames by as many trials: return and seconds, in turns.

BenchMARL needs older packages than this project's, so it runs with the Python of an environment of its own:

    python -m venv /somewhere/benchmarl
    /somewhere/benchmarl/bin/pip install benchmarl==1.5.2 "torchrl<0.12" pettingzoo==1.24.3 pygame torch==2.13.0
    python benchmarks/beside_benchmarl.py --benchmarl /somewhere/benchmarl/bin/python

All four play simple_spread_v3 with 3 agents and 25 steps an episode, here mpe2's, there PettingZoo's, which give the
same observations and rewards bit for bit: QMIX with discrete actions, MADDPG with continuous ones (BenchMARL's has no
others). Agents keep their own rewards in MADDPG; QMIX learns from their mean, here (``team_reward``) as there. One
torch thread each.

First the trials, with one seed that no run uses: `TRIALS` of each side and algorithm, the first of them its defaults
(here those of a ready experiment, there BenchMARL's), the others chosen by hand. Apart from the defaults, ranges were:
learning rate 5e-4 to 1e-3, batches of 256, a gradient step to 4 frames, 40 (here) and 200 (there) frames between
gradient steps, 1 or 8 environments, exploration down to 0.02 to 0.1 within 20,000 or 30,000 frames, discount 0.8 to
0.95, networks of two layers of 64 or 128, and how fast target networks follow. Then the trial with the greatest return
runs with each seed. All environments of BenchMARL's sampler get one seed and begin their episodes alike, so that most
of its trials have one environment.

A frame is an environment step. A return is the sum of an agent's rewards in an episode, undiscounted and without
noise, averaged over agents and over 100 episodes, which begin alike for everybody. It is also given between random play
(0) and the oracle (1) of ``mpe_spread_v0``, the same task. Seconds are those of training, by the clock and of the
process's CPU, without evaluation and start.

Each run adds its row to a table as it ends; runs that are there are not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from tables import append, read

from qio_envs import mpe_spread_v0
from qio_envs.api.scores import normalized_score, reference_scores
from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.evaluation.aggregate import describe
from qio_rllib.experiments.experiment import Experiment, load_experiment
from qio_rllib.experiments.resources import quiet_ray
from qio_rllib.sampling.evaluation import (
    FIRST_EVALUATION_SEED,
    evaluate,
    evaluation_seeds,
    policy_from_modules,
)

ROOT = Path(__file__).parents[1]
HERE, THERE = "qio", "benchmarl"
QMIX, MADDPG = "qmix", "maddpg"
FRAMES, TRIAL_SEED, EPISODES = 60_000, 100, 100
REFERENCE_EPISODES = 2_000
LONGEST_ROUND = 1_000
"""Frames by which a run may be longer than asked, since packages sample in rounds."""
AGENTS = 3
ENV = "mpe2.simple_spread_v3"
READY = {QMIX: "mpe_spread_qmix", MADDPG: "spread_maddpg"}
"""Experiments under tune_configs/ whose settings are the defaults here."""

Settings = dict[str, Any]
TRIALS: dict[tuple[str, str], tuple[Settings, ...]] = {
    (QMIX, HERE): (
        {},
        {
            "num_envs_per_env_runner": 8, "num_steps_sampled_before_learning_starts": 800,
            "exploration": [[0, 1.0], [20_000, 0.05]], "env_steps_per_update": 4, "train_batch_size_per_learner": 256,
            "gamma": 0.95, "bootstrap_at_time_limit": True,
        },
        {
            "num_envs_per_env_runner": 8, "num_steps_sampled_before_learning_starts": 800,
            "exploration": [[0, 1.0], [30_000, 0.1]], "env_steps_per_update": 4, "train_batch_size_per_learner": 256,
            "lr": 5e-4, "gamma": 0.9, "bootstrap_at_time_limit": True,
            "model_config": {"fcnet_hiddens": [64, 64], "fcnet_activation": "relu"},
        },
        {
            "num_envs_per_env_runner": 8, "num_steps_sampled_before_learning_starts": 800,
            "exploration": [[0, 1.0], [20_000, 0.05]], "env_steps_per_update": 4, "train_batch_size_per_learner": 256,
            "gamma": 0.8, "bootstrap_at_time_limit": True,
        },
    ),
    (QMIX, THERE): (
        {},
        {
            "experiment": {
                "lr": 1e-3, "gamma": 0.95, "polyak_tau": 0.01, "off_policy_train_batch_size": 256,
                "off_policy_collected_frames_per_batch": 200, "off_policy_n_optimizer_steps": 50,
                "off_policy_n_envs_per_worker": 1, "off_policy_init_random_frames": 800,
                "exploration_eps_init": 1.0, "exploration_eps_end": 0.05, "exploration_anneal_frames": 20_000,
            },
            "model": {"num_cells": [128, 128], "activation": "ReLU"},
        },
        {
            "experiment": {
                "lr": 5e-4, "gamma": 0.9, "polyak_tau": 0.005, "off_policy_train_batch_size": 256,
                "off_policy_collected_frames_per_batch": 200, "off_policy_n_optimizer_steps": 50,
                "off_policy_n_envs_per_worker": 1, "off_policy_init_random_frames": 800,
                "exploration_eps_init": 1.0, "exploration_eps_end": 0.1, "exploration_anneal_frames": 30_000,
            },
            "model": {"num_cells": [64, 64], "activation": "ReLU"},
        },
        {
            "experiment": {
                "lr": 1e-3, "gamma": 0.8, "polyak_tau": 0.01, "off_policy_train_batch_size": 256,
                "off_policy_collected_frames_per_batch": 200, "off_policy_n_optimizer_steps": 50,
                "off_policy_n_envs_per_worker": 8, "off_policy_init_random_frames": 800,
                "exploration_eps_init": 1.0, "exploration_eps_end": 0.05, "exploration_anneal_frames": 20_000,
            },
            "model": {"num_cells": [128, 128], "activation": "ReLU"},
        },
    ),
    (MADDPG, HERE): (
        {},
        {
            "rollout_fragment_length": 5, "exploration": [[0, 0.4], [30_000, 0.04]],
            "num_steps_sampled_before_learning_starts": 800, "env_steps_per_update": 4,
        },
        {
            "rollout_fragment_length": 5, "exploration": [[0, 0.4], [30_000, 0.04]],
            "num_steps_sampled_before_learning_starts": 800, "actor_lr": 5e-4, "critic_lr": 5e-4, "tau": 0.01,
            "gamma": 0.9,
        },
        {
            "rollout_fragment_length": 5, "exploration": [[0, 0.6], [20_000, 0.1]],
            "num_steps_sampled_before_learning_starts": 800, "env_steps_per_update": 4, "gamma": 0.9,
            "model_config": {"fcnet_hiddens": [128, 128], "fcnet_activation": "relu"},
        },
    ),
    (MADDPG, THERE): (
        {},
        {
            "experiment": {
                "lr": 1e-3, "gamma": 0.95, "polyak_tau": 0.02, "off_policy_train_batch_size": 256,
                "off_policy_collected_frames_per_batch": 200, "off_policy_n_optimizer_steps": 50,
                "off_policy_n_envs_per_worker": 1, "off_policy_init_random_frames": 800, "clip_grad_val": 0.5,
                "exploration_eps_init": 0.2, "exploration_eps_end": 0.02, "exploration_anneal_frames": 30_000,
            },
            "model": {"num_cells": [128, 128], "activation": "ReLU"},
        },
        {
            "experiment": {
                "lr": 5e-4, "gamma": 0.9, "polyak_tau": 0.01, "off_policy_train_batch_size": 256,
                "off_policy_collected_frames_per_batch": 200, "off_policy_n_optimizer_steps": 50,
                "off_policy_n_envs_per_worker": 1, "off_policy_init_random_frames": 800,
                "exploration_eps_init": 0.2, "exploration_eps_end": 0.02, "exploration_anneal_frames": 30_000,
            },
            "model": {"num_cells": [128, 128], "activation": "ReLU"},
        },
        {
            "experiment": {
                "lr": 1e-3, "gamma": 0.9, "polyak_tau": 0.02, "off_policy_train_batch_size": 256,
                "off_policy_collected_frames_per_batch": 200, "off_policy_n_optimizer_steps": 50,
                "off_policy_n_envs_per_worker": 8, "off_policy_init_random_frames": 800, "clip_grad_val": 0.5,
                "exploration_eps_init": 0.3, "exploration_eps_end": 0.05, "exploration_anneal_frames": 20_000,
            },
            "algorithm": {"share_param_critic": False},
            "model": {"num_cells": [128, 128], "activation": "ReLU"},
        },
    ),
}  # fmt: skip
"""By algorithm and package. Here: on top of the ready experiment's. There: see `benchmarl_worker`."""


def experiment_of(algorithm: str, frames: int, seed: int, settings: Settings) -> Experiment:
    """Return a ready experiment on mpe2's task with settings on top, all frames in one iteration."""
    ready = load_experiment(ROOT / "tune_configs" / f"{READY[algorithm]}.yaml", seed=seed)
    task = {"N": AGENTS, "max_cycles": 25, "local_ratio": 0.5, "continuous_actions": algorithm == MADDPG}
    fixed = {"env_config": task, "evaluation_interval": None, "min_sample_timesteps_per_iteration": frames}
    team = {"team_reward": "mean"} if algorithm == QMIX else {}
    return dataclasses.replace(ready, env=ENV, config={**ready.config, **settings, **fixed, **team})


def ours(algorithm: str, frames: int, seed: int, settings: Settings) -> dict[str, float]:
    """Train and evaluate in this process, in which Ray runs."""
    experiment = experiment_of(algorithm, frames, seed, settings)
    with quiet_ray():
        trained = experiment.algorithm_config().build_algo()
        wall, cpu = time.perf_counter(), time.process_time()
        sampled = int(trained.train()["num_env_steps_sampled_lifetime"])
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    policy = policy_from_modules(dict(trained.env_runner.module.items()), trained.config)
    rows = evaluate(policy, ENV, experiment.config["env_config"], evaluation_seeds(EPISODES), explore=False)
    trained.stop()
    score = float(np.mean([row["episode_return"] for row in rows])) / AGENTS
    return {"frames": sampled, "seconds": wall, "cpu_seconds": cpu, "return_per_agent": score}


def command_of(
    python: str, algorithm: str, package: str, frames: int, seed: int, settings: Settings
) -> list[str]:
    """Return the command of a run; it prints the run's row as JSON in its last line."""
    asked = [algorithm, str(frames), str(seed)]
    if package == HERE:
        return [sys.executable, __file__, "--one", *asked, json.dumps(settings)]
    worker = Path(__file__).with_name("benchmarl_worker.py")
    episodes = [str(FIRST_EVALUATION_SEED), str(EPISODES)]
    return [python, str(worker), *asked, *episodes, json.dumps(settings)]


def run(command: Sequence[str]) -> dict[str, float]:
    """Run a command of `command_of` and return its row."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


@functools.cache
def references(algorithm: str) -> tuple[float, float]:
    """Return what random play and the oracle score in the unit of an agent."""
    env = mpe_spread_v0.batched_env(REFERENCE_EPISODES, continuous_actions=algorithm == MADDPG)
    scores = reference_scores(env)
    return scores["random"] / AGENTS, scores["oracle"] / AGENTS


def row_of(algorithm: str, package: str, trial: int, seed: int, found: Mapping[str, float]) -> dict[str, Any]:
    """Return a row of a table."""
    random, oracle = references(algorithm)
    score = found["return_per_agent"]
    return {
        "algorithm": algorithm,
        "package": package,
        "trial": trial,
        "seed": seed,
        "frames": found["frames"],
        "seconds": round(found["seconds"], 1),
        "cpu_seconds": round(found["cpu_seconds"], 1),
        "return_per_agent": round(score, 3),
        "random": round(random, 3),
        "oracle": round(oracle, 3),
        "normalized": round(normalized_score(score, random, oracle), 3),
        "settings": json.dumps(TRIALS[algorithm, package][trial]),
        "cpu": cpu_model(),
    }


def rows_of(path: Path, frames: int) -> list[dict[str, str]]:
    """Return the rows of a table.

    Raises:
        SystemExit: A row is of other frames or of settings that are not those of its trial.
    """
    rows = read(path)
    for row in rows:
        name = f"{path}: {row['package']}, {row['algorithm']}, trial {row['trial']}, seed {row['seed']}"
        if not frames <= int(row["frames"]) < frames + LONGEST_ROUND:
            raise SystemExit(f"{name} is of {row['frames']} frames, not of {frames}; move the table away")
        trials = TRIALS[row["algorithm"], row["package"]]
        if int(row["trial"]) >= len(trials) or json.loads(row["settings"]) != trials[int(row["trial"])]:
            raise SystemExit(f"{name} has other settings than this script; move the table away")
    return rows


def chosen(trials: Sequence[Mapping[str, str]], algorithm: str, package: str) -> int:
    """Return the trial with the greatest return, the first of several.

    Raises:
        SystemExit: Some of the trials were not run.
    """
    scores = {
        int(row["trial"]): float(row["return_per_agent"])
        for row in trials
        if (row["algorithm"], row["package"]) == (algorithm, package)
    }
    if len(scores) < len(TRIALS[algorithm, package]):
        raise SystemExit(
            f"trials: {package}, {algorithm}: {len(scores)} of {len(TRIALS[algorithm, package])} were run"
        )
    return max(sorted(scores), key=lambda trial: scores[trial])


def fill(path: Path, python: str, frames: int, wanted: Sequence[tuple[str, str, int, int]]) -> None:
    """Run what is wanted (algorithm, package, trial, seed) and is not in a table yet, in this order."""
    keys = ("algorithm", "package", "trial", "seed")
    there = {tuple(row[key] for key in keys) for row in rows_of(path, frames)}
    for algorithm, package, trial, seed in wanted:
        if (algorithm, package, str(trial), str(seed)) in there:
            continue
        settings = TRIALS[algorithm, package][trial]
        row = row_of(
            algorithm,
            package,
            trial,
            seed,
            run(command_of(python, algorithm, package, frames, seed, settings)),
        )
        print(row, flush=True)
        append(path, [row])


def show(rows: Sequence[Mapping[str, str]]) -> None:
    """Print what the seeds came to."""
    for algorithm, package in TRIALS:
        own = [row for row in rows if (row["algorithm"], row["package"]) == (algorithm, package)]
        for column, decimals in (
            ("return_per_agent", 2),
            ("normalized", 2),
            ("seconds", 0),
            ("cpu_seconds", 0),
        ):
            print(
                f"{package}, {algorithm}, {column}: {describe([float(row[column]) for row in own], decimals)}"
            )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--benchmarl", help="Python of an environment that holds BenchMARL")
    parser.add_argument("--frames", type=int, default=FRAMES, help=f"environment steps ({FRAMES:,})")
    parser.add_argument(
        "--seeds", type=int, default=5, help="number of seeds, from 0; 0 for the trials alone (5)"
    )
    parser.add_argument(
        "--trials",
        type=Path,
        default=ROOT / "results" / "beside_benchmarl_trials.csv",
        help="CSV of the trials",
    )
    parser.add_argument(
        "--out", type=Path, default=ROOT / "results" / "beside_benchmarl.csv", help="CSV of the seeds"
    )
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    args = parser.parse_args(arguments)
    if args.one:
        algorithm, frames, seed, settings = args.one
        torch.set_num_threads(1)
        with quiet_ray():
            ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
        print(json.dumps(ours(algorithm, int(frames), int(seed), json.loads(settings))))
        return
    if args.benchmarl is None or shutil.which(args.benchmarl) is None:
        raise SystemExit(f"--benchmarl: a Python that holds BenchMARL is needed, got {args.benchmarl}")
    most = max(map(len, TRIALS.values()))
    trials = [
        (*who, trial, TRIAL_SEED) for trial in range(most) for who in TRIALS if trial < len(TRIALS[who])
    ]
    fill(args.trials, args.benchmarl, args.frames, trials)
    if args.seeds:
        tried = rows_of(args.trials, args.frames)
        best = {who: chosen(tried, *who) for who in TRIALS}
        fill(
            args.out,
            args.benchmarl,
            args.frames,
            [(*who, best[who], seed) for seed in range(args.seeds) for who in TRIALS],
        )
        show(rows_of(args.out, args.frames))


if __name__ == "__main__":
    main()

"""World models here and RLlib's DreamerV3 on small tasks, at equal numbers of environment steps, one thread each.

    python benchmarks/beside_dreamer.py     # about 40 minutes, nearly all of it RLlib's
    python benchmarks/beside_dreamer.py --sides rllib --ratio 64 --steps 4000   # RLlib's with fewer gradient steps

Tasks: CartPole-v1 and qio_envs/DriftControl-v0. RLlib's side is its default configuration, size XS: batches of 16
sequences of 64 steps, a training ratio (replayed steps to a step in the environment) of 1024, that is, a gradient step
to an environment step from step 1,024 on; the first 1,024 steps fill its replay. Ours are the experiments of `OURS`,
`run: WorldModel`: a planner in an ensemble, and an actor inside a recurrent model, which is Dreamer. Their settings
were chosen on seed 100: on CartPole-v1 in six trials of the planner (three of them cut short) and one of the actor, on
drift control in one of the planner (cut short). RLlib's defaults were not tuned, nor are they meant for so few steps.

Seconds are those of training, evaluations left out, by the clock and of the CPU, which a busy machine stretches less.
A row is added to the table every tenth of a run (`--rows`): the mean return of the last ten training episodes, and
mean return and length of 20 evaluation episodes on fixed seeds without exploration. A run that reached its number of
steps is not repeated.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from tables import append, read

import qio_envs  # noqa: F401  (registers the environments with Gymnasium)
from qio_rllib.artifacts.run_description import cpu_model
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds, mean_scores, policy_from_modules

ROOT = Path(__file__).parents[1]
STEPS, RATIO, EPISODES, LATEST, ROWS = 1_300, 1024, 20, 10, 10
TASKS = ("CartPole-v1", "qio_envs/DriftControl-v0")
SIDES = ("rllib", "planner", "actor")
DRIFT, CARTPOLE = "qio_envs/DriftControl-v0", "CartPole-v1"
ACTOR: dict[str, Any] = {
    "behaviour": "actor",
    "world_model": {
        "type": "rssm",
        "deterministic": 128,
        "latent": "categorical",
        "stochastic": 16,
        "classes": 16,
        "embedding": 128,
        "hiddens": [128],
        "latent_hiddens": [128],
        "reward_hiddens": [128],
        "continuation_hiddens": [128],
    },
    "train_batch_size_per_learner": 16,
    "model_sequence_length": 32,
    "env_steps_per_update": 2,
    "pretraining_updates": 200,
    "actor_lr": 3e-4,
    "critic_lr": 3e-4,
    "planner": None,
}
DRIFT_PLANNER = {"planner": {"method": "icem", "horizon": 10, "candidates": 128, "iterations": 3}}
OURS: dict[tuple[str, str], tuple[str, dict[str, Any]]] = {
    ("planner", CARTPOLE): ("cartpole_world_model.yaml", {}),
    ("planner", DRIFT): ("cartpole_world_model.yaml", {"env": DRIFT, **DRIFT_PLANNER}),
    ("actor", CARTPOLE): ("cartpole_world_model.yaml", ACTOR),
    ("actor", DRIFT): ("cartpole_world_model.yaml", {"env": DRIFT, **ACTOR}),
}
"""Config file and settings on top, by behaviour and task."""

Progress = tuple[int, int, float, Callable[[], tuple[float, float]]]
"""Environment steps, gradient steps, mean return of the last training episodes, and what gives mean return and length
of the evaluation episodes."""


def rllib(task: str, seed: int, ratio: int = RATIO, **settings: Any) -> Iterator[Progress]:
    """Train RLlib's DreamerV3, without end.

    Args:
        task: A Gymnasium id.
        seed: Of the run.
        ratio: Training ratio. RLlib takes a gradient step after each fragment at least, whatever the ratio: fragments
            are as long as a ratio below a batch's steps needs (its default is 1 step).
        settings: Of `DreamerV3Config.training` that are not the defaults.

    Yields:
        What is there before training and after each iteration.
    """
    from ray.rllib.algorithms.dreamerv3 import DreamerV3Config

    config = DreamerV3Config().training(**{"model_size": "XS", "training_ratio": ratio, **settings})
    config = (
        config.environment(task)
        .env_runners(rollout_fragment_length=max(1, config.batch_size_B * config.batch_length_T // ratio))
        .reporting(metrics_num_episodes_for_smoothing=LATEST)
        .debugging(seed=seed)
    )
    algorithm = config.build_algo()
    train_return = np.nan
    yield 0, 0, train_return, lambda: (np.nan, np.nan)
    while True:
        result = algorithm.train()
        latest = float(result["env_runners"].get("episode_return_mean", np.nan))
        if np.isfinite(latest):  # only in iterations in which an episode ended
            train_return = latest
        yield (
            int(result["env_runners"]["num_env_steps_sampled_lifetime"]),
            int(result["num_grad_updates_lifetime"]),
            train_return,
            lambda: played(algorithm.env_runner.module, task),
        )


def played(module: Any, task: str, episodes: int = EPISODES) -> tuple[float, float]:
    """Return mean return and length of the evaluation episodes of RLlib's module, without exploration.

    The module's memory begins anew with each episode; its actions are the most probable ones, clipped to their bounds;
    its latents are drawn, as RLlib does, from a generator of their own.
    """
    seeds = evaluation_seeds(episodes)
    envs = [gymnasium.make(task) for _ in seeds]
    observations = np.stack([env.reset(seed=seed)[0] for env, seed in zip(envs, seeds, strict=True)])
    totals, lengths, running = np.zeros(episodes), np.zeros(episodes), np.ones(episodes, bool)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seeds[0])
        state = {
            name: value.float().expand(episodes, *value.shape)
            for name, value in module.get_initial_state().items()
        }
        is_first = torch.ones(episodes)
        while running.any():
            rows = torch.from_numpy(observations.astype(np.float32))[:, None]  # [B, T, ...]
            actions, state = module.dreamer_model.forward_inference(rows, state, is_first)
            is_first = torch.zeros(episodes)
            for index in np.flatnonzero(running):
                space, action = envs[index].action_space, actions[index].numpy()
                if isinstance(space, gymnasium.spaces.Box):
                    action = np.clip(action, space.low, space.high)
                else:
                    action = int(action.argmax())
                observations[index], reward, terminated, truncated, _ = envs[index].step(action)
                totals[index] += float(reward)
                lengths[index] += 1
                running[index] = not (terminated or truncated)
    return float(totals.mean()), float(lengths.mean())


def ours(task: str, seed: int, behaviour: str, overrides: list[str] | None = None) -> Iterator[Progress]:
    """Train an experiment of this project, without end.

    Args:
        task: A Gymnasium id.
        seed: Of the run.
        behaviour: A key of `OURS`.
        overrides: Settings on top, "key=value".

    Yields:
        What is there before training and after each iteration.
    """
    from qio_rllib.experiments.experiment import load_experiment

    file, settings = OURS[behaviour, task]
    lines = [f"{key}={json.dumps(value)}" for key, value in settings.items()]
    experiment = load_experiment(ROOT / "tune_configs" / file, [*lines, *(overrides or [])], seed=seed)
    config = experiment.algorithm_config()
    config.evaluation(evaluation_interval=None)
    config.reporting(metrics_num_episodes_for_smoothing=LATEST)
    algorithm = config.build_algo()

    def evaluated() -> tuple[float, float]:
        policy = policy_from_modules(dict(algorithm.env_runner.module.items()), algorithm.config)
        rows = evaluate(
            policy,
            experiment.env,
            experiment.config.get("env_config") or {},
            evaluation_seeds(EPISODES),
            False,
        )
        means = mean_scores(rows)
        return means["episode_return"], means["episode_length"]

    yield 0, 0, np.nan, evaluated
    while True:
        result = algorithm.train()
        yield (
            int(result["num_env_steps_sampled_lifetime"]),
            _updates(result),
            float(result["env_runners"].get("episode_return_mean", np.nan)),
            evaluated,
        )


def _updates(result: dict[str, Any]) -> int:
    modules = [value for value in result.get("learners", {}).values() if isinstance(value, dict)]
    return max((int(module.get("updates_lifetime", 0)) for module in modules), default=0)


def measure(
    side: str, task: str, seed: int, steps: int, progress: Iterator[Progress], rows: int = ROWS
) -> Iterator[dict[str, Any]]:
    """Train until some number of environment steps.

    Args:
        side: Name of the contestant.
        task: A Gymnasium id.
        seed: Of the run.
        steps: Environment steps.
        progress: What trains, a step of it an iteration.
        rows: Evaluations, the last one at the end.

    Yields:
        A row after the first iteration that reached a further ``1 / rows`` of the steps.
    """
    spent = np.zeros(2)
    next(progress)  # which builds the algorithm
    reported = 0
    while reported < rows:
        start = clocks()
        env_steps, gradient_steps, train_return, evaluated = next(progress)
        spent += clocks() - start
        share = min(env_steps * rows // steps, rows)
        if share == reported:
            continue
        reported = share
        score, length = evaluated()
        yield {
            "side": side,
            "task": task,
            "seed": seed,
            "planned_steps": steps,
            "env_steps": env_steps,
            "gradient_steps": gradient_steps,
            "seconds": round(float(spent[0]), 1),
            "cpu_seconds": round(float(spent[1]), 1),
            "train_return": round(train_return, 2),
            "greedy_return": round(score, 2),
            "greedy_length": round(length, 1),
            "cpu": cpu_model(),
        }


def clocks() -> np.ndarray:
    """Return wall and CPU seconds of this process."""
    return np.array([time.perf_counter(), time.process_time()])


def trained(side: str, task: str, seed: int, steps: int, ratio: int, rows: int) -> Iterator[dict[str, Any]]:
    """Yield the rows of one run, see `measure`."""
    import ray

    from qio_rllib.experiments.resources import quiet_ray

    with quiet_ray():
        ray.init("local", num_cpus=1, include_dashboard=False, log_to_driver=False)
        progress = rllib(task, seed, ratio) if side == "rllib" else ours(task, seed, side)
        yield from measure(name_of(side, ratio), task, seed, steps, progress, rows)


def name_of(side: str, ratio: int) -> str:
    """Return the name of a contestant in the table."""
    return f"RLlib DreamerV3 XS, training ratio {ratio}" if side == "rllib" else f"QIO {side}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sides", nargs="+", choices=SIDES, default=SIDES, help="who is run (all)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=TASKS, help="on what (all)")
    parser.add_argument("--seeds", type=int, default=1, help="runs of each (1)")
    parser.add_argument("--steps", type=int, default=STEPS, help=f"environment steps of a run ({STEPS})")
    parser.add_argument("--ratio", type=int, default=RATIO, help=f"training ratio of RLlib's ({RATIO})")
    parser.add_argument("--rows", type=int, default=ROWS, help=f"evaluations in a run ({ROWS})")
    parser.add_argument("--out", type=Path, default=ROOT / "results" / "beside_dreamer.csv")
    parser.add_argument("--one", nargs=3, metavar=("SIDE", "TASK", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        torch.set_num_threads(1)
        side, task, seed = arguments.one
        for row in trained(side, task, int(seed), arguments.steps, arguments.ratio, arguments.rows):
            append(arguments.out, [row])
            print(row, flush=True)
        return
    done = {
        (row["side"], row["task"], int(row["seed"]), int(row["planned_steps"]))
        for row in read(arguments.out)
        if int(row["env_steps"]) >= int(row["planned_steps"])
    }
    for seed in range(arguments.seeds):
        for task in arguments.tasks:
            for side in arguments.sides:  # each in its own process
                if (name_of(side, arguments.ratio), task, seed, arguments.steps) in done:
                    continue
                command = [sys.executable, __file__, "--one", side, task, str(seed)]
                command += ["--steps", str(arguments.steps), "--ratio", str(arguments.ratio)]
                command += ["--rows", str(arguments.rows), "--out", str(arguments.out)]
                subprocess.run(command, check=True)


if __name__ == "__main__":
    main()

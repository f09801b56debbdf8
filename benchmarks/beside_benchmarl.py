"""MADDPG here and BenchMARL's, one after the other in one run: return after equal frames, and the seconds it took.

BenchMARL needs older packages than this project's, so it runs with the Python of an environment of its own:

    python -m venv /somewhere/benchmarl
    /somewhere/benchmarl/bin/pip install benchmarl==1.5.2 "torchrl<0.12" pettingzoo==1.24.3 pygame torch==2.13.0
    python benchmarks/beside_benchmarl.py --benchmarl /somewhere/benchmarl/bin/python --seeds 1

Both play the same task of PettingZoo's MPE with 25 steps an episode and continuous actions (BenchMARL's MADDPG has no
others), on one torch thread: here with `tune_configs/`, tuned on the task, there with its defaults, which are
meant for millions of frames, so that returns after few are no fair comparison. A frame is an environment step. A
return is the undiscounted sum of an agent's rewards in an episode, averaged over agents and over 100 episodes without
noise. Seconds are those of training, without evaluation and start.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
from env_throughput import cpu_model
from tables import write

from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.sampling.evaluation import evaluate, evaluation_seeds, policy_from_modules

EPISODES = 100
TASKS = {  # name -> (our experiment, BenchMARL's name, agents)
    "simple_spread_v3": ("tune_configs/spread_maddpg.yaml", "SIMPLE_SPREAD", 3),
    "simple_speaker_listener_v4": ("tune_configs/speaker_listener_maddpg.yaml", "SIMPLE_SPEAKER_LISTENER", 2),
}


def ours(path: str, frames: int, seed: int, agents: int) -> dict[str, float]:
    overrides = ["env_config.continuous_actions=true", "evaluation_interval=null"]
    experiment = load_experiment(path, overrides, seed=seed)
    algorithm = experiment.algorithm_config().build_algo()
    steps, seconds = 0, 0.0
    while steps < frames:
        start = time.perf_counter()
        steps = int(algorithm.train()["num_env_steps_sampled_lifetime"])
        seconds += time.perf_counter() - start
    policy = policy_from_modules(dict(algorithm.env_runner.module.items()), algorithm.config)
    rows = evaluate(
        policy, experiment.env, experiment.config["env_config"], evaluation_seeds(EPISODES), explore=False
    )
    algorithm.stop()
    score = float(np.mean([row["episode_return"] for row in rows])) / agents
    return {"frames": steps, "seconds": round(seconds, 1), "return_per_agent": round(score, 2)}


def theirs(python: str, task: str, frames: int, seed: int) -> dict[str, float]:
    worker = Path(__file__).with_name("benchmarl_worker.py")
    command = [python, str(worker), task, str(frames), str(seed), str(EPISODES)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--benchmarl", required=True, help="Python of an environment that holds BenchMARL")
    parser.add_argument("--frames", type=int, default=60_000, help="environment steps (60,000)")
    parser.add_argument("--seeds", type=int, default=1, help="number of seeds, from 0 (1)")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="which (all)")
    parser.add_argument("--out", type=Path, default=Path("results/beside_benchmarl.csv"), help="CSV to write")
    arguments = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for task in arguments.tasks:
        path, name, agents = TASKS[task]
        for seed in range(arguments.seeds):
            for who, result in (
                ("qio", ours(path, arguments.frames, seed, agents)),
                ("benchmarl", theirs(arguments.benchmarl, name, arguments.frames, seed)),
            ):
                rows.append({"task": task, "who": who, "seed": seed, **result, "cpu": cpu_model()})
                print(", ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
                write(arguments.out, rows)
    print(f"\n{'here / BenchMARL':<28}{'return per agent':>20}{'seconds':>14}{'ratio':>8}")
    for task in arguments.tasks:
        mean = {
            (who, key): float(np.mean([row[key] for row in rows if (row["task"], row["who"]) == (task, who)]))
            for who in ("qio", "benchmarl")
            for key in ("return_per_agent", "seconds")
        }
        returns = f"{mean['qio', 'return_per_agent']:.2f} / {mean['benchmarl', 'return_per_agent']:.2f}"
        seconds = f"{mean['qio', 'seconds']:.0f} / {mean['benchmarl', 'seconds']:.0f}"
        ratio = mean["benchmarl", "seconds"] / mean["qio", "seconds"]
        print(f"{task:<28}{returns:>20}{seconds:>14}{ratio:>8.1f}")
    print(f"\nwritten to {arguments.out}")


if __name__ == "__main__":
    main()

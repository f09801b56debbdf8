"""Train BenchMARL's MADDPG with its own defaults; print return and seconds as JSON. Run by `beside_benchmarl.py`."""

import csv
import json
import sys
import tempfile
from pathlib import Path

import torch
from benchmarl.algorithms import MaddpgConfig
from benchmarl.environments import PettingZooTask
from benchmarl.experiment import Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig


def last(folder: Path, name: str) -> float:
    (path,) = folder.rglob(f"{name}.csv")
    with path.open(newline="") as file:
        return float(list(csv.reader(file))[-1][1])


def total(folder: Path, name: str) -> float:
    (path,) = folder.rglob(f"{name}.csv")
    with path.open(newline="") as file:
        return sum(float(row[1]) for row in csv.reader(file))


def main() -> None:
    name, frames, seed, episodes = sys.argv[1], *map(int, sys.argv[2:])
    torch.set_num_threads(1)
    task = PettingZooTask[name].get_from_yaml()
    task.config["max_cycles"] = 25
    config = ExperimentConfig.get_from_yaml()
    config.max_n_frames = frames
    config.evaluation_interval = frames
    config.evaluation_episodes = episodes
    config.loggers, config.render, config.create_json = ["csv"], False, False
    with tempfile.TemporaryDirectory() as folder:
        config.save_folder = folder
        Experiment(
            task=task,
            algorithm_config=MaddpgConfig.get_from_yaml(),
            model_config=MlpConfig.get_from_yaml(),
            critic_model_config=MlpConfig.get_from_yaml(),
            seed=seed,
            config=config,
        ).run()
        found = Path(folder)
        seconds = total(found, "timers_collection_time") + total(found, "timers_training_time")
        result = {
            "frames": int(last(found, "counters_total_frames")),
            "seconds": round(seconds, 1),
            "return_per_agent": round(last(found, "eval_reward_episode_reward_mean"), 2),
        }
    print(json.dumps(result))


if __name__ == "__main__":
    main()

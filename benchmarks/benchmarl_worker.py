"""Train and evaluate BenchMARL with given settings; print a row as JSON. Run by `beside_benchmarl.py`.

    python benchmarl_worker.py ALGORITHM FRAMES SEED FIRST EPISODES SETTINGS

The evaluation plays EPISODES episodes with the seeds from FIRST on. SETTINGS is a JSON mapping: ``experiment`` (fields
of BenchMARL's ExperimentConfig), ``algorithm`` (of the algorithm's configuration) and ``model`` (``num_cells``,
``activation``: a class of torch.nn); what is missing is BenchMARL's default.
"""

import json
import sys
import tempfile
import time

import torch
from benchmarl.algorithms import MaddpgConfig, QmixConfig
from benchmarl.environments import PettingZooTask
from benchmarl.experiment import Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig
from pettingzoo.mpe import simple_spread_v3
from tensordict import TensorDict
from torchrl.envs.utils import ExplorationType, set_exploration_type

ALGORITHMS = {"maddpg": MaddpgConfig, "qmix": QmixConfig}
TASK = {"N": 3, "max_cycles": 25, "local_ratio": 0.5}


def changed(config, values):
    for key, value in values.items():
        if not hasattr(config, key):
            raise SystemExit(f"{type(config).__name__} has no {key}")
        setattr(config, key, value)
    return config


def model(settings):
    values = dict(settings)
    if "activation" in values:
        values["activation_class"] = getattr(torch.nn, values.pop("activation"))
    return changed(MlpConfig.get_from_yaml(), values)


def experiment(algorithm, frames, seed, settings, folder):
    task = PettingZooTask.SIMPLE_SPREAD.get_from_yaml()
    task.config.update(TASK)
    config = changed(ExperimentConfig.get_from_yaml(), settings.get("experiment", {}))
    config.max_n_frames, config.save_folder = frames, folder
    config.evaluation, config.render, config.create_json, config.loggers = False, False, False, []
    return Experiment(
        task=task,
        algorithm_config=changed(ALGORITHMS[algorithm].get_from_yaml(), settings.get("algorithm", {})),
        model_config=model(settings.get("model", {})),
        critic_model_config=model(settings.get("model", {})),
        seed=seed,
        config=config,
    )


@torch.no_grad()
def mean_return(policy, continuous, seeds):
    """Return the sum of an agent's rewards, without noise, averaged over agents and over an episode of each seed."""
    envs = [simple_spread_v3.parallel_env(continuous_actions=continuous, **TASK) for _ in seeds]
    observations = [env.reset(seed=seed)[0] for env, seed in zip(envs, seeds, strict=True)]
    agents, total = list(envs[0].agents), 0.0
    with set_exploration_type(ExplorationType.DETERMINISTIC):
        while envs[0].agents:
            seen = torch.tensor(
                [[observation[agent].tolist() for agent in agents] for observation in observations]
            )
            acting = policy(TensorDict({"agent": {"observation": seen}}, batch_size=[len(envs)]))
            actions = acting["agent", "action"].numpy()
            found = [
                env.step(dict(zip(agents, row, strict=True))) for env, row in zip(envs, actions, strict=True)
            ]
            observations = [step[0] for step in found]
            total += sum(sum(step[1].values()) for step in found)
    return float(total) / len(agents) / len(envs)


def main():
    algorithm, settings = sys.argv[1], json.loads(sys.argv[-1])
    frames, seed, first, episodes = map(int, sys.argv[2:-1])
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        training = experiment(algorithm, frames, seed, settings, folder)
        wall, cpu = time.perf_counter(), time.process_time()
        training.run()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        score = mean_return(training.policy, training.continuous_actions, range(first, first + episodes))
    print(
        json.dumps(
            {"frames": training.total_frames, "seconds": wall, "cpu_seconds": cpu, "return_per_agent": score}
        )
    )


if __name__ == "__main__":
    main()

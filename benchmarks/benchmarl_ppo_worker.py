"""BenchMARL's IPPO on simple_spread, iteration by iteration; run by `beside_frameworks.py` with a Python that has it.

    python benchmarl_ppo_worker.py TASK SETTINGS

TASK is ``pettingzoo`` (the environment that mpe2 continues) or ``vmas`` (simple_spread as a batch of environments in
torch, the one that BenchMARL's authors use; its observations and rewards are others). SETTINGS is the JSON that
`beside_frameworks.py` describes. After "ready" each line of the input is answered by an iteration's row.
"""

import json
import sys
import tempfile
import time

import torch
from benchmarl.algorithms import IppoConfig
from benchmarl.environments import PettingZooTask, VmasTask
from benchmarl.experiment import Callback, Experiment, ExperimentConfig
from benchmarl.models.mlp import MlpConfig

AGENTS = 3


class Turns(Callback):
    """Waits for a line before each iteration and answers it with its row.

    Args:
        episode: Steps of an episode.
    """

    def __init__(self, episode):
        super().__init__()
        self.episode, self.row = episode, None
        self.wall = self.cpu = 0.0

    def wait(self):
        """Wait for the next turn."""
        if not sys.stdin.readline():
            raise SystemExit
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def on_batch_collected(self, batch):
        """Note what was sampled."""
        after = batch["next"]
        group = next(key for key in after.keys() if key.startswith("agent"))  # noqa: SIM118 (a TensorDict)
        rewards = after[group, "reward"]
        self.row = {"env_steps": batch.numel(), "agent_return": rewards.mean().item() * self.episode}

    def on_train_end(self, training_td, group):
        """Answer, after the gradient steps."""
        times = {
            "seconds": time.perf_counter() - self.wall,
            "cpu_seconds": time.process_time() - self.cpu,
        }
        print(json.dumps(times | self.row), file=sys.__stdout__, flush=True)
        self.wait()


def main():
    name, settings = sys.argv[1], json.loads(sys.argv[2])
    torch.set_num_threads(1)
    if name == "vmas":
        task = VmasTask.SIMPLE_SPREAD.get_from_yaml()
        task.config.update(n_agents=AGENTS, obs_agents=True, max_steps=settings["episode"])
    else:
        task = PettingZooTask.SIMPLE_SPREAD.get_from_yaml()
        task.config.update(N=AGENTS, max_cycles=settings["episode"], local_ratio=0.5)
    config = ExperimentConfig.get_from_yaml()
    config.lr, config.gamma = settings["lr"], settings["gamma"]
    config.adam_eps, config.clip_grad_val = 1e-8, settings["grad_clip"]
    config.on_policy_collected_frames_per_batch = settings["num_envs"] * settings["steps"]
    config.on_policy_n_envs_per_worker = settings["num_envs"]
    config.on_policy_n_minibatch_iters = settings["epochs"]
    config.on_policy_minibatch_size = settings["minibatch"] // AGENTS
    config.prefer_continuous_actions = False
    config.max_n_frames = sys.maxsize
    config.evaluation, config.render, config.create_json, config.loggers = False, False, False, []
    algorithm = IppoConfig.get_from_yaml()
    algorithm.clip_epsilon, algorithm.entropy_coef = settings["clip"], settings["entropy_coeff"]
    algorithm.critic_coef, algorithm.lmbda = settings["vf_coeff"], settings["lambda"]
    model = MlpConfig(
        num_cells=settings["hidden"], layer_class=torch.nn.Linear, activation_class=torch.nn.Tanh
    )
    turns = Turns(settings["episode"])
    with tempfile.TemporaryDirectory() as folder:
        config.save_folder = folder
        experiment = Experiment(
            task=task,
            algorithm_config=algorithm,
            model_config=model,
            critic_model_config=model,
            seed=settings["seed"],
            config=config,
            callbacks=[turns],
        )
        print("ready 0", flush=True)
        turns.wait()
        experiment.run()


if __name__ == "__main__":
    main()

"""A common-payoff matrix game of one step, and small COMA learners with what their own policies have played."""

from typing import Any, NamedTuple

import gymnasium
import numpy as np
import torch
from pettingzoo import ParallelEnv
from toy_off_policy import TASKS, config_of

from qio_rllib.algorithms import COMAConfig
from qio_rllib.learners.joint_rollouts import JointRollout, joint_rollout_of
from qio_rllib.sampling.environments import register_env
from qio_rllib.sampling.rollout import Rollout
from qio_rllib.sampling.runner import BatchedEnvRunner

PAYOFFS = np.array([[8.0, 0.0, 1.0], [-2.0, 5.0, 4.0], [1.0, 4.0, 6.0]], np.float32)
"""Of both agents, by their actions; the best joint action is (0, 0), the best against uniform play is 2."""


class Matrix(ParallelEnv):
    """Both agents get `PAYOFFS` of what they do, once."""

    metadata = {"name": "matrix", "render_modes": []}  # noqa: RUF012
    possible_agents = ("a", "b")
    render_mode = None

    def __init__(self) -> None:
        self.agents: list[str] = []

    def observation_space(self, agent: str) -> gymnasium.Space:
        return gymnasium.spaces.Box(-1, 1, (1,), np.float32)

    def action_space(self, agent: str) -> gymnasium.Space:
        return gymnasium.spaces.Discrete(3)

    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        self.agents = ["a", "b"]
        return self.see(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> Any:
        payoff = float(PAYOFFS[actions["a"], actions["b"]])
        agents, self.agents = self.agents, []
        over, cut = dict.fromkeys(agents, True), dict.fromkeys(agents, False)
        infos = {agent: {"payoff": payoff} for agent in agents}
        return self.see(), dict.fromkeys(agents, payoff), over, cut, infos

    def see(self) -> dict[str, np.ndarray]:
        return {agent: np.ones(1, np.float32) for agent in self.possible_agents}

    def close(self) -> None:
        pass


class Played(NamedTuple):
    """A Learner, and what its runner has played."""

    learner: Any
    rollout: Rollout
    batch: JointRollout


def coma_config(
    task: str, model: dict[str, Any] | None = None, steps: int = 12, num_envs: int = 3, **training: Any
) -> COMAConfig:
    """Return a small configuration for one of `TASKS`, or for "matrix" with a policy for each agent."""
    register_env("matrix", lambda env_config: Matrix())
    config_of("lives")  # which registers the environments of `TASKS`
    env, env_config, policies = ("matrix", {}, "independent") if task == "matrix" else TASKS[task]
    config = COMAConfig().environment(env, env_config=env_config)
    if policies:
        config.multi_agent(policies=policies)
    settings = {
        "train_batch_size_per_learner": steps * num_envs,
        "critic": {"hiddens": [16]},
        "num_critic_updates": 3,
        "exploration": 0.2,
    }
    return (
        config.env_runners(num_env_runners=0, num_envs_per_env_runner=num_envs, rollout_fragment_length=steps)
        .training(**settings | training)
        .rl_module(model_config={"fcnet_hiddens": [8], "fcnet_activation": "tanh"} | (model or {}))
        .reporting(min_sample_timesteps_per_iteration=2 * steps * num_envs)
        .debugging(seed=3)
    )


def played(config: COMAConfig) -> Played:
    """Return a Learner with a rollout of its own policies."""
    torch.manual_seed(0)
    runner = BatchedEnvRunner(config=config)
    learner = config.build_learner(spaces=runner.get_spaces())
    runner.set_state({"rl_module": learner.module.get_state(inference_only=True)})
    rollout = runner.sample()[0]
    return Played(learner, rollout, joint_rollout_of([rollout], learner.joint, config.gamma, "cpu"))

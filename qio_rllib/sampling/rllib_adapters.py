"""Environments of PettingZoo and Gymnasium as RLlib's own runners take them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from pettingzoo import ParallelEnv
from ray.rllib.env.multi_agent_env import MultiAgentEnv

from qio_rllib.models.spaces import check_space, encoded


class ParallelEnvAdapter(MultiAgentEnv):
    """Shows any PettingZoo ``ParallelEnv`` to RLlib's multi-agent runner.

    Against RLlib's own wrapper: an episode in which some agents terminate and the rest truncate ends; a time
    limit stays a truncation (RLlib calls an episode terminated as soon as each agent carries a flag of its own, so
    truncation of the last agents is reported for the episode as a whole); `state` is passed on; `render` is
    called as PettingZoo defines it; space objects are made once; observations of other spaces than Boxes come as
    numbers, see `array_space`.

    Args:
        env: A PettingZoo parallel environment.
    """

    def __init__(self, env: ParallelEnv) -> None:
        super().__init__()
        self.env = env
        self.possible_agents = list(env.possible_agents)
        self.agents = list(self.possible_agents)
        self.observation_spaces = {
            agent: check_space(str(agent), env.observation_space(agent)) for agent in self.possible_agents
        }
        self.action_spaces = {agent: env.action_space(agent) for agent in self.possible_agents}
        self.observation_space = gymnasium.spaces.Dict(self.observation_spaces)
        self.action_space = gymnasium.spaces.Dict(self.action_spaces)
        self.render_mode = getattr(env, "render_mode", None)
        self.metadata = getattr(env, "metadata", {})

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Start an episode; return observations and infos by agent."""
        observations, infos = self.env.reset(seed=seed, options=options)
        self.agents = list(self.env.agents)
        return self._encoded(observations), infos or {}

    def step(self, action_dict: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        """Advance one step; the flags hold ``__all__`` as RLlib expects."""
        observations, rewards, terminated, truncated, infos = self.env.step(action_dict)
        self.agents = list(self.env.agents)
        over = not self.agents
        cut = over and any(truncated[agent] and not terminated[agent] for agent in truncated)
        terminateds = {**terminated, "__all__": over and not cut}
        if cut:
            truncateds = {"__all__": True}
        else:
            truncateds = {
                **{agent: flag and not terminated[agent] for agent, flag in truncated.items()},
                "__all__": False,
            }
        return self._encoded(observations), rewards, terminateds, truncateds, infos

    def _encoded(self, observations: Mapping[str, Any]) -> dict[str, Any]:
        return {
            agent: encoded(self.observation_spaces[agent], value) for agent, value in observations.items()
        }

    def state(self) -> np.ndarray:
        """Return the environment's global state, for centralised critics."""
        return self.env.state()

    def render(self) -> Any:
        """Return what the environment renders."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


class EncodedEnv(gymnasium.ObservationWrapper):
    """Shows a Gymnasium environment's observations to RLlib's runner as numbers, see `array_space`."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.observation_space = check_space("the agent", env.observation_space)

    def observation(self, observation: Any) -> Any:
        """Return an observation as numbers."""
        return encoded(self.observation_space, observation)

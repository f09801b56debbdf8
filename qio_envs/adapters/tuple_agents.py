"""`TupleParallelEnv`: anybody's Gymnasium environment of several agents, as a PettingZoo parallel environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import PassiveEnvChecker
from pettingzoo import ParallelEnv


class TupleParallelEnv(ParallelEnv):
    """A Gymnasium environment whose spaces are Tuples, with a part for each agent, in PettingZoo's form.

    Level-based foraging (lbforaging) and the multi-robot warehouse (rware) are such environments (Papoudakis et al.,
    2021): observations are tuples, rewards are lists, and one pair of flags ends the episode for all.

    Agents are ``agent_0``, ``agent_1``, ... in the order of the Tuples. All act until the episode ends, and each gets
    the environment's whole info. There is no global state.

    Args:
        env: The environment, for which `has_tuple_agents` holds.

    Attributes:
        env: That environment, without Gymnasium's checker, which warns of rewards that are not a single number.
    """

    def __init__(self, env: gymnasium.Env) -> None:
        self.env: Any = _without_checker(env)  # its rewards are lists, which Gymnasium's types do not know
        assert isinstance(env.observation_space, gymnasium.spaces.Tuple)
        assert isinstance(env.action_space, gymnasium.spaces.Tuple)
        self.possible_agents = [f"agent_{index}" for index in range(len(env.action_space))]
        self.agents: list[str] = []
        self.observation_spaces = dict(zip(self.possible_agents, env.observation_space, strict=True))
        self.action_spaces = dict(zip(self.possible_agents, env.action_space, strict=True))
        self.render_mode = env.render_mode
        self.metadata = {"name": type(env.unwrapped).__name__, **env.metadata}

    def observation_space(self, agent: str) -> gymnasium.Space:
        """Return the space of one agent's observations."""
        return self.observation_spaces[agent]

    def action_space(self, agent: str) -> gymnasium.Space:
        """Return the space of one agent's actions."""
        return self.action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict | None = None
    ) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
        """Start an episode; return observations and infos by agent."""
        observations, info = self.env.reset(seed=seed, options=options)
        self.agents = list(self.possible_agents)
        return dict(zip(self.agents, observations, strict=True)), {agent: dict(info) for agent in self.agents}

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]]:
        """Advance one step with an action for every agent.

        Raises:
            KeyError: An agent has no action.
            ValueError: The environment gave something else than a reward for each agent and two flags for all.
        """
        agents = self.possible_agents
        observations, rewards, terminated, truncated, info = self.env.step(
            tuple(actions[agent] for agent in agents)
        )
        if np.shape(rewards) != (len(agents),):
            raise ValueError(
                f"{self.env}: expected a reward for each of {len(agents)} agents, got {rewards!r}"
            )
        for flag in (terminated, truncated):
            if not isinstance(flag, bool | np.bool_):
                raise ValueError(f"{self.env}: expected one flag that ends the episode for all, got {flag!r}")
        if terminated or truncated:
            self.agents = []
        return (
            dict(zip(agents, observations, strict=True)),
            {agent: float(reward) for agent, reward in zip(agents, rewards, strict=True)},
            dict.fromkeys(agents, bool(terminated)),
            dict.fromkeys(agents, bool(truncated)),
            {agent: dict(info) for agent in agents},
        )

    def render(self) -> Any:
        """Return what the environment renders."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


def has_tuple_agents(env: Any) -> bool:
    """Whether this is a Gymnasium environment with a part for each of several agents in both of its spaces."""
    if not isinstance(env, gymnasium.Env):
        return False
    observations, actions = env.observation_space, env.action_space
    return (
        isinstance(observations, gymnasium.spaces.Tuple)
        and isinstance(actions, gymnasium.spaces.Tuple)
        and len(observations) == len(actions)
    )


def _without_checker(env: gymnasium.Env) -> gymnasium.Env:
    """Return an environment without the `PassiveEnvChecker` that `gymnasium.make` puts inside."""
    if isinstance(env, PassiveEnvChecker):
        return env.env
    if isinstance(env, gymnasium.Wrapper):
        env.env = _without_checker(env.env)
    return env

"""Small PettingZoo environments with endings that real ones have and wrappers forget."""

from typing import Any

import gymnasium
import numpy as np
from pettingzoo import ParallelEnv


class Endings(ParallelEnv):
    """Two agents; ``plan[agent] = (step, "terminated" | "truncated")`` says when and how each one ends."""

    metadata = {"name": "endings", "render_modes": []}  # noqa: RUF012

    def __init__(self, plan: dict[str, tuple[int, str]]) -> None:
        self.plan = plan
        self.possible_agents = list(plan)
        self.agents: list[str] = []
        self.render_mode = None

    def observation_space(self, agent: str) -> gymnasium.Space:
        return gymnasium.spaces.Box(0, 100, (1,), np.float32)

    def action_space(self, agent: str) -> gymnasium.Space:
        return gymnasium.spaces.Discrete(2)

    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        self.agents = list(self.possible_agents)
        self.time = 0
        return self._observations(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> Any:
        assert set(actions) == set(self.agents)
        self.time += 1
        ends = {
            agent: how
            for agent, (when, how) in self.plan.items()
            if agent in self.agents and when == self.time
        }
        observations, agents = self._observations(), self.agents
        self.agents = [agent for agent in agents if agent not in ends]
        return (
            observations,
            dict.fromkeys(agents, 1.0),
            {agent: ends.get(agent) == "terminated" for agent in agents},
            {agent: ends.get(agent) == "truncated" for agent in agents},
            {agent: {"time": self.time} for agent in agents},
        )

    def state(self) -> np.ndarray:
        return np.array([self.time], np.float32)

    def _observations(self) -> dict[str, np.ndarray]:
        return {agent: np.array([self.time], np.float32) for agent in self.agents}

"""The two-step game of Rashid et al. (2018), appendix: agent 0's first action chooses the second step's matrix."""

from typing import Any

import gymnasium
import numpy as np
from pettingzoo import ParallelEnv

MATRICES = {1: [[7.0, 7.0], [7.0, 7.0]], 2: [[0.0, 1.0], [1.0, 8.0]]}
OPTIMUM = 8.0


class TwoStep(ParallelEnv):
    """State 0 leads to state 1 or 2, as agent 0 chooses; there both are paid by a matrix. Everybody sees the state."""

    metadata = {"name": "two_step", "render_modes": []}  # noqa: RUF012
    possible_agents = ("one", "two")
    render_mode = None
    state_space = gymnasium.spaces.Box(0, 1, (3,), np.float32)

    def __init__(self) -> None:
        self.agents: list[str] = []
        self.place = 0

    def observation_space(self, agent: str) -> gymnasium.Space:
        return self.state_space

    def action_space(self, agent: str) -> gymnasium.Space:
        return gymnasium.spaces.Discrete(2)

    def state(self) -> np.ndarray:
        return np.eye(3, dtype=np.float32)[self.place]

    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        self.agents, self.place = list(self.possible_agents), 0
        return self.see(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> Any:
        one, two = (int(actions[agent]) for agent in self.possible_agents)
        reward, ended = (0.0, False) if self.place == 0 else (MATRICES[self.place][one][two], True)
        self.place = 0 if ended else 1 + one
        everybody = self.possible_agents
        result = (
            self.see(),
            dict.fromkeys(everybody, reward),
            dict.fromkeys(everybody, ended),
            dict.fromkeys(everybody, False),
            {agent: {} for agent in everybody},
        )
        if ended:
            self.agents = []
        return result

    def see(self) -> dict[str, np.ndarray]:
        return {agent: self.state() for agent in self.possible_agents}

    def close(self) -> None:
        pass

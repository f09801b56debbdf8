"""An environment that breaks in its 55th step."""

from typing import ClassVar

import gymnasium
import numpy as np
from pettingzoo import ParallelEnv


class Broken(ParallelEnv):
    """Two agents, episodes of 20 steps; ``fault`` says what goes wrong."""

    metadata: ClassVar = {"name": "broken"}
    render_mode = None

    def __init__(self, fault):
        self.possible_agents, self.agents, self.fault, self.played = ["a_0", "a_1"], [], fault, 0

    def observation_space(self, agent):
        return gymnasium.spaces.Box(-1, 1, (3,), np.float32)

    def action_space(self, agent):
        return gymnasium.spaces.Discrete(2)

    def reset(self, seed=None, options=None):
        self.agents, self.step_count = list(self.possible_agents), 0
        return {a: np.zeros(3, np.float32) for a in self.agents}, {a: {} for a in self.agents}

    def step(self, actions):
        self.step_count, self.played, agents = self.step_count + 1, self.played + 1, self.agents
        observations = {a: np.full(3, 0.1, np.float32) for a in agents}
        rewards = dict.fromkeys(agents, 1.0)
        if self.played == 55 and self.fault == "observation":
            observations["a_1"][2] = np.nan
        if self.played == 55 and self.fault == "reward":
            rewards["a_0"] = float("inf")
        if self.played == 55 and self.fault == "error":
            raise RuntimeError("the arm is stuck")
        over = self.step_count == 20
        self.agents = [] if over else agents
        return (
            observations,
            rewards,
            dict.fromkeys(agents, False),
            dict.fromkeys(agents, over),
            {a: {} for a in agents},
        )

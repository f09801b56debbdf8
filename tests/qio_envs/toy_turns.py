"""A game of turns without masks, whose agents end one by one."""

from __future__ import annotations

from typing import ClassVar

import gymnasium
import numpy as np
from pettingzoo import AECEnv


class Countdown(AECEnv):
    """Each agent may move so many times, and earns 1 for a move; it ends with its last one.

    Args:
        lives: Moves by agent.
        actions: The space of everybody's actions.
    """

    metadata: ClassVar[dict] = {"name": "countdown_v0", "render_modes": []}
    render_mode = None

    def __init__(self, lives, actions=None):
        self.lives = lives
        self.possible_agents = list(lives)
        self.actions = gymnasium.spaces.Discrete(2) if actions is None else actions

    def observation_space(self, agent):
        return gymnasium.spaces.Box(0, 10, (2,), np.float32)

    def action_space(self, agent):
        return self.actions

    def observe(self, agent):
        return np.array([self.left[agent], agent == self.agent_selection], np.float32)

    def reset(self, seed=None, options=None):
        self.agents = list(self.possible_agents)
        self.left = dict(self.lives)
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict.fromkeys(self.agents, 0.0)
        self.terminations = dict.fromkeys(self.agents, False)
        self.truncations = dict.fromkeys(self.agents, False)
        self.infos = {agent: {} for agent in self.agents}
        self.agent_selection = self.agents[0]

    def step(self, action):
        agent = self.agent_selection
        if self.terminations[agent] or self.truncations[agent]:
            self._was_dead_step(action)
            return
        self._cumulative_rewards[agent] = 0.0
        self.left[agent] -= 1
        self.rewards = {other: float(other == agent) for other in self.agents}
        self.terminations[agent] = self.left[agent] == 0
        self._accumulate_rewards()
        self.agent_selection = self._after(agent)
        if self.terminations[agent]:
            self._deads_step_first()

    def _after(self, agent):
        """Return who moves after an agent that may be gone."""
        order, place = self.possible_agents, self.possible_agents.index(agent)
        return next(other for other in [*order[place + 1 :], *order[: place + 1]] if other in self.agents)

"""A game that only messages win: one agent sees a symbol, another has to name it, a third sees and does nothing."""

from typing import Any

import gymnasium
import numpy as np
from pettingzoo import ParallelEnv

SYMBOLS = 4


class Whisper(ParallelEnv):
    """Each step ``ear`` earns 1 if its action is the symbol that ``eye`` sees now; ``idle`` is paid as ``ear`` is.

    With ``delay: true`` it has to name the symbol of the step before.
    """

    metadata = {"name": "whisper", "render_modes": []}  # noqa: RUF012
    possible_agents = ("eye", "ear", "idle")
    render_mode = None

    def __init__(self, delay: bool = False, length: int = 8) -> None:
        self.delay, self.length = delay, length
        self.agents: list[str] = []
        self.generator = np.random.default_rng()

    def observation_space(self, agent: str) -> gymnasium.Space:
        return gymnasium.spaces.Box(0, 1, (SYMBOLS + 3,), np.float32)

    def action_space(self, agent: str) -> gymnasium.Space:
        return gymnasium.spaces.Discrete(SYMBOLS)

    def reset(self, seed: int | None = None, options: dict | None = None) -> Any:
        if seed is not None:
            self.generator = np.random.default_rng(seed)
        self.agents, self.time, self.before = [*self.possible_agents], 0, 0
        self.symbol = int(self.generator.integers(SYMBOLS))
        return self.see(), {agent: {} for agent in self.agents}

    def step(self, actions: dict[str, int]) -> Any:
        self.time += 1
        gain = float(actions["ear"] == (self.before if self.delay else self.symbol))
        self.before, self.symbol = self.symbol, int(self.generator.integers(SYMBOLS))
        over = self.time == self.length
        agents = self.agents
        self.agents = [] if over else agents
        seen = self.see()
        return (
            seen,
            dict.fromkeys(agents, gain),
            dict.fromkeys(agents, over),
            dict.fromkeys(agents, False),
            {agent: {} for agent in agents},
        )

    def see(self) -> dict[str, np.ndarray]:
        found = {}
        for index, agent in enumerate(self.possible_agents):
            found[agent] = np.zeros(SYMBOLS + 3, np.float32)
            found[agent][SYMBOLS + index] = 1
            if agent == "eye":
                found[agent][self.symbol] = 1
        return found

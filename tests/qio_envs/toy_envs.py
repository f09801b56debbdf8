"""A small `BatchedEnv` with what the forest lacks: continuous actions and agents that end one by one."""

import dataclasses
from typing import NamedTuple

import gymnasium
import numpy as np

from qio_envs.api import FLAG, BatchedEnv, EnvConfig, Transition, clock_limits, setting
from qio_envs.api.random import uniform


@dataclasses.dataclass(frozen=True, kw_only=True)
class WalkConfig(EnvConfig):
    """Walkers on a line: each ends at its own border, or at the time limit."""

    num_walkers: int = setting(3, "number of walkers", low=1, high=10)
    max_steps: int = setting(5, "time limit, steps", low=1)


class WalkState(NamedTuple):
    seed: np.ndarray
    episode: np.ndarray
    step: np.ndarray
    running: np.ndarray
    place: np.ndarray  # float32 [E, N]
    alive: np.ndarray  # bool [E, N]


class Walk(BatchedEnv):
    """Walker ``n`` terminates once beyond ``n + 1``; those that are left are truncated at the time limit."""

    id = "walk_v0"
    config_class = WalkConfig

    def __init__(self, config=None, num_envs=1):
        super().__init__(config or WalkConfig(), num_envs)
        walkers = self.config.num_walkers
        self.possible_agents = tuple(f"walker_{n}" for n in range(walkers))
        self.observation_space = gymnasium.spaces.Box(-100, 100, (2,), np.float32)
        self.action_space = gymnasium.spaces.Box(-2, 2, (1,), np.float32)
        self.state_space = gymnasium.spaces.Box(-100, 100, (walkers,), np.float32)
        self.arrays = WalkState(
            seed=np.zeros(num_envs, np.uint64),
            episode=np.zeros(num_envs, np.uint32),
            step=np.full(num_envs, -1, np.int32),
            running=np.zeros(num_envs, bool),
            place=np.zeros((num_envs, walkers), np.float32),
            alive=np.zeros((num_envs, walkers), bool),
        )

    def state_limits(self):
        return clock_limits(self.config.max_steps) | {"place": (-100, 100), "alive": FLAG}

    def _reset(self, mask):
        s = self.arrays
        s.alive[mask] = True
        for e in np.flatnonzero(mask):
            for n in range(self.num_agents):
                s.place[e, n] = uniform(n, 0, s.episode[e], 0, s.seed[e]) / 2

    def _step(self, actions):
        s = self.arrays
        s.step[:] += 1
        was_alive = s.alive.copy()
        s.place[:] += np.where(was_alive, actions[..., 0], 0)
        terminated = was_alive & (s.place > np.arange(1, self.num_agents + 1))
        truncated = was_alive & ~terminated & (s.step >= self.config.max_steps)[:, None]
        s.alive[:] &= ~(terminated | truncated)
        s.running[:] = s.alive.any(axis=1)
        return Transition(np.where(was_alive, actions[..., 0], 0).astype(np.float32), terminated, truncated)

    def agents_alive(self):
        return self.arrays.alive & self.arrays.running[:, None]

    def observe(self, out=None):
        s = self.arrays
        values = np.stack([s.place, np.broadcast_to(s.step[:, None], s.place.shape)], axis=-1)
        return values.astype(np.float32)

    def state(self):
        return self.arrays.place.copy()

    def info(self):
        return {"team_return": self.arrays.place.sum(axis=1), "place": self.arrays.place.copy()}

    def render(self, index=0, mode="rgb_array"):
        return np.zeros((4, 4, 3), np.uint8) if mode == "rgb_array" else "walk"

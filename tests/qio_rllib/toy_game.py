"""A game of three places, two agents and a few steps whose values can be written down, and its values."""

import contextlib
import dataclasses
import itertools
from typing import NamedTuple

import gymnasium
import numpy as np

from qio_envs import registry
from qio_envs.api import BatchedEnv, EnvConfig, Transition, clock_limits, setting
from qio_envs.api.random import normals, uniform

PAY = np.random.default_rng(5).normal(size=(2, 3, 2, 2))
"""Expected rewards by agent, place and the two agents' actions."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GameConfig(EnvConfig):
    """How random it is."""

    steps: int = setting(3, "steps of an episode, whose end is a termination", low=1)
    noise: float = setting(1.0, "standard deviation of the rewards", low=0.0)
    chance: float = setting(0.3, "probability of one place further", low=0.0, high=1.0)

    @classmethod
    def scenarios(cls):
        return {"default": {}}


class GameState(NamedTuple):
    seed: np.ndarray
    episode: np.ndarray
    step: np.ndarray
    running: np.ndarray
    place: np.ndarray  # int64 [E]


class Game(BatchedEnv):
    """From place x the actions a and b lead to x + a + 2 b, by chance one further, modulo 3; both agents see x."""

    id = "toy_game_v0"
    config_class = GameConfig

    def __init__(self, config=None, num_envs=1):
        super().__init__(config or GameConfig(), num_envs)
        self.possible_agents = ("a", "b")
        self.observation_space = gymnasium.spaces.Box(0, 1, (5,), np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)
        self.state_space = gymnasium.spaces.Box(0, 1, (3,), np.float32)
        self.arrays = GameState(
            seed=np.zeros(num_envs, np.uint64),
            episode=np.zeros(num_envs, np.uint32),
            step=np.full(num_envs, -1, np.int32),
            running=np.zeros(num_envs, bool),
            place=np.zeros(num_envs, np.int64),
        )

    def state_limits(self):
        return clock_limits(self.config.steps) | {"place": (0, 2)}

    def _reset(self, mask):
        s = self.arrays
        for e in np.flatnonzero(mask):
            s.place[e] = int(3 * uniform(0, 0, s.episode[e], 0, s.seed[e]))

    def _step(self, actions):
        s = self.arrays
        rewards = PAY[:, s.place, actions[:, 0], actions[:, 1]].T.astype(np.float32)
        for e in range(self.num_envs):
            key = (s.step[e], s.episode[e], 1, s.seed[e])
            rewards[e] += np.float32(self.config.noise) * np.array(normals(0, *key)[:2], np.float32)
            further = uniform(4, *key) < self.config.chance
            s.place[e] = (s.place[e] + actions[e, 0] + 2 * actions[e, 1] + further) % 3
        s.step[:] += 1
        s.running[:] = s.step < self.config.steps
        over = np.repeat(~s.running[:, None], 2, axis=1)
        return Transition(rewards, over, np.zeros_like(over))

    def observe(self, out=None):
        out = self._observation_array(out)
        out[..., :3] = np.eye(3)[self.arrays.place][:, None]
        out[..., 3:] = np.eye(2)
        return out

    def state(self):
        return np.eye(3, dtype=np.float32)[self.arrays.place]

    def info(self):
        return {"team_return": np.zeros(self.num_envs)}

    def render(self, index=0, mode="rgb_array"):
        return np.zeros((4, 4, 3), np.uint8) if mode == "rgb_array" else "game"


@contextlib.contextmanager
def registered():
    """Let the game go by its name."""
    environment = registry.Environment("toy_game_v0", "toy_game:Game", "a game with known values")
    try:
        yield environment
    finally:
        del registry._ENVIRONMENTS["toy_game_v0"]


def advantages(policy, gamma, place, left, agent, other=None, chance=0.3):
    """The advantages of an agent's two actions, by enumeration.

    ``policy [2 agents, 3 places, 2 actions]``; ``left`` steps are to come; ``other`` is what the other agent does in
    this one, drawn from its policy when absent.
    """
    values = np.zeros((2, 3))
    for _ in range(left - 1):
        after = np.array(
            [[next_value(values[n], x, a, chance) for a in ACTIONS] for n in range(2) for x in range(3)]
        )
        joint = PAY.reshape(2, 3, 4) + gamma * after.reshape(2, 3, 4)
        weights = np.einsum("xa,xb->xab", *policy).reshape(3, 4)
        values = (weights * joint).sum(-1)
    q = np.zeros(2)
    for own, others in ACTIONS:
        pair = (own, others) if agent == 0 else (others, own)
        weight = policy[1 - agent, place, others] if other is None else float(others == other)
        q[own] += weight * (PAY[agent, place][pair] + gamma * next_value(values[agent], place, pair, chance))
    return q - policy[agent, place] @ q


ACTIONS = list(itertools.product(range(2), range(2)))


def next_value(values, place, pair, chance):
    goes = (place + pair[0] + 2 * pair[1]) % 3
    return (1 - chance) * values[goes] + chance * values[(goes + 1) % 3]

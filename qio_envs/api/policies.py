"""Random play, the reference point that all environments share."""

from __future__ import annotations

import gymnasium
import numpy as np
from numba import njit

from qio_envs.api.batched import Array, BatchedEnv
from qio_envs.api.random import integers

_POLICY_STREAM = 1000  # apart from the environments' own streams
_HALF_GRID = 1 << 23  # continuous actions lie on a grid of twice as many values, exact in float32


class RandomPolicy:
    """Uniform over the actions that the mask allows, or over the bounded Box of continuous actions.

    A pure function of (seed, environment seed, episode, step).

    Args:
        env: The environment to act in.
        seed: Key of the policy's own random numbers, 0 to 2**64 - 1.
    """

    def __init__(self, env: BatchedEnv, seed: int = 0) -> None:
        self.env = env
        self.seed = np.uint64(seed)

    def act(self) -> Array:
        """Return int64 actions ``[E, N]``, or float32 ``[E, N, *action_space.shape]``."""
        arrays, space = self.env.arrays, self.env.action_space
        keys = arrays.seed ^ (arrays.episode.astype(np.uint64) << np.uint64(32)) ^ self.seed
        if isinstance(space, gymnasium.spaces.Discrete):
            mask = self.env.action_mask()
            draws = integers(1 << 30, self.env.num_agents, arrays.step, _POLICY_STREAM, keys)
            return _nth_legal(mask, draws % mask.sum(axis=2))
        shape = (self.env.num_envs, self.env.num_agents, *space.shape)
        lanes = int(np.prod(shape[1:]))
        draws = integers(2 * _HALF_GRID, lanes, arrays.step, _POLICY_STREAM, keys).reshape(shape)
        unit = (draws - _HALF_GRID).astype(np.float32) / np.float32(_HALF_GRID)  # [-1, 1)
        return (space.low + space.high) / 2 + (space.high - space.low) / 2 * unit


@njit(cache=True)
def _nth_legal(mask: Array, rank: Array) -> Array:
    actions = np.zeros(rank.shape, np.int64)
    for e in range(rank.shape[0]):
        for n in range(rank.shape[1]):
            left = rank[e, n]
            for action in range(mask.shape[2]):
                if mask[e, n, action]:
                    if left == 0:
                        actions[e, n] = action
                        break
                    left -= 1
    return actions

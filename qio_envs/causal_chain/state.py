"""The state of the causal chain."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qio_envs.api import FLAG, Array, Limits, clock_limits
from qio_envs.causal_chain.config import CausalChainConfig


class CausalChainState(NamedTuple):
    """Arrays of the causal chain."""

    seed: Array  # uint64 [E], key of the random numbers
    episode: Array  # uint32 [E], episodes since the seed was given
    step: Array  # int32 [E], steps since the reset; -1 before the first
    running: Array  # bool [E], reset and not ended
    values: Array  # float32 [E, 3], x1 of the round to come, x2 and x3 of the last one (0 before the first)
    fixed: Array  # bool [E, 2], whether x2 and x3 of the round to come are set from outside
    fixed_values: Array  # float32 [E, 2], to what
    cause: Array  # float32 [E], x1 of the last round
    action: Array  # float32 [E, 2], of the last round, after clipping
    returns: Array  # float64 [E], of the episode so far
    clipped: Array  # int32 [E], actions with a component outside [-1, 1]

    @classmethod
    def empty(cls, num_envs: int) -> CausalChainState:
        """Return the state of environments that were never reset."""
        return cls(
            seed=np.zeros(num_envs, np.uint64),
            episode=np.zeros(num_envs, np.uint32),
            step=np.full(num_envs, -1, np.int32),
            running=np.zeros(num_envs, bool),
            values=np.zeros((num_envs, 3), np.float32),
            fixed=np.zeros((num_envs, 2), bool),
            fixed_values=np.zeros((num_envs, 2), np.float32),
            cause=np.zeros(num_envs, np.float32),
            action=np.zeros((num_envs, 2), np.float32),
            returns=np.zeros(num_envs),
            clipped=np.zeros(num_envs, np.int32),
        )

    @classmethod
    def limits(cls, config: CausalChainConfig) -> Limits:
        """Return what each array may hold; see `BatchedEnv.state_limits`."""
        high = np.array(config.max_values)
        return clock_limits(config.rounds) | {
            "values": (-high, high),
            "fixed": FLAG,
            "fixed_values": (-high[1:], high[1:]),
            "cause": (-high[0], high[0]),
            "action": (-1, 1),
            "returns": (-config.rounds * high[2], config.rounds * high[2]),
            "clipped": (0, config.rounds),
        }

"""The state of the CHSH game."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qio_envs.api import Array, Limits, Relations, clock_limits
from qio_envs.chsh.config import CHSHConfig


class CHSHState(NamedTuple):
    """Arrays of the game; Alice comes first on the agents' axis."""

    seed: Array  # uint64 [E], key of the random numbers
    episode: Array  # uint32 [E], episodes since the seed was given
    step: Array  # int32 [E], steps since the reset; -1 before the first
    running: Array  # bool [E], reset and not ended
    question: Array  # int8 [E, 2], 0 or 1, of the round to come
    asked: Array  # int8 [E, 2], questions of the last round; -1 before the first
    answer: Array  # int8 [E, 2], answers of the last round; -1 before the first
    wins: Array  # int32 [E], rounds won so far

    @classmethod
    def empty(cls, num_envs: int) -> CHSHState:
        """Return the state of environments that were never reset."""
        return cls(
            seed=np.zeros(num_envs, np.uint64),
            episode=np.zeros(num_envs, np.uint32),
            step=np.full(num_envs, -1, np.int32),
            running=np.zeros(num_envs, bool),
            question=np.zeros((num_envs, 2), np.int8),
            asked=np.full((num_envs, 2), -1, np.int8),
            answer=np.full((num_envs, 2), -1, np.int8),
            wins=np.zeros(num_envs, np.int32),
        )

    @classmethod
    def limits(cls, config: CHSHConfig) -> Limits:
        """Return what each array may hold; see `BatchedEnv.state_limits`."""
        return clock_limits(config.rounds) | {
            "question": (0, 1),
            "asked": (-1, 1),
            "answer": (-1, 1),
            "wins": (0, config.rounds),
        }

    def relations(self) -> Relations:
        """Return what must hold between the arrays; see `qio_envs.api.limits`."""
        yield "wins", self.wins <= self.step, "at most as many as rounds played"

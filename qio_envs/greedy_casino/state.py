"""The state of the greedy casino."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qio_envs.api import Array, Limits, Relations, clock_limits
from qio_envs.greedy_casino.config import GreedyCasinoConfig


class GreedyCasinoState(NamedTuple):
    """Arrays of the greedy casino; machines are 0 and 1."""

    seed: Array  # uint64 [E], key of the random numbers
    episode: Array  # uint32 [E], episodes since the seed was given
    step: Array  # int32 [E], steps since the reset; -1 before the first
    running: Array  # bool [E], reset and not ended
    causes: Array  # int8 [E, 2], drunk and blinking in the round to come, 0 or 1
    intent: Array  # int8 [E], machine that intuition chooses in the round to come
    intended: Array  # int8 [E], that of the last round; -1 before the first
    machine: Array  # int8 [E], machine of the last round; -1 before the first
    paid: Array  # int8 [E], whether it paid; 0 before the first round
    payouts: Array  # int32 [E], rounds that paid so far
    followed: Array  # int32 [E], rounds so far in which the choice was the intention

    @classmethod
    def empty(cls, num_envs: int) -> GreedyCasinoState:
        """Return the state of environments that were never reset."""
        return cls(
            seed=np.zeros(num_envs, np.uint64),
            episode=np.zeros(num_envs, np.uint32),
            step=np.full(num_envs, -1, np.int32),
            running=np.zeros(num_envs, bool),
            causes=np.zeros((num_envs, 2), np.int8),
            intent=np.zeros(num_envs, np.int8),
            intended=np.full(num_envs, -1, np.int8),
            machine=np.full(num_envs, -1, np.int8),
            paid=np.zeros(num_envs, np.int8),
            payouts=np.zeros(num_envs, np.int32),
            followed=np.zeros(num_envs, np.int32),
        )

    @classmethod
    def limits(cls, config: GreedyCasinoConfig) -> Limits:
        """Return what each array may hold; see `BatchedEnv.state_limits`."""
        return clock_limits(config.rounds) | {
            "causes": (0, 1),
            "intent": (0, 1),
            "intended": (-1, 1),
            "machine": (-1, 1),
            "paid": (0, 1),
            "payouts": (0, config.rounds),
            "followed": (0, config.rounds),
        }

    def relations(self) -> Relations:
        """Return what must hold between the arrays; see `qio_envs.api.limits`."""
        yield "payouts", self.payouts <= self.step, "at most as many as rounds played"
        yield "followed", self.followed <= self.step, "at most as many as rounds played"

"""Scripted policies of the greedy casino: one for each level of what is known of causes."""

from __future__ import annotations

import numpy as np

from qio_envs.api import Array, BatchedEnv
from qio_envs.greedy_casino.config import GreedyCasinoConfig
from qio_envs.greedy_casino.state import GreedyCasinoState

_Env = BatchedEnv[GreedyCasinoConfig, GreedyCasinoState]


class IntuitionPolicy:
    """Does what it intends; 0.15 of the rounds pay. It knows the intention even where that is not observed.

    Args:
        env: The environment to act in.
    """

    def __init__(self, env: _Env) -> None:
        self.env = env

    def act(self) -> Array:
        """Return the machines, int64 ``[E, 1]``."""
        return self.env.arrays.intent[:, None].astype(np.int64)


class OneMachinePolicy:
    """Always plays the same machine: as good as any policy that ignores the intention, 0.30 of the rounds pay.

    Args:
        env: The environment to act in.
        machine: 0 or 1.
    """

    def __init__(self, env: _Env, machine: int = 0) -> None:
        self.env, self.machine = env, machine

    def act(self) -> Array:
        """Return the machines, int64 ``[E, 1]``."""
        return np.full((self.env.num_envs, 1), self.machine, np.int64)


class AgainstIntuitionPolicy:
    """Oracle: plays the machine that it does not intend to play; 0.45 of the rounds pay.

    Args:
        env: The environment to act in; the intention is known even where it is not observed.
    """

    def __init__(self, env: _Env) -> None:
        self.env = env

    def act(self) -> Array:
        """Return the machines, int64 ``[E, 1]``."""
        return 1 - self.env.arrays.intent[:, None].astype(np.int64)

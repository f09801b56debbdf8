"""Scripted policies of the causal chain."""

from __future__ import annotations

import numpy as np

from qio_envs.api import Array, BatchedEnv
from qio_envs.causal_chain.config import CausalChainConfig
from qio_envs.causal_chain.state import CausalChainState


class ConstantPolicy:
    """Always takes the same action.

    Args:
        env: The environment to act in.
        a0: First number, -1 to 1.
        a1: Second number, -1 to 1.
    """

    def __init__(
        self, env: BatchedEnv[CausalChainConfig, CausalChainState], a0: float = 0.0, a1: float = 0.0
    ) -> None:
        self.env = env
        self.action = np.array([a0, a1], np.float32)

    def act(self) -> Array:
        """Return float32 actions ``[E, 1, 2]``."""
        return np.tile(self.action, (self.env.num_envs, 1, 1))

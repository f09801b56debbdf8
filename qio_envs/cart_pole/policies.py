"""Scripted policies of the cart and pole."""

from __future__ import annotations

import numpy as np

from qio_envs.api import Array, BatchedEnv
from qio_envs.cart_pole.config import CartPoleConfig
from qio_envs.cart_pole.model import lqr_gain
from qio_envs.cart_pole.state import CartPoleState


class LQRPolicy:
    """Oracle: pushes in the direction of the linear-quadratic regulator's force (`lqr_gain`), from the true settings.

    Args:
        env: The environment to act in.
    """

    def __init__(self, env: BatchedEnv[CartPoleConfig, CartPoleState]) -> None:
        self.env = env
        self.gain = lqr_gain(env.config)

    def act(self) -> Array:
        """Return int64 actions ``[E, 1]``."""
        # a sum, not a matrix product: this is the same for one environment and for many
        wanted = -sum(k * part for k, part in zip(self.gain, self.env.arrays.components, strict=True))
        return (wanted > 0).astype(np.int64)[:, None]

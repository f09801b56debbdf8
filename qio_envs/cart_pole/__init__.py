"""Cart and pole: push a cart so that the pole on it stays upright; masses, length, gravity and force are settings."""

from qio_envs.api.policies import RandomPolicy
from qio_envs.cart_pole.config import CartPoleConfig
from qio_envs.cart_pole.env import CartPole
from qio_envs.cart_pole.model import linear_model, lqr_gain
from qio_envs.cart_pole.policies import LQRPolicy

__all__ = [
    "CartPole",
    "CartPoleConfig",
    "LQRPolicy",
    "RandomPolicy",
    "linear_model",
    "lqr_gain",
]

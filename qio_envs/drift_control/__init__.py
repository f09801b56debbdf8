"""Drift control: two actions hold four coupled components near the origin, with distractors and hidden components."""

from qio_envs.api.policies import RandomPolicy
from qio_envs.drift_control.config import DriftControlConfig
from qio_envs.drift_control.env import DriftControl
from qio_envs.drift_control.model import linear_model, lqr_gain, lqr_value, mean_next_state
from qio_envs.drift_control.policies import CEMPolicy, LQGPolicy, LQRPolicy, ZeroPolicy

__all__ = [
    "CEMPolicy",
    "DriftControl",
    "DriftControlConfig",
    "LQGPolicy",
    "LQRPolicy",
    "RandomPolicy",
    "ZeroPolicy",
    "linear_model",
    "lqr_gain",
    "lqr_value",
    "mean_next_state",
]

"""Confounded control: hold a number near 0, where logged behaviour saw what no record shows."""

from qio_envs.api.policies import RandomPolicy
from qio_envs.confounded_control.config import EFFECT, ConfoundedControlConfig
from qio_envs.confounded_control.env import ConfoundedControl
from qio_envs.confounded_control.logs import logged
from qio_envs.confounded_control.model import logged_graph, lqr_gain, naive_effect, step_graph
from qio_envs.confounded_control.policies import BehaviourPolicy, LQRPolicy, NaiveLQRPolicy, ZeroPolicy

__all__ = [
    "EFFECT",
    "BehaviourPolicy",
    "ConfoundedControl",
    "ConfoundedControlConfig",
    "LQRPolicy",
    "NaiveLQRPolicy",
    "RandomPolicy",
    "ZeroPolicy",
    "logged",
    "logged_graph",
    "lqr_gain",
    "naive_effect",
    "step_graph",
]

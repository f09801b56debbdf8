"""The cart and pole on paper: causal graph, linearisation and its optimal control (NumPy, float64)."""

from __future__ import annotations

import numpy as np

from qio_envs.api import AFTER, Array, StepGraph
from qio_envs.cart_pole.config import COMPONENTS, TIME_STEP, CartPoleConfig

STATE_COST = np.diag([1.0, 0.0, 1.0, 0.0])
"""What position and angle cost `lqr_gain`, per m^2 and rad^2 and step."""
FORCE_COST = 0.1
"""What the force costs it, per N^2 and step."""
_DOUBLINGS = 100  # of the horizon at most
_CONVERGED = 1e-13  # relative change of the value at which they stop


def step_graph() -> StepGraph:
    """Return the causal graph of one time step: the dynamics of `CartPole` as edges; the reward has no cause."""
    causes = {
        "position": ("position", "velocity"),
        "velocity": ("velocity", "angle", "angular_velocity", "a"),
        "angle": ("angle", "angular_velocity"),
        "angular_velocity": ("angle", "angular_velocity", "a"),
    }
    return StepGraph(
        variables=(*COMPONENTS, "a", *(name + AFTER for name in COMPONENTS), "reward"),
        hidden=(),
        edges=tuple((cause, effect + AFTER) for effect, before in causes.items() for cause in before),
    )


def linear_model(config: CartPoleConfig) -> tuple[Array, Array]:
    """Return A (float64 ``[4, 4]``) and B (``[4]``) of the linearisation at the upright pole: s' = A s + B f.

    s is position, velocity, angle and angular velocity, f the force in newtons.

    Args:
        config: The settings.
    """
    total = config.cart_mass + config.pole_mass
    share = config.pole_mass / total
    inertia = config.pole_length * (4 / 3 - share)
    turn = np.array([config.gravity, -1 / total]) / inertia  # angular acceleration by angle and by force
    push = np.array([0.0, 1 / total]) - share * config.pole_length * turn
    a, b = np.eye(4), np.zeros(4)
    a[0, 1] = a[2, 3] = TIME_STEP
    a[1, 2], b[1] = TIME_STEP * push
    a[3, 2], b[3] = TIME_STEP * turn
    return a, b


def lqr_gain(config: CartPoleConfig) -> Array:
    """Return the gain K of the linear-quadratic regulator of `linear_model`, float64 ``[4]``: the force is -K s.

    It minimises the sum of s' Q s + r f^2 over an endless future without limits, with Q `STATE_COST` and r
    `FORCE_COST`. The value is the fixed point of the Riccati recursion, whose horizon is doubled in each iteration
    (the structure-preserving doubling algorithm of Chu, Fan and Lin, 2004).

    Args:
        config: The settings.
    """
    a, b = linear_model(config)
    power, reach, value = a, np.outer(b, b) / FORCE_COST, STATE_COST
    for _ in range(_DOUBLINGS):
        halves = np.linalg.solve(np.eye(4) + reach @ value, np.hstack([power, reach]))
        gained = power.T @ value @ halves[:, :4]
        power, reach = power @ halves[:, :4], reach + power @ halves[:, 4:] @ power.T
        value = value + gained
        if np.abs(gained).max() <= _CONVERGED * np.abs(value).max():
            break
    return (b @ value @ a) / (FORCE_COST + b @ value @ b)

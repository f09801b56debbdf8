"""Settings of the cart and pole."""

from __future__ import annotations

import dataclasses
import math

from qio_envs.api import EnvConfig, setting

COMPONENTS = ("position", "velocity", "angle", "angular_velocity")
"""Names of the numbers of the state, in the order of an observation: m, m/s, rad, rad/s."""
TIME_STEP = 0.02
"""Of the explicit Euler method, seconds."""
MAX_POSITION = 2.4
"""Magnitude of the position beyond which an episode terminates, metres."""
MAX_ANGLE = 12 * 2 * math.pi / 360
"""Magnitude of the angle beyond which an episode terminates, radians: 12 degrees."""
START = 0.05
"""Bound of each number of the state at reset."""
MAX_INTERVENTION = (MAX_POSITION, 10.0, MAX_ANGLE, 10.0)
"""Bounds on the magnitudes of what is set from outside, in the order of `COMPONENTS`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CartPoleConfig(EnvConfig):
    """Settings of `CartPole`; see there for what each does."""

    max_steps: int = setting(500, "time limit of an episode, steps", low=1, high=1_000_000)
    pole_length: float = setting(0.5, "half the length of the pole, m", low=0.05, high=10.0)
    gravity: float = setting(9.8, "gravitational acceleration, m/s^2", low=0.1, high=100.0)
    force: float = setting(10.0, "force with which the cart is pushed, N", low=0.1, high=1000.0)
    cart_mass: float = setting(1.0, "mass of the cart, kg", low=0.01, high=100.0)
    pole_mass: float = setting(0.1, "mass of the pole, kg", low=0.001, high=100.0)

    @property
    def observation_layout(self) -> dict[str, slice]:
        """Where each part of an observation lies, by name."""
        return {name: slice(index, index + 1) for index, name in enumerate(COMPONENTS)}

    @property
    def state_layout(self) -> dict[str, slice]:
        """Where each part of the global state lies, by name."""
        return self.observation_layout | {"time_left": slice(len(COMPONENTS), len(COMPONENTS) + 1)}

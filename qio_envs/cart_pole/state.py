"""What the kernels of the cart and pole work on: state and rules as named tuples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qio_envs.api import FINITE, FLAG, Array, Limits, Relations, clock_limits
from qio_envs.cart_pole.config import MAX_ANGLE, MAX_POSITION, CartPoleConfig

_SLACK = 1.001  # an intervention sets bounds rounded to float32


class CartPoleState(NamedTuple):
    """Arrays of the cart and pole."""

    seed: Array  # uint64 [E], key of the random numbers
    episode: Array  # uint32 [E], episodes since the seed was given
    step: Array  # int32 [E], steps since the reset; -1 before the first
    running: Array  # bool [E], reset and not ended
    position: Array  # float64 [E], of the cart, m; positive to the right
    velocity: Array  # float64 [E], of the cart, m/s
    angle: Array  # float64 [E], of the pole, rad; 0 upright, positive clockwise
    angular_velocity: Array  # float64 [E], of the pole, rad/s
    action: Array  # int32 [E], last one; -1 at reset
    out: Array  # bool [E], the pole has fallen or the cart has left the track

    @classmethod
    def empty(cls, num_envs: int) -> CartPoleState:
        """Return the state of environments that were never reset."""
        return cls(
            seed=np.zeros(num_envs, np.uint64),
            episode=np.zeros(num_envs, np.uint32),
            step=np.full(num_envs, -1, np.int32),
            running=np.zeros(num_envs, bool),
            position=np.zeros(num_envs),
            velocity=np.zeros(num_envs),
            angle=np.zeros(num_envs),
            angular_velocity=np.zeros(num_envs),
            action=np.full(num_envs, -1, np.int32),
            out=np.zeros(num_envs, bool),
        )

    @classmethod
    def limits(cls, config: CartPoleConfig) -> Limits:
        """Return what each array may hold; see `BatchedEnv.state_limits`."""
        return clock_limits(config.max_steps) | {
            "position": FINITE,
            "velocity": FINITE,
            "angle": FINITE,
            "angular_velocity": FINITE,
            "action": (-1, 1),
            "out": FLAG,
        }

    def relations(self) -> Relations:
        """Return what must hold between the arrays; see `qio_envs.api.limits`."""
        ended = ~self.running
        on_track = np.abs(self.position) <= _SLACK * MAX_POSITION
        upright = np.abs(self.angle) <= _SLACK * MAX_ANGLE
        yield "position", ended | on_track, f"-{MAX_POSITION:g} to {MAX_POSITION:g} while the episode runs"
        yield "angle", ended | upright, f"-{MAX_ANGLE:.5g} to {MAX_ANGLE:.5g} while the episode runs"
        yield "out", ended | ~self.out, "false while the episode runs"

    @property
    def components(self) -> tuple[Array, Array, Array, Array]:
        """Position, velocity, angle and angular velocity, float64 ``[E]`` each."""
        return self.position, self.velocity, self.angle, self.angular_velocity


class CartPoleRules(NamedTuple):
    """What of a configuration the kernels need."""

    max_steps: int
    pole_length: float
    gravity: float
    force: float
    cart_mass: float
    pole_mass: float

    @classmethod
    def of(cls, config: CartPoleConfig) -> CartPoleRules:
        """Return the rules of a configuration."""
        return cls(
            max_steps=config.max_steps,
            pole_length=config.pole_length,
            gravity=config.gravity,
            force=config.force,
            cart_mass=config.cart_mass,
            pole_mass=config.pole_mass,
        )

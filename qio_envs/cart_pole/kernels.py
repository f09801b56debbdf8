"""Numba kernels of the cart and pole; each loops over the environments of a batch, in float64."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import uniform
from qio_envs.cart_pole.config import MAX_ANGLE, MAX_POSITION, START, TIME_STEP
from qio_envs.cart_pole.state import CartPoleRules, CartPoleState

STARTS = 0  # stream of random numbers; lane k is number k of the state


@njit(cache=True)
def reset(mask: Array, state: CartPoleState) -> None:
    """Draw the start where ``mask`` (bool ``[E]``) is true; all but seed, episode, step, running is written anew."""
    for e in range(mask.shape[0]):
        if not mask[e]:
            continue
        episode, seed = state.episode[e], state.seed[e]
        state.position[e] = START * (2.0 * uniform(0, 0, episode, STARTS, seed) - 1.0)
        state.velocity[e] = START * (2.0 * uniform(1, 0, episode, STARTS, seed) - 1.0)
        state.angle[e] = START * (2.0 * uniform(2, 0, episode, STARTS, seed) - 1.0)
        state.angular_velocity[e] = START * (2.0 * uniform(3, 0, episode, STARTS, seed) - 1.0)
        state.action[e], state.out[e] = -1, False


@njit(cache=True, error_model="numpy")
def step(
    actions: Array, state: CartPoleState, rules: CartPoleRules, terminated: Array, truncated: Array
) -> None:
    """Advance every environment by one step.

    Args:
        actions: Int64 ``[E, 1]``, 0 or 1.
        state: Is advanced.
        rules: What holds.
        terminated: Bool ``[E, 1]``, is written.
        truncated: Bool ``[E, 1]``, is written.
    """
    total_mass = rules.pole_mass + rules.cart_mass
    moment = rules.pole_mass * rules.pole_length
    for e in range(actions.shape[0]):
        velocity, angle, turning = state.velocity[e], state.angle[e], state.angular_velocity[e]
        force = rules.force if actions[e, 0] == 1 else -rules.force
        cosine, sine = np.cos(angle), np.sin(angle)
        pushed = (force + moment * (turning * turning) * sine) / total_mass
        angular_acceleration = (rules.gravity * sine - cosine * pushed) / (
            rules.pole_length * (4.0 / 3.0 - rules.pole_mass * (cosine * cosine) / total_mass)
        )
        acceleration = pushed - moment * angular_acceleration * cosine / total_mass
        state.position[e] += TIME_STEP * velocity
        state.velocity[e] += TIME_STEP * acceleration
        state.angle[e] += TIME_STEP * turning
        state.angular_velocity[e] += TIME_STEP * angular_acceleration
        state.step[e] += 1
        state.action[e] = actions[e, 0]
        out = abs(state.position[e]) > MAX_POSITION or abs(state.angle[e]) > MAX_ANGLE
        over = state.step[e] >= rules.max_steps
        state.out[e], state.running[e] = out, not (out or over)
        terminated[e, 0], truncated[e, 0] = out, over and not out

"""Numba kernels that all particle environments share: starts, actions, motion with contacts, and distances.

Each loops over the environments of a batch, in float64. The order of operations is mpe2's, so that rounding is the
same. The NumPy error model spares the check before each division; no divisor here can be zero.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import below, philox4x32
from qio_envs.mpe.state import (
    CONTACT_FORCE,
    CONTACT_MARGIN,
    DAMPING,
    TIME_STEP,
    ParticleState,
    World,
)

START, GOAL = 0, 1  # streams of random numbers

_NEGLIGIBLE = 50.0  # margins beyond which a contact's force is below 1e-22 of a full one
_UNIT_32 = 2.0**-32
_EDGE, _BORDER, _MOST = 0.9, 1.0, 10.0  # of the price for leaving the square


@njit(cache=True)
def reset(mask: Array, state: ParticleState, world: World) -> None:
    """Place all entities and draw the goals where ``mask`` (bool ``[E]``) is true.

    Everything but seed, episode, step and running is written anew. Entities ``2 b`` and ``2 b + 1`` share a block of
    random numbers.
    """
    position, spawn = state.position, world.spawn
    entities = position.shape[1]
    for e in range(position.shape[0]):
        if not mask[e]:
            continue
        episode, seed = state.episode[e], state.seed[e]
        for m in range(0, entities, 2):
            w0, w1, w2, w3 = philox4x32(m >> 1, 0, episode, START, seed)
            position[e, m, 0] = spawn[m] * (2.0 * _UNIT_32 * w0 - 1.0)
            position[e, m, 1] = spawn[m] * (2.0 * _UNIT_32 * w1 - 1.0)
            if m + 1 < entities:
                position[e, m + 1, 0] = spawn[m + 1] * (2.0 * _UNIT_32 * w2 - 1.0)
                position[e, m + 1, 1] = spawn[m + 1] * (2.0 * _UNIT_32 * w3 - 1.0)
        for g in range(world.goal_choices.shape[0]):
            state.goal[e, g] = below(world.goal_choices[g], g, 0, episode, GOAL, seed)
        state.velocity[e] = 0.0
        state.message[e] = 0.0
        state.returns[e] = 0.0
        state.tally[e] = 0.0


@njit(cache=True, error_model="numpy")
def step_discrete(
    actions: Array, state: ParticleState, world: World, terminated: Array, truncated: Array
) -> None:
    """Advance every environment by one step.

    Args:
        actions: Int64 ``[E, N]``, 0 or more; those that an agent lacks are as 0.
        state: Is advanced, all but its returns and tally.
        world: What holds.
        terminated: Bool ``[E, N]``, is written.
        truncated: Bool ``[E, N]``, is written.
    """
    agents = world.movable.shape[0]
    force = np.zeros((agents, 2))
    for e in range(actions.shape[0]):
        for n in range(agents):
            symbol = actions[e, n] if actions[e, n] < world.action_sizes[n] else 0
            if world.movable[n]:
                move = symbol  # none, left, right, down, up
                if world.speaks[n]:
                    symbol = move // 5
                    move -= 5 * symbol
                push = world.acceleration[n] if move == 2 or move == 4 else -world.acceleration[n]
                force[n, 0] = push if move == 1 or move == 2 else 0.0
                force[n, 1] = push if move >= 3 else 0.0
            if world.speaks[n]:
                for c in range(world.symbols):
                    state.message[e, n, c] = 1.0 if c == symbol else 0.0
        _advance(e, force, state, world)
    _finish(state, world, terminated, truncated)


@njit(cache=True, error_model="numpy")
def step_continuous(
    actions: Array, state: ParticleState, world: World, terminated: Array, truncated: Array
) -> None:
    """Advance every environment by one step; as `step_discrete`, with ``actions`` float32 ``[E, N, A]``."""
    agents = world.movable.shape[0]
    force = np.zeros((agents, 2))
    for e in range(actions.shape[0]):
        for n in range(agents):
            first = 0
            if world.movable[n]:
                right = _clip(actions[e, n, 2]) - _clip(actions[e, n, 1])  # in float32, as mpe2 does
                up = _clip(actions[e, n, 4]) - _clip(actions[e, n, 3])
                force[n, 0] = np.float64(right) * world.acceleration[n]
                force[n, 1] = np.float64(up) * world.acceleration[n]
                first = 5
            if world.speaks[n]:
                for c in range(world.symbols):
                    state.message[e, n, c] = _clip(actions[e, n, first + c])
        _advance(e, force, state, world)
    _finish(state, world, terminated, truncated)


@njit(cache=True, forceinline=True)
def _clip(value: np.float32) -> np.float32:
    return min(max(value, np.float32(0)), np.float32(1))


@njit(cache=True, error_model="numpy", forceinline=True)
def _advance(e: int, force: Array, state: ParticleState, world: World) -> None:
    """Move the agents of environment ``e`` under ``force`` (float64 ``[N, 2]``, is added to) and contacts.

    A position moves by the velocity before the step; the force so shows in positions a step later.
    """
    position, velocity = state.position[e], state.velocity[e]
    agents = world.movable.shape[0]
    _push_apart(position, force, world)
    for n in range(agents):
        if not world.movable[n]:
            continue
        position[n, 0] += velocity[n, 0] * TIME_STEP
        position[n, 1] += velocity[n, 1] * TIME_STEP
        vx = velocity[n, 0] * (1.0 - DAMPING) + force[n, 0] * TIME_STEP
        vy = velocity[n, 1] * (1.0 - DAMPING) + force[n, 1] * TIME_STEP
        speed = np.sqrt(vx * vx + vy * vy)
        if speed > world.max_speed[n]:
            vx = vx / speed * world.max_speed[n]
            vy = vy / speed * world.max_speed[n]
        velocity[n, 0], velocity[n, 1] = vx, vy


@njit(cache=True, error_model="numpy", forceinline=True)
def _push_apart(position: Array, force: Array, world: World) -> None:
    """Add the forces of all contacts; two entities at the very same point do not push each other."""
    colliders, radius = world.colliders, world.radius
    agents, count = force.shape[0], colliders.shape[0]
    for i in range(count):
        a = colliders[i]
        if a >= agents:
            break
        for j in range(i + 1, count):
            b = colliders[j]
            dx, dy = position[a, 0] - position[b, 0], position[a, 1] - position[b, 1]
            square, reach = dx * dx + dy * dy, radius[a] + radius[b]
            limit = reach + _NEGLIGIBLE * CONTACT_MARGIN
            if square >= limit * limit or square == 0.0:
                continue
            distance = np.sqrt(square)
            depth = (reach - distance) / CONTACT_MARGIN
            penetration = (max(depth, 0.0) + np.log1p(np.exp(-abs(depth)))) * CONTACT_MARGIN
            fx = CONTACT_FORCE * dx / distance * penetration
            fy = CONTACT_FORCE * dy / distance * penetration
            force[a, 0] += fx
            force[a, 1] += fy
            if b < agents:
                force[b, 0] -= fx
                force[b, 1] -= fy


@njit(cache=True)
def _finish(state: ParticleState, world: World, terminated: Array, truncated: Array) -> None:
    """Count the step and end episodes at the time limit."""
    for e in range(terminated.shape[0]):
        state.step[e] += 1
        over = state.step[e] >= world.max_steps
        state.running[e] = not over
        for n in range(terminated.shape[1]):
            terminated[e, n] = False
            truncated[e, n] = over


@njit(cache=True)
def measure(state: ParticleState, first: int, last: int, sums: int, out: Array) -> None:
    """Write the metrics of the episodes so far to ``out``, float64 ``[1 + K, E]``.

    The sum of the returns of the agents ``first`` to ``last - 1``, then the tally, whose columns from ``sums`` on are
    averaged over the steps.
    """
    for e in range(out.shape[1]):
        out[0, e] = state.returns[e, first:last].sum()
        steps = max(state.step[e], 1)
        for k in range(state.tally.shape[1]):
            out[1 + k, e] = state.tally[e, k] if k < sums else state.tally[e, k] / steps


# What the tasks build their rewards and observations from. A point is a row of ``position``, ``[M, 2]``.


@njit(cache=True, error_model="numpy", forceinline=True)
def distance_between(position: Array, a: int, b: int) -> float:
    """Return the distance of two entities."""
    dx, dy = position[a, 0] - position[b, 0], position[a, 1] - position[b, 1]
    return np.sqrt(dx * dx + dy * dy)


@njit(cache=True, error_model="numpy", forceinline=True)
def touch(position: Array, radius: Array, a: int, b: int) -> bool:
    """Return whether two entities overlap."""
    return distance_between(position, a, b) < radius[a] + radius[b]


@njit(cache=True, error_model="numpy", forceinline=True)
def boundary_price(position: Array, n: int) -> float:
    """Return what an agent pays for being near or beyond the border of the square [-1, 1]^2.

    Along each axis, at a distance x from the middle: 0 up to 0.9, 10 (x - 0.9) up to 1, then min(exp(2 x - 2), 10).
    """
    price = 0.0
    for axis in range(2):
        x = abs(position[n, axis])
        if x >= _BORDER:
            price += min(np.exp(2.0 * x - 2.0), _MOST)
        elif x >= _EDGE:
            price += (x - _EDGE) * 10.0
    return price


@njit(cache=True, forceinline=True)
def put_offset(out: Array, at: int, position: Array, n: int, m: int) -> int:
    """Write where entity ``m`` lies from entity ``n`` to ``out[at]`` and the next; return the place after them."""
    out[at] = position[m, 0] - position[n, 0]
    out[at + 1] = position[m, 1] - position[n, 1]
    return at + 2


@njit(cache=True, forceinline=True)
def put_offsets(out: Array, at: int, position: Array, n: int, first: int, last: int) -> int:
    """Write where the entities ``first`` to ``last - 1`` but ``n`` lie from ``n``; return the place after them."""
    for m in range(first, last):
        if m != n:
            at = put_offset(out, at, position, n, m)
    return at


@njit(cache=True, forceinline=True)
def put_row(out: Array, at: int, values: Array) -> int:
    """Write the numbers ``values`` (1 dimension) to ``out`` from ``at`` on; return the place after them."""
    for k in range(values.shape[0]):
        out[at + k] = values[k]
    return at + values.shape[0]


@njit(cache=True, forceinline=True)
def put_zeros(out: Array, at: int) -> None:
    """Write zeros to ``out`` from ``at`` to its end."""
    for k in range(at, out.shape[0]):
        out[k] = 0.0

"""Numba kernels of the scripted policies: where each agent goes, and how it gets there."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.mpe.state import DAMPING, TIME_STEP

_DEPTH = 3  # pushes that are chosen together
_COAST = 3  # steps without a push whose distances count too
_LEVELS = 9  # of a continuous push along an axis, from -1 to 1


@njit(cache=True, error_model="numpy")
def assign(costs: Array, column_of: Array) -> None:
    """Give each row a column of its own so that the sum of the costs is least.

    Successive shortest augmenting paths with potentials (Kuhn, 1955; Jonker and Volgenant, 1987), O(n^3).

    Args:
        costs: Float64 ``[E, n, n]``, finite.
        column_of: Int64 ``[E, n]``, is written.
    """
    size = costs.shape[1]
    row_price, column_price = np.empty(size + 1), np.empty(size + 1)
    row_of = np.empty(size + 1, np.int64)  # of each column; the last column is the start of a path
    before = np.empty(size + 1, np.int64)
    least, done = np.empty(size + 1), np.empty(size + 1, np.bool_)
    for e in range(costs.shape[0]):
        row_price[:] = 0.0
        column_price[:] = 0.0
        row_of[:] = -1
        for row in range(size):
            row_of[size] = row
            column = size
            least[:] = np.inf
            done[:] = False
            while row_of[column] >= 0:
                done[column] = True
                here, nearest, step = row_of[column], -1, np.inf
                for c in range(size):
                    if done[c]:
                        continue
                    reduced = costs[e, here, c] - row_price[here] - column_price[c]
                    if reduced < least[c]:
                        least[c] = reduced
                        before[c] = column
                    if least[c] < step:
                        nearest, step = c, least[c]
                for c in range(size + 1):
                    if done[c]:
                        row_price[row_of[c]] += step
                        column_price[c] -= step
                    else:
                        least[c] -= step
                column = nearest
            while column != size:
                row_of[column] = row_of[before[column]]
                column = before[column]
        for c in range(size):
            column_of[e, row_of[c]] = c


@njit(cache=True, error_model="numpy", forceinline=True)
def _limit(vx: float, vy: float, max_speed: float) -> float:
    """Return by what a velocity is multiplied so that it keeps to the speed limit."""
    speed = np.sqrt(vx * vx + vy * vy)
    return max_speed / speed if speed > max_speed else 1.0


@njit(cache=True, error_model="numpy")
def _cost(code: int, x: float, y: float, vx: float, vy: float, push: float, max_speed: float) -> float:
    """Return the sum of the distances from the origin in the steps after the pushes of ``code``, base 5."""
    total = 0.0
    for t in range(_DEPTH + _COAST):
        x += TIME_STEP * vx
        y += TIME_STEP * vy
        total += np.sqrt(x * x + y * y)
        vx *= 1.0 - DAMPING
        vy *= 1.0 - DAMPING
        if t < _DEPTH:
            move = code % 5
            code //= 5
            if move == 1 or move == 2:
                vx += TIME_STEP * push * (2 * move - 3)
            elif move >= 3:
                vy += TIME_STEP * push * (2 * move - 7)
        factor = _limit(vx, vy, max_speed)
        vx *= factor
        vy *= factor
    return total


@njit(cache=True, error_model="numpy")
def steer(
    position: Array, velocity: Array, goal: Array, acceleration: Array, max_speed: Array, moves: Array
) -> None:
    """Choose the moves that bring agents to their goals and hold them there, as if nobody were in the way.

    The first of three pushes such that the sum of the distances over six steps is least.

    Args:
        position: Float64 ``[E, N, 2]``.
        velocity: Float64 ``[E, N, 2]``.
        goal: Float64 ``[E, N, 2]``, where each agent is to be.
        acceleration: Float64 ``[N]``, of a full push.
        max_speed: Float64 ``[N]``.
        moves: Int64 ``[E, N]``: 0 none, 1 left, 2 right, 3 down, 4 up; is written.
    """
    for e in range(position.shape[0]):
        for n in range(position.shape[1]):
            best = np.inf
            for code in range(5**_DEPTH):
                cost = _cost(
                    code,
                    position[e, n, 0] - goal[e, n, 0],
                    position[e, n, 1] - goal[e, n, 1],
                    velocity[e, n, 0],
                    velocity[e, n, 1],
                    acceleration[n],
                    max_speed[n],
                )
                if cost < best:
                    best = cost
                    moves[e, n] = code % 5


@njit(cache=True, error_model="numpy")
def _axis_cost(code: int, x: float, v: float, push: float) -> float:
    """As `_cost` along one axis, with pushes from -1 to 1 in ``_LEVELS`` levels."""
    total = 0.0
    for t in range(_DEPTH + _COAST):
        x += TIME_STEP * v
        total += abs(x)
        v *= 1.0 - DAMPING
        if t < _DEPTH:
            v += TIME_STEP * push * (2.0 * (code % _LEVELS) / (_LEVELS - 1) - 1.0)
            code //= _LEVELS
    return total


@njit(cache=True, error_model="numpy")
def steer_smoothly(position: Array, velocity: Array, goal: Array, acceleration: Array, push: Array) -> None:
    """Choose continuous pushes as `steer` chooses moves, along each axis alone and without a speed limit.

    Args:
        position: Float64 ``[E, N, 2]``.
        velocity: Float64 ``[E, N, 2]``.
        goal: Float64 ``[E, N, 2]``.
        acceleration: Float64 ``[N]``.
        push: Float32 ``[E, N, 2]``, from -1 to 1; is written.
    """
    for e in range(position.shape[0]):
        for n in range(position.shape[1]):
            for axis in range(2):
                x = position[e, n, axis] - goal[e, n, axis]
                v, best = velocity[e, n, axis], np.inf
                for code in range(_LEVELS**_DEPTH):
                    cost = _axis_cost(code, x, v, acceleration[n])
                    if cost < best:
                        best = cost
                        push[e, n, axis] = 2.0 * (code % _LEVELS) / (_LEVELS - 1) - 1.0

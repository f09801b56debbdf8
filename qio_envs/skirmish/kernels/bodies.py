"""The living units of one environment side by side: what the ticks of a step work on.

`figures` is float32 ``[14, U]`` and `marks` int64 ``[2, U]``; the first places belong to the living units, in their
order. Rows have names below. Plain arrays, not a named tuple of them: numba counts the references of each array of a
tuple at every call.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.skirmish.config import FIRST_ATTACK, MOVES, STOP, TICK
from qio_envs.skirmish.kernels.sides import attacked

UNIT, TARGET = 0, 1  # rows of marks: number among all units; place of the unit that is attacked, -1 for none
X, Y, SPEED_X, SPEED_Y = 0, 1, 2, 3  # rows of figures; speeds are ways in a tick
PUSH_X, PUSH_Y, RADIUS = 4, 5, 6  # pushes are twice the way that others push the unit
REACH, ATTACK = 7, 8  # squared range of attack, and harm of a hit
RELOAD, WAIT = 9, 10  # cooldown after a hit, its random part apart, and cooldown that is left
HEALTH, SHIELD, HARM = 11, 12, 13  # harm is what a tick takes of the two before
NUM_FIGURES, NUM_MARKS = 14, 2

_ONE, _HALF, _TINY, _TICK = np.float32(1.0), np.float32(0.5), np.float32(1e-6), np.float32(TICK)
_MOVES = np.array(MOVES, np.float32)
_LENGTH = np.nextafter(np.float32(1), np.float32(0))
"""Of a move's direction in SMAX, which turns it by 45 degrees."""


@njit(cache=True, forceinline=True)
def set_order(
    figures: Array, marks: Array, i: int, action: int, speed: np.float32, allies: int, backwards: bool
) -> None:
    """Write where a unit goes and whom it attacks (as a unit's number)."""
    figures[SPEED_X, i], figures[SPEED_Y, i], marks[TARGET, i] = 0, 0, -1
    if action < STOP:
        figures[SPEED_X, i] = _LENGTH * _MOVES[action, 0] * speed * _TICK
        figures[SPEED_Y, i] = _LENGTH * _MOVES[action, 1] * speed * _TICK
    elif action >= FIRST_ATTACK:
        marks[TARGET, i] = attacked(action, marks[UNIT, i], allies, backwards)


@njit(cache=True, forceinline=True)
def find_targets(marks: Array, living: int) -> None:
    """Replace the numbers of attacked units by their places, -1 where they are dead."""
    for i in range(living):
        if marks[TARGET, i] >= 0:
            place = -1
            for j in range(living):
                if marks[UNIT, j] == marks[TARGET, i]:
                    place = j
            marks[TARGET, i] = place


@njit(cache=True)
def bury(figures: Array, marks: Array, living: int) -> int:
    """Close the gaps that units without health leave; return how many live."""
    for i in range(living):
        if marks[TARGET, i] >= 0:
            marks[TARGET, i] = marks[UNIT, marks[TARGET, i]]
    left = 0
    for i in range(living):
        if figures[HEALTH, i] > 0:
            for row in range(NUM_FIGURES):
                figures[row, left] = figures[row, i]
            for row in range(NUM_MARKS):
                marks[row, left] = marks[row, i]
            left += 1
    find_targets(marks, left)
    return left


@njit(cache=True, forceinline=True)
def _fused(a: np.float32, b: np.float32, c: np.float32) -> np.float32:
    """Return ``a b + c`` rounded once, as XLA compiles SMAX: crowds amplify rounding errors."""
    return np.float32(np.float64(a) * np.float64(b) + np.float64(c))


@njit(cache=True, error_model="numpy")
def push(figures: Array, living: int) -> None:
    """Move units that overlap apart, all at once: each pair by half its overlap each."""
    touched = False
    for i in range(living):
        figures[PUSH_X, i], figures[PUSH_Y, i] = 0, 0
    for i in range(living):
        x, y, radius = figures[X, i], figures[Y, i], figures[RADIUS, i]
        for j in range(i + 1, living):
            dx, dy, reach = x - figures[X, j], y - figures[Y, j], radius + figures[RADIUS, j]
            if dx * dx + dy * dy < reach * reach:
                overlap = reach / (np.sqrt(_fused(dx, dx, dy * dy)) + _TINY) - _ONE
                if overlap > 0:
                    figures[PUSH_X, i] = _fused(dx, overlap, figures[PUSH_X, i])
                    figures[PUSH_Y, i] = _fused(dy, overlap, figures[PUSH_Y, i])
                    figures[PUSH_X, j] = _fused(-dx, overlap, figures[PUSH_X, j])
                    figures[PUSH_Y, j] = _fused(-dy, overlap, figures[PUSH_Y, j])
                    touched = True
    if touched:
        for i in range(living):
            figures[X, i] += _HALF * figures[PUSH_X, i]
            figures[Y, i] += _HALF * figures[PUSH_Y, i]

"""What learning of Q-values does row by row, with its derivatives: dueling heads, actions' values, errors.

Arrays are given by the addresses of contiguous float32 numbers unless something else is said; 0 stands for one that
there is not.
"""

from __future__ import annotations

import numba
import numpy as np
from numba import njit

from qio_rllib.fused.codes import HUBER, PLAIN
from qio_rllib.fused.tiles import pointer, pointer_to_bytes

Array = np.ndarray
_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def join_dueling(outputs: int, rows: int, count: int, q_values: int) -> None:
    """Make Q-values of state values and advantages (Wang et al., 2016, equation 9).

    Args:
        outputs: A state value and ``count`` advantages, ``[rows, 1 + count]``.
        rows: How many.
        count: Actions.
        q_values: Where they go, ``[rows, count]``.
    """
    source = numba.carray(pointer(outputs), (rows, count + 1))
    target = numba.carray(pointer(q_values), (rows, count))
    share = np.float32(1.0 / count)
    for row in range(rows):
        total = _ZERO
        for i in range(count):
            total += source[row, i + 1]
        base = source[row, 0] - total * share
        for i in range(count):
            target[row, i] = base + source[row, i + 1]


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def part_dueling(gradient: int, rows: int, count: int, slopes: int) -> None:
    """Differentiate `join_dueling`.

    Args:
        gradient: Of the loss in the Q-values, ``[rows, count]``.
        rows: How many.
        count: Actions.
        slopes: For the gradient in the outputs, ``[rows, 1 + count]``.
    """
    source = numba.carray(pointer(gradient), (rows, count))
    target = numba.carray(pointer(slopes), (rows, count + 1))
    share = np.float32(1.0 / count)
    for row in range(rows):
        total = _ZERO
        for i in range(count):
            total += source[row, i]
        target[row, 0] = total
        for i in range(count):
            target[row, i + 1] = source[row, i] - total * share


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def value_of(q_values: int, actions: int, mask: int, rows: int, count: int, values: int) -> None:
    """``values[b] = mask[b] sum over a of q_values[b, a] actions[b, a]``.

    Args:
        q_values: ``[rows, count]``.
        actions: One-hot, ``[rows, count]``.
        mask: ``[rows]``.
        rows: How many.
        count: Actions.
        values: ``[rows]``.
    """
    source, weights = (
        numba.carray(pointer(q_values), (rows, count)),
        numba.carray(pointer(actions), (rows, count)),
    )
    found, shares = numba.carray(pointer(values), rows), numba.carray(pointer(mask), rows)
    for row in range(rows):
        total = _ZERO
        for i in range(count):
            total += source[row, i] * weights[row, i]
        found[row] = total * shares[row]


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def spread_value(gradient: int, actions: int, mask: int, rows: int, count: int, slopes: int) -> None:
    """Differentiate `value_of` in the Q-values: ``slopes[b, a] = gradient[b] mask[b] actions[b, a]``."""
    source, weights = numba.carray(pointer(gradient), rows), numba.carray(pointer(actions), (rows, count))
    found, shares = numba.carray(pointer(slopes), (rows, count)), numba.carray(pointer(mask), rows)
    for row in range(rows):
        for i in range(count):
            found[row, i] = source[row] * shares[row] * weights[row, i]


@njit(cache=True, error_model="numpy")
def best_value(
    q_values: int, chooser: int, legal: int, mask: int, rows: int, count: int, values: int
) -> None:
    """Give the Q-value of the action that is best by another estimate; the first of equal ones, NaN above all.

    Args:
        q_values: ``[rows, count]``.
        chooser: The other estimate, ``[rows, count]``.
        legal: Which actions are allowed, a byte each, ``[rows, count]``; 0 for all. Without one, the first is taken.
        mask: Factors of what is found, ``[rows]``.
        rows: How many.
        count: Actions.
        values: ``[rows]``.
    """
    source, by = (
        numba.carray(pointer(q_values), (rows, count)),
        numba.carray(pointer(chooser), (rows, count)),
    )
    found, shares = numba.carray(pointer(values), rows), numba.carray(pointer(mask), rows)
    allowed = numba.carray(pointer_to_bytes(legal), (rows if legal != 0 else 0, count))
    for row in range(rows):
        best = -1
        for i in range(count):
            if legal != 0 and allowed[row, i] == 0:
                continue
            value = by[row, i]
            better = best < 0 or value > by[row, best]
            if not better and value != value:
                better = by[row, best] == by[row, best]
            if better:
                best = i
        found[row] = source[row, max(best, 0)] * shares[row]


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def mean_of(values: int, targets: int, mask: int, slopes: int, rows: int, width: int, kind: int) -> float:
    """Return the mean, over the rows that count, of a row's mean value or error; 0 where none does.

    Args:
        values: ``[rows, width]``.
        targets: Likewise; 0 for zeros.
        mask: How much a row counts, ``[rows]``.
        slopes: For the gradient of the mean in the values; 0 where it is not wanted.
        rows: How many.
        width: Numbers in a row.
        kind: ``PLAIN`` for the values less their targets, ``SQUARE`` for the squares of that, ``HUBER`` for Huber's
            error (1964) with the bound 1.
    """
    source, weights = numba.carray(pointer(values), (rows, width)), numba.carray(pointer(mask), rows)
    aims = numba.carray(pointer(targets), (rows if targets != 0 else 0, width))
    found = numba.carray(pointer(slopes), (rows if slopes != 0 else 0, width))
    count = 0.0
    for row in range(rows):
        count += weights[row]
    share = np.float32(1.0 / (max(count, 1.0) * width))
    total = 0.0
    for row in range(rows):
        weight = weights[row]
        for i in range(width):
            error = source[row, i] - aims[row, i] if targets != 0 else source[row, i]
            value, slope = error, _ONE
            if kind != PLAIN:
                size = abs(error)
                if kind == HUBER and size >= _ONE:
                    value, slope = size - _HALF, _ONE if error > _ZERO else -_ONE
                elif kind == HUBER:
                    value, slope = _HALF * error * error, error
                else:
                    value, slope = error * error, _TWO * error
            total += value * weight
            if slopes != 0:
                found[row, i] = slope * weight * share
    return total / (max(count, 1.0) * width)

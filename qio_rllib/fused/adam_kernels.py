"""Clipping of gradients, Adam's step and that of target networks over all parameters, given by their addresses."""

from __future__ import annotations

import math

import numba
import numpy as np
from numba import njit

from qio_rllib.fused.codes import (
    BY_GLOBAL_NORM,
    BY_VALUE,
    FIRST,
    GRADIENT,
    PARAMETER,
    SECOND,
    SIZE,
    STEP,
)
from qio_rllib.fused.tiles import pointer

Array = np.ndarray


@njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _sum_of_squares(numbers: Array) -> float:
    total = np.float32(0)
    for i in range(numbers.size):
        total += numbers[i] * numbers[i]
    return float(total)


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def clip(table: Array, limit: float, way: int) -> float:
    """Clip gradients in place; return their global norm before.

    Args:
        table: Their addresses and sizes, int64 ``[P, 2]``.
        limit: What they are clipped to.
        way: One of the ways to clip.
    """
    squares = np.empty(len(table))
    for line in range(len(table)):
        squares[line] = _sum_of_squares(numba.carray(pointer(table[line, GRADIENT]), table[line, SIZE]))
    total = math.sqrt(squares.sum())
    for line in range(len(table)):
        gradient = numba.carray(pointer(table[line, GRADIENT]), table[line, SIZE])
        if way == BY_VALUE:
            least, most = np.float32(-limit), np.float32(limit)
            for i in range(gradient.size):
                gradient[i] = least if gradient[i] < least else most if gradient[i] > most else gradient[i]
            continue
        norm = total if way == BY_GLOBAL_NORM else math.sqrt(squares[line])
        factor = np.float32(limit / (norm + 1e-6))
        if factor < 1 or factor != factor:
            for i in range(gradient.size):
                gradient[i] *= factor
    return total


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def adam(table: Array, rate: float, beta1: float, beta2: float, eps: float, decay: float) -> None:
    """Take a step of Adam (Kingma and Ba, 2015, algorithm 1).

    Args:
        table: The parameters, their gradients and the optimizer's state.
        rate: Learning rate.
        beta1: Share of the past in the first moment.
        beta2: Share of the past in the second moment.
        eps: Least divisor.
        decay: Share of the parameters that goes for each unit of the rate, see `Adam`.
    """
    keep = np.float32(1.0 - rate * decay)
    for line in range(len(table)):
        size = table[line, SIZE]
        gradient = numba.carray(pointer(table[line, GRADIENT]), size)
        parameter = numba.carray(pointer(table[line, PARAMETER]), size)
        first = numba.carray(pointer(table[line, FIRST]), size)
        second = numba.carray(pointer(table[line, SECOND]), size)
        step = numba.carray(pointer(table[line, STEP]), 1)
        step[0] += np.float32(1)
        length = np.float32(rate / (1.0 - beta1 ** float(step[0])))
        scale = np.float32(1.0 / math.sqrt(1.0 - beta2 ** float(step[0])))
        keep1, keep2, least = np.float32(beta1), np.float32(beta2), np.float32(eps)
        take1, take2 = np.float32(1.0 - beta1), np.float32(1.0 - beta2)
        for i in range(size):
            slope = gradient[i]
            first[i] = keep1 * first[i] + take1 * slope
            second[i] = keep2 * second[i] + take2 * (slope * slope)
            parameter[i] = keep * parameter[i] - length * first[i] / (
                np.float32(math.sqrt(second[i])) * scale + least
            )


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def approach(table: Array, share: float) -> None:
    """Move numbers by a share of the way towards others, in place.

    Args:
        table: Addresses of both, and how many there are, int64 ``[P, 3]``.
        share: From 0 to 1, which makes them equal to the bit.
    """
    part, rest, half = np.float32(share), np.float32(1.0 - share), np.float32(0.5)
    for line in range(len(table)):
        moved = numba.carray(pointer(table[line, 0]), table[line, 2])
        others = numba.carray(pointer(table[line, 1]), table[line, 2])
        if part < half:
            for i in range(moved.size):
                moved[i] += part * (others[i] - moved[i])
        else:
            for i in range(moved.size):
                moved[i] = others[i] - rest * (others[i] - moved[i])

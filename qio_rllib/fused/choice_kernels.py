"""Draws of discrete actions, and such that gradients pass through; arrays are given by addresses of float32 numbers."""

from __future__ import annotations

import math

import numba
import numpy as np
from numba import njit

from qio_rllib.fused.tiles import pointer, pointer_to_integers

_TINY = np.float32(np.finfo(np.float32).tiny)
_ZERO, _ONE = np.float32(0), np.float32(1)


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def relaxed_choice(
    logits: int, uniform: int, rows: int, count: int, temperature: float, chosen: int, relaxed: int
) -> None:
    """Draw actions by Gumbel's maximum; see `qio_rllib.models.joint_module.sampled_one_hot`.

    Args:
        logits: ``[rows, count]``.
        uniform: Noise on [0, 1), likewise.
        rows: How many.
        count: Actions.
        temperature: Of the relaxation.
        chosen: For the actions, one-hot, likewise; NaN where a row's logits are.
        relaxed: For the relaxed ones, likewise.
    """
    source, noise = (
        numba.carray(pointer(logits), (rows, count)),
        numba.carray(pointer(uniform), (rows, count)),
    )
    found, shares = (
        numba.carray(pointer(chosen), (rows, count)),
        numba.carray(pointer(relaxed), (rows, count)),
    )
    scale = np.float32(1.0 / temperature)
    for row in range(rows):
        best = 0
        for i in range(count):
            gumbel = -math.log(-math.log(max(noise[row, i], _TINY)))
            shares[row, i] = (source[row, i] + gumbel) * scale
            if shares[row, i] > shares[row, best]:
                best = i
        highest, total = shares[row, best], _ZERO
        for i in range(count):
            shares[row, i] = math.exp(shares[row, i] - highest)
            total += shares[row, i]
        for i in range(count):
            shares[row, i] /= total
            found[row, i] = shares[row, i] - shares[row, i]  # 0, or NaN
        found[row, best] += _ONE


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def part_choice(gradient: int, relaxed: int, rows: int, count: int, temperature: float, slopes: int) -> None:
    """Differentiate the relaxed choice in the logits.

    Args:
        gradient: Of the loss in the actions, ``[rows, count]``.
        relaxed: What `relaxed_choice` gave.
        rows: How many.
        count: Actions.
        temperature: Of the relaxation.
        slopes: For the gradient in the logits, ``[rows, count]``.
    """
    source, shares = (
        numba.carray(pointer(gradient), (rows, count)),
        numba.carray(pointer(relaxed), (rows, count)),
    )
    found = numba.carray(pointer(slopes), (rows, count))
    scale = np.float32(1.0 / temperature)
    for row in range(rows):
        mean = _ZERO
        for i in range(count):
            mean += source[row, i] * shares[row, i]
        for i in range(count):
            found[row, i] = scale * shares[row, i] * (source[row, i] - mean)


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def draw(logits: int, uniform: int, rows: int, count: int, actions: int, logp: int) -> None:
    """Draw actions by the inverse of the distribution function.

    Args:
        logits: Log-probabilities up to a constant, ``[rows, count]``.
        uniform: Noise on [0, 1), ``[rows]``.
        rows: How many.
        count: Actions.
        actions: Address for the actions, int64 ``[rows]``.
        logp: For their log-probabilities, ``[rows]``.
    """
    source = numba.carray(pointer(logits), (rows, count))
    noise, found = numba.carray(pointer(uniform), rows), numba.carray(pointer(logp), rows)
    chosen = numba.carray(pointer_to_integers(actions), rows)
    sums = np.empty(count, np.float32)
    for row in range(rows):
        highest = source[row, 0]
        for i in range(1, count):
            highest = max(highest, source[row, i])
        total = _ZERO
        for i in range(count):
            total += math.exp(source[row, i] - highest)
            sums[i] = total
        # Scaled by the last sum, an action of probability 0 is never hit.
        bound, action = noise[row] * total, 0
        while action < count - 1 and bound >= sums[action]:
            action += 1
        chosen[row] = action
        found[row] = source[row, action] - highest - math.log(total)

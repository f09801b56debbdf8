"""The first layer of a joint critic, where each agent in turn does another thing than it did."""

from __future__ import annotations

import numba
import numpy as np
from numba import njit

from qio_rllib.fused.codes import WIDTH
from qio_rllib.fused.stack_kernels import BLOCK, activate, differentiate, padded
from qio_rllib.fused.tiles import pointer, product

Array = np.ndarray


@njit(cache=True, error_model="numpy")
def others_first(
    base: int, change: int, weight: int, shape: Array, hidden: int, sums: int, activation: int
) -> None:
    """Return what the first layer gives where one agent at a time acts otherwise.

    Args:
        base: Address of its sums for what all did, ``[B, H]``.
        change: Address of the differences of actions, ``[B, M, A]``.
        weight: Address of the part of its weight that takes these agents' actions, ``[H, M * A]``, a row ``W`` numbers
            behind the other.
        shape: ``B``, ``M``, ``A``, ``H``, ``W``.
        hidden: Address for its outputs, ``[M, B, H]``.
        sums: Address for what SiLU takes, likewise; anything where the activation is another.
        activation: Its own.
    """
    rows, agents, size, width, distance = shape[0], shape[1], shape[2], shape[3], shape[4]
    inside = padded(width)
    packed = np.zeros(agents * size * inside, np.float32)  # [M, A, P]
    source = numba.carray(pointer(weight), width * distance - (distance - agents * size))
    for i in range(width):
        for j in range(agents * size):
            packed[j * inside + i] = source[i * distance + j]
    found, start = np.empty(BLOCK * inside, np.float32), np.zeros(BLOCK * inside, np.float32)
    silu = np.empty(BLOCK * inside, np.float32)
    ahead = numba.carray(pointer(base), rows * width)
    for top in range(0, rows, BLOCK):
        count = min(BLOCK, rows - top)
        for i in range(count):
            for j in range(width):
                start[i * inside + j] = ahead[(top + i) * width + j]
        for agent in range(agents):
            product(
                count, inside, size, change + 4 * (top * agents + agent) * size, agents * size, 1,
                packed.ctypes.data + 4 * agent * size * inside, inside, found.ctypes.data, inside,
                start.ctypes.data, inside,
            )  # fmt: skip
            activate(found[: count * inside], silu, activation)
            place = 4 * (agent * rows + top) * width
            target = numba.carray(pointer(hidden + place), count * width)
            for i in range(count):
                for j in range(width):
                    target[i * width + j] = found[i * inside + j]
            if sums != 0:
                before = numba.carray(pointer(sums + place), count * width)
                for i in range(count):
                    for j in range(width):
                        before[i * width + j] = silu[i * inside + j]


@njit(cache=True, error_model="numpy")
def part_others_first(
    gradient: int, weight: int, shape: Array, hidden: int, sums: int, activation: int, slopes: int
) -> None:
    """Differentiate `others_first` in the changes.

    Args:
        gradient: Address of the loss's gradient in its outputs, ``[M, B, H]``; it is overwritten.
        weight: As for `others_first`, as the next four.
        shape: Likewise.
        hidden: Likewise.
        sums: Likewise.
        activation: Likewise.
        slopes: Address for the gradient in the changes, ``[B, M, A]``.
    """
    rows, agents, size, width, distance = shape[0], shape[1], shape[2], shape[3], shape[4]
    lanes = (size + WIDTH - 1) // WIDTH * WIDTH
    packed = np.zeros(agents * width * lanes, np.float32)  # [M, H, P]
    source = numba.carray(pointer(weight), width * distance - (distance - agents * size))
    for agent in range(agents):
        for i in range(width):
            for j in range(size):
                packed[(agent * width + i) * lanes + j] = source[i * distance + agent * size + j]
    found, zeros = np.empty(BLOCK * lanes, np.float32), np.zeros(lanes, np.float32)
    nothing = np.empty(0, np.float32)
    for agent in range(agents):
        for top in range(0, rows, BLOCK):
            count = min(BLOCK, rows - top)
            place = 4 * (agent * rows + top) * width
            delta = numba.carray(pointer(gradient + place), count * width)
            values = numba.carray(pointer(hidden + place), count * width)
            before = numba.carray(pointer(sums + place), count * width) if sums != 0 else nothing
            differentiate(delta, values, before, activation)
            product(
                count, lanes, width, delta.ctypes.data, width, 1, packed.ctypes.data + 4 * agent * width * lanes,
                lanes, found.ctypes.data, lanes, zeros.ctypes.data, 0,
            )  # fmt: skip
            target = numba.carray(pointer(slopes + 4 * (top * agents + agent) * size), count * agents * size)
            for i in range(count):
                for j in range(size):
                    target[i * agents * size + j] = found[i * lanes + j]

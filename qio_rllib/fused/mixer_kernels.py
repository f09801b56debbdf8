"""QMIX's mixer: hypernetworks, and what is mixed by the weights that they give; arrays are given by their addresses.

A row's results lie in ``work``, one part behind the other: of each of the four hypernetworks its outputs, then of each
what `stack_kernels.forward` keeps, then the hidden layer.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import njit

from qio_rllib.fused.codes import OUTPUTS
from qio_rllib.fused.stack_kernels import backward, forward, kept_size, tanh
from qio_rllib.fused.tiles import pointer

Array = np.ndarray
_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)


@njit(cache=True)
def work_size(table: Array, ends: Array, rows: int) -> int:
    """Return how many numbers `mix` needs; arguments as there."""
    return _places(table, ends, rows)[-1]


@njit(cache=True)
def _places(table: Array, ends: Array, rows: int) -> Array:
    """Return where in ``work`` each part begins, and where the last one ends."""
    places = np.zeros(10, np.int64)
    for k in range(4):
        places[k + 1] = places[k] + rows * table[ends[k] - 1, OUTPUTS]
    for k in range(4):
        first = ends[k - 1] if k else 0
        places[k + 5] = places[k + 4] + kept_size(table[first : ends[k]], rows)
    places[9] = places[8] + rows * table[ends[1] - 1, OUTPUTS]
    return places


@njit(cache=True, error_model="numpy", fastmath={"contract", "reassoc"})
def _product_with_sizes(numbers: Array, weights: Array) -> Any:
    total = _ZERO
    for i in range(numbers.size):
        total += numbers[i] * abs(weights[i])
    return total


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def mix(
    table: Array, ends: Array, states: int, values: int, rows: int, agents: int, work: int, found: int
) -> None:
    """Mix agents' values as `qio_rllib.models.mixers.MonotonicMixer` does.

    Args:
        table: The layers of all hypernetworks, as `stack_kernels.forward` takes them: those for weights ``[N * H]`` and
            biases ``[H]`` of the hidden layer, for weights ``[H]`` and the bias of the last. Of weights sizes count,
            not signs.
        ends: Behind which line each of them ends, int64 ``[4]``.
        states: Address of their inputs, ``[rows, S]``.
        values: Address of the agents' values, ``[rows, N]``.
        rows: How many.
        agents: ``N``.
        work: Address of `work_size` numbers.
        found: Address for the team's values, ``[rows]``.
    """
    places = _places(table, ends, rows)
    for k in range(4):
        part = table[(ends[k - 1] if k else 0) : ends[k]]
        forward(part, states, rows, work + 4 * places[k], work + 4 * places[k + 4])
    size = table[ends[1] - 1, OUTPUTS]
    own = numba.carray(pointer(values), (rows, agents))
    first = numba.carray(pointer(work), (rows, agents, size))
    biases = numba.carray(pointer(work + 4 * places[1]), (rows, size))
    last = numba.carray(pointer(work + 4 * places[2]), (rows, size))
    base = numba.carray(pointer(work + 4 * places[3]), rows)
    hidden = numba.carray(pointer(work + 4 * places[8]), (rows, size))
    team = numba.carray(pointer(found), rows)
    for row in range(rows):
        for i in range(size):
            hidden[row, i] = biases[row, i]
        for agent in range(agents):
            value = own[row, agent]
            for i in range(size):
                hidden[row, i] += value * abs(first[row, agent, i])
        for i in range(size):
            # ELU; exp(x) - 1 is 2 t / (1 - t) with t = tanh(x / 2), without cancellation
            x = hidden[row, i]
            t = tanh(_HALF * min(x, _ZERO))
            hidden[row, i] = x if x > _ZERO or x != x else _TWO * t / (_ONE - t)
        team[row] = base[row] + _product_with_sizes(hidden[row], last[row])


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def part_mix(
    table: Array,
    ends: Array,
    states: int,
    values: int,
    rows: int,
    agents: int,
    work: int,
    gradient: int,
    of_values: int,
) -> None:
    """Differentiate `mix`; gradients of parameters go where the table says.

    Args:
        table: As for `mix`, as the next six.
        ends: Likewise.
        states: Likewise.
        values: Likewise.
        rows: Likewise.
        agents: Likewise.
        work: Likewise, as `mix` left it.
        gradient: Address of the loss's gradient in the team's values, ``[rows]``.
        of_values: Address for that in the agents' values, ``[rows, N]``.
    """
    places = _places(table, ends, rows)
    size = table[ends[1] - 1, OUTPUTS]
    own = numba.carray(pointer(values), (rows, agents))
    first = numba.carray(pointer(work), (rows, agents, size))
    last = numba.carray(pointer(work + 4 * places[2]), (rows, size))
    hidden = numba.carray(pointer(work + 4 * places[8]), (rows, size))
    team = numba.carray(pointer(gradient), rows)
    of_own = numba.carray(pointer(of_values), (rows, agents))
    of_first = np.empty((rows, agents, size), np.float32)
    of_biases, of_last = np.empty((rows, size), np.float32), np.empty((rows, size), np.float32)
    for row in range(rows):
        slope = team[row]
        for i in range(size):
            weight, value = last[row, i], hidden[row, i]
            sign = _ONE if weight > _ZERO else -_ONE if weight < _ZERO else _ZERO
            of_last[row, i] = sign * slope * value
            rise = _ONE if value > _ZERO else value + _ONE
            of_biases[row, i] = slope * abs(weight) * rise
        for agent in range(agents):
            value = own[row, agent]
            for i in range(size):
                weight = first[row, agent, i]
                sign = _ONE if weight > _ZERO else -_ONE if weight < _ZERO else _ZERO
                of_first[row, agent, i] = sign * value * of_biases[row, i]
            of_own[row, agent] = _product_with_sizes(of_biases[row], first[row, agent])
    for k in range(4):
        # What is added at the end has the gradient of the sum. Addresses are asked for in the loop: behind the last use
        # of an array its memory is free.
        slopes: Any = gradient
        if k == 0:
            slopes = np.int64(of_first.ctypes.data)
        elif k == 1:
            slopes = np.int64(of_biases.ctypes.data)
        elif k == 2:
            slopes = np.int64(of_last.ctypes.data)
        part = table[(ends[k - 1] if k else 0) : ends[k]]
        backward(part, states, rows, work + 4 * places[k], work + 4 * places[k + 4], slopes, 0)

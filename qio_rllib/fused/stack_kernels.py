"""Forward and backward passes of a stack of linear layers, block by block of rows, so that a block stays in the cache.

What is kept for the backward pass (``kept``) has for each layer but the last its outputs ``[B, P]``, and for each layer
with SiLU its sums before it ``[B, P]``, in the order of the layers; ``P`` is the layer's size rounded up to a multiple
of `WIDTH`, and numbers behind the size are 0. Arrays are passed as addresses: the caller sees to it that they are
contiguous float32 and stay where they are.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numba import njit

from qio_rllib.fused.codes import (
    ACTIVATION,
    BIAS,
    BIAS_GRADIENT,
    INPUTS,
    LINEAR,
    OUTPUTS,
    RELU,
    SILU,
    TANH,
    WEIGHT,
    WEIGHT_GRADIENT,
    WIDTH,
)
from qio_rllib.fused.tiles import pointer, product

Array = np.ndarray
BLOCK = 96  # rows; a multiple of a tile's

_F = np.float32
# tanh(x) / x on [-9, 9] as a ratio of polynomials in x^2, fitted to the least largest relative error (9e-8, with
# rounding 4e-7); beyond, float32's tanh is 1.
_P0, _P1, _P2 = _F(0.9999999134034783), _F(0.13292755820479857), _F(0.0033905191497685485)
_P3, _P4 = _F(1.887927529175014e-05), _F(1.0976445030814881e-08)
_Q1, _Q2 = _F(0.46626068458302833), _F(0.0254777842986692)
_Q3, _Q4 = _F(0.0003113647565257606), _F(6.79810982196479e-07)
_EDGE, _ZERO, _HALF, _ONE = _F(9), _F(0), _F(0.5), _F(1)


@njit(cache=True)
def padded(size: int) -> int:
    """Return a size rounded up to a multiple of `WIDTH`."""
    return (size + WIDTH - 1) // WIDTH * WIDTH


@njit(inline="always")
def tanh(x: Any) -> Any:
    """Return the hyperbolic tangent of a float32."""
    t = min(max(x, -_EDGE), _EDGE)
    s = t * t
    above = (((_P4 * s + _P3) * s + _P2) * s + _P1) * s + _P0
    below = (((_Q4 * s + _Q3) * s + _Q2) * s + _Q1) * s + _ONE
    found = min(max(t * above / below, -_ONE), _ONE)
    found = _ONE if x >= _EDGE else -_ONE if x <= -_EDGE else found
    return x if x != x else found  # NaN stays what it is


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def activate(values: Array, sums: Array, activation: int) -> None:
    """Replace sums before an activation by its values; ``sums`` keeps them where SiLU needs them, empty otherwise."""
    if activation == TANH:
        for i in range(values.size):
            values[i] = tanh(values[i])
    elif activation == RELU:
        for i in range(values.size):
            values[i] = _ZERO if values[i] < _ZERO else values[i]
    elif activation == SILU:
        for i in range(values.size):
            sums[i] = values[i]
            values[i] = values[i] * (_HALF + _HALF * tanh(_HALF * values[i]))


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def differentiate(gradients: Array, values: Array, sums: Array, activation: int) -> None:
    """Multiply gradients by an activation's derivative, from its values, or for SiLU from the sums before it."""
    if activation == TANH:
        for i in range(gradients.size):
            gradients[i] = gradients[i] * (_ONE - values[i] * values[i])
    elif activation == RELU:
        for i in range(gradients.size):
            gradients[i] = _ZERO if values[i] <= _ZERO else gradients[i]
    elif activation == SILU:
        for i in range(gradients.size):
            share = _HALF + _HALF * tanh(_HALF * sums[i])
            gradients[i] = gradients[i] * share * (_ONE + sums[i] * (_ONE - share))


@njit(cache=True)
def _copy_rows(
    source: Array, source_row: int, target: Array, target_row: int, rows: int, columns: int
) -> None:
    """Copy rows, and fill the rest of each row of the target with zeros."""
    if source_row == columns and target_row == columns:
        for i in range(rows * columns):
            target[i] = source[i]
        return
    for i in range(rows):
        for j in range(columns):
            target[i * target_row + j] = source[i * source_row + j]
        for j in range(columns, target_row):
            target[i * target_row + j] = _ZERO


@njit(cache=True)
def _transpose(
    source: Array, source_row: int, target: Array, rows: int, columns: int, target_row: int
) -> None:
    """``target[j, i] = source[i, j]``, in squares that fit the cache; the rest of the target's rows become zeros."""
    for j in range(columns):
        for i in range(rows, target_row):
            target[j * target_row + i] = _ZERO
    for top in range(0, rows, WIDTH):
        for left in range(0, columns, WIDTH):
            for i in range(top, min(top + WIDTH, rows)):
                for j in range(left, min(left + WIDTH, columns)):
                    target[j * target_row + i] = source[i * source_row + j]


@njit(cache=True)
def kept_size(table: Array, rows: int) -> int:
    """Return how many numbers `forward` keeps."""
    total = 0
    for layer in range(len(table)):
        width = padded(table[layer, OUTPUTS])
        total += width * rows * ((layer < len(table) - 1) + (table[layer, ACTIVATION] == SILU))
    return total


@njit(cache=True)
def forward(table: Array, inputs: int, rows: int, outputs: int, kept: int) -> None:
    """Run a stack.

    Args:
        table: The layers.
        inputs: Address of its inputs, ``[rows, table[0, INPUTS]]``.
        rows: How many.
        outputs: Address of the results, ``[rows, table[-1, OUTPUTS]]``.
        kept: Address of `kept_size` numbers; 0 where there is no backward pass to come.
    """
    layers = len(table)
    size = widest = 0
    for layer in range(layers):
        width = padded(table[layer, OUTPUTS])
        size += (table[layer, INPUTS] + 1) * width
        widest = max(widest, width)
    packed = np.empty(size, np.float32)  # of each layer its transposed weight and its bias, with zeros behind
    place = 0
    for layer in range(layers):
        before, after = table[layer, INPUTS], table[layer, OUTPUTS]
        width = padded(after)
        weight = numba.carray(pointer(table[layer, WEIGHT]), after * before)
        _transpose(weight, before, packed[place : place + before * width], after, before, width)
        bias = numba.carray(pointer(table[layer, BIAS]), after)
        _copy_rows(bias, after, packed[place + before * width :], width, 1, after)
        place += (before + 1) * width
    last = np.empty(BLOCK * widest, np.float32)
    other = np.empty(BLOCK * widest if kept == 0 else 0, np.float32)
    before_silu = np.empty(BLOCK * widest if kept == 0 else 0, np.float32)
    nothing = np.empty(0, np.float32)

    for top in range(0, rows, BLOCK):
        count = min(BLOCK, rows - top)
        source, source_row = inputs + 4 * top * table[0, INPUTS], table[0, INPUTS]
        place = offset = 0
        for layer in range(layers):
            before, after, activation = table[layer, INPUTS], table[layer, OUTPUTS], table[layer, ACTIVATION]
            width = padded(after)
            if layer < layers - 1 and kept == 0:
                # By turns, so that the last layer's place is not that of what it reads.
                values = other if (layers - layer) % 2 == 0 else last
                values = values[: count * width]
            elif layer < layers - 1:
                values = numba.carray(pointer(kept + 4 * (offset + top * width)), count * width)
                offset += rows * width
            elif width == after:
                values = numba.carray(pointer(outputs + 4 * top * after), count * after)
            else:
                values = last[: count * width]
            address = values.ctypes.data
            weight = packed.ctypes.data + 4 * place
            bias = weight + 4 * before * width
            product(count, width, before, source, source_row, 1, weight, width, address, width, bias, 0)
            sums = nothing
            if activation == SILU and kept == 0:
                sums = before_silu
            elif activation == SILU:
                sums = numba.carray(pointer(kept + 4 * (offset + top * width)), count * width)
                offset += rows * width
            activate(values, sums, activation)
            place += (before + 1) * width
            source, source_row = address, width
        after = table[layers - 1, OUTPUTS]
        if padded(after) != after:
            target = numba.carray(pointer(outputs + 4 * top * after), count * after)
            _copy_rows(last, padded(after), target, after, count, after)


@njit(cache=True)
def backward(
    table: Array,
    inputs: int,
    rows: int,
    outputs: int,
    kept: int,
    gradient: int,
    input_gradient: int,
) -> None:
    """Differentiate a run of `forward`.

    Args:
        table: The layers; gradients of weights and biases are written, where their addresses are not 0.
        inputs: As for `forward`.
        rows: Likewise.
        outputs: What it gave.
        kept: What it kept.
        gradient: Address of the loss's gradient in the outputs.
        input_gradient: Address for that in the inputs; 0 where it is not wanted.
    """
    layers = len(table)
    places = np.empty(layers + 1, np.int64)  # of each layer's part of `packed`
    slopes_at = np.empty(layers + 1, np.int64)  # and of `slopes`
    places[0] = slopes_at[0] = 0
    widest = 0
    for layer in range(layers):
        before, after = table[layer, INPUTS], table[layer, OUTPUTS]
        inside, width = padded(before), padded(after)
        places[layer + 1] = places[layer] + (0 if before == inside else after * inside)
        slopes_at[layer + 1] = slopes_at[layer] + max(after * inside, before * width) + width
        widest = max(widest, inside, width)
    # Of each layer the gradients of its weight and of its bias, padded. That of the first weight is transposed where
    # the size of the inputs is no multiple of WIDTH: then their rows cannot be the right operand as they are.
    slopes = np.zeros(slopes_at[layers], np.float32)
    turned = table[0, INPUTS] != padded(table[0, INPUTS])
    packed = np.empty(
        places[layers], np.float32
    )  # of each layer its weight, padded, where it is not by itself
    for layer in range(layers):
        before, after = table[layer, INPUTS], table[layer, OUTPUTS]
        if places[layer + 1] > places[layer] and (layer > 0 or input_gradient != 0):
            weight = numba.carray(pointer(table[layer, WEIGHT]), after * before)
            _copy_rows(weight, before, packed[places[layer] :], padded(before), after, before)
    one, two = np.empty(BLOCK * widest, np.float32), np.empty(BLOCK * widest, np.float32)
    zeros = np.zeros(widest, np.float32)
    nothing = np.empty(0, np.float32)
    total = kept_size(table, rows)

    for top in range(0, rows, BLOCK):
        count = min(BLOCK, rows - top)
        after = table[layers - 1, OUTPUTS]
        source = numba.carray(pointer(gradient + 4 * top * after), count * after)
        _copy_rows(source, after, one, padded(after), count, after)
        results = numba.carray(pointer(outputs + 4 * top * after), count * after)
        values = results
        if padded(after) != after and table[layers - 1, ACTIVATION] != LINEAR:
            _copy_rows(results, after, two, padded(after), count, after)
            values = two[: count * padded(after)]
        offset = total
        for layer in range(layers - 1, -1, -1):
            before, after, activation = table[layer, INPUTS], table[layer, OUTPUTS], table[layer, ACTIVATION]
            width, inside = padded(after), padded(before)
            sums = nothing
            if activation == SILU:
                offset -= rows * width
                sums = numba.carray(pointer(kept + 4 * (offset + top * width)), count * width)
            if layer < layers - 1:
                offset -= rows * width
            delta = one[: count * width]
            differentiate(delta, values, sums, activation)

            address, address_row = inputs + 4 * top * before, before
            if layer > 0:
                # What the layer before gave, behind which may lie the sums of its activation.
                ahead = rows * inside * (2 if table[layer - 1, ACTIVATION] == SILU else 1)
                address, address_row = kept + 4 * (offset - ahead + top * inside), inside
                values = numba.carray(pointer(address), count * inside)
            start = slopes_at[layer]
            target = slopes.ctypes.data + 4 * start
            if table[layer, WEIGHT_GRADIENT] != 0 and layer == 0 and turned:
                product(
                    before, width, count, address, 1, address_row, delta.ctypes.data, width, target, width,
                    target, width,
                )  # fmt: skip
            elif table[layer, WEIGHT_GRADIENT] != 0:
                product(
                    after, inside, count, delta.ctypes.data, 1, width, address, address_row, target, inside,
                    target, inside,
                )  # fmt: skip
            if table[layer, BIAS_GRADIENT] != 0:
                sum_of = slopes[slopes_at[layer + 1] - width : slopes_at[layer + 1]]
                for i in range(count):
                    for j in range(width):
                        sum_of[j] += delta[i * width + j]
            if layer > 0 or input_gradient != 0:
                weight_at = packed.ctypes.data + 4 * places[layer]
                if before == inside:
                    weight_at = table[layer, WEIGHT]
                product(
                    count, inside, after, delta.ctypes.data, width, 1, weight_at, inside, two.ctypes.data, inside,
                    zeros.ctypes.data, 0,
                )  # fmt: skip
                one, two = two, one
        if input_gradient != 0:
            before = table[0, INPUTS]
            found = numba.carray(pointer(input_gradient + 4 * top * before), count * before)
            _copy_rows(one, padded(before), found, before, count, before)

    for layer in range(layers):
        before, after = table[layer, INPUTS], table[layer, OUTPUTS]
        part = slopes[slopes_at[layer] : slopes_at[layer + 1]]
        if table[layer, WEIGHT_GRADIENT] != 0:
            found = numba.carray(pointer(table[layer, WEIGHT_GRADIENT]), after * before)
            if layer == 0 and turned:
                _transpose(part, padded(after), found, before, after, before)
            else:
                _copy_rows(part, padded(before), found, before, after, before)
        if table[layer, BIAS_GRADIENT] != 0:
            found = numba.carray(pointer(table[layer, BIAS_GRADIENT]), after)
            _copy_rows(part[len(part) - padded(after) :], after, found, after, 1, after)

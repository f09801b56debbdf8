"""Eight cells at a time: what LLVM does not make by itself of the short rows of a crop.

Its vectoriser leaves loops of a few turns alone, since it would first have to prove that the arrays do not
overlap. Arrays are C-contiguous and indexed flat, nothing is checked, and all eight elements must exist.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

LANES = 8
_FLOATS = ir.VectorType(ir.FloatType(), LANES)
_INT32 = ir.IntType(32)


@intrinsic
def word(typing: Any, array: Any, index: Any) -> Any:
    """Return ``array[index : index + 8]`` of a uint8 array as one uint64, the first element lowest."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, index = arguments
        load = builder.load(_at(context, builder, signature.args[0], array, index, ir.IntType(64)))
        load.align = 1
        return load

    return types.uint64(array, index), code


@intrinsic
def spread(typing: Any, out: Any, place: Any, bits: Any) -> Any:
    """``out[place + k] = bit k of bits`` (uint64) for k = 0 to 7; ``out`` is float32."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array, place, bits = arguments
        flags = builder.bitcast(builder.trunc(bits, ir.IntType(8)), ir.VectorType(ir.IntType(1), LANES))
        _store(context, builder, signature.args[0], array, place, builder.uitofp(flags, _FLOATS))
        return context.get_dummy_value()

    return types.void(out, place, types.uint64), code


@intrinsic
def divide(typing: Any, out: Any, place: Any, array: Any, index: Any, divisor: Any) -> Any:
    """``out[place : place + 8] = float32(array[index : index + 8]) / divisor`` (a float32)."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, place, array, index, divisor = arguments
        first = builder.insert_element(ir.Constant(_FLOATS, ir.Undefined), divisor, _INT32(0))
        same = ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES)
        divisors = builder.shuffle_vector(first, first, same)
        values = _load(context, builder, signature.args[2], array, index)
        _store(context, builder, signature.args[0], out, place, builder.fdiv(values, divisors))
        return context.get_dummy_value()

    return types.void(out, place, array, index, types.float32), code


@intrinsic
def divide_each(typing: Any, out: Any, place: Any, array: Any, index: Any, divisors: Any, first: Any) -> Any:
    """``out[place : place + 8] = float32(array[index : index + 8]) / divisors[first : first + 8]``."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        out, place, array, index, divisors, first = arguments
        values = _load(context, builder, signature.args[2], array, index)
        by = _load(context, builder, signature.args[4], divisors, first)
        _store(context, builder, signature.args[0], out, place, builder.fdiv(values, by))
        return context.get_dummy_value()

    return types.void(out, place, array, index, divisors, first), code


def _at(context: Any, builder: Any, kind: Any, array: Any, index: Any, element: ir.Type) -> Any:
    """Return a pointer to an ``element`` (a vector or a word) that begins at ``array[index]``."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(cgutils.gep(builder, data, index), element.as_pointer())


def _load(context: Any, builder: Any, kind: Any, array: Any, index: Any) -> Any:
    """Return ``array[index : index + 8]`` as a vector of float32."""
    element = context.get_data_type(kind.dtype)
    values = builder.load(_at(context, builder, kind, array, index, ir.VectorType(element, LANES)))
    values.align = context.get_abi_sizeof(element)
    if isinstance(kind.dtype, types.Integer):
        values = (builder.sitofp if kind.dtype.signed else builder.uitofp)(values, _FLOATS)
    return values


def _store(context: Any, builder: Any, kind: Any, array: Any, index: Any, values: Any) -> None:
    store = builder.store(values, _at(context, builder, kind, array, index, _FLOATS))
    store.align = 4


def _plain_word(array: np.ndarray, index: int) -> np.uint64:
    return np.uint64(int.from_bytes(array[index : index + LANES].tobytes(), "little"))


def _plain_spread(out: np.ndarray, place: int, bits: int) -> None:
    out[place : place + LANES] = (int(bits) & 0xFF) >> np.arange(LANES) & 1


def _plain_divide(out: np.ndarray, place: int, array: np.ndarray, index: int, divisor: Any) -> None:
    out[place : place + LANES] = array[index : index + LANES].astype(np.float32) / divisor


def _plain_divide_each(
    out: np.ndarray, place: int, array: np.ndarray, index: int, divisors: np.ndarray, first: int
) -> None:
    _plain_divide(out, place, array, index, divisors[first : first + LANES])


if numba.config.DISABLE_JIT:  # the same without a compiler
    word, spread, divide, divide_each = _plain_word, _plain_spread, _plain_divide, _plain_divide_each

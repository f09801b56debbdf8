"""Normals of many counters at a time: the numbers of `qio_envs.api.random.normals`, bit for bit, in vector registers.

LLVM's vectoriser leaves the rounds of Philox alone; here they are written for `LANES` counters at once. Additions,
multiplications, divisions and square roots of vectors round as those of single numbers do.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

from qio_envs.api import random
from qio_envs.api.random import normal_pair, philox4x32

LANES = 16
"""Counters that are worked on at once."""

_INT32, _INT64 = ir.IntType(32), ir.IntType(64)
_WORDS, _WIDE = ir.VectorType(_INT32, LANES), ir.VectorType(_INT64, LANES)


@intrinsic
def _philox_lanes(typing: Any, counters: Any, stream: Any, words: Any) -> Any:
    """Write the blocks of `LANES` counters: ``words[:, i] = philox4x32(*counters[:3, i], stream, counters[3, i])``.

    ``counters`` is uint64 ``[4, LANES]`` (lane, step, episode, seed), ``words`` uint32 ``[4, LANES]``, both
    C-contiguous.
    """

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        counters, stream, words = arguments
        low, shift = _same(0xFFFFFFFF), _same(32)
        rows = [_row(context, builder, signature.args[0], counters, k, _WIDE) for k in range(4)]
        c0, c1, c2, seed = (builder.load(row, align=8) for row in rows)
        first = builder.insert_element(ir.Constant(_WIDE, ir.Undefined), stream, _INT32(0))
        c3 = builder.shuffle_vector(first, first, ir.Constant(_WORDS, [0] * LANES))
        k0, k1 = builder.and_(seed, low), builder.lshr(seed, shift)
        for _ in range(random.ROUNDS):  # the upper halves of c1, c3, k0 and k1 do not matter
            product_0 = builder.mul(builder.and_(c0, low), _same(random.MULTIPLIER_0))
            product_1 = builder.mul(builder.and_(c2, low), _same(random.MULTIPLIER_1))
            c0 = builder.xor(builder.xor(builder.lshr(product_1, shift), c1), k0)
            c2 = builder.xor(builder.xor(builder.lshr(product_0, shift), c3), k1)
            c1, c3 = product_1, product_0
            k0 = builder.add(k0, _same(random.WEYL_0))
            k1 = builder.add(k1, _same(random.WEYL_1))
        for k, values in enumerate((c0, c1, c2, c3)):
            row = _row(context, builder, signature.args[2], words, k, _WORDS)
            builder.store(builder.trunc(values, _WORDS), row, align=4)
        return context.get_dummy_value()

    return types.void(counters, types.uint64, words), code


def _same(value: Any) -> ir.Constant:
    return ir.Constant(_WIDE, [int(value)] * LANES)


def _row(context: Any, builder: Any, kind: Any, array: Any, row: int, vector: ir.Type) -> Any:
    """Return a pointer to row ``row`` of an array ``[4, LANES]`` as a vector."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(cgutils.gep(builder, data, row * LANES), vector.as_pointer())


def _plain_philox_lanes(counters: np.ndarray, stream: int, words: np.ndarray) -> None:
    lane, step, episode, seed = counters
    words[...] = philox4x32(lane, step, episode, stream, seed)  # arrays for integers


if numba.config.DISABLE_JIT:  # the same without a compiler
    _philox_lanes = _plain_philox_lanes


@njit(cache=True, error_model="numpy")
def fill_normals(
    steps: np.ndarray, episodes: np.ndarray, stream: int, seeds: np.ndarray, out: np.ndarray
) -> None:
    """Write the normals of the first ``B`` blocks of many environments.

    ``out[e, b]`` becomes ``normals(b, steps[e], episodes[e], stream, seeds[e])``.

    Args:
        steps: Integers ``[E]`` from 0 on.
        episodes: Integers ``[E]`` from 0 on.
        stream: What the draws are for.
        seeds: Keys, uint64 ``[E]``.
        out: Float32 ``[E or more, B, 4]``, is written.
    """
    blocks = out.shape[1]
    counters = np.zeros((4, LANES), np.uint64)
    words = np.empty((4, LANES), np.uint32)
    drawn = np.empty((4, LANES), np.float32)
    total = steps.shape[0] * blocks
    e = block = 0  # whose counter is next
    to_e = to_block = 0  # whose numbers are written next
    for first in range(0, total, LANES):
        count = min(LANES, total - first)
        for i in range(count):
            counters[0, i], counters[1, i] = np.uint64(block), np.uint64(steps[e])
            counters[2, i], counters[3, i] = np.uint64(episodes[e]), seeds[e]
            block += 1
            if block == blocks:
                e, block = e + 1, 0
        _philox_lanes(counters, np.uint64(stream), words)
        for i in range(count):  # of unknown length: LLVM vectorises it, where it would unroll one of 16
            drawn[0, i], drawn[1, i] = normal_pair(np.uint64(words[0, i]), np.uint64(words[1, i]))
        for i in range(count):
            drawn[2, i], drawn[3, i] = normal_pair(np.uint64(words[2, i]), np.uint64(words[3, i]))
        for i in range(count):
            for k in range(4):
                out[to_e, to_block, k] = drawn[k, i]
            to_block += 1
            if to_block == blocks:
                to_e, to_block = to_e + 1, 0

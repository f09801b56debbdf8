"""Matrix products in registers: what numba and LLVM do not make of three loops by themselves.

A product is computed tile by tile: some rows times some vectors of columns stay in registers while the summed index
runs (Goto and van de Geijn, 2008, "Anatomy of high-performance matrix multiplication"). Operands are short enough in
every use to lie in the caches as they are, so that nothing is packed. Every element is one chain of fused
multiply-adds in the order of the summed index, in whatever tile it lies: a row's numbers do not depend on how many
rows there are.
"""

from __future__ import annotations

from typing import Any

import llvmlite.binding
from llvmlite import ir
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

_FEATURES = llvmlite.binding.get_host_cpu_features()
# Lanes and vectors of a tile of six rows: as many as the registers of AVX-512 (32 of 16), AVX (16 of 8) and others (32
# of 4 on ARM) hold besides the operands.
LANES, VECTORS = (16, 4) if _FEATURES.get("avx512f") else (8, 2) if _FEATURES.get("avx2") else (4, 4)
ROWS = 6

_FLOAT = ir.FloatType()
_VECTOR = ir.VectorType(_FLOAT, LANES)
_INT = ir.IntType(64)
_INT32 = ir.IntType(32)
_SIZE = 4  # bytes of a number


def _pointer(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    return builder.inttoptr(arguments[0], context.get_value_type(signature.return_type))


@intrinsic
def pointer(typing: Any, address: Any) -> Any:
    """Return an address as a pointer to float32, for ``numba.carray``."""
    return types.CPointer(types.float32)(types.int64), _pointer


@intrinsic
def pointer_to_integers(typing: Any, address: Any) -> Any:
    """Return an address as a pointer to int64, for ``numba.carray``."""
    return types.CPointer(types.int64)(types.int64), _pointer


@intrinsic
def pointer_to_bytes(typing: Any, address: Any) -> Any:
    """Return an address as a pointer to uint8, for ``numba.carray``."""
    return types.CPointer(types.uint8)(types.int64), _pointer


def _tile(rows: int, vectors: int) -> Any:
    """Return an intrinsic for a tile of so many rows and vectors; arguments as of `product`, strides in numbers."""

    def generate(builder: Any, arguments: Any) -> None:
        a, a_row, a_step, b, b_step, depth, c, c_row, start, start_row = arguments
        pointers = ir.PointerType(_FLOAT)
        a, b, c, start = (builder.inttoptr(address, pointers) for address in (a, b, c, start))
        fma = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(_VECTOR, [_VECTOR] * 3), f"llvm.fma.v{LANES}f32"
        )

        def at(base: Any, row: int, stride: Any, vector: int) -> Any:
            offset = builder.add(builder.mul(_INT(row), stride), _INT(vector * LANES))
            return builder.bitcast(builder.gep(base, [offset]), ir.PointerType(_VECTOR))

        def load(place: Any) -> Any:
            found = builder.load(place)
            found.align = _SIZE
            return found

        places = [(row, vector) for row in range(rows) for vector in range(vectors)]
        first = {place: load(at(start, place[0], start_row, place[1])) for place in places}
        entry = builder.block
        head, body, done = (builder.append_basic_block(name) for name in ("tile", "tile.body", "tile.done"))
        builder.branch(head)

        builder.position_at_end(head)
        step = builder.phi(_INT)
        step.add_incoming(_INT(0), entry)
        sums = {}
        for place in places:
            sums[place] = builder.phi(_VECTOR)
            sums[place].add_incoming(first[place], entry)
        builder.cbranch(builder.icmp_signed("<", step, depth), body, done)

        builder.position_at_end(body)
        right = builder.gep(b, [builder.mul(step, b_step)])
        columns = [load(at(right, 0, b_step, vector)) for vector in range(vectors)]
        left = builder.gep(a, [builder.mul(step, a_step)])
        for row in range(rows):
            number = builder.load(builder.gep(left, [builder.mul(_INT(row), a_row)]))
            one = builder.insert_element(ir.Constant(_VECTOR, ir.Undefined), number, _INT32(0))
            lanes = ir.Constant(ir.VectorType(_INT32, LANES), [0] * LANES)
            factor = builder.shuffle_vector(one, one, lanes)
            for vector in range(vectors):
                phi = sums[row, vector]
                phi.add_incoming(builder.call(fma, [factor, columns[vector], phi]), body)
        step.add_incoming(builder.add(step, _INT(1)), body)
        builder.branch(head)

        builder.position_at_end(done)
        for place in places:
            stored = builder.store(sums[place], at(c, place[0], c_row, place[1]))
            stored.align = _SIZE

    @intrinsic
    def tile(
        typing: Any, a: Any, a_row: Any, a_step: Any, b: Any, b_step: Any, depth: Any, c: Any, c_row: Any,
        start: Any, start_row: Any,
    ) -> Any:  # fmt: skip
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            generate(builder, arguments)
            return context.get_dummy_value()

        return types.void(*[types.int64] * 10), code

    return tile


_wide, _narrow = _tile(ROWS, VECTORS), _tile(ROWS, 1)
_wide_row, _narrow_row = _tile(1, VECTORS), _tile(1, 1)


@njit(cache=True)
def product(
    rows: int,
    columns: int,
    depth: int,
    a: int,
    a_row: int,
    a_step: int,
    b: int,
    b_step: int,
    c: int,
    c_row: int,
    start: int,
    start_row: int,
) -> None:
    """``c[i, j] = start[i, j] + sum over k of a[i, k] b[k, j]`` in float32.

    Args:
        rows: Of ``a`` and ``c``.
        columns: Of ``b`` and ``c``; a multiple of `WIDTH`.
        depth: How many terms a sum has.
        a: Address of ``a[0, 0]``.
        a_row: Distance of ``a[i + 1, k]`` from ``a[i, k]``, in numbers.
        a_step: Distance of ``a[i, k + 1]`` from ``a[i, k]``.
        b: Address of ``b[0, 0]``; a row's numbers lie next to each other.
        b_step: Distance of ``b[k + 1, j]`` from ``b[k, j]``.
        c: Address of ``c[0, 0]``; as for ``b``.
        c_row: Distance of ``c[i + 1, j]`` from ``c[i, j]``.
        start: Address of ``start[0, 0]``; may be that of ``c``.
        start_row: Distance of ``start[i + 1, j]`` from ``start[i, j]``; 0 for one row for all.
    """
    whole = rows - rows % ROWS
    j = 0
    while j < columns:
        wide = columns - j >= LANES * VECTORS
        for i in range(0, whole, ROWS):
            left, out = a + _SIZE * i * a_row, c + _SIZE * (i * c_row + j)
            first = start + _SIZE * (i * start_row + j)
            if wide:
                _wide(left, a_row, a_step, b + _SIZE * j, b_step, depth, out, c_row, first, start_row)
            else:
                _narrow(left, a_row, a_step, b + _SIZE * j, b_step, depth, out, c_row, first, start_row)
        for i in range(whole, rows):
            left, out = a + _SIZE * i * a_row, c + _SIZE * (i * c_row + j)
            first = start + _SIZE * (i * start_row + j)
            if wide:
                _wide_row(left, a_row, a_step, b + _SIZE * j, b_step, depth, out, c_row, first, start_row)
            else:
                _narrow_row(left, a_row, a_step, b + _SIZE * j, b_step, depth, out, c_row, first, start_row)
        j += LANES * VECTORS if wide else LANES

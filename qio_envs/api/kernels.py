"""`Kernel`: a numba function without the cost of looking its types up, and its named tuples, at each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np
from numba import types
from numba.core.datamodel.models import TupleModel
from numba.extending import NativeValue, register_model, unbox


class Kernel:
    """A compiled function that is called with arguments of the same types each time.

    Numba looks at the type of every argument at every call, which for named tuples of arrays takes longer than many a
    step of an environment. Here the first call does it once. Numba also takes named tuples apart at every call, array
    by array; here compiled code reads the first one, and a second one right behind it, from memory to which they were
    written when they were first given. Another tuple is written anew. Pickles and deep copies look again.

    With ``NUMBA_DISABLE_JIT=1`` the function runs as plain Python, slowly, for a debugger; its numbers are the compiled
    code's up to rounding.

    Args:
        function: A function made with ``numba.njit``. Arguments of later calls must have the types (dtype, number of
            dimensions, memory layout) of those of the first: this is not checked. It must not return what a named
            tuple holds.
        keeps: Whether named tuples are mostly the same ones as in the call before; where they are new each time it is
            faster to take them apart.
    """

    __slots__ = ("_code", "_function", "_keeps", "_kept")

    def __init__(self, function: Any, keeps: bool = True) -> None:
        self._function = function
        self._keeps = keeps
        self._code: Callable[..., Any] | None = None
        self._kept: _KeptTuples | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Return what the function returns."""
        code, kept = self._code, self._kept
        if code is None:
            code, kept = self._compiled(arguments)
        if kept is None:
            return code(*arguments)
        kinds, first, end, one, last, addresses, _ = kept
        if arguments[first] is not one or arguments[end - 1] is not last:
            self._kept = kept = _written_tuples(
                kinds, first, end, arguments
            )  # held here too, while the code runs
            addresses = kept[5]
        return code(*arguments[:first], *addresses, *arguments[end:])

    def copy(self) -> Kernel:
        """Return a kernel with the same code that remembers tuples of its own."""
        result = Kernel(self._function, self._keeps)
        result._code, result._kept = self._code, self._kept
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the function only: compiled code belongs to a process."""
        return Kernel, (self._function, self._keeps)

    def _compiled(self, arguments: tuple[Any, ...]) -> tuple[Callable[..., Any], _KeptTuples | None]:
        if numba.config.DISABLE_JIT:
            self._code = self._plain
            return self._plain, None
        signature = [numba.typeof(argument) for argument in arguments]
        places = [place for place, kind in enumerate(signature) if _can_be_kept(kind)] if self._keeps else []
        if places:
            first = places[0]
            end = first + 2 if first + 1 in places else first + 1
            for place in range(first, end):
                signature[place] = _Kept(signature[place].types, signature[place].instance_class)
            self._kept = _written_tuples(tuple(signature[first:end]), first, end, arguments)
        self._function.compile(tuple(signature))
        self._code = self._function.get_overload(tuple(signature))
        return self._code, self._kept

    def _plain(self, *arguments: Any) -> Any:
        with np.errstate(all="ignore"):  # compiled code does not warn either
            return self._function(*arguments)


# One or two arguments that compiled code is given by address: their types, the place of the first and the one behind
# the last, the first and the last themselves, the addresses of their copies, and the memory that holds the copies. A
# plain tuple is what Python takes apart fastest.
_KeptTuples = tuple[tuple[types.Type, ...], int, int, Any, Any, tuple[int, ...], tuple[np.ndarray, ...]]


def _written_tuples(
    kinds: tuple[types.Type, ...], first: int, end: int, arguments: tuple[Any, ...]
) -> _KeptTuples:
    memory = tuple(_written(kind, values) for kind, values in zip(kinds, arguments[first:end], strict=True))
    addresses = tuple(copy.ctypes.data for copy in memory)
    return kinds, first, end, arguments[first], arguments[end - 1], addresses, memory


def _written(kind: types.NamedTuple, values: Any) -> np.ndarray:
    """Return memory (uint8) that holds a named tuple as compiled code has it: one part behind the other, aligned.

    An array is its reference counter and its owner, which are left out here: whoever reads it must keep it alive; then
    its number of elements, their size, its address, shape and strides.
    """
    data = bytearray()
    for part, value in zip(kind.types, values, strict=True):
        if isinstance(part, types.Array):
            numbers = (0, 0, value.size, value.itemsize, value.ctypes.data, *value.shape, *value.strides)
            new = np.array(numbers, np.int64)
        else:
            new = np.array(value, str(part))
        data.extend(bytes(-len(data) % new.itemsize))
        data.extend(new.tobytes())
    data.extend(bytes(-len(data) % 8))
    return np.frombuffer(bytes(data), np.int64).copy()


class _Kept(types.NamedTuple):
    """A named tuple whose argument is the address of memory that `_written` wrote."""


register_model(_Kept)(TupleModel)


def _can_be_kept(kind: types.Type) -> bool:
    """Whether it is a named tuple of arrays, integers, floats and flags."""
    return type(kind) is types.NamedTuple and all(
        isinstance(part, types.Array | types.Integer | types.Float | types.Boolean) for part in kind.types
    )


@unbox(_Kept)
def _unbox_kept(kind: Any, address: Any, c: Any) -> NativeValue:
    pointer = c.builder.bitcast(c.pyapi.long_as_voidptr(address), c.context.get_value_type(kind).as_pointer())
    return NativeValue(c.builder.load(pointer))

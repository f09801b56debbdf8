"""`Kernel`: a numba function without the cost of looking its types up at each call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np


class Kernel:
    """A compiled function that is called with arguments of the same types each time.

    Numba looks at the type of every argument at every call, which for named tuples of arrays takes longer than many a
    step of an environment. Here the first call does it once. Pickles and copies look again.

    With ``NUMBA_DISABLE_JIT=1`` the function runs as plain Python, slowly, for a debugger; its numbers are the compiled
    code's up to rounding.

    Args:
        function: A function made with ``numba.njit``. Arguments of later calls must have the types (dtype, number of
            dimensions, memory layout) of those of the first: this is not checked.
    """

    __slots__ = ("_code", "_function")

    def __init__(self, function: Any) -> None:
        self._function = function
        self._code: Callable[..., Any] | None = None

    def __call__(self, *arguments: Any) -> Any:
        """Return what the function returns."""
        if numba.config.DISABLE_JIT:
            with np.errstate(all="ignore"):  # compiled code does not warn either
                return self._function(*arguments)
        if self._code is None:
            signature = tuple(numba.typeof(argument) for argument in arguments)
            self._function.compile(signature)
            self._code = self._function.get_overload(signature)
        return self._code(*arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the function only: compiled code belongs to a process."""
        return Kernel, (self._function,)

"""The kernels, without the cost of looking their arguments' types up at each call."""

from __future__ import annotations

import numba
import numpy as np

from qio_envs.api.kernels import Kernel
from qio_rllib.fused import adam_kernels, loss_kernels, stack_kernels
from qio_rllib.fused.codes import LINEAR

forward, backward = Kernel(stack_kernels.forward), Kernel(stack_kernels.backward)
adam, clip = Kernel(adam_kernels.adam), Kernel(adam_kernels.clip)
categorical, gaussian = Kernel(loss_kernels.categorical), Kernel(loss_kernels.gaussian)


def check() -> None:
    """Compile what every update needs, and see that it computes.

    Raises:
        RuntimeError: It does not.
    """
    if numba.config.DISABLE_JIT:
        raise RuntimeError("NUMBA_DISABLE_JIT is set")
    weight, bias = np.array([2, 3], np.float32), np.array([1], np.float32)
    rows, found = np.array([4, 5], np.float32), np.zeros(1, np.float32)
    layer = [weight.ctypes.data, bias.ctypes.data, 2, 1, LINEAR, 0, 0]
    forward(np.array([layer], np.int64), rows.ctypes.data, 1, found.ctypes.data, 0)
    if found[0] != 24:
        raise RuntimeError(f"2 * 4 + 3 * 5 + 1 is {found[0]:g}")

"""The kernels, without the cost of looking their arguments' types up at each call."""

from __future__ import annotations

import numba
import numpy as np

from qio_envs.api.kernels import Kernel
from qio_rllib.fused import (
    adam_kernels,
    choice_kernels,
    critic_kernels,
    loss_kernels,
    mixer_kernels,
    stack_kernels,
    value_kernels,
)
from qio_rllib.fused.codes import LINEAR

forward, backward = Kernel(stack_kernels.forward), Kernel(stack_kernels.backward)
adam, clip = Kernel(adam_kernels.adam), Kernel(adam_kernels.clip)
categorical, factored = Kernel(loss_kernels.categorical), Kernel(loss_kernels.factored)
join_dueling, part_dueling = Kernel(value_kernels.join_dueling), Kernel(value_kernels.part_dueling)
value_of, spread_value = Kernel(value_kernels.value_of), Kernel(value_kernels.spread_value)
best_value, mean_of = Kernel(value_kernels.best_value), Kernel(value_kernels.mean_of)
mix, part_mix = Kernel(mixer_kernels.mix), Kernel(mixer_kernels.part_mix)
work_size = Kernel(mixer_kernels.work_size)
approach = Kernel(adam_kernels.approach)
others_first, part_others_first = (
    Kernel(critic_kernels.others_first),
    Kernel(critic_kernels.part_others_first),
)
relaxed_choice, part_choice = Kernel(choice_kernels.relaxed_choice), Kernel(choice_kernels.part_choice)
draw = Kernel(choice_kernels.draw)


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

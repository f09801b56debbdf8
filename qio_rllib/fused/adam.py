"""`Adam` whose step, and the clipping before it, is one pass over all parameters."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import torch

from qio_rllib.fused.codes import BY_GLOBAL_NORM, BY_NORM, BY_VALUE
from qio_rllib.fused.use import in_use, is_plain, kernels

Array = np.ndarray
_WAYS = {"value": BY_VALUE, "norm": BY_NORM, "global_norm": BY_GLOBAL_NORM}


class Adam(torch.optim.Adam):
    """``torch.optim.Adam`` (Kingma and Ba, 2015) in its fused form, with the same state and numbers up to rounding.

    Weight decay is decoupled (Loshchilov and Hutter, 2019): with it this is ``torch.optim.AdamW``.

    Where parameters and gradients are contiguous float32 in this machine's memory, a step is one kernel over all of
    them; torch's costs more for its bookkeeping than for its arithmetic on networks of this size.
    """

    def __init__(self, params: Iterable[torch.nn.Parameter], weight_decay: float = 0.0) -> None:
        super().__init__(params, weight_decay=weight_decay, decoupled_weight_decay=True, fused=True)
        self._known: dict[torch.nn.Parameter, _Known] = {}

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients."""
        if not set_to_none:
            super().zero_grad(set_to_none=False)
            return
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def fused_step(self) -> bool:
        """Take a step by the kernel, if it can; return whether it did, else `step` has to.

        The first step makes the state and is torch's. Parameters without a gradient stay as they are.
        """
        group = self.param_groups[0]
        table = self._table(group["params"]) if in_use() and len(self.param_groups) == 1 else None
        if table is None:
            return False
        beta1, beta2 = group["betas"]
        kernels().adam(table, float(group["lr"]), beta1, beta2, group["eps"], float(group["weight_decay"]))
        return True

    def _table(self, parameters: list[torch.nn.Parameter]) -> Array | None:
        """Return addresses and sizes of what a step touches; None where the kernel does not take it."""
        lines = []
        for parameter in parameters:
            gradient = parameter.grad
            if gradient is None:
                continue
            known = self._known.get(parameter)
            state = self.state.get(parameter)
            if known is None or known.state is not state or known.line[1] != parameter.data_ptr():
                if not state or not all(is_plain(each) for each in (parameter, *state.values())):
                    return None
                known = self._known[parameter] = _Known.of(parameter, state)
            if not gradient.is_contiguous():  # else it is as the parameter is
                return None
            lines.append((gradient.data_ptr(), *known.line))
        return np.array(lines, np.int64) if lines else None


class _Known(NamedTuple):
    """A parameter's part of the table of parameters behind its gradient, as long as it has this state."""

    state: dict[str, torch.Tensor]
    line: tuple[int, ...]

    @classmethod
    def of(cls, parameter: torch.nn.Parameter, state: dict[str, torch.Tensor]) -> _Known:
        tensors = (parameter, state["exp_avg"], state["exp_avg_sq"], state["step"])
        return cls(state, (parameter.numel(), *(each.data_ptr() for each in tensors)))


def clip(gradients: list[torch.Tensor], limit: float, by: str) -> torch.Tensor | None:
    """Clip gradients in place as RLlib's ``grad_clip_by`` says; return their global norm before.

    Args:
        gradients: Of the parameters.
        limit: What they are clipped to.
        by: "value", "norm" (each by itself) or "global_norm".

    Returns:
        A scalar; None, with gradients as they were, outside `fused_kernels` or for tensors that they do not take.
    """
    if not in_use() or not all(is_plain(each) for each in gradients):
        return None
    table = np.array([(each.data_ptr(), each.numel()) for each in gradients], np.int64)
    return torch.tensor(kernels().clip(table, float(limit), _WAYS[by]))


def approach(targets: Sequence[torch.Tensor], presents: Sequence[torch.Tensor], share: float) -> bool:
    """Move parameters by a share of the way towards others, in place; return whether the kernel took them.

    Args:
        targets: What moves.
        presents: Where to, as many and of the same shapes.
        share: From 0 to 1, which makes them equal.
    """
    if not in_use() or not all(is_plain(each) for each in (*targets, *presents)):
        return False
    pairs = zip(targets, presents, strict=True)
    table = [(each.data_ptr(), other.data_ptr(), each.numel()) for each, other in pairs]
    if table:
        kernels().approach(np.array(table, np.int64), float(share))
    return True

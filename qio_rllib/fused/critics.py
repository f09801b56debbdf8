"""Values of joint critics whose first layer takes observations and actions apart, by kernels; None where torch has to.

What the agents of one module could do instead of what they did (`values_of_own`) goes through the later layers as rows
``[M, B]``, agents first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from qio_rllib.fused.codes import LINEAR, SILU
from qio_rllib.fused.stack import Layers, backward, forward
from qio_rllib.fused.use import in_use, is_plain, kernels


def joint_values(
    layers: Layers | None, from_actions: nn.Linear, observed: torch.Tensor, done: torch.Tensor
) -> torch.Tensor | None:
    """Return a critic's outputs ``[B, F]``.

    Args:
        layers: Its layers, of which the first takes what is observed; None where a kernel does not know one.
        from_actions: What the first layer makes of actions besides, without a bias.
        observed: ``[B, D]``, without gradients.
        done: Actions ``[B, A]``, likewise.
    """
    if layers is None or not _takes(from_actions, observed, done):
        return None
    weight, *others = layers.parameters()
    activations, parameters = layers.activations, (weight, from_actions.weight, *others)
    rows = torch.cat([observed, done], dim=1)
    if torch.is_grad_enabled():
        return _JointValues.apply(rows, activations, *parameters)
    return forward(rows, activations, _in_one(parameters), keep=False)[0]


def values_of_own(
    layers: Layers | None,
    from_actions: nn.Linear,
    observed: torch.Tensor,
    done: torch.Tensor,
    executed: torch.Tensor,
    own: torch.Tensor,
    start: int,
) -> torch.Tensor | None:
    """Return the value to each agent of a module of acting otherwise while all others do what they did, ``[B, M]``.

    Args:
        layers: As for `joint_values`, as the next three, with ``M`` outputs and frozen.
        from_actions: Likewise.
        observed: Likewise.
        done: Likewise.
        executed: What these agents did, ``[B, M, A]``, without gradients.
        own: What they do instead, likewise; gradients pass to it.
        start: Where their actions stand in ``done``.
    """
    if layers is None or len(layers) < 2 or not _takes(from_actions, observed, done):
        return None
    weight, *others = layers.parameters()
    parameters = (weight, from_actions.weight, *others)
    if executed.shape != own.shape or executed.dtype != torch.float32 or own.dtype != torch.float32:
        return None
    if torch.is_grad_enabled() and any(each.requires_grad for each in (executed, *parameters)):
        return None
    with torch.no_grad():
        rows = torch.cat([observed, done], dim=1)
        base = forward(rows, (LINEAR,), _in_one(parameters[:3]), keep=False)[0]
    plan = layers.activations, parameters[1], start, [*parameters[3:]]
    return _OfOwn.apply(own, executed, base, plan)


def _takes(from_actions: nn.Linear, observed: torch.Tensor, done: torch.Tensor) -> bool:
    return (
        in_use()
        and is_plain(from_actions.weight)
        and all(each.dtype == torch.float32 and each.device.type == "cpu" for each in (observed, done))
        and len(observed) > 0
        and not (torch.is_grad_enabled() and (observed.requires_grad or done.requires_grad))
    )


def _in_one(parameters: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Return parameters with the two parts of the first weight side by side."""
    observed, done, *rest = parameters
    return [torch.cat([observed, done], dim=1), *rest]


class _JointValues(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, activations: tuple[int, ...], *parameters: torch.Tensor
    ) -> torch.Tensor:
        together = _in_one(parameters)
        outputs, kept = forward(rows, activations, together, keep=any(ctx.needs_input_grad))
        ctx.activations, ctx.split = activations, [parameters[0].shape[1], parameters[1].shape[1]]
        ctx.save_for_backward(rows, outputs, kept, together[0], *parameters[2:])
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, outputs, kept, *parameters = ctx.saved_tensors
        observed, done, *wanted = ctx.needs_input_grad[2:]
        _, (slope, *rest) = backward(
            ctx.activations,
            parameters,
            rows,
            outputs,
            kept,
            gradient,
            [observed or done, *wanted],
            wants_rows=False,
        )
        parts = [None, None] if slope is None else [each.contiguous() for each in slope.split(ctx.split, 1)]
        return None, None, *parts, *rest


class _OfOwn(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, own: torch.Tensor, executed: torch.Tensor, base: torch.Tensor, plan: tuple[Any, ...]
    ) -> torch.Tensor:
        (first, *activations), weight, start, parameters = plan
        change = (own - executed).contiguous()
        count, agents, size = change.shape
        width = base.shape[1]
        shape = np.array([count, agents, size, width, weight.shape[1]], np.int64)
        hidden = base.new_empty(agents * count, width)
        sums = torch.empty_like(hidden) if first == SILU else None
        addresses = (weight.data_ptr() + 4 * start, shape, hidden.data_ptr(), _address(sums), first)
        kernels().others_first(base.data_ptr(), change.data_ptr(), *addresses)
        outputs, kept = forward(hidden, tuple(activations), parameters, keep=ctx.needs_input_grad[0])
        ctx.plan, ctx.addresses = plan, addresses
        ctx.save_for_backward(hidden, sums, outputs, kept, weight, *parameters)
        return outputs.view(agents, count, -1).diagonal(dim1=0, dim2=2).contiguous()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, _, outputs, kept, _, *parameters = ctx.saved_tensors
        count, agents = gradient.shape
        spread = outputs.new_zeros(agents, count, outputs.shape[1])
        spread.diagonal(dim1=0, dim2=2).copy_(gradient)
        of_hidden, _ = backward(
            tuple(ctx.plan[0][1:]),
            parameters,
            hidden,
            outputs,
            kept,
            spread.view(agents * count, -1),
            [False] * len(parameters),
            wants_rows=True,
        )
        assert of_hidden is not None
        size = ctx.addresses[1][2]
        slopes = gradient.new_empty(count, agents, size)
        kernels().part_others_first(of_hidden.data_ptr(), *ctx.addresses, slopes.data_ptr())
        return slopes, None, None, None


def _address(tensor: torch.Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()

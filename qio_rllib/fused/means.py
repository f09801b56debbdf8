"""Means of values and of errors over the rows that count, by a kernel that gives their gradients along with them."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from qio_rllib.fused.codes import HUBER, PLAIN, SQUARE
from qio_rllib.fused.use import in_use, is_plain, kernels

KINDS = {"difference": PLAIN, "square": SQUARE, "huber": HUBER}
"""Of errors; Huber's (1964) has the bound 1."""


def masked_mean(
    values: torch.Tensor, mask: torch.Tensor, targets: torch.Tensor | None = None, kind: str = "difference"
) -> torch.Tensor | None:
    """Return the mean of what rows differ from their targets by, over those that count; 0 where none does.

    None outside `fused_kernels`, or for tensors that the kernel does not take.

    Args:
        values: ``[...]`` or ``[..., K]``, of whose numbers a row's is the mean.
        mask: How much a row counts, ``[...]``, without gradients.
        targets: Of the shape of ``values``, without gradients; None for zeros.
        kind: A key of `KINDS`.

    Returns:
        A scalar; gradients pass to ``values``.
    """
    if not in_use() or not is_plain(mask) or not values.numel() or mask.requires_grad:
        return None
    if values.shape[: mask.dim()] != mask.shape or values.dim() > mask.dim() + 1:
        return None
    if targets is not None and (
        not is_plain(targets) or targets.shape != values.shape or targets.requires_grad
    ):
        return None
    values = values.contiguous()
    if not is_plain(values):
        return None
    if torch.is_grad_enabled() and values.requires_grad:
        return _Mean.apply(values, mask, targets, KINDS[kind])
    return values.new_tensor(_mean(values, mask, targets, KINDS[kind], None))


class _Mean(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, values: torch.Tensor, mask: torch.Tensor, targets: torch.Tensor | None, kind: int
    ) -> torch.Tensor:
        slopes = torch.empty_like(values)
        found = _mean(values, mask, targets, kind, slopes)
        ctx.save_for_backward(slopes)
        return values.new_tensor(found)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (slopes,) = ctx.saved_tensors
        return slopes if gradient.item() == 1.0 else slopes * gradient, None, None, None


def _mean(
    values: torch.Tensor,
    mask: torch.Tensor,
    targets: torch.Tensor | None,
    kind: int,
    slopes: torch.Tensor | None,
) -> float:
    rows = mask.numel()
    return kernels().mean_of(
        values.data_ptr(),
        0 if targets is None else targets.data_ptr(),
        mask.data_ptr(),
        0 if slopes is None else slopes.data_ptr(),
        rows,
        values.numel() // rows,
        kind,
    )

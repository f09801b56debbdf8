"""Q-values of actions and of the best ones, by kernels; None where torch has to compute them."""

from __future__ import annotations

from typing import Any

import torch
from torch.autograd.function import once_differentiable

from qio_rllib.fused.use import in_use, is_plain, kernels


def dueling(outputs: torch.Tensor) -> torch.Tensor | None:
    """Return Q-values ``[..., A]`` of a state value and ``A`` advantages ``[..., 1 + A]`` (Wang et al., 2016)."""
    if not in_use() or not is_plain(outputs) or not outputs.numel() or outputs.shape[-1] < 2:
        return None
    return _Dueling.apply(outputs) if _differentiates(outputs) else _dueling(outputs)


def value_of(q_values: torch.Tensor, actions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor | None:
    """Return the Q-values ``[...]`` of actions, times a mask.

    Args:
        q_values: ``[..., A]``.
        actions: One-hot, ``[..., A]``, without gradients.
        mask: ``[...]``, likewise.
    """
    if not in_use() or not all(is_plain(each) for each in (q_values, actions, mask)) or not q_values.numel():
        return None
    if actions.shape != q_values.shape or mask.shape != q_values.shape[:-1]:
        return None
    if actions.requires_grad or mask.requires_grad:
        return None
    if _differentiates(q_values):
        return _ValueOf.apply(q_values, actions, mask)
    return _value_of(q_values, actions, mask)


def best_value(
    q_values: torch.Tensor, chooser: torch.Tensor, legal: torch.Tensor | None, mask: torch.Tensor
) -> torch.Tensor | None:
    """Return the Q-values ``[...]`` of the actions that are best by another estimate, times a mask, without gradients.

    Args:
        q_values: ``[..., A]``.
        chooser: The other estimate, or the same, ``[..., A]``.
        legal: Which actions are allowed, bool ``[..., A]``; None for all.
        mask: ``[...]``.
    """
    if not in_use() or not all(is_plain(each) for each in (q_values, chooser, mask)) or not q_values.numel():
        return None
    if chooser.shape != q_values.shape or mask.shape != q_values.shape[:-1]:
        return None
    if legal is not None and not (
        legal.shape == q_values.shape and legal.dtype == torch.bool and legal.is_contiguous() and legal.is_cpu
    ):
        return None
    found = q_values.new_empty(q_values.shape[:-1])
    kernels().best_value(
        q_values.data_ptr(),
        chooser.data_ptr(),
        0 if legal is None else legal.data_ptr(),
        mask.data_ptr(),
        found.numel(),
        q_values.shape[-1],
        found.data_ptr(),
    )
    return found


def _differentiates(tensor: torch.Tensor) -> bool:
    return torch.is_grad_enabled() and tensor.requires_grad


class _Dueling(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, outputs: torch.Tensor) -> torch.Tensor:
        return _dueling(outputs)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.contiguous()
        *rows, count = gradient.shape
        slopes = gradient.new_empty(*rows, count + 1)
        kernels().part_dueling(gradient.data_ptr(), gradient.numel() // count, count, slopes.data_ptr())
        return slopes


def _dueling(outputs: torch.Tensor) -> torch.Tensor:
    *rows, count = outputs.shape
    found = outputs.new_empty(*rows, count - 1)
    kernels().join_dueling(outputs.data_ptr(), outputs.numel() // count, count - 1, found.data_ptr())
    return found


class _ValueOf(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q_values: torch.Tensor, actions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(actions, mask)
        return _value_of(q_values, actions, mask)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        actions, mask = ctx.saved_tensors
        gradient = gradient.contiguous()
        slopes = torch.empty_like(actions)
        kernels().spread_value(
            gradient.data_ptr(),
            actions.data_ptr(),
            mask.data_ptr(),
            gradient.numel(),
            actions.shape[-1],
            slopes.data_ptr(),
        )
        return slopes, None, None


def _value_of(q_values: torch.Tensor, actions: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    found = q_values.new_empty(q_values.shape[:-1])
    kernels().value_of(
        q_values.data_ptr(),
        actions.data_ptr(),
        mask.data_ptr(),
        found.numel(),
        q_values.shape[-1],
        found.data_ptr(),
    )
    return found

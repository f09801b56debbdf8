"""Draws of discrete actions, and such that gradients pass through, by kernels; None where something else has to."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from qio_rllib.fused.use import acts, in_use, is_plain, kernels

Array = np.ndarray


def drawn(logits: Array, uniform: Array) -> tuple[Array, Array] | None:
    """Return actions, int64 ``[...]``, and their log-probabilities, float32; None outside `acting_kernels`.

    Args:
        logits: Log-probabilities up to a constant, float32 ``[..., A]``.
        uniform: Noise on [0, 1), float32 ``[...]``.
    """
    if not acts() or logits.dtype != np.float32 or uniform.dtype != np.float32 or not logits.size:
        return None
    logits, uniform = np.ascontiguousarray(logits), np.ascontiguousarray(uniform)
    if uniform.shape != logits.shape[:-1]:
        return None
    actions, logp = np.empty(uniform.shape, np.int64), np.empty(uniform.shape, np.float32)
    addresses = logits.ctypes.data, uniform.ctypes.data, uniform.size, logits.shape[-1]
    kernels().draw(*addresses, actions.ctypes.data, logp.ctypes.data)
    return actions, logp


def relaxed_choice(logits: torch.Tensor, uniform: torch.Tensor, temperature: float) -> torch.Tensor | None:
    """Return actions, one-hot ``[..., A]``, whose gradient is that of the relaxed ones (Jang et al., 2017).

    Args:
        logits: ``[..., A]``.
        uniform: Noise on [0, 1), likewise.
        temperature: Of the relaxation, above 0.
    """
    if not in_use() or not is_plain(logits) or not is_plain(uniform) or not logits.numel():
        return None
    if uniform.shape != logits.shape:
        return None
    if torch.is_grad_enabled() and logits.requires_grad:
        return _Choice.apply(logits, uniform, temperature)
    return _drawn(logits, uniform, temperature)[0]


class _Choice(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, uniform: torch.Tensor, temperature: float) -> torch.Tensor:
        chosen, relaxed = _drawn(logits, uniform, temperature)
        ctx.temperature = temperature
        ctx.save_for_backward(relaxed)
        return chosen

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (relaxed,) = ctx.saved_tensors
        gradient = gradient.contiguous()
        count = gradient.shape[-1]
        slopes = torch.empty_like(relaxed)
        kernels().part_choice(
            gradient.data_ptr(),
            relaxed.data_ptr(),
            gradient.numel() // count,
            count,
            float(ctx.temperature),
            slopes.data_ptr(),
        )
        return slopes, None, None


def _drawn(
    logits: torch.Tensor, uniform: torch.Tensor, temperature: float
) -> tuple[torch.Tensor, torch.Tensor]:
    chosen, relaxed = torch.empty_like(logits), torch.empty_like(logits)
    count = logits.shape[-1]
    kernels().relaxed_choice(
        logits.data_ptr(),
        uniform.data_ptr(),
        logits.numel() // count,
        count,
        float(temperature),
        chosen.data_ptr(),
        relaxed.data_ptr(),
    )
    return chosen, relaxed

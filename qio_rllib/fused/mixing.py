"""QMIX's mixer as one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from qio_rllib.fused.stack import Layers, table_of
from qio_rllib.fused.use import in_use, is_plain, kernels


def mixed(
    values: torch.Tensor, states: torch.Tensor, hypernetworks: Sequence[Layers | None]
) -> torch.Tensor | None:
    """Return a team's values ``[B]``, see `qio_rllib.models.mixers.MonotonicMixer`.

    None outside `fused_kernels`, or for what the kernel does not take.

    Args:
        values: Of the agents' actions, ``[B, N]``.
        states: Global states ``[B, S]``, without gradients.
        hypernetworks: From the states to weights ``[B, N * H]`` and biases ``[B, H]`` of the hidden layer, and to
            weights ``[B, H]`` and biases ``[B, 1]`` of the last.
    """
    known = [layers for layers in hypernetworks if layers is not None]
    if not in_use() or len(known) < len(hypernetworks) or states.requires_grad or not values.numel():
        return None
    values, states = values.contiguous(), states.contiguous()
    if not is_plain(values) or not is_plain(states):
        return None
    if any(layers[0].linear.in_features != states.shape[1] for layers in known):
        return None
    activations = tuple(each for layers in known for each in layers.activations)
    ends = np.cumsum([len(layers) for layers in known])
    parameters = [each for layers in known for each in layers.parameters()]
    if torch.is_grad_enabled():
        return _Mixed.apply(values, states, activations, ends, *parameters)
    return _mixed(values, states, activations, ends, parameters)[0]


class _Mixed(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        values: torch.Tensor,
        states: torch.Tensor,
        activations: tuple[int, ...],
        ends: np.ndarray,
        *parameters: torch.Tensor,
    ) -> torch.Tensor:
        found, work = _mixed(values, states, activations, ends, parameters)
        ctx.plan = activations, ends
        ctx.save_for_backward(values, states, work, *parameters)
        return found

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        values, states, work, *parameters = ctx.saved_tensors
        activations, ends = ctx.plan
        gradient = gradient.contiguous()
        wanted = ctx.needs_input_grad[4:]
        slopes = [
            torch.empty_like(each) if wants else None for each, wants in zip(parameters, wanted, strict=True)
        ]
        of_values = torch.empty_like(values)
        kernels().part_mix(
            table_of(activations, parameters, slopes),
            ends,
            states.data_ptr(),
            values.data_ptr(),
            *values.shape,
            work.data_ptr(),
            gradient.data_ptr(),
            of_values.data_ptr(),
        )
        return of_values, None, None, None, *slopes


def _mixed(
    values: torch.Tensor,
    states: torch.Tensor,
    activations: tuple[int, ...],
    ends: np.ndarray,
    parameters: Sequence[torch.Tensor],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the team's values, and what the kernel leaves for the backward pass."""
    table = table_of(activations, parameters)
    rows, agents = values.shape
    work = torch.empty(kernels().work_size(table, ends, rows))
    found = torch.empty(rows)
    addresses = states.data_ptr(), values.data_ptr(), rows, agents, work.data_ptr(), found.data_ptr()
    kernels().mix(table, ends, *addresses)
    return found, work

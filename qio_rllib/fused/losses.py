"""The losses of actor-critics as one kernel over rows, which gives their gradients along with them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.autograd.function import once_differentiable

from qio_rllib.fused.use import in_use, is_plain, kernels

Array = np.ndarray


class Terms(NamedTuple):
    """What an actor-critic's loss is made of; means over rows.

    Attributes:
        clip: Of the probability ratio about 1 (Schulman et al., 2017); None for the plain policy gradient.
        entropy: Weight of the entropy, in nats.
        value: Weight of the squared error of values; None for no such term.
        value_clip: What a squared error counts at most.
        divergence: Weight of KL(policy that sampled || present policy); None for no such term.
    """

    clip: float | None
    entropy: float
    value: float | None
    value_clip: float
    divergence: float | None


class Losses(NamedTuple):
    """What `actor_critic_loss` found.

    Attributes:
        loss: The sum of all terms, a scalar with gradients.
        gain: Mean of what the policy term increases.
        entropy: Mean entropy.
        error: Mean of the clipped squared errors.
        error_unclipped: Mean of the squared errors.
        divergence: Mean divergence.
        entropies: Of each row, ``[B]``, without gradients.
    """

    loss: torch.Tensor
    gain: float
    entropy: float
    error: float
    error_unclipped: float
    divergence: float
    entropies: torch.Tensor


def actor_critic_loss(
    terms: Terms,
    discrete: bool,
    factors: Sequence[int],
    inputs: torch.Tensor,
    inputs_before: torch.Tensor | None,
    values: torch.Tensor,
    actions: torch.Tensor,
    logp_before: torch.Tensor,
    advantages: torch.Tensor,
    targets: torch.Tensor,
) -> Losses | None:
    """Return the loss of rows by a kernel; None outside `fused_kernels`, or for tensors that it does not take.

    Args:
        terms: What counts how much.
        discrete: Whether the policy is categorical; Gaussian otherwise.
        factors: Of a policy of several numbers, how many values each of its categorical factors takes; Gaussian ones
            follow. Empty for others.
        inputs: Its logits ``[B, A]`` or means and log deviations ``[B, 2 D]``; of a product those of all factors.
        inputs_before: Those of the policy that sampled; None where no term needs them.
        values: The value estimates ``[B]``.
        actions: int64 ``[B]`` or float32 ``[B, D]``; of a product float32 ``[B, F + D]``.
        logp_before: Log-probabilities when they were sampled, ``[B]``.
        advantages: ``[B]``.
        targets: Of the value estimates, ``[B]``.
    """
    if not in_use() or inputs.dim() != 2 or not len(inputs):
        return None
    before = inputs.detach().contiguous() if inputs_before is None else inputs_before
    rows = (len(inputs),)
    width = len(factors) + (inputs.shape[1] - sum(factors)) // 2
    shapes = [rows, rows, rows, rows, inputs.shape, rows if discrete else (*rows, width)]
    columns = (values.detach().contiguous(), logp_before, advantages, targets, before, actions)
    if [each.shape for each in columns] != shapes or not actions.is_contiguous():
        return None
    floats = columns[:-1] if discrete else columns
    if inputs.dtype != torch.float32 or not all(is_plain(each) for each in floats):
        return None
    if discrete and actions.dtype != torch.int64:
        return None
    means = np.zeros(5)
    entropies = torch.empty_like(logp_before)
    if terms.value is None:
        values = values.detach()  # no gradient is not one of 0: an optimizer leaves such parameters alone
    tensors = (before, actions, logp_before, advantages, targets, entropies)
    kernel: Callable[..., float] = kernels().categorical
    if not discrete:
        kernel = functools.partial(kernels().factored, np.array(factors, np.int64))
    loss = _Loss.apply(inputs, values, terms, kernel, tensors, means)
    gain, entropy, error, error_unclipped, divergence = means.tolist()
    return Losses(loss, gain, entropy, error, error_unclipped, divergence, entropies)


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        inputs: torch.Tensor,
        values: torch.Tensor,
        terms: Terms,
        kernel: Callable[..., float],
        columns: tuple[torch.Tensor, ...],
        means: Array,
    ) -> torch.Tensor:
        inputs, values = inputs.contiguous(), values.contiguous()
        slopes, value_slopes = torch.empty_like(inputs), torch.empty_like(values)
        tensors = (inputs, values, *columns, slopes, value_slopes)
        table = np.array([each.data_ptr() for each in tensors], np.int64)
        weights = np.array(
            [
                -1.0 if terms.clip is None else terms.clip,
                terms.entropy,
                -1.0 if terms.value is None else terms.value,
                terms.value_clip,
                -1.0 if terms.divergence is None else terms.divergence,
            ],
            np.float32,
        )
        loss = kernel(table, weights, *inputs.shape, means)
        ctx.save_for_backward(slopes, value_slopes)
        return inputs.new_tensor(loss)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        slopes, value_slopes = ctx.saved_tensors
        if gradient.item() != 1.0:
            slopes, value_slopes = slopes * gradient, value_slopes * gradient
        return slopes, value_slopes, None, None, None, None

"""What all Learners share: threads, tensors, gradient clipping, sums over Learners."""

from __future__ import annotations

import collections
import contextlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.evaluation.postprocessing import Postprocessing

from qio_rllib.acting.distributions import Distributions
from qio_rllib.fused.adam import Adam, approach, clip
from qio_rllib.fused.losses import Losses, Terms, actor_critic_loss
from qio_rllib.fused.stack import unknown_stacks
from qio_rllib.fused.use import fused_kernels, in_use

logger = logging.getLogger(__name__)
Stats = dict[str, torch.Tensor | float]
"""What is reported of a gradient step, by name."""
Correct = Callable[[Mapping[torch.nn.Parameter, torch.Tensor]], None]
"""What changes the gradients of parameters in place."""


@contextlib.contextmanager
def learner_threads(threads: int) -> Iterator[None]:
    """Let torch compute on so many threads; on one, kernels compute what they know.

    More threads gain little on networks of this size, wait for each other ten times as long as they work when
    something else uses the CPUs, and add in another order, so that a seed would repeat on equal machines only.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with fused_kernels():
            yield
    finally:
        torch.set_num_threads(before)


def as_tensor(array: np.ndarray) -> torch.Tensor:
    """Return an array as a tensor that shares its memory, or a copy of one that cannot be written to."""
    # What comes from another process lies in Ray's read-only memory, for which torch warns.
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def clip_gradients(gradients: list[torch.Tensor], limit: float, by: str) -> torch.Tensor:
    """Clip gradients in place as RLlib's ``grad_clip_by`` says; return their global norm before."""
    found = clip(gradients, limit, by)
    if found is not None:
        return found
    norms = torch._foreach_norm(gradients)
    total = torch.linalg.vector_norm(torch.stack(norms))
    if by == "value":
        for gradient in gradients:
            gradient.clamp_(-limit, limit)
    elif by == "norm":
        for gradient, norm in zip(gradients, norms, strict=True):
            gradient.mul_((limit / (norm + 1e-6)).clamp(max=1.0))
    else:
        torch._foreach_mul_(gradients, (limit / (total + 1e-6)).clamp(max=1.0))
    return total


def log_what_torch_computes(modules: MultiRLModule) -> None:
    """Say in one line of the log which networks no kernel computes, if there are any."""
    found = [
        f"{module_id}: {name}"
        for module_id, module in modules.items()
        for name in unknown_stacks(module.unwrapped())
    ]
    if found:
        logger.info("updates of these networks are computed by torch alone: %s", ", ".join(found))


def loss_by_kernel(
    terms: Terms, batch: Mapping[str, torch.Tensor], policy: Distributions, values: torch.Tensor
) -> Losses | None:
    """Return the loss of an actor-critic's rows, see `actor_critic_loss`; None where torch has to compute it.

    The policy then knows its entropies.
    """
    if not in_use():
        return None
    found = actor_critic_loss(
        terms,
        policy.discrete,
        policy.factors,
        policy.inputs,
        None if terms.divergence is None else batch[Columns.ACTION_DIST_INPUTS],
        values,
        batch[Columns.ACTIONS],
        batch[Columns.ACTION_LOGP],
        batch[Postprocessing.ADVANTAGES],
        batch[Postprocessing.VALUE_TARGETS],
    )
    if found is not None:
        policy.entropies = found.entropies, found.entropy
    return found


def as_module(modules: MultiRLModule) -> torch.nn.ModuleDict:
    """Return a Learner's modules as one, whose parameters have the names ``module_id.name``; they share memory."""
    return torch.nn.ModuleDict({module_id: module.unwrapped() for module_id, module in modules.items()})


def descend(
    optimizers: Sequence[torch.optim.Optimizer],
    loss: torch.Tensor,
    limit: float | None,
    by: str,
    correct: Correct | None = None,
) -> list[torch.Tensor]:
    """Take one step of each optimizer down a loss; the gradients of each are clipped by themselves.

    Args:
        optimizers: Of the parameters that the loss is to change; gradients of others are left alone.
        loss: Scalar.
        limit: ``grad_clip``; None for no clipping.
        by: ``grad_clip_by``.
        correct: What changes the gradients in place before they are clipped; None for nothing.

    Returns:
        The norm of each optimizer's gradients before they were clipped; nothing without clipping.
    """
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    gradients = [_gradients(optimizer) for optimizer in optimizers]
    if correct is not None:
        correct(dict(collections.ChainMap(*gradients)))
    norms = []
    for optimizer, changed in zip(optimizers, gradients, strict=True):
        if limit is not None:
            norms.append(clip_gradients([*changed.values()], limit, by))
        if not isinstance(optimizer, Adam) or not optimizer.fused_step():
            optimizer.step()
    return norms


def _gradients(optimizer: torch.optim.Optimizer) -> dict[torch.nn.Parameter, torch.Tensor]:
    """Return the gradients of an optimizer's parameters; a parameter on which the loss does not depend has none."""
    parameters = (parameter for group in optimizer.param_groups for parameter in group["params"])
    return {parameter: parameter.grad for parameter in parameters if parameter.grad is not None}


def polyak_update(
    targets: Sequence[torch.nn.Parameter], presents: Sequence[torch.nn.Parameter], tau: float
) -> None:
    """Move the parameters of target networks, if any, by the share ``tau`` towards the present ones, in place."""
    with torch.no_grad():
        if targets and not approach(targets, presents, tau):
            torch._foreach_lerp_([*targets], [*presents], tau)


def refuse_non_finite(means: Mapping[Any, float]) -> None:
    """Raise FloatingPointError that names what of an update's means is not finite."""
    broken = [
        f"{'/'.join(key) if isinstance(key, tuple) else key} is {mean}"
        for key, mean in means.items()
        if not math.isfinite(mean)
    ]
    if broken:
        raise FloatingPointError(f"{', '.join(broken)} in this update")


def reduce_over_learners(values: torch.Tensor, operation: str = "sum") -> torch.Tensor:
    """Return a tensor's sum (or "min", "max") over all Learners; in place."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        operations = {
            "sum": torch.distributed.ReduceOp.SUM,
            "min": torch.distributed.ReduceOp.MIN,
            "max": torch.distributed.ReduceOp.MAX,
        }
        torch.distributed.all_reduce(values, operations[operation])
    return values

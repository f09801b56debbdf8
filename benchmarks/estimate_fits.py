"""Reward heads and dynamics that are fitted to a filter's estimates, for `planning_parts.py`."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from qio_rllib.layers import mlp
from qio_rllib.world_models.heads import TwoHotHead
from qio_rllib.world_models.model import Sequences

BATCH, RATE = 512, 2e-3  # the rate falls to 0 as a half cosine


class RewardHead(nn.Module, abc.ABC):
    """Predicts rewards ``[...]`` from states and actions ``[..., 6]``."""

    @abc.abstractmethod
    def mean(self, inputs: torch.Tensor) -> torch.Tensor:
        """Return the predicted rewards."""

    @abc.abstractmethod
    def loss(self, inputs: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
        """Return the loss of each reward."""


class _TwoHot(RewardHead):
    """The recurrent model's own kind of head, with the classes and sizes of `drift_control_planet.yaml`."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.head = TwoHotHead(inputs, (64,), "silu", num_bins=255)

    def mean(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.head.mean(inputs)

    def loss(self, inputs: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
        return self.head.loss(inputs, rewards)


class _Gaussian(RewardHead):
    """A normal distribution, whose deviation is predicted too (D. A. Nix and A. S. Weigend, 1994)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.mean_layers = mlp((inputs, 64, 1), "silu")
        self.deviation = mlp((inputs, 64, 1), "silu")  # its logarithm

    def mean(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.mean_layers(inputs).squeeze(-1)

    def loss(self, inputs: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
        deviation = self.deviation(inputs).squeeze(-1).clamp(-6.0, 2.0)
        return 0.5 * ((rewards - self.mean(inputs)) * (-deviation).exp()) ** 2 + deviation


class _Squared(_Gaussian):
    """The same mean, learned by its squared error."""

    def loss(self, inputs: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
        return (rewards - self.mean(inputs)) ** 2


class _Quadratic(_Gaussian):
    """A normal distribution whose mean is minus the sum of the squares of eight linear functions."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs)
        self.mean_layers = nn.Linear(inputs, 8)

    def mean(self, inputs: torch.Tensor) -> torch.Tensor:
        return -(self.mean_layers(inputs) ** 2).sum(-1)


HEADS: dict[str, type[RewardHead]] = {
    "two-hot": _TwoHot,
    "squared": _Squared,
    "gaussian": _Gaussian,
    "quadratic": _Quadratic,
}


class Dynamics(nn.Module):
    """Predicts the filter's estimate after a step from the one before and the action, by their difference.

    Args:
        before: Estimates that it will learn from, ``[R, 4]``.
        after: Those after a step; differences are scaled by their deviations.
    """

    scale: torch.Tensor

    def __init__(self, before: torch.Tensor, after: torch.Tensor) -> None:
        super().__init__()
        self.layers = mlp((before.shape[-1] + 2, 64, before.shape[-1]), "silu")
        self.register_buffer("scale", (after - before).std(0))

    def forward(self, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return estimates ``[..., 4]`` after actions ``[..., 2]``."""
        return states + self.scale * self.layers(torch.cat([states, actions], dim=-1))


class Estimates(NamedTuple):
    """Steps by the filter's estimates."""

    before: torch.Tensor  # [R, 4]
    actions: torch.Tensor  # [R, 2]
    after: torch.Tensor  # [R, 4]
    rewards: torch.Tensor  # [R]


def estimated(data: Sequences, estimates: torch.Tensor) -> Estimates:
    """Return the steps of data by estimates ``[T, E, 4]`` before each of them.

    A step after which an episode ended, or the data, has no estimate after it, and is left out.
    """
    goes_on = ~data.fresh[1:]
    rows = estimates[:-1], data.actions[:-1], estimates[1:], data.rewards[:-1]
    return Estimates(*(part[goes_on] for part in rows))


def fitted_head(kind: str, data: Estimates, updates: int, seed: int) -> RewardHead:
    """Return a reward head that has learned from estimates.

    Args:
        kind: A key of `HEADS`.
        data: The steps.
        updates: Gradient steps, at least 1.
        seed: Of weights and draws.
    """
    torch.manual_seed(seed)
    inputs = torch.cat([data.after, data.actions], dim=-1)
    head = HEADS[kind](inputs.shape[-1])
    _fit(head, lambda rows: head.loss(inputs[rows], data.rewards[rows]), len(inputs), updates, seed)
    return head


def fitted_dynamics(data: Estimates, updates: int, seed: int) -> Dynamics:
    """Return dynamics that have learned from estimates; arguments as in `fitted_head`."""
    torch.manual_seed(seed)
    dynamics = Dynamics(data.before, data.after)

    def loss(rows: torch.Tensor) -> torch.Tensor:
        errors = dynamics(data.before[rows], data.actions[rows]) - data.after[rows]
        return (errors / dynamics.scale) ** 2

    _fit(dynamics, loss, len(data.before), updates, seed)
    return dynamics


def _fit(
    network: nn.Module, loss: Callable[[torch.Tensor], torch.Tensor], count: int, updates: int, seed: int
) -> None:
    """Take gradient steps down the mean of a loss of row indices below ``count``, and set the gradients off."""
    draws = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(network.parameters(), RATE, fused=True)
    falling = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, updates)
    for _ in range(updates):
        rows = torch.randint(count, (BATCH,), generator=draws)
        optimizer.zero_grad()
        loss(rows).mean().backward()
        optimizer.step()
        falling.step()
    network.requires_grad_(False)

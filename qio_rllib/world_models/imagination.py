"""Learning in imagination: returns along predicted steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from qio_rllib.world_models.model import WorldModel

Behaviour = Callable[[torch.Tensor], torch.Tensor]
"""From features ``[B, F]`` to actions in [-1, 1] or one-hot, ``[B, A]``, drawn."""


class Imagined(NamedTuple):
    """``H`` imagined steps of ``B`` rows.

    Attributes:
        states: ``[H + 1, B, S]``, from the start on.
        actions: ``[H, B, A]``.
        rewards: ``[H, B]``.
        continuation: Probability that the episode goes on after each step, ``[H, B]``.
    """

    states: torch.Tensor
    actions: torch.Tensor
    rewards: torch.Tensor
    continuation: torch.Tensor


def imagine(
    model: WorldModel,
    start: torch.Tensor,
    behaviour: Behaviour,
    horizon: int,
    generator: torch.Generator | None = None,
    present: torch.Tensor | None = None,
) -> Imagined:
    """Let a behaviour act in a model.

    In a model that sees others all agents of an environment act by it together. No gradient passes from an agent to the
    others: to each they are a part of its environment, and so it learns for its own rewards alone.

    Args:
        model: Predicts what follows.
        start: States, ``[B, S]``.
        behaviour: Chooses the actions.
        horizon: Steps ``H``, at least 1.
        generator: Source of the model's draws; None predicts means.
        present: Agents that are there, ``[E, M]`` with ``B = E M``; None where every row stands alone.
    """
    states, actions, rewards, continuation = [start], [], [], []
    for _ in range(horizon):
        action = behaviour(model.features(states[-1]))
        if present is None:
            found = model.step(states[-1], action, generator)
        else:
            others = model.attend(states[-1].detach(), action.detach(), present)
            found = model.step(states[-1], action, generator, others)
        actions.append(action)
        states.append(found.state)
        rewards.append(found.rewards)
        continuation.append(found.continuation)
    return Imagined(
        torch.stack(states), torch.stack(actions), torch.stack(rewards), torch.stack(continuation)
    )


def lambda_returns(
    rewards: torch.Tensor, continuation: torch.Tensor, values: torch.Tensor, gamma: float, lambda_: float
) -> torch.Tensor:
    """Return ``R_t = r_t + gamma c_t ((1 - lambda) V_{t+1} + lambda R_{t+1})``, with ``R_H = V_H`` (DreamerV3, eq. 7).

    Args:
        rewards: ``[H, ...]``.
        continuation: Probability that the episode goes on after each step, ``[H, ...]``.
        values: Of each state, ``[H + 1, ...]``.
        gamma: Discount in [0, 1].
        lambda_: Weight of what lies further ahead, in [0, 1].

    Returns:
        ``[H, ...]``.
    """
    following = values[-1]
    found = []
    for step in range(len(rewards) - 1, -1, -1):
        ahead = (1.0 - lambda_) * values[step + 1] + lambda_ * following
        following = rewards[step] + gamma * continuation[step] * ahead
        found.append(following)
    return torch.stack(found[::-1])


def reach_weights(continuation: torch.Tensor, gamma: float) -> torch.Tensor:
    """Return how much each imagined step counts, ``prod_{j<t} gamma c_j``, ``[H, ...]``, without gradients."""
    ahead = torch.cat([torch.ones_like(continuation[:1]), gamma * continuation[:-1]])
    return ahead.detach().cumprod(dim=0)

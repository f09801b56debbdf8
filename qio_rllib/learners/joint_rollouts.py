"""`JointRollout`: what all agents did in the rollouts of an on-policy update, as tensors."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from qio_rllib.learners.transitions import Transitions, transitions_of
from qio_rllib.sampling.replay import JointTransitions, joint_transitions
from qio_rllib.sampling.rollout import Array, Rollout

_MEMORY = "memory/"


@dataclasses.dataclass(frozen=True)
class JointRollout:
    """``T`` successive steps of ``E`` environments.

    Attributes:
        whole: All steps, ``R = T x E`` rows, steps first; policies' memory is that before the first step.
        windows: The same steps, cut where the memory of agents was recorded: ``memory_interval`` steps each, the last
            one perhaps fewer. One window without memory.
    """

    whole: Transitions
    windows: Sequence[Transitions]

    @property
    def num_steps(self) -> int:
        """Steps ``T``."""
        return self.whole.length

    def rows(self, chosen: slice | torch.Tensor) -> Transitions:
        """Return some of the ``R`` rows, each by itself, without memory."""
        return dataclasses.replace(self.whole, length=1, memory=[None] * len(self.whole.memory)).rows(chosen)

    def continuing(self, g: int) -> torch.Tensor:
        """Return 1 where an agent of a group acts in the next row of the same episode, else 0, ``[T, E, M]``."""
        fresh = self.whole.fresh[g].unflatten(0, (self.num_steps, -1))
        goes_on = torch.zeros_like(fresh, dtype=torch.float32)
        goes_on[:-1] = (~fresh[1:]).float()
        return goes_on


def joint_rollout_of(
    rollouts: Sequence[Rollout], joint: Mapping[str, Any], gamma: float, device: Any
) -> JointRollout:
    """Return rollouts of equally many steps, side by side.

    Args:
        rollouts: Of the same agents.
        joint: All agents, as `describe_agents` gives them.
        gamma: Discount.
        device: Where tensors go.

    Raises:
        ValueError: The numbers of steps differ.
    """
    lengths = {part.num_steps for rollout in rollouts for part in rollout.modules.values()}
    if len(lengths) != 1:
        raise ValueError(f"rollouts: expected one number of steps, got {sorted(lengths)}")
    (steps,) = lengths
    flat = [joint_transitions(rollout, gamma).flat() for rollout in rollouts]
    # Steps come second in sequences.
    arrays = {name: np.concatenate([part[name] for part in flat], axis=1).swapaxes(0, 1) for name in flat[0]}
    interval = next(iter(rollouts[0].modules.values())).memory_interval
    recorded = any(_MEMORY in name for name in arrays)
    starts = range(0, steps, interval) if recorded else range(1)
    length = interval if recorded else steps

    def part(start: int, stop: int) -> Transitions:
        cut = {name: _cut(name, array, start, stop, interval) for name, array in arrays.items()}
        return transitions_of(JointTransitions.from_flat(cut), joint, 0, device)

    windows = [part(start, min(start + length, steps)) for start in starts]
    return JointRollout(windows[0] if len(windows) == 1 else part(0, steps), windows)


def lambda_returns(
    rewards: torch.Tensor,
    discounts: torch.Tensor,
    ahead: torch.Tensor,
    continuing: torch.Tensor,
    lambda_: float,
) -> torch.Tensor:
    """Return ``y_t = r_t + d_t ((1 - lambda c_t) a_t + lambda c_t y_{t+1})``, ``[T, ...]``.

    The recursion of TD(lambda) (Sutton and Barto, 2018, equation 12.20): a return ends in the estimate where the
    next step is not among the ``T`` or is of another episode.

    Args:
        rewards: ``r``, ``[T, ...]``.
        discounts: ``d`` of what follows, 0 where nothing does, ``[T, ...]``.
        ahead: ``a``, estimates of what follows a step, ``[T, ...]``.
        continuing: ``c``, 1 where the next step goes on from this one, else 0; 0 in the last step.
        lambda_: Weight of longer returns, in [0, 1].
    """
    found = torch.empty_like(rewards)
    following = torch.zeros_like(rewards[0])
    for step in reversed(range(len(rewards))):
        weight = lambda_ * continuing[step]
        following = rewards[step] + discounts[step] * ((1.0 - weight) * ahead[step] + weight * following)
        found[step] = following
    return found


def _cut(name: str, array: Array, start: int, stop: int, interval: int) -> Array:
    """Return the steps of sequences ``[E, T, ...]``, or the memory before the first of them."""
    return array[:, start // interval] if _MEMORY in name else array[:, start:stop]

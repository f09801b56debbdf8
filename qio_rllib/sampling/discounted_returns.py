"""Discounted returns as they build up over an episode, by which rewards can be normalised."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_rllib.sampling.rollout import Array, ModuleRollout

NORMALIZE_REWARDS = "normalize_rewards"
"""Key of ``learner_config_dict``: whether the Learner divides rewards by the deviation of discounted returns."""
DISCOUNTED_RETURNS = "discounted_returns"
"""Column of a `ModuleRollout`, float32 ``[T, E, M]``."""


class DiscountedReturns:
    """Follows ``G_t = r_t + gamma G_{t-1}`` of each agent, from an episode's start and over rollouts.

    Args:
        gamma: Discount.

    Attributes:
        present: By module, float64 ``[E, M]``, after the last step.
    """

    def __init__(self, gamma: float) -> None:
        self.gamma = gamma
        self.present: dict[str, Array] = {}

    def add(self, module_id: str, part: ModuleRollout) -> None:
        """Put the column `DISCOUNTED_RETURNS` to the next rollout of a module."""
        shape = part.rewards.shape[1:]
        if module_id not in self.present or self.present[module_id].shape != shape:
            self.present[module_id] = np.zeros(shape)
        column = np.empty_like(part.rewards)
        _follow(part.rewards, part.fresh_steps(), self.present[module_id], self.gamma, column)
        part.columns[DISCOUNTED_RETURNS] = column


@njit(cache=True)
def _follow(rewards: Array, fresh: Array, present: Array, gamma: float, out: Array) -> None:
    steps, envs, agents = rewards.shape
    for t in range(steps):
        for e in range(envs):
            for m in range(agents):
                if fresh[t, e, m]:
                    present[e, m] = 0.0
                present[e, m] = rewards[t, e, m] + gamma * present[e, m]
                out[t, e, m] = present[e, m]

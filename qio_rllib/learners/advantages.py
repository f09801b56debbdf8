"""Credit for actions: generalised advantage estimation over whole rollouts."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_rllib.sampling.rollout import Array, ModuleRollout


def compute_advantages(
    rollout: ModuleRollout, values: Array, final_values: Array, gamma: float, lambda_: float
) -> Array:
    """Return the advantages of a rollout's actions (Schulman et al., 2016, equation 16).

    The step after a termination is worth nothing; a truncated episode and the end of the rollout are continued by
    the value of what was seen last. No credit passes from one episode to another.

    Args:
        rollout: ``T`` steps of ``E`` environments and ``M`` agents.
        values: Value of each observation, float32 ``[T + 1, E, M]``.
        final_values: Value of each final observation, float32 ``[K]``.
        gamma: Discount, in [0, 1].
        lambda_: Weight of longer returns, in [0, 1].

    Returns:
        float32 ``[T, E, M]``; 0 where an agent did not act.

    Raises:
        ValueError: Values of another shape.
    """
    steps, *rows = rollout.rewards.shape
    if values.shape != (steps + 1, *rows) or final_values.shape != (len(rollout.final_index),):
        raise ValueError(
            f"values: expected shapes {(steps + 1, *rows)} and {(len(rollout.final_index),)}, "
            f"got {values.shape} and {final_values.shape}"
        )
    following = values[1:].copy()
    following[tuple(rollout.final_index.T)] = final_values
    advantages = np.empty_like(rollout.rewards)
    _sweep(
        rollout.rewards, values, following, rollout.terminated, rollout.truncated, rollout.acted,
        gamma, lambda_, advantages,
    )  # fmt: skip
    return advantages


@njit(cache=True)
def _sweep(
    rewards: Array,
    values: Array,
    following: Array,
    terminated: Array,
    truncated: Array,
    acted: Array,
    gamma: float,
    lambda_: float,
    out: Array,
) -> None:
    steps, envs, agents = rewards.shape
    carried = np.zeros((envs, agents))
    for t in range(steps - 1, -1, -1):
        for e in range(envs):
            for m in range(agents):
                if not acted[t, e, m]:
                    carried[e, m] = 0.0
                    out[t, e, m] = 0.0
                    continue
                ahead = 0.0 if terminated[t, e, m] else gamma * following[t, e, m]
                if terminated[t, e, m] or truncated[t, e, m]:
                    carried[e, m] = 0.0
                carried[e, m] = rewards[t, e, m] + ahead - values[t, e, m] + gamma * lambda_ * carried[e, m]
                out[t, e, m] = carried[e, m]

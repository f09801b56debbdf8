"""Credit for actions: generalised advantage estimation over whole rollouts."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_rllib.sampling.rollout import Array, ModuleRollout


def compute_advantages(
    rollout: ModuleRollout,
    values: Array,
    final_values: Array,
    gamma: float,
    lambda_: float,
    baseline: Array | None = None,
    average_later: bool = False,
) -> Array:
    """Return the advantages of a rollout's actions (Schulman et al., 2016, equation 16).

    The step after a termination is worth nothing; a truncated episode and the end of the rollout are continued by
    the value of what was seen last. No credit passes from one episode to another.

    With a baseline b_t in the place of V(s_t), the mean over the agent's actions a' of r(a') + gamma V(s'(a')) under
    the noise of step t, the first temporal difference is r_t + gamma V(s_{t+1}) - b_t. b_t depends on the noise but not
    on a_t, so that the expectation of the policy gradient is what it was. The temporal differences of later steps stay
    r + gamma V(s') - V(s). Were V(s_{t+l}) replaced there too, they would have mean 0 given s_{t+l}, whatever V: then
    nothing would correct V's errors, as if ``lambda_`` were 0.

    ``average_later`` takes b_{t+l} - V(s_{t+l}) for them instead: their means over the agent's action in their own
    step. Their expectation given s_{t+l} is the same, V's errors are still corrected, and the action's own share of
    their variance is gone.

    Args:
        rollout: ``T`` steps of ``E`` environments and ``M`` agents.
        values: Value of each observation, float32 ``[T + 1, E, M]``.
        final_values: Value of each final observation, float32 ``[K]``.
        gamma: Discount, in [0, 1].
        lambda_: Weight of longer returns, in [0, 1].
        baseline: float32 ``[T, E, M]``; the values when absent.
        average_later: Whether later temporal differences are averaged over actions; needs ``baseline``.

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
        values[:-1] if baseline is None else baseline, average_later, gamma, lambda_, advantages,
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
    baseline: Array,
    average_later: bool,
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
                target = rewards[t, e, m] + ahead
                later = gamma * lambda_ * carried[e, m]
                out[t, e, m] = target - baseline[t, e, m] + later
                expected = baseline[t, e, m] if average_later else target
                carried[e, m] = expected - values[t, e, m] + later

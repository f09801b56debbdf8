"""The counterfactual baseline of a rollout: what other actions would have been worth under the same noise."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from qio_envs.api import ConfigError
from qio_rllib.acting.actor import DIST_INPUTS
from qio_rllib.causal.baseline import COUNTERFACTUAL_BASELINE
from qio_rllib.learners.common import as_tensor
from qio_rllib.models.values import CentralInputs
from qio_rllib.sampling.counterfactuals import OBSERVATIONS, REWARDS, STATES, TERMINATED
from qio_rllib.sampling.rollout import Array, ModuleRollout

ValueOf = Callable[[Array, CentralInputs | None], Array]
"""From flat observations ``[B, D]`` and what a central critic sees besides to plain values ``[B]``."""

_ROWS_AT_ONCE = 16_384  # activations of so many rows stay in the processor's cache


def baseline_of(
    part: ModuleRollout, value_of: ValueOf, gamma: float, discrete: bool, central: bool, device: torch.device
) -> Array:
    """Return the mean of r(a') + gamma V(s'(a')) over an agent's other actions a', float32 ``[T, E, M]``.

    The next observation of a terminated branch is worth nothing; that of a truncated one is worth its value. Discrete
    actions weigh what the policy that acted gave them, which is nothing for illegal ones.

    Args:
        part: With the columns of `Counterfactuals`.
        value_of: Values in the units of rewards.
        gamma: Discount.
        discrete: Whether actions are discrete.
        central: Whether values are central.
        device: Of the tensors that ``value_of`` takes.

    Raises:
        ConfigError: The rollout has no such columns.
    """
    columns = part.columns
    if REWARDS not in columns:
        raise ConfigError(
            f"{COUNTERFACTUAL_BASELINE}: the rollouts hold no counterfactuals; set training({COUNTERFACTUAL_BASELINE}="
            "...), which tells the runner to record them"
        )
    rewards, terminated = columns[REWARDS], columns[TERMINATED]
    places = np.flatnonzero((part.acted[..., None] & ~terminated).reshape(-1))
    observations = columns[OBSERVATIONS].reshape(rewards.size, -1)
    values = np.zeros(rewards.size, np.float32)
    for start in range(0, len(places), _ROWS_AT_ONCE):
        chosen = places[start : start + _ROWS_AT_ONCE]
        inputs = _central(part, chosen, device) if central else None
        values[chosen] = value_of(observations[chosen], inputs)
    outcomes = rewards + np.float32(gamma) * values.reshape(rewards.shape)
    if not discrete:
        return outcomes.mean(axis=-1)
    logits = columns[DIST_INPUTS]
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return (weights * outcomes).sum(axis=-1) / weights.sum(axis=-1)


def _central(part: ModuleRollout, chosen: Array, device: torch.device) -> CentralInputs:
    """Return what a central critic sees in some of the ``T E M K`` branches."""
    states = part.columns[STATES]
    table = states.reshape(-1, states.shape[-1])[chosen]
    agents = np.broadcast_to(part.agent_index[:, None], states.shape[:-1]).reshape(-1)[chosen]
    return CentralInputs(
        as_tensor(table).to(device),
        torch.arange(len(chosen), device=device),
        torch.from_numpy(agents).to(device),
    )

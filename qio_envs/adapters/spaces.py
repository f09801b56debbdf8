"""Spaces and observations of single agents, which the PettingZoo and Gymnasium adapters have in common."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from qio_envs.api.batched import BatchedEnv


def agent_observation_space(batch: BatchedEnv) -> gymnasium.Space:
    """Return one agent's space: the Box, or with masks a Dict of ``observation`` and ``action_mask``."""
    if not batch.has_action_mask:
        return batch.observation_space
    count = int(batch.action_space.n)  # type: ignore[union-attr]  # masks exist for discrete actions only
    return gymnasium.spaces.Dict(
        {
            "observation": batch.observation_space,
            "action_mask": gymnasium.spaces.Box(0, 1, (count,), np.int8),
        }
    )


def observations(batch: BatchedEnv, index: int = 0) -> list[Any]:
    """Return every agent's observation in environment ``index``, in the order of ``batch.possible_agents``."""
    values = batch.observe()[index]
    if not batch.has_action_mask:
        return list(values)
    masks = batch.action_mask()[index]
    return [{"observation": value, "action_mask": mask} for value, mask in zip(values, masks, strict=True)]


def check_single_agent(batch: BatchedEnv) -> None:
    """Refuse several agents.

    Raises:
        ValueError: The environment has more than one agent.
    """
    if batch.num_agents != 1:
        raise ValueError(
            f"{batch.id} has {batch.num_agents} agents here and Gymnasium environments have one: "
            "use parallel_env(), or settings that leave one agent"
        )

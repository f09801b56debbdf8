"""One reward for a whole team, for algorithms that learn one value."""

from __future__ import annotations

import dataclasses

import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.sampling.rollout import Array, Rollout

SUM, MEAN = "sum", "mean"


def with_team_reward(rollout: Rollout, combined: str | None) -> Rollout:
    """Return a rollout in which every agent's reward is what its team earned in the step.

    Args:
        rollout: As a runner gives it; its arrays stay as they are.
        combined: "sum" or "mean" of what all agents earned, of which those that do not act earn nothing. None: those
            that act earn the same, which is the team's reward.

    Raises:
        ConfigError: They do not, and nothing says how to combine it.
    """
    parts = rollout.modules.values()
    rewards = np.concatenate([part.rewards for part in parts], axis=2)  # [T, E, N]
    acted = np.concatenate([part.acted for part in parts], axis=2)
    earned = np.where(acted, rewards, 0)
    if combined is None:
        team = _common(rewards, acted)
    else:
        team = earned.sum(axis=2) if combined == SUM else earned.mean(axis=2)
    team = team.astype(np.float32)
    return Rollout(
        {
            module_id: dataclasses.replace(
                part, rewards=np.repeat(team[..., None], part.rewards.shape[2], axis=2)
            )
            for module_id, part in rollout.modules.items()
        },
        rollout.runner,
    )


def _common(rewards: Array, acted: Array) -> Array:
    """Return the reward ``[T, E]`` that all acting agents earn; 0 where none acts."""
    most = np.where(acted, rewards, -np.inf).max(axis=2)
    least = np.where(acted, rewards, np.inf).min(axis=2)
    somebody = acted.any(axis=2)
    different = somebody & (most - least > 1e-5 * np.maximum(1.0, np.abs(most)))
    if different.any():
        step = tuple(np.argwhere(different)[0])
        raise ConfigError(
            "team_reward: a team learns from one reward, and here its agents earn different ones "
            f"({least[step]:g} and {most[step]:g} in one step); set it to sum or mean"
        )
    return np.where(somebody, most, 0.0)

"""One reward for a whole team, for algorithms that learn one value, and the team as one agent."""

from __future__ import annotations

import dataclasses

import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.sampling.rollout import Array, ModuleRollout, Rollout

TEAM_REWARD = "team_reward"
COMMON, SUM, MEAN = "common", "sum", "mean"


def with_team_reward(rollout: Rollout, combined: str) -> Rollout:
    """Return a rollout in which every agent's reward is what its team earned in the step.

    Args:
        rollout: As a runner gives it; its arrays stay as they are.
        combined: `COMMON`: those that act earn the same, which is the team's reward. `SUM` or `MEAN` of what all agents
            earned, of which those that do not act earn nothing.

    Raises:
        ConfigError: They earn different rewards where one in common was expected.
    """
    parts = rollout.modules.values()
    rewards = np.concatenate([part.rewards for part in parts], axis=2)  # [T, E, N]
    acted = np.concatenate([part.acted for part in parts], axis=2)
    earned = np.where(acted, rewards, 0)
    if combined == COMMON:
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


def as_one_agent(rollout: Rollout) -> ModuleRollout:
    """Return what a team did as the rollout of one agent that sees the global state.

    The team acts while one of its agents does; its episode ends with the last of them: truncated if one was in that
    step, terminated otherwise.

    Args:
        rollout: Of `with_team_reward`, with global states.
    """
    parts = [*rollout.modules.values()]
    first = parts[0]
    acted = _anybody([part.acted for part in parts])
    continues = _anybody([part.continues for part in parts])
    cut = _anybody([part.truncated & part.acted for part in parts])
    ended = acted & ~continues
    steps, envs = np.nonzero(ended)
    place = np.full(ended.shape, -1)
    place[steps, envs] = np.arange(len(steps))
    assert first.global_states is not None
    final_states = np.zeros((len(steps), first.global_states.shape[-1]), np.float32)
    for part in parts:
        at = place[part.final_index[:, 0], part.final_index[:, 1]]
        assert part.final_global_states is not None
        final_states[at[at >= 0]] = part.final_global_states[at >= 0]
    return ModuleRollout(
        agents=("team",),
        agent_index=np.zeros(1, np.int64),
        observations=first.global_states[:, :, None],
        action_mask=None,
        actions=np.zeros((*acted.shape, 1), np.int64),
        rewards=np.where(acted, first.rewards[..., 0], 0)[..., None].astype(np.float32),
        terminated=(ended & ~cut)[..., None],
        truncated=(ended & cut)[..., None],
        acted=acted[..., None],
        continues=continues[..., None],
        fresh=np.all(np.concatenate([part.fresh for part in parts], axis=1), axis=1, keepdims=True),
        final_index=np.stack([steps, envs, np.zeros_like(steps)], axis=1),
        final_observations=final_states,
    )


def _anybody(flags: list[Array]) -> Array:
    """Return where one of the agents has a flag, bool ``[T, E]``, from ``[T, E, M]`` of each module."""
    return np.any(np.concatenate(flags, axis=2), axis=2)


def _common(rewards: Array, acted: Array) -> Array:
    """Return the reward ``[T, E]`` that all acting agents earn; 0 where none acts."""
    most = np.where(acted, rewards, -np.inf).max(axis=2)
    least = np.where(acted, rewards, np.inf).min(axis=2)
    somebody = acted.any(axis=2)
    different = somebody & (most - least > 1e-5 * np.maximum(1.0, np.abs(most)))
    if different.any():
        step = tuple(np.argwhere(different)[0])
        raise ConfigError(
            f"{TEAM_REWARD}: a team learns from one reward, and here its agents earn different ones "
            f"({least[step]:g} and {most[step]:g} in one step); set it to sum or mean"
        )
    return np.where(somebody, most, 0.0)

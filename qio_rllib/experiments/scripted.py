"""Scores of the scripted policies of ``qio_envs``, by the same function that scores trained ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import qio_envs
from qio_envs.api import ConfigError
from qio_rllib.acting.scripted import scripted_team
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.evaluation import play_episodes


def evaluate_scripted(
    name: str, env_id: str, env_config: Mapping[str, Any], seeds: Sequence[int], max_steps: int | None = None
) -> list[dict[str, Any]]:
    """Play one episode per seed with a scripted policy.

    Args:
        name: Of the policy, one of the environment's ``scripted_policies``.
        env_id: An id of ``qio_envs``, such as ``forest_uav_v0``.
        env_config: ``scenario`` and settings of the environment.
        seeds: One per episode.
        max_steps: As for `play_episodes`.

    Returns:
        One row per episode, as of `play_episodes`.

    Raises:
        ConfigError: No environment or no policy of that name, or settings that the environment refuses.
    """
    try:
        batch = qio_envs.environment(env_id).batched_env(len(seeds), **env_config)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"env_config of {env_id}: {error}") from error
    env = BatchedVectorEnv(batch)
    return play_episodes(scripted_team(batch, name), env, seeds, explore=False, max_steps=max_steps)

"""Controllers from logs, scored in an environment: what ``rllib causal control`` does, without the command line."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import qio_envs
from qio_envs.api import BatchedEnv, ConfigError, did_you_mean
from qio_envs.api.scores import episode_scores, reference_scores
from qio_rllib.acting.linear import linear_policy
from qio_rllib.artifacts.policy_file import save_policy
from qio_rllib.causal.control import Controller, ControllerPolicy, observation_gain
from qio_rllib.sampling.evaluation import FIRST_EVALUATION_SEED


@dataclasses.dataclass(frozen=True, eq=False)
class ControlScores:
    """What a controller scores.

    Attributes:
        scores: ``team_return`` of each episode, float64 ``[E]``.
        references: Means of the environment's scripted policies over the same episodes, by name.
    """

    scores: np.ndarray
    references: Mapping[str, float]

    @property
    def mean(self) -> float:
        """Mean over the episodes."""
        return float(self.scores.mean())

    @property
    def standard_error(self) -> float:
        """Of the mean; 0 for one episode."""
        return float(self.scores.std(ddof=1) / np.sqrt(len(self.scores))) if len(self.scores) > 1 else 0.0


def evaluate_controller(
    controller: Controller, env_id: str, env_config: Mapping[str, Any], episodes: int
) -> ControlScores:
    """Play episodes with a controller, and the same ones with the environment's scripted policies.

    Args:
        controller: What acts.
        env_id: An id of ``qio_envs``.
        env_config: ``scenario`` and settings of the environment.
        episodes: How many, on the fixed evaluation seeds.

    Raises:
        ConfigError: No such environment, settings that it refuses, or states that it does not show.
    """
    env = _made(env_id, env_config, episodes)
    scores = episode_scores(env, lambda env: ControllerPolicy(env, controller), FIRST_EVALUATION_SEED)
    return ControlScores(scores, reference_scores(env, FIRST_EVALUATION_SEED))


def save_controller(controller: Controller, env_id: str, env_config: Mapping[str, Any], path: Path) -> None:
    """Write a controller as a policy file, which ``rllib evaluate`` and ``rllib video`` read.

    Raises:
        ConfigError: As of `evaluate_controller`.
    """
    env = _made(env_id, env_config, 1)
    save_policy(linear_policy(observation_gain(env, controller), env, env_config), path)


def _made(env_id: str, env_config: Mapping[str, Any], count: int) -> BatchedEnv:
    known = qio_envs.environments()
    if env_id not in known:
        raise ConfigError(
            f"--env: expected one of {', '.join(known)}, got '{env_id}'{did_you_mean(env_id, known)}"
        )
    try:
        return qio_envs.environment(env_id).batched_env(count, **env_config)
    except (ConfigError, TypeError) as error:
        raise ConfigError(f"--env-config: {error}") from error

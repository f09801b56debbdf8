"""Stop criteria of an experiment: which metrics there are, and which a run will hold."""

from __future__ import annotations

import math
import sys
from collections.abc import Mapping
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

import qio_envs
from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.algorithms.coma import COMAConfig
from qio_rllib.algorithms.off_policy_config import OffPolicyConfig
from qio_rllib.algorithms.setting_types import shown
from qio_rllib.artifacts.metrics import ITERATION, MODES, STEPS, TIME, flatten
from qio_rllib.sampling.environments import make_env

_STOP_HINTS = {
    "timesteps_total": STEPS,
    "num_env_steps_sampled": STEPS,
    "time_s": TIME,
    "episodes_total": "env_runners/num_episodes_lifetime",
    "episode_reward_mean": "env_runners/episode_return_mean",
    "episode_return_mean": "env_runners/episode_return_mean",
    "env_runners/episode_reward_mean": "env_runners/episode_return_mean",
}


_COUNTERS = (ITERATION, STEPS, TIME)


_RUNNER_METRICS = (
    "episode_return_mean",
    "episode_return_min",
    "episode_return_max",
    "episode_len_mean",
    "episode_len_min",
    "episode_len_max",
    "num_episodes",
    "num_episodes_lifetime",
)


_EVALUATION_METRICS = ("episode_return", "episode_length")


def check_criterion(key: Any, value: Any) -> None:
    """Refuse what can be no stop criterion.

    Raises:
        ConfigError: An old or unknown name, or a value that is no number.
    """
    if key in _STOP_HINTS:
        raise ConfigError(f"stop.{key}: an old name; use '{_STOP_HINTS[key]}'")
    largest = sys.float_info.max
    if isinstance(value, bool) or not isinstance(value, int | float) or not -largest <= value <= largest:
        raise ConfigError(f"stop.{key}: expected a number, got {shown(value)}")
    if key in _COUNTERS:
        if value <= 0:
            raise ConfigError(f"stop.{key}: expected a number above 0, got {value}")
        return
    prefixes = ("env_runners", *(f"evaluation/{mode}" for mode in MODES))
    if not any(str(key).startswith(f"{prefix}/") and len(key) > len(prefix) + 1 for prefix in prefixes):
        known = [
            *_COUNTERS,
            *(f"env_runners/{name}" for name in _RUNNER_METRICS),
            *(f"evaluation/{mode}/{name}" for mode in MODES for name in _EVALUATION_METRICS),
        ]
        raise ConfigError(
            f"stop: unknown metric '{key}'{did_you_mean(str(key), known)}; allowed: {', '.join(_COUNTERS)}, "
            + ", ".join(f"{prefix}/<metric>" for prefix in prefixes)
        )


def check_metrics(stop: Mapping[str, float], config: AlgorithmConfig) -> None:
    """Refuse stop criteria that no result will ever hold.

    Args:
        stop: Values by metric.
        config: The configuration of the algorithm, with its environment.

    Raises:
        ConfigError: Naming the metric.
    """
    own = _info_keys(config)
    for key in stop:
        if key in _COUNTERS:
            continue
        prefix, _, metric = key.rpartition("/")
        evaluation = prefix != "env_runners"
        if evaluation and not config.evaluation_interval:
            raise ConfigError(f"stop.{key}: there is no evaluation; set config.evaluation_interval")
        known = [*(_EVALUATION_METRICS if evaluation else _RUNNER_METRICS), *own]
        hint = did_you_mean(metric, known)
        if metric not in known and (hint or config.env in qio_envs.environments()):
            raise ConfigError(f"stop: unknown metric '{key}'{hint}; allowed: {prefix}/<{' | '.join(known)}>")


def _info_keys(config: AlgorithmConfig) -> list[str]:
    """Return the names of the numbers in the environment's infos."""
    env = make_env(config.env, config.env_config)
    try:
        _, info = env.reset(seed=0)
    finally:
        env.close()
    infos = [value for value in info.values() if isinstance(value, Mapping)] or [info]
    return list(flatten(infos[0]))


def check_exploration(stop: Mapping[str, float], config: AlgorithmConfig) -> None:
    """Refuse runs that end while agents still explore as at a schedule's start or in between.

    Raises:
        ConfigError: ``exploration`` is a schedule that is not over when ``stop`` is reached.
    """
    if not isinstance(config, OffPolicyConfig | COMAConfig):
        return
    schedule = config.exploration
    if not isinstance(schedule, list) or STEPS not in stop:
        return
    last = schedule[-1][0]
    if stop[STEPS] < last:
        raise ConfigError(
            f"config.exploration: its schedule is over after {last:,} environment steps, the run after "
            f"{stop[STEPS]:,.0f} (stop.{STEPS}); shorten the schedule or train longer"
        )


def reaches(row: Mapping[str, float], stop: Mapping[str, float]) -> bool:
    """Whether an iteration's row of ``progress.csv`` reaches a stop criterion."""
    return any(row.get(key, -math.inf) >= value for key, value in stop.items())

"""The contract of an environment, and what is common to all of them.

`qio_envs.adapters` gives an environment its standard interfaces, `qio_envs.registry` its name, and `qio_envs.testing`
checks any PettingZoo environment.
"""

from qio_envs.api.batched import (
    Array,
    BatchedEnv,
    BatchState,
    InvalidActionError,
    ResetNeededError,
    ScriptedPolicy,
    Transition,
)
from qio_envs.api.config import ConfigError, EnvConfig, check_keys, did_you_mean, setting
from qio_envs.api.scores import episode_scores, normalized_score, reference_scores

__all__ = [
    "Array",
    "BatchState",
    "BatchedEnv",
    "ConfigError",
    "EnvConfig",
    "InvalidActionError",
    "ResetNeededError",
    "ScriptedPolicy",
    "Transition",
    "check_keys",
    "did_you_mean",
    "episode_scores",
    "normalized_score",
    "reference_scores",
    "setting",
]

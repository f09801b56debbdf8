"""The contract of an environment, and what is common to all of them.

`qio_envs.adapters` gives an environment its standard interfaces, `qio_envs.registry` its name, and `qio_envs.testing`
checks any PettingZoo environment.
"""

from qio_envs.api.batched import (
    Array,
    BatchedEnv,
    BatchState,
    Counterfactual,
    ScriptedPolicy,
    Transition,
)
from qio_envs.api.causal import AFTER, StepGraph
from qio_envs.api.config import ConfigError, EnvConfig, check_keys, did_you_mean, setting
from qio_envs.api.errors import InterventionError, InvalidActionError, ResetNeededError, UnsupportedError
from qio_envs.api.limits import FINITE, FLAG, Limits, Relations, clock_limits
from qio_envs.api.scores import episode_scores, normalized_score, reference_scores

__all__ = [
    "AFTER",
    "FINITE",
    "FLAG",
    "Array",
    "BatchState",
    "BatchedEnv",
    "ConfigError",
    "Counterfactual",
    "EnvConfig",
    "InterventionError",
    "InvalidActionError",
    "Limits",
    "Relations",
    "ResetNeededError",
    "ScriptedPolicy",
    "StepGraph",
    "Transition",
    "UnsupportedError",
    "check_keys",
    "clock_limits",
    "did_you_mean",
    "episode_scores",
    "normalized_score",
    "reference_scores",
    "setting",
]

"""This package's settings that come as mappings: how each is checked, and what is kept of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from ray.rllib.algorithms.algorithm_config import NotProvided

from qio_envs.api import ConfigError, check_keys
from qio_rllib.algorithms.search_spaces import combinations, holds_search_space
from qio_rllib.causal.baseline import COUNTERFACTUAL_BASELINE, CounterfactualBaselineSettings
from qio_rllib.causal.influence import INFLUENCE_REWARD, InfluenceSettings
from qio_rllib.exploration import Amplification, make_annealing
from qio_rllib.games.self_play import SELF_PLAY, SelfPlaySettings
from qio_rllib.learners.policy_consistency import CONSISTENCY, ConsistencySettings
from qio_rllib.models.circuits import CIRCUIT, CircuitSettings
from qio_rllib.models.communication import COMMUNICATION, Communication
from qio_rllib.models.coordination import COORDINATION, CoordinationSettings
from qio_rllib.models.imagination import IMAGINATION, ImaginationSettings
from qio_rllib.models.normalization import NORMALIZE_OBSERVATIONS
from qio_rllib.models.opponent_model import OPPONENT_MODEL, OTHER_AGENTS, OpponentModelSettings
from qio_rllib.models.values import NUM_AGENTS, STATE_SIZE, STATE_SOURCE, TEAM_VALUE
from qio_rllib.sampling.discounted_returns import NORMALIZE_REWARDS
from qio_rllib.sampling.groups import AGENT_ID
from qio_rllib.sampling.team_reward import TEAM_REWARD

AMPLIFICATION = "amplification"
ENTROPY_ANNEALING = "entropy_annealing"
NORMALIZE_VALUES = "normalize_values"

OWN_MODEL_SETTINGS = (
    AMPLIFICATION,
    COMMUNICATION,
    CIRCUIT,
    COORDINATION,
    IMAGINATION,
    AGENT_ID,
    NORMALIZE_OBSERVATIONS,
    OPPONENT_MODEL,
    OTHER_AGENTS,
    STATE_SOURCE,
    STATE_SIZE,
    NUM_AGENTS,
    TEAM_VALUE,
)
"""Keys of ``model_config`` that settings of other names fill."""

OWN_LEARNER_SETTINGS = (
    NORMALIZE_VALUES,
    NORMALIZE_REWARDS,
    ENTROPY_ANNEALING,
    COUNTERFACTUAL_BASELINE,
    CONSISTENCY,
    INFLUENCE_REWARD,
    TEAM_REWARD,
    SELF_PLAY,
)
"""Keys of ``learner_config_dict`` that settings fill; a stock configuration has room for them there too."""


def in_model(key: str, doc: str, default: Any = None) -> Any:
    """Return a property that reads a setting out of ``model_config``."""
    return property(lambda config: config.model_config.get(key, default), doc=doc)


def in_learner(key: str, doc: str, default: Any = None) -> Any:
    """Return a property that reads a setting out of ``learner_config_dict``."""
    return property(lambda config: config.learner_config_dict.get(key, default), doc=doc)


def as_dict(model_config: Any) -> dict[str, Any]:
    """Return a ``model_config`` as a dictionary."""
    return dict(model_config) if isinstance(model_config, Mapping) else dataclasses.asdict(model_config)


def checked_mapping(given: Any, check: Callable[[Any], Any] | None) -> Any:
    """Return settings that come as a mapping, as ``check`` gives them back.

    Args:
        given: The settings; None and ``NotProvided`` stand for themselves. Of a search space every alternative of its
            grids is checked.
        check: Returns what is kept, or raises `ConfigError`; without it the value is kept as it is.
    """
    if given is None or given is NotProvided or check is None:
        return given
    if holds_search_space(given):
        for _, alternative in combinations(given):
            if not holds_search_space(alternative):
                checked_mapping(alternative, check)
        return given
    return check(given)


def _amplification(settings: Mapping[str, Any]) -> dict[str, Any]:
    check_keys("amplification", settings, [field.name for field in dataclasses.fields(Amplification)])
    try:
        return dataclasses.asdict(Amplification(**settings))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"amplification: {error}") from error


def _entropy_annealing(settings: Mapping[str, Any]) -> dict[str, Any]:
    try:
        make_annealing(settings)
    except (ValueError, TypeError) as error:
        raise ConfigError(f"entropy_annealing: {error}") from error
    return dict(settings)


def _checked_by(settings_class: Any) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """Return what keeps a mapping as it was given, once its settings could be made of it."""

    def kept(settings: Mapping[str, Any]) -> dict[str, Any]:
        settings_class.of(settings)
        return dict(settings)

    return kept


MAPPINGS: dict[str, Callable[[Any], Any]] = {
    AMPLIFICATION: _amplification,
    ENTROPY_ANNEALING: _entropy_annealing,
    CIRCUIT: _checked_by(CircuitSettings),
    COMMUNICATION: _checked_by(Communication),
    COORDINATION: _checked_by(CoordinationSettings),
    COUNTERFACTUAL_BASELINE: _checked_by(CounterfactualBaselineSettings),
    INFLUENCE_REWARD: _checked_by(InfluenceSettings),
    IMAGINATION: _checked_by(ImaginationSettings),
    CONSISTENCY: _checked_by(ConsistencySettings),
    SELF_PLAY: _checked_by(SelfPlaySettings),
    OPPONENT_MODEL: _checked_by(OpponentModelSettings),
}
"""By the setting: returns what is kept of a mapping, or raises `ConfigError`."""

"""What a configuration asks of a `BatchedEnvRunner`: what its Learner needs of rollouts, and what is refused."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

from qio_envs.api import ConfigError
from qio_rllib.acting.team import Team
from qio_rllib.causal.baseline import COUNTERFACTUAL_BASELINE, CounterfactualBaselineSettings
from qio_rllib.causal.influence import INFLUENCE_REWARD
from qio_rllib.sampling.counterfactuals import Counterfactuals
from qio_rllib.sampling.discounted_returns import NORMALIZE_REWARDS, DiscountedReturns
from qio_rllib.sampling.global_state import StateSource
from qio_rllib.sampling.influence import Influence
from qio_rllib.sampling.vector_env import VectorEnv


@runtime_checkable
class RolloutLearner(Protocol):
    """What runners need to know of a Learner class.

    Attributes:
        rollout_columns: Columns that it needs of the Actors.
    """

    rollout_columns: tuple[str, ...]

    def memory_interval(self, config: Any) -> int:
        """Return after how many steps the memory of agents is recorded; 0 for never."""


def check_runner_config(config: Any) -> None:
    """Refuse what the runner cannot do.

    Raises:
        ConfigError: Connectors of the user's own, or ``batch_mode="complete_episodes"``.
    """
    for key in ("_env_to_module_connector", "_module_to_env_connector"):
        if getattr(config, key, None) is not None:
            raise ConfigError(
                f"env_runners: {key.strip('_')} is not used by BatchedEnvRunner; take env_runner_cls=None for "
                "RLlib's own runner, or wrap the environment"
            )
    # RLlib sets complete_episodes for evaluation, where it asks for so many episodes itself.
    if config.batch_mode != "truncate_episodes" and not config.in_evaluation:
        raise ConfigError(
            f"env_runners: batch_mode={config.batch_mode!r} is not for BatchedEnvRunner, whose rollouts have "
            "equal lengths; an episode that a rollout cuts goes on in the next one"
        )


def rollout_learner(config: Any) -> Any:
    """Return the Learner class.

    Raises:
        ConfigError: It takes no rollouts.
    """
    learner = config.learner_class
    if not isinstance(learner, RolloutLearner):
        raise ConfigError(
            f"learner_class: {learner.__name__} cannot learn from the rollouts of BatchedEnvRunner; take one "
            "of this package (PPOLearner), or env_runner_cls=None for RLlib's own runner"
        )
    return learner


def discounted_returns(config: Any) -> DiscountedReturns | None:
    """Return what keeps the discounted returns, where the Learner normalises rewards by them; else None."""
    wanted = config.learner_config_dict.get(NORMALIZE_REWARDS) and not config.in_evaluation
    return DiscountedReturns(config.gamma) if wanted else None


def limits_are_ends(config: Any) -> bool:
    """Return whether the Learner takes a time limit for an end."""
    return not getattr(config, "bootstrap_at_time_limit", True)  # a stock configuration has none


def branched_steps(
    config: Any, env: VectorEnv, team: Team, state_source: StateSource | None
) -> Counterfactuals | Influence | None:
    """Return what steps other actions, where the Learner learns from them; else None.

    Raises:
        ConfigError: Environments that cannot be branched.
    """
    given = config.learner_config_dict
    settings = CounterfactualBaselineSettings.of(given.get(COUNTERFACTUAL_BASELINE))
    if config.in_evaluation:
        return None
    if given.get(INFLUENCE_REWARD) is not None:
        return Influence(env, team)
    if settings is None or settings.by_model:
        return None
    return Counterfactuals(env, team, state_source, settings, limits_are_ends(config))

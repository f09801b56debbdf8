"""Checks of a whole configuration: what fits an algorithm, its runner and its environment."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ray.rllib.algorithms.ppo import PPOConfig as RLlibPPOConfig

import qio_envs
from qio_envs.api import BatchedEnv, ConfigError
from qio_rllib.acting.actions import ActionSpec, is_plain
from qio_rllib.algorithms.capabilities import TRAINING_KEYS, check_action_spaces, is_wanted
from qio_rllib.algorithms.opposition import check_messages, opponent_policy
from qio_rllib.algorithms.settings import algorithm_name
from qio_rllib.causal.baseline import (
    COUNTERFACTUAL_BASELINE,
    CounterfactualBaselineSettings,
    check_environment,
)
from qio_rllib.causal.influence import INFLUENCE_REWARD, check_agents
from qio_rllib.games.self_play import SELF_PLAY, SelfPlaySettings, teams_of
from qio_rllib.learners.on_policy import OnPolicyLearner, window_length
from qio_rllib.learners.policy_consistency import (
    CONSISTENCY,
    DISCOVERED,
    GRAPH,
    ConsistencySettings,
    components_of_graph,
)
from qio_rllib.models.circuits import CIRCUIT
from qio_rllib.models.communication import COMMUNICATION, Communication
from qio_rllib.models.coordination import COORDINATION, CoordinationSettings
from qio_rllib.models.imagination import IMAGINATION
from qio_rllib.models.memory import memory_kind
from qio_rllib.models.normalization import NORMALIZE_OBSERVATIONS
from qio_rllib.models.opponent_model import OPPONENT_MODEL, OTHER_AGENTS, OtherAgents
from qio_rllib.models.spaces import bare_space, is_masked_space
from qio_rllib.models.values import STATE_SIZE
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.team_reward import TEAM_REWARD


def check_capabilities(config: Any) -> None:
    """Refuse settings, spaces and runners that the algorithm does not support."""
    can, name = config.capabilities, algorithm_name(type(config))
    if not config.is_batched:
        can.refuse("rllib_runner", name, "env_runner_cls", f", got {config.env_runner_cls}")
    for key in TRAINING_KEYS:
        if is_wanted(getattr(config, key)):
            can.refuse(key, name, key)
    kind = memory_kind(config.model_config)
    if kind is not None:
        can.refuse("recurrence", name, f"model_config.use_{kind}")
    if config.num_learners > 1:
        end = f", got {config.num_learners}; num_env_runners can be more"
        can.refuse("several_learners", name, "num_learners", end)
    description = None if config.in_evaluation else config.describe_env()
    if description is None:
        return
    check_action_spaces(can, name, description.action_spaces.items())
    if any(map(is_masked_space, description.observation_spaces.values())):
        can.refuse("action_masks", name, "env")
    if config.agent_id and not description.multi_agent:
        raise ConfigError(f"agent_id: {config.env} has a single agent; set it to false")
    annealing = config.entropy_annealing
    if annealing is not None and annealing.get("law", "quantum") == "quantum":
        for agent, space in description.action_spaces.items():
            if ActionSpec.of(space, rescaled=False).low:
                raise ConfigError(
                    "entropy_annealing.law: quantum follows the normalised entropy, which Box actions do not have "
                    f"({'the environment' if agent is None else agent} has {space}); take exponential"
                )


def check_product_actions(config: Any) -> None:
    """Refuse what takes a policy for one discrete or one continuous choice, with actions that are several."""
    description = None if config.in_evaluation else config.describe_env()
    if description is None:
        return
    for agent, space in description.action_spaces.items():
        if is_plain(space):
            continue
        end = f"{'the environment' if agent is None else agent} has {space}"
        if not config.is_batched:
            raise ConfigError(
                f"env_runner_cls: such actions need BatchedEnvRunner, got {config.env_runner_cls}; {end}"
            )
        if not config.has_own_modules:
            raise ConfigError(f"rl_module: such actions need a module of this package (ActorCritic); {end}")
        for key in (
            CIRCUIT,
            COORDINATION,
            IMAGINATION,
            COUNTERFACTUAL_BASELINE,
            CONSISTENCY,
            INFLUENCE_REWARD,
        ):
            if getattr(config, key) is not None:
                raise ConfigError(
                    f"{key}: needs Discrete (from 0) or one-dimensional Box actions; {end}; set it to null"
                )
        if config.amplification is not None and not ActionSpec.of(space, rescaled=False).factors:
            raise ConfigError(f"amplification: needs discrete numbers in actions, {end}; set it to null")


def check_normalization(config: Any) -> None:
    """Refuse what learns from, or acts by, observations and rewards in their own units."""
    if config.normalize_observations:
        if not config.has_own_modules:
            raise ConfigError("normalize_observations: needs a module of this package (ActorCritic)")
        for key in (CIRCUIT, COORDINATION, IMAGINATION, CONSISTENCY):
            if getattr(config, key) is not None:
                raise ConfigError(f"normalize_observations: does not go with {key}; set one of the two off")
    if config.normalize_rewards:
        for key in (COUNTERFACTUAL_BASELINE, INFLUENCE_REWARD, TEAM_REWARD):
            if getattr(config, key) is not None:
                raise ConfigError(f"normalize_rewards: does not go with {key}; set one of the two off")


def check_window(config: Any) -> None:
    """Refuse windows of a module with memory that no rollout can hold."""
    window, steps = window_length(config.model_config), config.get_rollout_fragment_length()
    if window is not None and window > steps:
        raise ConfigError(
            f"model_config.max_seq_len: a window of {window} steps is longer than the {steps} steps of a rollout "
            "(rollout_fragment_length)"
        )


def check_central_value(config: Any) -> None:
    """Refuse a central value without its own network, states or critic."""
    if not config.is_batched:
        raise ConfigError(
            "env_runner_cls: central_value needs BatchedEnvRunner, which records states, got "
            f"{config.env_runner_cls}"
        )
    if config.model_config.get("vf_share_layers"):
        raise ConfigError(
            "vf_share_layers: a central value has a network of its own; set it to false, or central_value to null"
        )
    if isinstance(config, RLlibPPOConfig) and not config.use_critic:
        raise ConfigError("use_critic: false leaves nothing to learn a central value with")
    if not config.model_config.get(STATE_SIZE):
        raise ConfigError("central_value: set the environment by name, so that its states can be measured")


def check_team_reward(config: Any) -> None:
    """Refuse a team's value without its states, and what pays or judges agents one by one."""
    if not config.has_team_value:
        return
    if config.central_value is None:
        raise ConfigError(
            f"{TEAM_REWARD}: a team's return goes on where an agent has ended, so that its value is one of the state; "
            "set central_value to state or observations"
        )
    for key in (COUNTERFACTUAL_BASELINE, INFLUENCE_REWARD):
        if getattr(config, key) is not None:
            raise ConfigError(
                f"{key}: tells agents' rewards apart, and with team_reward all have one; set one of the two to null"
            )
    description = None if config.in_evaluation else config.describe_env()
    if description is not None and not description.multi_agent:
        raise ConfigError(f"{TEAM_REWARD}: {config.env} has a single agent; set it to null")


def check_self_play(config: Any) -> None:
    """Refuse self-play without opponents, and with what follows other actions than those that snapshots take."""
    settings = SelfPlaySettings.of(config.self_play)
    assert settings is not None
    for key in (COUNTERFACTUAL_BASELINE, INFLUENCE_REWARD, TEAM_REWARD, COORDINATION, IMAGINATION):
        if getattr(config, key) is not None:
            raise ConfigError(f"{SELF_PLAY}: does not go with {key}; set one of the two to null")
    if not config.has_own_modules:
        raise ConfigError(
            f"{SELF_PLAY}: needs a module of this package, whose policy can be kept as a snapshot"
        )
    description = None if config.in_evaluation else config.describe_env()
    if description is None:
        return
    if not description.multi_agent:
        raise ConfigError(f"{SELF_PLAY}: {config.env} has a single agent; set it to null")
    modules: dict[str, list[Any]] = {}
    for agent in description.agents:
        modules.setdefault(config.policy_mapping_fn(agent, None), []).append(agent)
    sides = teams_of(settings.teams, modules, env=description)
    if Communication.of(config.communication) is not None:
        check_talk_in_self_play(config, sides)
    for path in settings.named_opponents:
        policy = opponent_policy(path, modules)
        check_messages(path, policy, Communication.of(config.communication), description.agents)


def check_opponent_model(config: Any) -> None:
    """Refuse an opponent model without other agents, where policies have no features, or where agents talk."""
    for key in (CIRCUIT, COORDINATION, COMMUNICATION):
        if getattr(config, key) is not None:
            raise ConfigError(f"{OPPONENT_MODEL}: does not go with {key}; set one of the two to null")
    if not config.has_own_modules:
        raise ConfigError(f"{OPPONENT_MODEL}: needs a module of this package (ActorCritic)")
    others = config.model_config.get(OTHER_AGENTS)
    if others is None:
        raise ConfigError(
            f"{OPPONENT_MODEL}: set the environment by name, so that the other agents' actions are known"
        )
    if not OtherAgents.of(others).is_discrete and not config.normalize_actions:
        raise ConfigError(f"normalize_actions: {OPPONENT_MODEL} predicts actions in [-1, 1]; leave it on")


def check_team(config: Any) -> None:
    """Refuse a coordinated policy for other agents than those of the environment."""
    settings = CoordinationSettings.of(config.model_config.get(COORDINATION))
    if settings is None or config.env not in qio_envs.environments():
        return
    if not config.env_config.get("as_team"):
        raise ConfigError(
            f"coordination: acts for a whole team; set env_config.as_team of {config.env} to true"
        )
    apart = {key: value for key, value in config.env_config.items() if key != "as_team"}
    agents = qio_envs.environment(config.env).batched_env(1, **apart).num_agents
    if settings.num_agents != agents:
        raise ConfigError(
            f"coordination.num_agents: {config.env} has {agents} agents, got {settings.num_agents}"
        )


def check_imagination(config: Any) -> None:
    """Refuse several Learners, and actions that are not in [-1, 1], with a model that learns beside a policy."""
    if config.num_learners > 1:
        raise ConfigError(
            f"num_learners: imagination fits its model in one Learner, got {config.num_learners}; num_env_runners "
            "can be more"
        )
    if not config.normalize_actions:
        raise ConfigError("normalize_actions: imagination's model takes actions in [-1, 1]; leave it on")


def check_communication(config: Any) -> None:
    """Refuse messages between agents that are not there, and with what acts or learns without them."""
    settings = Communication.of(config.communication)
    if settings is None:
        return
    if not config.has_own_modules:
        raise ConfigError(f"{COMMUNICATION}: needs a module of this package, which speaks")
    for key in (NORMALIZE_OBSERVATIONS, COUNTERFACTUAL_BASELINE, CONSISTENCY, INFLUENCE_REWARD):
        if is_wanted(getattr(config, key)):
            raise ConfigError(f"{COMMUNICATION}: does not go with {key}; set one of the two off")
    if issubclass(config.learner_class, OnPolicyLearner):
        if config.model_config.get("vf_share_layers"):
            raise ConfigError(
                f"vf_share_layers: values do not see messages; set it to false with {COMMUNICATION}"
            )
        if config.num_learners > 1:
            raise ConfigError(
                f"num_learners: agents that talk learn in one Learner, got {config.num_learners}; num_env_runners "
                "can be more"
            )
        if config.policies_to_train is not None:
            raise ConfigError(
                f"policies_to_train: agents that talk learn together; set {COMMUNICATION} to null"
            )
    description = None if config.in_evaluation else config.describe_env()
    if description is not None:
        if not description.multi_agent:
            raise ConfigError(f"{COMMUNICATION}: {config.env} has a single agent; set it to null")
        for agent in itertools.chain(*(settings.teams or ())):
            if agent not in description.agents:
                raise ConfigError(
                    f"{COMMUNICATION}.teams: there is no agent {agent!r}; allowed: "
                    f"{', '.join(map(str, description.agents))}"
                )
        settings.links(description.agents)


def check_talk_in_self_play(config: Any, sides: Sequence[Sequence[Any]]) -> None:
    """Keep messages within the teams of self-play where nothing else is said, and refuse what no on-policy loss fits.

    PPO and A2C compute again what an agent heard, with the present policies, which is not what snapshots said.

    Args:
        config: Of agents that talk.
        sides: The teams.
    """
    settings = Communication.of(config.communication)
    assert settings is not None
    if settings.teams is None:
        given = {**config.communication, "teams": [list(side) for side in sides]}
        config._set_model(communication=given)
        settings = Communication.of(given)
        assert settings is not None
    agents = [agent for side in sides for agent in side]
    team = np.repeat(np.arange(len(sides)), [len(side) for side in sides])
    links = settings.links(agents)
    if not links.any():
        raise ConfigError(
            f"{COMMUNICATION}: with {SELF_PLAY} messages stay within a team, and no agent of any can hear another; set "
            "one of the two to null"
        )
    across = np.argwhere(links & (team[:, None] != team))
    if len(across) and issubclass(config.learner_class, OnPolicyLearner):
        hears, speaks = (agents[index] for index in across[0])
        raise ConfigError(
            f"{COMMUNICATION}.teams: PPO and A2C learn from what team mates say, and {hears} would hear {speaks} of "
            f"another team of {SELF_PLAY}; leave it out"
        )


def check_counterfactual_baseline(config: Any) -> None:
    """Refuse memory, and environments without exact counterfactuals or whose graph breaks the condition.

    With a learned model in the place of the environment: memory, a central value, and several Learners.
    """
    settings = CounterfactualBaselineSettings.of(config.counterfactual_baseline)
    if settings is None or not settings.by_model:
        _check_branches(config, COUNTERFACTUAL_BASELINE, check_environment)
        return
    _refuse_memory(config, COUNTERFACTUAL_BASELINE)
    if config.central_value is not None:
        raise ConfigError(
            f"{COUNTERFACTUAL_BASELINE}.source: a model predicts what an agent observes, not what a central value "
            "sees; take environment, or set central_value to null"
        )
    if config.num_learners > 1:
        raise ConfigError(
            f"num_learners: {COUNTERFACTUAL_BASELINE} fits its model in one Learner, got {config.num_learners}"
        )
    if not config.normalize_actions:
        raise ConfigError(
            f"normalize_actions: the model of {COUNTERFACTUAL_BASELINE} takes actions in [-1, 1]; leave it on"
        )


def check_influence_reward(config: Any) -> None:
    """Refuse memory, a counterfactual baseline, and environments without agents whose influence can be measured."""
    if config.counterfactual_baseline is not None:
        raise ConfigError(
            f"{INFLUENCE_REWARD}: does not go with {COUNTERFACTUAL_BASELINE}; set one of the two to null"
        )
    _check_branches(config, INFLUENCE_REWARD, check_agents)


def _check_branches(config: Any, key: str, check: Callable[[BatchedEnv], None]) -> None:
    """Refuse memory, and environments that cannot be branched or that a check refuses."""
    _refuse_memory(config, key)
    if config.in_evaluation:
        return
    env = make_vector_env(config.env, dict(config.env_config), 1)
    try:
        if not isinstance(env, BatchedVectorEnv):
            raise ConfigError(
                f"{key}: {config.env} cannot be branched; expected an environment of the suite by its name "
                "(forest_uav_v0), or null"
            )
        check(env.env)
    finally:
        env.close()


def _refuse_memory(config: Any, key: str) -> None:
    kind = memory_kind(config.model_config)
    if kind is not None:
        raise ConfigError(f"{key}: follows other actions without memory; set use_{kind} to false")


def check_consistency(config: Any) -> None:
    """Refuse memory, imagination, observations and indices that interventions on single numbers do not fit."""
    settings = ConsistencySettings.of(config.interventional_consistency)
    assert settings is not None
    kind = memory_kind(config.model_config)
    if kind is not None:
        raise ConfigError(
            f"{CONSISTENCY}: what an intervention does to a memory is not defined; set use_{kind} to false"
        )
    if config.imagination is not None:
        raise ConfigError(f"{CONSISTENCY}: does not go with imagination; set one of the two to null")
    if settings.components == DISCOVERED and config.num_learners > 1:
        raise ConfigError(
            f"num_learners: {CONSISTENCY} seeks components in one Learner, got {config.num_learners}; name them"
        )
    description = config.describe_env()
    for space in () if description is None else description.observation_spaces.values():
        shape = bare_space(space).shape or ()
        if len(shape) != 1:
            raise ConfigError(f"{CONSISTENCY}: takes flat observations, got the shape {shape}; flatten them")
        if not isinstance(settings.components, str) and max(settings.components) >= shape[0]:
            raise ConfigError(
                f"{CONSISTENCY}.components: observations have {shape[0]} numbers, got {max(settings.components)}"
            )
    if settings.components == GRAPH:
        components_of_graph(config.env, config.env_config)


def check_runner(config: Any) -> None:
    """Refuse what needs `BatchedEnvRunner` with another runner."""
    if config.is_batched:
        return
    if not config.bootstrap_at_time_limit:
        raise ConfigError(
            f"env_runner_cls: bootstrap_at_time_limit: false needs BatchedEnvRunner, got {config.env_runner_cls}"
        )
    for key in (
        "normalize_values",
        "normalize_observations",
        "normalize_rewards",
        "agent_id",
        "imagination",
        COUNTERFACTUAL_BASELINE,
        CONSISTENCY,
        COMMUNICATION,
        INFLUENCE_REWARD,
        SELF_PLAY,
        OPPONENT_MODEL,
    ):
        if is_wanted(getattr(config, key)):
            raise ConfigError(f"env_runner_cls: {key} needs BatchedEnvRunner, got {config.env_runner_cls}")

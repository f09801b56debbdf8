"""Which module acts for which agents, and the team that they make."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import gymnasium
import numpy as np
from ray.rllib.core import DEFAULT_MODULE_ID

from qio_envs.api import ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.acting.module_actor import actor_of
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.models.communication import COMMUNICATION, Communication
from qio_rllib.models.spaces import ACTION_MASK, OBSERVATION, bare_space, is_masked_space
from qio_rllib.sampling.vector_env import VectorEnv

AGENT_ID = "agent_id"
"""Key of ``model_config``: whether a one-hot agent index stands behind each observation."""


def groups_of(env: VectorEnv, config: Any) -> dict[str, list[int]]:
    """Return the agent indices of each module, in the order of their first agents.

    Raises:
        ConfigError: Agents that no module acts for, or of different spaces in one module.
    """
    if not config.is_multi_agent and env.agents != (None,):
        names = ", ".join(map(str, env.agents))
        raise ConfigError(
            f"multi_agent: {config.env} has the agents {names}; say who acts for them: "
            "config.multi_agent(policies=..., policy_mapping_fn=...)"
        )
    found: dict[str, list[int]] = {}
    for index, agent in enumerate(env.agents):
        found.setdefault(_module_of(agent, config), []).append(index)
    for module_id, members in found.items():
        first, *others = (env.agents[index] for index in members)
        for agent in others:
            for kind, spaces in (("observation", env.observation_spaces), ("action", env.action_spaces)):
                if spaces[agent] != spaces[first]:
                    raise ConfigError(
                        f"multi_agent: {first} and {agent} share the module '{module_id}', but their {kind} "
                        f"spaces differ: {spaces[first]} and {spaces[agent]}"
                    )
    return found


def group_spaces(
    env: VectorEnv, groups: Mapping[str, list[int]], config: Any
) -> dict[str, tuple[gymnasium.Space, gymnasium.Space]]:
    """Return (observation space, action space) of each module, a one-hot agent index in the former included."""
    found = {}
    for module_id, members in groups.items():
        agent = env.agents[members[0]]
        space = env.observation_spaces[agent]
        if config.model_config.get(AGENT_ID):
            space = with_agent_id_space(space, len(members))
        found[module_id] = (space, env.action_spaces[agent])
    return found


def whole_spaces(env: VectorEnv, multi_agent: bool) -> tuple[gymnasium.Space, gymnasium.Space]:
    """Return (observation space, action space) of an environment: its only agent's, or those of all by their names."""
    obs, actions = env.observation_spaces, env.action_spaces
    if not multi_agent:
        return obs[env.agents[0]], actions[env.agents[0]]
    return gymnasium.spaces.Dict(_by_name(obs)), gymnasium.spaces.Dict(_by_name(actions))


def with_agent_id_space(space: gymnasium.Space, agents: int) -> gymnasium.Space:
    """Return an observation space whose rows are flat and end with a one-hot of so many agents."""
    bare = bare_space(space)
    assert isinstance(bare, gymnasium.spaces.Box)
    size = math.prod(bare.shape)
    low = np.concatenate([bare.low.reshape(size), np.zeros(agents)]).astype(np.float32)
    high = np.concatenate([bare.high.reshape(size), np.ones(agents)]).astype(np.float32)
    wide = gymnasium.spaces.Box(low, high, dtype=np.float32)
    if not is_masked_space(space):
        return wide
    assert isinstance(space, gymnasium.spaces.Dict)
    return gymnasium.spaces.Dict({OBSERVATION: wide, ACTION_MASK: space[ACTION_MASK]})


def team_of(
    env: VectorEnv,
    groups: Mapping[str, list[int]],
    modules: Any,
    config: Any,
    columns: tuple[str, ...] = (),
) -> Team:
    """Return the team of all modules.

    Args:
        env: The environments.
        groups: As `groups_of` gives them.
        modules: RLModules by id.
        config: The AlgorithmConfig, of which ``normalize_actions`` and ``model_config`` are read.
        columns: What the learner needs of the Actors.

    Raises:
        ConfigError: A module that `actor_of` refuses, or an action space that is neither Discrete nor a flat Box.
    """
    agent_id = bool(config.model_config.get(AGENT_ID))
    parts = []
    for module_id, members in groups.items():
        action = ActionSpec.of(env.action_spaces[env.agents[members[0]]], config.normalize_actions)
        actor = actor_of(modules[module_id], action, columns)
        agents = tuple(env.agents[index] for index in members)
        parts.append(AgentGroup(module_id, agents, np.array(members), actor, agent_id))
    return Team(parts, Communication.of(config.model_config.get(COMMUNICATION)))


def _module_of(agent: Any, config: Any) -> str:
    if not config.is_multi_agent:
        return DEFAULT_MODULE_ID
    try:
        module_id = config.policy_mapping_fn(agent, None)
    except Exception as error:
        raise ConfigError(
            f"multi_agent: policy_mapping_fn fails for agent {agent} ({type(error).__name__}: {error})"
        ) from error
    if module_id not in config.policies:
        raise ConfigError(
            f"multi_agent: policy_mapping_fn gives agent {agent} the module {module_id!r}; "
            f"allowed: {', '.join(map(str, config.policies))}"
        )
    return module_id


def _by_name(spaces: Mapping[Any, gymnasium.Space]) -> dict[str, gymnasium.Space]:
    return {str(agent): space for agent, space in spaces.items()}

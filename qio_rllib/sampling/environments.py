"""Environments by name, from this project or anybody's."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from typing import Any

import gymnasium
from pettingzoo import AECEnv, ParallelEnv
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.tune.registry import ENV_CREATOR, _global_registry
from ray.tune.registry import register_env as tune_register_env

import qio_envs
from qio_envs.adapters.pettingzoo import BatchedParallelEnv
from qio_envs.adapters.tuple_agents import TupleParallelEnv, has_tuple_agents
from qio_envs.adapters.turns import as_parallel
from qio_envs.api import ConfigError
from qio_rllib.models.spaces import array_space, check_space
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.env_creators import CREATORS, EnvCreator, creator_of, keyword_errors
from qio_rllib.sampling.object_vector_env import ObjectVectorEnv, state_size_of
from qio_rllib.sampling.rllib_adapters import EncodedEnv, ParallelEnvAdapter
from qio_rllib.sampling.vector_env import VectorEnv


@dataclasses.dataclass(frozen=True)
class EnvDescription:
    """What has to be known of an environment before training; single-agent environments have the agent ``None``.

    Attributes:
        agents: All agents that there can be, each with an index of its own.
        observation_spaces: By agent, each as its `array_space`.
        action_spaces: By agent.
        state_size: Numbers in the environment's ``state()``; None without one.
        teams: As of `VectorEnv`.
        lacks_opponents: Likewise.
    """

    agents: tuple[str | None, ...]
    observation_spaces: dict[str | None, gymnasium.Space]
    action_spaces: dict[str | None, gymnasium.Space]
    state_size: int | None
    teams: tuple[tuple[str, ...], ...] | None = None
    lacks_opponents: str | None = None

    @property
    def multi_agent(self) -> bool:
        """Whether agents have names."""
        return self.agents != (None,)

    @property
    def homogeneous(self) -> bool:
        """Whether all agents share their spaces, so that one policy can serve them all."""
        return all(
            self.observation_spaces[agent] == self.observation_spaces[self.agents[0]]
            and self.action_spaces[agent] == self.action_spaces[self.agents[0]]
            for agent in self.agents
        )


def register_env(env_id: str, creator: EnvCreator) -> None:
    """Give an environment of your own a name for ``config.environment(name)``, YAML files and the command line.

    Args:
        env_id: The name; one already taken by `register_env` is replaced.
        creator: Takes ``env_config`` (a dict) and returns a PettingZoo ``ParallelEnv`` or ``AECEnv``, or a Gymnasium
            ``Env``, of several agents if its spaces are Tuples (`TupleParallelEnv`).

    Raises:
        ConfigError: The name belongs to an environment of this package.
    """
    if env_id in qio_envs.environments():
        raise ConfigError(f"env: '{env_id}' is the name of an environment of qio_envs; choose another")
    CREATORS[env_id] = creator
    tune_register_env(env_id, _RLlibCreator(env_id, creator))


def make_env(
    env_id: str, env_config: Mapping[str, Any] | None = None, render_mode: str | None = None
) -> ParallelEnv | gymnasium.Env:
    """Build an environment from its name.

    A Gymnasium one of several agents comes as a `TupleParallelEnv`, one of turns (PettingZoo's AEC) by `as_parallel`.

    Args:
        env_id: One of `register_env`'s names; an id of ``qio_envs`` (``forest_uav_v0``); a Gymnasium id
            (``CartPole-v1``), behind the package that registers it where that must be imported first
            (``lbforaging:Foraging-8x8-2p-3f-v3``); ``module:callable``; or a PettingZoo-style module
            (``mpe2.simple_spread_v3``), with ``parallel_env`` or else ``env``.
        env_config: Keyword arguments; for ``qio_envs``, ``scenario`` and settings.
        render_mode: Passed on where given.

    Raises:
        ConfigError: Nothing goes by that name, its package is not installed, or it refuses the arguments.
    """
    create = creator_of(env_id)
    return _with_named_agents(
        create({**(env_config or {}), **({"render_mode": render_mode} if render_mode else {})})
    )


def make_rllib_env(env_id: str, env_config: Mapping[str, Any] | None = None) -> MultiAgentEnv | gymnasium.Env:
    """Build an environment as RLlib's runners take it."""
    return _for_rllib(make_env(env_id, env_config))


def make_vector_env(env: Any, env_config: dict[str, Any], num_envs: int) -> VectorEnv:
    """Build environments as arrays, for runners and evaluations.

    Args:
        env: A name as for `make_env`, one registered with Tune, or a class that takes ``env_config``.
        env_config: Keyword arguments; a creator of the user's own gets a copy of this very object, for RLlib's
            ``EnvContext`` says more.
        num_envs: How many.

    Raises:
        ConfigError: Nothing goes by that name, it refuses the arguments, or it is neither PettingZoo nor Gymnasium.
    """
    if isinstance(env, str) and env in qio_envs.environments():
        with keyword_errors(env):
            return BatchedVectorEnv(qio_envs.environment(env).batched_env(num_envs, **env_config))
    if not isinstance(env, str):
        create: EnvCreator = env
    elif _global_registry.contains(ENV_CREATOR, env):
        create = _global_registry.get(ENV_CREATOR, env)
    else:
        create = creator_of(env)

    def build() -> ParallelEnv | gymnasium.Env:
        made = create(copy.copy(env_config))
        return made.env if isinstance(made, ParallelEnvAdapter | EncodedEnv) else _with_named_agents(made)

    return ObjectVectorEnv(build, num_envs)


def describe_env(env_id: str, env_config: Mapping[str, Any] | None = None) -> EnvDescription:
    """Build an environment once to see its agents and spaces.

    Raises:
        ConfigError: As `make_env`; or observations that are no fixed number of numbers.
    """
    env = make_env(env_id, env_config)
    try:
        if isinstance(env, ParallelEnv):
            try:
                agents = tuple(env.possible_agents)
            except AttributeError as error:
                raise ConfigError(
                    f"env: {env_id} has no possible_agents; modules, runners and critics need agents with fixed places"
                ) from error
            return EnvDescription(
                agents,
                {agent: check_space(str(agent), env.observation_space(agent)) for agent in agents},
                {agent: env.action_space(agent) for agent in agents},
                state_size_of(env),
                env.batch.teams if isinstance(env, BatchedParallelEnv) else None,
                env.batch.lacks_opponents if isinstance(env, BatchedParallelEnv) else None,
            )
        space = check_space("the agent", env.observation_space)
        return EnvDescription((None,), {None: space}, {None: env.action_space}, None)
    finally:
        env.close()


def register_with_tune(env_id: str) -> None:
    """Make a name known to Ray, so that workers on any node can build the environment.

    Raises:
        ConfigError: Nothing goes by that name.
    """
    tune_register_env(env_id, _RLlibCreator(env_id, creator_of(env_id)))


def known_to_tune_only(env_id: str) -> bool:
    """Whether a name was registered with Ray Tune alone (`ray.tune.register_env`), so that RLlib builds it unseen."""
    if env_id in CREATORS or env_id in qio_envs.environments() or env_id in gymnasium.registry:
        return False
    return _global_registry.contains(ENV_CREATOR, env_id) and not isinstance(
        _global_registry.get(ENV_CREATOR, env_id), _RLlibCreator
    )


def scenario_hash(env_id: str, env_config: Mapping[str, Any] | None = None) -> str | None:
    """Return the content hash of a ``qio_envs`` environment's resolved settings; None for anybody else's."""
    if env_id not in qio_envs.environments():
        return None
    return qio_envs.environment(env_id).content_hash(**(env_config or {}))


class _RLlibCreator:
    """What Tune keeps under a name; an object, so that it pickles with the user's creator."""

    def __init__(self, env_id: str, creator: EnvCreator) -> None:
        self.env_id = env_id
        self.creator = creator

    def __call__(self, env_config: Mapping[str, Any]) -> MultiAgentEnv | gymnasium.Env:
        return _for_rllib(self.creator(dict(env_config)))


def _for_rllib(env: ParallelEnv | AECEnv | gymnasium.Env) -> MultiAgentEnv | gymnasium.Env:
    env = _with_named_agents(env)
    if isinstance(env, ParallelEnv):
        return ParallelEnvAdapter(env)
    return env if array_space(env.observation_space) is env.observation_space else EncodedEnv(env)


def _with_named_agents(env: ParallelEnv | AECEnv | gymnasium.Env) -> ParallelEnv | gymnasium.Env:
    if isinstance(env, AECEnv):
        return as_parallel(env)
    return TupleParallelEnv(env) if has_tuple_agents(env) else env

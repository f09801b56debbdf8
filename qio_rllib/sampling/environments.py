"""Environments by name, from this project or anybody's, and the adapter that shows them to RLlib."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
import numpy as np
from pettingzoo import AECEnv, ParallelEnv
from ray.rllib.env.multi_agent_env import MultiAgentEnv
from ray.tune.registry import ENV_CREATOR, _global_registry
from ray.tune.registry import register_env as tune_register_env

import qio_envs
from qio_envs.adapters.pettingzoo import BatchedParallelEnv
from qio_envs.adapters.tuple_agents import TupleParallelEnv, has_tuple_agents
from qio_envs.adapters.turns import as_parallel
from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.models.spaces import array_space, check_space, encoded
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.named_in_file import ALLOWED_PACKAGES, NamedInFile, is_within
from qio_rllib.sampling.object_vector_env import ObjectVectorEnv, state_size_of
from qio_rllib.sampling.vector_env import VectorEnv

EnvCreator = Callable[[dict[str, Any]], ParallelEnv | AECEnv | gymnasium.Env]

_CREATORS: dict[str, EnvCreator] = {}
_PACKAGES = ("lbforaging", "magent2", "mpe2", "rware")
"""Packages of environments that the documentation names; each is installed under the name of its module."""
_IMPORTERS = ("GymV21Environment-v0", "GymV26Environment-v0")
"""Gymnasium ids whose environments import what their arguments name."""


class ParallelEnvAdapter(MultiAgentEnv):
    """Shows any PettingZoo ``ParallelEnv`` to RLlib's multi-agent runner.

    Against RLlib's own wrapper: an episode in which some agents terminate and the rest truncate ends; a time
    limit stays a truncation (RLlib calls an episode terminated as soon as each agent carries a flag of its own, so
    truncation of the last agents is reported for the episode as a whole); `state` is passed on; `render` is
    called as PettingZoo defines it; space objects are made once; observations of other spaces than Boxes come as
    numbers, see `array_space`.

    Args:
        env: A PettingZoo parallel environment.
    """

    def __init__(self, env: ParallelEnv) -> None:
        super().__init__()
        self.env = env
        self.possible_agents = list(env.possible_agents)
        self.agents = list(self.possible_agents)
        self.observation_spaces = {
            agent: check_space(str(agent), env.observation_space(agent)) for agent in self.possible_agents
        }
        self.action_spaces = {agent: env.action_space(agent) for agent in self.possible_agents}
        self.observation_space = gymnasium.spaces.Dict(self.observation_spaces)
        self.action_space = gymnasium.spaces.Dict(self.action_spaces)
        self.render_mode = getattr(env, "render_mode", None)
        self.metadata = getattr(env, "metadata", {})

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[dict, dict]:
        """Start an episode; return observations and infos by agent."""
        observations, infos = self.env.reset(seed=seed, options=options)
        self.agents = list(self.env.agents)
        return self._encoded(observations), infos or {}

    def step(self, action_dict: dict[str, Any]) -> tuple[dict, dict, dict, dict, dict]:
        """Advance one step; the flags hold ``__all__`` as RLlib expects."""
        observations, rewards, terminated, truncated, infos = self.env.step(action_dict)
        self.agents = list(self.env.agents)
        over = not self.agents
        cut = over and any(truncated[agent] and not terminated[agent] for agent in truncated)
        terminateds = {**terminated, "__all__": over and not cut}
        if cut:
            truncateds = {"__all__": True}
        else:
            truncateds = {
                **{agent: flag and not terminated[agent] for agent, flag in truncated.items()},
                "__all__": False,
            }
        return self._encoded(observations), rewards, terminateds, truncateds, infos

    def _encoded(self, observations: Mapping[str, Any]) -> dict[str, Any]:
        return {
            agent: encoded(self.observation_spaces[agent], value) for agent, value in observations.items()
        }

    def state(self) -> np.ndarray:
        """Return the environment's global state, for centralised critics."""
        return self.env.state()

    def render(self) -> Any:
        """Return what the environment renders."""
        return self.env.render()

    def close(self) -> None:
        """Close the environment."""
        self.env.close()


class EncodedEnv(gymnasium.ObservationWrapper):
    """Shows a Gymnasium environment's observations to RLlib's runner as numbers, see `array_space`."""

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        self.observation_space = check_space("the agent", env.observation_space)

    def observation(self, observation: Any) -> Any:
        """Return an observation as numbers."""
        return encoded(self.observation_space, observation)


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
    _CREATORS[env_id] = creator
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
    create = _creator(env_id)
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
        with _keyword_errors(env):
            return BatchedVectorEnv(qio_envs.environment(env).batched_env(num_envs, **env_config))
    if not isinstance(env, str):
        create: EnvCreator = env
    elif _global_registry.contains(ENV_CREATOR, env):
        create = _global_registry.get(ENV_CREATOR, env)
    else:
        create = _creator(env)

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
    tune_register_env(env_id, _RLlibCreator(env_id, _creator(env_id)))


def known_to_tune_only(env_id: str) -> bool:
    """Whether a name was registered with Ray Tune alone (`ray.tune.register_env`), so that RLlib builds it unseen."""
    if env_id in _CREATORS or env_id in qio_envs.environments() or env_id in gymnasium.registry:
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


class _KeywordCreator:
    """Calls a function that takes keywords; a refused keyword becomes a `ConfigError`."""

    def __init__(self, env_id: str, build: Callable[..., Any]) -> None:
        self.env_id = env_id
        self.build = build

    def __call__(self, env_config: dict[str, Any]) -> ParallelEnv | AECEnv | gymnasium.Env:
        with _keyword_errors(self.env_id):
            return self.build(**env_config)


@contextlib.contextmanager
def _keyword_errors(env_id: str) -> Iterator[None]:
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"env_config: {error}") from error
    except TypeError as error:
        raise ConfigError(f"env_config of {env_id}: {error}") from error
    except gymnasium.error.Error as error:
        raise ConfigError(f"env: {env_id} cannot be made: {' '.join(str(error).split())}") from error


def check_named_in_file(env_id: NamedInFile) -> None:
    """Refuse a name that would import what neither this project nor the user allows; imports nothing else.

    Allowed are names of `register_env` and of Tune's registry, ids of ``qio_envs``, Gymnasium ids that are registered
    already, and of `ALLOWED_PACKAGES` Gymnasium ids, modules with ``parallel_env`` or ``env``, and classes of
    environments.

    Raises:
        ConfigError: Anything else that exists, with what would allow it; or nothing goes by that name.
    """
    if (
        env_id in _CREATORS
        or env_id in qio_envs.environments()
        or _global_registry.contains(ENV_CREATOR, env_id)
    ):
        return
    if env_id in gymnasium.registry:
        if env_id in _IMPORTERS:
            raise ConfigError(
                f"env: '{env_id}' stands in a file, and imports whatever its env_config names; name it yourself: "
                f"--env {env_id}"
            )
        return
    module_name, _, attribute = env_id.partition(":")
    if is_within(module_name, env_id.allow_import):
        return
    package = module_name.partition(".")[0]
    if not _is_there(package):
        raise _unknown(env_id, package)
    if package not in ALLOWED_PACKAGES or (package not in sys.modules and _is_in_working_directory(package)):
        raise ConfigError(
            f"env: '{env_id}' stands in a file, and importing {package} runs its code; if you trust it, allow that "
            f"with --allow-import {package}"
        )
    if attribute.isidentifier() and attribute not in ("parallel_env", "env"):
        found = getattr(_imported(env_id, module_name), attribute, None)
        if callable(found) and not (
            isinstance(found, type) and issubclass(found, ParallelEnv | AECEnv | gymnasium.Env)
        ):
            raise ConfigError(
                f"env: '{env_id}' stands in a file, and {attribute} is no environment; if you trust it, allow that "
                f"with --allow-import {module_name}"
            )


def _creator(env_id: str) -> EnvCreator:
    """Find what builds ``env_id``."""
    if not isinstance(env_id, str):
        raise ConfigError(f"env: expected a name, got {env_id!r}")
    if isinstance(env_id, NamedInFile):
        check_named_in_file(env_id)
    if env_id in _CREATORS:
        return _CREATORS[env_id]
    if env_id in qio_envs.environments():
        return _KeywordCreator(env_id, qio_envs.environment(env_id).parallel_env)
    if env_id in gymnasium.registry:
        return _KeywordCreator(env_id, _GymMaker(gymnasium.registry[env_id]))
    module_name, _, attribute = env_id.partition(":")
    module = _imported(env_id, module_name)
    build = getattr(module, attribute or "parallel_env", None)
    if not attribute and build is None:
        build = getattr(module, "env", None)  # PettingZoo's games of turns have nothing else
    if callable(build):
        return _KeywordCreator(env_id, build)
    if attribute in gymnasium.registry:
        return _KeywordCreator(env_id, _GymMaker(gymnasium.registry[attribute]))
    if not attribute:
        raise ConfigError(f"env: {module_name} has no callable 'parallel_env' or 'env'")
    raise ConfigError(
        f"env: {module_name} has no callable '{attribute}' and registers no such Gymnasium id"
        f"{did_you_mean(attribute, gymnasium.registry)}"
    )


def _imported(env_id: str, module_name: str) -> ModuleType:
    """Return a module; what is wrong with it becomes a `ConfigError`."""
    try:
        return importlib.import_module(module_name)
    except (ImportError, ValueError, TypeError) as error:
        if isinstance(error, ModuleNotFoundError) and module_name.startswith(f"{error.name}"):
            raise _unknown(env_id, error.name) from None
        raise ConfigError(f"env: {module_name} cannot be imported ({error})") from error


def _unknown(env_id: str, missing: str | None) -> ConfigError:
    """Return the error of a name that nothing goes by, for a module that is missing."""
    if missing in _PACKAGES:
        return ConfigError(f"env: '{env_id}' needs the package {missing}; pip install {missing}")
    known = [*_CREATORS, *qio_envs.environments(), *gymnasium.registry]
    return ConfigError(
        f"env: unknown environment '{env_id}'{did_you_mean(env_id, known)}; allowed: "
        f"{', '.join([*qio_envs.environments(), *_CREATORS])}, a Gymnasium id (package:id where a package "
        "registers it), module:callable, or a module with parallel_env or env"
    )


def _is_there(package: str) -> bool:
    """Return whether a module of the first level exists; it is not imported."""
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # no name, or a module that was made without a specification
        return False


def _is_in_working_directory(package: str) -> bool:
    """Return whether what would be imported as a package lies in the working directory itself, as any file may."""
    spec = importlib.util.find_spec(package)
    assert spec is not None
    folder = Path.cwd().resolve()
    places = [Path(place).resolve() for place in spec.submodule_search_locations or ()]
    places += [Path(spec.origin).resolve()] if spec.origin is not None else []
    return any(place.parent == folder or place.parent == folder / package for place in places)


class _GymMaker:
    """Makes a Gymnasium environment, also in a process that has not registered it."""

    def __init__(self, spec: gymnasium.envs.registration.EnvSpec) -> None:
        self.spec = spec

    def __call__(self, **env_config: Any) -> gymnasium.Env:
        return gymnasium.make(self.spec, **env_config)

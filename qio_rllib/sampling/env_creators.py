"""What builds the environment of a name, and which names a file may hold."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import gymnasium
from pettingzoo import AECEnv, ParallelEnv
from ray.tune.registry import ENV_CREATOR, _global_registry

import qio_envs
from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.sampling.named_in_file import ALLOWED_PACKAGES, NamedInFile, is_within

EnvCreator = Callable[[dict[str, Any]], ParallelEnv | AECEnv | gymnasium.Env]

CREATORS: dict[str, EnvCreator] = {}
"""Of names that users have registered."""
_PACKAGES = ("lbforaging", "magent2", "mpe2", "rware")
"""Packages of environments that the documentation names; each is installed under the name of its module."""
_IMPORTERS = ("GymV21Environment-v0", "GymV26Environment-v0")
"""Gymnasium ids whose environments import what their arguments name."""


def creator_of(env_id: str) -> EnvCreator:
    """Return what builds an environment.

    Raises:
        ConfigError: Nothing goes by that name, its package is not installed, or a file may not hold it.
    """
    if not isinstance(env_id, str):
        raise ConfigError(f"env: expected a name, got {env_id!r}")
    if isinstance(env_id, NamedInFile):
        check_named_in_file(env_id)
    if env_id in CREATORS:
        return CREATORS[env_id]
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


def check_named_in_file(env_id: NamedInFile) -> None:
    """Refuse a name that would import what neither this project nor the user allows; imports nothing else.

    Allowed are names of `register_env` and of Tune's registry, ids of ``qio_envs``, Gymnasium ids that are registered
    already, and of `ALLOWED_PACKAGES` Gymnasium ids, modules with ``parallel_env`` or ``env``, and classes of
    environments.

    Raises:
        ConfigError: Anything else that exists, with what would allow it; or nothing goes by that name.
    """
    if (
        env_id in CREATORS
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


class _KeywordCreator:
    """Calls a function that takes keywords; a refused keyword becomes a `ConfigError`."""

    def __init__(self, env_id: str, build: Callable[..., Any]) -> None:
        self.env_id = env_id
        self.build = build

    def __call__(self, env_config: dict[str, Any]) -> ParallelEnv | AECEnv | gymnasium.Env:
        with keyword_errors(self.env_id):
            return self.build(**env_config)


@contextlib.contextmanager
def keyword_errors(env_id: str) -> Iterator[None]:
    """Make a `ConfigError` of what an environment's constructor says of its arguments."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f"env_config: {error}") from error
    except TypeError as error:
        raise ConfigError(f"env_config of {env_id}: {error}") from error
    except gymnasium.error.Error as error:
        raise ConfigError(f"env: {env_id} cannot be made: {' '.join(str(error).split())}") from error


class _GymMaker:
    """Makes a Gymnasium environment, also in a process that has not registered it."""

    def __init__(self, spec: gymnasium.envs.registration.EnvSpec) -> None:
        self.spec = spec

    def __call__(self, **env_config: Any) -> gymnasium.Env:
        return gymnasium.make(self.spec, **env_config)


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
    known = [*CREATORS, *qio_envs.environments(), *gymnasium.registry]
    return ConfigError(
        f"env: unknown environment '{env_id}'{did_you_mean(env_id, known)}; allowed: "
        f"{', '.join([*qio_envs.environments(), *CREATORS])}, a Gymnasium id (package:id where a package "
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

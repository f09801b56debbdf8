"""Names for Ray: ``import qio_rllib`` makes algorithms and environments known to Tune without importing Ray.

Importing Ray and torch takes seconds and is no business of somebody who only loads a policy file. So nothing is
imported here: where Ray's registries are loaded already, names are entered at once; otherwise they are entered right
after Ray loads them, by a finder in ``sys.meta_path`` that steps in for these two modules and for no other:

- ``ray.rllib.algorithms.registry`` holds a table of functions, by algorithm, that RLlib calls when Tune first meets a
  name that it does not know. Ours join it: ``tune.run("A2C", ...)`` imports ours, and "PPO" and "DQN" mean ours.
- ``ray.tune.registry`` keeps what builds an environment. The ids of ``qio_envs`` are entered with an object that
  imports what it needs when it is called.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any

import qio_envs

ALGORITHM_NAMES = (
    "A2C", "COMA", "DQN", "Federated", "MAAC", "MADDPG", "MASAC", "PPO", "QMIX", "VDN", "WorldModel",
)  # fmt: skip
"""Keys of `qio_rllib.algorithms.ALGORITHMS`, which cannot be imported here."""

_ALGORITHM_REGISTRY = "ray.rllib.algorithms.registry"
_TUNE_REGISTRY = "ray.tune.registry"


class EnvCreator:
    """Builds an environment of ``qio_envs`` as RLlib's runners take it.

    Args:
        env_id: Its id.
    """

    def __init__(self, env_id: str) -> None:
        self.env_id = env_id

    def __call__(self, env_config: Mapping[str, Any]) -> Any:
        """Return the environment with these settings."""
        from qio_rllib.sampling.environments import make_rllib_env

        return make_rllib_env(self.env_id, env_config)


def register() -> None:
    """Enter all names into Ray's registries, now or when Ray loads them."""
    waiting: dict[str, Callable[[ModuleType], None]] = {}
    for name, enter in ((_ALGORITHM_REGISTRY, _enter_algorithms), (_TUNE_REGISTRY, _enter_environments)):
        if name in sys.modules:
            enter(sys.modules[name])
        else:
            waiting[name] = enter
    if waiting:
        sys.meta_path.insert(0, _AfterImport(waiting))


class _AfterImport(importlib.abc.MetaPathFinder):
    """Calls functions with modules right after these were loaded for the first time."""

    def __init__(self, waiting: dict[str, Callable[[ModuleType], None]]) -> None:
        self._waiting = waiting

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        """Return the module's own specification, whose loader also makes the call."""
        if fullname not in self._waiting:
            return None
        enter = self._waiting.pop(fullname)
        spec = importlib.util.find_spec(fullname)  # by the other finders: this one no longer waits for it
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_enter(module: ModuleType) -> None:
                execute(module)
                enter(module)

            setattr(spec.loader, "exec_module", execute_and_enter)  # noqa: B010
        return spec


def _enter_algorithms(registry: ModuleType) -> None:
    for name in ALGORITHM_NAMES:
        registry.ALGORITHMS[name] = _Import(name)
    tune = sys.modules.get(_TUNE_REGISTRY)
    if tune is None:
        return
    # If this very process (a worker asks its driver) took RLlib's algorithms from the table before, it holds old ones.
    entered = {*tune._global_registry._to_flush, *tune._global_registry._registered}
    if (tune.TRAINABLE_CLASS, "PPO") in entered:
        for name in ALGORITHM_NAMES:
            tune.register_trainable(name, _Import(name)()[0])


def _enter_environments(registry: ModuleType) -> None:
    for env_id in qio_envs.environments():
        registry.register_env(env_id, EnvCreator(env_id))


class _Import:
    """An entry of RLlib's table: returns an algorithm's class and its default configuration."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> tuple[Any, Any]:
        algorithms = importlib.import_module("qio_rllib.algorithms")
        config = algorithms.ALGORITHMS[self.name]()
        return config.algo_class, config

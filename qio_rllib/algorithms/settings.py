"""The settings of an algorithm: one table of keys, one check, one way to the method that takes each.

YAML files, plain dictionaries (``tune.run("PPO", config={...})``), ``config.to_dict()`` and the Python builder all go
through here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import re
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Annotated, Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.algorithms.own_settings import OWN_MODEL_SETTINGS
from qio_rllib.algorithms.rllib_keys import ALIASES, OLD_STACK, RENAMED, SETTERS, TYPES
from qio_rllib.algorithms.search_spaces import combinations, holds_search_space
from qio_rllib.algorithms.setting_types import (
    Range,
    check_numbers,
    checked_value,
    listing,
    members,
    one_line,
    readable,
    shown,
    split,
)
from qio_rllib.layers import ACTIVATIONS
from qio_rllib.models.memory import memory_kind
from qio_rllib.models.networks import NetworkSettings


@dataclasses.dataclass(frozen=True)
class Setting:
    """One setting: the method that takes it, and what it may be."""

    name: str
    setter: str
    annotation: Any

    @property
    def in_file(self) -> bool:
        """Whether a file can hold a value for it; classes and functions are for Python."""
        parts = members(self.annotation)
        return Any in parts or not {readable(member) for member in parts} <= {None, "null"}

    def checked(self, value: Any, settings: Settings, where: str, in_python: bool) -> Any:
        """Return the value, or raise `ConfigError` with the key and what is allowed.

        Of grids every alternative is checked; of other search spaces nothing can be.
        """
        if holds_search_space(value):
            for _, alternative in combinations(value):
                if not holds_search_space(alternative):
                    self.checked(alternative, settings, where, in_python)
            return value
        key = f"{where}.{self.name}"
        if self.name != "env_config" and isinstance(value, Mapping | list | tuple):
            check_numbers(key, value)
        if self.name == "model_config":
            return (
                value if in_python else checked_model_config(value)
            )  # `rl_module` knows whose modules they are
        if self.name == "evaluation_config" and isinstance(value, Mapping):
            return {
                inner: settings.find(inner, key).checked(item, settings, key, in_python)
                for inner, item in value.items()
            }
        if self.name == "algorithm_config_overrides_per_module" and isinstance(value, Mapping):
            for module_id, overrides in value.items():
                checked_value(f"{key}.{module_id}", overrides, dict, in_python)
                for inner, item in overrides.items():
                    place = f"{key}.{module_id}"
                    settings.find(inner, place).checked(item, settings, place, in_python)
        return checked_value(key, value, self.annotation, in_python)


@dataclasses.dataclass(frozen=True)
class Settings:
    """All settings of an algorithm, and the names that are none.

    Attributes:
        algorithm: Its name, for messages.
        known: By name.
        deprecated: Names that RLlib has given up.
        setters: Methods of the configuration that take settings.
        own: Names of what ``training`` takes.
        elsewhere: Of names that only other algorithms take, those algorithms.
    """

    algorithm: str
    known: Mapping[str, Setting]
    deprecated: Collection[str]
    setters: Collection[str]
    own: Sequence[str]
    elsewhere: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)

    def find(self, key: Any, where: str = "config") -> Setting:
        """Return the setting of a key.

        Raises:
            ConfigError: There is none.
        """
        name = ALIASES.get(key, key)
        if name in self.known:
            return self.known[name]
        if name in RENAMED:
            raise ConfigError(f"{where}.{key}: an old name; use '{RENAMED[name]}'")
        if name in self.elsewhere:
            takers = listing(self.elsewhere[name])
            raise ConfigError(f"{where}.{key}: a setting of {takers}, which {self.algorithm} does not have")
        if name in self.deprecated or name in OLD_STACK:
            raise ConfigError(f"{where}.{key}: RLlib's new API stack no longer takes it")
        if name in ("env", "run", "stop", "checkpoint_config"):
            raise ConfigError(f"{where}.{key}: stands beside config, not in it")
        if name in self.setters:
            raise ConfigError(f"{where}.{key}: its settings stand directly under config")
        settable = [setting.name for setting in self.known.values() if setting.in_file]
        of_networks = did_you_mean(str(key), _model_settings()).replace("mean '", "mean 'model_config.")
        hint = did_you_mean(str(key), [*settable, *RENAMED]) or of_networks
        allowed = (
            ""
            if hint
            else f"; allowed: {', '.join(self.own)}, and RLlib's settings of {', '.join(self.setters)}"
        )
        raise ConfigError(f"{where}: unknown key '{key}'{hint}{allowed}")

    def checked(self, key: str, value: Any, where: str = "config", in_python: bool = False) -> Any:
        """Return the value of a key as its setter takes it.

        Args:
            key: Its name.
            value: What was given.
            where: For messages.
            in_python: Whether classes and other objects of Python can be given.

        Raises:
            ConfigError: An unknown key, or a value that it does not take.
        """
        return self.find(key, where).checked(value, self, where, in_python)


@functools.cache
def settings_of(config_class: Any, others: tuple[Any, ...] = ()) -> Settings:
    """Collect what the setters of an algorithm's configuration take, inherited ones included.

    Args:
        config_class: The configuration.
        others: Those of other algorithms, whose settings are refused by name.
    """
    known: dict[str, Setting] = {}
    deprecated: set[str] = set()
    setters = [name for name in SETTERS if hasattr(config_class, name)]
    for setter in setters:
        for name, parameter in _signature(config_class, setter).items():
            if name.startswith("_") or name in RENAMED or name in OLD_STACK or name == "env":
                continue
            if (
                type(parameter.default) is int and parameter.default == -1
            ):  # RLlib's mark of a deprecated name
                deprecated.add(name)
            elif name not in known:
                known[name] = Setting(name, setter, _limited(name, parameter.annotation))
    elsewhere: dict[str, set[str]] = {}
    for other in others:
        for name in settings_of(other).own:
            if name not in known:
                elsewhere.setdefault(name, set()).add(algorithm_name(other))
    own = sorted(name for name, setting in known.items() if setting.setter == "training")
    return Settings(
        algorithm_name(config_class),
        known,
        frozenset(deprecated - known.keys()),
        setters,
        own,
        {name: sorted(takers) for name, takers in elsewhere.items()},
    )


def algorithm_name(config_class: type[AlgorithmConfig]) -> str:
    """Return what messages call the algorithm of a configuration."""
    return config_class.__name__.removesuffix("Config")


def apply_settings(
    config: AlgorithmConfig,
    settings: Settings,
    values: Mapping[str, Any],
    env: Any = NotProvided,
    in_python: bool = False,
) -> None:
    """Check settings and give each to the method of the configuration that takes it.

    Args:
        config: What is changed.
        settings: Of its class.
        values: By key; whichever method takes them.
        env: The environment, set with ``env_config``.
        in_python: Whether classes and other objects of Python can be given.

    Raises:
        ConfigError: An unknown key, or a value that is refused; nothing may be changed then, or a part.
    """
    calls: dict[str, dict[str, Any]] = {}
    for key, value in values.items():
        setting = settings.find(key)
        checked = setting.checked(value, settings, "config", in_python)
        calls.setdefault(setting.setter, {})[setting.name] = checked
    if env is not NotProvided:
        calls.setdefault("environment", {})["env"] = env
    for setter in SETTERS:
        if setter in calls:
            with refusals("config", calls[setter]):
                getattr(config, setter)(**calls[setter])


def checked_model_config(values: Any) -> Any:
    """Return a ``model_config`` of this package's modules, or raise `ConfigError` with the key and what is allowed."""
    where = "config.model_config"
    if values is None:
        return None
    if isinstance(values, DefaultModelConfig):
        default = dataclasses.asdict(DefaultModelConfig())
        values = {key: value for key, value in dataclasses.asdict(values).items() if value != default[key]}
    if not isinstance(values, Mapping):
        raise ConfigError(f"{where}: expected a mapping, got {shown(values)}")
    types = _model_settings()
    for key, value in values.items():
        if key in OWN_MODEL_SETTINGS:
            raise ConfigError(f"{where}.{key}: stands directly under config")
        if key not in types:
            if key in typing.get_type_hints(DefaultModelConfig):
                raise ConfigError(f"{where}.{key}: the networks of this package have no such setting")
            raise ConfigError(
                f"{where}: unknown key '{key}'{did_you_mean(str(key), types)}; allowed: {', '.join(types)}"
            )
        if key.endswith("_activation"):
            if value is not None and value not in ACTIVATIONS:
                hint = did_you_mean(value, ACTIVATIONS) if isinstance(value, str) else ""
                raise ConfigError(
                    f"{where}.{key}: expected one of {', '.join(ACTIVATIONS)}, got {shown(value)}{hint}"
                )
            continue
        checked_value(f"{where}.{key}", value, types[key])
        if key.endswith("_hiddens") and any(size < 1 for size in value):
            raise ConfigError(f"{where}.{key}: expected sizes of at least 1, got {value}")
    memory_kind(values)
    return dict(values)


@functools.cache
def _model_settings() -> dict[str, Any]:
    """Return the types of the keys of ``model_config`` that this package's modules read."""
    rllib = typing.get_type_hints(DefaultModelConfig)
    networks = [field.name for field in dataclasses.fields(NetworkSettings)]
    return {
        **{name: rllib[name] for name in [*networks, "vf_share_layers", "use_lstm"]},
        "lstm_cell_size": Annotated[int, Range(1)],
        "use_gru": bool,
        "gru_cell_size": Annotated[int, Range(1)],
        "max_seq_len": Annotated[int, Range(1)],
    }


@contextlib.contextmanager
def refusals(where: str, keys: Collection[str]) -> Iterator[None]:
    """Turn what RLlib or an environment raises for a value into a one-line `ConfigError` with the key."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(one_line(error)) from error
    except Exception as error:  # any value may be refused by any error
        text = one_line(error).partition(" To suppress all validation errors")[0]
        places = {key: re.search(rf"\b{re.escape(str(key))}\b", text) for key in keys}
        named = {key: place.start() for key, place in places.items() if place is not None}
        key = f"{where}.{min(named, key=lambda name: named[name])}" if named else where
        raise ConfigError(f"{key}: {text or type(error).__name__}") from error


def _limited(name: str, annotation: Any) -> Any:
    """Return what the table of RLlib's settings says of a name; an annotation of our own says its limits itself."""
    return annotation if split(annotation)[1] else TYPES.get(name, annotation)


def _signature(config_class: type, method: str) -> dict[str, inspect.Parameter]:
    """Return a method's parameters with those that its ``**kwargs`` pass on; the most derived class wins."""
    found: dict[str, inspect.Parameter] = {}
    for owner in config_class.__mro__:
        if method not in vars(owner):
            continue
        function = vars(owner)[method]
        passes_on = False
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                passes_on = True
            elif parameter.name not in found:
                annotation = _evaluated(parameter.annotation, function)
                found[parameter.name] = parameter.replace(annotation=annotation)
        if not passes_on:
            break
    return found


def _evaluated(annotation: Any, function: Callable[..., Any]) -> Any:
    """Return an annotation as an object; one whose names are not there is taken as ``Any``."""
    if isinstance(annotation, str):
        try:
            return eval(annotation, function.__globals__)
        except Exception:  # names that are imported for type checkers only
            return Any
    return Any if annotation is inspect.Parameter.empty else annotation

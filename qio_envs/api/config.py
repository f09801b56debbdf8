"""Environment configurations: frozen dataclasses that check themselves, named scenarios, content hashes."""

from __future__ import annotations

import dataclasses
import difflib
import functools
import hashlib
import json
import math
import numbers
import reprlib
from collections.abc import Iterable, Mapping
from importlib import resources
from typing import Any, Self

from ruamel.yaml import YAML

_INTEGERS, _NESTED = "tuple[int, ...]", "tuple[Any, ...]"  # types of settings, as they are written


class ConfigError(ValueError):
    """A configuration key or value that cannot be used; the message names the key and what is allowed."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` (did you mean 'x'?)`` for a near miss of ``name`` among ``known``, else an empty string.

    Capitals count for nothing, so that ``ppo`` is near ``PPO``.
    """
    folded = {each.casefold(): each for each in map(str, known)}
    near = difflib.get_close_matches(str(name).casefold(), folded, n=1, cutoff=0.6)
    return f" (did you mean '{folded[near[0]]}'?)" if near else ""


class UnknownSettingError(ConfigError, TypeError):
    """A setting that an environment does not have; also a TypeError, as for a keyword that a function does not take.

    Args:
        message: What is wrong.
        key: The setting; "" where somebody has rephrased the message (Gymnasium does).
    """

    def __init__(self, message: str, key: str = "") -> None:
        super().__init__(message, key)
        self.key = key

    def __str__(self) -> str:
        """Return the message."""
        return str(self.args[0])


def check_keys(where: str, settings: Any, known: Iterable[str]) -> None:
    """Refuse what is no mapping, or holds an unknown key.

    Raises:
        ConfigError: The message names ``where``, the key with a suggestion, and what is allowed.
    """
    known = list(known)
    if not isinstance(settings, Mapping):
        raise ConfigError(f"{where}: expected a mapping of {', '.join(known)}, got {settings!r}")
    for key in settings:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ConfigError(f"{where}: unknown key '{key}'{hint}; allowed: {', '.join(known)}")


def setting(
    default: Any,
    doc: str,
    *,
    low: float | None = None,
    high: float | None = None,
    choices: tuple[str, ...] | None = None,
    added: bool = False,
) -> Any:
    """Declare a field of an `EnvConfig`.

    Args:
        default: Default value.
        doc: Meaning, with the unit.
        low: Least allowed number; None for no bound.
        high: Greatest allowed number; None for no bound.
        choices: Allowed texts; None for any.
        added: Whether the setting came to an environment that had results before, whose behaviour is that of the
            default: at its default it is no part of the content hash, which so remains that of the results.
    """
    return dataclasses.field(
        default=default,
        metadata={"doc": doc, "low": low, "high": high, "choices": choices, "added": added},
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class EnvConfig:
    """Base of every environment's configuration.

    A subclass declares fields with `setting`; types (``int``, ``float``, ``bool``, ``str``, or one of them
    ``| None``, or ``tuple[int, ...]``, for which lists go too) and ranges are checked on construction, and `validate`
    adds checks across fields. The range of a tuple is that of each of its numbers.

    Raises:
        ConfigError: A value has the wrong type or lies outside its range.
    """

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            object.__setattr__(self, field.name, _checked(field, getattr(self, field.name)))
        self.validate()

    def validate(self) -> None:
        """Check what concerns several fields at once; raise `ConfigError` with both keys named."""

    @property
    def observation_layout(self) -> dict[str, slice]:
        """Slices of an agent's observation by what they hold; empty where they have no names."""
        return {}

    @classmethod
    def allowed_keys(cls) -> tuple[str, ...]:
        """Return the names of all settings."""
        return tuple(field.name for field in dataclasses.fields(cls))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Self:
        """Build a configuration, refusing unknown keys with a suggestion.

        Raises:
            UnknownSettingError: An unknown key.
            ConfigError: A value that does not fit.
        """
        known = ("scenario", *cls.allowed_keys())
        for key in values:
            if key not in cls.allowed_keys():
                raise UnknownSettingError(
                    f"unknown environment setting '{key}'{did_you_mean(key, known)}; "
                    f"allowed: {', '.join(known)}",
                    key,
                )
        return cls(**values)

    @classmethod
    def scenarios(cls) -> dict[str, dict[str, Any]]:
        """Return the named settings in ``scenarios.yaml`` beside the environment, by scenario name; none without it."""
        package = cls.__module__.rpartition(".")[0]
        return {name: dict(values or {}) for name, values in _read_scenarios(package).items()}

    @classmethod
    def from_scenario(cls, scenario: str = "default", **overrides: Any) -> Self:
        """Return a named scenario's configuration with ``overrides`` put on top.

        Raises:
            ConfigError: An unknown scenario or key, or a value that does not fit.
        """
        scenarios = cls.scenarios()
        if scenario not in scenarios:
            raise ConfigError(
                f"unknown scenario '{scenario}'{did_you_mean(scenario, scenarios)}; "
                f"allowed: {', '.join(scenarios)}"
            )
        return cls.from_mapping({**scenarios[scenario], **overrides})

    def as_dict(self) -> dict[str, Any]:
        """Return every setting as plain Python values, tuples as lists."""
        return {field.name: _as_lists(getattr(self, field.name)) for field in dataclasses.fields(self)}

    def content_hash(self, env_id: str) -> str:
        """Return 12 hex digits that identify the environment version and every resolved setting (SHA-256).

        Settings that were `added` to the version later count only where they differ from their default.
        """
        values = self.as_dict()
        for field in dataclasses.fields(self):
            if field.metadata["added"] and getattr(self, field.name) == field.default:
                del values[field.name]
        text = json.dumps({"id": env_id, **values}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def described(self, env_id: str) -> str:
        """Return the environment's id, the name of the scenario with these settings, and the content hash, as a line.

        Settings of no scenario have ``own`` in the place of its name.
        """
        named = (name for name in self.scenarios() if self.from_scenario(name) == self)
        return f"{env_id} {next(named, 'own')} {self.content_hash(env_id)}"


@functools.cache
def _read_scenarios(package: str) -> dict[str, dict[str, Any] | None]:
    if not package:
        return {}
    file = resources.files(package) / "scenarios.yaml"
    return YAML(typ="safe", pure=True).load(file.read_text(encoding="utf-8")) if file.is_file() else {}


def _checked(field: dataclasses.Field, value: Any) -> Any:
    """Return ``value`` in the field's type, or raise `ConfigError` naming the key and what is allowed."""
    text = field.type.__name__ if isinstance(field.type, type) else str(field.type)
    kinds = {kind.strip() for kind in text.split("|")}
    low, high, choices = (field.metadata[key] for key in ("low", "high", "choices"))
    allowed = _allowed_text(kinds, low, high, choices)
    if value is None and "None" in kinds:
        return None
    if "bool" in kinds:
        ok = isinstance(value, bool)
    elif "int" in kinds:  # NumPy's scalars count as well
        ok = is_integer(value)
        value = int(value) if ok else value
    elif _INTEGERS in kinds:
        ok = isinstance(value, list | tuple) and all(is_integer(item) for item in value)
        value = tuple(int(item) for item in value) if ok else value
    elif _NESTED in kinds:
        return _checked_nested(field.name, value, allowed, low, high)
    elif "float" in kinds:
        ok = isinstance(value, numbers.Real) and not isinstance(value, bool) and math.isfinite(value)
        value = float(value) if ok else value
    else:
        ok = isinstance(value, str)
    if ok and choices is not None:
        ok = value in choices
    items = value if isinstance(value, tuple) else (value,)
    if ok and low is not None:
        ok = all(item >= low for item in items)
    if ok and high is not None:
        ok = all(item <= high for item in items)
    if not ok:
        hint = did_you_mean(value, choices) if choices and isinstance(value, str) else ""
        shown = list(value) if isinstance(value, tuple) else value
        raise ConfigError(f"{field.name}: expected {allowed}, got {shown!r}{hint}")
    return value


def _as_lists(value: Any) -> Any:
    """Return tuples as lists, at every depth."""
    return [_as_lists(item) for item in value] if isinstance(value, tuple) else value


def _checked_nested(name: str, value: Any, allowed: str, low: float | None, high: float | None) -> Any:
    """Return nested tuples of floats, or raise `ConfigError` naming the place of what does not fit."""
    value = value.tolist() if hasattr(value, "tolist") else value
    shape, first = [], value
    while isinstance(first, list | tuple) and first:
        shape.append(len(first))
        first = first[0]

    def checked(part: Any, depth: int, place: str) -> Any:
        if depth < len(shape) and isinstance(part, list | tuple):
            if len(part) != shape[depth]:
                raise ConfigError(
                    f"{name}{place}: expected {shape[depth]} entries as in its neighbours, got {len(part)}"
                )
            return tuple(checked(item, depth + 1, f"{place}[{index}]") for index, item in enumerate(part))
        fits = isinstance(part, numbers.Real) and not isinstance(part, bool) and math.isfinite(part)
        fits = fits and (low is None or part >= low) and (high is None or part <= high)
        if not fits or not 0 < depth == len(shape):
            raise ConfigError(f"{name}{place}: expected {allowed}, got {reprlib.repr(part)}")
        return float(part)

    return checked(value, 0, "")


def is_integer(value: object) -> bool:
    """Return whether a value is an integer, NumPy's included, and no bool."""
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _allowed_text(
    kinds: set[str], low: float | None, high: float | None, choices: tuple[str, ...] | None
) -> str:
    if choices is not None:
        return f"one of {', '.join(choices)}"
    names = {
        "int": "an integer",
        "float": "a number",
        "bool": "true or false",
        "str": "a text",
        _INTEGERS: "a list of integers",
        _NESTED: "nested lists of numbers",
    }
    text = next(name for kind, name in names.items() if kind in kinds)
    if low is not None and high is not None:
        text += f" from {low} to {high}"
    elif low is not None:
        text += f" of at least {low}"
    return text + (" or null" if "None" in kinds else "")

"""Types, ranges and schedules of settings: what a value may be, and how a message says so."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import operator
import re
import types
import typing
from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, Literal

import numpy as np
import pydantic

from qio_envs.api import ConfigError, did_you_mean

_TYPE_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a text",
    dict: "a mapping",
    Mapping: "a mapping",
    list: "a list",
    tuple: "a list",
    Sequence: "a list",
    Collection: "a list",
    set: "a list",
    type(None): "null",
}


_ERROR_TYPES = {
    "int_type": int,
    "int_from_float": int,
    "float_type": float,
    "bool_type": bool,
    "string_type": str,
    "list_type": list,
    "dict_type": dict,
    "mapping_type": dict,
}


LARGEST_INTEGER = 2**31 - 1
"""The largest integer that a setting takes which names no other bound."""
LARGEST_NUMBER = float(np.finfo(np.float32).max)
"""The largest magnitude of any number: networks and losses are float32."""


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that a setting takes; stands in ``Annotated[float, Range(0, 1)]``. They are finite in any case.

    Attributes:
        low: The least one.
        high: The largest one; None for `LARGEST_INTEGER` of integers, and for no bound of others.
        low_open: Whether ``low`` itself is left out.
    """

    low: float = 0
    high: float | None = None
    low_open: bool = False

    def admits(self, value: float) -> bool:
        """Return whether a number is in the range."""
        above = value > self.low if self.low_open else value >= self.low
        return above and (self.high is None or value <= self.high)

    def __str__(self) -> str:
        """Say it as a message does."""
        if self.low_open:
            return f"above {self.low}" + ("" if self.high is None else f", up to {self.high}")
        return f"of at least {self.low}" if self.high is None else f"from {self.low} to {self.high}"


@dataclasses.dataclass(frozen=True)
class Schedule:
    """A number, or ``[[0, first], [steps, value], ...]`` over environment steps; stands in ``Annotated``.

    Attributes:
        high: The largest value; None for no bound. The least is 0.
        nullable: Whether null stands for something too.
    """

    high: float | None = None
    nullable: bool = False

    def check(self, key: str, value: Any) -> None:
        """Refuse what is no such number or schedule.

        Raises:
            ConfigError: Naming the key.
        """
        if value is None and self.nullable:
            return
        points = value if isinstance(value, Sequence) and not isinstance(value, str) else [[0, value]]
        pairs = [tuple(point) if isinstance(point, Sequence) else () for point in points]
        if (
            not pairs
            or not all(len(pair) == 2 and _fits(pair[0], int) and _fits(pair[1]) for pair in pairs)
            or pairs[0][0] != 0
            or any(before[0] >= after[0] for before, after in itertools.pairwise(pairs))
            or (self.high is not None and any(pair[1] > self.high for pair in pairs))
        ):
            allowed = Range(0, self.high)
            raise ConfigError(
                f"{key}: expected a number {allowed}, or [[0, first], [steps, value], ...] with rising steps"
                f"{', or null' if self.nullable else ''}, got {shown(value)}"
            )


def checked_value(key: str, value: Any, annotation: Any, in_python: bool = False) -> Any:
    """Return a value if its type and range fit; NumPy's numbers become Python's.

    Args:
        key: For messages.
        value: What was given.
        annotation: A type, perhaps ``Annotated`` with a `Range` or a `Schedule`.
        in_python: Whether classes, functions and other objects of Python may be given where the annotation has them.

    Raises:
        ConfigError: The message names the key, what is allowed and what was given.
    """
    if isinstance(value, np.generic):
        value = value.item()
    annotation, limits = split(annotation)
    for limit in limits:
        if isinstance(limit, Schedule):
            limit.check(key, value)
            return value
    value = _checked_type(key, value, annotation, in_python)
    if isinstance(value, int | float) and not isinstance(value, bool):
        for limit in limits:
            if not isinstance(limit, Range):
                continue
            number = "a number" if float in members(annotation) else "an integer"
            if limit.high is None and number == "an integer" and value > LARGEST_INTEGER:
                limit = dataclasses.replace(limit, high=LARGEST_INTEGER)
            if not limit.admits(value):
                raise ConfigError(f"{key}: expected {number} {limit}, got {shown(value)}")
    return value


def check_numbers(key: str, value: Any) -> None:
    """Refuse numbers inside mappings and lists that no setting means: not finite, or beyond a float32 or 32 bits.

    Settings of environments, ``env_config``, are left to these.

    Raises:
        ConfigError: Naming the place.
    """
    if isinstance(value, Mapping):
        for name, item in value.items():
            if name != "env_config":
                check_numbers(f"{key}.{name}", item)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            check_numbers(f"{key}.{index}", item)
    elif isinstance(value, float) and not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
        raise ConfigError(f"{key}: expected a finite number up to {LARGEST_NUMBER:.3g}, got {shown(value)}")
    elif isinstance(value, int) and not -(2**32) < value < 2**32:
        raise ConfigError(f"{key}: expected an integer of at most 32 bits, got {shown(value)}")


def split(annotation: Any) -> tuple[Any, tuple[Any, ...]]:
    """Return the type and the limits of an annotation."""
    if typing.get_origin(annotation) is Annotated:
        bare, *limits = typing.get_args(annotation)
        return bare, tuple(limits)
    return annotation, ()


def members(annotation: Any) -> list[Any]:
    """Return the members of a union, or the annotation alone."""
    annotation, _ = split(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [member for part in typing.get_args(annotation) for member in members(part)]
    return [annotation]


def readable(annotation: Any) -> str | None:
    """Say what a type is called in a file; None for what only Python code can give, such as a class."""
    if annotation is None:
        annotation = type(None)
    if typing.get_origin(annotation) is Literal:
        return " or ".join(str(choice) for choice in typing.get_args(annotation))
    origin, items = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    inner = [member for item in items if item is not ... for member in members(item)]
    if _TYPE_NAMES.get(origin) == "a list" and inner and Any not in inner and not any(map(readable, inner)):
        return None
    return _TYPE_NAMES.get(origin)


def listing(names: Sequence[str]) -> str:
    """Return ``a, b or c``."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def shown(value: Any) -> str:
    """Return a value as a message shows it: its repr, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def one_line(problem: Any) -> str:
    """Return a text or an error's message with all white space folded."""
    return " ".join(str(problem).split())


def _fits(number: Any, kinds: Any = int | float) -> bool:
    """Return whether this is a number of at least 0 and at most the largest, and of a kind."""
    return isinstance(number, kinds) and not isinstance(number, bool) and 0 <= number <= LARGEST_NUMBER


def _checked_type(key: str, value: Any, annotation: Any, in_python: bool) -> Any:
    """Return the value if a type of the annotation takes it; an integer is a number too."""
    parts = members(annotation)
    if Any in parts:
        return value
    usable = [member for member in parts if readable(member) is not None]
    names = list(dict.fromkeys(name for name in map(readable, usable) if name is not None))
    if in_python and len(usable) < len(parts) and _is_python_object(value):
        return value
    if set(names) <= {"null"}:
        if value is None:
            return None
        raise ConfigError(f"{key}: takes a Python object and can only be set in Python")
    if isinstance(value, int | float) and not -LARGEST_NUMBER <= value <= LARGEST_NUMBER:
        raise ConfigError(f"{key}: expected {listing(names)}, got {shown(value)}")
    try:
        adapter: Any = pydantic.TypeAdapter(functools.reduce(operator.or_, usable))
        adapter.validate_python(value, strict=True)
    except pydantic.ValidationError as error:
        inner = error.errors()[0]
        alone = [member for member in usable if member is not type(None)]
        if len(alone) == 1 and inner["loc"] and inner["type"] in _ERROR_TYPES:
            path = ".".join(str(part) for part in inner["loc"])
            expected = _TYPE_NAMES[_ERROR_TYPES[inner["type"]]]
            raise ConfigError(f"{key}.{path}: expected {expected}, got {shown(inner['input'])}") from error
        if _TYPE_NAMES.get(type(value)) in names and isinstance(value, list | dict):
            form = re.sub(
                r"typing\.|NoneType", lambda found: "" if "." in found[0] else "null", str(annotation)
            )
            raise ConfigError(f"{key}: expected the form {form}, got {shown(value)}") from error
        choices = [name for name in " or ".join(names).split(" or ") if name not in _TYPE_NAMES.values()]
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise ConfigError(f"{key}: expected {listing(names)}, got {shown(value)}{hint}") from error
    for member in usable:
        if typing.get_origin(member) is dict and isinstance(value, Mapping):
            for name, item in value.items():
                checked_value(f"{key}.{name}", item, typing.get_args(member)[1], in_python)
    return value


def _is_python_object(value: Any) -> bool:
    """Return whether a value is, or holds, something that no file can hold."""
    if isinstance(value, Mapping):
        return any(map(_is_python_object, value.values()))
    if isinstance(value, list | tuple | set):
        return any(map(_is_python_object, value))
    return value is not None and not isinstance(value, bool | int | float | str)

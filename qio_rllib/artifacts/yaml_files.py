"""YAML 1.2 files, in which ``3e-4`` is a number and ``no`` is a word."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError
from ruamel.yaml.error import MarkedYAMLError

from qio_envs.api import ConfigError

_LONGEST = 1_000_000  # characters; the parser takes about ten seconds for them
_MOST_VALUES = 100_000  # in a text, those behind each alias counted anew
_DEEPEST = 50  # mappings and lists in each other
_TOO_LARGE = f"expected at most {_MOST_VALUES:,} values, nested {_DEEPEST} deep, aliases written out"


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a mapping from a YAML 1.2 file.

    Raises:
        ConfigError: It cannot be read, or is no mapping; a syntax error is given with its line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        raise ConfigError(f"{path}: {reason or 'not a text file'}") from error
    values = parse_yaml(text, str(path))
    if not isinstance(values, dict):
        kind = "empty" if values is None else f"a {type(values).__name__}"
        raise ConfigError(
            f"{path}: expected a mapping 'name: {{run: ..., env: ..., ...}}', the file is {kind}"
        )
    return values


def parse_yaml(text: str, where: str) -> Any:
    """Return the value of a YAML 1.2 text.

    Args:
        text: The text.
        where: Where it stands, for messages.

    Raises:
        ConfigError: It is not valid, longer than 1,000,000 characters, holds more than 100,000 values, or is nested
            deeper than 50 levels; aliases count as what they stand for.
    """
    if len(text) > _LONGEST:
        raise ConfigError(f"{where}: longer than {_LONGEST:,} characters")
    try:
        values = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        line, problem = "", None
        if isinstance(error, MarkedYAMLError):
            line = "" if error.problem_mark is None else f", line {error.problem_mark.line + 1}"
            problem = error.problem
        raise ConfigError(f"{where}{line}: not valid YAML: {_one_line(problem or error)}") from error
    except RecursionError:
        raise ConfigError(f"{where}: {_TOO_LARGE}") from None
    except Exception as error:  # a scalar that no type takes, such as a 31st of June; faults of the parser
        raise ConfigError(f"{where}: not valid YAML: {_one_line(error) or type(error).__name__}") from error
    check_size(values, where)
    return values


def check_size(values: Any, where: str) -> None:
    """Refuse what holds more than 100,000 values or is nested deeper than 50 levels, before anything walks it.

    Raises:
        ConfigError: With ``where`` at its beginning.
    """
    count, height = _size(values, 0, {})
    if height > _DEEPEST or count > _MOST_VALUES:
        raise ConfigError(f"{where}: {_TOO_LARGE}")


def _size(value: Any, depth: int, known: dict[int, tuple[int, int]]) -> tuple[int, int]:
    """Return how many values a tree holds, and how deep; what aliases stand for is looked at once and always counted.

    A tree that is too deep, or that holds itself, is given up below `_DEEPEST`.
    """
    if not isinstance(value, dict | list | set):
        return 1, 0
    if depth > _DEEPEST:
        return 1, _DEEPEST + 1
    if id(value) not in known:
        inner = [*value, *value.values()] if isinstance(value, dict) else list(value)
        sizes = [_size(item, depth + 1, known) for item in inner]
        height = 1 + max((size[1] for size in sizes), default=0)
        known[id(value)] = 1 + sum(size[0] for size in sizes), height
    return known[id(value)]


def yaml_text(values: Mapping[str, Any]) -> str:
    """Return a mapping as YAML 1.2, keys in their order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = io.StringIO()
    yaml.dump(dict(values), text)
    return text.getvalue()


def _one_line(problem: Any) -> str:
    return " ".join(str(problem).split())


def only_entry(path: str | Path, what: str) -> tuple[str, Any]:
    """Return the name and the content of the only entry of a YAML file.

    Args:
        path: The file.
        what: Of what there is one, for messages.

    Raises:
        ConfigError: The file cannot be read, or has none or several.
    """
    values = read_yaml(path)
    if len(values) != 1:
        raise ConfigError(
            f"{path}: expected exactly one {what}, found {', '.join(map(str, values)) or 'none'}"
        )
    ((name, given),) = values.items()
    return str(name), given

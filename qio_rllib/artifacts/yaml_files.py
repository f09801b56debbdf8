"""YAML 1.2 files, in which ``3e-4`` is a number and ``no`` is a word."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from qio_envs.api import ConfigError

MAX_VALUES, MAX_DEPTH = 100_000, 50
"""Of a file: aliases of aliases can stand for more values than memory holds."""


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a mapping from a YAML 1.2 file.

    Raises:
        ConfigError: It cannot be read, or is no mapping; a syntax error is given with its line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or 'not a text file'}") from error
    try:
        values = YAML(typ="safe", pure=True).load(text)
        _check_size(values)
    except RecursionError as error:
        raise ConfigError(f"{path}: not valid YAML: nested too deep") from error
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = _one_line(getattr(error, "problem", None) or error)
        raise ConfigError(f"{path}{where}: not valid YAML: {problem}") from error
    except ValueError as error:  # a scalar that no type takes, such as an impossible date
        raise ConfigError(f"{path}: not valid YAML: {_one_line(error)}") from error
    if not isinstance(values, dict):
        kind = "empty" if values is None else f"a {type(values).__name__}"
        raise ConfigError(
            f"{path}: expected a mapping 'name: {{run: ..., env: ..., ...}}', the file is {kind}"
        )
    return values


def yaml_text(values: Mapping[str, Any]) -> str:
    """Return a mapping as YAML 1.2, keys in their order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = io.StringIO()
    yaml.dump(dict(values), text)
    return text.getvalue()


def _check_size(values: Any) -> None:
    """Refuse what is deep, as one that holds itself is, or large once its aliases are written out.

    Raises:
        ValueError: Either.
    """
    waiting, count = [(values, 0)], 0
    while waiting:
        value, depth = waiting.pop()
        count += 1
        if depth > MAX_DEPTH or count > MAX_VALUES:
            raise ValueError(
                f"expected at most {MAX_VALUES:,} values, nested {MAX_DEPTH} deep, aliases written out"
            )
        parts = value.values() if isinstance(value, dict) else value
        if isinstance(value, dict | list | tuple | set):
            waiting += [(part, depth + 1) for part in parts]


def _one_line(problem: Any) -> str:
    return " ".join(str(problem).split())

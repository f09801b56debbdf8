"""Search spaces of Ray Tune inside settings: found, checked as far as they can be, and resolved.

A grid, ``{"grid_search": [...]}``, lists what will be tried; all of it is checked before anything starts. Another
space, such as ``tune.choice`` or ``tune.loguniform``, is drawn from by Tune; a value is checked when its trial is made.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from qio_envs.api import ConfigError

GRID = "grid_search"

Path = tuple[Any, ...]
"""Keys and positions that lead to a value inside settings."""


def is_grid(value: Any) -> bool:
    """Return whether a value is ``{"grid_search": ...}``."""
    return isinstance(value, Mapping) and set(value) == {GRID}


def is_search_space(value: Any) -> bool:
    """Return whether a value itself is something that Tune replaces by a sample."""
    from ray.tune.search.sample import Domain

    return is_grid(value) or isinstance(value, Domain)


def holds_search_space(value: Any) -> bool:
    """Return whether a value is, or holds, something that Tune replaces by a sample."""
    if is_search_space(value):
        return True
    return any(map(holds_search_space, _items(value).values()))


def grids(settings: Any, at: Path = ()) -> dict[Path, list[Any]]:
    """Return the alternatives of all grids in settings, by where they stand.

    Raises:
        ConfigError: A grid without alternatives, or inside another one.
    """
    if is_grid(settings):
        key, alternatives = ".".join(map(str, at)), settings[GRID]
        if not isinstance(alternatives, list | tuple) or not alternatives:
            raise ConfigError(f"{key}: {GRID} takes a list of at least one value, got {alternatives!r}")
        if any(grids(alternative) for alternative in alternatives):
            raise ConfigError(f"{key}: a {GRID} cannot stand inside another")
        return {at: list(alternatives)}
    found: dict[Path, list[Any]] = {}
    for key, value in _items(settings).items():
        found |= grids(value, (*at, key))
    return found


def combinations(settings: Any) -> Iterator[tuple[dict[Path, Any], Any]]:
    """Yield every combination of the grids' values: the values by place, and the settings with them.

    Settings without a grid are yielded once, as they are.

    Raises:
        ConfigError: As `grids`.
    """
    found = grids(settings)
    for values in itertools.product(*found.values()):
        chosen = dict(zip(found, values, strict=True))
        resolved = settings
        for path, value in chosen.items():
            resolved = replaced(resolved, path, value)
        yield chosen, resolved


def replaced(settings: Any, path: Path, value: Any) -> Any:
    """Return a copy of settings with another value at a place."""
    if not path:
        return value
    first, *rest = path
    inner = replaced(settings[first], tuple(rest), value)
    if isinstance(settings, Mapping):
        return {**settings, first: inner}
    return type(settings)(inner if index == first else item for index, item in enumerate(settings))


def _items(value: Any) -> dict[Any, Any]:
    if isinstance(value, Mapping):
        return dict(value)
    return dict(enumerate(value)) if isinstance(value, list | tuple) else {}

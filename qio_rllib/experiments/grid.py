"""Grid searches: an experiment in which settings have several values, and the experiments that it stands for."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from qio_envs.api import ConfigError
from qio_rllib.experiments.experiment import Experiment

GRID_SEARCH = "grid_search"


def has_grids(experiment: Experiment) -> bool:
    """Whether a setting is ``{grid_search: [...]}``."""
    return any(True for _ in _grids(experiment.config, ()))


def variants(experiment: Experiment) -> list[tuple[dict[str, Any], Experiment]]:
    """Return every combination of an experiment's grids: its values by dotted key, and the experiment with them.

    The last grid varies fastest, as in nested loops in the order of the settings.

    Raises:
        ConfigError: A grid is not a list of values, or has other keys beside it.
    """
    grids = list(_grids(experiment.config, ()))
    for path, grid in grids:
        name, values = ".".join(("config", *path)), grid[GRID_SEARCH]
        if len(grid) > 1:
            other = next(key for key in grid if key != GRID_SEARCH)
            raise ConfigError(f"{name}: {GRID_SEARCH} cannot stand beside other keys, got '{other}'")
        if not isinstance(values, list) or not values:
            raise ConfigError(f"{name}.{GRID_SEARCH}: expected a list of values, got {values!r}")
    found = []
    for chosen in itertools.product(*(grid[GRID_SEARCH] for _, grid in grids)):
        config = dict(experiment.config)
        named = {}
        for (path, _), value in zip(grids, chosen, strict=True):
            config = _with(config, path, value)
            named[".".join(("config", *path))] = value
        found.append((named, dataclasses.replace(experiment, config=config)))
    return found


def _grids(
    values: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], Mapping[str, Any]]]:
    """Yield the path of every grid and the mapping that holds it."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            here = (*path, str(key))
            if GRID_SEARCH in value:
                yield here, value
            else:
                yield from _grids(value, here)


def _with(values: Mapping[str, Any], path: tuple[str, ...], value: Any) -> dict[str, Any]:
    """Return a mapping with a value at a path; what is not on the way is shared."""
    first, *rest = path
    return {**values, first: _with(values[first], tuple(rest), value) if rest else value}

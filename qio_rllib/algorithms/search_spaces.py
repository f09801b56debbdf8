"""Search spaces of Ray Tune inside settings: found, checked as far as they can be, and resolved.

A grid, ``{"grid_search": [...]}``, lists what will be tried; all of it is checked before anything starts. Another
space, such as ``tune.choice`` or ``tune.loguniform``, is drawn from by Tune; a value is checked when its trial is made.
In the settings of an experiment samplers are written as mappings, ``{"loguniform": [1e-5, 1e-3]}``, and `variants`
draws from them, with Tune's own samplers, before anything starts.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from qio_envs.api import ConfigError

if TYPE_CHECKING:
    from ray.tune.search.sample import Domain

GRID = "grid_search"

SAMPLERS = ("uniform", "loguniform", "randint", "choice")
"""Samplers of ``ray.tune`` that an experiment can name; ``randint`` leaves the upper bound out, as Tune does."""

MOST_VARIANTS = 10_000
"""Runs that one experiment can stand for."""

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


def is_sampler(value: Any) -> bool:
    """Return whether a value is a mapping with the name of a sampler as its only key."""
    return isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) in SAMPLERS


def samplers(settings: Any, at: Path = ()) -> dict[Path, Domain]:
    """Return the samplers in settings, by where they stand; alternatives of grids are not looked into.

    Raises:
        ConfigError: One has no range, or none that it can draw from.
    """
    if is_sampler(settings):
        return {at: _domain(".".join(map(str, at)), *next(iter(settings.items())))}
    found: dict[Path, Domain] = {}
    if not is_grid(settings):
        for key, value in _items(settings).items():
            found |= samplers(value, (*at, key))
    return found


def holds_alternatives(value: Any) -> bool:
    """Return whether settings of an experiment stand for several values: a grid, a sampler, or a space of Tune."""
    if is_sampler(value) or is_search_space(value):
        return True
    return any(map(holds_alternatives, _items(value).values()))


def variants(settings: Any, samples: int, seed: int) -> Iterator[tuple[dict[Path, Any], Any]]:
    """Yield draws from the samplers, each with every combination of the grids: values by place, settings with them.

    The first draws are the same, however many there are.

    Args:
        settings: Those of an experiment.
        samples: Number of draws.
        seed: Of the draws.

    Raises:
        ConfigError: A grid or sampler that is none, one inside the other, several draws without a sampler, or more than
            `MOST_VARIANTS` variants.
    """
    drawing, found = samplers(settings), grids(settings)
    for path, alternatives in found.items():
        if any(map(holds_alternatives, alternatives)):
            raise ConfigError(f"{'.'.join(map(str, path))}: a search cannot stand inside a {GRID}")
    if samples > 1 and not drawing:
        raise ConfigError(
            "num_samples: nothing is drawn; name a sampler under config, such as lr: {loguniform: [1e-5, 1e-3]} "
            "(several seeds: --seeds 0-4)"
        )
    count = samples * math.prod(map(len, found.values()))
    if count > MOST_VARIANTS:
        raise ConfigError(
            f"config: the search stands for {count:,} runs; at most {MOST_VARIANTS:,} are allowed"
        )
    rng = np.random.default_rng(seed)
    for _ in range(samples):
        drawn = {path: _plain(domain.sample(random_state=rng)) for path, domain in drawing.items()}
        resolved = settings
        for path, value in drawn.items():
            resolved = replaced(resolved, path, value)
        for chosen, combined in combinations(resolved):
            yield {**drawn, **chosen}, combined


def _domain(key: str, name: str, given: Any) -> Domain:
    """Return Tune's sampler of a name and its range."""
    from ray import tune

    if name == "choice":
        if not isinstance(given, list) or not given:
            raise ConfigError(f"{key}: choice takes a list of at least one value, got {given!r}")
        if any(map(holds_alternatives, given)):
            raise ConfigError(f"{key}: a search cannot stand inside a choice")
        return tune.choice(given)
    kinds: Any = int if name == "randint" else (int, float)
    least = 0 if name == "loguniform" else -math.inf
    fits = isinstance(given, list) and len(given) == 2
    fits = fits and all(
        isinstance(bound, kinds) and not isinstance(bound, bool) and math.isfinite(bound) for bound in given
    )
    if not fits or not least < given[0] < given[1]:
        kind = "integers" if name == "randint" else "numbers above 0" if name == "loguniform" else "numbers"
        raise ConfigError(f"{key}: {name} takes [lower, upper], two {kind} with lower < upper, got {given!r}")
    return getattr(tune, name)(*given)


def _plain(value: Any) -> Any:
    """Return a number of NumPy as one of Python, which files can hold."""
    return value.item() if isinstance(value, np.generic) else value


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

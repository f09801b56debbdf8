"""Lists of seeds as users write them."""

from __future__ import annotations

import re
from collections.abc import Sequence

from qio_envs.api import ConfigError

_MOST_SEEDS = 10_000


def parse_seeds(text: str, where: str) -> list[int]:
    """Return the seeds of a text such as ``0-4`` or ``1,3,7-9``.

    Args:
        text: Numbers and ranges, whose ends belong to them.
        where: Where it stands, for messages.

    Raises:
        ConfigError: It is empty, a range is none, a seed stands there twice, or there are too many.
    """
    seeds: list[int] = []
    for part in text.split(","):
        found = re.fullmatch(r"([0-9]{1,10})(?:-([0-9]{1,10}))?", part.strip())
        if found is None:
            raise ConfigError(f"{where}: expected numbers of at least 0 such as 0-4 or 1,3,7, got '{text}'")
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise ConfigError(
                f"{where}: the range {part.strip()} ends before it begins; write {last}-{first}"
            )
        if len(seeds) + last - first >= _MOST_SEEDS:
            raise ConfigError(f"{where}: at most {_MOST_SEEDS:,} seeds are allowed, got '{text}'")
        seeds += range(first, last + 1)
    check_distinct(seeds, where)
    return seeds


def check_distinct(seeds: Sequence[int], where: str) -> None:
    """Refuse a seed that stands there twice."""
    known: set[int] = set()
    for seed in seeds:
        if seed in known:
            raise ConfigError(f"{where}: the seed {seed} stands there twice")
        known.add(seed)

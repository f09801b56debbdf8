"""CSV tables as lists of dictionaries, and the scores in them."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np


def read(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table; none where there is no file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write a table whose columns are the keys of the first row."""
    path.unlink(missing_ok=True)
    append(path, rows)


def append(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Add rows to a table, and the header to a new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    is_new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        if is_new:
            writer.writeheader()
        writer.writerows(rows)


def has_row(path: Path, **key: Any) -> bool:
    """Return whether a table is there and has a row of this key."""
    return path.exists() and any(
        all(str(row[name]) == str(value) for name, value in key.items()) for row in read(path)
    )


def scores_of(folder: Path, mode: str, column: str) -> list[float]:
    """Return one score a seed: the mean of a column over the evaluation episodes of a mode.

    Args:
        folder: Holds ``seed_*/evaluation.csv``.
        mode: "sampled" or "greedy".
        column: Such as "team_return" or "episode_return".
    """
    return [
        float(np.mean([float(row[column]) for row in read(path) if row["mode"] == mode]))
        for path in sorted(folder.glob("seed_*/evaluation.csv"))
    ]

"""Robust rules over secure sums of groups, beside the same rules over single updates, where some clients lie.

    python benchmarks/federated_groups.py --seeds 3
    python benchmarks/federated_groups.py --table      # of what is there, no training

27 clients with equal poles, PPO and scores as in federated_poison.py. Three of them send ten times their update with
its sign flipped, so that a mean of all goes the wrong way. A server sees single updates, or secure sums of nine groups
of three that are drawn anew each round; three malicious clients spoil at most three of them, and rules are told so.
Beside it the mean without an attack.

Raw: results/federated/poison_groups.csv, one row a seed and cell.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import mean
from typing import Any

from federated_poison import CLEAN, TOLD, equal_poles
from tables import append, read

from qio_rllib.artifacts.run_description import run_description
from qio_rllib.federated.settings import RULES

OUT = Path("results/federated/poison_groups.csv")
CLIENTS, MALICIOUS, GROUP_SIZE = 27, 3, 3
ATTACK, SCALE = "sign_flip", 10.0
SINGLE = 1
"""The size of a group where the server sees single updates."""

Cell = tuple[str, str, int]
"""A rule, an attack, and the clients in a group."""

CELLS: tuple[Cell, ...] = (
    ("mean", CLEAN, SINGLE),
    *((rule, ATTACK, size) for size in (SINGLE, GROUP_SIZE) for rule in RULES),
)


def settings_of(cell: Cell) -> dict[str, Any]:
    """Return what a cell sets of a federation."""
    rule, attack, size = cell
    told = MALICIOUS * size / CLIENTS
    settings: dict[str, Any] = {"aggregation": {"rule": rule, **({TOLD[rule]: told} if rule in TOLD else {})}}
    if attack != CLEAN:
        settings["attack"] = {"type": attack, "clients": list(range(MALICIOUS)), "scale": SCALE}
    if size > SINGLE:
        settings["secure"] = {"group_size": size}
    return settings


def run(seed: int, cell: Cell) -> dict[str, Any]:
    """Return the row of a cell."""
    started = time.process_time()
    found = equal_poles(seed, CLIENTS, settings_of(cell))
    rule, attack, size = cell
    return {
        "seed": seed,
        "rule": rule,
        "attack": attack,
        "group_size": size,
        "score": f"{found:.4f}",
        "cpu_seconds": round(time.process_time() - started, 1),
    }


def rows_of(rows: Sequence[dict[str, str]], cell: Cell) -> list[dict[str, str]]:
    """Return the rows of a cell, of those that are there."""
    rule, attack, size = cell
    return [
        row for row in rows if (row["rule"], row["attack"], row["group_size"]) == (rule, attack, str(size))
    ]


def train(seeds: range, out: Path) -> None:
    """Add the rows that are not there."""
    for seed in seeds:
        for cell in CELLS:
            if not any(row["seed"] == str(seed) for row in rows_of(read(out), cell)):
                row = run(seed, cell)
                append(out, [row])
                print(row, flush=True)


def table(rows: Sequence[dict[str, str]]) -> str:
    """Return a table of means over seeds, with the least and the greatest, by rule and by what the server sees."""

    def text(cell: Cell) -> str:
        scores = [float(row["score"]) for row in rows_of(rows, cell)]
        return f"{mean(scores):.2f} ({min(scores):.2f} to {max(scores):.2f})" if scores else "not run"

    lines = [
        f"| {ATTACK} | single updates | secure sums of groups of {GROUP_SIZE} |",
        "| --- | --- | --- |",
        *(
            f"| {rule} | {text((rule, ATTACK, SINGLE))} | {text((rule, ATTACK, GROUP_SIZE))} |"
            for rule in RULES
        ),
    ]
    return "\n".join([*lines, "", f"mean without an attack: {text(('mean', CLEAN, SINGLE))}"])


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds (3)")
    parser.add_argument("--first-seed", type=int, default=0, help="(0)")
    parser.add_argument("--out", type=Path, default=OUT, help="where to write")
    parser.add_argument("--table", action="store_true", help="of what is there, no training")
    given = parser.parse_args(arguments)
    if not given.table:
        info = run_description(["python", "benchmarks/federated_groups.py", "--seeds", str(given.seeds)])
        train(range(given.first_seed, given.first_seed + given.seeds), given.out)
        given.out.with_suffix(".json").write_text(json.dumps(info, indent=1) + "\n", encoding="utf-8")
    print(table(read(given.out)))


if __name__ == "__main__":
    main()

"""Return against bits: what agents tell each other, and what a team gets for it."""

from __future__ import annotations

from collections.abc import Callable

from claims import figures as f
from claims.claim import Section

HIDDEN_TARGET, FOREST = (f"communication_frontier/{task}" for task in ("hidden_target", "forest"))
_MADE = "`python benchmarks/communication_frontier.py {task} --seeds 5` on {cpu}; raw files of each row: [{raw}](../results/{raw})."


def _rows(folder: str) -> list[dict[str, str]]:
    return sorted(f.rows_of(f"{folder}/summary.csv"), key=lambda row: float(row["bits_sent"]))


def _table(folder: str, allowed: str) -> Callable[[], list[tuple[str, ...]]]:
    def rows() -> list[tuple[str, ...]]:
        return [
            ("messages", "`communication`", "bits per agent and step", "team return", allowed),
            *(
                (
                    row["kind"],
                    "none" if row["communication"] == "null" else f"`{row['communication']}`",
                    f"{float(row['bits_sent']):.3g}",
                    row["text"],
                    f"{float(row['allowed']):.1f}",
                )
                for row in _rows(folder)
            ),
        ]

    return rows


def _cpu(folder: str) -> Callable[[], str]:
    return lambda: f.cpus([f"{folder}/{row['cell']}" for row in _rows(folder)])

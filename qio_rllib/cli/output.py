"""What commands show: plain lines, tables, and one line for an iteration of training."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from rich.console import Console


@contextmanager
def progress(stop: Mapping[str, float] | None = None) -> Iterator[Callable[[Mapping[str, float]], None]]:
    """Show training as one live line on a terminal, as one plain line per iteration elsewhere.

    A terminal or a pipe that is closed meanwhile does not end the training.
    """
    terminal = console()
    if not terminal.is_terminal:

        def show(row: Mapping[str, float]) -> None:
            with suppress(OSError):
                print(progress_line(row, stop), flush=True)

        yield show
        return
    from rich.live import Live
    from rich.text import Text

    def update(row: Mapping[str, float]) -> None:
        with suppress(OSError):
            live.update(Text(progress_line(row, stop), overflow="ellipsis"), refresh=True)

    live = Live(Text("starting ..."), console=terminal, auto_refresh=False)
    live.start()
    try:
        yield update
    finally:
        with suppress(OSError):
            live.stop()


def progress_line(row: Mapping[str, float], stop: Mapping[str, float] | None = None) -> str:
    """Return what is shown of an iteration.

    Args:
        row: A row of ``progress.csv``.
        stop: Stop criteria; goals of iterations and steps are shown beside them.
    """
    from qio_rllib.artifacts.metrics import ITERATION, MODES, SPEED, STEPS, score_column

    parts = []
    for label, key in (("iteration", ITERATION), ("steps", STEPS)):
        if key in row:
            goal = f"/{stop[key]:,.0f}" if stop and key in stop else ""
            parts.append(f"{label} {row[key]:,.0f}{goal}")
    score = score_column(row, "env_runners/")
    if score is not None:
        parts.append(f"return {row[score]:.1f}")
    if "env_runners/coverage" in row:
        parts.append(f"coverage {row['env_runners/coverage']:.2f}")
    if row.get("replay/warming_up"):
        parts.append("warming up")
    for label, name, digits in (
        ("entropy", "normalized_entropy", 3),
        ("alpha", "alpha", 4),
        ("exploration", "exploration", 3),
    ):
        values = [
            value for key, value in row.items() if key.startswith("learners/") and key.endswith(f"/{name}")
        ]
        if values:
            parts.append(f"{label} {sum(values) / len(values):.{digits}f}")
    for mode in MODES:
        evaluation = score_column(row, f"evaluation/{mode}/")
        if evaluation is not None:
            parts.append(f"{mode} {row[evaluation]:.1f}")
    if SPEED in row:
        parts.append(f"{row[SPEED]:,.0f} steps/s")
    return "  ".join(parts)


def print_yaml(values: Mapping[str, Any]) -> None:
    """Print a mapping as YAML."""
    from qio_rllib.artifacts.yaml_files import yaml_text

    print(yaml_text(values), end="")


def seeds_text(seeds: Sequence[int]) -> str:
    """Return seeds in words: a range or a list."""
    if len(seeds) > 3 and list(seeds) == list(range(seeds[0], seeds[0] + len(seeds))):
        return f"{seeds[0]} to {seeds[-1]}"
    return ",".join(map(str, seeds))


def relative(path: Path) -> str:
    """Return a path as seen from the working directory, where that is shorter."""
    shorter = os.path.relpath(path)
    return str(path) if shorter.startswith("..") else shorter


def console() -> Console:
    """Return rich's console on the standard output of now."""
    return Console(highlight=False, soft_wrap=False)


def say(text: str) -> None:
    """Print a line at once."""
    print(text, flush=True)


def note(text: str) -> None:
    """Print a line on stderr that is no error."""
    print(f"rllib: note: {text}", file=sys.stderr, flush=True)


def complain(text: str, status: int) -> int:
    """Print an error as one line on stderr; return the exit status."""
    with suppress(OSError):  # a terminal that is closed
        print(f"rllib: {' '.join(text.split())}", file=sys.stderr, flush=True)
    return status

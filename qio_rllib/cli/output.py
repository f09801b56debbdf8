"""What commands show: plain lines and tables."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from rich.console import Console


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

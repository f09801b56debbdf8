"""Text and CSV files that are whole whenever somebody reads them, and locks of what one process may write."""

from __future__ import annotations

import contextlib
import csv
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from qio_envs.api import ConfigError


def write_atomically(path: Path, text: str | bytes) -> None:
    """Write a text file (UTF-8), or bytes as they are, so that a reader sees either the old or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    try:
        partial.write_bytes(text.encode("utf-8") if isinstance(text, str) else text)
        os.replace(partial, path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)  # a full disk has no room for a part of a file
        raise


@contextlib.contextmanager
def only_writer(lock_file: Path, owner: str, kind: str) -> Iterator[None]:
    """Be the only process that trains something; the system takes the lock from a process that dies.

    Args:
        lock_file: What is locked.
        owner: Path of what is trained, for messages.
        kind: What it is, for messages.

    Raises:
        ConfigError: Another process has the lock, or it cannot be written.
    """
    lock = FileLock(lock_file)
    try:
        lock.acquire(blocking=False)
    except Timeout as error:
        raise ConfigError(f"{owner}: another process is training this {kind}") from error
    except OSError as error:
        raise ConfigError(f"{owner}: cannot be written to ({error.strerror})") from error
    try:
        yield
    finally:
        lock.release()


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of a table; the columns are those of all rows in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(Path(path), text.getvalue())


def read_csv(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a table; what reads as a number is one, empty cells are left out."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return [
            {key: _number_or_text(value) for key, value in row.items() if value != ""}
            for row in csv.DictReader(file)
        ]


def number(text: str) -> float:
    """Return an integer where the text is one, else a float; ValueError for other texts."""
    try:
        return int(text)
    except ValueError:
        return float(text)


def _number_or_text(text: str) -> Any:
    try:
        return number(text)
    except ValueError:
        return text

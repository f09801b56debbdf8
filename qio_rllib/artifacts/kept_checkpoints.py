"""``checkpoints.json``: which checkpoints of a run are complete, and the iteration's row that belongs to each."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qio_envs.api import ConfigError
from qio_rllib.artifacts.files import write_atomically
from qio_rllib.artifacts.metrics import ITERATION
from qio_rllib.artifacts.run_directory import RunDirectory


@dataclasses.dataclass(frozen=True)
class KeptCheckpoint:
    """A complete checkpoint.

    Attributes:
        path: Its directory.
        metrics: The row of ``progress.csv`` of the iteration that it was written after.
    """

    path: Path
    metrics: Mapping[str, float]

    @property
    def number(self) -> int:
        """Which one it is of its run: later ones have higher numbers."""
        return _number(self.path)


class KeptCheckpoints:
    """The complete checkpoints of a run, the oldest first.

    A directory is listed after its last file has been written, and it is removed after it has left the list. So what
    is listed is whole, whenever the process dies; other directories are remains of a process that was killed.

    Args:
        directory: The run; its list is read.
        keep: The newest so many stay; None keeps all.

    Raises:
        ConfigError: The list is damaged.
    """

    def __init__(self, directory: RunDirectory, keep: int | None = None) -> None:
        self._directory = directory
        self._keep = keep
        self.all: tuple[KeptCheckpoint, ...] = ()
        if directory.checkpoints_file.exists():
            self.all = self._read()

    def add(self, path: Path, metrics: Mapping[str, float]) -> None:
        """Put a checkpoint that has been written at the end of the list, and remove those that no longer stay.

        Args:
            path: Its directory, below that of the run.
            metrics: Row of ``progress.csv``.
        """
        found = (*self.all, KeptCheckpoint(path, dict(metrics)))
        self.all = found if self._keep is None else found[-self._keep :]
        self.write()
        self.remove_others()

    def drop_after(self, number: int) -> None:
        """Take those with a higher number from the list."""
        self.all = tuple(kept for kept in self.all if kept.number <= number)
        self.write()

    def write(self) -> None:
        """Write the list."""
        entries = [
            {"path": kept.path.relative_to(self._directory.path).as_posix(), "metrics": kept.metrics}
            for kept in self.all
        ]
        write_atomically(self._directory.checkpoints_file, json.dumps(entries, indent=1) + "\n")

    def remove_others(self) -> None:
        """Remove the checkpoint directories that are not listed."""
        listed = {kept.path for kept in self.all}
        for path in self._directories():
            if path not in listed:
                shutil.rmtree(path, ignore_errors=True)

    @property
    def last_number(self) -> int:
        """Number of the newest checkpoint directory, listed or not; -1 where there is none."""
        return max(map(_number, self._directories()), default=-1)

    def _directories(self) -> list[Path]:
        return list(self._directory.trial.glob("checkpoint_" + "[0-9]" * 6))

    def _read(self) -> tuple[KeptCheckpoint, ...]:
        file = self._directory.checkpoints_file
        try:
            return tuple(map(self._entry, json.loads(file.read_text(encoding="utf-8"))))
        except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
            raise ConfigError(f"{file}: damaged ({' '.join(str(error).split())})") from error

    def _entry(self, entry: Any) -> KeptCheckpoint:
        path, metrics = self._directory.path / entry["path"], dict(entry["metrics"])
        if not path.resolve().is_relative_to(self._directory.path):
            raise ValueError(f"{entry['path']} leads out of the run")
        if any(type(value) not in (int, float) for value in metrics.values()):
            raise ValueError("metrics: expected numbers")
        if ITERATION not in metrics:
            raise ValueError(f"no {ITERATION}")
        _number(path)
        return KeptCheckpoint(path, metrics)


def _number(path: Path) -> int:
    return int(path.name.rpartition("_")[2])


def final_checkpoint(run_dir: str | Path) -> Path:
    """Return the last checkpoint of a run.

    Raises:
        ConfigError: There is no such run, or it has no checkpoint.
    """
    directory = RunDirectory.open(run_dir)
    named = directory.info().get("checkpoint")
    if named is not None:
        return directory.within(named)
    kept = KeptCheckpoints(directory).all
    if not kept:
        raise ConfigError(f"{run_dir}: this run has no checkpoint")
    return kept[-1].path

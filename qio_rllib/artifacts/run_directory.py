"""The directory of a training run and its files."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from qio_envs.api import ConfigError
from qio_rllib.artifacts.files import only_writer, write_atomically
from qio_rllib.artifacts.yaml_files import read_yaml, yaml_text

STATUSES = ("running", "finished", "interrupted", "failed")

_RESERVE = 1 << 17  # bytes: run.json and error.log

RUN_FILE, POLICY_FILE = "run.json", "policy.pt"
"""What a run is described by, and the policy that a finished one leaves."""

SWEEP = "sweep"
"""Key of ``run.json`` under which a run says which one of which sweep it is."""

TRIAL = "trial"
"""Folder of a run's only trial, in ``checkpoints/``."""


class RunDirectory:
    """Names the files of one training run; `create` makes a new one, `open` finds an old one.

    Args:
        path: The directory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()

    @classmethod
    def create(
        cls,
        out: str | Path,
        name: str,
        now: datetime.datetime | None = None,
        prepare: Callable[[RunDirectory], None] | None = None,
    ) -> RunDirectory:
        """Make ``out/name/<time>/``; never one that exists.

        Args:
            out: Where runs are kept.
            name: Name of the experiment.
            now: The time in its name; by default the present.
            prepare: Writes the first files; the directory gets its name after that, so that nobody sees a part of it.

        Raises:
            ConfigError: It cannot be made.
        """
        stamp = (now or datetime.datetime.now()).strftime("%Y-%m-%d_%H-%M-%S")
        parent = Path(out) / name
        try:
            parent.mkdir(parents=True, exist_ok=True)
            partial = parent / f".{stamp}.{uuid.uuid4().hex}"
            partial.mkdir()
            try:
                if prepare is not None:
                    prepare(cls(partial))
                for count in range(1, 1_000_000):
                    path = parent / (stamp if count == 1 else f"{stamp}_{count}")
                    if path.exists():
                        continue
                    try:
                        os.rename(partial, path)  # fails if another process has made it since
                    except OSError:
                        if not path.exists():
                            raise
                        continue
                    return cls(path)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
        except OSError as error:
            raise ConfigError(f"--out: cannot make a run directory in {parent}: {error.strerror}") from error
        raise ConfigError(f"--out: {parent} is full of runs of {stamp}")

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Return the run that is kept in ``path``.

        Raises:
            ConfigError: There is none, or its ``run.json`` or ``config.yaml`` cannot be read.
        """
        run = cls(path)
        if not run.path.is_dir():
            raise ConfigError(f"{path}: no such run directory")
        for file in (run.info_file, run.config_file):
            if not file.is_file():
                raise ConfigError(f"{path}: not a run directory ({file.name} is missing)")
        run.info()
        run.config()
        return run

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only one who writes into the run; the system takes the lock from a process that dies.

        Raises:
            ConfigError: Another process has it, or the directory cannot be written to.
        """
        with only_writer(self.path / ".lock", f"{self.path}", "run"):
            yield

    def reserve_space(self) -> None:
        """Keep a little room on the disk for what a run that ends without room on it has to write.

        Raises:
            ConfigError: There is none.
        """
        try:
            self._reserve.write_bytes(os.urandom(_RESERVE))
        except OSError as error:
            raise ConfigError(f"{self.path}: cannot be written to ({error.strerror})") from error

    def release_space(self) -> None:
        """Give the room that is kept to those who write next."""
        with contextlib.suppress(OSError):
            self._reserve.unlink(missing_ok=True)

    @property
    def _reserve(self) -> Path:
        return self.path / ".reserve"

    @property
    def config_file(self) -> Path:
        """The experiment as it was run, seed included; ``rllib train --config`` takes it."""
        return self.path / "config.yaml"

    @property
    def info_file(self) -> Path:
        """Versions, machine, seed, times and status."""
        return self.path / RUN_FILE

    @property
    def progress_file(self) -> Path:
        """One row per training iteration."""
        return self.path / "progress.csv"

    @property
    def pretraining_file(self) -> Path:
        """One row for every few gradient steps of the pretraining; columns as in ``progress.csv``."""
        return self.path / "pretraining.csv"

    @property
    def evaluation_file(self) -> Path:
        """One row per episode of the final evaluation."""
        return self.path / "evaluation.csv"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """Folder of Ray Tune: its own state, which nothing here reads, and the trial."""
        return self.path / "checkpoints"

    @property
    def trial(self) -> Path:
        """Folder of the run's only trial; its checkpoints lie here."""
        return self.checkpoints / TRIAL

    @property
    def checkpoints_file(self) -> Path:
        """The complete checkpoints, see `KeptCheckpoints`."""
        return self.path / "checkpoints.json"

    @property
    def error_file(self) -> Path:
        """Traceback of a failed run."""
        return self.path / "error.log"

    @property
    def log_file(self) -> Path:
        """What Ray and other libraries printed while ``rllib train`` trained it."""
        return self.path / "run.log"

    def write_config(self, experiment: Mapping[str, Any]) -> None:
        """Write ``config.yaml``."""
        write_atomically(self.config_file, yaml_text(experiment))

    def config(self) -> dict[str, Any]:
        """Return what ``config.yaml`` holds.

        Raises:
            ConfigError: It cannot be read.
        """
        return read_yaml(self.config_file)

    def info(self) -> dict[str, Any]:
        """Return what ``run.json`` holds.

        Raises:
            ConfigError: It cannot be read.
        """
        try:
            info = json.loads(self.info_file.read_text(encoding="utf-8"))
            if not isinstance(info, dict) or info.get("status") not in STATUSES:
                raise ValueError("no status")
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(f"{self.info_file}: damaged ({' '.join(str(error).split())})") from error
        return info

    def within(self, path: Any) -> Path:
        """Return what lies under a path in this directory.

        Args:
            path: Seen from the directory, as ``run.json`` has it.

        Raises:
            ConfigError: It is no path, or leads out of the directory, by ``..`` or a link.
        """
        try:
            found = (self.path / path).resolve()
            if not found.is_relative_to(self.path):
                raise ValueError
        except (TypeError, ValueError, OSError, RuntimeError) as error:
            raise ConfigError(
                f"{self.path}: expected a path within the run directory, got {path!r:.100}"
            ) from error
        return found

    def update_info(self, **values: Any) -> None:
        """Put ``values`` into ``run.json``, which is made if it is not there."""
        info = self.info() if self.info_file.exists() else {}
        write_atomically(self.info_file, json.dumps({**info, **values}, indent=2) + "\n")

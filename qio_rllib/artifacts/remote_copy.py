"""A copy of a run directory in other storage: S3, Google Cloud Storage, or anything that pyarrow or fsspec reaches.

The run itself is local. What is whole there is copied: first the checkpoints, then tables and other files, then the
list of checkpoints, so that whatever the copy's list names is complete in it, whenever the process or the connection
dies.
"""

from __future__ import annotations

import json
import posixpath
import re
import shutil
import uuid
from pathlib import Path
from typing import Any

import pyarrow.fs

from qio_envs.api import ConfigError
from qio_rllib.artifacts.kept_checkpoints import KeptCheckpoints
from qio_rllib.artifacts.run_directory import RunDirectory

_LAST = ("checkpoints.json", "run.json")  # in this order, behind all else


def is_uri(text: Any) -> bool:
    """Return whether a text is a URI with a scheme, such as ``s3://bucket/runs``."""
    return isinstance(text, str) and re.match(r"[a-zA-Z][\w+.-]*://", text) is not None


def check_uri(uri: Any) -> None:
    """Refuse what is no URI.

    Raises:
        ConfigError: With an example of one.
    """
    if not is_uri(uri):
        raise ConfigError(
            f"storage: expected a URI such as s3://bucket/runs or file:///mnt/runs, got {uri!r:.100}"
        )


def open_storage(uri: str) -> tuple[pyarrow.fs.FileSystem, str]:
    """Return the file system of a URI and the path in it.

    Raises:
        ConfigError: It is no URI, or nothing here knows its scheme.
    """
    check_uri(uri)
    scheme, _, path = uri.partition("://")
    try:
        return pyarrow.fs.FileSystem.from_uri(uri)
    except Exception as first:
        try:
            import fsspec

            found = fsspec.filesystem(scheme)
        except Exception as error:  # an unknown scheme, or a package that is missing
            raise ConfigError(
                f"storage: {uri} cannot be used ({_one_line(first)}; {_one_line(error)})"
            ) from error
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(found)), path


class RemoteCopy:
    """Keeps the copy of a run in step with it.

    Args:
        directory: The run.
        uri: Where copies of runs lie; this one in ``URI/<name>/<time>``.
        name: Name of the experiment.

    Attributes:
        uri: Of the copy; ``rllib train --resume`` takes it.

    Raises:
        ConfigError: The storage cannot be used.
    """

    def __init__(self, directory: RunDirectory, uri: str, name: str) -> None:
        self._directory = directory
        self._storage, root = open_storage(uri)
        self._root = posixpath.join(root, name, directory.path.name)
        self.uri = f"{uri.rstrip('/')}/{name}/{directory.path.name}"
        self._checkpoints: set[str] = set()
        self._files: dict[str, tuple[int, int]] = {}

    def update(self) -> None:
        """Copy what is new, then remove the checkpoints that are no longer listed.

        Raises:
            OSError: Something cannot be read or written; the copy stays what it was, or has more files.
        """
        run = self._directory.path
        kept = [one.path for one in KeptCheckpoints(self._directory).all]
        for checkpoint in kept:
            place = checkpoint.relative_to(run).as_posix()
            if place in self._checkpoints:
                continue
            for file in sorted(checkpoint.rglob("*")):
                if file.is_file():
                    self._put(file)
            self._checkpoints.add(place)
        outside = [
            file
            for file in sorted(run.rglob("*"))
            if file.is_file() and not any(part.startswith(".") for part in file.relative_to(run).parts)
        ]
        files = [file for file in outside if not file.is_relative_to(self._directory.checkpoints)]
        last = [run / name for name in _LAST if run / name in files]
        for file in [*(file for file in files if file not in last), *last]:
            stat = file.stat()
            stamp = (stat.st_size, stat.st_mtime_ns)
            place = file.relative_to(run).as_posix()
            if self._files.get(place) != stamp:
                self._put(file)
                self._files[place] = stamp
        self._remove_others({checkpoint.relative_to(run).as_posix() for checkpoint in kept})

    def _put(self, file: Path) -> None:
        """Copy a file; it gets its name when all of it is there."""
        target = posixpath.join(self._root, file.relative_to(self._directory.path).as_posix())
        partial = f"{target}.{uuid.uuid4().hex}.partial"
        self._storage.create_dir(posixpath.dirname(target), recursive=True)
        with file.open("rb") as source, self._storage.open_output_stream(partial) as stream:
            shutil.copyfileobj(source, stream)
        self._storage.move(partial, target)

    def _remove_others(self, listed: set[str]) -> None:
        trial = posixpath.join(self._root, self._directory.trial.relative_to(self._directory.path).as_posix())
        selector = pyarrow.fs.FileSelector(trial, allow_not_found=True)
        for found in self._storage.get_file_info(selector):
            place = posixpath.join("checkpoints/trial", found.base_name)
            if found.type == pyarrow.fs.FileType.Directory and place not in listed:
                self._storage.delete_dir(found.path)
                self._checkpoints.discard(place)


def download(uri: str, out: str | Path) -> Path:
    """Copy a run from other storage to ``out/<name>/<time>``.

    Args:
        uri: Of the copy, as `RemoteCopy.uri`.
        out: Where runs are kept.

    Returns:
        Its directory.

    Raises:
        ConfigError: There is no run, it cannot be read, or a run of this name and time lies there already.
    """
    storage, root = open_storage(uri)
    root = root.rstrip("/")
    target = Path(out) / posixpath.basename(posixpath.dirname(root)) / posixpath.basename(root)
    if target.exists():
        raise ConfigError(f"--resume: {target} is here already; resume that, or move it away")
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex}")
    try:
        if storage.get_file_info(posixpath.join(root, "checkpoints.json")).type != pyarrow.fs.FileType.File:
            raise ConfigError(f"--resume: there is no run in {uri}")
        with storage.open_input_stream(posixpath.join(root, "checkpoints.json")) as stream:
            listed = json.loads(stream.read())
        wanted = tuple(f"{entry['path']}/" for entry in listed)
        partial.mkdir(parents=True)
        run = RunDirectory(partial)
        for found in storage.get_file_info(pyarrow.fs.FileSelector(root, recursive=True)):
            place = found.path.lstrip("/").removeprefix(root.lstrip("/")).lstrip("/")
            unlisted = place.startswith("checkpoints/") and not place.startswith(wanted)
            if found.type != pyarrow.fs.FileType.File or unlisted or place.endswith(".partial"):
                continue
            file = run.within(place)
            file.parent.mkdir(parents=True, exist_ok=True)
            with storage.open_input_stream(found.path) as source, file.open("wb") as stream:
                shutil.copyfileobj(source, stream)
        (partial / "checkpoints/trial").mkdir(parents=True, exist_ok=True)
        partial.rename(target)
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"--resume: {uri} cannot be read ({_one_line(error)})") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return target


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__

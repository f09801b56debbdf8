"""The manifest of a checkpoint: size and SHA-256 of every file in it, so that damage is seen before anything is loaded.

It is written last, and put in its place at once: a checkpoint whose writing was cut off has none. Whoever can change a
file can change the manifest too; it tells of accidents, not of attacks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import pyarrow.fs
from pyarrow.fs import FileSelector, FileSystem, FileType

from qio_envs.api import ConfigError

MANIFEST = "manifest.json"
METADATA = "rllib_checkpoint.json"
"""What RLlib writes of an Algorithm's checkpoint; of ours it says that there is a manifest."""

_PARTIAL = f".{MANIFEST}.partial"
_CHUNK = 1 << 20  # bytes


def write_manifest(path: str, filesystem: FileSystem | None = None) -> None:
    """Write the manifest of a checkpoint, beside its other files.

    Args:
        path: The checkpoint's directory.
        filesystem: Where that is; by default what the path says.
    """
    filesystem, root = _located(path, filesystem)
    files = {
        name: {"size": size, "sha256": _digest(filesystem, f"{root}/{name}")}
        for name, size in sorted(_listed(filesystem, root).items())
    }
    with filesystem.open_output_stream(f"{root}/{_PARTIAL}") as stream:
        stream.write(json.dumps({"files": files, "sha256": _digest_of(files)}, indent=1).encode())
    filesystem.move(f"{root}/{_PARTIAL}", f"{root}/{MANIFEST}")


def remove_manifest(path: str, filesystem: FileSystem | None = None) -> None:
    """Remove the manifest of a checkpoint that is about to be overwritten, if there is one."""
    filesystem, root = _located(path, filesystem)
    if filesystem.get_file_info(f"{root}/{MANIFEST}").type == FileType.File:
        filesystem.delete_file(f"{root}/{MANIFEST}")


def verify(path: str, *parts: str, filesystem: FileSystem | None = None) -> None:
    """Compare a checkpoint with its manifest.

    A checkpoint without one, whose metadata promises none (one of RLlib's own algorithms), passes.

    Args:
        path: The checkpoint's directory.
        *parts: Files and directories in it; all where there are none.
        filesystem: Where that is; by default what the path says.

    Raises:
        ConfigError: A file is missing, shorter or longer, or holds something else than was written; it is named.
    """
    filesystem, root = _located(path, filesystem)
    expected = _manifest(filesystem, root)
    if expected is None:
        return
    found = _listed(filesystem, root)
    for name, entry in expected.items():
        if parts and not any(name == part or name.startswith(f"{part}/") for part in parts):
            continue
        if name not in found:
            raise _damage(root, f"{name} is missing")
        if found[name] != entry["size"]:
            raise _damage(root, f"{name} has {found[name]:,} bytes of {entry['size']:,}")
        if _digest(filesystem, f"{root}/{name}") != entry["sha256"]:
            raise _damage(root, f"{name} is not what was written, by its checksum in {MANIFEST}")


def _manifest(filesystem: FileSystem, root: str) -> Mapping[str, Any] | None:
    """Return the entries of a manifest by file; None where there is none, and none is promised."""
    data = _read(filesystem, f"{root}/{MANIFEST}")
    if data is None:
        metadata = _read(filesystem, f"{root}/{METADATA}")
        if metadata is not None and json.dumps(MANIFEST).encode() in metadata:
            raise _damage(root, f"{MANIFEST} is missing, its writing or copying was cut off")
        return None
    try:
        values = json.loads(data)
        files = values["files"]
        if values["sha256"] != _digest_of(files):
            raise ValueError("other entries")
        return files
    except (ValueError, KeyError, TypeError, RecursionError):
        raise _damage(root, f"{MANIFEST} is not what was written") from None


def _damage(root: str, what: str) -> ConfigError:
    return ConfigError(f"checkpoint: {root} is damaged: {what}")


def _located(path: str, filesystem: FileSystem | None) -> tuple[FileSystem, str]:
    """Return the file system of a path or URI, and the path in it."""
    return (filesystem, path) if filesystem is not None else pyarrow.fs.FileSystem.from_uri(path)


def _listed(filesystem: FileSystem, root: str) -> dict[str, int]:
    """Return the sizes of all files in a directory, to any depth, by their paths in it; the manifest is left out."""
    infos = filesystem.get_file_info(FileSelector(root, recursive=True))
    sizes = {info.path[len(root) :].lstrip("/"): info.size for info in infos if info.type == FileType.File}
    return {name: size for name, size in sizes.items() if name not in (MANIFEST, _PARTIAL)}


def _read(filesystem: FileSystem, path: str) -> bytes | None:
    if filesystem.get_file_info(path).type != FileType.File:
        return None
    with filesystem.open_input_stream(path) as stream:
        return stream.read()


def _digest(filesystem: FileSystem, path: str) -> str:
    whole = hashlib.sha256()
    with filesystem.open_input_stream(path) as stream:
        while chunk := stream.read(_CHUNK):
            whole.update(chunk)
    return whole.hexdigest()


def _digest_of(files: Any) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()

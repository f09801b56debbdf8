"""Where compiled kernels are kept between processes, if numba finds no place by itself."""

from __future__ import annotations

import atexit
import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

logger = logging.getLogger(__name__)
_SETTING = "NUMBA_CACHE_DIR"


def find_cache() -> Path | None:
    """See to it that numba can cache kernels, before it is imported or any kernel is.

    It looks in ``NUMBA_CACHE_DIR``, beside the code and in the user's cache, and refuses to import a kernel if it can
    write to none of them, as in a container with a read-only file system. Then this process, and those that it starts,
    get a folder of their own among the temporary files, which goes when the process ends; the log says so.

    Returns:
        That folder; None where it is not needed.
    """
    named = os.environ.get(_SETTING)
    if named and _can_write(Path(named)):
        return None
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path("~/.cache").expanduser())
    if any(map(_can_write, (Path(__file__).parent / "__pycache__", cache / "numba"))):
        if named:
            logger.warning("%s: %s cannot be written to, kernels are kept elsewhere", _SETTING, named)
        return None
    # Of its own: what others could put there would be run.
    folder = Path(tempfile.mkdtemp(prefix="qio-kernels-"))
    os.environ[_SETTING] = str(folder)
    if "numba" in sys.modules:
        sys.modules["numba"].config.CACHE_DIR = str(folder)
    atexit.register(_remove, folder, os.getpid())
    logger.warning(
        "no place for compiled kernels can be written to: each run compiles them anew, into %s; set %s to a folder "
        "that stays",
        folder,
        _SETTING,
    )
    return folder


def _can_write(folder: Path) -> bool:
    """Return whether files can be made in a folder, which is made if it is not there; numba asks in the same way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return False
    return True


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # not a process that was forked
        shutil.rmtree(folder, ignore_errors=True)

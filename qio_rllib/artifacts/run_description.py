"""Where a number came from: command, versions, machine, and time."""

from __future__ import annotations

import contextlib
import datetime
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from qio_envs.api.distribution import distribution_name

_PACKAGES = ("ray", "torch", "numpy", "gymnasium", "pettingzoo")


def run_description(command: Sequence[str] | None = None) -> dict[str, Any]:
    """Return what a number must be read with: versions, machine, command and time of start."""
    versions = {"python": platform.python_version()}
    own = distribution_name()
    for package in (*_PACKAGES, *([] if own is None else [own])):
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "command": list(sys.argv if command is None else command),
        "versions": versions,
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpu_count": os.cpu_count(),
        "start_time": timestamp(),
        "end_time": None,
    }


def timestamp() -> str:
    """Return the present in ISO 8601, with the offset from UTC."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def cpu_model() -> str:
    """Return the processor's name as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()

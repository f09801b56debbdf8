"""How a training can end without a result, and why it did, in one line."""

from __future__ import annotations

import re
import signal
import traceback
from pathlib import Path

import ray

from qio_envs.api import ConfigError
from qio_rllib.algorithms.setting_types import one_line
from qio_rllib.artifacts.metrics import ITERATION
from qio_rllib.experiments.recorder import RunRecorder


class TrainingFailed(RuntimeError):
    """A run that ended with an error; ``run_dir`` is its directory, with the traceback in ``error.log``."""

    def __init__(self, message: str, run_dir: Path) -> None:
        super().__init__(message)
        self.run_dir = run_dir


class RayLost(RuntimeError):
    """Ray did not start, or a process of it has ended."""


class TrainingInterrupted(Exception):
    """A run that a signal stopped; ``run_dir`` can be resumed, or the sweep that it belongs to.

    Args:
        run_dir: Its directory.
        received: The signal.
        resume: What is resumed in place of the run.

    Attributes:
        run_dir: Its directory.
        signal: The signal; SIGINT where none was seen.
    """

    def __init__(
        self,
        run_dir: Path,
        received: signal.Signals | None = None,
        resume: Path | None = None,
    ) -> None:
        super().__init__(
            f"training was interrupted; resume it with: rllib train --resume {resume or run_dir}"
        )
        self.run_dir = run_dir
        self.signal = signal.SIGINT if received is None else received


def failure(error: BaseException, recorder: RunRecorder, alone: bool = True) -> Exception:
    """Say in one line why training failed, and keep the rest in ``error.log``.

    Args:
        error: What ended it.
        recorder: Of the run, or of one of those that were trained with it.
        alone: Whether it is known to be that run's, whose iteration is then named.
    """
    cause, directory, logs = _root_cause(error), recorder.directory, recorder.logs
    if isinstance(cause, ConfigError) and not recorder.progress.rows:
        return ConfigError(str(cause))
    report = "".join(traceback.format_exception(error))
    found = re.search(r"^[\w.]*\bConfigError: (.+)$", report, re.MULTILINE)
    if found is not None and not recorder.progress.rows:  # from an actor that died while it was built
        return ConfigError(found[1])
    if isinstance(cause, ray.exceptions.ActorDiedError) and logs is not None:
        # An env runner whose environment raises ends itself and says why in its own log only.
        texts = [
            log.read_text(encoding="utf-8", errors="replace") for log in sorted(logs.glob("worker-*.err"))
        ]
        report = "\n".join(text for text in texts if "Traceback" in text) + report
    # RLlib raises anew without a message; the first exception in the text is what everything began with.
    found = re.search(r"^([A-Za-z_][\w.]*(?:Error|Exception): .+)$", report, re.MULTILINE)
    reason = f"{type(cause).__name__}: {one_line(cause)}"
    if found is not None:
        name, _, text = found[1].partition(": ")
        reason = f"{name.rpartition('.')[2]}: {text}"
    if isinstance(error, RayLost):
        reason = str(error)
    log = f"log: {directory.error_file}"
    try:
        directory.error_file.write_text(report, encoding="utf-8")
    except OSError as problem:
        log = f"no log: {problem.strerror}"
    iteration = int(recorder.progress.rows[-1][ITERATION]) + 1 if recorder.progress.rows else 1
    what = f"training failed in iteration {iteration}" if alone else "training failed"
    return TrainingFailed(f"{what}: {reason} ({log})", directory.path)


def _root_cause(error: BaseException) -> BaseException:
    """Return what a chain of Ray's wrappers is about."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        inner = getattr(error, "cause", None) or error.__cause__
        if isinstance(inner, BaseException):
            error = inner
    return error

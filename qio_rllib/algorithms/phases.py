"""What a training does at the moment, for whoever watches it from another process."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any

from ray.rllib.utils.metrics import ENV_RUNNER_SAMPLING_TIMER, LEARNER_UPDATE_TIMER, TIMERS
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger

SAMPLING, LEARNING, EVALUATING = "sampling", "learning", "evaluating"

PHASE_FILE = "phase"
"""In a trial's folder: the present phase. A training writes to it where somebody has put it there."""

_WIDTH = 12  # bytes; one write replaces the whole text
_OF_TIMERS = {
    (TIMERS, ENV_RUNNER_SAMPLING_TIMER): SAMPLING,
    (TIMERS, LEARNER_UPDATE_TIMER): LEARNING,
}


class PhaseSignal:
    """Writes the present phase of a training into the file of its trial.

    It costs one system call a change: rounds of off-policy algorithms take milliseconds.

    Args:
        folder: Of the trial; None where nobody can watch.
    """

    def __init__(self, folder: str | Path | None) -> None:
        self._file: int | None = None
        self._present = ""
        if folder is not None:
            with contextlib.suppress(OSError):  # nobody watches, or not from this machine
                self._file = os.open(Path(folder) / PHASE_FILE, os.O_WRONLY)

    def enter(self, phase: str) -> None:
        """Say that a phase begins."""
        if self._file is not None and phase != self._present:
            self._present = phase
            with contextlib.suppress(OSError):  # a full disk ends no training here
                os.pwrite(self._file, phase.ljust(_WIDTH).encode(), 0)

    def follow(self, metrics: MetricsLogger) -> None:
        """Enter a phase wherever the algorithm starts RLlib's timer of it, as all of RLlib's training steps do."""
        log_time = metrics.log_time

        def log_time_of_phase(key: Any, *args: Any, **kwargs: Any) -> Any:
            phase = _OF_TIMERS.get(key) if isinstance(key, tuple) else None
            if phase is not None:
                self.enter(phase)
            return log_time(key, *args, **kwargs)

        metrics.log_time = log_time_of_phase


def read_phase(folder: Path) -> str:
    """Return the present phase of a trial, empty before the first."""
    try:
        return (folder / PHASE_FILE).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""

"""Recording a run's progress while Tune trains: ``progress.csv``, ``pretraining.csv`` and TensorBoard files."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import tune

from qio_rllib.algorithms.base import PRETRAINING
from qio_rllib.artifacts.files import write_csv
from qio_rllib.artifacts.metrics import ITERATION, STEPS, progress_row
from qio_rllib.artifacts.progress_file import ProgressFile
from qio_rllib.artifacts.run_directory import RunDirectory

Report = Callable[[Mapping[str, float]], None]
"""Is called with each iteration's row of ``progress.csv``."""


class RunRecorder(tune.Callback):
    """Writes what Tune reports into the directory of the run.

    That is ``progress.csv``, TensorBoard files and, of algorithms that pretrain, ``pretraining.csv``.

    Args:
        directory: The run; a path stands for the one that lies there.
        report: Called with each row of ``progress.csv``.
        stop: Stop criteria of a run that is resumed, in place of those that Tune kept.
    """

    def __init__(
        self,
        directory: RunDirectory | str | Path,
        report: Report | None = None,
        stop: Mapping[str, float] | None = None,
    ) -> None:
        self.directory = directory if isinstance(directory, RunDirectory) else RunDirectory(directory)
        self.progress = ProgressFile(self.directory.progress_file)
        self.completed = False
        self._report = report
        self._stop = stop
        self._writer: Any = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune keeps a copy for `tune.Tuner.restore`: it goes on in the same directory, silently."""
        return type(self), (str(self.directory.path),)

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        """Put the present stop criteria where Tune has restored the old ones."""
        if self._stop is not None:
            for trial in trials:
                trial.stopping_criterion = dict(self._stop)

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record an iteration."""
        earlier = [
            row[STEPS] for row in self.progress.rows if row[ITERATION] < result[ITERATION] and STEPS in row
        ]
        row = progress_row(result, previous_steps=earlier[-1] if earlier else 0)
        self.progress.append(row)
        if result.get(PRETRAINING):
            write_csv(self.directory.pretraining_file, [progress_row(part) for part in result[PRETRAINING]])
        self._to_tensorboard(row)
        if self._report is not None:
            self._report(row)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Note that a stop criterion was reached."""
        self.completed = True

    def close(self) -> None:
        """Finish the TensorBoard files."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _to_tensorboard(self, row: Mapping[str, float]) -> None:
        step = int(row.get(STEPS, row[ITERATION]))
        if self._writer is None:
            from tensorboardX import SummaryWriter

            folder = self.directory.tensorboard
            number = len(list(folder.iterdir())) if folder.exists() else 0
            # What an interrupted run wrote beyond its last checkpoint is superseded.
            self._writer = SummaryWriter(
                str(folder), purge_step=step, flush_secs=10, filename_suffix=f".{number}"
            )
        for key, value in row.items():
            if math.isfinite(value):
                self._writer.add_scalar(key, value, step)

"""Recording a run's progress while Tune trains: ``progress.csv``, ``pretraining.csv`` and TensorBoard files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ray import tune
from ray.tune.result import SHOULD_CHECKPOINT

from qio_rllib.algorithms.base import PRETRAINING
from qio_rllib.algorithms.phases import PHASE_FILE, read_phase
from qio_rllib.algorithms.setting_types import one_line
from qio_rllib.artifacts.files import write_csv
from qio_rllib.artifacts.kept_checkpoints import KeptCheckpoint, KeptCheckpoints
from qio_rllib.artifacts.metrics import ITERATION, STEPS, progress_row
from qio_rllib.artifacts.progress_file import ProgressFile
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.experiments.stop_signals import StopRequested, StopSignals

if TYPE_CHECKING:
    from qio_rllib.artifacts.remote_copy import RemoteCopy
    from qio_rllib.artifacts.tensorboard import ScalarEvents

Report = Callable[[Mapping[str, float]], None]
"""Is called with each iteration's row of ``progress.csv``."""

OnPhase = Callable[[str], None]
"""Is called with the name of what a training begins to do: sampling, learning, evaluating, stopping, finishing."""


class RunRecorder(tune.Callback):
    """Writes what Tune reports into the directory of the run.

    That is ``progress.csv``, TensorBoard files and, of algorithms that pretrain, ``pretraining.csv``.

    Args:
        directory: The run; a path stands for the one that lies there.
        report: Called with each row of ``progress.csv``.
        keep: The newest so many checkpoints stay; None keeps all.
        signals: Where it is told to stop, by default by nobody.
        on_phase: Called when the training begins to do something else.

    Attributes:
        progress: ``progress.csv``.
        checkpoints: ``checkpoints.json``.
        restored: The checkpoint that the run goes on from, if any; to be set before it starts.
        completed: Whether a stop criterion was reached.
        recorded: Whether an iteration was recorded, by this object.
        logs: Folder of Ray's logs, where the run has started it.
        copy: The run's copy in other storage, which follows at each checkpoint; to be set before it starts.
        copy_problem: Why the copy is not up to date, in one line; None where it is, or where there is none.
    """

    def __init__(
        self,
        directory: RunDirectory | str | Path,
        report: Report | None = None,
        keep: int | None = None,
        signals: StopSignals | None = None,
        on_phase: OnPhase | None = None,
    ) -> None:
        self.directory = directory if isinstance(directory, RunDirectory) else RunDirectory(directory)
        self.progress = ProgressFile(self.directory.progress_file)
        self.checkpoints = KeptCheckpoints(self.directory, keep)
        self.restored: KeptCheckpoint | None = None
        self.completed = False
        self.signals = StopSignals() if signals is None else signals
        self.logs: Path | None = None
        self.copy: RemoteCopy | None = None
        self.copy_problem: str | None = None
        self.recorded = False
        self._report = report
        self._on_phase = on_phase
        self._phase = ""
        self._keep = keep
        self._events: ScalarEvents | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune keeps a copy for `tune.Tuner.restore`: it goes on in the same directory, silently."""
        return type(self), (str(self.directory.path), None, self._keep)

    def setup(self, *given: Any, **info: Any) -> None:
        """Let signals wait for the end of an iteration from here on."""
        self.signals.install()
        self.signals.deferred = True

    def watch_phases(self) -> None:
        """Let the training say what it does, where somebody wants to know."""
        if self._on_phase is not None:
            self.directory.trial.mkdir(parents=True, exist_ok=True)
            (self.directory.trial / PHASE_FILE).write_bytes(b"")

    def tell_phase(self, phase: str) -> None:
        """Say what the training does now, if that is new."""
        if self._on_phase is not None and phase and phase != self._phase:
            self._phase = phase
            self._on_phase(phase)

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        """Stop at once where there is nothing that a checkpoint would keep; Tune calls this ten times a second."""
        if self.signals.received is not None and not self.recorded:
            raise StopRequested
        if self._on_phase is not None:
            stopping = self.signals.received is not None
            self.tell_phase("stopping" if stopping else read_phase(self.directory.trial))

    def on_trial_start(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Give Tune the counters that belong to the checkpoint which it goes on from: it knows the directory only."""
        if self.restored is not None:
            trial.latest_checkpoint_result.metrics.update(self.restored.metrics)

    def on_trial_save(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """List the checkpoint that has been written; an error here ends the run, one in `on_checkpoint` does not."""
        self.checkpoints.add(Path(trial.checkpoint.path), self.progress.rows[-1])
        self.update_copy()
        if self.signals.received is not None and not self.completed:
            raise StopRequested

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
        self.recorded = True
        if self._report is not None:
            self._report(row)
        if self.signals.received is not None:
            result[SHOULD_CHECKPOINT] = True

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Note that a stop criterion was reached."""
        self.completed = True

    def update_copy(self) -> None:
        """Bring the copy up to date; storage that cannot be reached does not end a run, the next time may do it."""
        if self.copy is None:
            return
        try:
            self.copy.update()
            self.copy_problem = None
        except Exception as error:  # whatever file systems raise
            self.copy_problem = f"{self.copy.uri}: {one_line(error)}"

    def close(self) -> None:
        """Finish the TensorBoard files, and watch no longer."""
        (self.directory.trial / PHASE_FILE).unlink(missing_ok=True)
        if self._events is not None:
            self._events.close()
            self._events = None

    def _to_tensorboard(self, row: Mapping[str, float]) -> None:
        step = int(row.get(STEPS, row[ITERATION]))
        if self._events is None:
            from qio_rllib.artifacts.tensorboard import ScalarEvents

            # What an interrupted run wrote beyond its last checkpoint is superseded.
            self._events = ScalarEvents(self.directory.tensorboard, step)
        self._events.add(row, step)

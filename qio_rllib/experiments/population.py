"""Population-based training: the runs of an experiment with a ``scheduler``, at once, each in its own directory."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ray import tune

from qio_envs.api import ConfigError
from qio_rllib.artifacts.files import write_csv
from qio_rllib.artifacts.kept_checkpoints import KeptCheckpoint, KeptCheckpoints
from qio_rllib.artifacts.metrics import ITERATION
from qio_rllib.artifacts.run_description import run_description, timestamp
from qio_rllib.artifacts.run_directory import SWEEP, RunDirectory
from qio_rllib.experiments.failures import TrainingInterrupted, failure
from qio_rllib.experiments.finished_run import RunResult, draw, finish, optional, result_of
from qio_rllib.experiments.population_scheduler import Exploit, PopulationScheduler, Restored
from qio_rllib.experiments.population_state import PopulationState, RunStart
from qio_rllib.experiments.recorder import RunRecorder
from qio_rllib.experiments.resources import quiet_ray
from qio_rllib.experiments.run_output import RunOutput, run_output
from qio_rllib.experiments.stop_criteria import reaches
from qio_rllib.experiments.stop_signals import StopRequested, StopSignals
from qio_rllib.experiments.sweep import Sweep, Variant
from qio_rllib.experiments.training import newest_whole
from qio_rllib.experiments.tuning import ray_runtime, run_tune, trial_of
from qio_rllib.sampling.environments import scenario_hash

Report = Callable[[int, Mapping[str, float]], None]
"""Is called with the number of a run and each iteration's row of its ``progress.csv``."""

OnExploit = Callable[[Mapping[str, Any]], None]
"""Is called with each row of the schedule history after the first ones."""


class Population:
    """The runs of an experiment that learn from each other.

    Each has a directory as any run has; after a run has gone on from another one, ``config.yaml`` says with which
    settings. ``sweep_<time>.yaml`` beside the directories is the experiment, and ``sweep_<time>.csv`` the history of
    the schedule: for each run its first values, then a row whenever it went on from another: the iteration, ``from``
    which run, both scores, and the values since then. ``sweep_<time>.json`` is the `PopulationState` that it is resumed
    from.

    Args:
        sweep: Of an experiment with a ``scheduler``: one that has just begun, or with ``resume`` one that was
            interrupted.
        resume: Whether it goes on: each run from its last checkpoint since the last comparison, or from the one that
            the comparison left it with.

    Raises:
        ConfigError: There is nothing to go on with, it is damaged, the experiment has changed since, or all is done.
    """

    def __init__(self, sweep: Sweep, resume: bool = False) -> None:
        settings = sweep.experiment.population
        assert settings is not None
        self.sweep, self.settings = sweep, settings
        self.history_file = sweep.file.with_suffix(".csv")
        self.history: list[dict[str, Any]] = []
        self._experiments = {variant.number: variant.experiment for variant in sweep.variants}
        self._recorders: dict[int, RunRecorder] = {}
        self._state: PopulationState | None = None
        self._runs: dict[int, RunDirectory] = {}
        if resume:
            self._state = PopulationState.read(sweep.file, sweep.experiment)
            self._runs = sweep.runs()
            for number in self._experiments:
                if number not in self._runs or number not in self._state.runs:
                    raise ConfigError(f"{sweep.file}: run {number} of the population is missing")
                self._change(number, self._state.runs[number].values)
            if all(run.info()["status"] == "finished" for run in self._runs.values()):
                raise ConfigError(f"{sweep.file}: nothing to do, the population is finished")

    def train(
        self,
        report: Report | None = None,
        on_exploit: OnExploit | None = None,
        output: RunOutput = RunOutput.DROPPED,
    ) -> list[tuple[Variant, RunResult]]:
        """Train all runs; return what each has left.

        Args:
            report: Called with each iteration's row of a run.
            on_exploit: Called when a run goes on from another one.
            output: What becomes of what libraries print meanwhile.

        Raises:
            ConfigError: Something cannot be used.
            TrainingFailed: A run ended with an error, and with it all.
            TrainingInterrupted: The user stopped them.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.sweep.lock())
            signals = stack.enter_context(StopSignals())
            for variant in self.sweep.variants:
                number = variant.number
                if self._state is None:
                    self._runs[number] = self._begin(variant)
                directory = self._runs[number]
                stack.enter_context(directory.lock())
                shown = None if report is None else (lambda row, number=number: report(number, row))
                self._recorders[number] = RunRecorder(directory, shown, None, signals)
            notes: dict[int, list[str]] = {number: [] for number in self._recorders}
            restored = {} if self._state is None else self._go_on(self._state, notes)
            first = self._recorders[1]
            stack.enter_context(run_output(output, first.directory.log_file))
            return self._train(signals, on_exploit, output is RunOutput.DROPPED, restored, notes)

    def values(self, variant: Variant) -> dict[str, Any]:
        """Return what a run had last of the settings that change."""
        config = self._experiments[variant.number].config
        return {key: config[key] for key in self.settings.hyperparam_mutations}

    def _change(self, number: int, values: Mapping[str, Any]) -> None:
        experiment = self._experiments[number]
        self._experiments[number] = dataclasses.replace(experiment, config={**experiment.config, **values})

    def _begin(self, variant: Variant) -> RunDirectory:
        """Make the directory of a run."""
        number, experiment = variant.number, variant.experiment

        def prepare(directory: RunDirectory) -> None:
            directory.write_config({experiment.name: experiment.as_dict()})
            KeptCheckpoints(directory).write()
            directory.update_info(
                name=experiment.name,
                status="running",
                seed=experiment.seed,
                scenario_hash=scenario_hash(experiment.env, experiment.config.get("env_config")),
                **run_description(None),
                **{SWEEP: {"file": self.sweep.file.name, "run": number}},
            )

        directory = RunDirectory.create(self.sweep.file.parents[1], experiment.name, prepare=prepare)
        values = self.values(variant)
        self._note({ITERATION: 0, "run": number, "from": "", "score": "", "score_from": "", **values})
        return directory

    def _go_on(self, state: PopulationState, notes: Mapping[int, list[str]]) -> dict[int, Restored]:
        """Put runs and history back to where the population goes on; return how each run takes part.

        Raises:
            ConfigError: A checkpoint is missing or damaged; nothing has been changed then.
        """
        found = {number: self._checkpoint(number, state, notes[number]) for number in self._recorders}
        restored = {}
        for number, recorder in self._recorders.items():
            directory, start, kept = recorder.directory, state.runs[number], found[number]
            metrics = {} if kept is None else kept.metrics
            recorder.restored = kept
            info = directory.info()
            finished = info["status"] == "finished"
            recorder.completed = finished or reaches(metrics, self._experiments[number].stop)
            waits = not recorder.completed and self._waits(metrics, state)
            restored[number] = Restored(metrics, start.compared, waits)
            if finished:
                continue
            is_own = kept in recorder.checkpoints.all
            recorder.checkpoints.drop_after(start.mark if kept is None or not is_own else kept.number)
            experiment = self._experiments[number]
            directory.write_config({experiment.name: experiment.as_dict()})
            directory.error_file.unlink(missing_ok=True)
            resumed_at = [*info.get("resumed_at", []), timestamp()]
            directory.update_info(status="running", end_time=None, resumed_at=resumed_at)
        self.history = list(state.history)
        write_csv(self.history_file, self.history)
        return restored

    def _checkpoint(self, number: int, state: PopulationState, notes: list[str]) -> KeptCheckpoint | None:
        """Return the checkpoint that a run goes on from; None where it begins anew.

        Raises:
            ConfigError: It is missing or damaged.
        """
        start, recorder = state.runs[number], self._recorders[number]
        candidates = []
        if start.iteration > 0:
            source = self._recorders[start.source].checkpoints.all
            candidates = [kept for kept in source if kept.metrics[ITERATION] == start.iteration]
        for kept in recorder.checkpoints.all:
            if kept.number > start.mark and kept.metrics[ITERATION] > start.iteration:
                candidates.append(kept)
                if self._waits(kept.metrics, state) or reaches(kept.metrics, self._experiments[number].stop):
                    break  # what is behind belongs to an interval that nobody knows of
        found = newest_whole(candidates, recorder.directory, notes)
        if found is None and start.iteration > 0:
            raise ConfigError(
                f"{self.sweep.file}: run {number} goes on from the checkpoint of run {start.source} after iteration "
                f"{start.iteration}, which is missing"
            )
        return found

    def _waits(self, metrics: Mapping[str, float], state: PopulationState) -> bool:
        """Whether a run with this row has come to the next comparison."""
        return metrics.get(ITERATION, 0) >= state.next_comparison and self.settings.metric in metrics

    def _note(self, row: dict[str, Any]) -> None:
        self.history.append(row)
        write_csv(self.history_file, self.history)

    def _exploited(self, number: int, exploit: Exploit, donor: int) -> dict[str, Any]:
        """Take down that a run goes on from another one, with which settings; return the row of the history."""
        values = self.settings.values_of(exploit.trial.config)
        self._change(number, values)
        experiment = self._experiments[number]
        self._recorders[number].directory.write_config({experiment.name: experiment.as_dict()})
        self._note(
            {
                ITERATION: exploit.iteration,
                "run": number,
                "from": donor,
                "score": exploit.score,
                "score_from": exploit.score_from,
                **values,
            }
        )
        return self.history[-1]

    def _train(
        self,
        signals: StopSignals,
        on_exploit: OnExploit | None,
        silent: bool,
        restored: Mapping[int, Restored],
        notes: Mapping[int, list[str]],
    ) -> list[tuple[Variant, RunResult]]:
        recorders = self._recorders
        done = {
            number for number, run in self._runs.items() if restored and run.info()["status"] == "finished"
        }
        states = {number: "finished" if number in done else "failed" for number in recorders}
        keeper = _StateKeeper(self)
        callback = _PopulationRecorder(recorders, signals, keeper.write_if_whole)
        results: list[tuple[Variant, RunResult]] = []

        def exploited(exploit: Exploit) -> None:
            number, donor = callback.number(exploit.trial), callback.number(exploit.donor)
            keeper.donors[number] = donor
            row = self._exploited(number, exploit, donor)
            if on_exploit is not None:
                on_exploit(row)

        def interrupted() -> TrainingInterrupted:
            for number, state in states.items():
                states[number] = "finished" if state == "finished" else "interrupted"
            return TrainingInterrupted(recorders[1].directory.path, signals.received, self.sweep.file)

        try:
            scheduler = PopulationScheduler(
                self.settings,
                self.sweep.experiment.seed,
                exploited,
                lambda: keeper.compared(scheduler, callback),
                self._state,
                (lambda trial: restored[callback.number(trial)]) if restored else None,
            )
            if self._state is None:
                keeper.begun(scheduler)
            if not all(recorder.completed for recorder in recorders.values()):
                self._tune(callback, scheduler, silent)
            if not all(recorder.completed for recorder in recorders.values()):  # Tune takes SIGUSR1
                raise KeyboardInterrupt
            for variant in self.sweep.variants:
                number = variant.number
                experiment, recorder = self._experiments[number], recorders[number]
                if number in done:
                    results.append((variant, result_of(recorder.directory)))
                else:
                    results.append((variant, finish(experiment, recorder.directory, recorder, notes[number])))
                states[number] = "finished"
            return results
        except (KeyboardInterrupt, SystemExit) as error:
            raise interrupted() from error
        except Exception as error:
            if signals.received is not None:
                raise interrupted() from error
            if type(error) is ConfigError:
                raise
            raise failure(error, recorders[1], alone=False) from error  # Tune does not say whose it is
        finally:
            signals.deferred = False
            for number, recorder in recorders.items():
                with contextlib.suppress(OSError):
                    recorder.close()
                if number in done:
                    continue
                with contextlib.suppress(OSError):
                    recorder.directory.update_info(status=states[number], end_time=timestamp())
                if states[number] != "finished":
                    with optional("plots", []):
                        draw(self._experiments[number], recorder.directory, recorder)

    def _tune(self, callback: _PopulationRecorder, scheduler: PopulationScheduler, silent: bool) -> None:
        """Run Tune until all runs have reached a stop criterion."""
        recorders = self._recorders
        config = self._experiments[1].algorithm_config()
        with (
            quiet_ray(logging.CRITICAL if silent else logging.INFO),
            ray_runtime(config, silent, len(recorders)) as logs,
        ):
            for recorder in recorders.values():
                recorder.logs = logs
            recorders[1].signals.install()
            trials = [
                trial_of(self._experiments[number], recorder.directory, recorder)
                for number, recorder in recorders.items()
                if not recorder.completed
            ]
            run_tune(trials, [callback], scheduler)

    def _state_of(self, scheduler: PopulationScheduler, runs: Mapping[int, RunStart]) -> PopulationState:
        return PopulationState(
            self.sweep.experiment.as_dict(),
            scheduler.next_comparison,
            *scheduler.random_states,
            list(self.history),
            runs,
        )


class _StateKeeper:
    """Writes the state of a population after a comparison, as soon as all checkpoints are there that it names.

    A process that is killed before goes on from the comparison before, and does the same again.

    Args:
        population: The population.

    Attributes:
        donors: By run, which other one it goes on from since the comparison that is under way.
    """

    def __init__(self, population: Population) -> None:
        self._population = population
        self.donors: dict[int, int] = {}
        self._next: PopulationState | None = None

    def begun(self, scheduler: PopulationScheduler) -> None:
        """Write the state before the first comparison."""
        population = self._population
        runs = {
            variant.number: RunStart(variant.number, 0, 0, -1, population.values(variant))
            for variant in population.sweep.variants
        }
        population._state_of(scheduler, runs).write(population.sweep.file)

    def compared(self, scheduler: PopulationScheduler, callback: _PopulationRecorder) -> None:
        """Take down what a comparison has led to."""
        population = self._population
        trials = {callback.number(trial): trial for trial in scheduler.trials}
        runs = {}
        for variant in population.sweep.variants:
            number = variant.number
            recorder = population._recorders[number]
            if number in trials and not recorder.completed:
                iteration, counted = scheduler.times_of(trials[number])
            else:
                iteration = counted = int(recorder.progress.rows[-1][ITERATION])
            runs[number] = RunStart(
                self.donors.get(number, number),
                iteration,
                counted,
                recorder.checkpoints.last_number,
                population.values(variant),
            )
        self.donors = {}
        self._next = population._state_of(scheduler, runs)  # written when the row that led to it is recorded

    def write_if_whole(self) -> None:
        """Write the state if it is new and all of its checkpoints are listed."""
        if self._next is None:
            return
        recorders = self._population._recorders
        for start in self._next.runs.values():
            listed = recorders[start.source].checkpoints.all
            if all(kept.metrics[ITERATION] != start.iteration for kept in listed):
                return
        self._next.write(self._population.sweep.file)
        self._next = None


class _PopulationRecorder(tune.Callback):
    """Hands what Tune reports of a trial to the recorder of its run."""

    def __init__(
        self, recorders: Mapping[int, RunRecorder], signals: StopSignals, saved: Callable[[], None]
    ) -> None:
        self._recorders, self._signals, self._saved = recorders, signals, saved
        self._numbers = {recorder.directory.checkpoints: number for number, recorder in recorders.items()}

    def number(self, trial: Any) -> int:
        """Return which run a trial is."""
        return self._numbers[Path(trial.storage.experiment_fs_path)]

    def _of(self, trial: Any) -> RunRecorder:
        return self._recorders[self.number(trial)]

    def setup(self, *given: Any, **info: Any) -> None:
        """Let signals wait for the end of an iteration from here on."""
        self._recorders[1].setup()

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        """Stop at once where there is nothing that a checkpoint would keep."""
        recorded = any(recorder.recorded for recorder in self._recorders.values())
        if self._signals.received is not None and not recorded:
            raise StopRequested

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record an iteration of a run."""
        self._of(trial).on_trial_result(iteration, trials, trial, result)
        self._saved()

    def on_trial_save(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """List a checkpoint of a run."""
        try:
            self._of(trial).on_trial_save(iteration, trials, trial)
        finally:  # also where it ends the training
            self._saved()

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Note that a run is done."""
        self._of(trial).on_trial_complete(iteration, trials, trial)

"""Population-based training: the runs of an experiment with a ``scheduler``, at once, each in its own directory."""

from __future__ import annotations

import contextlib
import logging
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ray import tune
from ray.tune.schedulers import PopulationBasedTraining

from qio_envs.api import ConfigError
from qio_rllib.artifacts.files import write_csv
from qio_rllib.artifacts.kept_checkpoints import KeptCheckpoints
from qio_rllib.artifacts.metrics import ITERATION
from qio_rllib.artifacts.run_description import run_description, timestamp
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.experiments.experiment import Experiment
from qio_rllib.experiments.failures import TrainingInterrupted, failure
from qio_rllib.experiments.finished_run import RunResult, draw, finish, optional
from qio_rllib.experiments.population_settings import PopulationSettings
from qio_rllib.experiments.recorder import RunRecorder
from qio_rllib.experiments.resources import quiet_ray
from qio_rllib.experiments.run_output import RunOutput, run_output
from qio_rllib.experiments.stop_signals import StopRequested, StopSignals
from qio_rllib.experiments.sweep import SWEEP, Sweep, Variant
from qio_rllib.experiments.tuning import ray_runtime, run_tune, trial_of
from qio_rllib.sampling.environments import scenario_hash

Report = Callable[[int, Mapping[str, float]], None]
"""Is called with the number of a run and each iteration's row of its ``progress.csv``."""

OnExploit = Callable[[Mapping[str, Any]], None]
"""Is called with each row of the schedule history after the first ones."""


class Exploit(NamedTuple):
    """A trial that goes on from another one."""

    trial: Any
    donor: Any
    iteration: int
    score: float
    score_from: float


class Population:
    """The runs of an experiment that learn from each other.

    Each has a directory as any run has; after a run has gone on from another one, ``config.yaml`` says with which
    settings. ``sweep_<time>.yaml`` beside the directories is the experiment, and ``sweep_<time>.csv`` the history of
    the schedule: for each run its first values, then a row whenever it went on from another: the iteration, ``from``
    which run, both scores, and the values since then.

    Args:
        sweep: One that has just begun, of an experiment with a ``scheduler``.
    """

    def __init__(self, sweep: Sweep) -> None:
        settings = sweep.experiment.population
        assert settings is not None
        self.sweep, self.settings = sweep, settings
        self.history_file = sweep.file.with_suffix(".csv")
        self.history: list[dict[str, Any]] = []
        self._experiments: dict[int, Experiment] = {}
        self._recorders: dict[int, RunRecorder] = {}

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
                stack.enter_context(self._begin(variant, signals, report).lock())
            first = self._recorders[1]
            stack.enter_context(run_output(output, first.directory.log_file))
            return self._train(signals, on_exploit, output is RunOutput.DROPPED)

    def values(self, variant: Variant) -> dict[str, Any]:
        """Return what a run had last of the settings that change."""
        config = self._experiments[variant.number].config
        return {key: config[key] for key in self.settings.hyperparam_mutations}

    def _begin(self, variant: Variant, signals: StopSignals, report: Report | None) -> RunDirectory:
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
        shown = None if report is None else (lambda row: report(number, row))
        self._experiments[number] = experiment
        self._recorders[number] = RunRecorder(directory, shown, None, signals)
        values = {key: variant.values[key] for key in self.settings.hyperparam_mutations}
        self._note({ITERATION: 0, "run": number, "from": "", "score": "", "score_from": "", **values})
        return directory

    def _note(self, row: dict[str, Any]) -> None:
        self.history.append(row)
        write_csv(self.history_file, self.history)

    def _exploited(self, number: int, exploit: Exploit, donor: int) -> dict[str, Any]:
        """Take down that a run goes on from another one, with which settings; return the row of the history."""
        values = self.settings.values_of(exploit.trial.config)
        experiment, recorder = self._experiments[number], self._recorders[number]
        experiment.config.update(values)
        recorder.directory.write_config({experiment.name: experiment.as_dict()})
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
        self, signals: StopSignals, on_exploit: OnExploit | None, silent: bool
    ) -> list[tuple[Variant, RunResult]]:
        recorders = self._recorders
        states = dict.fromkeys(recorders, "failed")
        callback = _PopulationRecorder(recorders, signals)
        results: list[tuple[Variant, RunResult]] = []

        def exploited(exploit: Exploit) -> None:
            number, donor = callback.number(exploit.trial), callback.number(exploit.donor)
            row = self._exploited(number, exploit, donor)
            if on_exploit is not None:
                on_exploit(row)

        try:
            config = self._experiments[1].algorithm_config()
            with (
                quiet_ray(logging.CRITICAL if silent else logging.INFO),
                ray_runtime(config, silent, len(recorders)) as logs,
            ):
                for recorder in recorders.values():
                    recorder.logs = logs
                signals.install()
                scheduler = _Scheduler(self.settings, self.sweep.experiment.seed, exploited)
                trials = [
                    trial_of(self._experiments[number], recorder.directory, recorder)
                    for number, recorder in recorders.items()
                ]
                run_tune(trials, [callback], scheduler)
            if not all(recorder.completed for recorder in recorders.values()):  # Tune takes SIGUSR1
                raise KeyboardInterrupt
            for variant in self.sweep.variants:
                number = variant.number
                experiment, recorder = self._experiments[number], recorders[number]
                results.append((variant, finish(experiment, recorder.directory, recorder)))
                states[number] = "finished"
            return results
        except (KeyboardInterrupt, SystemExit) as error:
            states = {
                number: "interrupted" if state == "failed" else state for number, state in states.items()
            }
            raise TrainingInterrupted(recorders[1].directory.path, signals.received, alone=True) from error
        except Exception as error:
            if signals.received is not None:
                states = dict.fromkeys(states, "interrupted")
                raise TrainingInterrupted(
                    recorders[1].directory.path, signals.received, alone=True
                ) from error
            if type(error) is ConfigError:
                raise
            raise failure(error, recorders[1], alone=False) from error  # Tune does not say whose it is
        finally:
            signals.deferred = False
            for number, recorder in recorders.items():
                with contextlib.suppress(OSError):
                    recorder.close()
                with contextlib.suppress(OSError):
                    recorder.directory.update_info(status=states[number], end_time=timestamp())
                if states[number] != "finished":
                    with optional("plots", []):
                        draw(self._experiments[number], recorder.directory, recorder)


class _PopulationRecorder(tune.Callback):
    """Hands what Tune reports of a trial to the recorder of its run."""

    def __init__(self, recorders: Mapping[int, RunRecorder], signals: StopSignals) -> None:
        self._recorders, self._signals = recorders, signals
        self._numbers = {recorder.directory.trial: number for number, recorder in recorders.items()}

    def number(self, trial: Any) -> int:
        """Return which run a trial is."""
        return self._numbers[Path(trial.storage.trial_fs_path)]

    def _of(self, trial: Any) -> RunRecorder:
        return self._recorders[self.number(trial)]

    def setup(self, *given: Any, **info: Any) -> None:
        """Let signals wait for the end of an iteration from here on."""
        self._recorders[1].setup()

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        """Stop at once where there is nothing that a checkpoint would keep."""
        recorded = any(recorder.progress.rows for recorder in self._recorders.values())
        if self._signals.received is not None and not recorded:
            raise StopRequested

    def on_trial_result(
        self, iteration: int, trials: list, trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Record an iteration of a run."""
        self._of(trial).on_trial_result(iteration, trials, trial, result)

    def on_trial_save(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """List a checkpoint of a run."""
        self._of(trial).on_trial_save(iteration, trials, trial)

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Note that a run is done."""
        self._of(trial).on_trial_complete(iteration, trials, trial)


class _Scheduler(PopulationBasedTraining):
    """Tune's scheduler with random numbers of its own, values within their ranges, and word of what it does.

    Args:
        settings: Of the section ``scheduler``.
        seed: Of the population.
        exploited: Called when a trial goes on from another one.
    """

    def __init__(
        self,
        settings: PopulationSettings,
        seed: int,
        exploited: Callable[[Exploit], None],
    ) -> None:
        super().__init__(
            time_attr=ITERATION,
            metric=settings.metric,
            mode=settings.mode,
            perturbation_interval=settings.perturbation_interval,
            hyperparam_mutations=settings.mutations(np.random.default_rng(seed)),
            quantile_fraction=settings.quantile_fraction,
            resample_probability=settings.resample_probability,
            custom_explore_fn=settings.within,
            log_config=False,
            require_attrs=False,
            synch=True,  # so that a run's iterations count up, and what it draws does not depend on who is faster
        )
        self._exploited = exploited
        self._numbers = random.Random(seed).getstate()

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Compare runs where all have come to the end of an interval."""
        with self._own_numbers():
            return super().on_trial_result(tune_controller, trial, result)

    def _exploit(self, tune_controller: Any, trial: Any, trial_to_clone: Any) -> None:
        before, of_donor = self._trial_state[trial], self._trial_state[trial_to_clone]
        scores = [self._metric_op * state.last_score for state in (before, of_donor)]
        super()._exploit(tune_controller, trial, trial_to_clone)
        self._exploited(Exploit(trial, trial_to_clone, int(of_donor.last_train_time), *scores))

    @contextlib.contextmanager
    def _own_numbers(self) -> Iterator[None]:
        """Let Python's global random numbers, which Tune draws from, be those of the seed."""
        before = random.getstate()
        random.setstate(self._numbers)
        try:
            yield
        finally:
            self._numbers = random.getstate()
            random.setstate(before)

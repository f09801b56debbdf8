"""Training an experiment into a directory of its own, and resuming it."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from qio_envs.api import ConfigError
from qio_rllib.artifacts.kept_checkpoints import KeptCheckpoint, KeptCheckpoints
from qio_rllib.artifacts.remote_copy import RemoteCopy
from qio_rllib.artifacts.run_description import run_description, timestamp
from qio_rllib.artifacts.run_directory import RUN_FILE, RunDirectory
from qio_rllib.experiments.comparison import flat
from qio_rllib.experiments.experiment import Experiment, load_experiment
from qio_rllib.experiments.failures import TrainingInterrupted, failure
from qio_rllib.experiments.finished_run import RunResult, draw, finish, optional, result_of
from qio_rllib.experiments.population_state import refuse_alone
from qio_rllib.experiments.recorder import OnPhase, Report, RunRecorder
from qio_rllib.experiments.resources import quiet_ray
from qio_rllib.experiments.run_output import RunOutput, run_output
from qio_rllib.experiments.stop_criteria import reaches
from qio_rllib.experiments.stop_signals import StopSignals
from qio_rllib.experiments.tuning import ray_runtime, run_trial
from qio_rllib.sampling.environments import scenario_hash
from qio_rllib.sampling.evaluation import checkpoint_experiment
from qio_rllib.sampling.manifest import verify


def train(
    experiment: Experiment,
    out: str | Path = "runs",
    report: Report | None = None,
    command: Sequence[str] | None = None,
    on_phase: OnPhase | None = None,
    output: RunOutput = RunOutput.DROPPED,
    info: Mapping[str, Any] | None = None,
) -> RunResult:
    """Train, and leave everything in a new directory ``out/name/<time>``.

    Args:
        experiment: What to train.
        out: Where runs are kept.
        report: Called with each iteration's row of ``progress.csv``.
        command: What is written to ``run.json`` as the command; by default ``sys.argv``.
        on_phase: Called with what the training begins to do.
        output: What becomes of what libraries print meanwhile.
        info: Further entries of ``run.json``.

    Raises:
        ConfigError: Something cannot be used; no directory is made then.
        TrainingFailed: Training ended with an error.
        TrainingInterrupted: The user stopped it.
    """
    experiment = experiment.with_seed()
    config = experiment.validate()

    def prepare(directory: RunDirectory) -> None:
        directory.write_config({experiment.name: experiment.as_dict()})
        KeptCheckpoints(directory).write()
        directory.update_info(
            name=experiment.name,
            status="running",
            seed=experiment.seed,
            scenario_hash=scenario_hash(experiment.env, experiment.config.get("env_config")),
            **run_description(command),
            **(info or {}),
        )

    directory = RunDirectory.create(out, experiment.name, prepare=prepare)
    with directory.lock(), StopSignals() as signals, run_output(output, directory.log_file):
        keep = experiment.checkpoint_config.num_to_keep
        recorder = RunRecorder(directory, report, keep, signals, on_phase)
        try:
            return _train(experiment, config, directory, recorder, output)
        except ConfigError:
            if not recorder.progress.rows:  # bad input that only the algorithm could see
                shutil.rmtree(directory.path)
            raise


def resume(
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    report: Report | None = None,
    allow_import: Sequence[str] | None = (),
    on_phase: OnPhase | None = None,
    output: RunOutput = RunOutput.DROPPED,
) -> RunResult:
    """Continue a run from its last checkpoint, in its own directory.

    Args:
        run_dir: The directory of the run.
        overrides: ``stop.<metric>=<value>`` texts; they extend a run, also one that is finished.
        report: Called with each iteration's row of ``progress.csv``.
        allow_import: What its ``config.yaml`` may import, see `load_experiment`.
        on_phase: Called with what the training begins to do.
        output: What becomes of what libraries print meanwhile.

    Raises:
        ConfigError: There is no such run, it is damaged, it is finished, or it is one of a population.
        TrainingFailed: Training ended with an error.
        TrainingInterrupted: The user stopped it.
    """
    directory = RunDirectory.open(run_dir)
    refuse_alone(directory)
    for override in overrides:
        if not override.startswith("stop."):
            raise ConfigError(
                f"--set {override.partition('=')[0]}: only stop.<metric> may change when a run is resumed"
            )
    with directory.lock(), StopSignals() as signals:
        before = load_experiment(directory.config_file, allow_import=allow_import)
        experiment = load_experiment(directory.config_file, overrides, allow_import=allow_import)
        config = experiment.validate()
        finished = directory.info()["status"] == "finished"
        keep = experiment.checkpoint_config.num_to_keep
        recorder = RunRecorder(directory, report, keep, signals, on_phase)
        last = recorder.progress.rows[-1] if recorder.progress.rows else {}
        if reaches(last, experiment.stop) and (finished or experiment.stop != before.stop):
            done = ", ".join(
                f"{key} = {last[key]:g} of {value:g}" for key, value in experiment.stop.items() if key in last
            )
            key = next(key for key in experiment.stop if key in last)
            raise ConfigError(
                f"{run_dir}: nothing to do, the run is finished ({done}); extend it with --set stop.{key}=..."
            )
        notes: list[str] = []
        recorder.restored = newest_whole(recorder.checkpoints.all, directory, notes)
        directory.reserve_space()
        if recorder.restored is not None:
            recorder.checkpoints.drop_after(recorder.restored.number)
        if experiment.stop != before.stop:
            directory.write_config({experiment.name: experiment.as_dict()})
        directory.error_file.unlink(missing_ok=True)
        resumed_at = [*directory.info().get("resumed_at", []), timestamp()]
        directory.update_info(status="running", end_time=None, resumed_at=resumed_at)
        with run_output(output, directory.log_file):
            return _train(experiment, config, directory, recorder, output, notes)


def run_of(experiment: Experiment, out: str | Path) -> RunDirectory | None:
    """Return the run that is there of an experiment and its seed in ``out/name/``, None where there is none.

    Args:
        experiment: With a seed.
        out: Where runs are kept.

    Raises:
        ConfigError: A run of its seed has other settings, or is damaged.
    """
    wanted = flat(experiment.as_dict())
    for info_file in sorted((Path(out) / experiment.name).glob(f"*/{RUN_FILE}")):
        run = RunDirectory.open(info_file.parent)
        if run.info().get("seed") != experiment.seed:
            continue
        (there,) = (flat(values) for values in run.config().values())
        differing = next(
            (key for key in dict.fromkeys([*wanted, *there]) if wanted.get(key) != there.get(key)), None
        )
        if differing is not None:
            raise ConfigError(
                f"{run.path}: was trained with another {differing}; remove it, or choose another --out"
            )
        return run
    return None


def train_or_go_on(
    experiment: Experiment, run: RunDirectory | None, out: str | Path, **how: Any
) -> RunResult:
    """Train an experiment, go on with its run, or return the result that is there.

    Args:
        experiment: What to train.
        run: What `run_of` found.
        out: Where runs are kept.
        **how: ``report``, ``on_phase`` and ``output`` of `train`.

    Raises:
        ConfigError: As `train`.
        TrainingFailed: Training ended with an error.
        TrainingInterrupted: The user stopped it.
    """
    if run is None:
        return train(experiment, out, **how)
    if run.info()["status"] == "finished":
        return result_of(run)
    return resume(run.path, allow_import=None, **how)


def newest_whole(
    checkpoints: Sequence[KeptCheckpoint], directory: RunDirectory, notes: list[str]
) -> KeptCheckpoint | None:
    """Return the newest checkpoint that can be read, None where none has been written.

    Args:
        checkpoints: Those that the run can go on from, the oldest first.
        directory: The run.
        notes: Those that are newer and cannot be read are put here.

    Raises:
        ConfigError: The list or all that it names is missing or damaged.
    """
    if not directory.checkpoints_file.exists():
        raise ConfigError(f"{directory.path}: damaged ({directory.checkpoints_file.name} is missing)")
    problem: ConfigError | None = None
    for kept in reversed(checkpoints):
        try:
            verify(str(kept.path.resolve()))
            checkpoint_experiment(kept.path)
        except ConfigError as error:
            problem = problem or error
            notes.append(f"{kept.path.name}: {error}; the run went on from an earlier checkpoint")
            continue
        return kept
    if problem is not None:
        raise problem
    return None


def _train(
    experiment: Experiment,
    config: AlgorithmConfig,
    directory: RunDirectory,
    recorder: RunRecorder,
    output: RunOutput,
    notes: Sequence[str] = (),
) -> RunResult:
    """Train in the run directory, and keep its copy in other storage, if there is one, in step with it."""
    if experiment.storage is None:
        return _train_locally(experiment, config, directory, recorder, output, notes)
    recorder.copy = RemoteCopy(directory, experiment.storage, experiment.name)
    try:
        result = _train_locally(experiment, config, directory, recorder, output, notes)
    finally:
        recorder.update_copy()
    if recorder.copy_problem is not None:
        behind = f"storage: {recorder.copy_problem}; the copy is behind, the run directory is whole"
        result = dataclasses.replace(result, notes=(*result.notes, behind))
    return dataclasses.replace(result, storage=recorder.copy.uri)


def _train_locally(
    experiment: Experiment,
    config: AlgorithmConfig,
    directory: RunDirectory,
    recorder: RunRecorder,
    output: RunOutput,
    notes: Sequence[str],
) -> RunResult:
    """Run Tune and turn its outcome into a result or an exception; ``run.json`` says which."""
    status = "failed"
    try:
        directory.reserve_space()
        # A run may have been killed behind its last iteration.
        if recorder.restored is None or not reaches(recorder.restored.metrics, experiment.stop):
            _train_trial(experiment, config, directory, recorder, output)
        recorder.tell_phase("finishing")
        result = finish(experiment, directory, recorder, notes)
        status = "finished"
        return result
    except (KeyboardInterrupt, SystemExit) as error:
        status = "interrupted"
        # While Ray starts, SIGTERM is Ray's, which exits.
        received = signal.SIGTERM if isinstance(error, SystemExit) else recorder.signals.received
        raise TrainingInterrupted(directory.path, received) from error
    except Exception as error:
        if type(error) is ConfigError:  # one that comes from another process is of a class that Ray has made
            raise
        directory.release_space()
        raise failure(error, recorder) from error
    finally:
        directory.release_space()
        with contextlib.suppress(OSError):  # where nothing can be written any more
            recorder.close()
        with contextlib.suppress(OSError):
            directory.update_info(status=status, end_time=timestamp())
        if status != "finished":
            with optional("plots", []):
                draw(experiment, directory, recorder)


def _train_trial(
    experiment: Experiment,
    config: AlgorithmConfig,
    directory: RunDirectory,
    recorder: RunRecorder,
    output: RunOutput,
) -> None:
    """Run Tune until a stop criterion is reached.

    Raises:
        KeyboardInterrupt: A signal asked it to stop.
        Exception: What ended the training.
    """
    silent = output is RunOutput.DROPPED
    try:
        with (
            quiet_ray(logging.CRITICAL if silent else logging.INFO),
            ray_runtime(config, silent) as recorder.logs,
        ):
            recorder.signals.install()
            run_trial(experiment, directory, recorder)
        if not recorder.completed:  # Tune takes SIGUSR1
            raise KeyboardInterrupt
    except Exception as error:
        if recorder.signals.received is not None:
            raise KeyboardInterrupt from error
        if not recorder.completed:  # what comes behind the last checkpoint takes nothing back
            raise
    finally:
        recorder.signals.deferred = False

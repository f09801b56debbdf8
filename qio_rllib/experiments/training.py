"""Training an experiment into a directory of its own, and resuming it."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from qio_envs.api import ConfigError
from qio_rllib.artifacts.run_description import run_description, timestamp
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.experiments.experiment import Experiment, load_experiment, quiet_ray
from qio_rllib.experiments.failures import TrainingInterrupted, failure
from qio_rllib.experiments.finished_run import RunResult, draw, finish, optional
from qio_rllib.experiments.recorder import Report, RunRecorder
from qio_rllib.experiments.tuning import continue_trial, last_tune_checkpoint, ray_runtime, start_trial
from qio_rllib.manifest import verify
from qio_rllib.sampling.environments import scenario_hash
from qio_rllib.sampling.evaluation import checkpoint_experiment


def train(
    experiment: Experiment,
    out: str | Path = "runs",
    report: Report | None = None,
    command: Sequence[str] | None = None,
) -> RunResult:
    """Train, and leave everything in a new directory ``out/name/<time>``.

    Args:
        experiment: What to train.
        out: Where runs are kept.
        report: Called with each iteration's row of ``progress.csv``.
        command: What is written to ``run.json`` as the command; by default ``sys.argv``.

    Raises:
        ConfigError: Something cannot be used; no directory is made then.
        TrainingFailed: Training ended with an error.
        TrainingInterrupted: The user stopped it.
    """
    experiment = experiment.with_seed()
    config = experiment.validate()
    directory = RunDirectory.create(out, experiment.name)
    directory.write_config({experiment.name: experiment.as_dict()})
    directory.update_info(
        name=experiment.name,
        status="running",
        seed=experiment.seed,
        scenario_hash=scenario_hash(experiment.env, experiment.config.get("env_config")),
        **run_description(command),
    )
    recorder = RunRecorder(directory, report)
    try:
        return _train(experiment, config, directory, recorder, start_trial)
    except ConfigError:
        if not recorder.progress.rows:  # bad input that only the algorithm could see
            shutil.rmtree(directory.path)
        raise


def resume(
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    report: Report | None = None,
    allow_import: Sequence[str] | None = (),
) -> RunResult:
    """Continue a run from its last checkpoint, in its own directory.

    Args:
        run_dir: The directory of the run.
        overrides: ``stop.<metric>=<value>`` texts; they extend a run, also one that is finished.
        report: Called with each iteration's row of ``progress.csv``.
        allow_import: What its ``config.yaml`` may import, see `load_experiment`.

    Raises:
        ConfigError: There is no such run, it is damaged, or it is finished.
        TrainingFailed: Training ended with an error.
        TrainingInterrupted: The user stopped it.
    """
    directory = RunDirectory.open(run_dir)
    for override in overrides:
        if not override.startswith("stop."):
            raise ConfigError(
                f"--set {override.partition('=')[0]}: only stop.<metric> may change when a run is resumed"
            )
    before = load_experiment(directory.config_file, allow_import=allow_import)
    experiment = load_experiment(directory.config_file, overrides, allow_import=allow_import)
    config = experiment.validate()
    status = directory.info()["status"]
    recorder = RunRecorder(directory, report, experiment.stop)
    last = recorder.progress.rows[-1] if recorder.progress.rows else {}
    if any(last.get(key, -math.inf) >= value for key, value in experiment.stop.items()):
        done = ", ".join(
            f"{key} = {last[key]:g} of {value:g}" for key, value in experiment.stop.items() if key in last
        )
        if status == "finished" or experiment.stop != before.stop:
            key = next(key for key in experiment.stop if key in last)
            raise ConfigError(
                f"{run_dir}: nothing to do, the run is finished ({done}); extend it with --set stop.{key}=..."
            )
    checkpoint = last_tune_checkpoint(directory)
    if checkpoint is not None:
        verify(str(checkpoint.resolve()))
        checkpoint_experiment(checkpoint)
    elif status == "finished":
        raise ConfigError(f"{run_dir}: damaged, its checkpoints are missing")
    if experiment.stop != before.stop:
        directory.write_config({experiment.name: experiment.as_dict()})
    resumed_at = [*directory.info().get("resumed_at", []), timestamp()]
    directory.update_info(status="running", end_time=None, resumed_at=resumed_at)
    run_trial = start_trial if checkpoint is None else continue_trial
    return _train(experiment, config, directory, recorder, run_trial)


def _train(
    experiment: Experiment,
    config: AlgorithmConfig,
    directory: RunDirectory,
    recorder: RunRecorder,
    run_trial: Callable[[Experiment, RunDirectory, RunRecorder], tune.ResultGrid],
) -> RunResult:
    """Run Tune and turn its outcome into a result or an exception; ``run.json`` says which."""
    status = "failed"
    try:
        with quiet_ray(), ray_runtime(config) as logs:
            outcome = run_trial(experiment, directory, recorder)[0]
        if outcome.error is not None:
            raise failure(outcome.error, recorder, logs) from outcome.error
        if not recorder.completed:  # Tune ends without an error when it is interrupted
            raise KeyboardInterrupt
        result = finish(experiment, directory, recorder, outcome)
        status = "finished"
        return result
    except KeyboardInterrupt as error:
        status = "interrupted"
        raise TrainingInterrupted(directory.path) from error
    finally:
        recorder.close()
        directory.update_info(status=status, end_time=timestamp())
        if status != "finished":
            with optional("plots", []):
                draw(experiment, directory, recorder)

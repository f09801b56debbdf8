"""Running one trial with Ray Tune, from the beginning or from its last checkpoint."""

from __future__ import annotations

import contextlib
import math
import os
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.tune.schedulers import TrialScheduler

from qio_envs.api import ConfigError
from qio_rllib.algorithms.setting_types import one_line
from qio_rllib.artifacts.run_directory import TRIAL, RunDirectory
from qio_rllib.experiments.experiment import Experiment
from qio_rllib.experiments.failures import RayLost
from qio_rllib.experiments.loggers import logger_callbacks
from qio_rllib.experiments.recorder import RunRecorder
from qio_rllib.experiments.resources import resources, start_ray


def run_trial(experiment: Experiment, directory: RunDirectory, recorder: RunRecorder) -> None:
    """Train from the checkpoint that the recorder names, or from the beginning.

    Neither Tune's own state of an experiment nor the errors that it keeps in files are read: they are written in place,
    and a process that dies or a full disk leaves a part of them.

    Raises:
        RayLost: A process of Ray has ended.
        Exception: What ended the training.
    """
    trial = trial_of(experiment, directory, recorder)
    recorder.watch_phases()
    loggers = logger_callbacks(experiment.loggers, experiment.name, directory.path)
    run_tune([trial], [recorder, *loggers])


def trial_of(experiment: Experiment, directory: RunDirectory, recorder: RunRecorder) -> tune.Experiment:
    """Return what Tune runs for an experiment: one trial, which writes into the directory of the run."""
    config = experiment.algorithm_config()
    restored = recorder.restored
    trial = tune.Experiment(
        # Runs at once need names of their own, or Tune renames the folder of all trials but the first.
        f"{directory.path.name}/{directory.checkpoints.name}",
        config.algo_class,
        config=config.to_dict(),
        storage_path=str(directory.path.parent),
        stop=dict(experiment.stop),
        checkpoint_config=tune.CheckpointConfig(
            checkpoint_frequency=experiment.checkpoint_frequency,
            checkpoint_at_end=experiment.checkpoint_config.checkpoint_at_end,
        ),
        trial_dirname_creator=_trial_dirname,
        trial_name_creator=_trial_dirname,
        restore=None if restored is None else str(restored.path),
    )
    # Numbers go on behind all that was ever begun: a process that is about to die may still write one.
    trial.storage.current_checkpoint_index = recorder.checkpoints.last_number
    return trial


def run_tune(
    trials: list[tune.Experiment], callbacks: list[tune.Callback], scheduler: TrialScheduler | None = None
) -> None:
    """Run trials to their ends; the first error ends all.

    Raises:
        RayLost: A process of Ray has ended.
        Exception: What ended the training.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", "fail_fast='raise'"
        )  # of what is left behind: Tune cleans up all the same
        try:
            tune.run(
                trials,
                callbacks=[*callbacks, _RayWatch()],
                scheduler=scheduler,
                fail_fast="raise",
                verbose=0,
            )
        except _RayEnded as ended:
            raise RayLost(str(ended)) from None


class _RayEnded(BaseException):
    """Passes by Tune, which cleans up after an Exception and waits for Ray's GCS there."""


class _RayWatch(tune.Callback):
    """Ends a run when a process of its own Ray has ended; Ray would wait a minute and take the whole program along."""

    def on_step_begin(self, iteration: int, trials: list, **info: Any) -> None:
        """Look after them."""
        node = ray._private.worker._global_node
        if node is not None and node.is_head():
            gone = {name for name, _ in node.dead_processes()} & {"gcs_server", "raylet"}
            if gone:
                raise _RayEnded(f"Ray's process {', '.join(sorted(gone))} has ended")


@contextlib.contextmanager
def ray_runtime(config: AlgorithmConfig, silent: bool = True, runs: int = 1) -> Iterator[Path | None]:
    """Start a Ray of just the size that the run needs, unless there is one; yields the folder of its logs.

    Args:
        config: Of the run.
        silent: As for `start_ray`.
        runs: How many such runs there are; as many at once as this machine has CPUs for, at least one.

    Raises:
        ConfigError: ``RAY_ADDRESS`` names no Ray.
        RayLost: Ray did not start.
    """
    if ray.is_initialized():
        yield None
        return
    try:
        each = max(1.0, resources(config).get("CPU", 1))
        at_once = max(1, min(runs, int((os.cpu_count() or 1) // each)))
        context = start_ray(math.ceil(each * at_once), silent)
    except ConfigError:
        raise
    except Exception as error:
        raise RayLost(f"Ray did not start: {one_line(error)}") from error
    try:
        session = context.address_info.get("session_dir")
        yield None if session is None else Path(session) / "logs"
    finally:
        ray.shutdown()


def _trial_dirname(trial: Any) -> str:
    return TRIAL

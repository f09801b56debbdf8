"""Running one trial with Ray Tune, from the beginning or from its last checkpoint."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from qio_rllib.artifacts.run_directory import TRIAL, RunDirectory
from qio_rllib.experiments.experiment import Experiment, resources, start_ray
from qio_rllib.experiments.recorder import RunRecorder


def run_trial(experiment: Experiment, directory: RunDirectory, recorder: RunRecorder) -> tune.Result:
    """Train from the checkpoint that the recorder names, or from the beginning.

    Tune's own state of an experiment is not read: it is written in place, and a process that dies leaves a part of it.
    """
    config = experiment.algorithm_config()
    restored = recorder.restored
    trial = tune.Experiment(
        directory.checkpoints.name,
        config.algo_class,
        config=config.to_dict(),
        storage_path=str(directory.path),
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
    analysis = tune.run(trial, callbacks=[recorder], raise_on_failed_trial=False, verbose=0)
    return tune.ResultGrid(analysis)[0]


@contextlib.contextmanager
def ray_runtime(config: AlgorithmConfig) -> Iterator[Path | None]:
    """Start a Ray of just the size that the run needs, unless there is one; yields the folder of its logs."""
    if ray.is_initialized():
        yield None
        return
    context = start_ray(max(1, math.ceil(resources(config).get("CPU", 1))))
    try:
        session = context.address_info.get("session_dir")
        yield None if session is None else Path(session) / "logs"
    finally:
        ray.shutdown()


def _trial_dirname(trial: Any) -> str:
    return TRIAL

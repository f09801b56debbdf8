"""Running one trial with Ray Tune, from the beginning or from its last checkpoint."""

from __future__ import annotations

import contextlib
import logging
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from qio_envs.api import ConfigError
from qio_rllib.algorithms.setting_types import one_line
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.experiments.experiment import Experiment, quiet_ray, resources
from qio_rllib.experiments.recorder import RunRecorder

TRIAL = "trial"
"""Folder of a run's only trial, in ``checkpoints/``."""


def tuner(
    experiment: Experiment,
    run_dir: str | Path,
    seed: int | None = None,
    callbacks: Sequence[tune.Callback] = (),
) -> tune.Tuner:
    """Return a Tuner that trains an experiment and keeps its checkpoints in ``run_dir/checkpoints``.

    Args:
        experiment: What to train.
        run_dir: Directory of the run; an existing one.
        seed: In place of the experiment's own.
        callbacks: Told of every result.
    """
    experiment = experiment.with_seed(seed)
    config = experiment.algorithm_config()
    return tune.Tuner(
        config.algo_class,
        param_space=config,
        tune_config=tune.TuneConfig(trial_dirname_creator=_trial_dirname, trial_name_creator=_trial_dirname),
        run_config=tune.RunConfig(
            name=RunDirectory(run_dir).checkpoints.name,
            storage_path=str(Path(run_dir).resolve()),
            stop=dict(experiment.stop),
            callbacks=list(callbacks),
            checkpoint_config=_tune_checkpoints(experiment),
            verbose=0,
        ),
    )


def start_trial(experiment: Experiment, directory: RunDirectory, recorder: RunRecorder) -> tune.ResultGrid:
    """Train from the beginning."""
    return tuner(experiment, directory.path, callbacks=[recorder]).fit()


def continue_trial(experiment: Experiment, directory: RunDirectory, recorder: RunRecorder) -> tune.ResultGrid:
    """Train from Tune's last checkpoint.

    ``Tuner.restore`` would bring back the callbacks that were pickled with the first start.
    """
    config = experiment.algorithm_config()
    keep_on = tune.ResumeConfig.ResumeType.RESUME
    analysis = tune.run(
        config.algo_class,
        config=config,
        name=directory.checkpoints.name,
        storage_path=str(directory.path),
        stop=dict(experiment.stop),
        callbacks=[recorder],
        checkpoint_config=_tune_checkpoints(experiment),
        trial_dirname_creator=_trial_dirname,
        trial_name_creator=_trial_dirname,
        resume_config=tune.ResumeConfig(finished=keep_on, unfinished=keep_on, errored=keep_on),
        raise_on_failed_trial=False,
        verbose=0,
    )
    return tune.ResultGrid(analysis)


def last_tune_checkpoint(directory: RunDirectory) -> Path | None:
    """Return the checkpoint from which Tune would go on, None before the first."""
    if not any(directory.checkpoints.glob("experiment_state-*.json")):
        return None
    try:
        with quiet_ray():
            trials = tune.ExperimentAnalysis(str(directory.checkpoints)).trials or []
    except Exception as error:  # whatever a damaged state makes Tune raise
        raise ConfigError(f"{directory.checkpoints}: damaged ({one_line(error)})") from error
    checkpoint = trials[0].checkpoint if trials else None
    return None if checkpoint is None else Path(checkpoint.path)


def _tune_checkpoints(experiment: Experiment) -> tune.CheckpointConfig:
    return tune.CheckpointConfig(
        num_to_keep=experiment.checkpoint_config.num_to_keep,
        checkpoint_frequency=experiment.checkpoint_frequency,
        checkpoint_at_end=experiment.checkpoint_config.checkpoint_at_end,
    )


@contextlib.contextmanager
def ray_runtime(config: AlgorithmConfig) -> Iterator[Path | None]:
    """Start a Ray of just the size that the run needs, unless this process has one or ``RAY_ADDRESS`` names one.

    Another Ray on the machine is left alone: runs beside each other have one each. Yields the folder of its logs.
    """
    if ray.is_initialized():
        yield None
        return
    size: dict[str, Any] = {}
    if not os.environ.get("RAY_ADDRESS"):  # a cluster has its own
        cpus = max(1, math.ceil(resources(config).get("CPU", 1)))
        size = {"address": "local", "num_cpus": cpus, "include_dashboard": False}
    context = ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **size)
    try:
        session = context.address_info.get("session_dir")
        yield None if session is None else Path(session) / "logs"
    finally:
        ray.shutdown()


def _trial_dirname(trial: Any) -> str:
    return TRIAL

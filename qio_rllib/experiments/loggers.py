"""Trackers that an experiment names: Ray's own callbacks, which keep to the run directory unless told otherwise.

Where they report to instead is said by their own environment variables, such as ``WANDB_MODE=online`` and
``MLFLOW_TRACKING_URI``.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.logger import LoggerCallback

from qio_envs.api import ConfigError, did_you_mean


def _wandb(name: str, run_dir: Path) -> LoggerCallback:
    from ray.air.integrations.wandb import WandbLoggerCallback

    os.environ.setdefault("WANDB_MODE", "offline")  # Ray asks for a key where this is not set
    os.environ.setdefault("WANDB_SILENT", "true")
    return WandbLoggerCallback(
        project=os.environ.get("WANDB_PROJECT", name),
        group=os.environ.get("WANDB_RUN_GROUP", name),
        name=os.environ.get("WANDB_NAME", run_dir.name),
        dir=os.environ.get("WANDB_DIR", str(run_dir)),
        mode=os.environ["WANDB_MODE"],
    )


def _mlflow(name: str, run_dir: Path) -> LoggerCallback:
    from ray.air.integrations.mlflow import MLflowLoggerCallback

    return MLflowLoggerCallback(
        tracking_uri=os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{run_dir / 'mlflow.db'}"),
        experiment_name=os.environ.get("MLFLOW_EXPERIMENT_NAME", name),
        tags={"run_directory": str(run_dir)},
    )


def _aim(name: str, run_dir: Path) -> LoggerCallback:
    from ray.tune.logger.aim import AimLoggerCallback

    return AimLoggerCallback(repo=str(run_dir), experiment_name=name)


class _EndOfTrials(tune.Callback):
    """Tells loggers of the end of a trial that Tune says nothing about, after an error or a signal.

    Ray's callback for wandb would wait for half an hour.
    """

    def __init__(self, loggers: list[LoggerCallback]) -> None:
        self._loggers = loggers
        self._ended = False

    def on_trial_complete(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Note that they know."""
        self._ended = True

    def on_trial_error(self, iteration: int, trials: list, trial: Any, **info: Any) -> None:
        """Note that they know."""
        self._ended = True

    def on_experiment_end(self, trials: list, **info: Any) -> None:
        """Tell them; those that never heard of the trial, or fail at this too, change nothing."""
        for logger in () if self._ended else self._loggers:
            for trial in trials:
                with contextlib.suppress(Exception):
                    logger.log_trial_end(trial, failed=True)


LOGGERS: dict[str, Callable[[str, Path], LoggerCallback]] = {"wandb": _wandb, "mlflow": _mlflow, "aim": _aim}
"""By name, which is also that of the package: what makes the callback of an experiment's name and run directory."""


def check_loggers(given: Any) -> tuple[str, ...]:
    """Return the names of an experiment's ``loggers``; none for None.

    Raises:
        ConfigError: It is no list of names of `LOGGERS`, or one stands there twice.
    """
    if given is None:
        return ()
    if not isinstance(given, list | tuple):
        raise ConfigError(f"loggers: expected a list of {', '.join(LOGGERS)}, got {given!r:.100}")
    for place, name in enumerate(given):
        if not isinstance(name, str) or name not in LOGGERS:
            hint = did_you_mean(str(name), LOGGERS)
            raise ConfigError(f"loggers: unknown logger {name!r:.100}{hint}; allowed: {', '.join(LOGGERS)}")
        if name in given[:place]:
            raise ConfigError(f"loggers: '{name}' stands there twice")
    return tuple(given)


def check_installed(names: tuple[str, ...]) -> None:
    """Refuse loggers whose package is missing.

    Raises:
        ConfigError: With the command that installs it.
    """
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise ConfigError(f"loggers: {name} is not installed; install it with: pip install {name}")


def logger_callbacks(names: tuple[str, ...], experiment: str, run_dir: Path) -> list[tune.Callback]:
    """Return the callbacks for Tune.

    Args:
        names: Of `LOGGERS`.
        experiment: Name of the experiment: the project or experiment of the tracker.
        run_dir: Where they write unless an environment variable of theirs says otherwise.
    """
    loggers = [LOGGERS[name](experiment, run_dir) for name in names]
    return [_EndOfTrials(loggers), *loggers] if loggers else []

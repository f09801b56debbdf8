"""Running an experiment with Ray Tune: training, resuming, and what a run leaves behind."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import math
import os
import re
import shutil
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

import qio_envs
from qio_envs.api import ConfigError
from qio_envs.api.scores import reference_scores
from qio_rllib.algorithms.setting_types import one_line
from qio_rllib.artifacts.run_directory import (
    ITERATION,
    MODES,
    STEPS,
    ProgressFile,
    RunDirectory,
    flatten,
    progress_row,
    run_description,
    score_column,
    timestamp,
    write_csv,
)
from qio_rllib.experiments.experiment import Experiment, load_experiment, quiet_ray, resources
from qio_rllib.sampling.environments import scenario_hash
from qio_rllib.sampling.evaluation import (
    FIRST_EVALUATION_SEED,
    checkpoint_experiment,
    evaluate,
    load_policy_from_checkpoint,
    mean_scores,
)

Report = Callable[[Mapping[str, float]], None]


_TRIAL = "trial"


_REFERENCE_EPISODES = 10


class TrainingFailed(RuntimeError):
    """A run that ended with an error; ``run_dir`` is its directory, with the traceback in ``error.log``."""

    def __init__(self, message: str, run_dir: Path) -> None:
        super().__init__(message)
        self.run_dir = run_dir


class TrainingInterrupted(Exception):
    """A run that was stopped by the user; ``run_dir`` can be resumed."""

    def __init__(self, run_dir: Path) -> None:
        super().__init__(f"training was interrupted; resume it with: rllib train --resume {run_dir}")
        self.run_dir = run_dir


@dataclasses.dataclass(frozen=True)
class RunResult:
    """What a finished run leaves.

    Attributes:
        run_dir: Its directory.
        checkpoint: The last checkpoint, a directory that ``rllib evaluate`` takes.
        evaluation: Means over the episodes of the final evaluation, by ``greedy`` and ``sampled``; empty where
            the policy cannot be evaluated so.
        notes: What could not be made (an animation of an environment without renderer) and why.
    """

    run_dir: Path
    checkpoint: Path
    evaluation: dict[str, dict[str, float]]
    notes: tuple[str, ...] = ()


class RunRecorder(tune.Callback):
    """Writes what Tune reports into the directory of the run: ``progress.csv`` and TensorBoard files.

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
        return _train(experiment, config, directory, recorder, _fit)
    except ConfigError:
        if not recorder.progress.rows:  # bad input that only the algorithm could see
            shutil.rmtree(directory.path)
        raise


def _tune_checkpoints(experiment: Experiment) -> tune.CheckpointConfig:
    return tune.CheckpointConfig(
        num_to_keep=experiment.checkpoint_config.num_to_keep,
        checkpoint_frequency=experiment.checkpoint_frequency,
        checkpoint_at_end=experiment.checkpoint_config.checkpoint_at_end,
    )


def resume(
    run_dir: str | Path,
    overrides: Sequence[str] = (),
    report: Report | None = None,
) -> RunResult:
    """Continue a run from its last checkpoint, in its own directory.

    Args:
        run_dir: The directory of the run.
        overrides: ``stop.<metric>=<value>`` texts; they extend a run, also one that is finished.
        report: Called with each iteration's row of ``progress.csv``.

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
    before = load_experiment(directory.config_file)
    experiment = load_experiment(directory.config_file, overrides)
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
    checkpoint = _last_tune_checkpoint(directory)
    if checkpoint is not None:
        checkpoint_experiment(checkpoint)
    elif status == "finished":
        raise ConfigError(f"{run_dir}: damaged, its checkpoints are missing")
    if experiment.stop != before.stop:
        directory.write_config({experiment.name: experiment.as_dict()})
    resumed_at = [*directory.info().get("resumed_at", []), timestamp()]
    directory.update_info(status="running", end_time=None, resumed_at=resumed_at)
    fit = _fit if checkpoint is None else _continue
    return _train(experiment, config, directory, recorder, fit)


def final_checkpoint(run_dir: str | Path) -> Path:
    """Return the last checkpoint of a finished run.

    Raises:
        ConfigError: There is no such run, or it has no checkpoint.
    """
    directory = RunDirectory.open(run_dir)
    found = directory.info().get("checkpoint")
    checkpoints = sorted((directory.checkpoints / _TRIAL).glob("checkpoint_*"))
    if found is None and not checkpoints:
        raise ConfigError(f"{run_dir}: this run has no checkpoint")
    return directory.path / found if found is not None else checkpoints[-1]


def _fit(experiment: Experiment, directory: RunDirectory, recorder: RunRecorder) -> tune.ResultGrid:
    """Train from the beginning."""
    return tuner(experiment, directory.path, callbacks=[recorder]).fit()


def _continue(experiment: Experiment, directory: RunDirectory, recorder: RunRecorder) -> tune.ResultGrid:
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


def _last_tune_checkpoint(directory: RunDirectory) -> Path | None:
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


def _train(
    experiment: Experiment,
    config: AlgorithmConfig,
    directory: RunDirectory,
    recorder: RunRecorder,
    fit: Callable[[Experiment, RunDirectory, RunRecorder], tune.ResultGrid],
) -> RunResult:
    """Run Tune and turn its outcome into a result or an exception; ``run.json`` says which."""
    status = "failed"
    try:
        with quiet_ray(), _ray_runtime(config) as logs:
            outcome = fit(experiment, directory, recorder)[0]
        if outcome.error is not None:
            raise _failure(outcome.error, directory, recorder, logs) from outcome.error
        if not recorder.completed:  # Tune ends in peace when it is interrupted
            raise KeyboardInterrupt
        result = _finish(experiment, directory, recorder, outcome)
        status = "finished"
        return result
    except KeyboardInterrupt as error:
        status = "interrupted"
        raise TrainingInterrupted(directory.path) from error
    finally:
        recorder.close()
        directory.update_info(status=status, end_time=timestamp())
        if status != "finished":
            with _optional("plots", []):
                _draw(experiment, directory, recorder)


def _failure(
    error: BaseException, directory: RunDirectory, recorder: RunRecorder, logs: Path | None
) -> Exception:
    """Say in one line why training failed, and keep the rest in ``error.log``."""
    cause = _root_cause(error)
    if isinstance(cause, ConfigError) and not recorder.progress.rows:
        return ConfigError(str(cause))
    report = "".join(traceback.format_exception(error))
    if isinstance(cause, ray.exceptions.ActorDiedError) and logs is not None:
        # An env runner whose environment raises ends itself and says why in its own log only.
        texts = [
            log.read_text(encoding="utf-8", errors="replace") for log in sorted(logs.glob("worker-*.err"))
        ]
        report = "\n".join(text for text in texts if "Traceback" in text) + report
    # RLlib raises anew without a message; the first exception in the text is what everything began with.
    found = re.search(r"^([A-Za-z_][\w.]*(?:Error|Exception): .+)$", report, re.MULTILINE)
    reason = f"{type(cause).__name__}: {one_line(cause)}"
    if found is not None:
        name, _, text = found[1].partition(": ")
        reason = f"{name.rpartition('.')[2]}: {text}"
    directory.error_file.write_text(report, encoding="utf-8")
    iteration = int(recorder.progress.rows[-1][ITERATION]) + 1 if recorder.progress.rows else 1
    return TrainingFailed(
        f"training failed in iteration {iteration}: {reason} (log: {directory.error_file})", directory.path
    )


def _finish(
    experiment: Experiment, directory: RunDirectory, recorder: RunRecorder, outcome: tune.Result
) -> RunResult:
    """Make what belongs to a finished run: evaluation, policy file, animation and plots."""
    checkpoint = Path(outcome.checkpoint.path) if outcome.checkpoint is not None else None
    if checkpoint is None:
        raise ConfigError("checkpoint_config: no checkpoint was written; set checkpoint_at_end: true")
    best, mode = _best_checkpoint(outcome, checkpoint)
    notes: list[str] = []
    evaluation: dict[str, dict[str, float]] = {}
    with _optional("evaluation", notes):
        evaluation = _final_evaluation(checkpoint, directory)
    with _optional("policy.pt", notes):
        from qio_rllib.artifacts.policy_file import save_policy

        save_policy(load_policy_from_checkpoint(checkpoint), directory.path / "policy.pt")
    with _optional("best.gif", notes):
        from qio_rllib.artifacts.video import save_video

        seed = checkpoint_experiment(best)["evaluation_seeds"][0]
        save_video(
            load_policy_from_checkpoint(best),
            directory.path / "best.gif",
            seed=seed,
            explore=mode == "sampled",
        )
    with _optional("plots", notes):
        _draw(experiment, directory, recorder)
    directory.update_info(
        checkpoint=checkpoint.relative_to(directory.path).as_posix(),
        best_checkpoint=best.relative_to(directory.path).as_posix(),
        evaluation=evaluation,
        notes=notes,
    )
    return RunResult(directory.path, checkpoint, evaluation, tuple(notes))


def _final_evaluation(checkpoint: Path, directory: RunDirectory) -> dict[str, dict[str, float]]:
    policy, trained_on = load_policy_from_checkpoint(checkpoint), checkpoint_experiment(checkpoint)
    rows, means = [], {}
    for mode in MODES:
        episodes = evaluate(
            policy,
            trained_on["env"],
            trained_on["env_config"],
            trained_on["evaluation_seeds"],
            explore=mode == "sampled",
        )
        rows += [{"mode": mode, **episode} for episode in episodes]
        means[mode] = mean_scores(episodes)
    write_csv(directory.evaluation_file, rows)
    return means


def _best_checkpoint(outcome: tune.Result, last: Path) -> tuple[Path, str]:
    """Return the checkpoint and the way of acting with the best evaluation, the later of equals.

    Without any evaluation it is the last checkpoint, acting greedily.
    """
    scored = []
    for checkpoint, metrics in outcome.best_checkpoints or []:
        flat = flatten({"evaluation": metrics.get("evaluation") or {}})
        for mode in MODES:
            column = score_column(flat, f"evaluation/{mode}/")
            if column is not None and Path(checkpoint.path).is_dir():
                scored.append((flat[column], metrics[ITERATION], Path(checkpoint.path), mode))
    return max(scored)[2:] if scored else (last, MODES[0])


def _draw(experiment: Experiment, directory: RunDirectory, recorder: RunRecorder) -> None:
    from qio_rllib.artifacts.plots import plot_entropy, plot_learning_curve

    rows = recorder.progress.rows
    title = f"{experiment.name} ({experiment.algorithm}, {experiment.env}, seed {experiment.seed})"
    references: dict[str, float] = {}
    if experiment.env in qio_envs.environments() and any("env_runners/team_return" in row for row in rows):
        settings = experiment.config.get("env_config") or {}
        # on the seeds of the evaluations, where those are more
        episodes = max(_REFERENCE_EPISODES, experiment.config.get("evaluation_duration") or 0)
        env = qio_envs.environment(experiment.env).batched_env(episodes, **settings)
        references = reference_scores(env, seed=FIRST_EVALUATION_SEED)
    plot_learning_curve(rows, directory.path / "learning_curve.png", references, title)
    plot_entropy(rows, directory.path / "entropy.png", title)


@contextlib.contextmanager
def _optional(name: str, notes: list[str]) -> Iterator[None]:
    """Let a run finish without something that its environment or policy does not allow."""
    try:
        yield
    except Exception as error:  # the training is done: nothing here may take it back
        notes.append(f"{name}: {one_line(error)}")


@contextlib.contextmanager
def _ray_runtime(config: AlgorithmConfig) -> Iterator[Path | None]:
    """Start a Ray of just the size that the run needs, unless there is one; yields the folder of its logs."""
    if ray.is_initialized():
        yield None
        return
    size: dict[str, Any] = {}
    if not os.environ.get("RAY_ADDRESS"):  # a cluster has its own
        size = {"num_cpus": max(1, math.ceil(resources(config).get("CPU", 1))), "include_dashboard": False}
    context = ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **size)
    try:
        session = context.address_info.get("session_dir")
        yield None if session is None else Path(session) / "logs"
    finally:
        ray.shutdown()


def _trial_dirname(trial: Any) -> str:
    return _TRIAL


def _root_cause(error: BaseException) -> BaseException:
    """Return what a chain of Ray's wrappers is about."""
    seen: set[int] = set()
    while id(error) not in seen:
        seen.add(id(error))
        inner = getattr(error, "cause", None) or error.__cause__
        if isinstance(inner, BaseException):
            error = inner
    return error

"""Experiments: a YAML file, checked to the last key, that Ray Tune runs and whose results lie in one place.

```python
from ray import tune
from qio_rllib.experiment import load_experiment

experiment = load_experiment("tune_configs/forest.yaml", overrides=["lr=1e-4"])
experiment.run()                                            # what `rllib train` does
tune.run("PPO", config=experiment.algorithm_config(), stop=experiment.stop)   # or by yourself
```
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import logging
import math
import operator
import os
import re
import shutil
import traceback
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, Self

import pydantic
import ray
from ray import tune
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from ruamel.yaml import YAML, YAMLError

import qio_envs
from qio_envs.api import ConfigError, did_you_mean
from qio_envs.api.scores import reference_scores
from qio_rllib.algorithms import algorithm_config_class
from qio_rllib.artifacts.run_directory import (
    ITERATION,
    MODES,
    STEPS,
    TIME,
    ProgressFile,
    RunDirectory,
    flatten,
    progress_row,
    read_yaml,
    run_description,
    score_column,
    timestamp,
    write_csv,
)
from qio_rllib.evaluation import (
    FIRST_EVALUATION_SEED,
    checkpoint_experiment,
    evaluate,
    load_policy_from_checkpoint,
    mean_scores,
)
from qio_rllib.sampling.environments import describe_env, make_env, scenario_hash

DEFAULT_SEED = 0
"""Seed of an experiment that names none, so that every run can be repeated."""
DEFAULT_CHECKPOINT_FREQUENCY = 10
"""Iterations between checkpoints where neither the experiment nor its evaluation interval says otherwise."""

Report = Callable[[Mapping[str, float]], None]

_SECTIONS = ("run", "env", "stop", "config", "checkpoint_config")
_TRIAL = "trial"
_REFERENCE_EPISODES = 10

# Methods of an AlgorithmConfig whose parameters may stand under `config`, in the order of their calls.
_SETTERS = (
    "environment",
    "framework",
    "resources",
    "env_runners",
    "learners",
    "rl_module",
    "training",
    "callbacks",
    "evaluation",
    "multi_agent",
    "reporting",
    "checkpointing",
    "debugging",
    "fault_tolerance",
    "experimental",
    "python_environment",
)
_RENAMED = {
    "create_env_on_driver": "create_local_env_runner",
    "create_env_on_local_worker": "create_local_env_runner",
    "entropy_coeff_schedule": "entropy_coeff",
    "evaluation_num_episodes": "evaluation_duration",
    "evaluation_num_workers": "evaluation_num_env_runners",
    "framework_str": "framework",
    "lr_schedule": "lr",
    "metrics_smoothing_episodes": "metrics_num_episodes_for_smoothing",
    "min_iter_time_s": "min_time_s_per_iteration",
    "mini_batch_size_per_learner": "minibatch_size",
    "model": "model_config",
    "model_config_dict": "model_config",
    "num_cpus_for_driver": "num_cpus_for_main_process",
    "num_cpus_for_local_worker": "num_cpus_for_main_process",
    "num_cpus_per_learner_worker": "num_cpus_per_learner",
    "num_cpus_per_worker": "num_cpus_per_env_runner",
    "num_envs_per_worker": "num_envs_per_env_runner",
    "num_gpus": "num_gpus_per_learner",
    "num_gpus_per_learner_worker": "num_gpus_per_learner",
    "num_gpus_per_worker": "num_gpus_per_env_runner",
    "num_learner_workers": "num_learners",
    "num_rollout_workers": "num_env_runners",
    "num_sgd_iter": "num_epochs",
    "num_workers": "num_env_runners",
    "recreate_failed_workers": "restart_failed_env_runners",
    "ignore_worker_failures": "ignore_env_runner_failures",
    "max_num_worker_restarts": "max_num_env_runner_restarts",
    "sgd_minibatch_size": "minibatch_size",
    "timesteps_per_iteration": "min_sample_timesteps_per_iteration",
    "train_batch_size": "train_batch_size_per_learner",
    "vf_share_layers": "model_config.vf_share_layers",
}
_ALIASES = {"lambda": "lambda_", "callbacks": "callbacks_class"}
# Parameters of RLlib's old API stack, which the new one takes without a word and ignores.
_OLD_STACK = frozenset(
    {
        "eager_max_retraces",
        "eager_tracing",
        "enable_tf1_exec_eagerly",
        "exploration_config",
        "fake_sampler",
        "local_tf_session_args",
        "observation_filter",
        "observation_fn",
        "optimizer",
        "preprocessor_pref",
        "remote_env_batch_wait_ms",
        "remote_worker_envs",
        "sample_collector",
        "sampler_perf_stats_ema_coef",
        "tf_session_args",
        "update_worker_filter_stats",
        "use_worker_filter_stats",
    }
)
# Where RLlib's annotations say nothing, too little (Ray takes fractions of CPUs), or more than is supported here
# (evaluations are episodes on fixed seeds).
_ANNOTATIONS: dict[str, Any] = {
    "num_cpus_per_env_runner": float | None,
    "num_cpus_for_main_process": float | None,
    "framework": Literal["torch"],
    "batch_mode": Literal["truncate_episodes", "complete_episodes"],
    "count_steps_by": Literal["env_steps", "agent_steps"],
    "env_config": dict | None,
    "evaluation_duration": int | None,
    "evaluation_duration_unit": Literal["episodes"],
    "grad_clip_by": Literal["value", "norm", "global_norm"],
    "log_level": Literal["DEBUG", "INFO", "WARN", "ERROR"],
    "rollout_fragment_length": int | Literal["auto"],
}
_AT_LEAST_ONE = re.compile(
    r"\w*batch_size|\w*batch_size_per_learner|num_epochs|num_envs_per_env_runner|evaluation_interval|"
    r"evaluation_duration|rollout_fragment_length|metrics_num_episodes_for_smoothing"
)
_NOT_NEGATIVE = re.compile(r"num_\w+|\w+_num_\w+|\w+_coeff|\w+_param|\w+_timeout_s|grad_clip|kl_target|lr")
_SHARES = frozenset({"gamma", "lambda_"})
_LARGEST_SEED = 2**32 - 1
_ACTIVATIONS = ("linear", "relu", "silu", "swish", "tanh")

_STOP_HINTS = {
    "timesteps_total": STEPS,
    "num_env_steps_sampled": STEPS,
    "time_s": TIME,
    "episodes_total": "env_runners/num_episodes_lifetime",
    "episode_reward_mean": "env_runners/episode_return_mean",
    "episode_return_mean": "env_runners/episode_return_mean",
    "env_runners/episode_reward_mean": "env_runners/episode_return_mean",
}
_COUNTERS = (ITERATION, STEPS, TIME)
_RUNNER_METRICS = (
    "episode_return_mean",
    "episode_return_min",
    "episode_return_max",
    "episode_len_mean",
    "episode_len_min",
    "episode_len_max",
    "num_episodes",
    "num_episodes_lifetime",
)
_EVALUATION_METRICS = ("episode_return", "episode_length")

_TYPE_NAMES: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "a text",
    dict: "a mapping",
    Mapping: "a mapping",
    list: "a list",
    tuple: "a list",
    Sequence: "a list",
    Collection: "a list",
    set: "a list",
    type(None): "null",
}
_ERROR_TYPES = {
    "int_type": int,
    "int_from_float": int,
    "float_type": float,
    "bool_type": bool,
    "string_type": str,
    "list_type": list,
    "dict_type": dict,
    "mapping_type": dict,
}


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


class CheckpointSettings(pydantic.BaseModel):
    """When checkpoints are written and how many are kept.

    Attributes:
        checkpoint_frequency: Iterations between checkpoints, 0 for none on the way; by default the evaluation
            interval, or `DEFAULT_CHECKPOINT_FREQUENCY`.
        num_to_keep: The newest so many stay; null keeps all.
        checkpoint_at_end: Whether the last iteration is kept too.
    """

    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)
    checkpoint_frequency: int | None = pydantic.Field(default=None, ge=0)
    num_to_keep: int | None = pydantic.Field(default=None, ge=1)
    checkpoint_at_end: bool = True


class _Shape(pydantic.BaseModel):
    """The outer form of an experiment; what stands under ``config`` is checked against the algorithm."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)
    run: str
    env: str
    stop: dict[str, Any]
    config: dict[str, Any] = pydantic.Field(default_factory=dict)
    checkpoint_config: CheckpointSettings = CheckpointSettings()


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


@dataclasses.dataclass(frozen=True)
class Experiment:
    """An algorithm in an environment with its settings; construction checks the outer form.

    Attributes:
        algorithm: Name of the algorithm; ``run`` in a file.
        env: Name of the environment.
        stop: The run ends when one of these metrics reaches its value.
        config: Parameters of the algorithm's configuration by name, whichever of its methods takes them.
        checkpoint_config: See `CheckpointSettings`.
        name: Name of the experiment; its runs lie in a directory of that name.

    Raises:
        ConfigError: A key is missing or unknown, or has the wrong type.
    """

    algorithm: str
    env: str
    stop: dict[str, float]
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    checkpoint_config: CheckpointSettings = dataclasses.field(default_factory=lambda: CheckpointSettings())
    name: str = "experiment"

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not re.fullmatch(r"\w[\w.+-]*", self.name):
            raise ConfigError(
                "name: expected letters, digits, '_', '.', '+' and '-' (it names a directory), "
                f"got {self.name!r}"
            )
        if not self.stop:
            raise ConfigError(f"stop: at least one criterion is needed, such as {{{ITERATION}: 100}}")
        for key, value in self.stop.items():
            _check_criterion(key, value)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], name: str = "experiment") -> Self:
        """Build an experiment from what stands under its name in a YAML file.

        Raises:
            ConfigError: A key is missing or unknown, or has the wrong type.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{name}: expected a mapping with the keys {', '.join(_SECTIONS)}, got {_shown(values)}"
            )
        if "num_samples" in values:
            raise ConfigError("num_samples: one run is one seed; start it again with another --seed instead")
        shape = _validated(_Shape, {str(key): value for key, value in values.items()})
        return cls(shape.run, shape.env, shape.stop, shape.config, shape.checkpoint_config, name)

    def as_dict(self) -> dict[str, Any]:
        """Return what `from_mapping` takes."""
        return {
            "run": self.algorithm,
            "env": self.env,
            "stop": dict(self.stop),
            "checkpoint_config": self.checkpoint_config.model_dump(),
            "config": dict(self.config),
        }

    @property
    def seed(self) -> int:
        """Seed of the algorithm."""
        seed = self.config.get("seed")
        return DEFAULT_SEED if seed is None else seed

    def with_seed(self, seed: int | None = None) -> Self:
        """Return the same experiment with a seed (by default, its own or `DEFAULT_SEED`) in its config."""
        return dataclasses.replace(self, config={**self.config, "seed": self.seed if seed is None else seed})

    @property
    def checkpoint_frequency(self) -> int:
        """Iterations between checkpoints."""
        if self.checkpoint_config.checkpoint_frequency is not None:
            return self.checkpoint_config.checkpoint_frequency
        return self.config.get("evaluation_interval") or DEFAULT_CHECKPOINT_FREQUENCY

    def algorithm_config(self) -> AlgorithmConfig:
        """Return the validated configuration of the algorithm; every key goes to the method that takes it.

        Raises:
            ConfigError: An unknown algorithm, environment or key, or a value that cannot be used.
        """
        config_class = algorithm_config_class(self.algorithm)
        parameters = _parameters(config_class)
        calls: dict[str, dict[str, Any]] = {
            "environment": {"env": self.env, "env_config": {}},
            # An environment that raises shall end the run, not be started again and again.
            "fault_tolerance": {"restart_failed_env_runners": False},
        }
        for key, value in self.config.items():
            parameter = parameters.find(key)
            checked = parameter.checked(value, parameters)
            calls.setdefault(parameter.setter, {})[parameter.name] = checked
        env_config = calls["environment"]["env_config"] = calls["environment"]["env_config"] or {}
        with _refusals("config.env_config", ()):
            make_env(self.env, env_config).close()
        with _quiet():
            config = config_class()
            for setter in _SETTERS:
                if setter in calls:
                    with _refusals("config", calls[setter]):
                        getattr(config, setter)(**calls[setter])
            with _refusals("config", self.config):
                config.copy(copy_frozen=False).validate()
            with _refusals("config.model_config", self.config.get("model_config") or {}):
                _build_modules(config)
        return config

    def validate(self) -> AlgorithmConfig:
        """Check all that can be checked without training: environment, algorithm, stop criteria, resources.

        Returns:
            The configuration of the algorithm.

        Raises:
            ConfigError: Something cannot be used.
        """
        config = self.algorithm_config()
        _check_metrics(self, config)
        _check_resources(config)
        return config

    def tuner(
        self, run_dir: str | Path, seed: int | None = None, callbacks: Sequence[tune.Callback] = ()
    ) -> tune.Tuner:
        """Return a Tuner that trains this experiment and keeps its checkpoints in ``run_dir/checkpoints``.

        Args:
            run_dir: Directory of the run; an existing one.
            seed: In place of the experiment's own.
            callbacks: Told of every result.
        """
        experiment = self.with_seed(seed)
        config = experiment.algorithm_config()
        return tune.Tuner(
            config.algo_class,
            param_space=config,
            tune_config=tune.TuneConfig(
                trial_dirname_creator=_trial_dirname, trial_name_creator=_trial_dirname
            ),
            run_config=tune.RunConfig(
                name=RunDirectory(run_dir).checkpoints.name,
                storage_path=str(Path(run_dir).resolve()),
                stop=dict(self.stop),
                callbacks=list(callbacks),
                checkpoint_config=experiment._tune_checkpoints(),
                verbose=0,
            ),
        )

    def run(
        self, out: str | Path = "runs", report: Report | None = None, command: Sequence[str] | None = None
    ) -> RunResult:
        """Train, and leave everything in a new directory ``out/name/<time>``.

        Args:
            out: Where runs are kept.
            report: Called with each iteration's row of ``progress.csv``.
            command: What is written to ``run.json`` as the command; by default ``sys.argv``.

        Raises:
            ConfigError: Something cannot be used; no directory is made then.
            TrainingFailed: Training ended with an error.
            TrainingInterrupted: The user stopped it.
        """
        experiment = self.with_seed()
        config = experiment.validate()
        directory = RunDirectory.create(out, self.name)
        directory.write_config({self.name: experiment.as_dict()})
        directory.update_info(
            name=self.name,
            status="running",
            seed=experiment.seed,
            scenario_hash=scenario_hash(self.env, experiment.config.get("env_config")),
            **run_description(command),
        )
        recorder = RunRecorder(directory, report)
        try:
            return _train(experiment, config, directory, recorder, _fit)
        except ConfigError:
            if not recorder.progress.rows:  # bad input that only the algorithm could see
                shutil.rmtree(directory.path)
            raise

    def _tune_checkpoints(self) -> tune.CheckpointConfig:
        return tune.CheckpointConfig(
            num_to_keep=self.checkpoint_config.num_to_keep,
            checkpoint_frequency=self.checkpoint_frequency,
            checkpoint_at_end=self.checkpoint_config.checkpoint_at_end,
        )


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


def load_experiment(path: str | Path, overrides: Sequence[str] = (), seed: int | None = None) -> Experiment:
    """Read the one experiment of a YAML file.

    Args:
        path: The file: ``name: {run: ..., env: ..., stop: {...}, config: {...}}``.
        overrides: ``key=value`` texts that go on top, as ``--set`` takes them (`apply_overrides`).
        seed: In place of ``config.seed``.

    Raises:
        ConfigError: The file cannot be read, or holds something that cannot be used.
    """
    values = read_yaml(path)
    if len(values) != 1:
        listed = ", ".join(str(key) for key in values)
        hint = " (put them under the name of the experiment)" if set(values) & set(_SECTIONS) else ""
        raise ConfigError(f"{path}: expected exactly one experiment, found the keys {listed or 'none'}{hint}")
    ((name, entry),) = values.items()
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{path}: {name}: expected a mapping with the keys {', '.join(_SECTIONS)}")
    experiment = Experiment.from_mapping(apply_overrides(entry, overrides), name=name)
    return experiment.with_seed(seed)


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return an experiment's mapping with ``key=value`` texts put on top.

    Keys are dotted (``stop.training_iteration=3``, ``config.env_config.scenario=sprint``); one that begins
    with none of ``run``, ``env``, ``stop``, ``config`` and ``checkpoint_config`` stands for ``config.<key>``.
    Values are YAML 1.2.

    Raises:
        ConfigError: A text is not of this form, or leads into something that has no keys.
    """
    result = dict(values)
    for override in overrides:
        key, sign, text = override.partition("=")
        path = [part.strip() for part in key.split(".")]
        if not sign or not all(path):
            raise ConfigError(f"--set: expected key=value, got '{override}'")
        if not text.strip():
            raise ConfigError(f"--set {key}: there is no value (null is written out: {key}=null)")
        try:
            value = YAML(typ="safe", pure=True).load(text)
        except (YAMLError, ValueError) as error:
            raise ConfigError(f"--set {key}: '{text}' is not valid YAML") from error
        if path[0] not in _SECTIONS:
            path.insert(0, "config")
        _put(result, path, value, key)
    return result


def resume_run(
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
    fit = _fit if checkpoint is None else _resume
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


# --- training --------------------------------------------------------------------------------


def _fit(experiment: Experiment, directory: RunDirectory, recorder: RunRecorder) -> tune.ResultGrid:
    """Train from the beginning."""
    return experiment.tuner(directory.path, callbacks=[recorder]).fit()


def _resume(experiment: Experiment, directory: RunDirectory, recorder: RunRecorder) -> tune.ResultGrid:
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
        checkpoint_config=experiment._tune_checkpoints(),
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
        with _quiet():
            trials = tune.ExperimentAnalysis(str(directory.checkpoints)).trials or []
    except Exception as error:  # whatever a damaged state makes Tune raise
        raise ConfigError(f"{directory.checkpoints}: damaged ({_one_line(error)})") from error
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
        with _quiet(), _ray_runtime(config) as logs:
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
    reason = found[1] if found is not None else f"{type(cause).__name__}: {_one_line(cause)}"
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
    best = _best_checkpoint(outcome, checkpoint)
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
        save_video(load_policy_from_checkpoint(best), directory.path / "best.gif", seed=seed)
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


def _best_checkpoint(outcome: tune.Result, last: Path) -> Path:
    """Return the checkpoint with the best greedy evaluation, the later of equals; without any, the last."""
    scored = []
    for checkpoint, metrics in outcome.best_checkpoints or []:
        flat = flatten({"evaluation": metrics.get("evaluation") or {}})
        column = score_column(flat, "evaluation/greedy/")
        if column is not None and Path(checkpoint.path).is_dir():
            scored.append((flat[column], metrics[ITERATION], Path(checkpoint.path)))
    return max(scored)[2] if scored else last


def _draw(experiment: Experiment, directory: RunDirectory, recorder: RunRecorder) -> None:
    from qio_rllib.artifacts.plots import plot_entropy, plot_learning_curve

    rows = recorder.progress.rows
    title = f"{experiment.name} ({experiment.algorithm}, {experiment.env}, seed {experiment.seed})"
    references: dict[str, float] = {}
    if experiment.env in qio_envs.environments() and any("env_runners/team_return" in row for row in rows):
        settings = experiment.config.get("env_config") or {}
        env = qio_envs.environment(experiment.env).batched_env(_REFERENCE_EPISODES, **settings)
        references = reference_scores(env, seed=FIRST_EVALUATION_SEED)
    plot_learning_curve(rows, directory.path / "learning_curve.png", references, title)
    plot_entropy(rows, directory.path / "entropy.png", title)


@contextlib.contextmanager
def _optional(name: str, notes: list[str]) -> Iterator[None]:
    """Let a run finish without something that its environment or policy does not allow."""
    try:
        yield
    except Exception as error:  # the training is done: nothing here may take it back
        notes.append(f"{name}: {_one_line(error)}")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray's log to errors, and Tune from printing and writing files of its own."""
    settings = {
        "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
        "RAY_AIR_NEW_OUTPUT": "0",
        "TUNE_GLOBAL_CHECKPOINT_S": "1",  # what a killed run can lose of its state; the default is 10 s and more
        "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    }
    for key, value in settings.items():
        os.environ.setdefault(key, value)
    loggers = [logging.getLogger(name) for name in ("ray", "ray.rllib", "ray.tune")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


@contextlib.contextmanager
def _ray_runtime(config: AlgorithmConfig) -> Iterator[Path | None]:
    """Start a Ray of just the size that the run needs, unless there is one; yields the folder of its logs."""
    if ray.is_initialized():
        yield None
        return
    size: dict[str, Any] = {}
    if not os.environ.get("RAY_ADDRESS"):  # a cluster has its own
        size = {"num_cpus": max(1, math.ceil(_resources(config).get("CPU", 1))), "include_dashboard": False}
    context = ray.init(log_to_driver=False, logging_level=logging.CRITICAL, **size)
    try:
        session = context.address_info.get("session_dir")
        yield None if session is None else Path(session) / "logs"
    finally:
        ray.shutdown()


def _resources(config: AlgorithmConfig) -> dict[str, float]:
    return config.algo_class.default_resource_request(config.copy(copy_frozen=False)).required_resources


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


# --- validation ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Parameter:
    """One parameter of a setter: where it goes and what it takes."""

    name: str
    setter: str
    annotation: Any

    @property
    def in_file(self) -> bool:
        """Whether a file can hold a value for it; classes and functions are for Python."""
        members = _members(self.annotation)
        return Any in members or not {_readable(member) for member in members} <= {None, "null"}

    def checked(self, value: Any, parameters: _Parameters, where: str = "config") -> Any:
        """Return the value, or raise `ConfigError` with the key and what is allowed."""
        key = f"{where}.{self.name}"
        if self.name == "model_config":
            return _checked_model_config(value)
        if self.name == "evaluation_config" and isinstance(value, Mapping):
            return {
                inner: parameters.find(inner, key).checked(item, parameters, key)
                for inner, item in value.items()
            }
        value = _checked_type(key, value, self.annotation)
        if isinstance(value, int | float) and not isinstance(value, bool):
            _check_range(key, value)
        return value


@dataclasses.dataclass(frozen=True)
class _Parameters:
    """All parameters that may stand under ``config``, and the names that RLlib has given up."""

    known: Mapping[str, _Parameter]
    deprecated: Collection[str]
    setters: Collection[str]
    own: Sequence[str]

    def find(self, key: str, where: str = "config") -> _Parameter:
        """Return the parameter of a key.

        Raises:
            ConfigError: There is none.
        """
        name = _ALIASES.get(key, key)
        if name in self.known:
            return self.known[name]
        if name in _RENAMED:
            raise ConfigError(f"{where}.{key}: an old name; use '{_RENAMED[name]}'")
        if name in self.deprecated or name in _OLD_STACK:
            raise ConfigError(f"{where}.{key}: RLlib's new API stack no longer takes it")
        if name in ("env", "run", "stop", "checkpoint_config"):
            raise ConfigError(f"{where}.{key}: stands beside config, not in it")
        if name in self.setters:
            raise ConfigError(f"{where}.{key}: its settings stand directly under config")
        settable = [parameter.name for parameter in self.known.values() if parameter.in_file]
        hint = did_you_mean(str(key), [*settable, *_RENAMED])
        allowed = (
            ""
            if hint
            else f"; allowed: {', '.join(self.own)}, and RLlib's settings of {', '.join(self.setters)}"
        )
        raise ConfigError(f"{where}: unknown key '{key}'{hint}{allowed}")


def _parameters(config_class: type[AlgorithmConfig]) -> _Parameters:
    """Collect what the setters of an algorithm's configuration take, inherited ones included."""
    known: dict[str, _Parameter] = {}
    deprecated: set[str] = set()
    setters = [name for name in _SETTERS if hasattr(config_class, name)]
    for setter in setters:
        old: set[str] = set()
        for name, parameter in _signature(config_class, setter).items():
            if name.startswith("_") or name in _RENAMED or name in _OLD_STACK or name == "env":
                continue
            if (
                type(parameter.default) is int and parameter.default == -1
            ):  # RLlib's mark of a deprecated name
                old.add(name)
            elif name not in known:
                annotation = _ANNOTATIONS.get(name, parameter.annotation)
                known[name] = _Parameter(name, setter, annotation)
        deprecated |= old
    own = sorted(name for name, parameter in known.items() if parameter.setter == "training")
    return _Parameters(known, deprecated - known.keys(), setters, own)


def _signature(config_class: type, method: str) -> dict[str, inspect.Parameter]:
    """Return a method's parameters with those that its ``**kwargs`` pass on; the most derived class wins."""
    found: dict[str, inspect.Parameter] = {}
    for owner in config_class.__mro__:
        if method not in vars(owner):
            continue
        function = vars(owner)[method]
        passes_on = False
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            if parameter.kind is inspect.Parameter.VAR_KEYWORD:
                passes_on = True
            elif parameter.name not in found:
                annotation = _evaluated(parameter.annotation, function)
                found[parameter.name] = parameter.replace(annotation=annotation)
        if not passes_on:
            break
    return found


def _evaluated(annotation: Any, function: Any) -> Any:
    """Return an annotation as an object; one whose names are not there is taken as ``Any``."""
    if isinstance(annotation, str):
        try:
            return eval(annotation, function.__globals__)
        except Exception:  # names that are imported for type checkers only
            return Any
    return Any if annotation is inspect.Parameter.empty else annotation


def _members(annotation: Any) -> list[Any]:
    """Return the members of a union, or the annotation alone."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [member for part in typing.get_args(annotation) for member in _members(part)]
    return [annotation]


def _readable(annotation: Any) -> str | None:
    """Say what a type is called in a file; None for what only Python code can give, such as a class."""
    if annotation is None:
        annotation = type(None)
    if typing.get_origin(annotation) is Literal:
        return " or ".join(str(choice) for choice in typing.get_args(annotation))
    origin, items = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    inner = [member for item in items if item is not ... for member in _members(item)]
    if _TYPE_NAMES.get(origin) == "a list" and inner and Any not in inner and not any(map(_readable, inner)):
        return None
    return _TYPE_NAMES.get(origin)


def _checked_type(key: str, value: Any, annotation: Any) -> Any:
    """Return the value if a type of the annotation takes it; an integer is a number too."""
    members = _members(annotation)
    if Any in members:
        return value
    usable = [member for member in members if _readable(member) is not None]
    names = list(dict.fromkeys(name for name in map(_readable, usable) if name is not None))
    if set(names) <= {"null"}:
        if value is None:
            return None
        raise ConfigError(f"{key}: takes a Python object and can only be set in Python")
    if isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"{key}: expected {_listing(names)}, got nan")
    try:
        adapter: Any = pydantic.TypeAdapter(functools.reduce(operator.or_, usable))
        adapter.validate_python(value, strict=True)
    except pydantic.ValidationError as error:
        inner = error.errors()[0]
        alone = [member for member in usable if member is not type(None)]
        if len(alone) == 1 and inner["loc"] and inner["type"] in _ERROR_TYPES:
            path = ".".join(str(part) for part in inner["loc"])
            expected = _TYPE_NAMES[_ERROR_TYPES[inner["type"]]]
            raise ConfigError(f"{key}.{path}: expected {expected}, got {_shown(inner['input'])}") from error
        if _TYPE_NAMES.get(type(value)) in names and isinstance(value, list | dict):
            form = re.sub(
                r"typing\.|NoneType", lambda found: "" if "." in found[0] else "null", str(annotation)
            )
            raise ConfigError(f"{key}: expected the form {form}, got {_shown(value)}") from error
        hint = did_you_mean(value, " or ".join(names).split(" or ")) if isinstance(value, str) else ""
        raise ConfigError(f"{key}: expected {_listing(names)}, got {_shown(value)}{hint}") from error
    return value


def _check_range(key: str, value: float) -> None:
    name = key.rpartition(".")[2]
    if name in _SHARES and not 0 <= value <= 1:
        allowed = "from 0 to 1"
    elif _AT_LEAST_ONE.fullmatch(name) and value < 1:
        allowed = "of at least 1"
    elif name == "seed" and not 0 <= value <= _LARGEST_SEED:
        allowed = f"from 0 to {_LARGEST_SEED}"
    elif _NOT_NEGATIVE.fullmatch(name) and value < 0:
        allowed = "of at least 0"
    else:
        return
    raise ConfigError(f"{key}: expected a value {allowed}, got {value!r}")


def _checked_model_config(values: Any) -> Any:
    if values is None or isinstance(values, DefaultModelConfig):
        return values
    if not isinstance(values, Mapping):
        raise ConfigError(f"config.model_config: expected a mapping, got {_shown(values)}")
    hints = typing.get_type_hints(DefaultModelConfig)
    for key, value in values.items():
        where = f"config.model_config.{key}"
        if key not in hints:
            raise ConfigError(
                f"config.model_config: unknown key '{key}'{did_you_mean(str(key), hints)}; "
                f"allowed: {', '.join(hints)}"
            )
        if key.endswith("_activation") and (value is not None and value not in _ACTIVATIONS):
            hint = did_you_mean(value, _ACTIVATIONS) if isinstance(value, str) else ""
            raise ConfigError(
                f"{where}: expected one of {', '.join(_ACTIVATIONS)}, got {_shown(value)}{hint}"
            )
        _checked_type(where, value, hints[key] if not key.endswith("_activation") else Any)
        if key.endswith("_hiddens") and any(size < 1 for size in value):
            raise ConfigError(f"{where}: expected sizes of at least 1, got {value}")
    return dict(values)


def _check_criterion(key: Any, value: Any) -> None:
    if key in _STOP_HINTS:
        raise ConfigError(f"stop.{key}: an old name; use '{_STOP_HINTS[key]}'")
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ConfigError(f"stop.{key}: expected a number, got {_shown(value)}")
    if key in _COUNTERS:
        if value <= 0:
            raise ConfigError(f"stop.{key}: expected a number above 0, got {value}")
        return
    prefixes = ("env_runners", *(f"evaluation/{mode}" for mode in MODES))
    if not any(str(key).startswith(f"{prefix}/") and len(key) > len(prefix) + 1 for prefix in prefixes):
        known = [
            *_COUNTERS,
            *(f"env_runners/{name}" for name in _RUNNER_METRICS),
            *(f"evaluation/{mode}/{name}" for mode in MODES for name in _EVALUATION_METRICS),
        ]
        raise ConfigError(
            f"stop: unknown metric '{key}'{did_you_mean(str(key), known)}; allowed: {', '.join(_COUNTERS)}, "
            + ", ".join(f"{prefix}/<metric>" for prefix in prefixes)
        )


def _check_metrics(experiment: Experiment, config: AlgorithmConfig) -> None:
    """Refuse stop criteria that no result will ever hold."""
    own = _info_keys(experiment)
    for key in experiment.stop:
        if key in _COUNTERS:
            continue
        prefix, _, metric = key.rpartition("/")
        evaluation = prefix != "env_runners"
        if evaluation and not config.evaluation_interval:
            raise ConfigError(f"stop.{key}: there is no evaluation; set config.evaluation_interval")
        known = [*(_EVALUATION_METRICS if evaluation else _RUNNER_METRICS), *own]
        hint = did_you_mean(metric, known)
        if metric not in known and (hint or experiment.env in qio_envs.environments()):
            raise ConfigError(f"stop: unknown metric '{key}'{hint}; allowed: {prefix}/<{' | '.join(known)}>")


def _info_keys(experiment: Experiment) -> list[str]:
    """Return the names of the numbers in the environment's infos."""
    env = make_env(experiment.env, experiment.config.get("env_config") or {})
    try:
        _, info = env.reset(seed=0)
    finally:
        env.close()
    infos = [value for value in info.values() if isinstance(value, Mapping)] or [info]
    return list(flatten(infos[0]))


def _check_resources(config: AlgorithmConfig) -> None:
    """Refuse what would wait for ever: more than the machine, or the Ray that is running, has."""
    wanted = _resources(config)
    if ray.is_initialized():
        present, owner = ray.cluster_resources(), "the running Ray"
    elif os.environ.get("RAY_ADDRESS"):
        return
    else:
        import torch

        # A Ray of our own is given the CPUs that it needs.
        present, owner = {"GPU": torch.cuda.device_count(), "CPU": math.inf}, "this machine"
    for kind, keys in (
        ("GPU", ("num_gpus_per_learner", "num_gpus_per_env_runner")),
        ("CPU", ("num_env_runners", "num_learners", "evaluation_num_env_runners")),
    ):
        if wanted.get(kind, 0) > present.get(kind, 0):
            key = next((key for key in keys if config[key]), keys[0])
            raise ConfigError(
                f"config.{key}: {wanted[kind]:g} {kind}s are needed in all, {owner} has {present.get(kind, 0):g}"
            )


def _build_modules(config: AlgorithmConfig) -> None:
    """Build the networks once, so that an impossible architecture is found before anything starts."""
    description = describe_env(config.env, config.env_config)
    spaces: dict[str, Any] = {}
    for agent in description.agents:
        module_id = config.policy_mapping_fn(agent, None) if description.multi_agent else "default_policy"
        spaces[module_id] = (description.observation_spaces[agent], description.action_spaces[agent])
    config.copy(copy_frozen=False).get_multi_rl_module_spec(spaces=spaces).build()


def _validated(model: type[pydantic.BaseModel], values: Mapping[str, Any]) -> Any:
    """Build a pydantic model; its first complaint becomes a `ConfigError`."""
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        problem = error.errors()[0]
    *parents, last = problem["loc"]
    where = "".join(f"{part}." for part in parents)
    owner: Any = CheckpointSettings if parents else model
    if problem["type"] == "extra_forbidden":
        known = list(owner.model_fields)
        prefix = f"{where[:-1]}: " if parents else ""
        raise ConfigError(
            f"{prefix}unknown key '{last}'{did_you_mean(str(last), known)}; allowed: {', '.join(known)}"
        )
    if problem["type"] == "missing":
        raise ConfigError(f"{where}{last}: missing; an experiment has the keys {', '.join(_SECTIONS)}")
    if problem["type"] == "greater_than_equal":
        allowed = f"an integer of at least {problem['ctx']['ge']}"
    else:
        kind = owner.model_fields[last].annotation
        names = [name for name in map(_readable, _members(kind)) if name is not None] or ["a mapping"]
        allowed = _listing(names)
    raise ConfigError(f"{where}{last}: expected {allowed}, got {_shown(problem['input'])}")


@contextlib.contextmanager
def _refusals(where: str, keys: Collection[str]) -> Iterator[None]:
    """Turn what RLlib or an environment raises for a value into a one-line `ConfigError` with the key."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(_one_line(error)) from error
    except Exception as error:  # any value may be refused by any error
        text = _one_line(error).partition(" To suppress all validation errors")[0]
        places = {key: re.search(rf"\b{re.escape(str(key))}\b", text) for key in keys}
        named = {key: place.start() for key, place in places.items() if place is not None}
        key = f"{where}.{min(named, key=lambda name: named[name])}" if named else where
        raise ConfigError(f"{key}: {text or type(error).__name__}") from error


def _put(values: dict[str, Any], path: Sequence[str], value: Any, key: str) -> None:
    """Set a nested key; mappings on the way are copied, missing ones made."""
    for depth, part in enumerate(path[:-1]):
        inner = values.get(part)
        if inner is not None and not isinstance(inner, Mapping):
            raise ConfigError(
                f"--set {key}: {'.'.join(path[: depth + 1])} is {_shown(inner)} and has no keys"
            )
        values[part] = dict(inner or {})
        values = values[part]
    values[path[-1]] = value


def _listing(names: Sequence[str]) -> str:
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _one_line(problem: Any) -> str:
    return " ".join(str(problem).split())

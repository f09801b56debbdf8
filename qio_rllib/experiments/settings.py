"""Settings of an algorithm: each key is checked and goes to the AlgorithmConfig method that takes it."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import inspect
import math
import operator
import re
import types
import typing
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import pydantic
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig

from qio_envs.api import ConfigError, did_you_mean

# Methods of an AlgorithmConfig whose parameters may stand under `config`, in the order of their calls.
SETTERS = (
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
    "batch_mode": Literal["truncate_episodes"],
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


@dataclasses.dataclass(frozen=True)
class _Parameter:
    """One parameter of a setter: where it goes and what it takes."""

    name: str
    setter: str
    annotation: Any

    @property
    def in_file(self) -> bool:
        """Whether a file can hold a value for it; classes and functions are for Python."""
        parts = members(self.annotation)
        return Any in parts or not {readable(member) for member in parts} <= {None, "null"}

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


def parameters_of(config_class: type[AlgorithmConfig]) -> _Parameters:
    """Collect what the setters of an algorithm's configuration take, inherited ones included."""
    known: dict[str, _Parameter] = {}
    deprecated: set[str] = set()
    setters = [name for name in SETTERS if hasattr(config_class, name)]
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


@contextlib.contextmanager
def refusals(where: str, keys: Collection[str]) -> Iterator[None]:
    """Turn what RLlib or an environment raises for a value into a one-line `ConfigError` with the key."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(one_line(error)) from error
    except Exception as error:  # any value may be refused by any error
        text = one_line(error).partition(" To suppress all validation errors")[0]
        places = {key: re.search(rf"\b{re.escape(str(key))}\b", text) for key in keys}
        named = {key: place.start() for key, place in places.items() if place is not None}
        key = f"{where}.{min(named, key=lambda name: named[name])}" if named else where
        raise ConfigError(f"{key}: {text or type(error).__name__}") from error


def members(annotation: Any) -> list[Any]:
    """Return the members of a union, or the annotation alone."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [member for part in typing.get_args(annotation) for member in members(part)]
    return [annotation]


def readable(annotation: Any) -> str | None:
    """Say what a type is called in a file; None for what only Python code can give, such as a class."""
    if annotation is None:
        annotation = type(None)
    if typing.get_origin(annotation) is Literal:
        return " or ".join(str(choice) for choice in typing.get_args(annotation))
    origin, items = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    inner = [member for item in items if item is not ... for member in members(item)]
    if _TYPE_NAMES.get(origin) == "a list" and inner and Any not in inner and not any(map(readable, inner)):
        return None
    return _TYPE_NAMES.get(origin)


def listing(names: Sequence[str]) -> str:
    """Return ``a, b or c``."""
    return " or ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def shown(value: Any) -> str:
    """Return a value as a message shows it: its repr, cut to 60 characters."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def one_line(problem: Any) -> str:
    """Return a text or an error's message with all white space folded."""
    return " ".join(str(problem).split())


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


def _checked_type(key: str, value: Any, annotation: Any) -> Any:
    """Return the value if a type of the annotation takes it; an integer is a number too."""
    parts = members(annotation)
    if Any in parts:
        return value
    usable = [member for member in parts if readable(member) is not None]
    names = list(dict.fromkeys(name for name in map(readable, usable) if name is not None))
    if set(names) <= {"null"}:
        if value is None:
            return None
        raise ConfigError(f"{key}: takes a Python object and can only be set in Python")
    if isinstance(value, float) and math.isnan(value):
        raise ConfigError(f"{key}: expected {listing(names)}, got nan")
    try:
        adapter: Any = pydantic.TypeAdapter(functools.reduce(operator.or_, usable))
        adapter.validate_python(value, strict=True)
    except pydantic.ValidationError as error:
        inner = error.errors()[0]
        alone = [member for member in usable if member is not type(None)]
        if len(alone) == 1 and inner["loc"] and inner["type"] in _ERROR_TYPES:
            path = ".".join(str(part) for part in inner["loc"])
            expected = _TYPE_NAMES[_ERROR_TYPES[inner["type"]]]
            raise ConfigError(f"{key}.{path}: expected {expected}, got {shown(inner['input'])}") from error
        if _TYPE_NAMES.get(type(value)) in names and isinstance(value, list | dict):
            form = re.sub(
                r"typing\.|NoneType", lambda found: "" if "." in found[0] else "null", str(annotation)
            )
            raise ConfigError(f"{key}: expected the form {form}, got {shown(value)}") from error
        choices = [name for name in " or ".join(names).split(" or ") if name not in _TYPE_NAMES.values()]
        hint = did_you_mean(value, choices) if isinstance(value, str) else ""
        raise ConfigError(f"{key}: expected {listing(names)}, got {shown(value)}{hint}") from error
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
        raise ConfigError(f"config.model_config: expected a mapping, got {shown(values)}")
    hints = typing.get_type_hints(DefaultModelConfig) | {"use_gru": bool, "gru_cell_size": int}
    for key, value in values.items():
        where = f"config.model_config.{key}"
        if key not in hints:
            raise ConfigError(
                f"config.model_config: unknown key '{key}'{did_you_mean(str(key), hints)}; "
                f"allowed: {', '.join(hints)}"
            )
        if key.endswith("_activation") and (value is not None and value not in _ACTIVATIONS):
            hint = did_you_mean(value, _ACTIVATIONS) if isinstance(value, str) else ""
            raise ConfigError(f"{where}: expected one of {', '.join(_ACTIVATIONS)}, got {shown(value)}{hint}")
        _checked_type(where, value, hints[key] if not key.endswith("_activation") else Any)
        if key.endswith("_hiddens") and any(size < 1 for size in value):
            raise ConfigError(f"{where}: expected sizes of at least 1, got {value}")
    return dict(values)

"""Experiments: a YAML file, checked to the last key, that Ray Tune runs and whose results lie in one place.

```python
from ray import tune
from qio_rllib.experiments.experiment import load_experiment
from qio_rllib.experiments.training import train

experiment = load_experiment("tune_configs/forest.yaml", overrides=["lr=1e-4"])
train(experiment)                                           # what `rllib train` does
tune.run("PPO", config=experiment.algorithm_config(), stop=experiment.stop)   # or by yourself
```
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import pydantic
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig

from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.algorithms import algorithm_config_class
from qio_rllib.algorithms.config import ExploringConfig
from qio_rllib.algorithms.search_spaces import GRID, MOST_VARIANTS, holds_alternatives, variants
from qio_rllib.algorithms.setting_types import listing, members, readable, shown
from qio_rllib.algorithms.settings import apply_settings, refusals
from qio_rllib.artifacts.metrics import ITERATION
from qio_rllib.artifacts.remote_copy import check_uri, open_storage
from qio_rllib.artifacts.yaml_files import parse_yaml, read_yaml
from qio_rllib.experiments.loggers import check_installed, check_loggers
from qio_rllib.experiments.population_settings import SCHEDULER, PopulationSettings
from qio_rllib.experiments.ready import experiment_file
from qio_rllib.experiments.resources import check_resources, quiet_ray
from qio_rllib.experiments.stop_criteria import check_criterion, check_exploration, check_metrics
from qio_rllib.sampling.env_creators import check_named_in_file
from qio_rllib.sampling.environments import make_env
from qio_rllib.sampling.named_in_file import NamedInFile

DEFAULT_SEED = 0
"""Seed of an experiment that names none, so that every run can be repeated."""


DEFAULT_CHECKPOINT_FREQUENCY = 10
"""Iterations between checkpoints where neither the experiment nor its evaluation interval says otherwise."""


_LONGEST_NAME = 100  # bytes
_SECTIONS = (
    "run", "env", "stop", "config", "checkpoint_config", "num_samples", SCHEDULER, "loggers", "storage",
)  # fmt: skip


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
    num_samples: int = pydantic.Field(default=1, ge=1, le=MOST_VARIANTS)
    scheduler: Any = None
    loggers: Any = None
    storage: Any = None


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
        num_samples: Draws from the samplers under ``config``; each is tried with every combination of the grids. With a
            scheduler, members of the population.
        loggers: Trackers that are told of each iteration, see `qio_rllib.experiments.loggers`.
        storage: URI under which a copy of the run is kept, see `qio_rllib.artifacts.remote_copy`; None for none.
        scheduler: Population-based training, see `PopulationSettings`; None for none.

    Raises:
        ConfigError: A key is missing or unknown, or has the wrong type.
    """

    algorithm: str
    env: str
    stop: dict[str, float]
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    checkpoint_config: CheckpointSettings = dataclasses.field(default_factory=lambda: CheckpointSettings())
    name: str = "experiment"
    num_samples: int = 1
    loggers: tuple[str, ...] = ()
    storage: str | None = None
    scheduler: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        fits = isinstance(self.name, str) and re.fullmatch(r"\w[\w.+-]*", self.name)
        if not fits or len(self.name.encode()) > _LONGEST_NAME:
            raise ConfigError(
                f"name: expected up to {_LONGEST_NAME} letters, digits, '_', '.', '+' and '-' (it names a directory), "
                f"got {shown(self.name)}"
            )
        if not self.stop:
            raise ConfigError(f"stop: at least one criterion is needed, such as {{{ITERATION}: 100}}")
        for key, value in self.stop.items():
            check_criterion(key, value)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any], name: str = "experiment") -> Self:
        """Build an experiment from what stands under its name in a YAML file.

        Raises:
            ConfigError: A key is missing or unknown, or has the wrong type.
        """
        if not isinstance(values, Mapping):
            raise ConfigError(
                f"{name}: expected a mapping with the keys {', '.join(_SECTIONS)}, got {shown(values)}"
            )
        for section, value in values.items():
            if section not in ("config", SCHEDULER) and holds_alternatives(value):
                raise ConfigError(
                    f"{section}: {shown(value)} has no place here; a search stands under config"
                )
        shape = _validated(_Shape, {str(key): value for key, value in values.items()})
        loggers = check_loggers(shape.loggers)
        PopulationSettings.of(shape.scheduler)
        if shape.storage is not None:
            check_uri(shape.storage)
        return cls(
            shape.run,
            shape.env,
            shape.stop,
            shape.config,
            shape.checkpoint_config,
            name,
            shape.num_samples,
            loggers,
            shape.storage,
            shape.scheduler,
        )

    def as_dict(self) -> dict[str, Any]:
        """Return what `from_mapping` takes."""
        return {
            "run": self.algorithm,
            "env": self.env,
            "stop": dict(self.stop),
            "checkpoint_config": self.checkpoint_config.model_dump(),
            **({"num_samples": self.num_samples} if self.num_samples > 1 else {}),
            **({"loggers": list(self.loggers)} if self.loggers else {}),
            **({"storage": self.storage} if self.storage is not None else {}),
            **({SCHEDULER: dict(self.scheduler)} if self.scheduler is not None else {}),
            "config": dict(self.config),
        }

    @property
    def seed(self) -> int:
        """Seed of the algorithm."""
        seed = self.config.get("seed")
        return DEFAULT_SEED if seed is None else seed

    def with_seeds(self, seeds: Sequence[int]) -> Self:
        """Return the same experiment with a grid of seeds, which go round faster than all other grids."""
        others = {key: value for key, value in self.config.items() if key != "seed"}
        return dataclasses.replace(self, config={**others, "seed": {GRID: [*seeds]}})

    def with_seed(self, seed: int | None = None) -> Self:
        """Return the same experiment with a seed (by default, its own or `DEFAULT_SEED`) in its config."""
        return dataclasses.replace(self, config={**self.config, "seed": self.seed if seed is None else seed})

    @property
    def checkpoint_frequency(self) -> int:
        """Iterations between checkpoints."""
        if self.checkpoint_config.checkpoint_frequency is not None:
            return self.checkpoint_config.checkpoint_frequency
        interval = self.config.get("evaluation_interval")
        return interval if isinstance(interval, int) and interval else DEFAULT_CHECKPOINT_FREQUENCY

    def algorithm_config(self) -> ExploringConfig:
        """Return the validated configuration of the algorithm; every key goes to the method that takes it.

        Raises:
            ConfigError: An unknown algorithm, environment or key, or a value that cannot be used.
        """
        config = algorithm_config_class(self.algorithm)()
        settings = config.settings()
        for key, value in self.config.items():
            settings.checked(key, value)  # every key, before an environment is built
            if holds_alternatives(value):
                raise ConfigError(
                    f"config.{key}: {shown(value)} stands for several values; take one of the experiment's variants()"
                )
        env_config = self.config.get("env_config") or {}
        with refusals("config.env_config", ()):
            make_env(self.env, env_config).close()
        with quiet_ray():
            apply_settings(config, settings, {**self.config, "env_config": env_config}, self.env)
            with refusals("config", self.config):
                config.copy(copy_frozen=False).validate()
            with refusals("config.model_config", self.config.get("model_config") or {}):
                _build_modules(config)
        return config

    @property
    def is_sweep(self) -> bool:
        """Whether it stands for several runs: a search under ``config``."""
        return holds_alternatives(self.config) or self.num_samples > 1 or self.scheduler is not None

    @property
    def population(self) -> PopulationSettings | None:
        """How its runs learn from each other; None where they do not."""
        return PopulationSettings.of(self.scheduler)

    def variants(self) -> Iterator[tuple[dict[str, Any], Self]]:
        """Yield every combination of values: the values by dotted key, and the experiment with them.

        An experiment without a search is yielded once, with no values. Samplers draw from the experiment's seed, so
        that all its seeds get the same values. The members of a population have seeds that count up from its own.

        Raises:
            ConfigError: A grid without values or inside another search, a sampler that is none, too many runs.
        """
        seed = self.config.get("seed")
        drawn_from = seed if isinstance(seed, int) else DEFAULT_SEED
        population = self.population
        if population is not None:
            population.check_algorithm(self.algorithm, self.config, self.num_samples)
            if self.checkpoint_config.num_to_keep is not None:
                raise ConfigError(
                    "checkpoint_config.num_to_keep: runs of a population go on from each other's checkpoints; leave it "
                    "out"
                )
            if self.storage is not None:
                raise ConfigError("storage: a population has no copy; leave it out")
            if holds_alternatives(self.config):
                raise ConfigError(f"{SCHEDULER}: a population has one seed and no other search; leave it out")
        drawn = {} if population is None else population.hyperparam_mutations
        found = variants({**self.config, **drawn}, self.num_samples, drawn_from)
        for place, (chosen, config) in enumerate(found):
            values = {".".join(map(str, path)): value for path, value in chosen.items()}
            if population is not None:
                config = {**config, "seed": drawn_from + place}
            yield values, dataclasses.replace(self, config=config, num_samples=1, scheduler=None)

    def validate(self) -> AlgorithmConfig:
        """Check all that can be checked without training: environment, algorithm, stop criteria, resources.

        Returns:
            The configuration of the algorithm; of the first variant of a sweep.

        Raises:
            ConfigError: Something cannot be used; in a sweep, in any of the variants, whose values end the message.
        """
        check_installed(self.loggers)
        if self.storage is not None:
            open_storage(self.storage)
        found: dict[str, AlgorithmConfig] = {}
        for values, variant in itertools.chain(self.variants(), self._extremes()):
            others = repr({key: value for key, value in values.items() if key != "seed"})
            try:
                if others in found:  # the same with another seed
                    found[others].settings().checked("seed", variant.seed)
                    continue
                config = variant.algorithm_config()
                check_metrics(variant.stop, config)
                check_exploration(variant.stop, config)
                with quiet_ray():
                    check_resources(config)
            except ConfigError as error:
                if not values:
                    raise
                chosen = ", ".join(f"{key} = {value!r}" for key, value in values.items())
                raise ConfigError(f"{error} (with {chosen})") from error
            found[others] = config
        first = next(iter(found.values()))
        if self.population is not None:
            self.population.check_run(self.stop, first)
        return first

    def _extremes(self) -> Iterator[tuple[dict[str, Any], Self]]:
        """Yield a population's member with the least, and with the largest values that it can come to."""
        for values in () if self.population is None else self.population.extremes():
            changed = {**self.config, **values}
            yield values, dataclasses.replace(self, config=changed, num_samples=1, scheduler=None)


def load_experiment(
    path: str | Path,
    overrides: Sequence[str] = (),
    seed: int | None = None,
    allow_import: Sequence[str] | None = (),
) -> Experiment:
    """Read the one experiment of a YAML file.

    Args:
        path: The file: ``name: {run: ..., env: ..., stop: {...}, config: {...}}``; or the name of a ready experiment,
            such as ``forest_uav_ppo``.
        overrides: ``key=value`` texts that go on top, as ``--set`` takes them (`apply_overrides`).
        seed: In place of ``config.seed``.
        allow_import: Modules that environments named in the file may import, beside
            `qio_rllib.sampling.named_in_file.ALLOWED_PACKAGES`; None for any, of a file that is the caller's own.

    Raises:
        ConfigError: The file cannot be read, or holds something that cannot be used.
    """
    path = experiment_file(path)
    values = read_yaml(path)
    if len(values) != 1:
        listed = ", ".join(str(key) for key in values)
        near = [key for key in values if key in _SECTIONS or did_you_mean(str(key), _SECTIONS)]
        hint = f" ({near[0]} belongs under the name of the experiment)" if near else ""
        raise ConfigError(f"{path}: expected exactly one experiment, found the keys {listed or 'none'}{hint}")
    ((name, entry),) = values.items()
    if not isinstance(entry, Mapping):
        raise ConfigError(f"{path}: {name}: expected a mapping with the keys {', '.join(_SECTIONS)}")
    experiment = Experiment.from_mapping(apply_overrides(entry, overrides), name=name).with_seed(seed)
    if allow_import is not None:
        given = apply_overrides({}, overrides)
        of_the_user = environments_named(given.get("env"), given.get("config"))
        for env in environments_named(experiment.env, experiment.config) - of_the_user:
            check_named_in_file(NamedInFile.of(env, allow_import))
    return experiment


def environments_named(env: Any, config: Any) -> set[str]:
    """Return the names of environments in an experiment: its own, and those of a federation's clients."""
    clients = _mappings(config.get("clients")) if isinstance(config, Mapping) else ()
    return {name for name in (env, *(client.get("env") for client in clients)) if isinstance(name, str)}


def apply_overrides(values: Mapping[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Return an experiment's mapping with ``key=value`` texts put on top.

    Keys are dotted (``stop.training_iteration=3``, ``config.env_config.scenario=sprint``); one that begins
    with none of ``run``, ``env``, ``stop``, ``config``, ``checkpoint_config``, ``num_samples``, ``scheduler``,
    ``loggers`` and ``storage`` stands for ``config.<key>``.
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
        value = parse_yaml(text, f"--set {key}")
        if path[0] not in _SECTIONS:
            path.insert(0, "config")
        _put(result, path, value, key)
    return result


def _mappings(clients: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the descriptions of clients, those in a grid too."""
    if isinstance(clients, Mapping):
        yield clients
        clients = clients.get(GRID)
    for entry in clients if isinstance(clients, list) else ():
        yield from _mappings(entry)


def _build_modules(config: ExploringConfig) -> None:
    """Build the networks once, so that an impossible architecture is found before anything starts."""
    config.copy(copy_frozen=False).get_multi_rl_module_spec(spaces=config.module_spaces()).build()


def _validated(model: type[pydantic.BaseModel], values: Mapping[str, Any]) -> Any:
    """Build a pydantic model; its first complaint becomes a `ConfigError`."""
    try:
        return model.model_validate(values)
    except pydantic.ValidationError as error:
        problems = error.errors()
    # a key that nobody knows may be the one that is missing
    problem = next((one for one in problems if one["type"] == "extra_forbidden"), problems[0])
    *parents, last = problem["loc"]
    where = "".join(f"{part}." for part in parents)
    owner: Any = CheckpointSettings if parents else model
    if problem["type"] == "extra_forbidden":
        known = list(owner.model_fields)
        prefix = f"{where[:-1]}: " if parents else ""
        raise ConfigError(
            f"{prefix}unknown key '{last}'{did_you_mean(str(last), known)}; allowed: {', '.join(known)}"
        )
    if last == "[key]":
        raise ConfigError(f"{parents[0]}: expected texts as keys, got {shown(problem['input'])}")
    if problem["type"] == "missing":
        raise ConfigError(f"{where}{last}: missing; an experiment has the keys {', '.join(_SECTIONS)}")
    if problem["type"] == "greater_than_equal":
        allowed = f"an integer of at least {problem['ctx']['ge']}"
    elif problem["type"] == "less_than_equal":
        allowed = f"an integer of at most {problem['ctx']['le']}"
    else:
        kind = owner.model_fields[last].annotation
        names = [name for name in map(readable, members(kind)) if name is not None] or ["a mapping"]
        allowed = listing(names)
    raise ConfigError(f"{where}{last}: expected {allowed}, got {shown(problem['input'])}")


def _put(values: dict[str, Any], path: Sequence[str], value: Any, key: str) -> None:
    """Set a nested key; mappings on the way are copied, missing ones made."""
    for depth, part in enumerate(path[:-1]):
        inner = values.get(part)
        if inner is not None and not isinstance(inner, Mapping):
            raise ConfigError(f"--set {key}: {'.'.join(path[: depth + 1])} is {shown(inner)} and has no keys")
        values[part] = dict(inner or {})
        values = values[part]
    values[path[-1]] = value

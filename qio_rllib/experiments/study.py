"""Studies: every algorithm on every task with every seed, from one file; what is there is not trained again."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.artifacts.yaml_files import only_entry
from qio_rllib.experiments import training
from qio_rllib.experiments.experiment import Experiment, environments_named
from qio_rllib.experiments.finished_run import RunResult
from qio_rllib.experiments.seeds import check_distinct, parse_seeds
from qio_rllib.sampling.env_creators import check_named_in_file
from qio_rllib.sampling.named_in_file import NamedInFile

_KEYS = ("algorithms", "tasks", "seeds", "stop", "config", "checkpoint_config")
_ALGORITHM_KEYS, _TASK_KEYS = ("run", "config"), ("env", "config", "stop")


@dataclasses.dataclass(frozen=True)
class Cell:
    """An algorithm on a task with one seed.

    Attributes:
        algorithm: Its name in the study.
        task: Its name in the study.
        experiment: What is trained; it bears the algorithm's name.
    """

    algorithm: str
    task: str
    experiment: Experiment


@dataclasses.dataclass(frozen=True)
class Study:
    """Algorithms, tasks and seeds; its runs lie in ``out/<name>/<task>/<algorithm>/<time>``.

    Attributes:
        name: Of the study.
        cells: Task by task, algorithm by algorithm, seed by seed.
    """

    name: str
    cells: Sequence[Cell]

    @classmethod
    def read(cls, path: str | Path, seeds: Sequence[int] | None, allow_import: Sequence[str] = ()) -> Self:
        """Read a study and check all of its cells, without training.

        Args:
            path: The file: ``name: {algorithms: {...}, tasks: {...}, seeds: 0-4, stop: {...}, config: {...}}``.
            seeds: In place of those of the file.
            allow_import: Modules that environments named in the file may import.

        Raises:
            ConfigError: The file cannot be read, or holds something that cannot be used.
        """
        name, given = only_entry(path, "study")
        entry = _mapping(given, name, _KEYS)
        chosen = list(seeds) if seeds is not None else _seeds(entry.get("seeds", [0]), f"{name}.seeds")
        algorithms = _members(entry, "algorithms", _ALGORITHM_KEYS, "run")
        tasks = _members(entry, "tasks", _TASK_KEYS, "env")
        cells = []
        for task, of_task in tasks.items():
            for algorithm, of_algorithm in algorithms.items():
                config = _merged(entry.get("config"), of_task.get("config"), of_algorithm.get("config"))
                experiment = Experiment.from_mapping(
                    {
                        "run": of_algorithm["run"],
                        "env": of_task["env"],
                        "stop": of_task.get("stop", entry.get("stop", {})),
                        "config": config,
                        **{key: entry[key] for key in ("checkpoint_config",) if key in entry},
                    },
                    algorithm,
                )
                if experiment.is_sweep:
                    raise ConfigError(
                        f"{task}, {algorithm}: a study has no search; name an algorithm for each value"
                    )
                for env in environments_named(experiment.env, experiment.config):
                    check_named_in_file(NamedInFile.of(env, allow_import))
                try:
                    experiment.with_seeds(chosen).validate()
                except ConfigError as error:
                    raise ConfigError(f"{task}, {algorithm}: {error}") from error
                cells += [Cell(algorithm, task, experiment.with_seed(seed)) for seed in chosen]
        return cls(name, cells)

    def runs(self, out: str | Path) -> Iterator[tuple[Cell, RunDirectory | None]]:
        """Yield each cell with the run that is there of it.

        Args:
            out: Where studies are kept.

        Raises:
            ConfigError: A run of a cell's seed has other settings, or is damaged.
        """
        for cell in self.cells:
            yield cell, training.run_of(cell.experiment, Path(out) / self.name / cell.task)

    def train(self, cell: Cell, run: RunDirectory | None, out: str | Path, **how: Any) -> RunResult:
        """Train a cell, go on with its run, or return the result that is there.

        Args:
            cell: One of the study's.
            run: What `runs` yielded with it.
            out: Where studies are kept.
            **how: ``report``, ``on_phase`` and ``output`` of `qio_rllib.experiments.training.train`.

        Raises:
            ConfigError: As `training.train`.
            TrainingFailed: Training ended with an error.
            TrainingInterrupted: The user stopped it.
        """
        return training.train_or_go_on(cell.experiment, run, Path(out) / self.name / cell.task, **how)


def _mapping(value: Any, where: str, known: Sequence[str]) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where}: expected a mapping with the keys {', '.join(known)}")
    for key in value:
        if key not in known:
            hint = did_you_mean(str(key), known)
            raise ConfigError(f"{where}: unknown key '{key}'{hint}; allowed: {', '.join(known)}")
    return value


def _members(
    entry: Mapping[str, Any], key: str, known: Sequence[str], needed: str
) -> dict[str, Mapping[str, Any]]:
    """Return the algorithms or tasks of a study by name."""
    given = entry.get(key)
    if not isinstance(given, Mapping) or not given:
        raise ConfigError(f"{key}: at least one is needed, such as {key}: {{name: {{{needed}: ...}}}}")
    found = {str(name): _mapping(member, f"{key}.{name}", known) for name, member in given.items()}
    for name, member in found.items():
        if needed not in member:
            raise ConfigError(f"{key}.{name}.{needed}: missing")
        if "/" in name or name.startswith("."):
            raise ConfigError(f"{key}: '{name}' cannot name a directory")
    return found


def _seeds(given: Any, where: str) -> list[int]:
    if isinstance(given, list):
        if not given or not all(type(seed) is int and seed >= 0 for seed in given):
            raise ConfigError(
                f"{where}: expected numbers of at least 0 such as 0-4 or [1, 3, 7], got {given!r}"
            )
        check_distinct(given, where)
        return given
    return parse_seeds(str(given), where)


def _merged(*settings: Any) -> dict[str, Any]:
    """Return settings on top of each other; mappings are merged key by key."""
    result: dict[str, Any] = {}
    for values in settings:
        if values is not None and not isinstance(values, Mapping):
            raise ConfigError(f"config: expected a mapping, got {values!r}")
        for key, value in (values or {}).items():
            both = isinstance(value, Mapping) and isinstance(result.get(key), Mapping)
            result[key] = _merged(result[key], value) if both else value
    return result

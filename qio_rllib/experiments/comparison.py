"""Finished and unfinished runs side by side: groups of seeds, their scores and curves."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.artifacts.metrics import ITERATION, MODES, STEPS, TIME, score_column, score_name
from qio_rllib.artifacts.progress_file import ProgressFile
from qio_rllib.artifacts.run_directory import RunDirectory
from qio_rllib.evaluation.aggregate import Summary, probability_of_improvement

LEAST_SEEDS_FOR_IMPROVEMENT = 3
"""Runs that each of two groups needs before it is said how likely one beats the other."""

TRAINING = "training"
"""Name of the score that is the last value of the curve."""

AXES = {"steps": STEPS, "seconds": TIME, "iterations": ITERATION}
"""What curves can be drawn against, and its column in ``progress.csv``."""

_PREFIXES = ("env_runners/", *(f"evaluation/{mode}/" for mode in MODES))


@dataclasses.dataclass(frozen=True)
class Run:
    """One run, as its files have it.

    Attributes:
        path: Its directory.
        name: Of the experiment.
        settings: The experiment's by dotted key, without the seed.
        seed: Of the run.
        rows: Of ``progress.csv``.
        scores: Of its final evaluation, by ``greedy`` and ``sampled``; empty of a run that has not ended.
        status: ``finished``, ``running``, ``interrupted`` or ``failed``.
    """

    path: Path
    name: str
    settings: Mapping[str, Any]
    seed: int
    rows: Sequence[Mapping[str, float]]
    scores: Mapping[str, float]
    status: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a run.

        Raises:
            ConfigError: It is damaged, or has no rows.
        """
        directory = RunDirectory.open(path)
        config, info = directory.config(), directory.info()
        if len(config) != 1 or not isinstance(next(iter(config.values())), Mapping):
            raise ConfigError(f"{directory.config_file}: expected exactly one experiment")
        ((name, experiment),) = config.items()
        rows = ProgressFile(directory.progress_file).rows
        if not rows:
            raise ConfigError(f"{path}: this run has no rows yet, not even its first iteration has ended")
        settings = flat(experiment)
        seed = settings.pop("config.seed", info.get("seed", 0))
        scores = {}
        for mode, means in (info.get("evaluation") or {}).items():
            column = score_name(means)
            if column is not None:
                scores[mode] = float(means[column])
        return cls(path, str(name), settings, seed, rows, scores, info["status"])


@dataclasses.dataclass(frozen=True)
class Group:
    """Runs that differ in their seeds alone.

    Attributes:
        label: What sets them apart from the other groups.
        runs: By seed.
    """

    label: str
    runs: Sequence[Run]


def find_runs(paths: Iterable[str | Path]) -> list[Run]:
    """Return the runs that paths name: run directories, folders that hold some, and files of sweeps.

    Raises:
        ConfigError: A path names none, or one is damaged or has no rows.
    """
    found: dict[Path, Run] = {}
    for path in map(Path, paths):
        if path.is_file() and path.name.startswith("sweep_"):
            from qio_rllib.experiments.sweep import runs_of_sweep

            directories = [run.path for _, run in sorted(runs_of_sweep(path).items())]
        elif (path / "run.json").is_file():
            directories = [path]
        elif path.is_dir():
            directories = sorted(file.parent for file in path.rglob("run.json"))
        else:
            raise ConfigError(f"{path}: there is no such run")
        if not directories:
            raise ConfigError(f"{path}: there are no runs in it")
        for directory in directories:
            found.setdefault(directory.resolve(), Run.read(directory))
    return list(found.values())


def group_runs(runs: Sequence[Run], by: str | None = None) -> list[Group]:
    """Return runs in groups, in the order in which they were given.

    Args:
        runs: At least one.
        by: A setting, with or without ``config.``, or ``name``; runs with the same value are one group. By default
            runs of the same name and the same settings are, and labels tell names, and the settings that differ.

    Raises:
        ConfigError: No run has the setting.
    """
    if by is not None:
        key = next((key for key in (by, f"config.{by}") if any(key in run.settings for run in runs)), None)
        if by != "name" and key is None:
            known = sorted({key.removeprefix("config.") for run in runs for key in run.settings})
            raise ConfigError(f"--by: no run has the setting '{by}'{did_you_mean(by, ['name', *known])}")
        labels = [
            run.name if by == "name" else f"{by} = {json.dumps(run.settings.get(str(key)))}" for run in runs
        ]
    else:
        labels = _labels(runs)
    grouped: dict[str, list[Run]] = {}
    for label, run in zip(labels, runs, strict=True):
        grouped.setdefault(label, []).append(run)
    return [Group(label, sorted(mine, key=lambda run: run.seed)) for label, mine in grouped.items()]


def _labels(runs: Sequence[Run]) -> list[str]:
    """Return the name of each run, with the settings that differ among runs of that name."""
    labels = []
    for run in runs:
        others = [other.settings for other in runs if other.name == run.name]
        keys = dict.fromkeys(key for settings in others for key in settings)
        differing = [
            key for key in keys if any(settings.get(key) != run.settings.get(key) for settings in others)
        ]
        parts = [
            f"{key.removeprefix('config.')} = {json.dumps(run.settings.get(key))}"
            for key in differing
            if not key.startswith(("stop.", "checkpoint_config."))
        ]
        labels.append(", ".join([run.name, *parts]))
    return labels


def metric_column(runs: Sequence[Run], metric: str | None) -> str:
    """Return the column of ``progress.csv`` that a metric names; by default the return in training.

    Args:
        runs: At least one.
        metric: A column, or what stands behind ``env_runners/``, ``evaluation/greedy/`` or ``evaluation/sampled/``.

    Raises:
        ConfigError: No run has it.
    """
    columns = list(dict.fromkeys(column for run in runs for row in run.rows for column in row))
    if metric is None:
        common = [
            column
            for column in columns
            if column.startswith("env_runners/")
            and all(any(column in row for row in run.rows) for run in runs)
        ]
        column = score_column(common, "env_runners/")
        if column is None:
            raise ConfigError("--metric: the runs have no return in common; name a metric")
        return column
    for prefix in ("", *_PREFIXES):
        if f"{prefix}{metric}" in columns:
            return f"{prefix}{metric}"
    short = [column.removeprefix(prefix) for column in columns for prefix in _PREFIXES if prefix in column]
    hint = did_you_mean(metric, [*columns, *short])
    known = "" if hint else f"; there are: {', '.join(columns)}"
    raise ConfigError(f"--metric: no run has '{metric}'{hint}{known}")


def scores_of_run(run: Run, column: str, with_evaluation: bool) -> dict[str, float]:
    """Return a run's scores by name: the curve's last value, and those of its final evaluation."""
    values = [row[column] for row in run.rows if column in row]
    scores = {TRAINING: float(values[-1])} if values else {}
    return {**scores, **run.scores} if with_evaluation else scores


def compare(groups: Sequence[Group], column: str, with_evaluation: bool) -> list[dict[str, Any]]:
    """Return a row for each group and score: how many runs, their summary.

    Args:
        groups: The groups.
        column: Of the curves.
        with_evaluation: Whether final evaluations are scores too.
    """
    rows = []
    for group in groups:
        found = [scores_of_run(run, column, with_evaluation) for run in group.runs]
        for name in (TRAINING, *MODES):
            scores = [each[name] for each in found if name in each]
            if scores:
                rows.append({"group": group.label, "score_of": name, **Summary.of(scores).columns()})
    return rows


def improvements(groups: Sequence[Group], column: str, with_evaluation: bool) -> list[dict[str, Any]]:
    """Return how likely a run of one group beats one of another, for all pairs of groups with enough runs.

    Args:
        groups: The groups.
        column: Of the curves.
        with_evaluation: Whether it is the final evaluation that counts, where all have one.
    """
    names = [*MODES, TRAINING] if with_evaluation else [TRAINING]
    scores = {
        group.label: [scores_of_run(run, column, with_evaluation) for run in group.runs] for group in groups
    }
    name = next(
        (name for name in names if all(name in each for found in scores.values() for each in found)), None
    )
    enough = [group.label for group in groups if len(group.runs) >= LEAST_SEEDS_FOR_IMPROVEMENT]
    if name is None:
        return []
    return [
        {
            "group": one,
            "over": other,
            "score_of": name,
            "probability": probability_of_improvement(
                [each[name] for each in scores[one]], [each[name] for each in scores[other]]
            ),
        }
        for one, other in itertools.permutations(enough, 2)
    ]


def remarks(groups: Sequence[Group]) -> list[str]:
    """Return what must be known to read a comparison: other environments, runs that have not ended, seeds twice."""
    runs = [run for group in groups for run in group.runs]
    found = []
    envs = sorted({str(run.settings.get("env")) for run in runs})
    if len(envs) > 1:
        found.append(f"returns of different environments are not comparable: {', '.join(envs)}")
    unfinished = [run for run in runs if run.status != "finished"]
    if unfinished:
        listed = ", ".join(f"{run.path} ({run.status})" for run in unfinished[:3])
        more = f" and {len(unfinished) - 3} more" if len(unfinished) > 3 else ""
        found.append(f"not finished, their last row counts: {listed}{more}")
    for group in groups:
        seeds = [run.seed for run in group.runs]
        twice = sorted({seed for seed in seeds if seeds.count(seed) > 1})
        if twice:
            found.append(f"{group.label}: several runs of the seed {', '.join(map(str, twice))}")
    return found


def flat(values: Any, prefix: str = "") -> dict[str, Any]:
    """Return nested settings by dotted key; lists and empty mappings are values."""
    if isinstance(values, Mapping) and values:
        found: dict[str, Any] = {}
        for key, value in values.items():
            found |= flat(value, f"{prefix}.{key}" if prefix else str(key))
        return found
    return {prefix: values}

"""The directory of a training run: its files, its record of metrics, and where its numbers came from."""

from __future__ import annotations

import contextlib
import csv
import datetime
import io
import json
import math
import numbers
import os
import platform
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from qio_envs.api import ConfigError

ITERATION, STEPS = "training_iteration", "num_env_steps_sampled_lifetime"
TIME, ITERATION_TIME, SPEED = "time_total_s", "time_this_iter_s", "env_steps_per_s"
MODES = ("greedy", "sampled")
"""How actions are chosen in an evaluation: the most probable one, or a draw from the policy."""
STATUSES = ("running", "finished", "interrupted", "failed")

_LEADING_COLUMNS = (ITERATION, STEPS, TIME, ITERATION_TIME, SPEED)
_GROUPS = ("env_runners", "evaluation", "learners", "replay")
_MODULE_RETURNS = "env_runners/module_episode_returns_mean/"
# Bookkeeping of RLlib that is of no use in a table of results.
_NOISE = re.compile(
    r"timer|connector|weights_seq_no|throughput|time_between_sampling|_duration_sec_|sample$|"
    r"agent_steps|agent_episode_returns|module_steps|num_trainable|"
    r"num_non_trainable|module_to_env|env_to_module|env_runners/num_env_steps|__all_modules__/num_env|"
    r"diff_num_grad_updates|module_train_batch_size|actor_manager|worker|dropped_lifetime"
)
_PACKAGES = ("ray", "torch", "numpy", "gymnasium", "pettingzoo", "qio")


class ProgressFile:
    """A CSV file with one row per training iteration, whose columns may grow.

    The file is whole after every row. A new column widens the table (older rows are empty there). A row whose
    iteration is already there replaces it and all after it, so that a run which continues from an earlier
    checkpoint neither repeats nor loses a row.

    Args:
        path: The file; rows that it holds are read.

    Raises:
        ConfigError: The file exists and is not such a table.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.rows: list[dict[str, float]] = []
        self.columns: list[str] = []
        self._cut_off = False
        if self.path.exists():
            self._read()

    def append(self, row: Mapping[str, float]) -> None:
        """Add an iteration's row; values that are not finite are left empty.

        Args:
            row: Numbers by column; ``training_iteration`` is among them.
        """
        kept = {key: value for key, value in row.items() if math.isfinite(value)}
        iteration = kept[ITERATION]
        earlier = [old for old in self.rows if old[ITERATION] < iteration]
        added = kept.keys() - set(self.columns)
        if added:
            self.columns = sorted({*self.columns, *added}, key=_column_order)
        rewrite = bool(added) or len(earlier) < len(self.rows) or self._cut_off or not self.path.exists()
        self.rows = [*earlier, kept]
        if rewrite:
            write_atomically(self.path, self._text(self.rows, header=True))
            self._cut_off = False
        else:
            with self.path.open("a", encoding="utf-8", newline="") as file:
                file.write(self._text([kept], header=False))

    def _text(self, rows: Iterable[Mapping[str, float]], header: bool) -> str:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns, restval="", lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()

    def _read(self) -> None:
        try:
            with self.path.open(encoding="utf-8", newline="") as file:
                reader = csv.DictReader(file)
                columns = list(reader.fieldnames or [])
                for values in reader:
                    if None in values or None in values.values():
                        if next(reader, None) is not None:
                            raise ValueError("a row of another length")
                        self._cut_off = True  # the process was killed while it wrote this line
                        break
                    self.rows.append({key: _number(value) for key, value in values.items() if value != ""})
            if columns and (ITERATION not in columns or any(ITERATION not in row for row in self.rows)):
                raise ValueError(f"no {ITERATION}")
        except (OSError, ValueError, csv.Error) as error:
            raise ConfigError(f"{self.path}: damaged table of results ({error})") from error
        self.columns = columns


class RunDirectory:
    """Names the files of one training run; `create` makes a new one, `open` finds an old one.

    Args:
        path: The directory.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path).resolve()

    @classmethod
    def create(cls, out: str | Path, name: str, now: datetime.datetime | None = None) -> RunDirectory:
        """Make ``out/name/<time>/``; never one that exists.

        Args:
            out: Where runs are kept.
            name: Name of the experiment.
            now: The time in its name; by default the present.

        Raises:
            ConfigError: It cannot be made.
        """
        stamp = (now or datetime.datetime.now()).strftime("%Y-%m-%d_%H-%M-%S")
        parent = Path(out) / name
        try:
            parent.mkdir(parents=True, exist_ok=True)
            for count in range(1, 1_000_000):
                path = parent / (stamp if count == 1 else f"{stamp}_{count}")
                try:
                    path.mkdir()
                except FileExistsError:
                    continue
                return cls(path)
        except OSError as error:
            raise ConfigError(f"--out: cannot make a run directory in {parent}: {error.strerror}") from error
        raise ConfigError(f"--out: {parent} is full of runs of {stamp}")

    @classmethod
    def open(cls, path: str | Path) -> RunDirectory:
        """Return the run that is kept in ``path``.

        Raises:
            ConfigError: There is none, or its ``run.json`` or ``config.yaml`` cannot be read.
        """
        run = cls(path)
        if not run.path.is_dir():
            raise ConfigError(f"{path}: no such run directory")
        for file in (run.info_file, run.config_file):
            if not file.is_file():
                raise ConfigError(f"{path}: not a run directory ({file.name} is missing)")
        run.info()
        run.config()
        return run

    @property
    def config_file(self) -> Path:
        """The experiment as it was run, seed included; ``rllib train --config`` takes it."""
        return self.path / "config.yaml"

    @property
    def info_file(self) -> Path:
        """Versions, machine, seed, times and status."""
        return self.path / "run.json"

    @property
    def progress_file(self) -> Path:
        """One row per training iteration."""
        return self.path / "progress.csv"

    @property
    def evaluation_file(self) -> Path:
        """One row per episode of the final evaluation."""
        return self.path / "evaluation.csv"

    @property
    def tensorboard(self) -> Path:
        """Folder of TensorBoard event files."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """Folder that Ray Tune keeps: its own state and, in ``trial/``, the checkpoints."""
        return self.path / "checkpoints"

    @property
    def error_file(self) -> Path:
        """Traceback of a failed run."""
        return self.path / "error.log"

    def write_config(self, experiment: Mapping[str, Any]) -> None:
        """Write ``config.yaml``."""
        write_atomically(self.config_file, yaml_text(experiment))

    def config(self) -> dict[str, Any]:
        """Return what ``config.yaml`` holds.

        Raises:
            ConfigError: It cannot be read.
        """
        return read_yaml(self.config_file)

    def info(self) -> dict[str, Any]:
        """Return what ``run.json`` holds.

        Raises:
            ConfigError: It cannot be read.
        """
        try:
            info = json.loads(self.info_file.read_text(encoding="utf-8"))
            if not isinstance(info, dict) or info.get("status") not in STATUSES:
                raise ValueError("no status")
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.info_file}: damaged ({_one_line(error)})") from error
        return info

    def update_info(self, **values: Any) -> None:
        """Put ``values`` into ``run.json``, which is made if it is not there."""
        info = self.info() if self.info_file.exists() else {}
        write_atomically(self.info_file, json.dumps({**info, **values}, indent=2) + "\n")


def run_description(command: Sequence[str] | None = None) -> dict[str, Any]:
    """Return what a number must be read with: versions, machine, command and time of start."""
    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        with contextlib.suppress(metadata.PackageNotFoundError):
            versions[package] = metadata.version(package)
    return {
        "command": list(sys.argv if command is None else command),
        "versions": versions,
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "cpu_count": os.cpu_count(),
        "start_time": timestamp(),
        "end_time": None,
    }


def timestamp() -> str:
    """Return the present in ISO 8601, with the offset from UTC."""
    return datetime.datetime.now().astimezone().isoformat(timespec="seconds")


def cpu_model() -> str:
    """Return the processor's name as the system gives it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a mapping from a YAML 1.2 file.

    Raises:
        ConfigError: It cannot be read, or is no mapping; a syntax error is given with its line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: {getattr(error, 'strerror', None) or 'not a text file'}") from error
    try:
        values = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        problem = _one_line(getattr(error, "problem", None) or error)
        raise ConfigError(f"{path}{where}: not valid YAML: {problem}") from error
    except ValueError as error:  # a scalar that no type takes, such as an impossible date
        raise ConfigError(f"{path}: not valid YAML: {_one_line(error)}") from error
    if not isinstance(values, dict):
        kind = "empty" if values is None else f"a {type(values).__name__}"
        raise ConfigError(
            f"{path}: expected a mapping 'name: {{run: ..., env: ..., ...}}', the file is {kind}"
        )
    return values


def yaml_text(values: Mapping[str, Any]) -> str:
    """Return a mapping as YAML 1.2, keys in their order."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    text = io.StringIO()
    yaml.dump(dict(values), text)
    return text.getvalue()


def write_atomically(path: Path, text: str) -> None:
    """Write a text file so that a reader sees either the old or the new one."""
    partial = path.with_name(f".{path.name}.partial")
    partial.write_text(text, encoding="utf-8", newline="")
    os.replace(partial, path)


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Return the numbers of a nested result with keys joined by ``/``; flags and all else are left out."""
    flat: dict[str, float] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, f"{name}/")
        elif isinstance(value, numbers.Integral) and not isinstance(value, bool):
            flat[name] = int(value)
        elif isinstance(value, numbers.Real) and not isinstance(value, bool):
            flat[name] = float(value)
        elif getattr(value, "shape", None) == () and hasattr(value, "item") and hasattr(value, "dtype"):
            flat |= flatten({name: value.item()})
    return flat


def progress_row(result: Mapping[str, Any], previous_steps: float | None = None) -> dict[str, float]:
    """Return one iteration's row of ``progress.csv`` from RLlib's result.

    Args:
        result: What ``Algorithm.train()`` or Tune reports.
        previous_steps: Environment steps before this iteration, for ``env_steps_per_s``.
    """
    row = {
        key: value
        for key, value in flatten({key: result[key] for key in result if key != "config"}).items()
        if math.isfinite(value)
        and (key in _LEADING_COLUMNS or (key.split("/")[0] in _GROUPS and not _NOISE.search(key)))
    }
    row = {key: int(value) if _is_count(key, value) else value for key, value in row.items()}
    by_module = [key for key in row if key.startswith(_MODULE_RETURNS)]
    if len(by_module) == 1:  # the episode's return once more
        del row[by_module[0]]
    steps, seconds = row.get(STEPS), row.get(ITERATION_TIME)
    if previous_steps is not None and steps is not None and seconds:
        row[SPEED] = (steps - previous_steps) / seconds
    return {key: row[key] for key in sorted(row, key=_column_order)}


def write_csv(path: str | Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows of a table; the columns are those of all rows in order of appearance."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(Path(path), text.getvalue())


def read_csv(path: str | Path) -> list[dict[str, Any]]:
    """Return the rows of a table; what reads as a number is one, empty cells are left out."""
    with Path(path).open(encoding="utf-8", newline="") as file:
        return [
            {key: _number_or_text(value) for key, value in row.items() if value != ""}
            for row in csv.DictReader(file)
        ]


def score_name(columns: Iterable[str]) -> str | None:
    """Return which metric is the score: the team's return where there is one, else the episode's."""
    present = set(columns)
    return next(
        (name for name in ("team_return", "episode_return_mean", "episode_return") if name in present), None
    )


def score_column(columns: Iterable[str], prefix: str) -> str | None:
    """Return the column below ``prefix`` (such as ``env_runners/``) that holds the score."""
    name = score_name(column.removeprefix(prefix) for column in columns if column.startswith(prefix))
    return None if name is None else prefix + name


def _is_count(column: str, value: float) -> bool:
    """Whether a number counts something, which RLlib's sums turn into a float."""
    return column.rpartition("/")[2].startswith("num_") and value == int(value)


def _column_order(column: str) -> tuple[int, str]:
    if column in _LEADING_COLUMNS:
        return _LEADING_COLUMNS.index(column), ""
    group = column.split("/")[0]
    return len(_LEADING_COLUMNS) + (_GROUPS.index(group) if group in _GROUPS else len(_GROUPS)), column


def _number(text: str) -> float:
    try:
        return int(text)
    except ValueError:
        return float(text)


def _number_or_text(text: str) -> Any:
    try:
        return _number(text)
    except ValueError:
        return text


def _one_line(problem: Any) -> str:
    return " ".join(str(problem).split())

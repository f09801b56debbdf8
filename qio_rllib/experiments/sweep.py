"""Several runs of one experiment: seeds, grids and draws, one after the other, each in a directory of its own."""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from qio_envs.api import ConfigError
from qio_rllib.artifacts.files import only_writer, write_atomically
from qio_rllib.artifacts.run_description import timestamp
from qio_rllib.artifacts.run_directory import SWEEP, RunDirectory
from qio_rllib.artifacts.yaml_files import yaml_text
from qio_rllib.experiments import training
from qio_rllib.experiments.experiment import Experiment, load_experiment
from qio_rllib.experiments.failures import TrainingInterrupted
from qio_rllib.experiments.finished_run import RunResult, result_of


@dataclasses.dataclass(frozen=True)
class Variant:
    """One run of a sweep.

    Attributes:
        number: 1 for the first.
        values: What the sweep has chosen, by dotted key.
        experiment: With those values.
    """

    number: int
    values: Mapping[str, Any]
    experiment: Experiment


class Sweep:
    """A sweep that has begun; what is there of it is not trained again.

    Its file, ``sweep_<time>.yaml``, is the experiment with its search and lies beside the directories of its runs,
    whose ``run.json`` name it.

    Args:
        file: The file.
        experiment: What stands in it.
        allow_import: What the ``config.yaml`` of its runs may import, see `load_experiment`.
    """

    def __init__(self, file: Path, experiment: Experiment, allow_import: Sequence[str] | None = None) -> None:
        self.file = file
        self.experiment = experiment
        self.variants = [
            Variant(number, values, variant)
            for number, (values, variant) in enumerate(experiment.variants(), 1)
        ]
        self._allow_import = allow_import

    @classmethod
    def create(cls, experiment: Experiment, out: str | Path) -> Self:
        """Begin a sweep.

        Args:
            experiment: With a search, validated.
            out: Where runs are kept; the sweep's lie in ``out/name``.

        Raises:
            ConfigError: The file cannot be written.
        """
        folder, stamp = Path(out) / experiment.name, re.sub(r"[^\d]", "-", timestamp()[:19])
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for count in range(1, 1_000_000):
                file = folder / (f"{SWEEP}_{stamp}.yaml" if count == 1 else f"{SWEEP}_{stamp}_{count}.yaml")
                with contextlib.suppress(FileExistsError):
                    file.touch(exist_ok=False)
                    break
            write_atomically(file, yaml_text({experiment.name: experiment.as_dict()}))
        except OSError as error:
            raise ConfigError(f"--out: cannot write to {folder}: {error.strerror}") from error
        return cls(file, experiment)

    @classmethod
    def open(cls, file: str | Path, allow_import: Sequence[str] | None = ()) -> Self:
        """Return a sweep that has begun.

        Args:
            file: Its file.
            allow_import: See `load_experiment`.

        Raises:
            ConfigError: There is none, or its file cannot be read.
        """
        path = Path(file).resolve()
        if not path.name.startswith(f"{SWEEP}_"):
            raise ConfigError(
                f"{file}: neither a run directory nor the file of a sweep ({SWEEP}_<time>.yaml)"
            )
        return cls(path, load_experiment(path, allow_import=allow_import), allow_import)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Be the only one who trains the sweep.

        Raises:
            ConfigError: Another process does.
        """
        with only_writer(self.file.with_name(f".{self.file.stem}.lock"), f"{self.file}", "sweep"):
            yield

    def runs(self) -> dict[int, RunDirectory]:
        """Return the runs that have begun, by number."""
        return runs_of_sweep(self.file)

    def train(self, variant: Variant, **how: Any) -> RunResult:
        """Train a run, go on with it, or return the result that it has.

        Args:
            variant: One of the sweep's.
            **how: ``report``, ``on_phase`` and ``output`` of `qio_rllib.experiments.training.train`.

        Raises:
            ConfigError: As `training.train`.
            TrainingFailed: Training ended with an error.
            TrainingInterrupted: The user stopped it; the message says how the sweep goes on.
        """
        run = self.runs().get(variant.number)
        try:
            if run is None:
                entry = {"file": self.file.name, "run": variant.number}
                return training.train(variant.experiment, self.file.parents[1], info={SWEEP: entry}, **how)
            if run.info()["status"] == "finished":
                return result_of(run)
            return training.resume(run.path, allow_import=self._allow_import, **how)
        except TrainingInterrupted as error:
            raise TrainingInterrupted(error.run_dir, error.signal, self.file) from error


def runs_of_sweep(file: Path) -> dict[int, RunDirectory]:
    """Return the runs of a sweep that have begun, by number.

    Raises:
        ConfigError: The ``run.json`` of a run beside the file is damaged.
    """
    found: dict[int, RunDirectory] = {}
    for info_file in sorted(file.parent.glob("*/run.json")):
        run = RunDirectory(info_file.parent)
        entry = run.info().get(SWEEP)
        if isinstance(entry, dict) and entry.get("file") == file.name and "run" in entry:
            found[entry["run"]] = run
    return found

"""What a population that was interrupted goes on from: its last comparison, in a file beside those of its runs."""

from __future__ import annotations

import dataclasses
import json
import random
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.artifacts.files import write_atomically
from qio_rllib.artifacts.run_directory import SWEEP, RunDirectory
from qio_rllib.experiments.comparison import flat
from qio_rllib.experiments.experiment import Experiment


@dataclasses.dataclass(frozen=True)
class RunStart:
    """Where a run begins the interval after a comparison.

    Attributes:
        source: Number of the run whose checkpoint it takes: its own or that of a better one.
        iteration: The iteration that the checkpoint was written after; 0 for none, the run begins anew.
        compared: The iteration that the scheduler counts the next interval from.
        mark: Number of the run's newest checkpoint at that time, -1 for none: those of the interval have higher ones.
        values: By setting, what the scheduler has given the run for the interval.
    """

    source: int
    iteration: int
    compared: int
    mark: int
    values: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class PopulationState:
    """A population after a comparison, or before the first.

    Attributes:
        experiment: As the population began with it.
        next_comparison: The iteration of the next comparison.
        python_random: State of the scheduler's `random.Random`.
        numpy_random: State of the bit generator that settings are drawn anew from.
        history: Rows of the schedule's history so far.
        runs: By number.
    """

    experiment: Mapping[str, Any]
    next_comparison: int
    python_random: tuple[Any, ...]
    numpy_random: Mapping[str, Any]
    history: list[dict[str, Any]]
    runs: Mapping[int, RunStart]

    def write(self, sweep_file: Path) -> None:
        """Write it beside the file of a population."""
        write_atomically(state_file(sweep_file), json.dumps(dataclasses.asdict(self)) + "\n")

    @classmethod
    def read(cls, sweep_file: Path, experiment: Experiment) -> Self:
        """Return the state of a population.

        Args:
            sweep_file: Of the population.
            experiment: What stands in that file.

        Raises:
            ConfigError: There is none, it is damaged, or the experiment is not what the population began with.
        """
        file = state_file(sweep_file)
        if not file.is_file():
            raise ConfigError(
                f"{sweep_file}: there is nothing to go on with ({file.name} is missing); train the experiment anew"
            )
        try:
            given = json.loads(file.read_text(encoding="utf-8"))
            version, numbers, gauss = given["python_random"]
            given["python_random"] = (version, tuple(numbers), gauss)
            random.Random().setstate(given["python_random"])
            np.random.default_rng().bit_generator.state = given["numpy_random"]
            given["runs"] = {int(number): RunStart(**start) for number, start in given["runs"].items()}
            found = cls(**given)
            wanted = json.loads(json.dumps(experiment.as_dict()))
            there, here = flat(found.experiment), flat(wanted)
        except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ConfigError(f"{file}: damaged ({' '.join(str(error).split())})") from error
        for key in dict.fromkeys([*there, *here]):
            if there.get(key) != here.get(key):
                raise ConfigError(
                    f"{sweep_file}: {key} is {here.get(key)!r}, and the population began with {there.get(key)!r}"
                )
        return found


def state_file(sweep_file: Path) -> Path:
    """Return the file of a population's state."""
    return sweep_file.with_suffix(".json")


def refuse_alone(directory: RunDirectory) -> None:
    """Refuse to go on with a run that is one of a population which can go on.

    Raises:
        ConfigError: Naming the population.
    """
    info = directory.info()
    entry = info.get(SWEEP)
    if info["status"] == "finished" or not isinstance(entry, dict):
        return
    file = directory.path.parent / str(entry.get("file"))
    if state_file(file).is_file():
        raise ConfigError(
            f"{directory.path}: a run of a population, which goes on as one: rllib train --resume {file}"
        )

"""What is reproduced, and the published figures beside it: `reproductions.yaml`, checked to the last key."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pydantic

from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.artifacts.yaml_files import read_yaml

LEDGER = Path(__file__).with_name("reproductions.yaml")
CONFIGS = Path(__file__).parents[1] / "tune_configs"


class _Strict(pydantic.BaseModel):
    model_config = pydantic.ConfigDict(extra="forbid", strict=True, frozen=True)


class Published(_Strict):
    """A figure from the literature.

    Attributes:
        score: In the unit of the task.
        interval: Half the width of the interval that is published with it.
        steps: Environment steps of its training.
    """

    score: float
    interval: float = pydantic.Field(ge=0)
    steps: int = pydantic.Field(gt=0)


class Entry(_Strict):
    """An algorithm on a task.

    Attributes:
        algorithm: Its name in the table.
        config: Name of a file in ``tune_configs/``, without its ending; the budget is its ``stop``.
        overrides: ``KEY=VALUE`` texts on top, as ``rllib train --set`` takes them.
        seeds: How many trainings there are, if not as many as the task says.
        published: The figure to be reproduced, if there is one.
    """

    algorithm: str
    config: str
    overrides: list[str] = []
    seeds: int | None = pydantic.Field(default=None, gt=0)
    published: Published | None = None

    @property
    def path(self) -> Path:
        """The experiment's file."""
        return CONFIGS / f"{self.config}.yaml"


class Task(_Strict):
    """A task and who is trained on it.

    Attributes:
        title: Heading of its table.
        metric: Column of ``evaluation.csv`` that is the score: "team_return", or "won", whose mean is the win rate.
        mode: Which of the two evaluations of the last checkpoint is the score.
        episodes: How many fixed episodes it plays.
        seeds: How many trainings there are of an entry that does not say it itself.
        best: Scripted policy that is 1 on the normalised scale, whose 0 is random play.
        source: Where the published figures stand, or why there are none.
        entries: By the name of their folder.
    """

    title: str
    metric: Literal["team_return", "won"]
    mode: Literal["greedy", "sampled"]
    episodes: int = pydantic.Field(gt=0)
    seeds: int = pydantic.Field(gt=0)
    best: str
    source: str
    entries: dict[str, Entry] = pydantic.Field(min_length=1)

    def overrides(self, entry: str) -> list[str]:
        """Return all that goes on top of an entry's file."""
        return [*self.entries[entry].overrides, f"evaluation_duration={self.episodes}"]


def load_ledger(path: Path = LEDGER) -> dict[str, Task]:
    """Read the tasks by name.

    Raises:
        ConfigError: The file cannot be read, or a key is missing, unknown or of the wrong type.
    """
    tasks = {}
    for name, values in read_yaml(path).items():
        try:
            tasks[name] = Task.model_validate(values)
        except pydantic.ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(map(str, (name, *problem["loc"])))
            raise ConfigError(f"{path.name}: {key}: {problem['msg']}") from error
    return tasks


def chosen(tasks: dict[str, Task], name: str) -> tuple[str, list[str]]:
    """Return the task and the entries that a name stands for: "spread" is all of a task, "spread/qmix" one entry.

    Raises:
        ConfigError: There is no such task or entry; the message names those that there are.
    """
    task, slash, entry = name.partition("/")
    if task not in tasks:
        raise ConfigError(f"TASK: unknown '{task}'{did_you_mean(task, tasks)}; there are: {', '.join(tasks)}")
    entries = tasks[task].entries
    if slash and entry not in entries:
        raise ConfigError(
            f"TASK: {task} has no '{entry}'{did_you_mean(entry, entries)}; there are: {', '.join(entries)}"
        )
    return task, [entry] if slash else list(entries)

"""Pretrained policies: policy files that come with the package, each with a card of what it was measured to do.

``policy:NAME`` stands for one wherever a policy file may stand. `docs/policy_cards.py` writes them from ``results/``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qio_envs.api import ConfigError, check_keys, did_you_mean
from qio_rllib.artifacts.run_directory import POLICY_FILE
from qio_rllib.artifacts.yaml_files import read_yaml

PREFIX = "policy:"
_FOLDER = Path(__file__).with_name("policies")


@dataclasses.dataclass(frozen=True)
class Card:
    """What is known of a pretrained policy.

    Attributes:
        name: Behind ``policy:``.
        env: The environment that it was trained in.
        env_config: Its settings.
        algorithm: What trained it.
        command: What trains the like, in a checkout of the repository.
        seed: Of its training.
        env_steps: Environment steps of its training.
        training_seconds: How long that took.
        mode: How its actions are chosen for ``score``, "greedy" or "sampled".
        metric: What the scores are, a column of ``evaluation.csv``.
        episodes: Episodes of the evaluation, on the seeds of `qio_rllib.sampling.evaluation.evaluation_seeds`.
        score: Mean over them.
        interval: 95% interval of that mean over other episodes (normal approximation).
        random: Score of uniformly random actions on the same episodes.
        best_scripted: Name of the best scripted policy.
        best: Its score.
        normalized: Place of ``score`` between ``random`` (0) and ``best`` (1).
        study: Scores of all seeds of its study, in words; this policy is that of the first, not of the best.
        results: Folder of the raw files.
        licence: Of the policy file.
        sha256: Of the policy file, in hexadecimal digits.
        versions: Of the packages that it was trained with.
    """

    name: str
    env: str
    env_config: Mapping[str, Any]
    algorithm: str
    command: str
    seed: int
    env_steps: int
    training_seconds: float
    mode: str
    metric: str
    episodes: int
    score: float
    interval: tuple[float, float]
    random: float
    best_scripted: str
    best: float
    normalized: float
    study: str
    results: str
    licence: str
    sha256: str
    versions: Mapping[str, str]

    def as_dict(self) -> dict[str, Any]:
        """Return what stands in ``card.yaml``."""
        return {**dataclasses.asdict(self), "interval": list(self.interval)}

    @property
    def task(self) -> str:
        """The environment and its scenario, in a few letters."""
        scenario = self.env_config.get("scenario")
        return self.env if scenario is None else f"{self.env} ({scenario})"

    def shown(self, score: float) -> str:
        """Return a score with the digits that tell policies apart: two decimals where all are small, such as rates."""
        return f"{score:.2f}" if max(abs(self.best), abs(self.random)) <= 2 else f"{score:.1f}"

    @property
    def measure(self) -> str:
        """Name of the metric behind a score; empty for the team's return."""
        return "" if self.metric == "team_return" else f" {self.metric}"


def cards(folder: Path = _FOLDER) -> dict[str, Card]:
    """Return the cards of all policies that are installed, by name.

    Args:
        folder: Where they lie, by default in the package.
    """
    found = {}
    for path in sorted(folder.glob("*/card.yaml")):
        values = read_yaml(path)
        check_keys(str(path), values, [field.name for field in dataclasses.fields(Card)])
        found[path.parent.name] = Card(**{**values, "interval": tuple(values["interval"])})
    return found


def card_of(name: str) -> Card:
    """Return the card of a policy, with or without ``policy:`` before its name.

    Raises:
        ConfigError: There is no policy of that name.
    """
    known = cards()
    name = name.removeprefix(PREFIX)
    if name not in known:
        raise ConfigError(
            f"policy: there is no '{name}'{did_you_mean(name, known)}; installed: {', '.join(known) or 'none'}"
        )
    return known[name]


def policy_path(path: str | Path) -> Path:
    """Return where a policy file lies: that of the package for ``policy:NAME``, any other path as it is.

    Raises:
        ConfigError: There is no policy of that name.
    """
    if not str(path).startswith(PREFIX):
        return Path(path)
    return _FOLDER / card_of(str(path)).name / POLICY_FILE

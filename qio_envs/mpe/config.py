"""Settings that all particle environments have in common."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from qio_envs.api import EnvConfig, setting

MAX_ENTITIES = 100
"""Agents or landmarks of one kind at most."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ParticleConfig(EnvConfig):
    """What the tasks have in common; see `ParticleEnv`."""

    task: ClassVar[str]
    """Name of the task: the key of its scenarios in ``scenarios.yaml``."""

    max_steps: int = setting(25, "time limit of an episode, steps", low=1, high=1_000_000)
    continuous_actions: bool = setting(
        False, "whether actions are numbers from 0 to 1, one for each direction and symbol, not integers"
    )

    @classmethod
    def scenarios(cls) -> dict[str, dict[str, Any]]:
        """Return the task's named settings, by scenario name."""
        return {name: dict(values) for name, values in super().scenarios()[cls.task].items()}

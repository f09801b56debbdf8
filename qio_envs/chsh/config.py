"""Settings of the CHSH game."""

from __future__ import annotations

import dataclasses

from qio_envs.api import EnvConfig, setting


@dataclasses.dataclass(frozen=True, kw_only=True)
class CHSHConfig(EnvConfig):
    """Settings of `CHSH`."""

    rounds: int = setting(10, "rounds of an episode, one a step", low=1, high=1_000_000)

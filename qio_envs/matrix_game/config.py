"""Settings of matrix games."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np

from qio_envs.api import Array, ConfigError, EnvConfig, setting
from qio_envs.matrix_game.named_games import END, NAMED_GAMES

CUSTOM = "custom"
"""Name of the game whose payoffs are settings."""
_MAX_NUMBERS = 1_000_000  # in a table of payoffs
_MAX_AGENTS = 20


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatrixGameConfig(EnvConfig):
    """Settings of `MatrixGame`."""

    game: str = setting(
        "climbing", "whose payoffs; custom for those of `payoffs`", choices=(*NAMED_GAMES, CUSTOM)
    )
    payoffs: tuple[Any, ...] | None = setting(
        None,
        "payoffs of the game custom, `[N, A_1, ..., A_N]`; with `next_stage` `[S, N, A_1, ..., A_N]`",
        low=-1e6,
        high=1e6,
    )
    next_stage: tuple[Any, ...] | None = setting(
        None,
        "stage that follows, `[S, A_1, ..., A_N]`: integers, -1 for the end; null for a game of one stage",
        low=END,
    )
    rounds: int = setting(25, "time limit of an episode, rounds, one a step", low=1, high=100_000)
    memory: int = setting(0, "past joint actions that are observed", low=0, high=100)

    def validate(self) -> None:
        """Refuse payoffs that are no game, and stages that do not fit them."""
        if self.game != CUSTOM:
            for key in ("payoffs", "next_stage"):
                if getattr(self, key) is not None:
                    raise ConfigError(f"{key}: the game {self.game} has its own; allowed: with game {CUSTOM}")
            return
        if self.payoffs is None:
            raise ConfigError(f"payoffs: expected those of the game {CUSTOM}, got null")
        payoffs = np.array(self.payoffs)
        if payoffs.size > _MAX_NUMBERS:
            raise ConfigError(f"payoffs: {payoffs.size} numbers; allowed: up to {_MAX_NUMBERS}")
        shape, staged = payoffs.shape, self.next_stage is not None
        agents_axis = int(staged)
        agents = shape[agents_axis] if len(shape) > agents_axis else 0
        if len(shape) != agents_axis + 1 + agents or agents > _MAX_AGENTS:
            wanted = "[S, N, A_1, ..., A_N]" if staged else "[N, A_1, ..., A_N]"
            raise ConfigError(
                f"payoffs: expected shape {wanted}, an axis of actions for each of 1 to {_MAX_AGENTS} agents, "
                f"got {list(shape)}"
            )
        if staged:
            stages, wanted_shape = np.array(self.next_stage), [shape[0], *shape[2:]]
            if list(stages.shape) != wanted_shape:
                raise ConfigError(
                    f"next_stage: expected shape {wanted_shape}, as payoffs have it, got {list(stages.shape)}"
                )
            wrong = stages[(stages != np.round(stages)) | (stages >= shape[0])]
            if wrong.size:
                raise ConfigError(
                    f"next_stage: expected integers from {END} to {shape[0] - 1}, got {wrong[0]:g}"
                )

    @functools.cached_property
    def payoff_table(self) -> Array:
        """Payoffs, float64 ``[S, N, A_1, ..., A_N]``; read-only."""
        if self.game != CUSTOM:
            table = NAMED_GAMES[self.game].payoffs.copy()
        else:
            table = np.array(self.payoffs, np.float64)
            table = table if self.next_stage is not None else table[None]
        table.flags.writeable = False
        return table

    @functools.cached_property
    def stage_table(self) -> Array:
        """Stage that follows each joint action, int64 ``[S, A_1, ..., A_N]``, -1 for the end; read-only."""
        if self.game != CUSTOM:
            table = NAMED_GAMES[self.game].next_stage.copy()
        elif self.next_stage is not None:
            table = np.array(self.next_stage).astype(np.int64)
        else:
            table = np.zeros((1, *self.num_actions), np.int64)
        table.flags.writeable = False
        return table

    @property
    def num_stages(self) -> int:
        """Number of stages ``S``."""
        return self.payoff_table.shape[0]

    @property
    def num_actions(self) -> tuple[int, ...]:
        """Number of actions of each agent."""
        return self.payoff_table.shape[2:]

    @property
    def history_size(self) -> int:
        """Numbers of the past joint actions in an observation."""
        return self.memory * len(self.num_actions) * max(self.num_actions)

"""What the kernels of matrix games work on: state and rules as named tuples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qio_envs.api import Array, Limits, Relations, clock_limits
from qio_envs.matrix_game.config import MatrixGameConfig

_SLACK = 1 + 1e-5  # payoffs are rounded to float32


class MatrixGameState(NamedTuple):
    """Arrays of matrix games; ``K`` is the memory, at least 1."""

    seed: Array  # uint64 [E], key of the random numbers of scripted policies
    episode: Array  # uint32 [E], episodes since the seed was given
    step: Array  # int32 [E], rounds since the reset; -1 before the first
    running: Array  # bool [E], reset and not ended
    stage: Array  # int32 [E], of the round to come; after the end of the game its last
    played_stage: Array  # int32 [E], of the last round; -1 before the first
    history: Array  # int32 [E, K, N], last joint actions, the last one first; -1 where there was none
    returns: Array  # float64 [E, N], sum of the payoffs so far

    @classmethod
    def empty(cls, num_envs: int, config: MatrixGameConfig) -> MatrixGameState:
        """Return the state of environments that were never reset."""
        agents = len(config.num_actions)
        return cls(
            seed=np.zeros(num_envs, np.uint64),
            episode=np.zeros(num_envs, np.uint32),
            step=np.full(num_envs, -1, np.int32),
            running=np.zeros(num_envs, bool),
            stage=np.zeros(num_envs, np.int32),
            played_stage=np.full(num_envs, -1, np.int32),
            history=np.full((num_envs, max(config.memory, 1), agents), -1, np.int32),
            returns=np.zeros((num_envs, agents)),
        )

    @classmethod
    def limits(cls, config: MatrixGameConfig) -> Limits:
        """Return what each array may hold; see `BatchedEnv.state_limits`."""
        agents = len(config.num_actions)
        by_agent = np.moveaxis(config.payoff_table, 1, 0).reshape(agents, -1)
        least, most = np.minimum(by_agent.min(axis=1), 0), np.maximum(by_agent.max(axis=1), 0)
        return clock_limits(config.rounds) | {
            "stage": (0, config.num_stages - 1),
            "played_stage": (-1, config.num_stages - 1),
            "history": (-1, np.array(config.num_actions) - 1),
            "returns": (_SLACK * config.rounds * least, _SLACK * config.rounds * most),
        }

    def relations(self) -> Relations:
        """Return what must hold between the arrays; see `qio_envs.api.limits`."""
        was_played = np.arange(self.history.shape[1]) < self.step[:, None]  # [E, K]
        yield (
            "history",
            ((self.history >= 0) == was_played[..., None]).all(axis=(1, 2)),
            "a joint action for each round played, as far as it reaches, and -1 before",
        )
        yield (
            "played_stage",
            (self.played_stage >= 0) == (self.step > 0),
            "-1 before the first round, and no -1 afterwards",
        )


class MatrixGameRules(NamedTuple):
    """What of a configuration the kernels need; ``J`` joint actions."""

    payoffs: Array  # float32 [S, J, N]
    next_stage: Array  # int32 [S, J], -1 for the end
    counts: Array  # int64 [N], actions of each agent
    strides: Array  # int64 [N], of the agents' actions in the index of a joint action
    rounds: int
    memory: int
    num_actions: int  # most of an agent

    @classmethod
    def of(cls, config: MatrixGameConfig) -> MatrixGameRules:
        """Return the rules of a configuration."""
        table, counts = config.payoff_table, config.num_actions
        payoffs = np.moveaxis(table.reshape(*table.shape[:2], -1), 1, 2)
        strides = np.cumprod((1, *counts[:0:-1]))[::-1]
        return cls(
            payoffs=np.ascontiguousarray(payoffs, np.float32),
            next_stage=config.stage_table.reshape(config.num_stages, -1).astype(np.int32),
            counts=np.array(counts, np.int64),
            strides=np.ascontiguousarray(strides, np.int64),
            rounds=config.rounds,
            memory=config.memory,
            num_actions=max(counts),
        )

"""Scripted policies of matrix games: an equilibrium, tit for tat, and the greatest sum of payoffs."""

from __future__ import annotations

import numpy as np

from qio_envs.api import Array, BatchedEnv
from qio_envs.matrix_game import kernels
from qio_envs.matrix_game.config import MatrixGameConfig
from qio_envs.matrix_game.named_games import NAMED_GAMES
from qio_envs.matrix_game.state import MatrixGameState

_Env = BatchedEnv[MatrixGameConfig, MatrixGameState]


class NashPolicy:
    """Every agent plays its part of an equilibrium of the named game, in each round independently.

    Where a game has several it is one of the greatest sum of payoffs; in the two-step game it is subgame perfect. Draws
    are a pure function of (seed, environment seed, episode, step).

    Args:
        env: The environment to act in, of a named game.
        seed: Key of the policy's own random numbers, 0 to 2**64 - 1.

    Raises:
        KeyError: The game has no name.
    """

    def __init__(self, env: _Env, seed: int = 0) -> None:
        self.env, self.seed = env, np.uint64(seed)
        cumulative = NAMED_GAMES[env.config.game].equilibrium.cumsum(axis=2)
        self._cumulative = cumulative / cumulative[..., -1:]  # exactly 1 from the last action that is played

    def act(self) -> Array:
        """Return the actions, int64 ``[E, N]``."""
        actions = np.empty((self.env.num_envs, self.env.num_agents), np.int64)
        kernels.mixed_actions(self.seed, self.env.arrays, self._cumulative, actions)
        return actions


class TitForTatPolicy:
    """Both agents cooperate (action 0) in the first round, and then do what the other one did in the last.

    Rapoport's program in Axelrod's tournaments (Axelrod and Hamilton, Science 211, 1981).

    Args:
        env: The environment to act in, with two agents that have as many actions.
    """

    def __init__(self, env: _Env) -> None:
        self.env = env

    def act(self) -> Array:
        """Return the actions, int64 ``[E, 2]``."""
        return np.maximum(self.env.arrays.history[:, 0, ::-1], 0).astype(np.int64)


class OraclePolicy:
    """The joint actions with the greatest sum of all agents' payoffs over the rounds that are left.

    By backward induction over rounds and stages; where nothing leads to another stage or to the end it is the
    best joint action of the table. Of joint actions that are equally good it plays the first.

    Args:
        env: The environment to act in.
    """

    def __init__(self, env: _Env) -> None:
        self.env = env
        table, stages = env.config.payoff_table, env.config.num_stages
        totals = table.sum(axis=1).reshape(stages, -1)  # [S, J]
        following = env.config.stage_table.reshape(stages, -1)
        horizon = env.config.rounds if following.any() else 1  # else all rounds are alike
        self._best = np.empty((horizon, stages), np.int32)  # by rounds that are left, less one
        values = np.zeros(stages)
        for left in range(horizon):
            total = totals + np.where(following < 0, 0.0, values[following])
            self._best[left] = total.argmax(axis=1)
            values = total.max(axis=1)

    def act(self) -> Array:
        """Return the actions, int64 ``[E, N]``."""
        s, config = self.env.arrays, self.env.config
        left = np.clip(config.rounds - 1 - s.step, 0, len(self._best) - 1)
        joint = self._best[left, s.stage]
        return np.stack(np.unravel_index(joint, config.num_actions), axis=1).astype(np.int64)

"""What trained policies earn in small games exactly, and policies as functions of information states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qio_envs.api import ConfigError
from qio_envs.matrix_game import MatrixGame
from qio_rllib.acting.actor import Array
from qio_rllib.acting.policy import Policy
from qio_rllib.games.openspiel import OpenSpielEnv, PolicyFunction, tabular_values

_DECIMALS = 12  # of expected returns: what is equal but for the order of a sum counts as equal


def policy_function(policy: Policy) -> PolicyFunction:
    """Return a trained policy as a function of information states.

    Args:
        policy: Trained in an `OpenSpielEnv`.
    """

    def chances(player: int, known: Array, legal: Array) -> Array:
        agent = f"player_{player}"
        count = policy.group_of(agent).actor.action.count or len(legal)
        mask = np.zeros(count, bool)  # an action more stands for waiting, where the environment has it
        mask[: len(legal)] = legal
        found = policy.probabilities(agent, known[None], mask[None])[0, : len(legal)]
        return found / found.sum()

    return chances


def expected_returns(env: Any, policies: Sequence[Policy]) -> Array:
    """Return what each agent expects to earn in an episode, exactly, float64 ``[N]``.

    Args:
        env: What `make_env` builds: a game of OpenSpiel, or a matrix game of one stage without memory, whose rounds
            have nothing to do with each other.
        policies: Who acts for each agent, in the order of the environment.

    Raises:
        ConfigError: As `small_game`; or a policy whose `Policy.probabilities` are not known.
        GameError: As `tabular_values`.
    """
    game = small_game(env)
    if isinstance(game, MatrixGame):
        return np.round(_matrix_game_values(game, policies), _DECIMALS)
    players = [policy_function(policy) for policy in policies]

    def chances(player: int, known: Array, legal: Array) -> Array:
        return players[player](player, known, legal)

    return np.round(tabular_values(str(game.metadata["name"]), chances), _DECIMALS)


def small_game(env: Any) -> MatrixGame | OpenSpielEnv:
    """Return the game of an environment, as `expected_returns` takes it.

    Raises:
        ConfigError: Another environment, or a matrix game of several stages or with memory.
    """
    batch, turns = getattr(env, "batch", None), getattr(env, "env", None)
    if isinstance(turns, OpenSpielEnv):
        return turns
    if isinstance(batch, MatrixGame) and batch.config.num_stages == 1 and not batch.config.memory:
        return batch
    raise ConfigError(
        "exact payoffs: of games of OpenSpiel, and of matrix_game_v0 with one stage and memory 0"
    )


def _matrix_game_values(game: MatrixGame, policies: Sequence[Policy]) -> Array:
    seen = np.ones((1, game.config.num_stages), np.float32)  # the stage, one-hot
    legal = game.action_mask()[0].astype(bool)
    earned = game.config.payoff_table[0] * game.config.rounds
    for agent, policy, own, count in zip(
        game.possible_agents, policies, legal, game.config.num_actions, strict=True
    ):
        chances = policy.probabilities(agent, seen, own[None])[0, :count]
        earned = np.tensordot(
            earned, chances / chances.sum(), axes=(1, 0)
        )  # the next agent's axis moves to 1
    return earned

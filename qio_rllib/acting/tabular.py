"""Trained policies as functions of information states, as exact solvers of small games ask for them."""

from __future__ import annotations

import numpy as np

from qio_rllib.acting.actor import Array
from qio_rllib.acting.policy import Policy
from qio_rllib.games.openspiel import PolicyFunction


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

"""Settings of the greedy casino."""

from __future__ import annotations

import dataclasses

import numpy as np

from qio_envs.api import EnvConfig, setting

PAYOUTS = np.array([[[0.1, 0.5], [0.4, 0.2]], [[0.5, 0.1], [0.2, 0.4]]])
"""Probability that a machine pays, ``[machine, drunk, blinking]``."""
PAYOUTS.flags.writeable = False
INTUITION, DO, COUNTERFACTUAL = 0.15, 0.30, 0.45
"""Expected payout of a round: of whoever follows the intention, of any policy that does not know it, and of the best
that does."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class GreedyCasinoConfig(EnvConfig):
    """Settings of `GreedyCasino`."""

    rounds: int = setting(10, "rounds of an episode, one a step", low=1, high=1_000_000)
    observe_intent: bool = setting(
        True, "whether the agent observes which machine it is about to choose by intuition"
    )

"""The greedy casino on paper: causal graphs, and what policies are paid."""

from __future__ import annotations

import numpy as np

from qio_envs.api import AFTER, Array, StepGraph
from qio_envs.greedy_casino.config import PAYOUTS, GreedyCasinoConfig

CAUSES = ("drunk", "blinking")
_BEFORE = (*CAUSES, "intent")
_EDGES = (
    ("drunk", "intent"),
    ("blinking", "intent"),
    ("drunk", "reward"),
    ("blinking", "reward"),
    ("machine", "reward"),
)


def step_graph(config: GreedyCasinoConfig) -> StepGraph:
    """Return the causal graph of one time step.

    Args:
        config: The settings; without ``observe_intent`` the intention is hidden as well.
    """
    later = {name: name + AFTER for name in _BEFORE}
    unseen = CAUSES if config.observe_intent else _BEFORE
    return StepGraph(
        variables=(*_BEFORE, "machine", *later.values(), "reward"),
        hidden=(*unseen, *(later[name] for name in unseen)),
        edges=(*_EDGES, *((later[cause], later["intent"]) for cause in CAUSES)),
    )


def logged_graph(policy: str) -> StepGraph:
    """Return the causal graph of the columns of `logged`.

    Args:
        policy: ``intuition``, which makes the intention a cause of the machine, or ``random``.

    Raises:
        ValueError: Another policy.
    """
    if policy not in ("intuition", "random"):
        raise ValueError(f"policy: expected intuition or random, got {policy!r}")
    chosen = (("intent", "machine"),) if policy == "intuition" else ()
    return StepGraph(variables=(*_BEFORE, "machine", "reward"), hidden=CAUSES, edges=(*_EDGES, *chosen))


def expected_payout(chances: Array) -> float:
    """Return the exact expected payout of a round, of a policy that may know its intention.

    Args:
        chances: Probability of each machine by the intention, ``[intention, machine]``; equal rows for a policy that
            does not know it.

    Raises:
        ValueError: Another shape, or rows that are no probabilities.
    """
    chances = np.asarray(chances, np.float64)
    if chances.shape != (2, 2) or not (chances >= 0).all() or not np.allclose(chances.sum(1), 1):
        raise ValueError(f"chances: expected a probability of each machine by the intention, got {chances}")
    bits = np.arange(2)
    intent = bits[:, None] ^ bits  # [drunk, blinking]
    return float((chances[intent] * np.moveaxis(PAYOUTS, 0, 2)).sum() / 4)

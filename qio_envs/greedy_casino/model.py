"""The causal graphs of the greedy casino."""

from __future__ import annotations

from qio_envs.api import AFTER, StepGraph
from qio_envs.greedy_casino.config import GreedyCasinoConfig

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

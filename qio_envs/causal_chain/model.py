"""The causal graph of the chain and its counterfactuals in closed form (NumPy, float64)."""

from __future__ import annotations

import numpy as np

from qio_envs.api import AFTER, Array, StepGraph
from qio_envs.causal_chain.config import EFFECT

_EDGES = (("x1", "x2"), ("a0", "x2"), ("x2", "x3"), ("x1", "x3"), ("x3", "reward"))


def round_graph() -> StepGraph:
    """Return the graph of the variables of one round, by the names that `logged` gives them."""
    return StepGraph(variables=("x1", "x2", "x3", "a0", "a1", "reward"), hidden=(), edges=_EDGES)


def step_graph() -> StepGraph:
    """Return the graph of one time step: x2 and x3 of the round are variables after the step."""
    later = {name: name + AFTER for name in ("x2", "x3")}
    return StepGraph(
        variables=("x1", "x2", "x3", "a0", "a1", *(name + AFTER for name in ("x1", "x2", "x3")), "reward"),
        hidden=(),
        edges=tuple((later.get(cause, cause), later.get(effect, effect)) for cause, effect in _EDGES),
    )


def counterfactual_x3(x3: Array, actions: Array, others: Array) -> Array:
    """Return what x3 would have been under other actions: x3 + 0.4 (a0' - a0), float64 ``[...]``.

    Args:
        x3: What it was, ``[...]``.
        actions: The actions that were taken, ``[..., 2]``; numbers outside [-1, 1] are clipped.
        others: The actions in their place, ``[..., 2]``.
    """
    taken, other = (np.clip(np.asarray(values, np.float64)[..., 0], -1, 1) for values in (actions, others))
    return np.asarray(x3, np.float64) + EFFECT * (other - taken)

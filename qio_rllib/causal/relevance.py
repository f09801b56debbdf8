"""Which components of a state rewards depend on, now or in later steps."""

from __future__ import annotations

import numpy as np

from qio_envs.api import AFTER
from qio_rllib.causal.datasets import REWARD
from qio_rllib.causal.graph import CausalGraph


def reward_ancestors(graph: CausalGraph) -> set[str]:
    """Return the components of the state that are ancestors of the reward in the graph of all time steps.

    That is the graph of one step, put together with itself: a component matters if the reward depends on it, or a
    component after the step that matters. Actions are causes of their own: that a policy acts on a component makes it
    no ancestor.

    Args:
        graph: Of one time step; a component ``s`` is ``s'`` after it.
    """
    components = {name for name in graph.variables if name + AFTER in graph.variables}
    found: set[str] = set()
    reached = {REWARD}
    while reached:
        causes = graph.ancestors(reached) & components
        reached = {name + AFTER for name in causes - found}
        found |= causes
    return found


def relevant_components(mask: np.ndarray) -> np.ndarray:
    """Return which components of the state are ancestors of the reward, bool ``[D]``.

    Args:
        mask: Which inputs each target depends on, as `find_mask` returns it: bool ``[D + 2, D + A]``; targets are next
            state, reward and continuation, inputs begin with the state.
    """
    size = len(mask) - 2
    names = [f"o{place}" for place in range(size)]
    targets = [*(name + AFTER for name in names), REWARD]
    edges = [(names[i], targets[t]) for t, i in np.argwhere(mask[: size + 1, :size])]
    found = reward_ancestors(CausalGraph(edges, [*names, *targets]))
    return np.array([name in found for name in names])

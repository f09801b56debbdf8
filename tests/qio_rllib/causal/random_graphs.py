"""Random causal graphs for property tests."""

import numpy as np

from qio_rllib.causal.graph import CausalGraph


def random_graph(rng: np.random.Generator, size: int, density: float, hidden: int = 0) -> CausalGraph:
    """Return a graph whose order of variables has nothing to do with the directions of its edges."""
    upper = np.triu(rng.random((size, size)) < density, 1)
    order = rng.permutation(size)
    names = [f"x{i}" for i in range(size)]
    return CausalGraph.from_adjacency(upper[order][:, order], names, names[:hidden])

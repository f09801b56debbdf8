"""`PartialGraph`: edges of which some have no direction, what observations alone say of a causal graph."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from qio_rllib.causal.graph import CausalGraph, Edge, GraphError


class PartialGraph:
    """A graph with directed and undirected edges.

    The graph of a Markov equivalence class (CPDAG) is one: what is directed is so in all its members. A graph that was
    found from finite samples may have cycles, where tests contradict each other; `is_acyclic` says.

    Args:
        marks: Bool ``[V, V]``: i -> j where ``[i, j]`` and not ``[j, i]``; without a direction where both.
        variables: ``V`` names.

    Raises:
        GraphError: The matrix is not square, has a diagonal, or does not fit the names.
    """

    def __init__(self, marks: np.ndarray, variables: Sequence[str]) -> None:
        self.marks = np.array(marks, bool)
        self.variables = tuple(variables)
        if self.marks.shape != (len(self.variables),) * 2 or self.marks.diagonal().any():
            raise GraphError(
                f"marks: expected a square matrix of {len(self.variables)} rows with an empty diagonal, got the shape "
                f"{self.marks.shape}"
            )

    @classmethod
    def of(cls, graph: CausalGraph, interventions: Iterable[Iterable[str]] = ()) -> PartialGraph:
        """Return the equivalence class of a graph: its skeleton, its unshielded colliders and what follows from them.

        Args:
            graph: Without hidden variables.
            interventions: Sets of variables that were set from outside, in other data; they direct the edges between
                what was set and what was not (Hauser and Buehlmann 2012).

        Raises:
            GraphError: Hidden variables, whose class is of another kind, or an unknown variable.
        """
        if graph.hidden:
            raise GraphError(f"graph: {', '.join(sorted(graph.hidden))} hidden; expected no hidden variables")
        adjacency = graph.adjacency
        skeleton = adjacency | adjacency.T
        marks = skeleton.copy()
        for i, j, k in unshielded_triples(skeleton):
            if adjacency[i, j] and adjacency[k, j]:
                marks[j, i] = marks[j, k] = False
        for targets in interventions:
            graph.parents(targets)  # refuses unknown names
            inside = np.isin(graph.variables, list(targets))
            marks &= ~(adjacency.T & (inside[:, None] != inside[None, :]))
        apply_meek_rules(marks)
        return cls(marks, graph.variables)

    @property
    def skeleton(self) -> np.ndarray:
        """Bool ``[V, V]``, symmetric: pairs with an edge of any kind."""
        return self.marks | self.marks.T

    @property
    def directed(self) -> np.ndarray:
        """Bool ``[V, V]``: i -> j."""
        return self.marks & ~self.marks.T

    @property
    def directed_edges(self) -> tuple[Edge, ...]:
        """Pairs ``(cause, effect)``."""
        return tuple((self.variables[i], self.variables[j]) for i, j in np.argwhere(self.directed))

    @property
    def undirected_edges(self) -> tuple[Edge, ...]:
        """Pairs without a direction, each once."""
        both = np.triu(self.marks & self.marks.T)
        return tuple((self.variables[i], self.variables[j]) for i, j in np.argwhere(both))

    @property
    def is_acyclic(self) -> bool:
        """Whether its directed edges make no cycle."""
        directed = self.directed
        left = np.ones(len(directed), bool)
        while left.any():
            free = left & ~directed[left].any(0)
            if not free.any():
                return False
            left &= ~free
        return True

    def to_graph(self) -> CausalGraph:
        """Return the directed graph, where every edge has a direction.

        Raises:
            GraphError: Edges without a direction, or a cycle.
        """
        if self.undirected_edges:
            first, second = self.undirected_edges[0]
            raise GraphError(
                f"graph: {len(self.undirected_edges)} edges have no direction, {first} - {second} for one; more "
                "background knowledge or interventions would direct them"
            )
        return CausalGraph(self.directed_edges, self.variables)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, PartialGraph):
            return NotImplemented
        return self.variables == other.variables and np.array_equal(self.marks, other.marks)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        edges = [f"{a} -> {b}" for a, b in self.directed_edges] + [
            f"{a} - {b}" for a, b in self.undirected_edges
        ]
        return f"PartialGraph({', '.join(edges)})"


def structural_hamming_distance(first: PartialGraph, second: PartialGraph) -> int:
    """Return the pairs of variables whose edges differ: present, absent, directed either way, or undirected.

    Raises:
        GraphError: The variables differ.
    """
    if first.variables != second.variables:
        raise GraphError("graphs: expected the same variables in the same order")
    differ = first.marks != second.marks
    return int(np.triu(differ | differ.T).sum())


def unshielded_triples(skeleton: np.ndarray) -> Iterable[tuple[int, int, int]]:
    """Yield ``(i, j, k)`` with ``i < k``, where j has an edge with both and they have none with each other."""
    for j in range(len(skeleton)):
        for i, k in itertools.combinations(np.flatnonzero(skeleton[j]), 2):
            if not skeleton[i, k]:
                yield int(i), j, int(k)


def apply_meek_rules(marks: np.ndarray) -> None:
    """Direct, in place, what follows from the edges that have a direction (Meek 1995, rules 1 to 4).

    Directing stops where nothing more follows. No rule makes a new unshielded collider or closes a cycle, if there was
    none that contradicts.

    Args:
        marks: Bool ``[V, V]``, see `PartialGraph`.
    """
    changed = True
    while changed:
        changed = False
        for i, j in np.argwhere(marks & marks.T):
            if marks[i, j] and marks[j, i] and _follows(marks, i, j):
                marks[j, i] = False
                changed = True


def _follows(marks: np.ndarray, i: int, j: int) -> bool:
    """Return whether the undirected edge between i and j must be i -> j."""
    directed, undirected, skeleton = marks & ~marks.T, marks & marks.T, marks | marks.T
    if (directed[:, i] & ~skeleton[:, j]).any():  # 1: k -> i, k and j apart
        return True
    if (directed[i] & directed[:, j]).any():  # 2: i -> k -> j
        return True
    between = np.flatnonzero(undirected[i] & directed[:, j])
    if any(not skeleton[k, m] for k, m in itertools.combinations(between, 2)):  # 3: i - k -> j, i - m -> j
        return True
    # 4: i - k -> m -> j, with i and m joined, and k and j apart
    return any(
        not skeleton[k, j] and (directed[k] & directed[:, j] & skeleton[i]).any()
        for k in np.flatnonzero(undirected[i])
    )

"""Equivalence classes against their definition: what all graphs with the same separations have in common."""

import itertools

import numpy as np
import pytest

from qio_rllib.causal.graph import CausalGraph, GraphError
from qio_rllib.causal.partial_graph import PartialGraph, structural_hamming_distance

NAMES = "abcd"


def separations(graph):
    return frozenset(
        (i, j, given)
        for i, j in itertools.combinations(NAMES, 2)
        for size in range(3)
        for given in itertools.combinations([k for k in NAMES if k not in (i, j)], size)
        if graph.is_d_separated(i, j, given)
    )


def test_the_class_of_every_graph_of_four_variables_is_the_union_of_its_members():
    """543 directed acyclic graphs, 185 classes (OEIS A003024, A007984)."""
    pairs = list(itertools.combinations(range(4), 2))
    classes: dict[frozenset, list[CausalGraph]] = {}
    count = 0
    for kinds in itertools.product([0, 1, 2], repeat=len(pairs)):
        matrix = np.zeros((4, 4), int)
        for (i, j), kind in zip(pairs, kinds, strict=True):
            if kind:
                matrix[(i, j) if kind == 1 else (j, i)] = 1
        try:
            graph = CausalGraph.from_adjacency(matrix, NAMES)
        except GraphError:
            continue
        count += 1
        classes.setdefault(separations(graph), []).append(graph)
    assert (count, len(classes)) == (543, 185)
    for members in classes.values():
        union = np.logical_or.reduce([graph.adjacency for graph in members])
        for graph in members:
            assert PartialGraph.of(graph) == PartialGraph(union, NAMES)


def test_edges_have_a_kind_each():
    found = PartialGraph.of(CausalGraph([("a", "c"), ("b", "c"), ("d", "e")], "abcde"))
    assert found.directed_edges == (("a", "c"), ("b", "c"))
    assert found.undirected_edges == (("d", "e"),)
    assert repr(found) == "PartialGraph(a -> c, b -> c, d - e)"
    with pytest.raises(GraphError, match="1 edges have no direction, d - e for one"):
        found.to_graph()
    whole = PartialGraph.of(CausalGraph([("a", "c"), ("b", "c")], "abc"))
    assert whole.to_graph() == CausalGraph([("a", "c"), ("b", "c")], "abc")


def test_distance_counts_pairs_whose_edges_differ():
    one = PartialGraph.of(CausalGraph([("a", "c"), ("b", "c")], NAMES))
    other = PartialGraph.of(CausalGraph([("a", "c"), ("b", "d")], NAMES))
    # a -> c lost its direction, b -> c is gone, b - d is new
    assert structural_hamming_distance(one, other) == 3
    assert structural_hamming_distance(other, one) == 3
    assert structural_hamming_distance(one, one) == 0
    turned = one.marks.copy()
    turned[0, 2], turned[2, 0] = False, True
    assert structural_hamming_distance(one, PartialGraph(turned, NAMES)) == 1
    with pytest.raises(GraphError, match="the same variables"):
        structural_hamming_distance(one, PartialGraph(one.marks, "abce"))


def test_a_cycle_is_seen():
    marks = np.zeros((3, 3), bool)
    marks[[0, 1], [1, 2]] = True
    assert PartialGraph(marks, "abc").is_acyclic
    marks[2, 0] = True
    assert not PartialGraph(marks, "abc").is_acyclic
    with pytest.raises(GraphError, match="cycle"):
        PartialGraph(marks, "abc").to_graph()


def test_what_is_wrong_is_refused():
    with pytest.raises(GraphError, match="square matrix of 2 rows"):
        PartialGraph(np.zeros((3, 3)), "ab")
    with pytest.raises(GraphError, match="empty diagonal"):
        PartialGraph(np.eye(2), "ab")
    with pytest.raises(GraphError, match="u hidden"):
        PartialGraph.of(CausalGraph([("u", "a")], hidden=["u"]))

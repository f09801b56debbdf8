"""Causal graphs: relatives and d-separation against networkx, surgery, and what is refused."""

import itertools

import networkx
import numpy as np
import pytest
from random_graphs import random_graph

from qio_rllib.causal.graph import CausalGraph, GraphError

DIAMOND = CausalGraph([("a", "b"), ("a", "c"), ("b", "d"), ("c", "d"), ("d", "e")])


def test_relatives_are_those_of_networkx():
    rng = np.random.default_rng(0)
    for _ in range(40):
        graph = random_graph(rng, 8, 0.3)
        other = graph.to_networkx()
        for name in graph.variables:
            assert graph.parents(name) == set(other.predecessors(name))
            assert graph.children(name) == set(other.successors(name))
            assert graph.ancestors(name) == networkx.ancestors(other, name)
            assert graph.descendants(name) == networkx.descendants(other, name)
        assert CausalGraph.from_networkx(other) == graph
        place = {name: i for i, name in enumerate(graph.topological_order)}
        assert all(place[cause] < place[effect] for cause, effect in graph.edges)


def test_d_separation_is_that_of_networkx_and_an_open_path_shows_where_there_is_none():
    rng = np.random.default_rng(1)
    separated = 0
    for _ in range(1500):
        size = int(rng.integers(4, 12))
        graph = random_graph(rng, size, rng.uniform(0.1, 0.5))
        names = [graph.variables[i] for i in rng.permutation(size)]
        cuts = sorted(rng.integers(1, size, 2)) if rng.random() < 0.3 else [1, 2]
        first, second = set(names[: cuts[0]]), set(names[cuts[0] : max(cuts[1], cuts[0] + 1)])
        rest = names[max(cuts[1], cuts[0] + 1) :]
        given = {name for name in rest if rng.random() < 0.4}
        expected = networkx.is_d_separator(graph.to_networkx(), first, second, given)
        assert graph.is_d_separated(first, second, given) == expected
        assert (graph.d_connected(first, given) & second == set()) == expected
        path = graph.open_path(first, second, given)
        assert (path is None) == expected
        separated += expected
        if path is not None:
            assert path[0] in first
            assert path[-1] in second
            check_open(graph, path, given)
    assert 300 < separated < 1200


def check_open(graph, path, given):
    """Every inner variable of a path lets it through by the definition of d-separation."""
    for before, middle, after in zip(path, path[1:], path[2:], strict=False):
        if middle in graph.children(before) and middle in graph.children(after):
            assert ({middle} | graph.descendants(middle)) & given
        else:
            assert middle not in given


def test_a_collider_blocks_until_it_or_an_effect_of_it_is_given():
    assert DIAMOND.is_d_separated("b", "c", "a")
    assert not DIAMOND.is_d_separated("b", "c", ["a", "d"])
    assert not DIAMOND.is_d_separated("b", "c", ["a", "e"])
    path = DIAMOND.open_path("b", "c")
    assert DIAMOND.describe_path(path) == "b <- a -> c"
    assert DIAMOND.describe_path(DIAMOND.open_path("b", "c", ["a", "e"])) == "b -> d <- c"


def test_surgery_removes_the_edges_on_one_side():
    assert set(DIAMOND.without_causes_of("d").edges) == {("a", "b"), ("a", "c"), ("d", "e")}
    assert set(DIAMOND.without_effects_of(["a", "d"]).edges) == {("b", "d"), ("c", "d")}
    assert DIAMOND.without_causes_of("d").variables == DIAMOND.variables


def test_matrices_and_names_belong_together():
    graph = CausalGraph.from_adjacency(np.array([[0, 1], [0, 0]]), ["u", "v"], hidden=["u"])
    assert graph.edges == (("u", "v"),)
    assert graph.observed == ("v",)
    assert graph.adjacency.tolist() == [[False, True], [False, False]]
    assert graph != CausalGraph([("u", "v")])
    assert len({graph, CausalGraph([("u", "v")], hidden=["u"])}) == 1
    assert repr(graph) == "CausalGraph(u -> v, hidden=['u'])"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CausalGraph([("a", "b"), ("b", "c"), ("c", "a")]), "there is a cycle, a -> b -> c -> a"),
        (lambda: CausalGraph([("z", "a"), ("a", "b"), ("b", "a")]), "there is a cycle, "),
        (lambda: CausalGraph([("a", "a")]), "there is a cycle, a -> a"),
        (lambda: CausalGraph([("a", "b"), ("a", "b")]), "a -> b is given twice"),
        (lambda: CausalGraph([], ["a", "a"]), "a is given twice"),
        (lambda: CausalGraph([("a", "b")], hidden=["c"]), "hidden: there is no variable 'c'"),
        (lambda: CausalGraph.from_adjacency(np.zeros((2, 3))), "expected a square matrix"),
        (lambda: CausalGraph.from_adjacency(np.zeros((2, 2)), ["a"]), "1 names for a matrix of 2 rows"),
        (lambda: DIAMOND.parents("f"), "there is no variable 'f'"),
        (lambda: DIAMOND.is_d_separated("a", "b", ["b"]), "second and given: both hold b"),
        (lambda: DIAMOND.is_d_separated(["a", "b"], ["b", "c"]), "first and second: both hold b"),
        (lambda: DIAMOND.open_path("a", "b", "a"), "first and given: both hold a"),
    ],
)
def test_what_is_wrong_is_refused(make, message):
    with pytest.raises(GraphError) as error:
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_every_cycle_is_found():
    """Against networkx, over all graphs of three variables."""
    pairs = list(itertools.permutations("abc", 2))
    for chosen in itertools.product([False, True], repeat=len(pairs)):
        edges = [pair for pair, one in zip(pairs, chosen, strict=True) if one]
        other = networkx.DiGraph(edges)
        try:
            CausalGraph(edges, "abc")
        except GraphError as error:
            cycle = str(error).split("cycle, ")[1].split(" -> ")
            assert cycle[0] == cycle[-1]
            assert set(itertools.pairwise(cycle)) <= set(edges)
            assert not networkx.is_directed_acyclic_graph(other)
        else:
            assert networkx.is_directed_acyclic_graph(other)

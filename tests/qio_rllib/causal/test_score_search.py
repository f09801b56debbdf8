"""Scores against regressions, the search against all graphs, and what interventions add."""

import itertools

import numpy as np
import pytest
from random_graphs import random_graph

from qio_envs.api import ConfigError
from qio_rllib.causal.graph import CausalGraph, GraphError
from qio_rllib.causal.knowledge import Knowledge
from qio_rllib.causal.moments import DataError, Moments
from qio_rllib.causal.partial_graph import PartialGraph
from qio_rllib.causal.scm import StructuralModel
from qio_rllib.causal.score_search import GaussianBIC, Regime, order_search


def all_graphs(names):
    pairs = list(itertools.combinations(range(len(names)), 2))
    for kinds in itertools.product([0, 1, 2], repeat=len(pairs)):
        matrix = np.zeros((len(names),) * 2, int)
        for (i, j), kind in zip(pairs, kinds, strict=True):
            if kind:
                matrix[(i, j) if kind == 1 else (j, i)] = 1
        try:
            yield CausalGraph.from_adjacency(matrix, names)
        except GraphError:
            continue


def model_of(graph, rng):
    slopes = {
        name: {cause: rng.choice([-1, 1]) * rng.uniform(0.5, 1.5) for cause in sorted(graph.parents(name))}
        for name in graph.variables
    }
    return StructuralModel.linear(graph, slopes, dict.fromkeys(graph.variables, 1.0))


def test_a_score_is_that_of_regressions():
    rng = np.random.default_rng(0)
    graph = CausalGraph([("a", "c"), ("b", "c")], "abc")
    data = model_of(graph, rng).sample(80, rng)
    design = np.column_stack([np.ones(80), data["a"], data["b"]])
    left = data["c"] - design @ np.linalg.lstsq(design, data["c"], rcond=None)[0]
    expected = -40 * np.log(np.mean(left**2)) - 1.5 * np.log(80)
    expected += sum(-40 * np.log(np.var(data[name])) - 0.5 * np.log(80) for name in "ab")
    assert GaussianBIC([Moments.of(data)]).score(graph) == pytest.approx(expected)
    halved = GaussianBIC([Moments.of(data)], penalty=0.5)
    assert halved.score(graph) == pytest.approx(expected + 0.25 * 5 * np.log(80))


def test_the_search_mostly_finds_the_best_of_all_graphs():
    rng = np.random.default_rng(1)
    graphs = list(all_graphs("abcd"))
    short = []
    for _ in range(40):
        graph = random_graph(rng, 4, 0.6)
        data = model_of(graph, rng).sample(int(rng.choice([30, 300])), rng)
        score = GaussianBIC([Moments.of(np.stack(list(data.values()), axis=1), "abcd")])
        scores = [score.score(one) for one in graphs]
        short.append(max(scores) - score.score(order_search(score)))
        assert -1e-6 < short[-1] < 0.1 * (max(scores) - np.median(scores))
    assert np.mean(np.array(short) < 1e-6) >= 0.75


def test_with_many_samples_the_class_is_exact_but_for_what_data_itself_prefers():
    rng = np.random.default_rng(2)
    exact = 0
    for _ in range(20):
        graph = random_graph(rng, 8, 0.3)
        score = GaussianBIC([Moments.of(model_of(graph, rng).sample(20_000, rng))])
        found = order_search(score)
        assert score.score(found) > score.score(graph) - 1e-6
        exact += PartialGraph.of(found) == PartialGraph.of(graph)
    assert exact >= 17


def test_interventions_direct_what_observations_leave_open():
    rng = np.random.default_rng(3)
    graph = CausalGraph([("c", "b"), ("b", "a"), ("a", "d")], "abcd")
    model = model_of(graph, rng)
    assert len(PartialGraph.of(graph).undirected_edges) == 3
    assert PartialGraph.of(graph, [["b"]]).directed_edges == (("a", "d"), ("b", "a"), ("c", "b"))
    assert PartialGraph.of(graph, [["d"]]).undirected_edges == (("a", "b"), ("b", "c"))
    seen = Moments.of(model.sample(500, rng))
    done = Moments.of(model.sample(500, rng, {"b": rng.normal(0, 1, 500)}))
    score = GaussianBIC([seen, Regime(done, frozenset("b"))])
    assert order_search(score) == graph
    # data under an intervention that passes for observations misleads: c and b are independent there
    assert GaussianBIC([seen, Regime(done, frozenset("b"))]).score(graph) > GaussianBIC([seen, done]).score(
        graph
    )


def test_knowledge_holds():
    rng = np.random.default_rng(4)
    graph = CausalGraph([("a", "b"), ("b", "c")], "abc")
    score = GaussianBIC([Moments.of(model_of(graph, rng).sample(500, rng))])
    assert order_search(score, Knowledge(tiers=["c", "b", "a"])).edges == (("b", "a"), ("c", "b"))
    assert ("a", "c") in order_search(score, Knowledge(required=[("a", "c")])).edges
    assert ("a", "b") not in order_search(score, Knowledge(forbidden=[("a", "b"), ("b", "a")])).edges
    assert max(len(order_search(score, max_causes=1).parents(name)) for name in "abc") == 1
    assert order_search(score, max_causes=0).edges == ()


DATA = Moments.of(np.random.default_rng(5).standard_normal((20, 2)), "ab")


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: GaussianBIC([]), DataError, "at least one"),
        (lambda: order_search(GaussianBIC([DATA]), starts=0), ConfigError, "starts: expected at least 1"),
        (lambda: GaussianBIC([DATA], penalty=0), ConfigError, "penalty: expected a number above 0"),
        (lambda: GaussianBIC([Regime(DATA, frozenset("a"))]), DataError, "a: was set in all data"),
        (lambda: GaussianBIC([Moments.of(np.ones((9, 2)), "ab")]), DataError, "a: constant"),
        (lambda: GaussianBIC([DATA, Moments.of(np.ones((9, 2)))]), DataError, "the same variables"),
        (
            lambda: order_search(GaussianBIC([DATA]), Knowledge(required=[("a", "b"), ("b", "a")])),
            GraphError,
            "b -> a is forbidden",
        ),
    ],
)
def test_what_is_wrong_is_refused(make, error, message):
    with pytest.raises(error) as found:
        make()
    assert message in str(found.value)

"""The PC algorithm: exact with a perfect test, equal skeletons to causal-learn's, background knowledge."""

import math

import numpy as np
import pytest
from random_graphs import random_graph

from qio_envs.api import ConfigError
from qio_rllib.causal.graph import CausalGraph, GraphError
from qio_rllib.causal.independence import FisherZ
from qio_rllib.causal.knowledge import Knowledge
from qio_rllib.causal.moments import Moments
from qio_rllib.causal.partial_graph import PartialGraph
from qio_rllib.causal.pc import pc
from qio_rllib.causal.scm import StructuralModel


class Separation:
    """A test that knows the graph."""

    def __init__(self, graph):
        self.graph, self.variables = graph, graph.variables

    def log_p_values(self, tests):
        names = np.array(self.variables)
        separated = [self.graph.is_d_separated(i, j, list(given)) for i, j, *given in names[tests]]
        return np.where(separated, math.log(0.5), math.log(1e-9))


def test_with_a_perfect_test_the_class_is_exact():
    rng = np.random.default_rng(0)
    for _ in range(60):
        graph = random_graph(rng, int(rng.integers(3, 9)), rng.uniform(0.1, 0.6))
        found = pc(Separation(graph))
        assert found.graph == PartialGraph.of(graph)
        for (i, j), given in found.separating.items():
            assert graph.is_d_separated(i, j, given)


def linear_data(graph, rng, count):
    slopes = {
        name: {cause: rng.choice([-1, 1]) * rng.uniform(0.5, 1.5) for cause in sorted(graph.parents(name))}
        for name in graph.variables
    }
    columns = StructuralModel.linear(graph, slopes, dict.fromkeys(graph.variables, 1.0)).sample(count, rng)
    return np.stack([columns[name] for name in graph.variables], axis=1)


def test_skeletons_are_those_of_causal_learn():
    search = pytest.importorskip("causallearn.search.ConstraintBased.PC")
    rng = np.random.default_rng(1)
    for _ in range(8):
        graph = random_graph(rng, 8, 0.3)
        rows = linear_data(graph, rng, 1000)
        theirs = search.pc(rows, 0.05, "fisherz", show_progress=False).G.graph
        found = pc(FisherZ(Moments.of(rows)), 0.05).graph
        np.testing.assert_array_equal(found.skeleton, (theirs != 0) | (theirs.T != 0))


def test_the_order_of_the_variables_does_not_matter():
    rng = np.random.default_rng(2)
    graph = random_graph(rng, 9, 0.35)
    rows = linear_data(graph, rng, 300)
    found = pc(FisherZ(Moments.of(rows, graph.variables))).graph
    order = rng.permutation(9)
    other = pc(FisherZ(Moments.of(rows[:, order], [graph.variables[i] for i in order]))).graph
    np.testing.assert_array_equal(other.marks, found.marks[np.ix_(order, order)])


CHAIN = CausalGraph([("a0", "x2"), ("x1", "x2"), ("x1", "x3"), ("x2", "x3")], ["a0", "a1", "x1", "x2", "x3"])


def chain(count, seed):
    rng = np.random.default_rng(seed)
    model = StructuralModel.linear(
        CHAIN,
        {"x2": {"x1": 0.7, "a0": 0.5}, "x3": {"x2": 0.8, "x1": 0.3}},
        {
            "a0": lambda generator, n: generator.uniform(-1, 1, n),
            "a1": lambda generator, n: generator.uniform(-1, 1, n),
            "x1": 0.5,
            "x2": 0.3,
            "x3": 0.4,
        },
    )
    return Moments.of(model.sample(count, rng))


def test_states_alone_leave_the_chain_undirected_and_actions_as_variables_direct_it():
    moments = chain(1000, 0)
    places = [moments.index(name) for name in ("x1", "x2", "x3")]
    alone = Moments(
        ("x1", "x2", "x3"), moments.count, moments.sums[places], moments.products[np.ix_(places, places)]
    )
    assert len(pc(FisherZ(alone), 0.01).graph.undirected_edges) == 3
    knowledge = Knowledge(tiers=[["a0", "a1"], ["x1", "x2", "x3"]], separate=[0])
    exact = [
        set(pc(FisherZ(chain(1000, seed)), 0.01, knowledge).graph.directed_edges) == set(CHAIN.edges)
        for seed in range(20)
    ]
    assert sum(exact) >= 19


def test_knowledge_directs_and_forbids():
    test = Separation(CausalGraph([("a", "b"), ("b", "c")], "abc"))
    assert pc(test).graph.undirected_edges == (("a", "b"), ("b", "c"))
    tiers = Knowledge(tiers=[["a"], ["b"], ["c"]])
    assert pc(test, knowledge=tiers).graph.directed_edges == (("a", "b"), ("b", "c"))
    one = Knowledge(required=[("b", "a")])
    assert set(pc(test, knowledge=one).graph.directed_edges) == {("b", "a")}
    follows = Knowledge(required=[("a", "b")])
    assert set(pc(test, knowledge=follows).graph.directed_edges) == {("a", "b"), ("b", "c")}
    never = Knowledge(forbidden=[("a", "b"), ("b", "a")])
    assert ("a", "b") not in pc(test, knowledge=never).graph.undirected_edges
    assert pc(test, knowledge=never).graph.directed_edges == ()


def test_fewer_given_variables_keep_more_edges():
    graph = CausalGraph([("a", "b"), ("b", "c")], "abc")
    assert pc(Separation(graph), max_given=0).graph.skeleton.sum() == 6
    assert pc(Separation(graph), max_given=1).graph.skeleton.sum() == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"alpha": 0.0}, "alpha: expected a number in (0, 1), got 0.0"),
        ({"alpha": 1.0}, "alpha: expected a number in (0, 1), got 1.0"),
        ({"max_given": -1}, "max_given: expected at least 0"),
        ({"knowledge": Knowledge(tiers=[["a"], ["a"]])}, "a is in two of them"),
        ({"knowledge": Knowledge(tiers=[["d"]])}, "there is no variable 'd'"),
        ({"knowledge": Knowledge(required=[("a", "b")], forbidden=[("a", "b")])}, "a -> b is forbidden"),
        ({"knowledge": Knowledge(tiers=[["a"], ["b"]], required=[("b", "a")])}, "b -> a is forbidden"),
        ({"knowledge": Knowledge(required=[("a", "b"), ("b", "a")])}, "b -> a is forbidden"),
    ],
)
def test_what_is_wrong_is_refused(arguments, message):
    with pytest.raises((ConfigError, GraphError)) as error:
        pc(Separation(CausalGraph([("a", "b")], "abc")), **arguments)
    assert message in str(error.value)

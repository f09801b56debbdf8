"""Identification: what is found gives the true effect in every linear model of the graph, what is refused says why."""

import numpy as np
import pytest
from random_graphs import random_graph

from qio_envs.api import ConfigError
from qio_rllib.causal.estimation import _linear_formula
from qio_rllib.causal.graph import CausalGraph
from qio_rllib.causal.identification import (
    BackDoor,
    FrontDoor,
    Instrument,
    NotIdentified,
    back_door_set,
    check_adjustment,
    front_door_sets,
    identify,
    instruments,
)

CONFOUNDED = [("s", "a"), ("u", "a"), ("z", "a"), ("a", "m"), ("s", "y"), ("m", "y"), ("u", "y")]


def linear_system(graph, rng):
    """Return the covariance of a random linear model, and all total effects ``[cause, effect]``."""
    weights = np.zeros((len(graph.variables),) * 2)
    for cause, effect in graph.edges:
        weights[graph.variables.index(cause), graph.variables.index(effect)] = rng.uniform(
            0.4, 1.2
        ) * rng.choice([-1, 1])
    total = np.linalg.inv(np.eye(len(weights)) - weights)
    return total.T @ np.diag(rng.uniform(0.5, 2.0, len(weights))) @ total, total


def by_population(graph, covariance, how):
    columns, formula = _linear_formula(how)
    places = [graph.variables.index(name) for name in columns]
    products = np.zeros((1, len(places) + 1, len(places) + 1))
    products[0, 0, 0] = 1.0
    products[0, 1:, 1:] = covariance[np.ix_(places, places)]
    return formula(products)[0]


def test_every_way_that_is_found_gives_the_true_effect():
    rng = np.random.default_rng(0)
    ways = {BackDoor: 0, FrontDoor: 0, Instrument: 0}
    refused = 0
    for _ in range(800):
        graph = random_graph(rng, 7, rng.uniform(0.2, 0.5), hidden=2)
        covariance, total = linear_system(graph, rng)
        treatment, outcome = (str(name) for name in rng.permutation(graph.observed)[:2])
        truth = total[graph.variables.index(treatment), graph.variables.index(outcome)]
        try:
            found = [identify(graph, treatment, outcome)]
        except NotIdentified:
            refused += 1
            continue
        found += [FrontDoor(treatment, outcome, some) for some in front_door_sets(graph, treatment, outcome)]
        found += list(instruments(graph, treatment, outcome))[:5]
        for how in found:
            ways[type(how)] += 1
            assert by_population(graph, covariance, how) == pytest.approx(truth, abs=1e-8), (graph, how)
    assert all(count > 25 for count in ways.values()), ways
    assert refused > 20


def test_what_is_refused_has_no_adjustment_at_all():
    """By trying every set of observed variables that the treatment does not cause."""
    rng = np.random.default_rng(1)
    for _ in range(150):
        graph = random_graph(rng, 6, 0.4, hidden=2)
        treatment, outcome = (str(name) for name in rng.permutation(graph.observed)[:2])
        others = [
            name
            for name in graph.observed
            if name not in (treatment, outcome) and name not in graph.descendants(treatment)
        ]
        cut = graph.without_effects_of(treatment)
        works = [
            {name for place, name in enumerate(others) if code >> place & 1}
            for code in range(2 ** len(others))
            if cut.is_d_separated(
                treatment, outcome, [name for place, name in enumerate(others) if code >> place & 1]
            )
        ]
        found = back_door_set(graph, treatment, outcome)
        assert (found is None) == (not works)
        if found is not None:
            assert set(found) in works
            assert not any(smaller < set(found) for smaller in works)


def test_the_order_of_the_ways():
    assert str(identify(CausalGraph(CONFOUNDED), "a", "y")) == "back-door, adjusting for s, u"
    hidden = CausalGraph(CONFOUNDED, hidden=["u"])
    assert str(identify(hidden, "a", "y")) == "front-door, through m"
    assert str(identify(CausalGraph(CONFOUNDED, hidden=["u", "m"]), "a", "y")) == "instrument z"
    assert str(identify(CausalGraph([("a", "y")]), "a", "y")) == "back-door, adjusting for nothing"
    needs = CausalGraph(
        [("s", "z"), ("s", "y"), ("z", "a"), ("u", "a"), ("u", "y"), ("a", "y")], hidden=["u"]
    )
    assert str(identify(needs, "a", "y")) == "instrument z, given s"
    assert not list(instruments(CausalGraph([("z", "a"), ("y", "a")]), "a", "y"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: identify(CausalGraph([("u", "a"), ("u", "y"), ("a", "y")], hidden=["u"]), "a", "y"),
            "the effect of a on y is not identified: the path a <- u -> y stays open (u is hidden)",
        ),
        (lambda: identify(CausalGraph([("a", "y")]), "a", "a"), "both are a"),
        (lambda: identify(CausalGraph([("a", "y")]), "a", "b"), "there is no variable 'b'"),
        (lambda: identify(CausalGraph([("a", "y")], hidden=["a"]), "a", "y"), "treatment: a is hidden"),
        (
            lambda: check_adjustment(CausalGraph(CONFOUNDED), "a", "y", ["s"]),
            "the path a <- u -> y stays open",
        ),
        (lambda: check_adjustment(CausalGraph(CONFOUNDED), "a", "y", ["m"]), "m is an effect of a"),
        (lambda: check_adjustment(CausalGraph(CONFOUNDED), "a", "y", ["s", "y"]), "y is the outcome"),
        (lambda: check_adjustment(CausalGraph(CONFOUNDED), "a", "y", ["a"]), "a is the treatment"),
        (lambda: check_adjustment(CausalGraph(CONFOUNDED), "a", "y", ["w"]), "there is no variable 'w'"),
        (
            lambda: check_adjustment(CausalGraph(CONFOUNDED, hidden=["u"]), "a", "y", ["s", "u"]),
            "u is hidden",
        ),
    ],
)
def test_what_is_wrong_is_refused(make, message):
    with pytest.raises(ConfigError) as error:
        make()
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_chosen_adjustment_is_taken_where_it_blocks():
    assert check_adjustment(CausalGraph(CONFOUNDED), "a", "y", ["u", "s", "z"]).adjustment == ("u", "s", "z")


def test_what_is_identified_without_linearity_is_so_by_the_id_algorithm():
    """causalrl's is sound and complete; ours need not find all that is identifiable."""
    causalrl = pytest.importorskip("causalrl")
    rng, ways = np.random.default_rng(0), {BackDoor: 0, FrontDoor: 0, Instrument: 0, None: 0}
    while sum(ways.values()) < 200:
        graph = random_graph(rng, 9, 0.35, hidden=3)
        treatment, outcome = rng.choice(graph.observed, 2, replace=False).tolist()
        if outcome not in graph.descendants(treatment):
            continue
        try:
            way = type(identify(graph, treatment, outcome))
        except NotIdentified:
            way = None
        ways[way] += 1
        whole = causalrl.CausalGraph(list(graph.edges), nodes=list(graph.variables))
        theirs = causalrl.is_identifiable(whole.latent_projection(graph.observed), treatment, outcome)
        assert theirs or way in (Instrument, None)
    assert ways[BackDoor] > 50
    assert ways[None] > 10

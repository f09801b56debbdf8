"""Structural models: samples, interventions and counterfactuals with known answers."""

import numpy as np
import pytest

from qio_envs.api import ConfigError
from qio_rllib.causal.graph import CausalGraph, GraphError
from qio_rllib.causal.moments import DataError
from qio_rllib.causal.scm import StructuralModel

GRAPH = CausalGraph([("a", "x2"), ("x1", "x2"), ("x1", "x3"), ("x2", "x3")], ["a", "x1", "x2", "x3"])
SLOPES = {"x2": {"x1": 0.7, "a": 0.5}, "x3": {"x2": 0.8, "x1": 0.3}}
NOISE = {"a": lambda rng, count: rng.uniform(-1, 1, count), "x1": 0.5, "x2": 0.3, "x3": 0.4}
CHAIN = StructuralModel.linear(GRAPH, SLOPES, NOISE, {"x3": 2.0})


def test_slopes_seen_and_slopes_under_do():
    """X3 on X2: 0.978 as seen, 0.8 after an intervention."""
    seen = CHAIN.sample(200_000, np.random.default_rng(0))
    cov = np.cov(seen["x2"], seen["x3"])
    assert cov[0, 1] / cov[0, 0] == pytest.approx(
        0.8 + 0.3 * 0.7 * 0.25 / (0.49 * 0.25 + 0.25 / 3 + 0.09), abs=0.01
    )
    done = CHAIN.sample(200_000, np.random.default_rng(1), {"x2": np.linspace(-1, 1, 200_000)})
    cov = np.cov(done["x2"], done["x3"])
    assert cov[0, 1] / cov[0, 0] == pytest.approx(0.8, abs=0.01)
    assert np.mean(done["x3"]) == pytest.approx(2.0, abs=0.01)


def test_counterfactuals_of_the_chain_are_the_closed_form():
    seen = CHAIN.sample(100, np.random.default_rng(2))
    other = np.random.default_rng(3).uniform(-1, 1, 100)
    found = CHAIN.counterfactual(seen, {"a": other})
    np.testing.assert_allclose(found["x3"], seen["x3"] + 0.4 * (other - seen["a"]), atol=1e-12)
    np.testing.assert_array_equal(found["x1"], seen["x1"])
    same = CHAIN.counterfactual(seen, {"x1": seen["x1"]})
    for name in GRAPH.variables:
        np.testing.assert_allclose(same[name], seen[name], atol=1e-12)


def test_noises_are_found_again_where_equations_are_not_linear():
    graph = CausalGraph([("a", "b"), ("a", "c"), ("b", "c")], "abc")
    model = StructuralModel(
        graph,
        {"b": lambda x: np.sin(x[:, 0]), "c": lambda x: x[:, 0] * x[:, 1] ** 2},
        {"a": 1.0, "b": 0.1, "c": 0.2},
    )
    noise = model.draw_noise(50, np.random.default_rng(0))
    seen = model.predict(noise)
    np.testing.assert_allclose(seen["c"], seen["a"] * seen["b"] ** 2 + noise["c"])
    found = model.abduct(seen)
    for name in graph.variables:
        np.testing.assert_allclose(found[name], noise[name], atol=1e-12)
    after = model.counterfactual(seen, {"b": 2.0})
    np.testing.assert_allclose(after["c"], 4 * seen["a"] + noise["c"])


def test_a_fitted_model_has_the_true_slopes():
    seen = CHAIN.sample(50_000, np.random.default_rng(4))
    model = StructuralModel.fitted(GRAPH, seen)
    causes = np.eye(2)
    np.testing.assert_allclose(
        model.equations["x2"](causes) - model.equations["x2"](np.zeros((1, 2))), [0.5, 0.7], atol=0.02
    )
    np.testing.assert_allclose(model.equations["x3"](np.zeros((1, 2))), 2.0, atol=0.02)
    assert [model.noise[name] for name in ("x1", "x2", "x3")] == pytest.approx([0.5, 0.3, 0.4], abs=0.01)
    rows = np.stack(list(seen.values()), axis=1)
    again = StructuralModel.fitted(GRAPH, rows, list(seen))
    assert again.noise == model.noise


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: StructuralModel.linear(CausalGraph([("u", "a")], hidden=["u"]), {}, {}),
            GraphError,
            "u hidden",
        ),
        (lambda: StructuralModel(GRAPH, {}, NOISE), ConfigError, "x2 has causes and no equation"),
        (lambda: StructuralModel.linear(GRAPH, SLOPES, {"a": 1.0}), ConfigError, "x1 has none"),
        (
            lambda: StructuralModel.linear(GRAPH, {"x1": {"x3": 1.0}}, NOISE),
            GraphError,
            "x3 is no cause of x1",
        ),
        (lambda: StructuralModel.linear(GRAPH, SLOPES, {**NOISE, "q": 1.0}), GraphError, "no variable 'q'"),
        (lambda: CHAIN.sample(3, np.random.default_rng(0), {"q": 1.0}), GraphError, "no variable 'q'"),
        (lambda: CHAIN.abduct({"a": np.zeros(3)}), DataError, "there is no column 'x1'"),
        (lambda: StructuralModel.fitted(GRAPH, {"a": np.zeros(9)}), DataError, "there is no column 'x1'"),
        (
            lambda: StructuralModel.fitted(GRAPH, dict.fromkeys(GRAPH.variables, np.arange(9.0))),
            DataError,
            "x2: its causes a, x1 are collinear",
        ),
        (
            lambda: StructuralModel.fitted(GRAPH, dict.fromkeys(GRAPH.variables, np.arange(3.0))),
            DataError,
            "samples: 3; x2 with 2 causes needs 4",
        ),
    ],
)
def test_what_is_wrong_is_refused(make, error, message):
    with pytest.raises(error) as found:
        make()
    assert message in str(found.value)

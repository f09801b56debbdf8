"""Counterfactual baselines: the condition, closed forms on the causal chain, and what a wrong graph does."""

import numpy as np
import pytest

import qio_envs
from qio_envs import causal_chain_v0, qubit_control_v0
from qio_envs.api import ConfigError, StepGraph
from qio_rllib.causal.baseline import (
    BaselineError,
    CounterfactualBaselineSettings,
    check_environment,
    check_held,
    environment_baseline,
    gaussian_gradients,
    gaussian_nodes,
    model_baseline,
)
from qio_rllib.causal.graph import CausalGraph, GraphError
from qio_rllib.causal.scm import StructuralModel

EDGES = [("x1", "x2"), ("a0", "x2"), ("x2", "x3"), ("x1", "x3")]
NOISE = {"x1": 0.5, "x2": 0.3, "x3": 0.4}
SIGMA = 0.3


def chain(edges=EDGES):
    """Return the causal chain with the policy N(0, SIGMA^2), of the edges that are left."""
    slopes = {"x2": {"x1": 0.7, "a0": 0.5}, "x3": {"x2": 0.8, "x1": 0.3}}
    kept = {
        name: {cause: slope for cause, slope in causes.items() if (cause, name) in edges}
        for name, causes in slopes.items()
    }
    return StructuralModel.linear(CausalGraph(edges, ["a0", "x1", "x2", "x3"]), kept, {**NOISE, "a0": SIGMA})


def gradients(data, baseline):
    return gaussian_gradients(data["a0"], data["x3"], baseline, 0.0, SIGMA)


def test_held_variables_that_depend_on_the_action_are_refused_with_the_path():
    graph = CausalGraph([*EDGES, ("x3", "reward")])
    check_held(graph, "a0", ["x1"])
    with pytest.raises(BaselineError, match=r"x3 depends on the action \(a0 -> x2 -> x3\)"):
        check_held(graph, "a0", ["x1", "x3"])
    with pytest.raises(BaselineError, match=r"a0 depends on the action \(a0\)"):
        check_held(graph, "a0", ["a0"])
    with pytest.raises(BaselineError, match=r"y depends on the action \(b -> y\)"):
        check_held(CausalGraph([*EDGES, ("b", "y"), ("x3", "y")]), ["a0", "b"], ["y"])  # the shortest path
    with pytest.raises(GraphError, match="no variable 'y'"):
        check_held(graph, "a0", ["y"])


@pytest.mark.parametrize("env_id", sorted(qio_envs.environments()))
def test_every_environment_of_the_suite_fulfils_the_condition(env_id):
    check_environment(qio_envs.environment(env_id).batched_env(1))


def test_environments_without_exact_counterfactuals_or_with_a_wrong_state_are_refused(monkeypatch):
    with pytest.raises(ConfigError, match="qubit_control_v0 has no exact counterfactuals .*gate"):
        check_environment(qubit_control_v0.batched_env(1, gate_noise=0.1))
    env = causal_chain_v0.batched_env(1)
    edges = (("a", "s"), ("s", "s'"), ("s'", "reward"))  # what should be of before the step comes out of it
    monkeypatch.setattr(env, "graph", lambda: StepGraph(("s", "a", "s'", "reward"), (), edges))
    with pytest.raises(BaselineError, match=r"s depends on the action \(a -> s\)"):
        check_environment(env)


def test_nodes_integrate_polynomials_of_a_normal_policy():
    nodes, weights = gaussian_nodes(0.4, 0.7, 3)
    for power, moment in enumerate([1, 0.4, 0.4**2 + 0.49, 0.4**3 + 3 * 0.4 * 0.49]):
        assert weights @ nodes**power == pytest.approx(moment)


def test_the_models_baseline_is_the_closed_form_and_takes_the_noise_out():
    """Mean 0.4; variance 0.32 + 0.2176 / sigma^2 with a perfect value baseline, 0.32 with this one."""
    model, count = chain(), 200_000
    data = model.sample(count, np.random.default_rng(0))
    baseline = model_baseline(model, data, "a0", "x3", *gaussian_nodes(0.0, SIGMA, 3))
    np.testing.assert_allclose(baseline, data["x3"] - 0.4 * data["a0"], atol=1e-12)
    ours, value = gradients(data, baseline), gradients(data, 0.86 * data["x1"])
    for found, variance in ((ours, 0.32), (value, 0.32 + 0.2176 / SIGMA**2)):
        assert np.mean(found) == pytest.approx(0.4, abs=4 * np.sqrt(variance / count))
        assert np.var(found) == pytest.approx(variance, rel=0.03)


def test_holding_a_descendant_of_the_action_loses_the_gradient():
    """The negative control: a graph in which x2 is exogenous holds it fixed, and no action seems to matter."""
    model = chain()
    data = model.sample(10_000, np.random.default_rng(1))
    nodes = gaussian_nodes(0.0, SIGMA, 3)
    with pytest.raises(BaselineError, match="x2 depends on the action"):
        model_baseline(model, data, "a0", "x3", *nodes, held=["x2"])
    held = model_baseline(model, data, "a0", "x3", *nodes, held=["x1"])
    np.testing.assert_allclose(held, model_baseline(model, data, "a0", "x3", *nodes))
    wrong = chain([edge for edge in EDGES if edge[1] != "x2"])
    assert np.mean(gradients(data, model_baseline(wrong, data, "a0", "x3", *nodes))) == pytest.approx(0)
    assert np.mean(gradients(data, held)) == pytest.approx(0.4, abs=0.03)


def test_the_environments_baseline_is_the_models():
    env = causal_chain_v0.batched_env(500)
    env.reset(seeds=3)
    nodes, weights = gaussian_nodes(0.0, SIGMA, 4)
    actions = np.zeros((4, 500, 1, 2), np.float32)
    actions[..., 0] = nodes[:, None, None]
    baseline = environment_baseline(env, actions, weights)
    taken = np.random.default_rng(0).normal(0, SIGMA, (500, 1, 2)).astype(np.float32)
    rewards = env.step(taken).rewards
    np.testing.assert_allclose(rewards - baseline, 0.4 * np.clip(taken[..., 0], -1, 1), atol=1e-6)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sample": 3}, "counterfactual_baseline: unknown key 'sample' (did you mean 'samples'?)"),
        ({"samples": 0}, "counterfactual_baseline.samples: expected an integer of at least 1, got 0"),
        ({"samples": True}, "counterfactual_baseline.samples: expected an integer of at least 1, got True"),
        ({"average_later": 1}, "counterfactual_baseline.average_later: expected true or false, got 1"),
    ],
)
def test_bad_settings_are_refused(given, message):
    with pytest.raises(ConfigError) as caught:
        CounterfactualBaselineSettings.of(given)
    assert str(caught.value).startswith(message)

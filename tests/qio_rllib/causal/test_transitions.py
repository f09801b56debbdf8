"""Graphs of one step from transitions with known causes."""

import numpy as np
import pytest
from scipy import stats

from qio_envs.api import ConfigError
from qio_rllib.causal.graph import CausalGraph
from qio_rllib.causal.moments import DataError
from qio_rllib.causal.transitions import transition_graph

INPUTS, TARGETS = ("s0", "s1", "s2", "a"), ("s0'", "s1'")
TRUTH = np.array([[1, 1, 1, 0], [0, 0, 1, 1]], bool)


def transitions(count, seed):
    """s0' needs the product of s1 and s2; s1' only s2 and the action."""
    rng = np.random.default_rng(seed)
    x = rng.uniform(-1, 1, (count, 4))
    y = np.stack([x[:, 0] + x[:, 1] * x[:, 2], 0.5 * x[:, 2] - x[:, 3]], axis=1)
    return x, y + 0.1 * rng.standard_normal(y.shape)


def test_products_are_causes_too():
    found = transition_graph(*transitions(100, 0), INPUTS, TARGETS)
    np.testing.assert_array_equal(found.mask, TRUTH)
    assert found.to_graph() == CausalGraph(
        [("s0", "s0'"), ("s1", "s0'"), ("s2", "s0'"), ("s2", "s1'"), ("a", "s1'")], (*INPUTS, *TARGETS)
    )
    linear = [transition_graph(*transitions(100, seed), degree=1) for seed in range(20)]
    assert sum(bool(one.mask[0, 1]) for one in linear) <= 3  # a product has no linear part
    assert all(one.mask[0, 0] for one in linear)
    linear = linear[0]
    assert linear.inputs == ("x0", "x1", "x2", "x3")
    assert linear.targets == ("y0", "y1")


def test_false_causes_are_as_rare_as_the_level_says():
    p_values = np.concatenate(
        [transition_graph(*transitions(60, seed)).p_values[~TRUTH] for seed in range(300)]
    )
    assert stats.kstest(p_values, "uniform").pvalue > 0.01


def test_p_values_are_those_of_nested_regressions():
    x, y = transitions(40, 1)
    found = transition_graph(x, y, degree=1)
    full = np.column_stack([np.ones(40), x])
    reduced = np.delete(full, 2, axis=1)
    left, more = (
        ((y[:, 0] - d @ np.linalg.lstsq(d, y[:, 0], rcond=None)[0]) ** 2).sum() for d in (full, reduced)
    )
    assert found.p_values[0, 1] == pytest.approx(stats.f.sf((more - left) / (left / 35), 1, 35))


def with_input(values):
    x, y = transitions(80, 2)
    x[:, 3] = values(x)
    return x, y


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: transition_graph(*with_input(lambda x: 1.0), INPUTS), DataError, "a: constant"),
        (lambda: transition_graph(*with_input(lambda x: x[:, 0] - x[:, 1])), DataError, "are collinear"),
        (lambda: transition_graph(*with_input(lambda x: np.inf), INPUTS), DataError, "a: holds numbers"),
        (
            lambda: transition_graph(*transitions(16, 0)),
            DataError,
            "makes 15 features, which need at least 17",
        ),
        (
            lambda: transition_graph(np.zeros((4, 2)), np.zeros((5, 1))),
            DataError,
            "4 rows of inputs, 5 of targets",
        ),
        (
            lambda: transition_graph(*transitions(80, 0), alpha=0),
            ConfigError,
            "alpha: expected a number in (0, 1)",
        ),
        (
            lambda: transition_graph(*transitions(80, 0), degree=4),
            ConfigError,
            "degree: expected 1, 2 or 3, got 4",
        ),
        (
            lambda: transition_graph(transitions(80, 0)[0], np.ones((80, 1)), target_names=["r"]),
            DataError,
            "r: constant",
        ),
    ],
)
def test_what_is_wrong_is_refused(make, error, message):
    with pytest.raises(error) as found:
        make()
    assert message in str(found.value)

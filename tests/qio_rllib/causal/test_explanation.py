"""Ancestors of a decision, distances of decisions, and what is said of them."""

import numpy as np
import pytest

from qio_envs import causal_chain_v0, confounded_control_v0, drift_control_v0, greedy_casino_v0
from qio_envs.api import ConfigError, StepGraph
from qio_rllib.causal.explanation import Explanation, Influence, decision_ancestors, decision_shifts

DRIFT_ACTIONS = ("a0", "a1")


def ancestors(env, actions, lags, has_memory=False):
    return decision_ancestors(env.batched_env(1).graph(), actions, lags, has_memory)


def test_an_ancestor_is_what_reaches_the_decision_through_world_and_policy():
    """s0' <- s0, s1, a0; s1' <- s0, s1, s2, a1; s2' <- s2, a0, a1; s1 and s2 are not observed."""
    graph = drift_control_v0.batched_env(1, "hidden").graph()
    found = decision_ancestors(graph, DRIFT_ACTIONS, 3, has_memory=False)
    assert {("s0", 0), ("s3", 0), ("s0'", 0)} <= found
    assert not {("s1", 0), ("s2", 0), ("a0", 0)} & found
    assert {("s1", 1), ("a0", 1)} <= found
    assert not {("s2", 1), ("a1", 1)} & found  # they move s1 first, which is seen in s0 a step later
    assert {("s2", 2), ("a1", 2)} <= found
    assert ("s2'", 1) not in found
    assert ("s2'", 2) in found
    assert max(lag for _, lag in found) == 3


def test_memory_makes_earlier_observations_and_actions_causes():
    blind = ancestors(greedy_casino_v0, ("machine",), 2)
    assert {(name, lag) for name, lag in blind if not name.endswith("'")} == {("intent", 0)}
    remembers = ancestors(greedy_casino_v0, ("machine",), 2, has_memory=True)
    assert {("intent", 1), ("intent", 2), ("machine", 1), ("machine", 2)} <= remembers
    # set between two steps, what formed the intention leaves it as it is
    assert not {("drunk", 0), ("drunk", 1), ("drunk", 2)} & remembers
    assert ("drunk'", 1) in remembers


def test_what_a_step_makes_reaches_what_follows_within_the_step():
    found = ancestors(causal_chain_v0, ("a0", "a1"), 2)
    assert {("x2'", 0), ("x3'", 0), ("x1", 1), ("a0", 1)} <= found
    assert not {(name, lag) for name, lag in found if name == "a1"}
    assert ("u", 0) not in ancestors(confounded_control_v0, ("a",), 1)
    assert ("u", 1) in ancestors(confounded_control_v0, ("a",), 1)


def test_ancestors_need_lags_of_at_least_none():
    graph = StepGraph(("s", "a", "s'", "reward"), (), (("s", "s'"), ("a", "s'")))
    assert decision_ancestors(graph, ("a",), 0, True) == {("s", 0), ("s'", 0)}
    with pytest.raises(ConfigError, match="lags: expected at least 0, got -1"):
        decision_ancestors(graph, ("a",), -1, False)


def test_distances_of_decisions():
    others = np.array([[0.5, 0.5, 0.0], [0.0, 0.0, 1.0], [0.5, 0.25, 0.25]])
    found = decision_shifts(np.array([0.5, 0.25, 0.25]), others, discrete=True)
    np.testing.assert_allclose(found, [0.25, 0.75, 0.0])
    means = np.array([[3.0, 4.0], [0.0, 1e-8], [0.0, 0.0]])
    assert decision_shifts(np.zeros(2), means, discrete=False).tolist() == [5.0, 0.0, 0.0]


def test_an_influence_is_the_mean_over_the_draws_that_are_left():
    others = np.array([[0.3, -0.4], [0.0, 0.0], [9.0, 9.0], [0.0, 1.0]])
    present = np.array([True, True, False, True])
    one = Influence.of("s", "state", 2, 0.5, np.zeros(2), others, present, chosen=None)
    assert one.shift == pytest.approx(0.5)
    assert one.standard_error == pytest.approx(0.5 / np.sqrt(3))
    assert (one.largest, one.draws, one.ended) == (1.0, 3, 1)
    assert one.changes == pytest.approx((0.1, 1.4 / 3))
    chosen = Influence.of(
        "s", "state", 0, 0.5, np.array([0.6, 0.4]), np.array([[0.1, 0.9], [0.8, 0.2]]), present[:2], 1
    )
    assert chosen.changes == pytest.approx((0.15, 0.5))  # of the action taken; another is more probable once
    assert chosen.shift == pytest.approx(0.35)
    nothing = Influence.of("s", "state", 0, 0.5, np.zeros(2), others, np.zeros(4, bool), chosen=None)
    assert np.isnan(nothing.shift)
    assert (nothing.draws, nothing.ended, len(nothing.changes)) == (0, 4, 2)


def influence(name, lag, shift, is_ancestor=True, kind="state"):
    if not is_ancestor:
        return Influence.none(name, kind, lag, 0.25, 1)
    return Influence(name, kind, lag, True, 0.25, shift, 0.01, shift, 8, 0, (shift,))


def explanation(*influences):
    return Explanation(
        "e_v0", "agent_0", 3, 40, "greedy", 2, {"a": 0.31}, (0.31,), False, tuple(influences), ("a note",)
    )


def test_influences_are_ordered_and_said_in_words():
    found = explanation(
        influence("s0", 1, 0.6),
        influence("s1", 0, 0.4),
        influence("s0", 0, 0.5),
        influence("s2", 0, 0.0, is_ancestor=False),
        influence("s3", 1, float("nan")),
        influence("s4", 2, 0.01),
    )
    assert [(one.variable, one.lag) for one in found.ordered] == [
        ("s0", 1), ("s0", 0), ("s1", 0), ("s4", 2), ("s2", 0), ("s3", 1),
    ]  # fmt: skip
    assert [(one.variable, one.lag) for one in found.strongest] == [("s0", 1), ("s1", 0), ("s4", 2)]
    sentence = found.sentence()
    assert sentence.startswith(
        "agent_0 a = 0.31 at step 40: mainly because of s0 = 0.25 one step before (0.6, 59%) and s1 = 0.25 in the same "
        "step (0.4, 40%). "
    )
    assert "s4" not in sentence  # 1%
    assert "effects do not add up" in sentence
    rows = found.rows()
    assert [row["shift"] for row in rows] == [0.6, 0.5, 0.4, 0.01, 0.0, ""]
    assert rows[4]["ancestor"] == 0
    assert rows[0]["change_a"] == 0.6
    assert found.as_dict()["influences"][-1]["shift"] is None


def test_a_decision_that_nothing_moves_is_said_to_be_so():
    found = explanation(influence("s0", 1, 0.0), influence("s1", 0, 0.0, is_ancestor=False))
    assert found.sentence() == "agent_0 a = 0.31 at step 40: no variable that was tried moves this decision."

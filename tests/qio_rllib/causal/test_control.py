"""Controllers from logs: against known dynamics, against the oracle in the environment, and what is refused."""

import numpy as np
import pytest

from qio_envs import causal_chain_v0, confounded_control_v0, swarm_cooperative_v0
from qio_envs.api import ConfigError
from qio_envs.api.scores import episode_scores
from qio_envs.confounded_control import LQRPolicy, NaiveLQRPolicy, logged, logged_graph, lqr_gain
from qio_rllib.acting.linear import linear_policy
from qio_rllib.artifacts.policy_file import load_policy, save_policy
from qio_rllib.causal.control import (
    ControllerPolicy,
    ControlTask,
    observation_gain,
    offline_controller,
    regulator_gain,
)
from qio_rllib.causal.estimation import WeakInstrument
from qio_rllib.causal.graph import CausalGraph, GraphError
from qio_rllib.causal.identification import NotIdentified
from qio_rllib.causal.moments import DataError
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.evaluation import play_episodes

TASK = ControlTask.of(["s"], ["a"], ["s_next"], [1.0], [0.1])
LOG = logged(2000, seed=3)
EDGES = logged_graph().edges

TWO = ControlTask.of(["x", "v"], ["a", "b"], ["x_next", "v_next"], [1.0, 0.1], [0.1, 0.5])
DYNAMICS, EFFECTS = np.array([[1.0, 0.1], [-0.2, 0.9]]), np.array([[0.0, 0.0], [0.5, 0.3]])
TWO_EDGES = [
    *(("p", "x"), ("p", "v"), ("v", "a"), ("z", "a"), ("u", "a"), ("u", "v_next")),
    *(("x", "x_next"), ("v", "x_next"), ("x", "v_next"), ("v", "v_next"), ("a", "v_next"), ("b", "v_next")),
]


def two_states(count, seed):
    """A mass on a spring: p moves both states together, u, unrecorded, the action a and what it acts on."""
    rng = np.random.default_rng(seed)
    p, u, z, b, *noise = rng.standard_normal((9, count))
    x, v = p + 0.5 * noise[0], p + 0.5 * noise[1]
    a = -0.5 * v + z - u + 0.1 * noise[2]
    following = DYNAMICS @ [x, v] + EFFECTS @ [a, b]
    return {
        **{"x": x, "v": v, "a": a, "b": b, "z": z},
        "x_next": following[0] + 0.1 * noise[3],
        "v_next": following[1] + u + 0.1 * noise[4],
    }


def riccati(dynamics, effects, state_costs, action_costs):
    """Return the gain by value iteration."""
    value = np.diag(state_costs)
    for _ in range(2000):
        pull = effects.T @ value
        gain = np.linalg.solve(np.diag(action_costs) + pull @ effects, pull @ dynamics)
        value = np.diag(state_costs) + dynamics.T @ value @ (dynamics - effects @ gain)
    return gain


def test_the_gain_solves_the_riccati_equation():
    found = regulator_gain(DYNAMICS, EFFECTS, TWO.state_costs, TWO.action_costs)
    np.testing.assert_allclose(
        found, riccati(DYNAMICS, EFFECTS, TWO.state_costs, TWO.action_costs), rtol=1e-8
    )
    for effect in (0.5, -0.21, 2.0):
        found = regulator_gain(np.eye(1), np.array([[effect]]), [1.0], [0.1])
        assert found.item() == pytest.approx(lqr_gain(effect), rel=1e-9)


def test_dynamics_of_several_states_are_found_beside_a_hidden_cause():
    data = two_states(20_000, 0)
    graph = CausalGraph(TWO_EDGES, hidden=["u", "p"])
    found = offline_controller(data, graph, TWO, resamples=100)
    np.testing.assert_allclose(found.action_effects, EFFECTS, atol=0.03)
    np.testing.assert_allclose(found.dynamics, DYNAMICS, atol=0.04)
    np.testing.assert_array_equal(found.action_effects[0], 0)  # by the graph, not by estimation
    assert str(found.effects[0].how) == "instrument z"
    expected = riccati(DYNAMICS, EFFECTS, TWO.state_costs, TWO.action_costs)
    np.testing.assert_allclose(found.gain, expected, atol=0.05)
    naive = offline_controller(
        data, CausalGraph([edge for edge in TWO_EDGES if "u" not in edge], hidden=["p"]), TWO, resamples=100
    )
    assert naive.action_effects[1, 0] < 0.1
    assert abs(naive.dynamics[1, 1] - 0.9) > 0.1
    states = np.array([[1.0, 2.0], [0.0, -1.0]])
    np.testing.assert_allclose(found.act(states), [-found.gain @ row for row in states])


@pytest.mark.parametrize(
    ("unrecorded", "how"),
    [
        ((), "back-door, adjusting for s, u"),
        (("u",), "front-door, through m"),
        (("u", "m"), "instrument z"),
    ],
)
def test_a_confounded_log_makes_a_controller_as_good_as_the_oracle(unrecorded, how):
    data = {name: column for name, column in LOG.items() if name not in unrecorded}
    found = offline_controller(data, CausalGraph(EDGES), TASK, level=0.999)
    (effect,) = found.effects
    assert how in str(effect.how)
    assert effect.low < 0.5 < effect.high
    (own,) = found.state_effects
    assert own.low < 1.0 < own.high
    env = confounded_control_v0.batched_env(200)
    best = episode_scores(env, LQRPolicy, 7).mean()
    assert (
        episode_scores(env, lambda env: ControllerPolicy(env, found), 7).mean() > 1.05 * best
    )  # both are below 0
    assert found.notes() == []
    assert found.describe() == f"a = -{found.gain.item():.4g} s"


def test_the_naive_controller_drives_the_state_away():
    naive = CausalGraph([edge for edge in EDGES if "u" not in edge])
    found = offline_controller(LOG, naive, TASK, dynamics=[[1.0]], resamples=200)
    assert found.effects[0].high < 0
    assert found.state_effects == ()
    env = confounded_control_v0.batched_env(100)
    score = episode_scores(env, lambda env: ControllerPolicy(env, found), 7).mean()
    assert score == pytest.approx(episode_scores(env, NaiveLQRPolicy, 7).mean(), rel=0.02)
    assert score < -4000


def test_the_same_seed_gives_the_same_intervals():
    one, same, other = (
        offline_controller(LOG, CausalGraph(EDGES), TASK, resamples=100, seed=seed).effects[0]
        for seed in (0, 0, 1)
    )
    assert (one.low, one.high) == (same.low, same.high) != (other.low, other.high)


def test_an_effect_whose_sign_is_open_is_noted():
    rng = np.random.default_rng(0)
    s, a = rng.standard_normal((2, 100))
    data = {"s": s, "a": a, "s_next": 0.5 * s + rng.standard_normal(100)}
    graph = CausalGraph([("s", "s_next"), ("a", "s_next")])
    found = offline_controller(data, graph, ControlTask.of(["s"], ["a"], ["s_next"]))
    assert found.notes() == ["the interval of the effect of a on s_next holds 0: its sign is unknown"]


def test_a_controller_is_a_policy_file_that_plays_the_same(tmp_path):
    found = offline_controller(LOG, CausalGraph(EDGES), TASK, resamples=100)
    env = confounded_control_v0.batched_env(5)
    expected = episode_scores(env, lambda env: ControllerPolicy(env, found), 7)
    path = save_policy(linear_policy(observation_gain(env, found), env, {}), tmp_path / "c.pt")
    for explore in (False, True):
        rows = play_episodes(load_policy(path).team, BatchedVectorEnv(env), range(7, 12), explore)
        assert [row["team_return"] for row in rows] == pytest.approx(expected.tolist(), rel=1e-5)


def controller(data=LOG, edges=EDGES, task=TASK, **options):
    return offline_controller(data, CausalGraph(edges), task, resamples=100, **options)


def without(*names):
    return {name: column for name, column in LOG.items() if name not in names}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: controller(without("u", "m", "z")), NotIdentified, "the path a <- u -> s_next stays open"),
        (
            lambda: controller({**without("u", "m"), "z": np.random.default_rng(0).standard_normal(2000)}),
            WeakInstrument,
            "z: a weak instrument for a, first-stage F",
        ),
        (lambda: controller(without("s_next")), DataError, "there is no column 's_next'"),
        (lambda: controller(edges=[("a", "s_next")]), GraphError, "there is no variable 's'"),
        (lambda: controller(edges=[*EDGES, ("s_next", "s")]), GraphError, "cycle"),
        (lambda: controller(edges=[("a", "s"), ("s", "s_next")]), GraphError, "actions: a causes s"),
        (
            lambda: controller(edges=[("s", "s_next"), ("s", "a")], dynamics=np.eye(1)),
            DataError,
            "the Riccati equation has no stable solution",
        ),
        (
            lambda: controller(dynamics=np.eye(2)),
            ConfigError,
            "dynamics: expected numbers of the shape (1, 1)",
        ),
        (
            lambda: controller({**LOG, "a": np.full(2000, np.nan)}),
            DataError,
            "a: holds numbers that are not finite",
        ),
        (lambda: controller({**LOG, "a": np.zeros(2000)}), DataError, "a: constant"),
        (lambda: ControlTask.of([], ["a"], []), ConfigError, "states: expected at least one column"),
        (lambda: ControlTask.of(["s"], ["s"], ["t"]), ConfigError, "s stands there twice"),
        (lambda: ControlTask.of(["s"], ["a"], []), ConfigError, "next_states: expected 1, as many as states"),
        (lambda: ControlTask.of(["s"], ["a"], ["t"], [1, 2]), ConfigError, "state_costs: expected 1"),
        (
            lambda: ControlTask.of(["s"], ["a"], ["t"], [1], [0.0]),
            ConfigError,
            "action_costs: expected numbers above 0",
        ),
        (
            lambda: ControlTask.of(["s"], ["a"], ["t"], [-1.0]),
            ConfigError,
            "state_costs: expected numbers of at least 0",
        ),
    ],
)
def test_what_is_wrong_is_refused(make, error, message):
    with pytest.raises(error) as found:
        make()
    assert message in str(found.value)


@pytest.mark.parametrize(
    ("env", "message"),
    [
        (causal_chain_v0, "actions: causal_chain_v0 takes Box"),
        (swarm_cooperative_v0, "a controller acts for one"),
    ],
)
def test_environments_that_do_not_fit_are_refused(env, message):
    with pytest.raises(ConfigError) as found:
        ControllerPolicy(env.batched_env(1), controller())
    assert message in str(found.value)

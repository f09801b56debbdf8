"""What is known of the causal environments on paper: effects, counterfactuals, logged data, interventions."""

import numpy as np
import pytest
from causal_oracles import CasinoOracle, ChainOracle, ControlOracle

from qio_envs import (
    causal_chain,
    causal_chain_v0,
    confounded_control,
    confounded_control_v0,
    greedy_casino_v0,
)
from qio_envs import greedy_casino as casino
from qio_envs.api import InterventionError, episode_scores

LOGS = {
    "chain": (causal_chain.logged, causal_chain.round_graph()),
    "casino": (casino.logged, casino.logged_graph("intuition")),
    "control": (confounded_control.logged, confounded_control.logged_graph()),
}


def slopes(target, *inputs):
    """Return the coefficients of a linear regression with an intercept."""
    design = np.stack([*inputs, np.ones_like(target)], axis=1)
    return np.linalg.lstsq(design, target, rcond=None)[0][:-1]


# -- the chain


def test_effects_and_counterfactuals_of_the_chain_equal_the_closed_form():
    env = causal_chain_v0.batched_env(500)
    env.reset(3)
    generator = np.random.default_rng(0)
    for _ in range(3):
        actions = generator.uniform(-1.2, 1.2, (3, 500, 1, 2)).astype(np.float32)
        actions[2] = actions[0]
        actions[2, ..., 1] = 0.9  # without effect
        result = env.counterfactual(actions)
        x3 = result.rewards[..., 0]
        np.testing.assert_allclose(
            x3[1], causal_chain.counterfactual_x3(x3[0], actions[0, :, 0], actions[1, :, 0]), atol=2e-6
        )
        np.testing.assert_array_equal(x3[2], x3[0])
        np.testing.assert_array_equal(result.observations[2], result.observations[0])
        assert (x3[1] != x3[0]).mean() > 0.95
        env.step(actions[0])


def test_the_counterfactual_baseline_has_the_variance_of_the_closed_form():
    env, count, spread = causal_chain_v0.batched_env(60_000), 60_000, 0.3
    env.reset(5)
    x1 = env.arrays.values[:, 0].astype(float)
    actions = np.zeros((1, count, 1, 2), np.float32)
    noise = np.clip(np.random.default_rng(0).standard_normal(count), -3.3, 3.3)  # within the action space
    actions[0, :, 0, 0] = spread * noise
    other = np.zeros_like(actions)  # the equations are linear: the mean over a' is that of the mean action
    x3, baseline = env.counterfactual(np.concatenate([actions, other])).rewards[..., 0].astype(float)
    score = noise / spread
    value = score * (x3 - 0.86 * x1)
    exact = score * (x3 - baseline)
    assert value.mean() == pytest.approx(0.4, abs=4 * value.std() / np.sqrt(count))
    assert exact.mean() == pytest.approx(0.4, abs=4 * exact.std() / np.sqrt(count))
    assert value.var() == pytest.approx(0.32 + 0.2176 / spread**2, rel=0.05)
    assert exact.var() == pytest.approx(0.32, rel=0.05)


def test_interventions_on_the_chain_replace_the_equations_once():
    env = causal_chain_v0.batched_env(1)
    env.reset([9])
    oracle = ChainOracle(env.config, 9)
    action = np.array([[[0.4, -0.3]]], np.float32)
    for mask, values, do in [
        ([False, True, False], [0, 1.5, 0], {"x2": 1.5}),
        ([False, False, False], [0, 0, 0], {}),
        ([True, False, True], [-1, 0, 2.5], {"x3": 2.5}),
        ([True, False, False], [2, 0, 0], {}),
    ]:
        env.intervene(np.array([mask]), np.array([values]))
        oracle.x1 = values[0] if mask[0] else oracle.x1
        env.step(action)
        oracle.step([0.4, -0.3], **do)
        np.testing.assert_allclose(env.observe()[0, 0], oracle.observe(), atol=2e-6)


def test_slopes_of_the_chain_seen_and_under_do():
    seen = causal_chain.logged(20_000, 1)
    assert slopes(seen["x3"], seen["x2"])[0] == pytest.approx(0.977, abs=0.03)
    np.testing.assert_allclose(slopes(seen["x3"], seen["a0"], seen["a1"]), [0.4, 0], atol=0.03)
    np.testing.assert_allclose(slopes(seen["x2"], seen["x1"], seen["a0"]), [0.7, 0.5], atol=0.02)
    np.testing.assert_array_equal(seen["reward"], seen["x3"])
    x2 = np.random.default_rng(0).uniform(-2, 2, 20_000)
    done = causal_chain.logged(20_000, 1, do={"x2": x2})
    np.testing.assert_array_equal(done["x2"], x2.astype(np.float32))
    assert slopes(done["x3"], done["x2"])[0] == pytest.approx(0.8, abs=0.015)
    for name in ("x1", "a0", "a1"):  # no descendants of x2
        np.testing.assert_array_equal(done[name], seen[name])
    all_set = causal_chain.logged(15, 2, do={"x1": 0.5, "a0": -1.0, "a1": np.linspace(-1, 1, 15), "x3": 2})
    assert set(all_set["x1"]) == {0.5}
    assert set(all_set["a0"]) == {-1.0}
    np.testing.assert_allclose(all_set["a1"], np.linspace(-1, 1, 15), atol=1e-7)
    assert set(all_set["x3"]) == {2.0}


@pytest.mark.parametrize(
    ("do", "message"),
    [
        ({"noise": 1}, "do: unknown variable 'noise'; allowed: x1, x2, x3, a0, a1"),
        ({"x2": [1, 2]}, "do: expected one number or 5 for x2, got int64 of shape (2,)"),
        ({"x2": "1"}, "do: expected one number or 5 for x2, got <U1 of shape ()"),
        ({"a0": 1.5}, "an intervention outside the space: a0: expected numbers from -1 to 1"),
        ({"a1": np.nan}, "an intervention outside the space: a1: expected numbers from -1 to 1"),
    ],
)
def test_interventions_in_a_log_that_do_not_fit_are_refused(do, message):
    with pytest.raises(InterventionError) as caught:
        causal_chain.logged(5, do=do)
    assert str(caught.value) == message
    with pytest.raises(InterventionError, match="an intervention outside the space: x2' in env 0: expected"):
        causal_chain.logged(5, do={"x2": np.inf})


# -- the casino


def test_payouts_by_machine_and_hidden_variables():
    log = casino.logged(100_000, 3, policy="random")
    names = ("machine", "drunk", "blinking")
    cells = np.zeros((2, 2, 2, 2))
    np.add.at(cells, tuple(log[name].astype(int) for name in (*names, "reward")), 1)
    total = cells.sum(axis=3)
    rate, expected = cells[..., 1] / total, casino.PAYOUTS
    assert (np.abs(rate - expected) < 4.5 * np.sqrt(expected * (1 - expected) / total)).all()
    np.testing.assert_array_equal(log["intent"], log["drunk"] != log["blinking"])
    assert np.abs(np.corrcoef(np.stack([log[name] for name in names]))[np.triu_indices(3, 1)]).max() < 0.015


def test_seeing_doing_and_knowing_the_intention_differ():
    seen, done = casino.logged(40_000, 4), casino.logged(40_000, 4, policy="random")
    np.testing.assert_array_equal(seen["machine"], seen["intent"])
    for machine in (0, 1):
        assert seen["reward"][seen["machine"] == machine].mean() == pytest.approx(casino.INTUITION, abs=0.01)
        assert done["reward"][done["machine"] == machine].mean() == pytest.approx(casino.DO, abs=0.015)
    against = done["machine"] != done["intent"]
    assert done["reward"][against].mean() == pytest.approx(casino.COUNTERFACTUAL, abs=0.015)
    assert casino.PAYOUTS[:, [0, 1], [0, 1]].mean() == pytest.approx(0.3)


def test_expected_payouts_of_policies_that_are_known():
    same, against = np.eye(2), 1 - np.eye(2)
    assert casino.expected_payout(same) == pytest.approx(casino.INTUITION)
    assert casino.expected_payout(against) == pytest.approx(casino.COUNTERFACTUAL)
    for first in (0.0, 0.3, 1.0):
        assert casino.expected_payout(np.array([[first, 1 - first]] * 2)) == pytest.approx(casino.DO)
    mixed = np.array([[0.2, 0.8], [0.9, 0.1]])  # follows in 0.15 of the rounds
    assert casino.expected_payout(mixed) == pytest.approx(0.45 - 0.3 * 0.15)
    for wrong in (np.ones(2), np.ones((2, 2)), np.array([[1.5, -0.5], [0, 1]]), np.full((2, 2), np.nan)):
        with pytest.raises(ValueError, match="expected a probability of each machine"):
            casino.expected_payout(wrong)


def test_each_machine_has_a_random_number_of_its_own():
    env = greedy_casino_v0.batched_env(2000)
    env.reset(0)
    both = env.counterfactual(np.broadcast_to(np.arange(2)[:, None, None], (2, 2000, 1))).rewards[..., 0]
    chances = casino.PAYOUTS[:, env.arrays.causes[:, 0], env.arrays.causes[:, 1]]
    residual = both - chances
    assert abs(np.corrcoef(residual)[0, 1]) < 4 / np.sqrt(2000)
    for index in range(20):
        oracle = CasinoOracle(env.config, index)
        assert oracle.step(1)[0] == both[1, index]


def test_an_intention_is_not_formed_again():
    env = greedy_casino_v0.batched_env(1)
    env.reset(0)
    intent = int(env.arrays.intent[0])
    for drunk in (0, 1):
        env.intervene(np.array([[True, False, False]]), np.array([[drunk, 0, 0]]))
        assert (env.arrays.causes[0, 0], env.arrays.intent[0]) == (drunk, intent)
    env.intervene(np.array([[False, False, True]]), np.array([[0, 0, 1 - intent]]))
    assert env.observe()[0, 0].tolist() == [intent, 1 - intent]
    with pytest.raises(InterventionError) as caught:
        env.intervene(np.array([[True, False, False]]), np.array([[0.5, 0, 0]]))
    assert str(caught.value) == (
        "an intervention outside the space: drunk in env 0: expected an integer from 0 to 1, got 0.5"
    )
    assert env.arrays.causes[0, 0] == 1


def test_the_graph_of_the_casino_follows_the_settings():
    assert set(greedy_casino_v0.batched_env().graph().hidden) == {"drunk", "blinking", "drunk'", "blinking'"}
    hidden = greedy_casino_v0.batched_env(1, "no_intent").graph().hidden
    assert {"intent", "intent'"} < set(hidden)
    assert ("intent", "machine") in casino.logged_graph("intuition").edges
    assert ("intent", "machine") not in casino.logged_graph("random").edges


# -- confounded control


def test_the_effect_by_four_estimators():
    log = confounded_control.logged(50_000, 1)
    s, a, m, z, u, after = (log[name] for name in ("s", "a", "m", "z", "u", "s_next"))
    naive = confounded_control.naive_effect(confounded_control.ConfoundedControlConfig())
    assert naive == pytest.approx(-0.2142857, abs=1e-6)
    assert slopes(after, a, s)[0] == pytest.approx(naive, abs=0.02)
    assert slopes(after, a, s, u)[0] == pytest.approx(0.5, abs=0.02)  # back-door
    assert slopes(m, a, s)[0] * slopes(after, m, a, s)[0] == pytest.approx(0.5, abs=0.03)  # front-door
    assert slopes(after, z, s)[0] / slopes(a, z, s)[0] == pytest.approx(0.5, abs=0.05)  # instrument
    done = confounded_control.logged(50_000, 1, policy="random")
    np.testing.assert_allclose(slopes(done["s_next"], done["a"], done["s"])[0], 0.5, atol=0.02)
    free = confounded_control_v0.config("unconfounded")
    log = confounded_control.logged(20_000, 1, config=free)
    assert confounded_control.naive_effect(free) == 0.5
    assert slopes(log["s_next"], log["a"], log["s"])[0] == pytest.approx(0.5, abs=0.02)


def test_gains_are_those_of_the_riccati_recursion():
    for effect in (0.5, -0.2, 3.0):
        value = 1.0
        for _ in range(2000):
            gain = effect * value / (0.1 + effect**2 * value)
            value = 1 + 0.1 * gain**2 + (1 - effect * gain) ** 2 * value
        assert confounded_control.lqr_gain(effect) == pytest.approx(gain)
    assert confounded_control.lqr_gain(0.0) == 0
    assert confounded_control.lqr_gain(0.5, action_cost=0.0) == pytest.approx(2)
    env = confounded_control_v0.batched_env(2000)
    scores = [
        episode_scores(env, lambda env, k=k: confounded_control.LQRPolicy(env, k)).mean()
        for k in (0.3, 0.5, 1.2)
    ]
    assert scores[1] == max(scores)


def test_interventions_on_control_reach_their_effects():
    env = confounded_control_v0.batched_env(1)
    env.reset([4])
    oracle = ControlOracle(env.config, 4)
    for mask, values in [
        ([True, False, False], [3, 0, 0]),
        ([False, True, False], [0, -1.5, 0]),
        ([False, False, True], [0, 0, 1.25]),
        ([True, True, True], [-9.5, -3, -2]),
        ([False, False, False], [0, 0, 0]),
    ]:
        env.intervene(np.array([mask]), np.array([values]))
        oracle.s, oracle.u = values[0] if mask[0] else oracle.s, values[2] if mask[2] else oracle.u
        rewards = env.step(np.array([[[0.7]]], np.float32)).rewards
        reward, _ = oracle.step([0.7], m=values[1] if mask[1] else None)
        np.testing.assert_allclose(rewards[0, 0], reward, rtol=1e-5)
        np.testing.assert_allclose(env.state()[0], oracle.state(), atol=2e-5)


def test_the_log_is_what_the_behaviour_did():
    log, config = confounded_control.logged(120, 8), confounded_control.ConfoundedControlConfig()
    row = 0
    for episode in range(3):
        oracle = ControlOracle(config, 8, episode)
        for _ in range(50 if episode < 2 else 20):
            s, u, (z, a) = oracle.s, oracle.u, oracle.behaviour()
            reward, _ = oracle.step([a])
            expected = {"s": s, "a": a, "m": oracle.m, "z": z, "u": u, "s_next": oracle.s, "reward": reward}
            assert list(log) == list(expected)
            for name, value in expected.items():
                assert log[name][row] == pytest.approx(value, abs=1e-4), (name, row)
            row += 1


# -- logs


@pytest.mark.parametrize("name", LOGS)
def test_logs_are_columns_of_their_graph_and_begin_alike(name):
    logged, graph = LOGS[name]
    short, long, other = logged(7, 3), logged(123, 3), logged(7, 4)
    assert set(graph.variables) == set(long)
    assert {cause for edge in graph.edges for cause in edge} <= set(long)
    assert set(graph.hidden) < set(long)
    for column in long:
        assert (long[column].dtype, long[column].shape) == (np.float64, (123,))
        assert long[column].flags.owndata
        np.testing.assert_array_equal(long[column][:7], short[column])
        np.testing.assert_array_equal(logged(123, 3)[column], long[column])
    assert any((short[column] != other[column]).any() for column in short)
    for bad in (0, -3, 2.5, True):
        with pytest.raises(ValueError, match="num_steps: expected an integer of at least 1, got"):
            logged(bad)
    with pytest.raises(ValueError, match="seeds: expected integers from 0 to"):
        logged(5, -1)


def test_unknown_policies_of_logs_are_refused():
    with pytest.raises(ValueError, match="policy: expected intuition or random, got 'x'"):
        casino.logged(5, policy="x")
    with pytest.raises(ValueError, match="policy: expected one of behaviour, random, got 'x'"):
        confounded_control.logged(5, policy="x")


def test_logs_are_the_episodes_of_one_environment():
    env = causal_chain_v0.batched_env()
    env.reset([6])
    player, seen = env.scripted_policies["random"](env), []
    for _ in range(25):
        if not env.running[0]:
            env.reset()
        seen.append(env.step(player.act()).rewards[0, 0])
    np.testing.assert_array_equal(causal_chain.logged(25, 6)["x3"], seen)

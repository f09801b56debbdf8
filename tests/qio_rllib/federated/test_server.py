"""Rounds of a federation without an algorithm: who takes part, what is combined, what is kept, what is refused."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from toy_servers import SIZE, played, server_of, updates_of

from qio_rllib.federated import aggregation
from qio_rllib.federated.rounds import Update
from qio_rllib.federated.secure.messages import Step
from qio_rllib.federated.server_optimizers import ServerOptimizerSettings
from qio_rllib.federated.settings import (
    AggregationSettings,
    AttackSettings,
    CompressionSettings,
    DropoutSettings,
    ParticipationSettings,
)

# -- what a round makes of updates ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, lambda table, steps: table.mean(0)),
        ({"weights": "env_steps"}, lambda table, steps: np.average(table, axis=0, weights=steps)),
        ({"rule": "median"}, lambda table, steps: np.median(table, axis=0)),
        ({"rule": "trimmed_mean", "trim": 0.2}, lambda table, steps: aggregation.trimmed_mean(table, 0.2)),
        ({"rule": "geometric_median"}, lambda table, steps: aggregation.geometric_median(table)),
        ({"rule": "multi_krum", "byzantine": 0.2}, lambda table, steps: aggregation.multi_krum(table, 1)),
        (
            {"rule": "distance_filter", "byzantine": 0.3},
            lambda table, steps: aggregation.distance_filter(table, 0.3)[0],
        ),
    ],
)
def test_weights_move_by_the_aggregated_update(settings, expected):
    first = np.full(SIZE, 2.0, np.float32)
    server = server_of(weights=first, aggregation=AggregationSettings(**settings))
    plan = server.plan()
    given_updates = updates_of(plan.trains)
    report = server.finish(plan, given_updates)
    table = np.stack([update.vector for update in given_updates.values()])
    steps = [update.env_steps for update in given_updates.values()]
    change = expected(table, steps)
    np.testing.assert_allclose(server.weights, first + change, atol=1e-6)
    assert report.contributors == tuple(range(6))
    assert report.update_norm == pytest.approx(np.linalg.norm(change), rel=1e-5)
    assert (report.bytes_up, report.bytes_down) == (6 * 4 * SIZE, 6 * 4 * SIZE)
    assert server.number == 1


def test_a_share_of_malicious_clients_is_a_whole_number_of_them_where_it_comes_to_one():
    first = np.zeros(SIZE, np.float32)
    settings = AggregationSettings(rule="multi_krum", byzantine=8 / 49)  # 8 / 49 * 49 < 8 in floating point
    server = server_of(weights=first, num_clients=49, aggregation=settings)
    given_updates = updates_of(range(49))
    server.finish(server.plan(), given_updates)
    table = np.stack([update.vector for update in given_updates.values()])
    np.testing.assert_allclose(server.weights, aggregation.multi_krum(table, 8), atol=1e-6)
    assert not np.allclose(server.weights, aggregation.multi_krum(table, 7), atol=1e-6)


def test_the_server_optimizer_moves_the_weights():
    server = server_of(server=ServerOptimizerSettings.of({"lr": 0.5, "momentum": 0.5}))
    plain = server_of()
    changes = []
    for _ in range(2):
        before = plain.weights
        played(plain)
        changes.append(plain.weights - before)
    played(server, 2)
    expected = 0.5 * changes[0] + 0.5 * (0.5 * changes[0] + changes[1])
    np.testing.assert_allclose(server.weights, expected, atol=1e-6)


def test_updates_that_did_not_arrive_are_left_out():
    server = server_of()
    plan = server.plan()
    given_updates = updates_of([0, 2])
    report = server.finish(plan, given_updates)
    assert report.contributors == (0, 2)
    np.testing.assert_allclose(
        server.weights, (given_updates[0].vector + given_updates[2].vector) / 2, atol=1e-6
    )


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (Update(np.full(SIZE, np.nan, np.float32), 10), "expected 40 finite numbers"),
        (Update(np.zeros(SIZE - 1, np.float32), 10), "expected 40 finite numbers"),
        (Update(np.full(SIZE, 1e3, np.float32), 10), "longer than 10.0"),
        (Update(np.zeros(SIZE, np.float32), 0), "expected 1 to 1000 environment steps, it says 0"),
        (Update(np.zeros(SIZE, np.float32), 1001), "expected 1 to 1000 environment steps, it says 1001"),
    ],
)
def test_a_bad_client_is_left_out_and_the_round_goes_on(bad, reason):
    server = server_of(aggregation=AggregationSettings(max_norm=10.0))
    plan = server.plan()
    given_updates = updates_of(plan.trains)
    report = server.finish(plan, {**given_updates, 3: bad})
    assert report.refused == {3: reason}
    assert report.contributors == (0, 1, 2, 4, 5)
    others = [given_updates[client].vector for client in report.contributors]
    np.testing.assert_allclose(server.weights, np.mean(others, axis=0), atol=1e-6)


def test_a_round_without_updates_changes_nothing():
    server = server_of(weights=np.ones(SIZE, np.float32))
    report = server.finish(server.plan(), {})
    assert report.failure == "no client is left"
    assert report.contributors == ()
    assert (server.num_failed, server.number) == (1, 1)
    np.testing.assert_array_equal(server.weights, 1.0)


# -- who takes part ---------------------------------------------------------------------------------------------------


def test_everybody_takes_part_by_default():
    assert server_of().plan().cohort == tuple(range(6))


def test_so_many_clients_are_drawn_and_all_have_their_turn():
    server = server_of(num_clients=20, participation=ParticipationSettings(clients=4))
    counts = np.zeros(20)
    for _ in range(400):
        cohort = server.plan().cohort
        assert len(cohort) == len({*cohort}) == 4
        assert list(cohort) == sorted(cohort)
        counts[list(cohort)] += 1
        server.number += 1
    # binomial: mean 80, deviation 8
    assert counts.min() > 45
    assert counts.max() < 115


def test_poisson_sampling_draws_each_client_by_itself():
    server = server_of(num_clients=50, participation=ParticipationSettings(probability=0.2))
    sizes = []
    for _ in range(400):
        sizes.append(len(server.plan().cohort))
        server.number += 1
    assert np.mean(sizes) == pytest.approx(10, abs=0.6)  # deviation of the mean 0.14
    assert np.var(sizes) == pytest.approx(8, rel=0.35)


def test_lost_clients_do_not_train_and_are_counted():
    server = server_of(num_clients=40, dropouts=DropoutSettings(probability=0.5))
    plan = server.plan()
    report = server.finish(plan, updates_of(plan.trains))
    lost = set(plan.cohort) - set(plan.trains)
    assert 8 < len(lost) < 32
    assert report.lost[Step.UPLOAD] == len(lost)
    assert set(report.contributors) == set(plan.trains)


# -- compression ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["int8", "top_k", "random_k"])
def test_what_is_left_out_is_sent_later(kind):
    keep = {"int8": None, "top_k": 0.1, "random_k": 0.5}[kind]
    rounds = 100
    with_feedback, without = (
        server_of(compression=CompressionSettings(kind, keep, error_feedback=feedback))
        for feedback in (True, False)
    )
    vector = np.linspace(-1, 1, SIZE, dtype=np.float32)
    for server in (with_feedback, without):
        for _ in range(rounds):
            plan = server.plan()
            report = server.finish(plan, {client: Update(vector, 10) for client in plan.trains})
    error = np.abs(with_feedback.weights / rounds - vector).max()
    assert error < 0.25
    if kind == "top_k":  # the small numbers never get their turn
        assert np.abs(without.weights / rounds - vector).max() > 0.85
    full = 6 * 4 * SIZE
    assert report.bytes_up == {"int8": 6 * (SIZE + 4), "top_k": full // 5, "random_k": full // 2}[kind]


def test_a_residual_waits_until_its_update_arrives():
    compression = CompressionSettings("top_k", 0.1)
    server, other = server_of(compression=compression), server_of(compression=compression)
    vector = np.linspace(-1, 1, SIZE, dtype=np.float32)
    for one, clients in ((server, (0, 1)), (other, (0,))):
        plan = one.plan()
        one.finish(plan, {client: Update(vector, 10) for client in clients})
    residuals = [one.get_state()["uplink"]["residuals"] for one in (server, other)]
    assert set(residuals[0]) == {0, 1}
    assert set(residuals[1]) == {0}


# -- control variates -------------------------------------------------------------------------------------------------


def test_the_servers_variate_is_the_mean_of_all_clients():
    server = server_of(5, participation=ParticipationSettings(clients=2), uses_variates=True)
    rng = np.random.default_rng(1)
    known = {client: np.zeros(SIZE, np.float32) for client in range(5)}
    for _ in range(6):
        plan = server.plan()
        given_updates = {}
        for client in plan.trains:
            np.testing.assert_array_equal(server.variate_of(client), known[client])
            known[client] = rng.normal(size=SIZE).astype(np.float32)
            given_updates[client] = Update(np.zeros(SIZE, np.float32), 10, known[client])
        report = server.finish(plan, given_updates)
        np.testing.assert_allclose(server.variate, np.mean([*known.values()], axis=0), atol=1e-6)
    assert report.bytes_up == 2 * report.contributors.__len__() * 4 * SIZE


# -- attacks ----------------------------------------------------------------------------------------------------------


def test_a_sign_flip_turns_the_mean_and_leaves_the_median():
    vector = np.linspace(0.5, 1, SIZE, dtype=np.float32)
    ends = {}
    for rule in ("mean", "median"):
        server = server_of(
            aggregation=AggregationSettings(rule=rule),
            attack=AttackSettings("sign_flip", share=1 / 6, scale=8.0),
        )
        plan = server.plan()
        server.finish(plan, {client: Update(vector, 10) for client in plan.trains})
        ends[rule] = server.weights
    np.testing.assert_allclose(ends["mean"], (5 - 8) / 6 * vector, rtol=1e-5)
    np.testing.assert_allclose(ends["median"], vector, rtol=1e-5)


def test_a_lying_count_weighs_more_up_to_what_a_round_can_hold():
    aggregation_settings = AggregationSettings(weights="env_steps")
    believed, refused = (
        server_of(
            3,
            aggregation=aggregation_settings,
            attack=AttackSettings("lying_count", clients=[1], scale=scale),
        )
        for scale in (5.0, 50.0)
    )
    table = np.eye(3, SIZE, dtype=np.float32)
    for server in (believed, refused):
        plan = server.plan()
        report = server.finish(plan, {client: Update(table[client], 100) for client in plan.trains})
    np.testing.assert_allclose(believed.weights[:3], np.array([1, 5, 1]) / 7, rtol=1e-5)
    assert report.refused == {1: "expected 1 to 1000 environment steps, it says 5000"}
    np.testing.assert_allclose(refused.weights[:3], [0.5, 0, 0.5], rtol=1e-5)


def test_only_the_clients_named_are_malicious():
    assert AttackSettings(share=0.34).malicious(6) == {0, 1}
    assert AttackSettings(clients=[2, 5]).malicious(6) == {2, 5}


# -- going on from a state --------------------------------------------------------------------------------------------


@hypothesis_settings(max_examples=15, deadline=None)
@given(
    before=st.integers(0, 4),
    compression=st.sampled_from([None, "int8", "top_k", "random_k"]),
    optimizer=st.sampled_from([{}, {"momentum": 0.9}, {"type": "adam", "lr": 0.1}]),
    variates=st.booleans(),
)
def test_a_server_that_is_restored_goes_on_exactly(before, compression, optimizer, variates):
    def make():
        return server_of(
            9,
            participation=ParticipationSettings(clients=4),
            dropouts=DropoutSettings(probability=0.2),
            server=ServerOptimizerSettings.of(optimizer),
            compression=None if compression is None else CompressionSettings(compression),
            uses_variates=variates,
        )

    def play(server, rounds):
        for _ in range(rounds):
            plan = server.plan()
            rng = np.random.default_rng(server.number)
            table = rng.normal(size=(9, SIZE)).astype(np.float32)
            server.finish(plan, {client: Update(table[client], 10, table[client]) for client in plan.trains})

    straight, cut = make(), make()
    play(straight, before + 3)
    play(cut, before)
    restored = make()
    restored.set_state(cut.get_state())
    play(restored, 3)
    np.testing.assert_array_equal(straight.weights, restored.weights)
    assert straight.num_failed == restored.num_failed

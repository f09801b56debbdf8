"""Rounds of a federation whose server sees sums alone, of all clients or of groups."""

import functools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from toy_servers import MAX_STEPS, SEEDED, SIZE, played, server_of, updates_of

from qio_rllib.federated import aggregation
from qio_rllib.federated.federation_settings import FederationSettings
from qio_rllib.federated.rounds import Update
from qio_rllib.federated.secure.messages import Step
from qio_rllib.federated.server import FederatedServer
from qio_rllib.federated.settings import (
    AggregationSettings,
    AttackSettings,
    CompressionSettings,
    DropoutSettings,
    ParticipationSettings,
    PrivacySettings,
    QuantizationSettings,
    SecureSettings,
)
from qio_rllib.federated.uplink import Uplink
from qio_rllib.sampling.streams import generator

# -- secure aggregation -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"compression": CompressionSettings("random_k", 0.5)},
        {"participation": ParticipationSettings(clients=7)},
        {"dropouts": DropoutSettings(probability=0.15)},
    ],
)
def test_secure_or_not_the_weights_are_the_same_to_the_bit(settings):
    quantization = QuantizationSettings(bound=2.0, fraction_bits=20)
    secure = server_of(12, quantization=quantization, secure=SecureSettings(), **settings)
    # Whoever is lost after the upload is in a secure sum; the other server is given the same contributors.
    plain = server_of(12, quantization=quantization, **{**settings, "dropouts": None})
    for number in range(3):
        plan = secure.plan()
        found = secure.finish(plan, updates_of(plan.trains, seed=number))
        assert found.failure is None
        contributors = {client: updates_of(plan.trains, seed=number)[client] for client in found.contributors}
        plain.finish(plain.plan(), contributors)
        np.testing.assert_array_equal(secure.weights, plain.weights)
    assert np.abs(secure.weights).max() > 0


def test_a_secure_mean_is_the_mean():
    server = server_of(8, secure=SecureSettings(), quantization=QuantizationSettings(1.0, 20))
    given_updates = updates_of(range(8))
    server.finish(server.plan(), given_updates)
    exact = np.mean([update.vector for update in given_updates.values()], axis=0)
    assert np.abs(server.weights - exact).max() < 2**-19


def test_too_few_clients_release_nothing_and_cost_nothing():
    server = server_of(
        5,
        secure=SecureSettings(min_clients=5),
        privacy=PrivacySettings(mechanism="skellam", clip=0.5, **SEEDED),
    )
    plan = server.plan()
    report = server.finish(plan, updates_of([0, 1, 2]))
    assert report.failure is not None
    assert report.contributors == ()
    assert server.ledger.epsilon == 0
    np.testing.assert_array_equal(server.weights, 0.0)
    assert server.finish(server.plan(), updates_of(range(5))).failure is None
    assert server.ledger.rounds == 1


def test_a_client_whose_update_is_not_finite_falls_silent_in_a_secure_round():
    server = server_of(8, secure=SecureSettings())
    plan = server.plan()
    given_updates = updates_of(plan.trains)
    given_updates[2] = Update(np.full(SIZE, np.inf, np.float32), 10)
    report = server.finish(plan, given_updates)
    assert 2 not in report.contributors
    assert len(report.contributors) == 7
    assert report.lost[Step.UPLOAD] == 1


# -- secure sums of groups --------------------------------------------------------------------------------------------

ROBUST = {
    "mean": {},
    "median": {},
    "trimmed_mean": {"trim": 0.3},
    "geometric_median": {},
    "multi_krum": {"byzantine": 0.2},
    "distance_filter": {"byzantine": 0.3},
}


def combined(settings, table, counts):
    """Return what a rule makes of the means of groups, by the rules alone."""
    rule = settings.rule
    if rule == "trimmed_mean":
        return aggregation.trimmed_mean(table, settings.trim)
    if rule == "multi_krum":
        return aggregation.multi_krum(table, int(settings.byzantine * len(table)))
    if rule == "distance_filter":
        return aggregation.distance_filter(table, settings.byzantine)[0]
    if rule == "median":
        return aggregation.median(table)
    return getattr(aggregation, rule)(table, np.array(counts))


@hypothesis_settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_clients=st.integers(3, 40),
    group_size=st.integers(3, 9),
    participation=st.sampled_from([ParticipationSettings(), ParticipationSettings(probability=0.8)]),
)
def test_groups_divide_the_clients_of_a_round(seed, num_clients, group_size, participation):
    if participation.expected(num_clients) < group_size:
        return
    server = server_of(
        num_clients, seed, participation=participation, secure=SecureSettings(group_size=group_size)
    )
    plan = server.plan()
    assert plan.groups == server.plan().groups  # of the seed and the round alone
    sizes = [len(group) for group in plan.groups]
    if len(plan.cohort) < group_size:
        assert plan.groups == ()
        return
    assert tuple(sorted(one for group in plan.groups for one in group)) == plan.cohort
    assert len(sizes) == len(plan.cohort) // group_size
    assert group_size <= min(sizes) <= max(sizes) <= min(min(sizes) + 1, server.settings.largest_sum)


def test_groups_are_drawn_anew_each_round():
    server, met = server_of(9, secure=SecureSettings(group_size=3)), np.zeros((9, 9))
    for _ in range(200):
        for group in server.plan().groups:
            met[np.ix_(group, group)] += 1
        server.number += 1
    others = met[~np.eye(9, dtype=bool)]
    # binomial: mean 200 / 4, deviation 6.1
    assert others.min() > 25
    assert others.max() < 75


@hypothesis_settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 2**31),
    num_clients=st.integers(15, 24),
    rule=st.sampled_from(list(ROBUST)),
    lost=st.booleans(),
    compression=st.sampled_from([None, "random_k"]),
)
def test_a_rule_combines_the_exact_means_of_groups(seed, num_clients, rule, lost, compression):
    """To the bit what the rule makes of plain sums of the integers that clients send."""
    settings = FederationSettings(
        num_clients,
        seed=seed,
        aggregation=AggregationSettings(rule=rule, **ROBUST[rule]),
        quantization=QuantizationSettings(1.0, 20),
        compression=None if compression is None else CompressionSettings(compression, 0.5),
        secure=SecureSettings(group_size=3),
        dropouts=DropoutSettings(probability=0.1) if lost else None,
    )
    streams = functools.partial(generator, seed)
    server = FederatedServer(settings, np.zeros(SIZE, np.float32), b"layout", MAX_STEPS, streams)
    uplink = Uplink(settings, SIZE, streams)
    plan = server.plan()
    given_updates = updates_of(plan.trains, seed)
    report = server.finish(plan, given_updates)
    # In a group of three everybody is needed to the end.
    whole = [group for group in plan.groups if len(group) > 3 or not plan.drops.keys() & {*group}]
    held = [[one for one in group if one in report.contributors] for group in whole]
    held = [group for group in held if group]
    if report.failure is not None:
        assert len(held) == 0
        return
    assert report.lost_groups == len(plan.groups) - len(held)
    sums = [
        np.sum([uplink.send(one, given_updates[one].vector, 0).integers for one in group], axis=0)
        for group in held
    ]
    counts = [len(group) for group in held]
    table = np.array([settings.integers.decode(total) for total in sums]) / np.array(counts)[:, None]
    change = uplink.expanded(combined(settings.aggregation, table, counts), 0)
    np.testing.assert_array_equal(server.weights, change)
    assert np.abs(change).max() > 0


@pytest.mark.parametrize(
    ("rule", "borne"),
    [("mean", False), *((rule, True) for rule in ROBUST if rule != "mean")],
)
def test_one_malicious_client_spoils_one_group(rule, borne):
    server = server_of(
        15,
        aggregation=AggregationSettings(rule=rule, **ROBUST[rule]),
        quantization=QuantizationSettings(bound=50.0),
        secure=SecureSettings(group_size=3),
        attack=AttackSettings("sign_flip", clients=[4], scale=40.0),
    )
    vector = np.linspace(0.5, 1, SIZE, dtype=np.float32)
    for _ in range(3):
        plan, before = server.plan(), server.weights
        server.finish(plan, {client: Update(vector, 10) for client in plan.trains})
        expected = vector if borne else (14 - 40) / 15 * vector
        np.testing.assert_allclose(server.weights - before, expected, atol=1e-3)


def test_as_many_malicious_clients_as_half_of_the_groups_are_not_borne():
    """Four of fifteen, whom a median of single updates bears; scattered over five groups they spoil most of them."""
    vector, ends = np.linspace(0.5, 1, SIZE, dtype=np.float32), {}
    for name, settings in (("single", {}), ("groups", {"secure": SecureSettings(group_size=3)})):
        server = server_of(
            15,
            seed=3,
            aggregation=AggregationSettings(rule="median"),
            attack=AttackSettings("sign_flip", clients=[0, 1, 2, 3], scale=4.0),
            **settings,
        )
        plan = server.plan()
        server.finish(plan, {client: Update(vector, 10) for client in plan.trains})
        ends[name] = server.weights
    assert sum(bool({0, 1, 2, 3} & {*group}) for group in plan.groups) >= 3
    np.testing.assert_allclose(ends["single"], vector, atol=1e-4)
    assert (ends["groups"] < 0).all()


def test_a_group_that_fails_is_left_out_and_counted():
    server = server_of(
        15, aggregation=AggregationSettings(rule="median"), secure=SecureSettings(group_size=3)
    )
    plan = server.plan()
    gone = plan.groups[1][0]
    given_updates = updates_of([one for one in plan.trains if one != gone])
    report = server.finish(plan, given_updates)
    others = [group for group in plan.groups if gone not in group]
    assert report.contributors == tuple(sorted(one for group in others for one in group))
    assert (report.lost_groups, report.lost[Step.UPLOAD], sum(report.lost.values())) == (1, 1, 1)
    means = [np.mean([given_updates[one].vector for one in group], axis=0) for group in others]
    np.testing.assert_allclose(server.weights, np.median(means, axis=0), atol=2**-15)


def test_what_a_lost_group_left_out_is_sent_later():
    """Error feedback takes over the residuals of contributors alone."""
    server = server_of(
        12, compression=CompressionSettings("random_k", 0.5), secure=SecureSettings(group_size=3)
    )
    plan = server.plan()
    gone = plan.groups[0]
    server.finish(plan, updates_of([one for one in plan.trains if one != gone[0]]))
    assert set(server.get_state()["uplink"]["residuals"]) == set(range(12)) - {*gone}


def test_too_few_groups_for_a_robust_rule_change_nothing():
    for rule, failure in (("median", "median needs 3 groups, 2 are left"), ("mean", None)):
        server = server_of(9, aggregation=AggregationSettings(rule=rule), secure=SecureSettings(group_size=3))
        plan = server.plan()
        gone = plan.groups[0][0]
        report = server.finish(plan, updates_of([one for one in plan.trains if one != gone]))
        assert report.failure == failure
        assert bool(server.weights.any()) == (failure is None)
        assert len(report.contributors) == (0 if failure else 6)


def test_a_round_with_fewer_clients_than_a_group_releases_nothing():
    server = server_of(
        20, seed=2, participation=ParticipationSettings(probability=0.3), secure=SecureSettings(group_size=6)
    )
    failures = []
    for _ in range(20):
        plan = server.plan()
        report = server.finish(plan, updates_of(plan.trains))
        assert (report.failure is None) == (len(plan.cohort) >= 6)
        failures += [report.failure] if report.failure else []
    assert "5 clients take part, expected 6" in failures


def test_with_a_lower_threshold_a_group_of_four_bears_a_lost_client():
    for threshold, lost_groups in ((None, 1), (2, 0)):
        server = server_of(12, secure=SecureSettings(group_size=4, threshold=threshold))
        plan = server.plan()
        gone = plan.groups[0][0]
        report = server.finish(plan, updates_of([one for one in plan.trains if one != gone]))
        assert report.lost_groups == lost_groups
        assert len(report.contributors) == 11 - 3 * lost_groups


def test_a_server_with_groups_that_is_restored_goes_on_exactly():
    def make():
        return server_of(
            20,
            participation=ParticipationSettings(clients=13),
            aggregation=AggregationSettings(rule="geometric_median"),
            compression=CompressionSettings("random_k", 0.5),
            dropouts=DropoutSettings(probability=0.05),
            secure=SecureSettings(group_size=3),
        )

    straight, cut, restored = make(), make(), make()
    reports = played(straight, 6)
    played(cut, 3)
    restored.set_state(cut.get_state())
    played(restored, 3)
    np.testing.assert_array_equal(straight.weights, restored.weights)
    assert straight.num_failed == restored.num_failed
    assert sum(report.lost_groups for report in reports) > 0
    assert np.abs(straight.weights - cut.weights).max() > 0

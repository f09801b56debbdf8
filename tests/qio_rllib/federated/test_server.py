"""Rounds of a federation without an algorithm: who takes part, what is combined, what is kept, what is refused."""

import functools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from qio_rllib.federated import aggregation
from qio_rllib.federated.federation_settings import FederationSettings
from qio_rllib.federated.privacy import GaussianMechanism, SkellamMechanism, rounded_norm
from qio_rllib.federated.secure.messages import Step
from qio_rllib.federated.server import FederatedServer, Update
from qio_rllib.federated.server_optimizers import ServerOptimizerSettings
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

SIZE, MAX_STEPS = 40, 1000
SEEDED = {"randomness": "seeded"}


def server_of(num_clients=6, seed=0, weights=None, **settings):
    first = np.zeros(SIZE, np.float32) if weights is None else weights
    streams = functools.partial(generator, seed)
    return FederatedServer(
        FederationSettings(num_clients, seed=seed, **settings), first, b"layout", MAX_STEPS, streams
    )


def updates_of(clients, seed=0, scale=0.1):
    rng = np.random.default_rng(seed)
    table = scale * rng.normal(size=(64, SIZE)).astype(np.float32)
    return {client: Update(table[client], 100 + client) for client in clients}


def played(server, rounds=1, **kwargs):
    reports = []
    for _ in range(rounds):
        plan = server.plan()
        reports.append(server.finish(plan, updates_of(plan.trains, seed=plan.number, **kwargs)))
    return reports


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


# -- privacy ----------------------------------------------------------------------------------------------------------


def test_gaussian_noise_has_the_deviation_that_epsilon_is_of():
    """sum of clipped updates + N(0, (z C)^2), over the expected number of clients."""
    privacy = PrivacySettings(clip=0.25, noise_multiplier=2.0, **SEEDED)
    noise = []
    for seed in range(200):
        server = server_of(
            10, seed=seed, privacy=privacy, participation=ParticipationSettings(probability=0.5)
        )
        plan = server.plan()
        given_updates = updates_of(plan.trains, scale=1.0)  # norms near 6: all are clipped
        server.finish(plan, given_updates)
        clipped = sum(
            (0.25 * update.vector / np.linalg.norm(update.vector) for update in given_updates.values()),
            start=np.zeros(SIZE),
        )
        noise.append(server.weights - clipped / 5)
    assert np.std(noise) == pytest.approx(2.0 * 0.25 / 5, rel=0.03)
    assert np.mean(noise) == pytest.approx(0, abs=0.004)
    assert server.ledger.epsilon == pytest.approx(GaussianMechanism(0.5, 2.0).epsilon(1, 1e-5))
    assert server.ledger.simulated


def test_skellam_noise_of_the_fewest_clients_is_what_epsilon_is_of():
    privacy = PrivacySettings("skellam", clip=0.5, noise_multiplier=1.5, colluders=1, **SEEDED)
    quantization = QuantizationSettings(fraction_bits=12)
    found = []
    for seed in range(120):
        server = server_of(
            6, seed=seed, privacy=privacy, quantization=quantization, secure=SecureSettings(min_clients=4)
        )
        plan = server.plan()
        given_updates = updates_of(plan.trains, scale=0.01)
        server.finish(plan, given_updates)
        exact = np.mean([update.vector for update in given_updates.values()], axis=0)
        found.append(server.weights - exact)
    steps = rounded_norm(0.5 * 4096, SIZE)
    # six clients add shares that make the noise of three: of four at least, one of whom colludes
    expected = math.sqrt(6 / 3) * 1.5 * steps / 4096 / 6
    assert np.std(found) == pytest.approx(expected, rel=0.04)
    mechanism = SkellamMechanism((1.5 * steps) ** 2, steps, SIZE)
    assert server.ledger.epsilon == pytest.approx(mechanism.epsilon(1, 1e-5))


def test_noise_of_the_operating_system_cannot_be_repeated():
    weights = []
    for _ in range(2):
        server = server_of(privacy=PrivacySettings())
        played(server)
        assert not server.ledger.simulated
        weights.append(server.weights)
    assert not np.array_equal(*weights)


def test_an_empty_cohort_is_a_round_of_noise():
    """Where nobody is drawn the weights still move: that nobody was there must not show."""
    server = server_of(
        4, seed=3, privacy=PrivacySettings(**SEEDED), participation=ParticipationSettings(probability=1e-9)
    )
    report = server.finish(server.plan(), {})
    assert report.failure is None
    assert server.ledger.rounds == 1
    assert np.std(server.weights) > 0


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


def test_the_ledger_is_restored_and_keys_are_not_kept():
    server = server_of(5, secure=SecureSettings(), privacy=PrivacySettings("skellam", clip=0.5, **SEEDED))
    played(server, 2)
    state = server.get_state()
    restored = server_of(5, secure=SecureSettings(), privacy=PrivacySettings("skellam", clip=0.5, **SEEDED))
    restored.set_state(state)
    assert restored.ledger.epsilon == server.ledger.epsilon > 0
    assert "key" not in str(state).lower()

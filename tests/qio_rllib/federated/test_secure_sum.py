"""Secure aggregation: exact sums, drop-outs, and a sceptic's attacks."""

import dataclasses
import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare, hypergeom

from qio_envs.api import ConfigError
from qio_rllib.federated.secure.client import SecureClient, pair_key, pair_sign, seed_key
from qio_rllib.federated.secure.messages import Step, pack_by_client, parse, sign, unpack_by_client
from qio_rllib.federated.secure.primitives import (
    add_key_stream,
    derive_key,
    identities,
    key_numbers,
    pack,
    unpack,
)
from qio_rllib.federated.secure.round import (
    AbortError,
    RefusedError,
    Round,
    RoundFailedError,
    neighbourhood,
)
from qio_rllib.federated.secure.server import SecureServer
from qio_rllib.federated.secure.simulation import complete_round, secure_sum

COUNT = 7
PRIVATE, PUBLIC = (dict(enumerate(keys)) for keys in identities(COUNT))
ROUND = complete_round(range(COUNT), 50, run="test", threshold=5)  # of six neighbours


def vectors(size=50, count=COUNT, seed=0):
    rng = np.random.default_rng(seed)
    return {client: rng.integers(-(2**20), 2**20, size) for client in range(count)}


class Play:
    """A round by hand: an attacker can change whatever is sent."""

    def __init__(self, round_=ROUND, values=None):
        self.values = vectors(round_.size) if values is None else values
        self.server = SecureServer(round_, PUBLIC)
        self.clients = {who: SecureClient(who, PRIVATE[who], PUBLIC, round_) for who in round_.cohort}
        self.inbox = {}

    def answer(self, client, step, sent):
        who = self.clients[client]
        if step is Step.ADVERTISE:
            return who.advertise()
        if step is Step.UPLOAD:
            return who.upload(sent, self.values[client])
        return {Step.SHARE: who.share, Step.CONFIRM: who.confirm, Step.UNMASK: who.unmask}[step](sent)

    def until(self, step):
        """Play honestly up to, not including, a step."""
        while self.server.step < step:
            now = self.server.step
            for client in self.inbox or self.clients:
                self.server.receive(self.answer(client, now, self.inbox.get(client)))
            self.inbox = self.server.close_step()
        return self


def test_the_sum_is_exact_and_modular():
    found = secure_sum(ROUND, PRIVATE, vectors())
    assert (found.total == sum(vectors().values())).all()
    assert found.contributors == tuple(range(COUNT))
    big = {client: np.full(50, 2**31 - 1) for client in range(COUNT)}  # 7 (2^31 - 1) modulo 2^32, centred
    assert (secure_sum(ROUND, PRIVATE, big).total == (7 * (2**31 - 1) + 2**31) % 2**32 - 2**31).all()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([None, *Step]), min_size=COUNT, max_size=COUNT))
def test_drop_outs_in_every_phase_leave_the_exact_sum_or_nothing(drops):
    lost = {client: step for client, step in enumerate(drops) if step is not None}
    try:
        found = secure_sum(ROUND, PRIVATE, vectors(), lost)
    except RoundFailedError:
        # Fewer than the threshold of neighbours are left for somebody; six neighbours, five of them needed.
        assert len(lost) > 1
        return
    uploaded = [client for client in range(COUNT) if lost.get(client, 9) > Step.UPLOAD]
    assert found.contributors == tuple(uploaded)
    assert (found.total == sum(vectors()[client] for client in uploaded)).all()


@pytest.mark.parametrize("step", Step)
def test_one_client_may_be_lost_in_any_phase(step):
    found = secure_sum(ROUND, PRIVATE, vectors(), {3: step})
    rest = [client for client in range(COUNT) if client != 3 or step > Step.UPLOAD]
    assert (found.total == sum(vectors()[client] for client in rest)).all()
    assert found.lost[step] == (3,)


def test_a_sparse_graph_gives_the_same_sum():
    private = dict(enumerate(identities(20)[0]))
    round_ = Round("sparse", 3, b"", b"", 30, tuple(range(20)), 4, 6)
    values = vectors(30, 20)
    drops = {4: Step.SHARE, 9: Step.UPLOAD, 11: Step.CONFIRM}
    found = secure_sum(round_, private, values, drops)
    assert (found.total == sum(values[client] for client in range(20) if client not in (4, 9))).all()
    for client, others in round_.neighbours_of.items():
        assert len(others) == 6
        assert client not in others
        assert all(client in round_.neighbours_of[other] for other in others)
    other_round = dataclasses.replace(round_, number=4)
    assert other_round.neighbours_of != round_.neighbours_of


def test_uploads_look_uniform_even_of_constant_vectors():
    seen = []
    round_ = complete_round(range(4), 4096)
    zeros = {client: np.zeros(4096, np.int64) for client in range(4)}
    secure_sum(round_, dict(itertools.islice(PRIVATE.items(), 4)), zeros, record=seen.append)
    uploads = [signed.payload for signed in map(parse, seen) if signed.step is Step.UPLOAD]
    assert len(uploads) == 4
    for payload in uploads:
        counts = np.bincount(np.frombuffer(payload, np.uint8), minlength=256)
        assert chisquare(counts).pvalue > 1e-6
    assert len(set(uploads)) == 4


def test_nothing_that_reaches_the_server_holds_a_client_s_vector():
    seen = []
    marked = {client: np.full(50, 12345 + client) for client in range(COUNT)}
    secure_sum(ROUND, PRIVATE, marked, record=seen.append)
    for client in range(COUNT):
        assert not any(np.full(4, 12345 + client, "<u4").tobytes() in message for message in seen)


def test_server_and_colluders_learn_the_honest_sum_only():
    """Four colluders (threshold 5) and the server remove all masks that they know: what is left of each honest client
    is uniform, and only the three together give anything, their sum."""
    round_ = complete_round(range(COUNT), 8192, threshold=5)
    values = {client: np.full(8192, 7 * client) for client in range(COUNT)}
    play = Play(round_, values).until(Step.CONFIRM)
    uploads = {}
    honest, colluders = (0, 1, 2), (3, 4, 5, 6)
    again = Play(round_, values).until(Step.UPLOAD)
    for client in range(COUNT):
        message = again.answer(client, Step.UPLOAD, again.inbox[client])
        uploads[client] = np.frombuffer(parse(message).payload, "<u4").copy()
    del play
    for client in honest:
        add_key_stream(uploads[client], seed_key(round_, again.clients[client]._seed), -1)  # revealed later
        for other in colluders:
            key = (
                pair_key(round_, again.clients[other]._masking, again.clients[0]._keys[client].masking)
                if client != 0
                else pair_key(round_, again.clients[other]._masking, again.clients[1]._keys[0].masking)
            )
            add_key_stream(uploads[client], key, -pair_sign(client, other))
        counts = np.bincount(uploads[client].view(np.uint8), minlength=256)
        assert chisquare(counts).pvalue > 1e-6
    pair = uploads[0] + uploads[1]
    assert chisquare(np.bincount(pair.view(np.uint8), minlength=256)).pvalue > 1e-6
    assert ((uploads[0] + uploads[1] + uploads[2]) == 7 * (0 + 1 + 2)).all()


def test_a_second_request_for_shares_is_refused():
    play = Play().until(Step.UNMASK)
    play.clients[0].unmask(play.inbox[0])
    with pytest.raises(AbortError, match="client 0 was asked for step unmask out of turn"):
        play.clients[0].unmask(play.inbox[0])


def test_shares_of_both_secrets_of_a_client_are_never_given():
    """Whatever set the clients sign, each reveals one share of each neighbour: that of the set."""
    play = Play().until(Step.CONFIRM)
    fewer = ROUND.mask_of(range(1, COUNT))  # the server says that client 0 never uploaded
    with pytest.raises(AbortError, match="client 0 is missing from the survivors"):
        play.clients[0].confirm(fewer)
    messages = {client: play.clients[client].confirm(fewer) for client in range(1, COUNT)}
    for client in range(1, COUNT):
        sent = pack_by_client({other: messages[other] for other in messages if other != client})
        given = unpack_by_client(parse(play.clients[client].unmask(sent)).payload, range(COUNT))
        assert set(given) == set(range(COUNT)) - {client}
        assert all(len(part) == 33 for part in given.values())  # one share each


def test_split_survivor_lists_make_clients_abort():
    play = Play().until(Step.CONFIRM)
    whole, fewer = ROUND.mask_of(range(COUNT)), ROUND.mask_of(range(COUNT - 1))
    messages = {
        client: play.clients[client].confirm(whole if client < 3 else fewer) for client in range(COUNT - 1)
    }
    for client in range(COUNT - 1):
        others = pack_by_client({other: messages[other] for other in messages if other != client})
        with pytest.raises(AbortError, match=f"client {client} signed another set of survivors than client"):
            play.clients[client].unmask(others)


def test_too_few_signatures_make_clients_abort():
    play = Play().until(Step.UNMASK)
    parts = unpack_by_client(play.inbox[0], range(COUNT))
    few = dict(itertools.islice(parts.items(), ROUND.threshold - 1))
    with pytest.raises(AbortError, match="has 4 signatures; expected 5"):
        play.clients[0].unmask(pack_by_client(few))


def test_a_survivor_that_shared_nothing_makes_clients_abort():
    play = Play()
    for client in range(COUNT):
        play.server.receive(play.clients[client].advertise())
    play.inbox = play.server.close_step()
    for client in range(COUNT - 1):  # the last one shares nothing
        play.server.receive(play.clients[client].share(play.inbox[client]))
    inbox = play.server.close_step()
    for client in range(COUNT - 1):
        play.clients[client].upload(inbox[client], play.values[client])
    with pytest.raises(AbortError, match="survivors of which it holds no shares"):
        play.clients[0].confirm(ROUND.mask_of(range(COUNT)))


def test_split_models_do_not_pass():
    """A client that was given other weights is in another round: signatures do not fit, and masks would not cancel."""
    play = Play()
    other = dataclasses.replace(ROUND, weights=b"other weights")
    play.clients[2] = SecureClient(2, PRIVATE[2], PUBLIC, other)
    with pytest.raises(RefusedError, match="client 2: wrong signature"):
        play.server.receive(play.clients[2].advertise())
    messages = {client: play.clients[client].advertise() for client in range(COUNT) if client != 2}
    sent = pack_by_client(messages)
    with pytest.raises(
        AbortError, match="client 2 was sent a message that client 0 did not sign in this round"
    ):
        play.clients[2].share(sent)
    keys = [
        pair_key(round_, play.clients[0]._masking, play.clients[1]._masking.public_key().public_bytes_raw())
        for round_ in (ROUND, other)
    ]
    assert keys[0] != keys[1]


def test_substituted_keys_make_clients_abort():
    play = Play().until(Step.SHARE)
    parts = unpack_by_client(play.inbox[0], range(COUNT))
    own = identities(1)[0][0]
    attacker = SecureClient(1, own, PUBLIC, ROUND)
    for forged in (attacker.advertise(), sign(own, ROUND.info, Step.ADVERTISE, 1, bytes(64)), parts[2], b"x"):
        play = Play().until(Step.SHARE)
        with pytest.raises(AbortError, match="client 0 was sent"):
            play.clients[0].share(
                pack_by_client({**unpack_by_client(play.inbox[0], range(COUNT)), 1: forged})
            )


def test_keys_of_small_order_are_refused():
    play = Play().until(Step.SHARE)
    evil = sign(PRIVATE[1], ROUND.info, Step.ADVERTISE, 1, bytes(64))  # signed by a malicious client
    sent = pack_by_client({**unpack_by_client(play.inbox[0], range(COUNT)), 1: evil})
    with pytest.raises(AbortError, match="client 0 was given a key of client 1 of small order"):
        play.clients[0].share(sent)
    with pytest.raises(RefusedError, match="client 1"):  # an honest server lets nobody stop over it
        SecureServer(ROUND, PUBLIC).receive(evil)


@pytest.mark.parametrize("step", Step)
def test_replayed_swapped_and_changed_messages_are_refused(step):
    play = Play().until(step)
    message = play.answer(1, step, play.inbox.get(1))
    swapped = message[:1] + (2).to_bytes(4) + message[5:]
    with pytest.raises(RefusedError, match="client 2: wrong signature"):
        play.server.receive(swapped)
    rng = np.random.default_rng(step)
    for bit in rng.integers(0, 8 * len(message), 60):
        flipped = bytearray(message)
        flipped[bit // 8] ^= 1 << (bit % 8)
        with pytest.raises(RefusedError):
            play.server.receive(bytes(flipped))
    with pytest.raises(RefusedError):
        play.server.receive(message[:40])
    play.server.receive(message)
    with pytest.raises(RefusedError, match=f"client 1: sent a second message of step {step.name.lower()}"):
        play.server.receive(message)
    if step is not Step.UNMASK:
        for client in range(2, COUNT):
            play.server.receive(play.answer(client, step, play.inbox.get(client)))
        play.server.close_step()
        with pytest.raises(RefusedError, match=f"client 1: message of step {step.name.lower()} in step"):
            play.server.receive(message)


def test_a_message_of_an_earlier_round_is_refused():
    old = SecureClient(1, PRIVATE[1], PUBLIC, dataclasses.replace(ROUND, number=99)).advertise()
    with pytest.raises(RefusedError, match="client 1: wrong signature"):
        SecureServer(ROUND, PUBLIC).receive(old)


def test_a_stranger_and_a_late_comer_are_refused():
    strangers = identities(COUNT + 1)[0]
    server = SecureServer(ROUND, {**PUBLIC, 99: strangers[0].public_key()})
    with pytest.raises(RefusedError, match="client 99: does not take part"):
        server.receive(sign(strangers[0], ROUND.info, Step.ADVERTISE, 99, bytes(64)))


def test_a_changed_ciphertext_costs_one_share_only():
    play = Play().until(Step.UPLOAD)
    parts = unpack_by_client(play.inbox[0], range(COUNT))
    parts[1] = bytes([parts[1][0] ^ 1]) + parts[1][1:]
    play.inbox[0] = pack_by_client(parts)
    play.until(Step.UNMASK)
    for client in range(COUNT):
        message = play.answer(client, Step.UNMASK, play.inbox[client])
        if client == 0:
            assert 1 not in unpack_by_client(parse(message).payload, range(COUNT))
        play.server.receive(message)
    assert (play.server.total() == sum(play.values.values())).all()


def test_wrong_shares_of_one_holder_are_corrected():
    play = Play(dataclasses.replace(ROUND, threshold=4)).until(Step.UNMASK)
    for client in range(COUNT):
        message = play.answer(client, Step.UNMASK, play.inbox[client])
        if client == 1:
            parts = unpack_by_client(parse(message).payload, range(COUNT))
            wrong = {other: bytes(33) for other in parts}
            message = sign(PRIVATE[1], play.server.round.info, Step.UNMASK, 1, pack_by_client(wrong))
        play.server.receive(message)
    assert (play.server.total() == sum(play.values.values())).all()


def test_below_the_threshold_nothing_is_released():
    play = Play().until(Step.UNMASK)
    for client in range(ROUND.threshold - 1):
        play.server.receive(play.answer(client, Step.UNMASK, play.inbox[client]))
    with pytest.raises(RoundFailedError, match=r"client \d: \d shares of its secret; expected 5"):
        play.server.total()
    with pytest.raises(RoundFailedError, match="step confirm is not over"):
        Play().until(Step.CONFIRM).server.total()


def test_key_streams_are_aes_in_counter_mode():
    """FIPS 197, appendix C.3: the block of zeros under a key; and the masks of two clients cancel."""
    key = bytes(range(32))
    assert key_numbers(key, 40_000)[:2].tolist() == key_numbers(key, 2).tolist()
    # AES-256 of the zero block under the zero key (NIST KAT vectors, ECBVarKey's base case)
    assert key_numbers(bytes(32), 4).astype("<u4").tobytes().hex() == "dc95c078a2408989ad48a21492842087"
    total = np.arange(100_000, dtype=np.uint32)
    add_key_stream(total, key, 1)
    add_key_stream(total, key, -1)
    assert (total == np.arange(100_000)).all()
    assert pair_sign(1, 2) == -pair_sign(2, 1)


def test_derived_keys_are_hkdf_and_bound_to_their_context():
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    from qio_rllib.federated.secure.primitives import digest

    expected = HKDF(hashes.SHA256(), 32, None, digest(b"a", b"bc")).derive(b"secret")
    assert derive_key(b"secret", b"a", b"bc") == expected
    assert derive_key(b"secret", b"ab", b"c") != expected


@given(st.lists(st.binary(max_size=9), max_size=5))
def test_packed_parts_come_back(parts):
    assert unpack(pack(parts)) == parts


def test_cut_packets_are_refused():
    packed = pack([b"abc", b"defg"])
    for end in (1, 3, 5, 9, len(packed) - 1):
        with pytest.raises(ValueError, match="cut off"):
            unpack(packed[:end])


def test_neighbourhoods_hold_their_bounds():
    for count in (10, 64, 300, 1000):
        size, threshold = neighbourhood(count)
        assert threshold > size / 2
        bad, lost = round(0.1 * count), round(0.2 * count)
        corrupt = hypergeom(count - 1, bad, size)
        stays = hypergeom(count - 1, count - 1 - lost, size)
        assert count * corrupt.sf(2 * threshold - size - 1) <= 2.0**-40
        assert count * stays.cdf(threshold - 1) <= 2.0**-20
    assert neighbourhood(1000)[0] < 999
    with pytest.raises(ConfigError, match="admit no threshold"):
        neighbourhood(12, corrupt=0.3, dropping=0.4)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cohort": (0, 1)}, "clients: secure aggregation needs at least 3 a round, got 2"),
        ({"cohort": (0, 1, 1, 2)}, "clients: expected different ids"),
        ({"threshold": 3}, r"threshold: expected 4 to 6 \(more than half"),
        ({"threshold": 7}, "threshold: expected 4 to 6"),
        ({"neighbours": 3, "threshold": 2}, "neighbours: expected an even number"),
        ({"min_clients": 2}, "min_clients: expected 3 to 7"),
        ({"size": 0}, "size: expected at least one"),
    ],
)
def test_wrong_rounds(changes, message):
    with pytest.raises(ConfigError, match=message):
        dataclasses.replace(ROUND, **changes)


def test_wrong_vectors_are_refused():
    for wrong in (np.zeros(49, np.int64), np.zeros(50)):
        play = Play().until(Step.UPLOAD)
        with pytest.raises(ValueError, match="values: expected integers of shape"):
            play.clients[0].upload(play.inbox[0], wrong)

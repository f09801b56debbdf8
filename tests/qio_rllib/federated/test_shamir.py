"""Shamir's secret sharing."""

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qio_rllib.federated.secure import shamir

SECRETS = st.binary(min_size=32, max_size=32)


@settings(max_examples=50, deadline=None)
@given(SECRETS, st.integers(1, 12), st.data())
def test_any_threshold_of_shares_restores_the_secret(secret, count, data):
    threshold = data.draw(st.integers(1, count))
    points = data.draw(st.lists(st.integers(1, 2**40), min_size=count, max_size=count, unique=True))
    shares = shamir.share(secret, points, threshold)
    chosen = data.draw(st.permutations(points))[:threshold]
    assert shamir.restore({point: shares[point] for point in chosen}) == secret


@settings(max_examples=20, deadline=None)
@given(SECRETS, SECRETS, st.integers(2, 8))
def test_one_share_less_fits_every_secret(secret, other, threshold):
    """For whatever secret there is a last share with which it is restored: the others say nothing about it."""
    shares = shamir.share(secret, range(1, threshold + 1), threshold)
    held = {point: shares[point] for point in range(1, threshold)}
    values = {0: int.from_bytes(other), **{point: int.from_bytes(share) for point, share in held.items()}}
    missing = 0  # the polynomial through the held shares and (0, other), at the last holder's point
    for point, value in values.items():
        weight = 1
        for node in values:
            if node != point:
                weight = weight * (threshold - node) * pow(point - node, -1, shamir.PRIME) % shamir.PRIME
        missing = (missing + value * weight) % shamir.PRIME
    held[threshold] = missing.to_bytes(shamir.SHARE_BYTES)
    assert shamir.restore(held) == other


@settings(max_examples=30, deadline=None)
@given(SECRETS, st.integers(1, 6), st.integers(0, 3), st.integers(0, 1), st.data())
def test_wrong_shares_are_corrected_up_to_half_of_the_spare_ones(secret, threshold, wrong, more, data):
    count = threshold + 2 * wrong + more
    shares = shamir.share(secret, range(1, count + 1), threshold)
    for point in data.draw(st.permutations(range(1, count + 1)))[:wrong]:
        shares[point] = data.draw(st.binary(min_size=33, max_size=33))
    assert shamir.correct(shares, threshold) == secret


def test_more_wrong_shares_are_noticed():
    shares = shamir.share(bytes(32), range(1, 9), 4) | {
        1: b"\0" * 32 + b"x",
        2: bytes(33),
        3: b"\0" * 32 + b"y",
    }
    with pytest.raises(ValueError, match="too many of them are wrong"):
        shamir.correct(shares, 4)
    with pytest.raises(ValueError, match="expected 9, got 8"):
        shamir.correct(shares, 9)


def test_shares_of_fewer_than_the_threshold_are_uniform():
    """The highest bytes of a single share of one secret, threshold 2, over 4,000 sharings: chi-square."""
    draw = random.Random(5)
    counts = [0] * 16
    for _ in range(4000):
        share = shamir.share(bytes(32), [1, 2], 2, draw.randrange)[1]
        counts[int.from_bytes(share) * 16 // shamir.PRIME] += 1
    assert sum((count - 250) ** 2 / 250 for count in counts) < 50  # 15 degrees of freedom: p = 1e-5


def test_the_modulus_is_the_smallest_prime_above_every_secret():
    def passes_miller_rabin(number, base):
        odd, twos = number - 1, 0
        while odd % 2 == 0:
            odd, twos = odd // 2, twos + 1
        power = pow(base, odd, number)
        if power in (1, number - 1):
            return True
        return any((power := power * power % number) == number - 1 for _ in range(twos - 1))

    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    assert all(passes_miller_rabin(shamir.PRIME, base) for base in bases)
    assert not any(
        all(passes_miller_rabin(2**256 + step, base) for base in bases) for step in range(1, 297, 2)
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((b"short", [1, 2], 1), "secret: expected 32 bytes, got 5"),
        ((bytes(32), [1, 1], 1), "points: expected different integers"),
        ((bytes(32), [0, 1], 1), "points: expected different integers from 1"),
        ((bytes(32), [1, 2], 3), "threshold: expected 1 to 2"),
        ((bytes(32), [1, 2], 0), "threshold: expected 1 to 2"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        shamir.share(*arguments)


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({}, "at least one"),
        ({1: b"short"}, "elements of the field"),
        ({1: (shamir.PRIME).to_bytes(33)}, "elements of the field"),
        ({1: (2**256 + 5).to_bytes(33)}, "restore no 32-byte secret"),
    ],
)
def test_wrong_shares(shares, message):
    with pytest.raises(ValueError, match=message):
        shamir.restore(shares)

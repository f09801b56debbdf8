from math import cos, erf, log, pi, sin, sqrt

import numpy as np
import pytest
from forest_oracle import philox
from hypothesis import given
from hypothesis import strategies as st

from qio_envs.api.random import MAX_NORMAL, below, integers, normal_pair, normals, philox4x32, uniform, word
from qio_envs.api.random_lanes import fill_normals

words = st.integers(0, 2**32 - 1)

# Known-answer vectors of the Random123 library for philox4x32 with 10 rounds: counter, key, result.
KNOWN = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


KNOWN_NORMALS = ["3d408846", "bfad6600", "bf471018", "3dc44891"]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers(counter, key, expected):
    c, k, e = ([int(part, 16) for part in text.split()] for text in (counter, key, expected))
    assert [int(part) for part in philox4x32(*c, np.uint64(k[0] | k[1] << 32))] == e
    assert philox(c, k) == e


@given(words, words, words, words, st.integers(0, 2**64 - 1))
def test_equals_a_plain_philox(lane, step, episode, stream, seed):
    expected = philox((lane, step, episode, stream), (seed & 0xFFFFFFFF, seed >> 32))
    assert list(map(int, philox4x32(lane, step, episode, stream, np.uint64(seed)))) == expected


def test_four_lanes_share_a_block():
    block = [int(part) for part in philox4x32(3, 5, 7, 9, np.uint64(11))]
    assert [int(word(lane, 5, 7, 9, np.uint64(11))) for lane in range(12, 16)] == block


def test_uniforms_have_24_bits_in_the_unit_interval():
    draws = np.array([uniform(lane, 0, 0, 0, np.uint64(1)) for lane in range(4000)])
    assert draws.min() >= 0
    assert draws.max() < 1
    assert ((draws * 2**24) % 1 == 0).all()
    assert len(np.unique(draws)) > 3990
    assert abs(draws.mean() - 0.5) < 4 / np.sqrt(12 * 4000)
    assert abs(draws.var() - 1 / 12) < 0.005
    assert abs(np.corrcoef(draws[:-1], draws[1:])[0, 1]) < 4 / np.sqrt(4000)


@given(st.integers(1, 2**31), words, st.integers(0, 2**64 - 1))
def test_integers_stay_below_their_bound(bound, lane, seed):
    draw = below(bound, lane, 0, 0, 0, np.uint64(seed))
    assert 0 <= draw < bound
    assert draw == int(word(lane, 0, 0, 0, np.uint64(seed))) * bound >> 32


def test_rows_of_integers_depend_on_their_own_step_and_seed_alone():
    steps, seeds = np.array([4, 9], np.int32), np.array([1, 2], np.uint64)
    both = integers(1000, 6, steps, 3, seeds)
    assert both.shape == (2, 6)
    for row in range(2):
        np.testing.assert_array_equal(both[row], integers(1000, 6, steps[[row]], 3, seeds[[row]])[0])
    assert (both[0] != both[1]).any()


def normals_of(count, seed=1):
    return np.array([normals(block, 2, 3, 4, np.uint64(seed)) for block in range(count)])


def box_muller(first, second):
    radius = sqrt(-2 * log(((first >> 8) + 1) / 2**24))
    angle = 2 * pi * (second >> 6) / 2**26 - pi / 4
    return radius * cos(angle), radius * sin(angle)


@given(words, words)
def test_normals_are_those_of_the_textbook(first, second):
    pair = normal_pair(np.uint64(first), np.uint64(second))
    assert all(np.float32(value) == value for value in pair)
    np.testing.assert_allclose(pair, box_muller(first, second), atol=2e-6)


@pytest.mark.parametrize(
    "first", [0, 2**32 - 1, 2**31, 2**31 - 1, 0xB504F300, 0xB504F400, 2**8, 2**32 - 2**8 - 1]
)
@pytest.mark.parametrize("second", [0, 2**32 - 1, 2**30, 2**30 - 1, 2**31, 3 * 2**30, 2**29])
def test_normals_at_the_ends_of_their_ranges(first, second):
    pair = normal_pair(np.uint64(first), np.uint64(second))
    assert np.isfinite(pair).all()
    assert np.abs(pair).max() <= MAX_NORMAL
    np.testing.assert_allclose(pair, box_muller(first, second), atol=2e-6)


def test_the_largest_normal():
    assert normal_pair(np.uint64(0), np.uint64(2**29))[0] == pytest.approx(MAX_NORMAL, abs=1e-3)
    assert sqrt(2 * log(2**24)) < MAX_NORMAL < sqrt(2 * log(2**24)) + 1e-3


def test_normals_come_from_the_four_words_of_their_block():
    for block in range(20):
        w = [int(part) for part in philox4x32(block, 2, 3, 4, np.uint64(1))]
        np.testing.assert_allclose(
            normals_of(block + 1)[block], [*box_muller(w[0], w[1]), *box_muller(w[2], w[3])], atol=2e-6
        )


def test_normals_are_known_bit_for_bit():
    """The same on every machine: nothing but additions, multiplications, divisions and square roots."""
    given = np.array(normals(0, 0, 0, 0, np.uint64(0)), np.float32).view(np.uint32)
    assert [f"{bits:08x}" for bits in given] == KNOWN_NORMALS


def test_normals_are_standard_and_independent():
    draws = normals_of(20_000).astype(float)
    count = draws.size
    assert abs(draws.mean()) < 4 / sqrt(count)
    assert abs(draws.var() - 1) < 4 * sqrt(2 / count)
    assert abs((draws**3).mean()) < 4 * sqrt(15 / count)
    assert abs((draws**4).mean() - 3) < 4 * sqrt(96 / count)
    assert np.abs(np.corrcoef(draws.T) - np.eye(4)).max() < 4 / sqrt(20_000)
    assert np.abs(np.corrcoef((draws**2).T) - np.eye(4)).max() < 4 / sqrt(20_000)
    ordered = np.sort(draws.ravel())
    expected = np.array([(1 + erf(x / sqrt(2))) / 2 for x in ordered])
    distance = np.abs(expected - (np.arange(count) + 0.5) / count).max()
    assert distance < 1.95 / sqrt(count)  # Kolmogorov and Smirnov, p = 0.001
    assert (normals_of(50, seed=2) != normals_of(50)).all()


@given(
    st.integers(1, 5),
    words,
    st.lists(st.tuples(st.integers(0, 2**31 - 1), words, st.integers(0, 2**64 - 1)), min_size=1, max_size=40),
)
def test_many_normals_at_a_time_are_the_single_ones_bit_for_bit(blocks, stream, counters):
    steps, episodes, seeds = (
        np.array(values, dtype)
        for values, dtype in zip(zip(*counters, strict=True), (np.int32, np.uint32, np.uint64), strict=True)
    )
    out = np.full((len(counters) + 1, blocks, 4), 7, np.float32)
    fill_normals(steps, episodes, stream, seeds, out)
    expected = [
        [normals(block, step, episode, stream, np.uint64(seed)) for block in range(blocks)]
        for step, episode, seed in counters
    ]
    np.testing.assert_array_equal(out[:-1].view(np.uint32), np.array(expected, np.float32).view(np.uint32))
    assert (out[-1] == 7).all()


def test_many_normals_at_a_time_are_known_bit_for_bit():
    seeds = np.zeros(17, np.uint64)
    out = np.empty((17, 1, 4), np.float32)
    fill_normals(np.zeros(17, np.int32), np.zeros(17, np.uint32), 0, seeds, out)
    assert {tuple(f"{bits:08x}" for bits in row) for row in out[:, 0].view(np.uint32)} == {
        tuple(KNOWN_NORMALS)
    }

"""Counter-based random numbers: a draw is a pure function of where it is used.

Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). The key is the seed
of an environment; the counter is (lane, step, episode, stream). No generator object is carried along,
so environment ``i`` of a batch draws what the same seed draws alone, and a saved state continues exactly.
"""

from __future__ import annotations

import numpy as np
from numba import njit

MULTIPLIER_0 = np.uint64(0xD2511F53)
MULTIPLIER_1 = np.uint64(0xCD9E8D57)
WEYL_0 = np.uint64(0x9E3779B9)
WEYL_1 = np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
ROUNDS = 10
_UNIT_24 = np.float32(2.0**-24)

MAX_NORMAL = 5.7685
"""No draw of `normals` is larger in magnitude: sqrt(2 log 2**24), rounded up."""

# Taylor coefficients; on the ranges below their remainders are smaller than a rounding error of float32.
_LOG_2 = np.float32(0.6931471805599453)
_LOG_COEFFICIENTS = tuple(np.float32(2 / k) for k in (1, 3, 5, 7))
_SIN_COEFFICIENTS = tuple(np.float32(c) for c in (1.0, -1 / 6, 1 / 120, -1 / 5040, 1 / 362880))
_COS_COEFFICIENTS = tuple(np.float32(c) for c in (1.0, -1 / 2, 1 / 24, -1 / 720, 1 / 40320))
_SQRT_HALF_BITS = np.int32(0x3F3504F3)
_HALF_PI = np.float32(np.pi / 2)


@njit(cache=True)
def philox4x32(
    lane: int, step: int, episode: int, stream: int, seed: int
) -> tuple[np.uint64, np.uint64, np.uint64, np.uint64]:
    """Return four independent 32-bit words (as uint64) for one counter.

    Args:
        lane: Index of the draw within its step, 0 to 2**32 - 1.
        step: Time step within the episode, 0 to 2**32 - 1.
        episode: Episode number since the seed was given, 0 to 2**32 - 1.
        stream: What the draw is for; one constant per purpose keeps draws apart.
        seed: Key, 0 to 2**64 - 1.
    """
    c0 = np.uint64(lane) & _LOW
    c1 = np.uint64(step) & _LOW
    c2 = np.uint64(episode) & _LOW
    c3 = np.uint64(stream) & _LOW
    k0 = np.uint64(seed) & _LOW
    k1 = np.uint64(seed) >> _SHIFT
    for _ in range(ROUNDS):
        product_0 = MULTIPLIER_0 * c0
        product_1 = MULTIPLIER_1 * c2
        c0 = (product_1 >> _SHIFT) ^ c1 ^ k0
        c1 = product_1 & _LOW
        c2 = (product_0 >> _SHIFT) ^ c3 ^ k1
        c3 = product_0 & _LOW
        k0 = (k0 + WEYL_0) & _LOW
        k1 = (k1 + WEYL_1) & _LOW
    return c0, c1, c2, c3


@njit(cache=True)
def word(lane: int, step: int, episode: int, stream: int, seed: int) -> np.uint64:
    """Return the 32-bit word of one lane (four lanes share a Philox block)."""
    block = philox4x32(lane >> 2, step, episode, stream, seed)
    return block[lane & 3]


@njit(cache=True)
def uniform(lane: int, step: int, episode: int, stream: int, seed: int) -> np.float32:
    """Return a float32 uniform on [0, 1) with 24 random bits."""
    return np.float32(word(lane, step, episode, stream, seed) >> np.uint64(8)) * _UNIT_24


@njit(cache=True, error_model="numpy", forceinline=True)
def normal_pair(first: np.uint64, second: np.uint64) -> tuple[np.float32, np.float32]:
    """Return two independent normals of two 32-bit words (Box and Muller, 1958).

    The logarithm, sine and cosine are polynomials: with nothing but the four operations and a square root, every
    machine draws the same numbers.
    """
    # log u for u = whole / 2**24: u = m 2**e with m in [sqrt(1/2), sqrt(2)), log m = 2 artanh((m - 1) / (m + 1))
    whole = np.float32(np.int32(first >> np.uint64(8)) + np.int32(1))
    bits = whole.view(np.int32)
    exponent = (bits - _SQRT_HALF_BITS) >> np.int32(23)
    m = np.int32(bits - (exponent << np.int32(23))).view(np.float32)
    s = (m - np.float32(1)) / (m + np.float32(1))
    z = s * s
    c0, c1, c2, c3 = _LOG_COEFFICIENTS
    log_u = np.float32(exponent - np.int32(24)) * _LOG_2 + s * (c0 + z * (c1 + z * (c2 + z * c3)))
    radius = np.sqrt(np.float32(-2) * log_u)
    # the angle: a quarter of the circle from the top two bits, and within it -pi/4 to pi/4 from the next 24
    part = np.float32(np.int32((second >> np.uint64(6)) & np.uint64(0xFFFFFF))) * _UNIT_24 - np.float32(0.5)
    angle = part * _HALF_PI
    z = angle * angle
    s0, s1, s2, s3, s4 = _SIN_COEFFICIENTS
    sine = radius * angle * (s0 + z * (s1 + z * (s2 + z * (s3 + z * s4))))
    c0, c1, c2, c3, c4 = _COS_COEFFICIENTS
    cosine = radius * (c0 + z * (c1 + z * (c2 + z * (c3 + z * c4))))
    # one choice for each number: loops over many pairs then stay without branches
    odd, second_half = second & np.uint64(1 << 30) != 0, second & np.uint64(1 << 31) != 0
    x, y = -sine if odd else cosine, cosine if odd else sine
    return -x if second_half else x, -y if second_half else y


@njit(cache=True)
def normals(
    block: int, step: int, episode: int, stream: int, seed: int
) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Return four independent standard normals (float32): the lanes ``4 block`` to ``4 block + 3``.

    They lie within `MAX_NORMAL` of 0 and are the same on every machine, bit for bit.
    """
    w0, w1, w2, w3 = philox4x32(block, step, episode, stream, seed)
    n0, n1 = normal_pair(w0, w1)
    n2, n3 = normal_pair(w2, w3)
    return n0, n1, n2, n3


@njit(cache=True)
def below(bound: int, lane: int, step: int, episode: int, stream: int, seed: int) -> np.int64:
    """Return an integer uniform on 0 .. bound - 1 (bias below bound / 2**32)."""
    return np.int64((word(lane, step, episode, stream, seed) * np.uint64(bound)) >> _SHIFT)


@njit(cache=True)
def integers(bound: int, lanes: int, steps: np.ndarray, stream: int, seeds: np.ndarray) -> np.ndarray:
    """Return int64 ``[E, lanes]`` uniform on 0 .. bound - 1, one row per (step, seed) pair of episode 0."""
    out = np.empty((seeds.shape[0], lanes), np.int64)
    for row in range(seeds.shape[0]):
        for lane in range(lanes):
            out[row, lane] = below(bound, lane, steps[row], 0, stream, seeds[row])
    return out

"""Counter-based random numbers: a draw is a pure function of where it is used.

Philox-4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011). The key is the seed
of an environment copy; the counter is (lane, step, episode, stream). No generator object is carried along,
so copy ``i`` of a batch draws what the same seed draws alone, and a saved state continues exactly.
"""

from __future__ import annotations

import numpy as np
from numba import njit

_MULTIPLIER_0 = np.uint64(0xD2511F53)
_MULTIPLIER_1 = np.uint64(0xCD9E8D57)
_WEYL_0 = np.uint64(0x9E3779B9)
_WEYL_1 = np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_SHIFT = np.uint64(32)
_ROUNDS = 10
_UNIT_24 = np.float32(2.0**-24)


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
    for _ in range(_ROUNDS):
        product_0 = _MULTIPLIER_0 * c0
        product_1 = _MULTIPLIER_1 * c2
        c0 = (product_1 >> _SHIFT) ^ c1 ^ k0
        c1 = product_1 & _LOW
        c2 = (product_0 >> _SHIFT) ^ c3 ^ k1
        c3 = product_0 & _LOW
        k0 = (k0 + _WEYL_0) & _LOW
        k1 = (k1 + _WEYL_1) & _LOW
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

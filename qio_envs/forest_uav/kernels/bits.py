"""Bit maps: what is true or false of a cell is bit ``cell % 8`` of byte ``cell // 8``."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array

BYTE, IN_BYTE, ONE = np.uintp(3), np.uintp(7), np.uint64(1)  # byte of a cell, bit in it
USUAL_SIDE = np.uintp(5)  # crops of the default radius have code of their own, without loops
WORD = np.uintp(56)  # columns that a word holds from any bit of its first byte onwards


@njit(cache=True, error_model="numpy", forceinline=True)
def is_set(bits: Array, base: int, cell: int) -> bool:
    """Whether a cell of the flat bit map that begins at byte ``base`` is set."""
    return (bits[base + (cell >> BYTE)] >> (cell & IN_BYTE)) & np.uintp(1) != 0


@njit(cache=True, error_model="numpy", forceinline=True)
def lowest(count: int) -> np.uint64:
    """Return a word with its ``count`` lowest bits set, `WORD` of them at most."""
    return (ONE << np.uint64(count if count < WORD else WORD)) - ONE

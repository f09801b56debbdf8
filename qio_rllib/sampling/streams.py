"""Random numbers, a stream of its own for each purpose."""

from __future__ import annotations

import zlib

import numpy as np
import torch


def generator(seed: int | None, purpose: str, *index: int) -> np.random.Generator:
    """Return the random numbers of one purpose.

    ``SeedSequence`` pads with zeros, so that numbers alone would give the runner of index 0 and the replay of one seed
    the same stream.

    Args:
        seed: Of the run; None for another stream each time.
        purpose: What they are for, such as ``"runner"``.
        index: Numbers of at least 0 that tell streams of one purpose apart.
    """
    return np.random.Generator(np.random.Philox(_sequence(seed, purpose, index)))


def torch_generator(seed: int | None, purpose: str, *index: int) -> torch.Generator:
    """Return random numbers of one purpose for torch; arguments as for `generator`."""
    state = _sequence(seed, purpose, index).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def _sequence(seed: int | None, purpose: str, index: tuple[int, ...]) -> np.random.SeedSequence:
    if seed is None:
        return np.random.SeedSequence()
    return np.random.SeedSequence((seed, zlib.crc32(purpose.encode()), *index))

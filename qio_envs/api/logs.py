"""Logged data: the first episodes of one seed, played side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from qio_envs.api.batched import Array, BatchedEnv


def reset_to_episodes(env: BatchedEnv, seed: int) -> None:
    """Reset environment ``i`` of a batch to episode ``i`` of one seed.

    Args:
        env: The environments.
        seed: 0 to 2**64 - 1.

    Raises:
        ValueError: A seed that does not fit.
    """
    env.reset([seed] * env.num_envs)
    env.arrays.episode[:] = np.arange(env.num_envs, dtype=np.uint32) - np.uint32(
        1
    )  # a reset adds 1, modulo 2**32
    env.reset()


def episodes_for(num_steps: int, length: int) -> int:
    """Return how many episodes of ``length`` steps hold ``num_steps``.

    Raises:
        ValueError: ``num_steps`` is no integer of at least 1.
    """
    if isinstance(num_steps, bool) or not isinstance(num_steps, int | np.integer) or num_steps < 1:
        raise ValueError(f"num_steps: expected an integer of at least 1, got {num_steps!r}")
    return -(-int(num_steps) // length)


def columns_of(rows: Sequence[Mapping[str, Any]], num_steps: int) -> dict[str, Array]:
    """Return the first ``num_steps`` steps as columns, float64 ``[num_steps]``, one episode after the other.

    Args:
        rows: For each step of the episodes an array ``[E]`` of each column.
        num_steps: Length of the columns.
    """
    return {
        name: np.stack([np.asarray(row[name], np.float64) for row in rows], axis=1).ravel()[:num_steps].copy()
        for name in rows[0]
    }

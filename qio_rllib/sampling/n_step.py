"""Windows of successive steps, and transitions over several steps from them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from qio_rllib.sampling.rollout import Array

_FOLLOWING = ("next_observations", "next_action_mask", "present_next")


class Windows(NamedTuple):
    """Windows ``[B, n, ...]`` of a column ``[C, E, ...]``, of which only what is asked for is copied."""

    column: Array
    steps: Array  # int64 [B, n]
    envs: Array  # int64 [B]

    def whole(self) -> Array:
        """Return them, ``[B, n, ...]``."""
        return self.column[self.steps, self.envs[:, None]]

    def first(self) -> Array:
        """Return their first steps, ``[B, ...]``."""
        return self.column[self.steps[:, 0], self.envs]

    def at(self, place: Array) -> Array:
        """Return the steps at places of each window, int64 ``[B]``, or of each window and agent, ``[B, M]``."""
        if place.ndim == 1:
            return self.column[self.steps[np.arange(len(place)), place], self.envs]
        steps = np.take_along_axis(self.steps, place, axis=1)
        return self.column[steps, self.envs[:, None], np.arange(place.shape[1])]


def n_step_modules(
    parts: Mapping[str, Mapping[str, Windows]],
    states: tuple[Windows, Windows] | None,
    team: bool,
) -> tuple[dict[str, dict[str, Array]], tuple[Array, Array] | None]:
    """Return transitions over several steps from windows of single ones.

    Args:
        parts: Columns by module.
        states: Global states, and those that follow each step; None for none.
        team: Whether an agent's steps are counted until the episode of the last of all agents ends, not until its own.

    Returns:
        The columns ``[B, ...]`` by module, and the states.
    """
    fresh = {module_id: columns["fresh"].whole() for module_id, columns in parts.items()}
    everybody: Array = np.all(np.concatenate([*fresh.values()], axis=2), axis=2, keepdims=True)
    modules = {
        module_id: n_step_columns(
            columns, np.broadcast_to(everybody, fresh[module_id].shape) if team else fresh[module_id]
        )
        for module_id, columns in parts.items()
    }
    if states is None:
        return modules, None
    before, following = states
    return modules, (before.first(), following.at(_steps_reached(everybody)[:, 0]))


def n_step_columns(columns: Mapping[str, Windows], fresh: Array) -> dict[str, Array]:
    """Return transitions over several steps from windows ``[B, n, M, ...]`` of single ones.

    ``rewards`` becomes ``sum_k gamma^k r_k`` up to the end of an episode or ``n`` steps; ``discounts``,
    ``present_next`` and what comes next are those of the last of these steps (Watkins, 1989).

    Args:
        columns: Of one module.
        fresh: The steps before which an episode begins, bool ``[B, n, M]``.
    """
    reached = _steps_reached(fresh)
    found = {
        name: windows.at(reached) if name in _FOLLOWING else windows.first()
        for name, windows in columns.items()
        if name not in ("rewards", "discounts")
    }
    rewards = columns["rewards"].whole()
    discounts = np.cumprod(columns["discounts"].whole(), axis=1)
    before = np.concatenate([np.ones_like(discounts[:, :1]), discounts[:, :-1]], axis=1)
    counted = np.arange(rewards.shape[1])[None, :, None] <= reached[:, None]
    found["rewards"] = (rewards * before * counted).sum(axis=1).astype(np.float32)
    found["discounts"] = np.take_along_axis(discounts, reached[:, None], axis=1)[:, 0]
    return found


def _steps_reached(fresh: Array) -> Array:
    """Return how many steps after the first one belong to the same episode, int64 ``[B, M]``."""
    return np.cumprod(~fresh[:, 1:], axis=1, dtype=np.int64).sum(axis=1)

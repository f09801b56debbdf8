"""Joint replay: what all agents of a copy saw and did in a step is one row, in arrays."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection
from typing import Any

import numpy as np
from ray.rllib.utils.checkpoints import Checkpointable

from qio_envs.api import ConfigError
from qio_rllib.sampling.rollout import Array, ModuleRollout, Rollout


@dataclasses.dataclass
class JointBatch:
    """Rows of a `JointReplay`: ``B`` joint steps of all agents.

    Attributes:
        modules: By module id the columns of its ``M`` agents: ``observations`` and ``next_observations`` (float32
            ``[B, M, ...]``), ``actions`` (int64 ``[B, M]``, or float32 ``[B, M, D]`` in [-1, 1] as executed),
            ``rewards`` (float32 ``[B, M]``), ``acted``, ``terminated`` and ``present_next`` (bool ``[B, M]``; the
            last: there is a next observation that the agent's return goes on from); where there are any
            ``action_mask`` and ``next_action_mask`` (bool ``[B, M, A]``), ``messages`` (float32 ``[B, M, K]``) and
            ``delivered`` (bool ``[B, M, N]``, by slot of the sender).
        states: float32 ``[B, S]``, or None.
        next_states: Likewise.
    """

    modules: dict[str, dict[str, Array]]
    states: Array | None
    next_states: Array | None

    def __len__(self) -> int:
        """Number of rows ``B``."""
        return len(next(iter(self.modules.values()))["rewards"])

    def __getitem__(self, rows: slice | Array) -> JointBatch:
        """Return some of the rows."""
        return JointBatch(
            {
                module_id: {name: array[rows] for name, array in columns.items()}
                for module_id, columns in self.modules.items()
            },
            None if self.states is None else self.states[rows],
            None if self.next_states is None else self.next_states[rows],
        )

    def slice(self, rows: slice, len_lookback_buffer: int | None = None) -> JointBatch:
        """Return some of the rows; RLlib's name for it."""
        return self[rows]

    def columns(self) -> dict[str, Array]:
        """Return all arrays by a flat name."""
        found = {
            f"{module_id}/{name}": array
            for module_id, columns in self.modules.items()
            for name, array in columns.items()
        }
        if self.states is not None and self.next_states is not None:
            found |= {"states": self.states, "next_states": self.next_states}
        return found


def joint_steps(rollout: Rollout) -> JointBatch:
    """Return the steps of a rollout as rows, those left out in which nobody acted.

    An action is kept as the environment executed it: clipped to [-1, 1] where it is continuous. What follows a
    truncated step is what the agent saw last, not what it sees after the reset.
    """
    parts = {module_id: _columns(part) for module_id, part in rollout.modules.items()}
    first = next(iter(rollout.modules.values()))
    states = next_states = None
    if first.states is not None:
        states, next_states = first.states[:-1], first.states[1:].copy()
        for part in rollout.modules.values():
            steps, copies, _ = part.final_index.T
            next_states[steps, copies] = part.final_states
        states, next_states = (_rows(array, 2) for array in (states, next_states))
    whole = JointBatch(parts, states, next_states)
    anybody = np.logical_or.reduce([columns["acted"].any(axis=1) for columns in parts.values()])
    return whole if anybody.all() else whole[np.flatnonzero(anybody)]


class JointReplay(Checkpointable):
    """A ring of joint steps, drawn from uniformly and with replacement.

    Args:
        capacity: Rows at most; the oldest give way. At least 1.
        seed: Of the draws; None for another each time.

    Raises:
        ConfigError: So many rows do not fit in this machine's memory; seen when the first ones arrive.
    """

    def __init__(self, capacity: int, seed: int | None = None) -> None:
        self.capacity = capacity
        self.seed = seed
        self._rng = np.random.Generator(np.random.Philox(seed))
        self._rows: JointBatch | None = None
        self._filled = 0
        self._next = 0

    def __len__(self) -> int:
        """Rows that are filled."""
        return self._filled

    def add(self, rollout: Rollout) -> int:
        """Take in the steps of a rollout; return how many rows that were."""
        steps = joint_steps(rollout)
        count = len(steps)
        if not count:
            return 0
        if self._rows is None:
            self._rows = self._allocated(steps)
        kept = steps[count - self.capacity :] if count > self.capacity else steps
        place = (self._next + np.arange(len(kept))) % self.capacity
        ours = self._rows.columns()
        for name, array in kept.columns().items():
            ours[name][place] = array
        self._next = int((self._next + len(kept)) % self.capacity)
        self._filled = min(self._filled + len(kept), self.capacity)
        return count

    def sample(self, rows: int) -> JointBatch:
        """Draw rows.

        Raises:
            ValueError: There are none yet.
        """
        if self._rows is None:
            raise ValueError("the replay is empty")
        return self._rows[self._rng.integers(self._filled, size=rows)]

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return the filled rows and the source of the draws."""
        rows = None if self._rows is None else self._rows[slice(self._filled)]
        return {
            "rows": rows,
            "next": self._next,
            "capacity": self.capacity,
            "rng": self._rng.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state; of one with more rows than fit here, the newest stay."""
        self._rng.bit_generator.state = state["rng"]
        rows: JointBatch | None = state["rows"]
        self._rows, self._filled, self._next = None, 0, 0
        if rows is None:
            return
        order, place = np.arange(len(rows)), state["next"]
        if state["capacity"] != self.capacity:
            # From the oldest on, which is at `next` once the ring is full, and else the first.
            order = np.roll(order, -(place % len(rows)))[-self.capacity :]
            place = len(order) % self.capacity
        self._rows = self._allocated(rows)
        ours = self._rows.columns()
        for name, array in rows.columns().items():
            ours[name][: len(order)] = array[order]
        self._filled, self._next = len(order), place

    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        """Return what a checkpoint needs to build the replay again."""
        return (self.capacity, self.seed), {}

    def _allocated(self, like: JointBatch) -> JointBatch:
        arrays = like.columns()
        needed = sum(array[:1].nbytes for array in arrays.values()) * self.capacity
        present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > present:
            raise ConfigError(
                f"replay_capacity: {self.capacity} joint steps take {needed:,} bytes, this machine has {present:,}"
            )

        def empty(array: Array) -> Array:
            return np.zeros((self.capacity, *array.shape[1:]), array.dtype)

        return JointBatch(
            {
                module_id: {name: empty(array) for name, array in columns.items()}
                for module_id, columns in like.modules.items()
            },
            None if like.states is None else empty(like.states),
            None if like.next_states is None else empty(like.next_states),
        )


def _columns(part: ModuleRollout) -> dict[str, Array]:
    following = part.observations[1:].copy()
    following[tuple(part.final_index.T)] = part.final_observations
    actions = part.actions if part.actions.dtype.kind == "i" else part.actions.clip(-1.0, 1.0)
    columns = {
        "observations": part.observations[:-1],
        "next_observations": following,
        "actions": actions,
        "rewards": part.rewards,
        "acted": part.acted,
        "terminated": part.terminated & part.acted,
        "present_next": part.continues | (part.acted & part.truncated),
    }
    if part.action_mask is not None:
        # After a cut episode the mask belongs to the next one: any action may follow there.
        legal = part.action_mask[1:].copy()
        legal[tuple(part.final_index.T)] = True
        columns |= {"action_mask": part.action_mask[:-1], "next_action_mask": legal}
    if part.messages is not None and part.delivered is not None:
        columns |= {"messages": part.messages, "delivered": part.delivered}
    return {name: _rows(array, 2) for name, array in columns.items()}


def _rows(array: Array, axes: int) -> Array:
    """Return an array with its first axes joined."""
    return array.reshape(-1, *array.shape[axes:])

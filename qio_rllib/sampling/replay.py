"""Joint replay: what all agents of an environment observed and did in a step is one transition, in arrays."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from ray.rllib.utils.checkpoints import Checkpointable

from qio_envs.api import ConfigError
from qio_rllib.acting.pooled_actor import LEARNING
from qio_rllib.acting.team import COLUMNS
from qio_rllib.sampling.n_step import Windows, n_step_modules
from qio_rllib.sampling.rollout import Array, ModuleRollout, Rollout
from qio_rllib.sampling.streams import generator

_GLOBAL_STATES, _NEXT_GLOBAL_STATES = "global_states", "next_global_states"


@dataclasses.dataclass
class JointTransitions:
    """``B`` joint transitions of all agents, or ``B`` sequences of ``L`` successive ones.

    Shapes are those of transitions; sequences have a second axis ``L`` behind the first.

    Attributes:
        modules: By module id the columns of its ``M`` agents: ``observations`` and ``next_observations`` (float32
            ``[B, M, ...]``), ``actions`` (int64 ``[B, M]``, or float32 ``[B, M, D]`` in [-1, 1] as executed),
            ``rewards`` (float32 ``[B, M]``; sums of discounted rewards with n-step returns), ``discounts`` (float32
            ``[B, M]``, of the value of what follows), ``acted``, ``terminated``, ``present_next`` (there is a next
            observation that the agent's return goes on from) and ``fresh`` (the agent begins with this step), bool
            ``[B, M]``; where there are any ``action_mask`` and ``next_action_mask`` (bool ``[B, M, A]``), ``messages``
            (float32 ``[B, M, K]``), ``delivered`` (bool ``[B, M, N]``, by the sender's index) and ``learning`` (bool
            ``[B, M]``, the agent played with the present policy). ``memory/<name>`` is
            the agents' memory before the (first) step, float32 ``[B, M, S]``.
        global_states: float32 ``[B, S]``, or None.
        next_global_states: Likewise.
    """

    modules: dict[str, dict[str, Array]]
    global_states: Array | None = None
    next_global_states: Array | None = None

    def __len__(self) -> int:
        """Number of transitions or sequences ``B``."""
        return len(next(iter(self.modules.values()))["rewards"])

    def __getitem__(self, rows: slice | Array) -> JointTransitions:
        """Return some of them."""
        return JointTransitions(
            {
                module_id: {name: array[rows] for name, array in columns.items()}
                for module_id, columns in self.modules.items()
            },
            None if self.global_states is None else self.global_states[rows],
            None if self.next_global_states is None else self.next_global_states[rows],
        )

    def slice(self, rows: slice, len_lookback_buffer: int | None = None) -> JointTransitions:
        """Return some of them; RLlib's name for it."""
        return self[rows]

    def flat(self) -> dict[str, Array]:
        """Return all arrays by a flat name."""
        found = {
            f"{module_id}\n{name}": array
            for module_id, columns in self.modules.items()
            for name, array in columns.items()
        }
        if self.global_states is not None and self.next_global_states is not None:
            found |= {_GLOBAL_STATES: self.global_states, _NEXT_GLOBAL_STATES: self.next_global_states}
        return found

    @classmethod
    def from_flat(cls, arrays: Mapping[str, Array]) -> JointTransitions:
        """Return what `flat` took apart."""
        modules: dict[str, dict[str, Array]] = {}
        for key, array in arrays.items():
            module_id, mark, name = key.partition("\n")
            if mark:
                modules.setdefault(module_id, {})[name] = array
        return cls(modules, arrays.get(_GLOBAL_STATES), arrays.get(_NEXT_GLOBAL_STATES))


def joint_transitions(rollout: Rollout, gamma: float) -> JointTransitions:
    """Return the steps of a rollout as transitions ``[T, E, ...]``.

    An action is kept as the environment executed it: clipped to [-1, 1] where it is continuous. What follows the last
    step of an episode is what the agent saw last, not what it sees after the reset.

    Args:
        rollout: As a runner gives it.
        gamma: Discount.
    """
    first = next(iter(rollout.modules.values()))
    states = following = None
    if first.global_states is not None:
        states, following = first.global_states[:-1], first.global_states[1:].copy()
        for part in rollout.modules.values():
            steps, envs, _ = part.final_index.T
            following[steps, envs] = part.final_global_states
    return JointTransitions(
        {module_id: _columns(part, gamma) for module_id, part in rollout.modules.items()},
        states,
        following,
    )


class JointReplay(Checkpointable):
    """The newest joint transitions of every environment, drawn from uniformly and with replacement.

    Each runner's environments have a ring of their own, in which successive steps follow each other, so that sequences
    can be drawn; none crosses the place that is written next.

    Args:
        capacity: Joint transitions at most, over all environments; the oldest give way. At least 1.
        seed: Of the draws; None for another each time.
        sequence_length: Successive steps ``L`` in a sample; 1 for single transitions.
        n_step: Steps over which rewards are summed; for single transitions.
        gamma: Discount.
        num_runners: Runners that share the capacity.
        team: Whether rewards are a team's, summed as long as one of its agents goes on, not each agent's own.

    Raises:
        ConfigError: So many transitions do not fit in this machine's memory, or a ring cannot hold a sample; seen when
            the first ones arrive.
    """

    def __init__(
        self,
        capacity: int,
        seed: int | None = None,
        sequence_length: int = 1,
        n_step: int = 1,
        gamma: float = 0.99,
        num_runners: int = 1,
        team: bool = False,
    ) -> None:
        self.capacity, self.seed = capacity, seed
        self.sequence_length, self.n_step, self.gamma = sequence_length, n_step, gamma
        self.num_runners, self.team = num_runners, team
        self.seed_streams(seed)
        self._rings: dict[int, _Ring] = {}

    def seed_streams(self, seed: int | None) -> None:
        """Begin the random numbers of a seed."""
        self._rng = generator(seed, "replay")

    @property
    def _window(self) -> int:
        return max(self.sequence_length, self.n_step)

    def __len__(self) -> int:
        """Joint transitions that are kept."""
        return sum(ring.filled * ring.num_envs for ring in self._rings.values())

    @property
    def num_samples(self) -> int:
        """Different transitions, or sequences, that can be drawn."""
        return sum(ring.starts(self._window) * ring.num_envs for ring in self._rings.values())

    def add(self, rollout: Rollout) -> int:
        """Take in the steps of a rollout; return how many joint transitions that were."""
        steps = joint_transitions(rollout, self.gamma).flat()
        if rollout.runner not in self._rings:
            self._rings[rollout.runner] = self._ring(steps)
        self._rings[rollout.runner].add(steps)
        return rollout.env_steps()

    def sample(self, count: int) -> JointTransitions:
        """Draw transitions, or sequences.

        Raises:
            ValueError: There are none yet.
        """
        if not self.num_samples:
            raise ValueError("the replay is empty")
        rings = [ring for ring in self._rings.values() if ring.starts(self._window)]
        ends = np.cumsum([ring.starts(self._window) * ring.num_envs for ring in rings])
        drawn = self._rng.integers(ends[-1], size=count)
        owner = np.searchsorted(ends, drawn, side="right")
        parts = []
        for r, ring in enumerate(rings):
            mine = np.flatnonzero(owner == r)
            if len(mine):
                place = drawn[mine] - (ends[r - 1] if r else 0)
                windows = ring.windows(place // ring.num_envs, place % ring.num_envs, self._window)
                parts.append((mine, self._shaped(windows)))
        if len(parts) == 1:
            arrays = parts[0][1]
        else:
            arrays = {
                name: np.empty((count, *array.shape[1:]), array.dtype) for name, array in parts[0][1].items()
            }
            for mine, found in parts:
                for name, array in found.items():
                    arrays[name][mine] = array
        return JointTransitions.from_flat(arrays)

    def newest(self, count: int) -> JointTransitions:
        """Return the newest single transitions, at most ``count``, each once, older ones first within a runner.

        Raises:
            ValueError: There are none yet.
        """
        if not len(self):
            raise ValueError("the replay is empty")
        share = -(-count // len(self._rings))
        parts = []
        for ring in self._rings.values():
            arrays = {name: array.reshape(-1, *array.shape[2:]) for name, array in ring.ordered().items()}
            parts.append({name: array[-share:] for name, array in arrays.items()})
        joined = {name: np.concatenate([part[name] for part in parts])[-count:] for name in parts[0]}
        return JointTransitions.from_flat(joined)

    def _shaped(self, windows: Mapping[str, Windows]) -> dict[str, Array]:
        """Return samples from windows, by flat names."""
        if self.n_step == 1:
            single = self.sequence_length == 1
            return {
                name: part.first() if single or _is_memory(name) else part.whole()
                for name, part in windows.items()
            }
        parts: dict[str, dict[str, Windows]] = {}
        for name, part in windows.items():
            module_id, mark, column = name.partition("\n")
            if mark:
                parts.setdefault(module_id, {})[column] = part
        states = None
        if _GLOBAL_STATES in windows:
            states = windows[_GLOBAL_STATES], windows[_NEXT_GLOBAL_STATES]
        modules, found = n_step_modules(parts, states, self.team)
        return JointTransitions(modules, *(found or ())).flat()

    def get_state(
        self,
        components: str | Collection[str] | None = None,
        *,
        not_components: str | Collection[str] | None = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        """Return what is kept, from the oldest on, and the source of the draws."""
        return {
            "rings": {runner: ring.ordered() for runner, ring in self._rings.items()},
            "rng": self._rng.bit_generator.state,
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state; of one with more transitions than fit here, the newest stay."""
        self._rng.bit_generator.state = state["rng"]
        self._rings = {}
        for runner, arrays in state["rings"].items():
            self._rings[runner] = self._ring(arrays)
            self._rings[runner].add(arrays)

    def get_ctor_args_and_kwargs(self) -> tuple[tuple, dict[str, Any]]:
        """Return what a checkpoint needs to build the replay again."""
        arguments = (self.capacity, self.seed, self.sequence_length, self.n_step, self.gamma)
        return (*arguments, self.num_runners, self.team), {}

    def _ring(self, like: Mapping[str, Array]) -> _Ring:
        envs = next(iter(like.values())).shape[1]
        steps = -(-self.capacity // (envs * self.num_runners))
        if steps < self._window:
            raise ConfigError(
                f"replay_capacity: {self.capacity} joint transitions are {steps} steps of each environment, a sample "
                f"needs {self._window}"
            )
        needed = sum(array[:1].nbytes for array in like.values()) * steps * self.num_runners
        present = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
        if needed > present:
            raise ConfigError(
                f"replay_capacity: {self.capacity} joint transitions take {needed:,} bytes, this machine has "
                f"{present:,}"
            )
        return _Ring({name: np.zeros((steps, *array.shape[1:]), array.dtype) for name, array in like.items()})


class _Ring:
    """Arrays ``[C, E, ...]`` in which the newest ``C`` steps of ``E`` environments lie."""

    def __init__(self, arrays: dict[str, Array]) -> None:
        self.arrays = arrays
        first = next(iter(arrays.values()))
        self.capacity, self.num_envs = first.shape[:2]
        self.filled = self.next = 0

    def add(self, steps: Mapping[str, Array]) -> None:
        count = len(next(iter(steps.values())))
        skipped = max(0, count - self.capacity)
        place = (self.next + np.arange(count - skipped)) % self.capacity
        for name, array in steps.items():
            self.arrays[name][place] = array[skipped:]
        self.next = int((self.next + len(place)) % self.capacity)
        self.filled = min(self.filled + len(place), self.capacity)

    def starts(self, length: int) -> int:
        """Return from how many steps a window can begin."""
        return max(0, self.filled - length + 1)

    def windows(self, starts: Array, envs: Array, length: int) -> dict[str, Windows]:
        """Return windows of so many steps; start 0 is the oldest step."""
        oldest = self.next if self.filled == self.capacity else 0
        steps = (oldest + starts[:, None] + np.arange(length)) % self.capacity
        return {name: Windows(array, steps, envs) for name, array in self.arrays.items()}

    def ordered(self) -> dict[str, Array]:
        """Return the steps from the oldest on."""
        oldest = self.next if self.filled == self.capacity else 0
        steps = (oldest + np.arange(self.filled)) % self.capacity
        return {name: array[steps] for name, array in self.arrays.items()}


def _is_memory(name: str) -> bool:
    return name.partition("\n")[2].startswith("memory/")


def _columns(part: ModuleRollout, gamma: float) -> dict[str, Array]:
    following = part.observations[1:].copy()
    following[tuple(part.final_index.T)] = part.final_observations
    actions = part.actions if part.actions.dtype.kind == "i" else part.actions.clip(-1.0, 1.0)
    cut = part.acted & part.truncated
    columns = {
        "observations": part.observations[:-1],
        "next_observations": following,
        "actions": actions,
        "rewards": part.rewards,
        "discounts": np.full(part.rewards.shape, gamma, np.float32),
        "acted": part.acted,
        "terminated": part.terminated & part.acted,
        "present_next": part.continues | cut,
        "fresh": part.fresh_steps()[:-1],
    }
    if part.action_mask is not None:
        # After a cut episode the mask belongs to the next one: any action may follow there.
        legal = part.action_mask[1:].copy()
        legal[tuple(part.final_index.T)] = True
        columns |= {"action_mask": part.action_mask[:-1], "next_action_mask": legal}
    for name in (*COLUMNS, LEARNING):
        if name in part.columns:
            columns[name] = part.columns[name]
    for name, memory in part.memory.items():
        columns[f"memory/{name}"] = memory
    return columns

"""`Rollout`: the one carrier of experience between the runners and the loss."""

from __future__ import annotations

import dataclasses
import pickle
import traceback
from collections.abc import Hashable, Mapping
from typing import Any, NoReturn

import numpy as np

from qio_rllib.acting.pooled_actor import LEARNING

Array = np.ndarray
_OF_FINAL_ROWS = ("final_observations", "final_global_states")
_SAME_FOR_ALL = ("agents", "agent_index", "final_index", "memory_interval")


@dataclasses.dataclass
class ModuleRollout:
    """What the agents of one module observed, did and got: ``T`` steps of ``E`` environments and ``M`` agents.

    Rows in which an agent did not act (it had ended, or was not there yet) mean nothing; `acted` tells them.
    """

    agents: tuple[Hashable, ...]  # M agent ids
    agent_index: Array  # int64 [M], the agents' indices among all agents of the environment
    observations: Array  # float32 [T + 1, E, M, ...]; the last row is what follows the last step
    action_mask: Array | None  # bool [T + 1, E, M, A], True = legal
    actions: (
        Array  # int64 [T, E, M], or float32 [T, E, M, D] as the policy gave them, before scaling to bounds
    )
    rewards: Array  # float32 [T, E, M]
    terminated: Array  # bool [T, E, M], the task ended for the agent
    truncated: Array  # bool [T, E, M], a limit outside the task cut its episode, and it did not terminate
    acted: Array  # bool [T, E, M]
    continues: Array  # bool [T, E, M], the agent acts in the next step of the same episode
    fresh: Array  # bool [E, M], the agent does not go on from before the first step
    final_index: (
        Array  # int64 [K, 3], (step, environment, agent) of the rows that ended, terminated or truncated
    )
    final_observations: (
        Array  # float32 [K, ...], what those agents saw last, before the environment was reset
    )
    global_states: Array | None = (
        None  # float32 [T + 1, E, S], what a central critic sees; the same for all modules
    )
    final_global_states: Array | None = None  # float32 [K, S], of the same rows
    columns: dict[str, Array] = dataclasses.field(
        default_factory=dict
    )  # [T, E, M, ...], what the Actor keeps
    memory: dict[str, Array] = dataclasses.field(
        default_factory=dict
    )  # float32 [W, E, M, S], before steps 0, I, 2 I; {} where I is 0
    memory_interval: int = 1  # I, steps between two recorded memories

    @property
    def num_steps(self) -> int:
        """Steps ``T``."""
        return self.rewards.shape[0]

    def next_observations(self) -> Array:
        """Return what followed each step, float32 ``[T, E, M, ...]``; at an episode's end what the agent saw last."""
        following = self.observations[1:].copy()
        following[tuple(self.final_index.T)] = self.final_observations
        return following

    def fresh_steps(self) -> Array:
        """Return the steps before which an agent's memory is that of an episode's start, bool ``[T + 1, E, M]``."""
        return np.concatenate([self.fresh[None], ~(self.continues & self.acted)])

    def select(self, envs: slice) -> ModuleRollout:
        """Return some of the environments, as views where ``envs`` has step 1."""
        chosen = np.arange(self.rewards.shape[1])[envs]
        place = np.full(self.rewards.shape[1], -1)
        place[chosen] = np.arange(len(chosen))
        kept = place[self.final_index[:, 1]] >= 0
        steps, old, agents = self.final_index[kept].T

        def part(name: str, value: Any) -> Any:
            if isinstance(value, dict):
                return {key: array[:, envs] for key, array in value.items()}
            if value is None or name in _SAME_FOR_ALL:
                return value
            return (
                value[kept] if name in _OF_FINAL_ROWS else value[envs] if name == "fresh" else value[:, envs]
            )

        parts = {
            field.name: part(field.name, getattr(self, field.name)) for field in dataclasses.fields(self)
        }
        parts["final_index"] = np.stack([steps, place[old], agents], axis=1)
        return ModuleRollout(**parts)


class Rollout:
    """``T`` consecutive steps of ``E`` environments, by module; time runs along the first axis of each array.

    RLlib takes it where it takes a list of episodes: its length is the number of environments, and a slice is a
    `Rollout` of some of them, so that several Learners share a batch by environments.

    Args:
        modules: What each module's agents experienced.
        runner: Index of the runner; consecutive rollouts of one runner go on from each other.
    """

    def __init__(self, modules: Mapping[str, ModuleRollout], runner: int = 0) -> None:
        self.modules = dict(modules)
        self.runner = runner

    def __len__(self) -> int:
        """Number of environments ``E``."""
        return next(iter(self.modules.values())).rewards.shape[1]

    def __getitem__(self, envs: slice) -> Rollout:
        """Return some of the environments, as views where the slice has step 1."""
        return Rollout(
            {module_id: part.select(envs) for module_id, part in self.modules.items()}, self.runner
        )

    def slice(self, envs: slice, len_lookback_buffer: int | None = None) -> Rollout:
        """Return some of the environments; RLlib's name for it (there is no lookback here)."""
        return self[envs]

    def env_steps(self) -> int:
        """Environment steps: ``T * E``."""
        part = next(iter(self.modules.values()))
        return part.num_steps * part.rewards.shape[1]

    def agent_steps(self) -> int:
        """Steps that agents acted in."""
        return sum(int(part.acted.sum()) for part in self.modules.values())


def with_limits_as_ends(part: ModuleRollout) -> ModuleRollout:
    """Return a rollout in which an episode that a limit has cut terminated there: no return goes on behind it."""
    return dataclasses.replace(
        part, terminated=part.terminated | part.truncated, truncated=np.zeros_like(part.truncated)
    )


def without_snapshots(rollout: Rollout) -> Rollout:
    """Return a rollout in which agents that played with snapshots (``self_play``) did not act."""
    modules = {
        module_id: dataclasses.replace(part, acted=part.acted & part.columns[LEARNING])
        if LEARNING in part.columns
        else part
        for module_id, part in rollout.modules.items()
    }
    return Rollout(modules, rollout.runner)


def join(parts: list[ModuleRollout]) -> list[ModuleRollout]:
    """Join rollouts of equal length and agents along the environments; those that differ stay apart."""
    groups: dict[Any, list[ModuleRollout]] = {}
    for part in parts:
        groups.setdefault((part.num_steps, part.agents), []).append(part)
    return [group[0] if len(group) == 1 else _concatenated(group) for group in groups.values()]


def _concatenated(parts: list[ModuleRollout]) -> ModuleRollout:
    joined: dict[str, Any] = {}
    for field in dataclasses.fields(ModuleRollout):
        values = [getattr(part, field.name) for part in parts]
        if field.name in _SAME_FOR_ALL or values[0] is None:
            joined[field.name] = values[0]
        elif isinstance(values[0], dict):
            joined[field.name] = {
                key: np.concatenate([value[key] for value in values], axis=1) for key in values[0]
            }
        else:
            axis = 0 if field.name in (*_OF_FINAL_ROWS, "fresh") else 1
            joined[field.name] = np.concatenate(values, axis=axis)
    offsets = np.cumsum([0] + [part.rewards.shape[1] for part in parts[:-1]])
    joined["final_index"] = np.concatenate(
        [part.final_index + np.array([0, offset, 0]) for part, offset in zip(parts, offsets, strict=True)]
    )
    return ModuleRollout(**joined)


class SamplingFailure:
    """An error in a remote runner, on its way to the driver in the place of a `Rollout`.

    Raised in the runner, RLlib would take it for a lost process, start it again and hide the reason.

    Args:
        error: What went wrong.
        runner: Index of the runner.
    """

    def __init__(self, error: Exception, runner: int) -> None:
        self.where = f"in env runner {runner}:\n{''.join(traceback.format_exception(error))}"
        self.error = error
        try:
            pickle.loads(pickle.dumps(error))
        except Exception:  # whatever an error of somebody's own makes pickle raise
            self.error = RuntimeError(f"{type(error).__name__}: {error}")

    def __len__(self) -> int:
        return 1

    def __getitem__(self, envs: slice) -> SamplingFailure:
        return self

    def env_steps(self) -> int:
        """Environment steps: none."""
        return 0

    def agent_steps(self) -> int:
        """Steps that agents acted in: none."""
        return 0

    def throw(self) -> NoReturn:
        """Raise the error, with the place where it happened as a note."""
        self.error.add_note(self.where)
        raise self.error

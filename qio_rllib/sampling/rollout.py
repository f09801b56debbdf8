"""`Rollout`: the one carrier of experience between the runners and the loss."""

from __future__ import annotations

import dataclasses
import pickle
import traceback
from collections.abc import Hashable, Mapping
from typing import Any, NoReturn

import numpy as np

Array = np.ndarray
_OF_FINAL_ROWS = ("final_observations", "final_states")


@dataclasses.dataclass
class ModuleRollout:
    """What the agents of one module saw, did and got: ``T`` steps of ``E`` copies and ``M`` agents.

    Rows in which an agent did not act (it had ended, or was not there yet) mean nothing; `acted` tells them.
    """

    agents: tuple[Hashable, ...]  # M agent ids
    observations: Array  # float32 [T + 1, E, M, ...]; the last row is what follows the last step
    action_mask: Array | None  # bool [T + 1, E, M, A], True = legal
    actions: (
        Array  # int64 [T, E, M], or float32 [T, E, M, D] as the module gave them, before scaling to bounds
    )
    dist_inputs: Array  # float32 [T, E, M, K], parameters of the distribution that was sampled
    logp: Array  # float32 [T, E, M], log-probability of the action
    rewards: Array  # float32 [T, E, M]
    terminated: Array  # bool [T, E, M], the task ended for the agent
    truncated: Array  # bool [T, E, M], a limit outside the task cut its episode, and it did not terminate
    acted: Array  # bool [T, E, M]
    continues: Array  # bool [T, E, M], the agent acts in the next step of the same episode
    slots: Array  # int64 [M], the agents' places among all agents of the environment
    final_index: Array  # int64 [K, 3], (step, copy, agent) of the truncated rows
    final_observations: Array  # float32 [K, ...], what those agents saw last, before the copy was reset
    states: Array | None = None  # float32 [T + 1, E, S], what a central critic sees; the same for all modules
    final_states: Array | None = None  # float32 [K, S], of the truncated rows
    messages: Array | None = None  # float32 [T, E, M, B], what each agent sent
    delivered: Array | None = None  # bool [T, E, M, N], whose message reached the agent, by sender's slot

    @property
    def num_steps(self) -> int:
        """Steps ``T``."""
        return self.rewards.shape[0]

    def select(self, copies: slice) -> ModuleRollout:
        """Return some of the copies, as views where ``copies`` has step 1."""
        chosen = np.arange(self.rewards.shape[1])[copies]
        place = np.full(self.rewards.shape[1], -1)
        place[chosen] = np.arange(len(chosen))
        kept = place[self.final_index[:, 1]] >= 0
        steps, old, agents = self.final_index[kept].T
        parts: dict[str, Any] = {
            "agents": self.agents,
            "final_index": np.stack([steps, place[old], agents], axis=1),
            "slots": self.slots,
        }
        for field in dataclasses.fields(self):
            if field.name not in parts:
                value = getattr(self, field.name)
                rows = kept if field.name in _OF_FINAL_ROWS else np.s_[:, copies]
                parts[field.name] = None if value is None else value[rows]
        return ModuleRollout(**parts)


class Rollout:
    """``T`` consecutive steps of ``E`` environment copies, by module; time runs along the first axis of each array.

    RLlib takes it where it takes a list of episodes: its length is the number of copies, and a slice is a `Rollout`
    of some of them, so that several Learners share a batch by copies.

    Args:
        modules: What each module's agents experienced.
    """

    def __init__(self, modules: Mapping[str, ModuleRollout]) -> None:
        self.modules = dict(modules)

    def __len__(self) -> int:
        """Number of copies ``E``."""
        return next(iter(self.modules.values())).rewards.shape[1]

    def __getitem__(self, copies: slice) -> Rollout:
        """Return some of the copies, as views where the slice has step 1."""
        return Rollout({module_id: part.select(copies) for module_id, part in self.modules.items()})

    def slice(self, copies: slice, len_lookback_buffer: int | None = None) -> Rollout:
        """Return some of the copies; RLlib's name for it (there is no lookback here)."""
        return self[copies]

    def env_steps(self) -> int:
        """Environment steps: ``T * E``."""
        part = next(iter(self.modules.values()))
        return part.num_steps * part.rewards.shape[1]

    def agent_steps(self) -> int:
        """Steps that agents acted in."""
        return sum(int(part.acted.sum()) for part in self.modules.values())


def join(parts: list[ModuleRollout]) -> list[ModuleRollout]:
    """Join rollouts of equal length and agents along the copies; those that differ stay apart."""
    groups: dict[Any, list[ModuleRollout]] = {}
    for part in parts:
        groups.setdefault((part.num_steps, part.agents), []).append(part)
    return [group[0] if len(group) == 1 else _concatenated(group) for group in groups.values()]


def _concatenated(parts: list[ModuleRollout]) -> ModuleRollout:
    joined: dict[str, Any] = {"agents": parts[0].agents, "slots": parts[0].slots}
    for field in dataclasses.fields(ModuleRollout):
        values = [getattr(part, field.name) for part in parts]
        if field.name not in ("agents", "slots", "final_index"):
            axis = 0 if field.name in _OF_FINAL_ROWS else 1
            joined[field.name] = None if values[0] is None else np.concatenate(values, axis=axis)
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

    def __getitem__(self, copies: slice) -> SamplingFailure:
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

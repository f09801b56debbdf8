"""Writing what a team experiences into a `Rollout`."""

from __future__ import annotations

from typing import Any

import numpy as np

from qio_rllib.acting.actor import Array
from qio_rllib.acting.team import AgentGroup
from qio_rllib.sampling.rollout import ModuleRollout, Rollout
from qio_rllib.sampling.stepper import EnvStepper, Step


class RolloutRecorder:
    """Records up to ``T`` steps of a stepper.

    Args:
        stepper: Whose steps.
        steps: ``T``.
        memory_interval: Steps between two records of agents' memory; 0 for none.
        runner: Index of the runner.
    """

    def __init__(self, stepper: EnvStepper, steps: int, memory_interval: int, runner: int = 0) -> None:
        self.stepper = stepper
        self.runner = runner
        self.count = 0
        self.groups = [
            _GroupRecorder(stepper, g, steps, memory_interval) for g in range(len(stepper.team.groups))
        ]
        self.global_states: Array | None = None
        if stepper.global_state is not None:
            self.global_states = np.empty((steps + 1, *stepper.global_state.shape), np.float32)
            self.global_states[0] = stepper.global_state

    def before(self) -> None:
        """Record the memory that the next step starts from."""
        for group, memory in zip(self.groups, self.stepper.memory, strict=True):
            group.before(self.count, memory)

    def record(self, step: Step) -> list[Array]:
        """Record a step, before ended environments are reset; return the arrays for what is observed next."""
        t = self.count
        for g, group in enumerate(self.groups):
            group.record(t, step, step.acted[g])
        if step.truncated.any() or step.terminated.any():
            final, state = self.stepper.final(step)
            for group, obs in zip(self.groups, final, strict=True):
                group.keep_final(t, obs, state)
        self.count += 1
        return [group.observations[t + 1] for group in self.groups]

    def after(self) -> None:
        """Record what the stepper has gone on to."""
        for g, group in enumerate(self.groups):
            group.masks.append(self.stepper.masks[g])
        if self.global_states is not None:
            self.global_states[self.count] = self.stepper.global_state

    def finish(self) -> Rollout:
        """Return what was recorded."""
        return Rollout(
            {group.group.module_id: group.finish(self.count, self.global_states) for group in self.groups},
            self.runner,
        )


class _GroupRecorder:
    """The arrays of one group."""

    def __init__(self, stepper: EnvStepper, g: int, steps: int, memory_interval: int) -> None:
        self.group: AgentGroup = stepper.team.groups[g]
        self.interval = memory_interval
        shape = stepper.row_shapes[g]
        rows = (steps, stepper.env.num_envs, shape[0])
        self.observations = np.empty((steps + 1, rows[1], *shape), np.float32)
        self.observations[0] = stepper.obs[g]
        self.masks: list[Array | None] = [stepper.masks[g]]
        self.fresh = stepper.fresh[:, self.group.index].copy()
        action = self.group.actor.action
        self.actions = np.empty((*rows, *action.shape), action.dtype)
        self.rewards = np.empty(rows, np.float32)
        self.terminated, self.truncated = np.empty(rows, bool), np.empty(rows, bool)
        self.acted, self.continues = np.empty(rows, bool), np.empty(rows, bool)
        self.columns = {
            name: np.empty((*rows, *entry), dtype) for name, (entry, dtype) in stepper.columns(g).items()
        }
        kept = self.group.actor.memory if memory_interval else ()
        self.memory: dict[str, list[Array]] = {name: [] for name in kept}
        self.final_index: list[Array] = []
        self.final_observations: list[Array] = []
        self.final_states: list[Array] = []

    def before(self, t: int, memory: dict[str, Array]) -> None:
        if self.interval and t % self.interval == 0:
            for name, found in self.memory.items():
                found.append(memory[name].copy())

    def record(self, t: int, step: Step, acted: Any) -> None:
        index = slice(None) if len(self.group.index) == step.rewards.shape[1] else self.group.index
        self.actions[t] = acted.actions
        for name, array in self.columns.items():
            array[t] = acted.extras[name]
        self.acted[t] = step.alive[:, index]
        self.rewards[t] = step.rewards[:, index]
        self.terminated[t] = step.terminated[:, index]
        self.truncated[t] = step.truncated[:, index]
        self.continues[t] = step.continuing[:, index]

    def keep_final(self, t: int, obs: Array, state: Array | None) -> None:
        """Keep what agents see last: after a truncation its value continues the return, and a model learns from it."""
        rows = np.argwhere((self.truncated[t] | self.terminated[t]) & self.acted[t])
        if len(rows):
            self.final_index.append(np.insert(rows, 0, t, axis=1))
            self.final_observations.append(obs[rows[:, 0], rows[:, 1]])
            if state is not None:
                self.final_states.append(state[rows[:, 0]])

    def finish(self, steps: int, states: Array | None) -> ModuleRollout:
        masks = self.masks[: steps + 1]
        final_states = None
        if states is not None:
            final_states = np.concatenate([np.empty((0, states.shape[-1]), np.float32), *self.final_states])
        empty = np.empty((0, *self.observations.shape[3:]), np.float32)
        return ModuleRollout(
            agents=self.group.agents,
            agent_index=self.group.index,
            observations=self.observations[: steps + 1],
            action_mask=None if masks[0] is None else np.stack(masks),  # type: ignore[arg-type]
            actions=self.actions[:steps],
            rewards=self.rewards[:steps],
            terminated=self.terminated[:steps],
            truncated=self.truncated[:steps],
            acted=self.acted[:steps],
            continues=self.continues[:steps],
            fresh=self.fresh,
            final_index=np.concatenate([np.empty((0, 3), np.int64), *self.final_index]),
            final_observations=np.concatenate([empty, *self.final_observations]),
            global_states=None if states is None else states[: steps + 1],
            final_global_states=final_states,
            columns={name: array[:steps] for name, array in self.columns.items()},
            memory={name: np.stack(found) for name, found in self.memory.items()},
            memory_interval=self.interval,
        )

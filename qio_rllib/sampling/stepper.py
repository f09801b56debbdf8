"""`EnvStepper`: a team acts in environments; the one loop that runners, evaluations and videos play by."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple, NoReturn

import numpy as np
import torch

from qio_envs.api import ConfigError
from qio_rllib.acting.actor import Acted, Array
from qio_rllib.acting.team import AgentGroup, GroupInputs, Team, put_back, with_agent_id
from qio_rllib.models.spaces import bare_space, is_masked_space
from qio_rllib.random_numbers import RandomNumbers
from qio_rllib.sampling.counterfactuals import Counterfactuals
from qio_rllib.sampling.global_state import StateSource
from qio_rllib.sampling.influence import Influence
from qio_rllib.sampling.vector_env import InvalidSampleError, VectorEnv, name_of


class Step(NamedTuple):
    """What a step gave, before ended environments are reset."""

    alive: Array  # bool [E, N], who acted
    acted: list[Acted]  # by group
    rewards: Array  # float32 [E, N]
    terminated: Array  # bool [E, N]
    truncated: Array  # bool [E, N]
    continuing: (
        Array  # bool [E, N], who acts in the next step of the same episode, those that appear included
    )

    @property
    def over(self) -> Array:
        """Environments whose episode has ended, bool ``[E]``."""
        return ~np.logical_or.reduce(self.continuing, axis=1)


class EnvStepper:
    """Steps environments with a team; keeps what agents see and remember between steps.

    Args:
        env: The environments.
        team: Who acts in them.
        state_source: Where global states come from; None for none.
        counterfactuals: What steps agents' other actions before those that they take; None for nothing.

    Attributes:
        obs: What each group sees now, float32 ``[E, M, ...]``, one-hot agent indices included.
        masks: Its legal actions, bool ``[E, M, A]``, or None.
        memory: Its memory, by name, float32 ``[E, M, S]``.
        fresh: Agents that begin now, bool ``[E, N]``.
        alive: Agents that act next, bool ``[E, N]``.
        global_state: float32 ``[E, S]``, or None.
        steps: Steps since each environment's reset, int64 ``[E]``.
    """

    def __init__(
        self,
        env: VectorEnv,
        team: Team,
        state_source: StateSource | None = None,
        counterfactuals: Counterfactuals | Influence | None = None,
    ) -> None:
        self.env = env
        self.team = team
        self.state_source = state_source
        self.counterfactuals = counterfactuals
        self._views = [_View(env, group) for group in team.groups]
        envs = env.num_envs
        self.obs = [np.zeros((envs, *view.row_shape), np.float32) for view in self._views]
        self.masks: list[Array | None] = [None for _ in self._views]
        self.memory = team.initial_state(envs)
        self.fresh = np.ones((envs, len(env.agents)), bool)
        self.alive = np.zeros((envs, len(env.agents)), bool)
        self.global_state: Array | None = None
        self.steps = np.zeros(envs, np.int64)

    @property
    def row_shapes(self) -> list[tuple[int, ...]]:
        """Shape ``[M, ...]`` of what each group sees in one environment."""
        return [view.row_shape for view in self._views]

    def columns(self, g: int) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Return (shape of one agent's entry, dtype) of the columns of a group."""
        group = self.team.groups[g]
        found = self.team.extras(group)
        return found if self.counterfactuals is None else found | self.counterfactuals.columns(group)

    def reset(self, seeds: Array | None = None) -> None:
        """Start episodes in all environments; seeds are uint64 ``[E]``.

        Raises:
            InvalidSampleError: An observation, mask or state that cannot be learned from.
        """
        self.env.reset(seeds)
        self.memory = self.team.initial_state(self.env.num_envs)
        self.fresh = np.ones_like(self.fresh)
        self.steps[:] = 0
        self.alive = self.env.alive().copy()
        self._observe(None)

    def step(
        self,
        rng: RandomNumbers | None,
        explore: bool,
        random_actions: bool = False,
        replace: Callable[[list[Acted]], list[Acted]] | None = None,
    ) -> Step:
        """Let the team act and advance all environments by a step; then `advance` must be called.

        Args:
            rng: As for `Team.act`.
            explore: Likewise.
            random_actions: Likewise.
            replace: Gives what each group does in place of what it decided.

        Raises:
            InvalidSampleError: A reward is not finite.
        """
        alive = self.alive
        inputs = [GroupInputs(obs, mask) for obs, mask in zip(self.obs, self.masks, strict=True)]
        acted = self.team.act(inputs, alive, self.memory, rng, explore, random_actions, self.global_state)
        if replace is not None:
            acted = replace(acted)
        if self.counterfactuals is not None:
            acted = self.counterfactuals.record(acted, alive, rng)
        moves = [
            (group.index, group.actor.action.to_env(one.actions))
            for group, one in zip(self.team.groups, acted, strict=True)
        ]
        rewards, terminated, truncated = self.env.step(moves)
        self.steps += 1
        if not all_finite(rewards):
            e, agent = (int(index) for index in np.argwhere(~np.isfinite(rewards))[0])
            self._refuse(e, f"reward of {name_of(self.env.agents[agent])} is {rewards[e, agent]}")
        continuing = self.env.alive().copy()
        return Step(alive, acted, rewards, terminated, truncated, continuing)

    def final(self, step: Step) -> tuple[list[Array], Array | None]:
        """Return what each group sees at the end of a step, and the global state, before environments are reset.

        Raises:
            InvalidSampleError: As `reset`.
        """
        found = [self._observed(view, None) for view in self._views]
        present = self.env.alive().copy() | (
            step.alive & step.truncated
        )  # those that have just come included
        return found, self._state(found, present)

    def advance(self, step: Step, into: Sequence[Array] | None = None, reset: Array | None = None) -> None:
        """Go on to the next step.

        Args:
            step: What `step` gave.
            into: Arrays for what each group sees next; new ones when absent.
            reset: Environments that begin the next episode, bool ``[E]``; None for none.

        Raises:
            InvalidSampleError: As `reset`.
        """
        goes_on = step.continuing & step.alive  # who appears now remembers nothing either
        for group, memory, acted in zip(self.team.groups, self.memory, step.acted, strict=True):
            for name in memory:
                memory[name] = acted.state[name]
            put_back(memory, ~goes_on[:, group.index])
        if reset is not None and reset.any():
            self.env.reset(mask=reset)
            self.steps[reset] = 0
            self.alive = self.env.alive().copy()
        else:
            self.alive = step.continuing
        self.fresh = ~goes_on
        self._observe(into)

    def get_state(self) -> dict[str, Any]:
        """Return all that the next step depends on; ``env`` is None where environments cannot be pickled."""
        return {
            "env": self.env.get_state(),
            "obs": [obs.copy() for obs in self.obs],
            "masks": list(self.masks),  # the next step replaces its entries
            "memory": [{name: array.copy() for name, array in memory.items()} for memory in self.memory],
            "fresh": self.fresh,
            "alive": self.alive,
            "global_state": self.global_state,
            "steps": self.steps.copy(),
        }

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state of as many environments; without ``env`` in it they stand there already.

        Raises:
            ConfigError: A memory of another shape than the policy's.
            ValueError: The environments' part is of other environments, or no state of theirs.
        """
        for group, have, new in zip(self.team.groups, self.memory, state["memory"], strict=True):
            shapes = [{name: array.shape for name, array in memory.items()} for memory in (have, new)]
            if shapes[0] != shapes[1]:
                raise ConfigError(
                    f"checkpoint: the memory of module '{group.module_id}' has the shapes {shapes[1]}, its policy "
                    f"needs {shapes[0]}"
                )
        if "env" in state:
            self.env.set_state(state["env"])
        self.obs, self.masks = list(state["obs"]), list(state["masks"])
        self.memory = [{name: array.copy() for name, array in memory.items()} for memory in state["memory"]]
        self.fresh, self.alive, self.global_state = state["fresh"], state["alive"], state["global_state"]
        self.steps = state["steps"].copy()

    def observe(self) -> None:
        """See the environments as they are now, after something outside has changed them.

        Raises:
            InvalidSampleError: As `reset`.
        """
        self._observe(None)

    def _observe(self, into: Sequence[Array] | None) -> None:
        for g, view in enumerate(self._views):
            self.obs[g] = self._observed(view, None if into is None else into[g])
            if view.masked:
                self.masks[g] = self._legal(view)
        self.global_state = self._state(self.obs, self.alive)

    def _observed(self, view: _View, out: Array | None) -> Array:
        group = view.group
        if not group.agent_id:
            found = np.empty((self.env.num_envs, *view.row_shape), np.float32) if out is None else out
            self.env.observe(group.index, found)
            raw = found
        else:
            raw = np.empty((self.env.num_envs, len(group.index), *view.shape), np.float32)
            self.env.observe(group.index, raw)
            found = with_agent_id(raw)
            if out is not None:
                out[...] = found
                found = out
        if not all_finite(raw):
            e, m, *place = (int(index) for index in np.argwhere(~np.isfinite(raw))[0])
            value = raw[(e, m, *place)]
            self._refuse(e, f"observation of {name_of(group.agents[m])} is {value} at {place}")
        return found

    def _legal(self, view: _View) -> Array:
        legal = self.env.action_mask(view.group.index)
        assert legal is not None
        if not legal.any(axis=-1).all():
            e, m = (int(index) for index in np.argwhere(~legal.any(axis=-1))[0])
            name = name_of(view.group.agents[m])
            self._refuse(e, f"action mask of {name} is {legal[e, m].astype(int)}")
        return legal

    def _state(self, obs: Sequence[Array], alive: Array) -> Array | None:
        if self.state_source is None:
            return None
        parts = [(view.group.index, view.bare(values)) for view, values in zip(self._views, obs, strict=True)]
        state = self.state_source.read(self.env, parts, alive)
        if not all_finite(state):
            e, place = (int(index) for index in np.argwhere(~np.isfinite(state))[0])
            self._refuse(e, f"state() is {state[e, place]} at [{place}]")
        return state

    def _refuse(self, env_index: int, what: str) -> NoReturn:
        raise InvalidSampleError(env_index, int(self.steps[env_index]), what)


class _View:
    """How a group's observations lie in arrays."""

    def __init__(self, env: VectorEnv, group: AgentGroup) -> None:
        self.group = group
        space = env.observation_spaces[group.agents[0]]
        self.masked = is_masked_space(space)
        shape = bare_space(space).shape
        assert shape is not None
        self.shape = tuple(shape)
        members = len(group.index)
        width = (math.prod(self.shape) + members,) if group.agent_id else self.shape
        self.row_shape = (members, *width)

    def bare(self, values: Array) -> Array:
        """Return observations without one-hot agent indices."""
        return values[..., : math.prod(self.shape)] if self.group.agent_id else values


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on this thread: a forward pass over a few rows is slower on several."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def all_finite(values: Array) -> bool:
    """Whether all are finite; their sum, which is cheaper, is only finite if they are."""
    return math.isfinite(values.sum()) or bool(np.isfinite(values).all())

"""Copies of one environment as arrays, whoever made it: what `BatchedEnvRunner` steps."""

from __future__ import annotations

import abc
import pickle
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from pettingzoo import ParallelEnv

from qio_envs.api import BatchedEnv, ConfigError
from qio_envs.api.faces import agent_observation_space
from qio_rllib.models.amplified import ACTION_MASK, OBSERVATION, is_masked_space

Array = np.ndarray
Agent = Hashable


class InvalidSampleError(ValueError):
    """An environment gave something that cannot be learned from; the message names copy, agent, step and value."""


class Copies(abc.ABC):
    """``E`` copies of one environment with ``N`` agents; an agent's place in `agents` is its *slot*.

    Attributes:
        agents: ``N`` agent ids; ``(None,)`` for an environment without agents' names.
        observation_spaces: By agent; a Dict of ``observation`` and ``action_mask`` where there are masks.
        action_spaces: By agent.
        num_copies: ``E``.
    """

    agents: tuple[Agent, ...]
    observation_spaces: dict[Agent, gymnasium.Space]
    action_spaces: dict[Agent, gymnasium.Space]
    num_copies: int

    @abc.abstractmethod
    def reset(self, seeds: Array | None = None, mask: Array | None = None) -> None:
        """Start episodes in the copies of ``mask`` (all when absent), from ``seeds`` (uint64 ``[E]``) or going on."""

    @abc.abstractmethod
    def step(self, actions: Sequence[tuple[Array, Array]]) -> tuple[Array, Array, Array]:
        """Advance all copies.

        Args:
            actions: For each group of slots (int64 ``[M]``) its actions ``[E, M, ...]``, as the environment takes
                them; those of agents that are not alive are ignored.

        Returns:
            Rewards (float32), terminated and truncated (bool), each ``[E, N]``.
        """

    @abc.abstractmethod
    def alive(self) -> Array:
        """Return which agents act next, bool ``[E, N]``."""

    @abc.abstractmethod
    def observe(self, slots: Array, out: Array) -> None:
        """Write what the agents in some slots see now to ``out``, float32 ``[E, M, ...]``."""

    @abc.abstractmethod
    def action_mask(self, slots: Array) -> Array | None:
        """Return which actions of the agents in some slots are legal, bool ``[E, M, A]``; None without masks."""

    @abc.abstractmethod
    def info(self, copy: int) -> dict[str, float]:
        """Return the numbers of a copy's last info."""

    @abc.abstractmethod
    def get_state(self) -> Any:
        """Return what `set_state` needs to go on exactly, or None where the environment cannot be pickled."""

    @abc.abstractmethod
    def set_state(self, state: Any) -> None:
        """Go on from `get_state`."""

    def close(self) -> None:
        """Release what the environments hold."""


class BatchedCopies(Copies):
    """The copies of a `BatchedEnv`; arrays go straight from its kernels into the rollout."""

    def __init__(self, env: BatchedEnv) -> None:
        self.env = env
        self.num_copies = env.num_envs
        self.agents = tuple(env.possible_agents)
        space = agent_observation_space(env)
        self.observation_spaces = dict.fromkeys(self.agents, space)
        self.action_spaces = dict.fromkeys(self.agents, env.action_space)
        shape = (env.num_envs, env.num_agents, *(env.action_space.shape or ()))
        self._actions = np.zeros(shape, env.action_space.dtype)

    def reset(self, seeds: Array | None = None, mask: Array | None = None) -> None:
        self.env.reset(seeds, mask)

    def step(self, actions: Sequence[tuple[Array, Array]]) -> tuple[Array, Array, Array]:
        if len(actions) == 1:
            return self.env.step(actions[0][1])
        for slots, chosen in actions:
            self._actions[:, slots] = chosen
        return self.env.step(self._actions)

    def alive(self) -> Array:
        return self.env.agents_alive()

    def observe(self, slots: Array, out: Array) -> None:
        if len(slots) == len(self.agents):
            self.env.observe(out)
        else:
            out[...] = self.env.observe()[:, slots]

    def action_mask(self, slots: Array) -> Array | None:
        return self.env.action_mask()[:, slots] != 0 if self.env.has_action_mask else None

    def info(self, copy: int) -> dict[str, float]:
        numbers = {}
        for key, values in self.env.info().items():
            value = values[copy] if values.ndim == 1 else values[copy, 0]
            if np.issubdtype(values.dtype, np.number):
                numbers[key] = float(value)
        return numbers

    def get_state(self) -> Any:
        return self.env.get_state()

    def set_state(self, state: Any) -> None:
        self.env.set_state(state)


class EnvCopies(Copies):
    """Copies of anybody's environment: PettingZoo ``ParallelEnv`` or Gymnasium ``Env``.

    Agents may die and appear; a copy's episode ends when it has no agents left.

    Args:
        make: Builds one environment.
        num_copies: ``E``.

    Raises:
        ConfigError: The copies differ in their agents or spaces, or a space cannot be held in arrays.
    """

    def __init__(self, make: Callable[[], ParallelEnv | gymnasium.Env], num_copies: int) -> None:
        self.envs: list[Any] = [_named_agents(make()) for _ in range(num_copies)]
        self.num_copies = num_copies
        first = self.envs[0]
        self.agents = tuple(first.possible_agents)
        self.observation_spaces = {agent: first.observation_space(agent) for agent in self.agents}
        self.action_spaces = {agent: first.action_space(agent) for agent in self.agents}
        for index, env in enumerate(self.envs[1:], start=1):
            self._check_alike(index, env)
        for agent, space in self.observation_spaces.items():
            bare = space[OBSERVATION] if is_masked_space(space) else space
            if not isinstance(bare, gymnasium.spaces.Box):
                raise ConfigError(
                    f"env: observations of {agent} are {space}; a Box is needed, or a Dict of '{OBSERVATION}' (Box) "
                    f"and '{ACTION_MASK}'; wrap the environment (supersuit or gymnasium.wrappers can flatten)"
                )
        self._slot = {agent: slot for slot, agent in enumerate(self.agents)}
        self._alive = np.zeros((num_copies, len(self.agents)), bool)
        self._seen: list[dict[Agent, Any]] = [{} for _ in self.envs]
        self._infos: list[dict[Agent, Any]] = [{} for _ in self.envs]
        self._steps = [0] * num_copies

    def reset(self, seeds: Array | None = None, mask: Array | None = None) -> None:
        for e, env in enumerate(self.envs):
            if mask is not None and not mask[e]:
                continue
            # PettingZoo and Gymnasium hand seeds to NumPy and, some, to random.seed: 31 bits suit all.
            seed = None if seeds is None else int(seeds[e] & np.uint64(0x7FFFFFFF))
            self._seen[e], infos = env.reset(seed=seed)
            self._infos[e] = infos or {}
            self._steps[e] = 0
            self._mark_alive(e)

    def step(self, actions: Sequence[tuple[Array, Array]]) -> tuple[Array, Array, Array]:
        shape = (self.num_copies, len(self.agents))
        rewards = np.zeros(shape, np.float32)
        terminated, truncated = np.zeros(shape, bool), np.zeros(shape, bool)
        chosen: list[dict[Agent, Any]] = [{} for _ in self.envs]
        for slots, values in actions:
            listed = values.tolist() if values.ndim == 2 else values
            for column, slot in enumerate(slots):
                agent = self.agents[slot]
                for e in range(self.num_copies):
                    if self._alive[e, slot]:
                        chosen[e][agent] = listed[e][column]
        for e, env in enumerate(self.envs):
            self._seen[e], gains, ended, cut, self._infos[e] = env.step(chosen[e])
            self._steps[e] += 1
            before = self._alive[e].copy()
            self._mark_alive(e)
            for agent in chosen[e]:
                slot = self._slot[agent]
                rewards[e, slot] = gains.get(agent, 0.0)
                terminated[e, slot] = bool(ended.get(agent, False))
                # An agent that is gone without a flag was cut.
                gone = before[slot] and not self._alive[e, slot]
                truncated[e, slot] = bool(cut.get(agent, False)) or (gone and not terminated[e, slot])
        return rewards, terminated, truncated & ~terminated

    def alive(self) -> Array:
        return self._alive

    def observe(self, slots: Array, out: Array) -> None:
        for e, seen in enumerate(self._seen):
            for column, slot in enumerate(slots):
                agent = self.agents[slot]
                value = seen.get(agent)
                if value is None:
                    if self._alive[e, slot]:
                        raise InvalidSampleError(
                            f"copy {e}, step {self._steps[e]}: there is no observation for {agent}, which is alive"
                        )
                    out[e, column] = 0
                    continue
                value = value[OBSERVATION] if isinstance(value, Mapping) else value
                try:
                    out[e, column] = value
                except (ValueError, TypeError) as error:
                    raise InvalidSampleError(
                        f"copy {e}, step {self._steps[e]}: observation of {agent} has shape {np.shape(value)}, "
                        f"its space {out.shape[2:]}"
                    ) from error

    def action_mask(self, slots: Array) -> Array | None:
        if not is_masked_space(self.observation_spaces[self.agents[slots[0]]]):
            return None
        count = int(self.action_spaces[self.agents[slots[0]]].n)  # type: ignore[attr-defined]
        legal = np.ones((self.num_copies, len(slots), count), bool)
        for e, seen in enumerate(self._seen):
            for column, slot in enumerate(slots):
                if self.agents[slot] in seen:
                    legal[e, column] = np.asarray(seen[self.agents[slot]][ACTION_MASK]) != 0
        return legal

    def info(self, copy: int) -> dict[str, float]:
        return numbers_of(next(iter(self._infos[copy].values()), {}))

    def get_state(self) -> Any:
        parts = (self.envs, self._alive, self._seen, self._infos, self._steps)
        try:
            return pickle.dumps(parts)
        except Exception:  # whatever an environment's own objects raise
            return None

    def set_state(self, state: Any) -> None:
        self.close()
        self.envs, self._alive, self._seen, self._infos, self._steps = pickle.loads(state)

    def close(self) -> None:
        for env in self.envs:
            env.close()

    def _mark_alive(self, copy: int) -> None:
        self._alive[copy] = False
        for agent in self.envs[copy].agents:
            if agent not in self._slot:
                raise InvalidSampleError(
                    f"copy {copy}, step {self._steps[copy]}: agent {agent} is not among the possible agents"
                )
            self._alive[copy, self._slot[agent]] = True

    def _check_alike(self, index: int, env: Any) -> None:
        if tuple(env.possible_agents) != self.agents:
            raise ConfigError(
                f"env: copy {index} has the agents {list(env.possible_agents)}, copy 0 has {list(self.agents)}"
            )
        for agent in self.agents:
            for kind, ours, theirs in (
                ("observation", self.observation_spaces[agent], env.observation_space(agent)),
                ("action", self.action_spaces[agent], env.action_space(agent)),
            ):
                if ours != theirs:
                    raise ConfigError(
                        f"env: the {kind} space of {agent or 'the agent'} is {theirs} in copy {index} and {ours} "
                        "in copy 0; copies must have equal spaces"
                    )


class _OneAgent:
    """A Gymnasium environment with the manners of a parallel one; its agent is None."""

    possible_agents = (None,)

    def __init__(self, env: gymnasium.Env) -> None:
        self.env = env
        self.agents: list[None] = []

    def observation_space(self, agent: None) -> gymnasium.Space:
        return self.env.observation_space

    def action_space(self, agent: None) -> gymnasium.Space:
        return self.env.action_space

    def reset(self, seed: int | None = None) -> tuple[dict, dict]:
        observation, info = self.env.reset(seed=seed)
        self.agents = [None]
        return {None: observation}, {None: info}

    def step(self, actions: Mapping[None, Any]) -> tuple[dict, dict, dict, dict, dict]:
        observation, reward, terminated, truncated, info = self.env.step(actions[None])
        if terminated or truncated:
            self.agents = []
        return {None: observation}, {None: reward}, {None: terminated}, {None: truncated}, {None: info}

    def close(self) -> None:
        self.env.close()


def numbers_of(info: Mapping[str, Any] | None) -> dict[str, float]:
    """Return what of an ``info`` is a number."""
    return {
        key: value  # type: ignore[misc]
        for key, value in (info or {}).items()
        if isinstance(value, int | float | np.number) and not isinstance(value, bool)
    }


def _named_agents(env: ParallelEnv | gymnasium.Env) -> Any:
    if isinstance(env, ParallelEnv):
        return env
    if isinstance(env, gymnasium.Env):
        return _OneAgent(env)
    raise ConfigError(f"env: expected a PettingZoo ParallelEnv or a Gymnasium Env, got {type(env).__name__}")

"""Copies of one environment as arrays, whoever made it: what `BatchedEnvRunner` steps."""

from __future__ import annotations

import abc
import io
import pickle
import reprlib
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from pettingzoo import ParallelEnv
from pettingzoo.utils.conversions import aec_to_parallel_wrapper
from pettingzoo.utils.wrappers import AssertOutOfBoundsWrapper, OrderEnforcingWrapper
from ray import cloudpickle

from qio_envs.adapters.spaces import agent_observation_space
from qio_envs.api import BatchedEnv, ConfigError
from qio_rllib.models.amplified import ACTION_MASK, OBSERVATION, is_masked_space

Array = np.ndarray
Agent = Hashable


class InvalidSampleError(ValueError):
    """An environment gave something that cannot be learned from; the message names copy, step, agent and value.

    Steps are counted from the start of the copy's episode: step 0 is the reset.
    """

    def __init__(self, copy: int, step: int, what: str) -> None:
        super().__init__(f"copy {copy}, step {step} of its episode: {what}")
        self._parts = (copy, step, what)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._parts


class Copies(abc.ABC):
    """``E`` copies of one environment with ``N`` agents; an agent's place in `agents` is its *slot*.

    Attributes:
        agents: ``N`` agent ids; ``(None,)`` for an environment without agents' names.
        observation_spaces: By agent; a Dict of ``observation`` and ``action_mask`` where there are masks.
        action_spaces: By agent.
        num_copies: ``E``.
        state_size: Numbers in `state`; None where the environment has no global state.
    """

    agents: tuple[Agent, ...]
    observation_spaces: dict[Agent, gymnasium.Space]
    action_spaces: dict[Agent, gymnasium.Space]
    num_copies: int
    state_size: int | None

    @abc.abstractmethod
    def reset(self, seeds: Array | None = None, mask: Array | None = None) -> None:
        """Start episodes in the copies of ``mask`` (bool ``[E]``; all when absent).

        Args:
            seeds: uint64 ``[E]``; without them the copies' own random numbers go on.
            mask: Which copies.
        """

    @abc.abstractmethod
    def step(self, actions: Sequence[tuple[Array, Array]]) -> tuple[Array, Array, Array]:
        """Advance all copies.

        Args:
            actions: For each group of slots (int64 ``[M]``) its actions ``[E, M, ...]``, as the environment takes
                them; those of agents that are not alive are ignored. Together the groups hold every slot once; a
                single group holds them in order.

        Returns:
            Rewards (float32), terminated and truncated (bool), each ``[E, N]``.
        """

    @abc.abstractmethod
    def alive(self) -> Array:
        """Return which agents act next, bool ``[E, N]``; a copy without any has ended."""

    @abc.abstractmethod
    def observe(self, slots: Array, out: Array) -> None:
        """Write what the agents in some slots see now.

        Args:
            slots: int64 ``[M]``.
            out: C-contiguous float32 ``[E, M, ...]``. The row of an agent that has just ended gets what it saw last.

        Raises:
            InvalidSampleError: An observation is missing or of the wrong shape.
        """

    @abc.abstractmethod
    def action_mask(self, slots: Array) -> Array | None:
        """Return which actions of the agents in some slots are legal, bool ``[E, M, A]``; None without masks.

        All actions of agents that are not alive count as legal.
        """

    @abc.abstractmethod
    def state(self) -> Array:
        """Return the global states, float32 ``[E, state_size]``.

        Raises:
            InvalidSampleError: A state is not of that size.
        """

    @abc.abstractmethod
    def info(self, copy: int) -> dict[str, float]:
        """Return the numbers of a copy's last info (of its first agent, where agents have their own)."""

    @abc.abstractmethod
    def get_state(self) -> Any:
        """Return what `set_state` needs to go on exactly, or None where the environment cannot be pickled."""

    @abc.abstractmethod
    def set_state(self, state: Any) -> None:
        """Go on from a state of `get_state`, of as many copies of the same environment."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release what the environments hold."""


class BatchedCopies(Copies):
    """The copies of a `BatchedEnv`; arrays go straight from its kernels into the rollout.

    Args:
        env: The batch; it must honour ``observe(out)``.
    """

    def __init__(self, env: BatchedEnv) -> None:
        self.env = env
        self.num_copies = env.num_envs
        self.agents = tuple(env.possible_agents)
        space = agent_observation_space(env)
        self.observation_spaces = dict.fromkeys(self.agents, space)
        self.action_spaces = dict.fromkeys(self.agents, env.action_space)
        shape = (env.num_envs, env.num_agents, *(env.action_space.shape or ()))
        self._actions = np.zeros(shape, env.action_space.dtype)
        self.state_size = int(np.prod(env.state_space.shape))

    def reset(self, seeds: Array | None = None, mask: Array | None = None) -> None:
        """Start episodes, as `BatchedEnv.reset` does: without seeds, the next episode of each copy's own seed."""
        self.env.reset(seeds, mask)

    def step(self, actions: Sequence[tuple[Array, Array]]) -> tuple[Array, Array, Array]:
        """Advance all copies; see `Copies.step`. Errors are those of `BatchedEnv.step`."""
        if len(actions) == 1:
            return self.env.step(actions[0][1])
        for slots, chosen in actions:
            self._actions[:, slots] = chosen
        return self.env.step(self._actions)

    def alive(self) -> Array:
        """Return which agents act next, bool ``[E, N]``."""
        return self.env.agents_alive()

    def observe(self, slots: Array, out: Array) -> None:
        """Write what the agents in some slots see now to ``out``, float32 ``[E, M, ...]``."""
        if len(slots) == len(self.agents):
            self.env.observe(out)
        else:
            out[...] = self.env.observe()[:, slots]

    def action_mask(self, slots: Array) -> Array | None:
        """Return which actions are legal, bool ``[E, M, A]``; None without masks."""
        if not self.env.has_action_mask:
            return None
        legal = self.env.action_mask()[:, slots] != 0
        legal[~self.env.agents_alive()[:, slots]] = True
        return legal

    def state(self) -> Array:
        """Return the global states, float32 ``[E, state_size]``."""
        return self.env.state().reshape(self.num_copies, -1)

    def info(self, copy: int) -> dict[str, float]:
        """Return the numbers of a copy's info now; the first agent's, where agents have their own."""
        return numbers_of({key: array[copy].flat[0].item() for key, array in self.env.info().items()})

    def get_state(self) -> dict[str, Array]:
        """Return the state of all copies, by name."""
        return self.env.get_state()

    def set_state(self, state: dict[str, Array]) -> None:
        """Go on from a state; raises ValueError for one of another configuration."""
        self.env.set_state(state)

    def close(self) -> None:
        """Release nothing: a batch is arrays."""


class EnvCopies(Copies):
    """Copies of anybody's environment: PettingZoo ``ParallelEnv`` or Gymnasium ``Env``.

    Agents may die and appear; a copy's episode ends when it has no agents left. An agent has ended when its flags
    say so, even if the environment still lists it, or when it is no longer listed: without a flag that is a
    truncation. A truncated agent without a last observation keeps the one before.

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
        for agent in self.agents:
            self._check_spaces(agent)
        self.state_size = state_size_of(first)
        self._slot = {agent: slot for slot, agent in enumerate(self.agents)}
        self._masked = [is_masked_space(self.observation_spaces[agent]) for agent in self.agents]
        self._alive = np.zeros((num_copies, len(self.agents)), bool)
        self._seen: list[Mapping[Agent, Any]] = [{} for _ in self.envs]
        self._infos: list[Mapping[Agent, Any]] = [{} for _ in self.envs]
        self._steps = [0] * num_copies

    def reset(self, seeds: Array | None = None, mask: Array | None = None) -> None:
        """Start episodes in the copies of ``mask``; of a seed (uint64 ``[E]``) the low 31 bits are used.

        Raises:
            InvalidSampleError: A copy starts without agents, or with an unknown one.
        """
        for e, env in enumerate(self.envs):
            if mask is not None and not mask[e]:
                continue
            # PettingZoo and Gymnasium hand seeds to NumPy and, some, to random.seed: 31 bits suit all.
            seed = None if seeds is None else int(seeds[e] & np.uint64(0x7FFFFFFF))
            self._seen[e], infos = env.reset(seed=seed)
            self._infos[e] = infos or {}
            self._steps[e] = 0
            self._mark_alive(e, set())
            if not self._alive[e].any():
                raise InvalidSampleError(e, 0, "there are no agents after reset")

    def step(self, actions: Sequence[tuple[Array, Array]]) -> tuple[Array, Array, Array]:
        """Advance all copies; see `Copies.step`. A missing reward counts as 0.

        Raises:
            InvalidSampleError: An unknown agent has appeared.
        """
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
            seen, gains, ended, cut, infos = env.step(chosen[e])
            self._steps[e] += 1
            self._mark_alive(e, {agent for flags in (ended, cut) for agent, flag in flags.items() if flag})
            for agent in chosen[e]:
                slot = self._slot[agent]
                rewards[e, slot] = gains.get(agent, 0.0)
                if not self._alive[e, slot]:
                    terminated[e, slot] = ended.get(agent, False)
                    truncated[e, slot] = not terminated[e, slot]
                    if truncated[e, slot] and agent not in seen:
                        seen = {**seen, agent: self._seen[e][agent]}
            self._seen[e], self._infos[e] = seen, infos or {}
        return rewards, terminated, truncated

    def alive(self) -> Array:
        """Return which agents act next, bool ``[E, N]``; the array changes with the next step."""
        return self._alive

    def observe(self, slots: Array, out: Array) -> None:
        """Write what the agents in some slots see now to ``out``, float32 ``[E, M, ...]``; 0 for absent agents.

        Raises:
            InvalidSampleError: An agent's observation is missing, of the wrong shape, or not of numbers.
        """
        shape, agents = out.shape[2:], [self.agents[slot] for slot in slots]
        plain = not self._masked[slots[0]]
        for e, seen in enumerate(self._seen):
            rows = [seen.get(agent) for agent in agents] if plain else []
            if plain and all(
                type(row) is np.ndarray and row.shape == shape and row.dtype.kind == "f" for row in rows
            ):
                out[e] = rows  # what nearly every environment gives nearly always
                continue
            for column, slot in enumerate(slots):
                present = self._alive[e, slot] or self.agents[slot] in seen
                out[e, column] = self._part(e, slot, OBSERVATION, out.shape[2:]) if present else 0

    def action_mask(self, slots: Array) -> Array | None:
        """Return which actions are legal, bool ``[E, M, A]``; None without masks.

        Raises:
            InvalidSampleError: A living agent's mask is missing or of the wrong shape.
        """
        if not self._masked[slots[0]]:
            return None
        count = int(self.action_spaces[self.agents[slots[0]]].n)  # type: ignore[attr-defined]  # masked: Discrete
        legal = np.ones((self.num_copies, len(slots), count), bool)
        for e in range(self.num_copies):
            for column, slot in enumerate(slots):
                if self._alive[e, slot]:
                    legal[e, column] = self._part(e, slot, ACTION_MASK, (count,)) != 0
        return legal

    def state(self) -> Array:
        """Return the global states, float32 ``[E, state_size]``.

        Raises:
            InvalidSampleError: A state is not of that size, or not of numbers.
        """
        states = np.empty((self.num_copies, self.state_size or 0), np.float32)
        for e, env in enumerate(self.envs):
            value = np.asarray(env.state())
            if value.size != self.state_size or value.dtype.kind not in "buif":
                what = f"state() is {value.dtype} of shape {value.shape}, expected {self.state_size} numbers"
                raise InvalidSampleError(e, self._steps[e], what)
            states[e] = value.ravel()
        return states

    def info(self, copy: int) -> dict[str, float]:
        """Return the numbers of the last info of a copy's first agent."""
        return numbers_of(next(iter(self._infos[copy].values()), {}))

    def get_state(self) -> bytes | None:
        """Return the environments and what they gave last, pickled; None where they cannot be."""
        parts = (self.envs, self._alive, self._seen, self._infos, self._steps)
        buffer = io.BytesIO()
        try:
            _WholePickler(buffer).dump(parts)
        except Exception:  # whatever an environment's own objects raise
            return None
        return buffer.getvalue()

    def set_state(self, state: bytes) -> None:
        """Replace the environments by those of a state."""
        self.close()
        self.envs, self._alive, self._seen, self._infos, self._steps = pickle.loads(state)

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()

    def _mark_alive(self, copy: int, ended: set[Agent]) -> None:
        self._alive[copy] = False
        for agent in self.envs[copy].agents:
            if agent not in self._slot:
                raise InvalidSampleError(
                    copy, self._steps[copy], f"agent {agent} is not among the possible agents"
                )
            self._alive[copy, self._slot[agent]] = agent not in ended

    def _part(self, copy: int, slot: int, name: str, shape: tuple[int, ...]) -> Array:
        """Return an agent's observation or action mask."""
        agent = self.agents[slot]
        value = self._seen[copy].get(agent)
        if self._masked[slot]:
            value = value.get(name) if isinstance(value, Mapping) else None
        try:
            array = np.asarray(value)
        except ValueError:  # rows of different lengths
            array = np.asarray(None)
        if array.shape != shape or array.dtype.kind not in "buif":
            given = " ".join(reprlib.repr(value).split())
            what = f"{name} of {name_of(agent)} is {given} of shape {array.shape}, expected numbers of shape {shape}"
            raise InvalidSampleError(copy, self._steps[copy], what)
        return array

    def _check_spaces(self, agent: Agent) -> None:
        space, actions = self.observation_spaces[agent], self.action_spaces[agent]
        if not isinstance(bare_space(space), gymnasium.spaces.Box):
            raise ConfigError(
                f"env: observations of {name_of(agent)} are {space}; a Box is needed, or a Dict of '{OBSERVATION}' "
                f"(Box) and '{ACTION_MASK}'; wrap the environment (supersuit or gymnasium.wrappers can flatten)"
            )
        if isinstance(space, gymnasium.spaces.Dict) and not (
            isinstance(actions, gymnasium.spaces.Discrete) and space[ACTION_MASK].shape == (actions.n,)
        ):
            raise ConfigError(
                f"env: the '{ACTION_MASK}' of {name_of(agent)} is {space[ACTION_MASK]}, which does not fit its "
                f"actions, {actions}"
            )

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
                        f"env: the {kind} space of {name_of(agent)} is {theirs} in copy {index} and {ours} "
                        "in copy 0; copies must have equal spaces"
                    )


class _WholePickler(cloudpickle.Pickler):
    """Pickles environments as they are, also those that would give their constructor's arguments only (EzPickle).

    Classes of the user's own script go by value, so that another process can load them.
    """

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, gymnasium.utils.EzPickle):
            return object.__new__, (type(obj),), obj.__dict__, None, None, _set_attributes
        if type(obj).__module__.startswith("pygame"):  # a viewer's canvas and font: made again, not copied
            if hasattr(obj, "get_size") and hasattr(obj, "blit"):
                return type(obj), (obj.get_size(),)
            if type(obj).__name__ == "Font":
                return _font, ()
        return super().reducer_override(obj)


def _font() -> Any:
    # The default one: pygame forgets what a font was made of when any environment is closed.
    import pygame.freetype

    pygame.freetype.init()
    return pygame.freetype.Font(None, 24)


def _set_attributes(obj: Any, attributes: dict[str, Any]) -> None:
    obj.__dict__.update(attributes)


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


def state_size_of(env: Any) -> int | None:
    """Return the size of a PettingZoo environment's ``state()`` by its ``state_space``; None without one."""
    try:
        shape = env.state_space.shape
    except (AttributeError, NotImplementedError):
        return None
    return None if shape is None else int(np.prod(shape))


def numbers_of(info: Mapping[str, Any] | None) -> dict[str, float]:
    """Return what of an ``info`` is a number."""
    return {
        key: value  # type: ignore[misc]
        for key, value in (info or {}).items()
        if isinstance(value, int | float | np.number) and not isinstance(value, bool)
    }


def _named_agents(env: ParallelEnv | gymnasium.Env) -> Any:
    if isinstance(env, ParallelEnv):
        if type(env) is aec_to_parallel_wrapper:
            # Its outer wrappers only check the order of calls and the range of discrete actions, both of which are
            # right here, and a third of mpe2's time passes in them.
            while type(env.aec_env) in (OrderEnforcingWrapper, AssertOutOfBoundsWrapper):
                env.aec_env = env.aec_env.env
        return env
    if isinstance(env, gymnasium.Env):
        return _OneAgent(env)
    raise ConfigError(f"env: expected a PettingZoo ParallelEnv or a Gymnasium Env, got {type(env).__name__}")


def name_of(agent: Agent) -> str:
    """Return how messages call an agent."""
    return "the agent" if agent is None else str(agent)


def bare_space(space: gymnasium.Space) -> gymnasium.Space:
    """Return the space of observations without the action mask beside them, if there is one."""
    return (
        space[OBSERVATION] if isinstance(space, gymnasium.spaces.Dict) and is_masked_space(space) else space
    )

"""Anybody's PettingZoo or Gymnasium environments as a `VectorEnv`."""

from __future__ import annotations

import io
import pickle
import reprlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
from pettingzoo import ParallelEnv
from pettingzoo.utils.conversions import aec_to_parallel_wrapper
from pettingzoo.utils.wrappers import AssertOutOfBoundsWrapper, OrderEnforcingWrapper

from qio_envs.api import BatchedEnv, ConfigError
from qio_rllib.acting.actions import ActionSpec
from qio_rllib.models.parts import SpaceParts
from qio_rllib.models.spaces import (
    ACTION_MASK,
    OBSERVATION,
    EncodedBox,
    bare_space,
    check_space,
    is_masked_space,
)
from qio_rllib.sampling.pickling import WholePickler
from qio_rllib.sampling.vector_env import (
    Agent,
    Array,
    InvalidSampleError,
    VectorEnv,
    mean_over_agents,
    name_of,
    numbers_of,
)


class ObjectVectorEnv(VectorEnv):
    """Environments of anybody's: PettingZoo ``ParallelEnv`` or Gymnasium ``Env``.

    Agents may die and appear; an environment's episode ends when it has no agents left. An agent has ended when its
    flags say so, even if the environment still lists it, or when it is no longer listed: without a flag that is a
    truncation. A truncated agent without a last observation keeps the one before.

    Args:
        make: Builds one environment.
        num_envs: ``E``.

    Raises:
        ConfigError: The environments differ in their agents or spaces, or a space is no fixed number of numbers.
    """

    def __init__(self, make: Callable[[], ParallelEnv | gymnasium.Env], num_envs: int) -> None:
        self.envs: list[Any] = [_named_agents(make()) for _ in range(num_envs)]
        self.num_envs = num_envs
        first = self.envs[0]
        self.agents = tuple(first.possible_agents)
        self.observation_spaces = {
            agent: check_space(name_of(agent), first.observation_space(agent)) for agent in self.agents
        }
        self.action_spaces = {agent: first.action_space(agent) for agent in self.agents}
        for index, env in enumerate(self.envs[1:], start=1):
            self._check_alike(index, env)
        for agent in self.agents:
            self._check_spaces(agent)
        self.state_size = state_size_of(first)
        self.has_time_limit = all(map(_has_time_limit, self.envs))
        self._index = {agent: index for index, agent in enumerate(self.agents)}
        self._masked = [is_masked_space(self.observation_spaces[agent]) for agent in self.agents]
        bare = [bare_space(self.observation_spaces[agent]) for agent in self.agents]
        self._parts = [space.parts if isinstance(space, EncodedBox) else None for space in bare]
        self._actions = [ActionSpec.of(self.action_spaces[agent], rescaled=False) for agent in self.agents]
        self._alive = np.zeros((num_envs, len(self.agents)), bool)
        self._observations: list[Mapping[Agent, Any]] = [{} for _ in self.envs]
        self._infos: list[Mapping[Agent, Any]] = [{} for _ in self.envs]
        self._steps = [0] * num_envs

    def reset(self, seeds: Array | None = None, mask: Array | None = None) -> None:
        """Start episodes in the environments of ``mask``; of a seed (uint64 ``[E]``) the low 31 bits are used.

        Raises:
            InvalidSampleError: An environment starts without agents, or with an unknown one.
        """
        for e, env in enumerate(self.envs):
            if mask is not None and not mask[e]:
                continue
            # PettingZoo and Gymnasium hand seeds to NumPy and, some, to random.seed: 31 bits suit all.
            seed = None if seeds is None else int(seeds[e] & np.uint64(0x7FFFFFFF))
            self._observations[e], infos = env.reset(seed=seed)
            self._infos[e] = infos or {}
            self._steps[e] = 0
            self._mark_alive(e, set())
            if not self._alive[e].any():
                raise InvalidSampleError(e, 0, "there are no agents after reset")

    def step(self, actions: Sequence[tuple[Array, Array]]) -> tuple[Array, Array, Array]:
        """Advance all environments; see `VectorEnv.step`. A missing reward counts as 0.

        Raises:
            InvalidSampleError: An unknown agent has appeared.
        """
        shape = (self.num_envs, len(self.agents))
        rewards = np.zeros(shape, np.float32)
        terminated, truncated = np.zeros(shape, bool), np.zeros(shape, bool)
        chosen: list[dict[Agent, Any]] = [{} for _ in self.envs]
        for agents, values in actions:
            listed = values.tolist() if values.ndim == 2 else values
            for column, index in enumerate(agents):
                agent = self.agents[index]
                spec = self._actions[index]
                for e in range(self.num_envs):
                    if self._alive[e, index]:
                        action = listed[e][column]
                        chosen[e][agent] = action if spec.parts is None else spec.structured(action)
        for e, env in enumerate(self.envs):
            if not chosen[e]:
                continue
            obs, gains, ended, cut, infos = env.step(chosen[e])
            self._steps[e] += 1
            self._mark_alive(e, {agent for flags in (ended, cut) for agent, flag in flags.items() if flag})
            for agent in chosen[e]:
                index = self._index[agent]
                rewards[e, index] = gains.get(agent, 0.0)
                if not self._alive[e, index]:
                    terminated[e, index] = ended.get(agent, False)
                    truncated[e, index] = not terminated[e, index]
                    if truncated[e, index] and agent not in obs:
                        obs = {**obs, agent: self._observations[e][agent]}
            self._observations[e], self._infos[e] = obs, infos or {}
        return rewards, terminated, truncated

    def retire(self, mask: Array) -> None:
        """Let environments play no further part: without living agents they are not stepped."""
        self._alive[mask] = False

    def alive(self) -> Array:
        """Return which agents act next, bool ``[E, N]``; the array changes with the next step."""
        return self._alive

    def observe(self, agents: Array, out: Array) -> None:
        """Write what the agents of some indices see now to ``out``, float32 ``[E, M, ...]``; 0 for absent agents.

        Raises:
            InvalidSampleError: An agent's observation is missing, of the wrong shape, or not of numbers.
        """
        parts = self._parts[agents[0]]
        if parts is not None:
            self._encode(parts, agents, out)
            return
        shape, names = out.shape[2:], [self.agents[index] for index in agents]
        plain = not self._masked[agents[0]]
        for e, obs in enumerate(self._observations):
            rows = [obs.get(name) for name in names] if plain else []
            if plain and all(
                type(row) is np.ndarray and row.shape == shape and row.dtype.kind == "f" for row in rows
            ):
                out[e] = rows  # what nearly every environment gives nearly always
                continue
            for column, index in enumerate(agents):
                present = self._alive[e, index] or self.agents[index] in obs
                out[e, column] = self._part(e, index, OBSERVATION, out.shape[2:]) if present else 0

    def action_mask(self, agents: Array) -> Array | None:
        """Return which actions are legal, bool ``[E, M, A]``; None without masks.

        Raises:
            InvalidSampleError: A living agent's mask is missing or of the wrong shape.
        """
        if not self._masked[agents[0]]:
            return None
        count = int(self.action_spaces[self.agents[agents[0]]].n)  # type: ignore[attr-defined]  # masked: Discrete
        legal = np.ones((self.num_envs, len(agents), count), bool)
        for e in range(self.num_envs):
            for column, index in enumerate(agents):
                if self._alive[e, index]:
                    legal[e, column] = self._part(e, index, ACTION_MASK, (count,)) != 0
        return legal

    def state(self) -> Array:
        """Return the global states, float32 ``[E, state_size]``.

        Raises:
            InvalidSampleError: A state is not of that size, or not of numbers.
        """
        states = np.empty((self.num_envs, self.state_size or 0), np.float32)
        for e, env in enumerate(self.envs):
            value = np.asarray(env.state())
            if value.size != self.state_size or value.dtype.kind not in "buif":
                what = f"state() is {value.dtype} of shape {value.shape}, expected {self.state_size} numbers"
                raise InvalidSampleError(e, self._steps[e], what)
            states[e] = value.ravel()
        return states

    def info(self, env_index: int) -> dict[str, float]:
        """Return the numbers of an environment's last infos: means over the agents that have them."""
        found: dict[str, list[float]] = {}
        for info in self._infos[env_index].values():
            for key, value in numbers_of(info).items():
                found.setdefault(key, []).append(float(value))
        return {key: mean_over_agents(values) for key, values in found.items()}

    def get_state(self) -> bytes | None:
        """Return the environments and what they gave last, pickled; None where they cannot be."""
        parts = (self.envs, self._alive, self._observations, self._infos, self._steps)
        buffer = io.BytesIO()
        try:
            WholePickler(buffer).dump(parts)
        except Exception:  # whatever an environment's own objects raise
            return None
        return buffer.getvalue()

    def set_state(self, state: bytes) -> None:
        """Replace the environments by those of a state.

        Raises:
            ValueError: These are others: in number, agents or spaces, or environments of the suite with other settings.
        """
        envs, *seen = pickle.loads(state)
        for index, (new, have) in enumerate(zip(envs, self.envs, strict=True)):
            if _described(new) != _described(have):
                raise ValueError(f"state: expected one of {_described(have)}, got one of {_described(new)}")
            self._check_alike(index, new)
        self.close()
        self.envs = envs
        self._alive, self._observations, self._infos, self._steps = seen

    def close(self) -> None:
        """Close the environments."""
        for env in self.envs:
            env.close()

    def _mark_alive(self, env_index: int, ended: set[Agent]) -> None:
        self._alive[env_index] = False
        for agent in self.envs[env_index].agents:
            if agent not in self._index:
                raise InvalidSampleError(
                    env_index, self._steps[env_index], f"agent {agent} is not among the possible agents"
                )
            self._alive[env_index, self._index[agent]] = agent not in ended

    def _encode(self, parts: SpaceParts, agents: Array, out: Array) -> None:
        """Write observations of other spaces than Boxes, of all agents and environments at once."""
        rows = out.reshape(self.num_envs * len(agents), -1)
        places, values = [], []
        for e, obs in enumerate(self._observations):
            for column, index in enumerate(agents):
                name = self.agents[index]
                if self._alive[e, index] or name in obs:
                    value = obs.get(name)
                    if self._masked[index]:
                        value = value.get(OBSERVATION) if isinstance(value, Mapping) else None
                    places.append(e * len(agents) + column)
                    values.append(value)
        if len(places) == len(rows):
            found = rows
        else:
            rows[:] = 0.0
            found = np.empty((len(places), rows.shape[1]), np.float32)
        try:
            parts.encode(values, found)
        except ValueError:
            self._refuse_first(parts, agents, places, values)
        if found is not rows:
            rows[places] = found

    def _refuse_first(self, parts: SpaceParts, agents: Array, places: list[int], values: list[Any]) -> None:
        """Name the first observation that cannot be written as numbers."""
        row = np.empty((1, parts.encoded_size), np.float32)
        for place, value in zip(places, values, strict=True):
            try:
                parts.encode([value], row)
            except ValueError as error:
                e, column = divmod(place, len(agents))
                agent = self.agents[agents[column]]
                given = " ".join(reprlib.repr(value).split())
                what = f"observation of {name_of(agent)} is {given}: {error}, in {self.observation_spaces[agent]}"
                raise InvalidSampleError(e, self._steps[e], what) from error

    def _part(self, env_index: int, index: int, name: str, shape: tuple[int, ...]) -> Array:
        """Return an agent's observation or action mask."""
        agent = self.agents[index]
        value = self._observations[env_index].get(agent)
        if self._masked[index]:
            value = value.get(name) if isinstance(value, Mapping) else None
        try:
            array = np.asarray(value)
        except ValueError:  # rows of different lengths
            array = np.asarray(None)
        if array.shape != shape or array.dtype.kind not in "buif":
            given = " ".join(reprlib.repr(value).split())
            what = f"{name} of {name_of(agent)} is {given} of shape {array.shape}, expected numbers of shape {shape}"
            raise InvalidSampleError(env_index, self._steps[env_index], what)
        return array

    def _check_spaces(self, agent: Agent) -> None:
        space, actions = self.observation_spaces[agent], self.action_spaces[agent]
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
                f"env: environment {index} has the agents {list(env.possible_agents)}, environment 0 has "
                f"{list(self.agents)}"
            )
        for agent in self.agents:
            for kind, ours, theirs in (
                (
                    "observation",
                    self.observation_spaces[agent],
                    check_space(name_of(agent), env.observation_space(agent)),
                ),
                ("action", self.action_spaces[agent], env.action_space(agent)),
            ):
                if ours != theirs:
                    raise ConfigError(
                        f"env: the {kind} space of {name_of(agent)} is {theirs} in environment {index} and {ours} "
                        "in environment 0; environments must have equal spaces"
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


def batch_behind(env: Any) -> BatchedEnv | None:
    """Return the batch that is one of `ObjectVectorEnv.envs`; None for an environment of anybody's."""
    batch = getattr(getattr(getattr(env, "env", env), "unwrapped", None), "batch", None)
    return batch if isinstance(batch, BatchedEnv) else None


def _described(env: Any) -> str | None:
    """Return what says which environment of the suite this is and its settings; None for one of anybody's."""
    batch = batch_behind(env)
    return None if batch is None else batch.config.described(batch.id)


def _has_time_limit(env: Any) -> bool:
    """Return whether an environment is of the suite, or has Gymnasium's time limit somewhere around it."""
    if _described(env) is not None:
        return True
    while env is not None:
        if isinstance(env, gymnasium.wrappers.TimeLimit):
            return True
        env = getattr(env, "env", None)
    return False


def state_size_of(env: Any) -> int | None:
    """Return the size of a PettingZoo environment's ``state()`` by its ``state_space``; None without one."""
    try:
        shape = env.state_space.shape
    except (AttributeError, NotImplementedError):
        return None
    return None if shape is None else int(np.prod(shape))


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

"""`BatchedEnv`: the contract that every environment of this package fulfils, written once, over a batch."""

from __future__ import annotations

import abc
import copy
import functools
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, Protocol, TypeVar

import gymnasium
import numpy as np

from qio_envs.api.causal import StepGraph, checked_intervention
from qio_envs.api.config import EnvConfig, is_integer
from qio_envs.api.errors import InvalidActionError, ResetNeededError, UnsupportedError
from qio_envs.api.limits import SCENARIO, Limits, Relations, check_state, matching_arrays

if TYPE_CHECKING:
    from qio_envs.api.actions import ActionCheck

Array = np.ndarray
"""An array; its shape and dtype stand where it is named."""


class Transition(NamedTuple):
    """What one step gives; every array is the caller's own."""

    rewards: Array  # float32 [E, N]
    terminated: Array  # bool [E, N]: the task itself ended for the agent
    truncated: Array  # bool [E, N]: a limit outside the task (time) cut the agent's episode


class Counterfactual(NamedTuple):
    """What one step would give under other actions and the same random numbers; ``C`` branches of ``E`` environments.

    Every array is the caller's own.
    """

    rewards: Array  # float32 [C, E, N]
    terminated: Array  # bool [C, E, N]
    truncated: Array  # bool [C, E, N]
    observations: Array  # float32 [C, E, N, *observation_space.shape], after the step
    env: BatchedEnv  # the C * E environments after the step, to go on with; see `BatchedEnv.branch`


class BatchState(Protocol):
    """What an environment's state is: a named tuple of arrays, each with a leading axis ``E``.

    The arrays are written in place and never replaced; kernels take the tuple whole. Every state has these four.
    """

    @property
    def seed(self) -> Array:
        """Key of the counter-based random numbers, uint64 ``[E]``."""

    @property
    def episode(self) -> Array:
        """Episodes since the seed was given, uint32 ``[E]``."""

    @property
    def step(self) -> Array:
        """Steps since the reset, int32 ``[E]``; -1 before the first."""

    @property
    def running(self) -> Array:
        """Whether the environment was reset and its episode has not ended, bool ``[E]``."""

    def _asdict(self) -> dict[str, Any]:
        """Return the arrays by name (of every ``NamedTuple``)."""


ConfigT = TypeVar("ConfigT", bound=EnvConfig)
StateT = TypeVar("StateT", bound=BatchState)


class ScriptedPolicy(Protocol):
    """Acts for every agent of every environment of a batch."""

    def act(self) -> Array:
        """Return the actions ``[E, N, ...]`` for the environment's present state."""


class BatchedEnv(abc.ABC, Generic[ConfigT, StateT]):
    """``E`` independent environments with ``N`` agents each and equal settings, as arrays.

    All agents share one observation and one action space. Environment ``i`` is bit for bit the one that the same seed
    gives alone. Nothing resets by itself: after a step the final observation can be read, and
    ``reset(mask=~env.running)`` starts the next episodes of those that have ended. Objects can be pickled and copied.

    A class of its own is ``BatchedEnv[ItsConfig, ItsState]``, where its state is a `BatchState`.

    Args:
        config: The settings.
        num_envs: Number of environments ``E``, at least 1.

    Attributes:
        id: Versioned name, such as ``forest_uav_v0``.
        config: The settings.
        arrays: The state.
        possible_agents: ``N`` agent names.
        observation_space: Space of one agent's observation (without its action mask).
        action_space: Space of one agent's action.
        state_space: Space of one environment's global state.
        has_action_mask: Whether `action_mask` can forbid actions.
        teams: Names of the agents that play together, by team; None where the environment does not say.
        lacks_opponents: Why agents have nobody to play against, and what to set; None where nothing is to be said.
        scripted_policies: Reference policies by name, made with the environment; the first is random play, the last an
            oracle or upper bound.
        intervention_spaces: What `intervene` can set, by variable: a Box of one number or a Discrete; or empty.
        action_dependent_draws: Why the meaning of a step's random numbers depends on actions, so that
            `counterfactual` is refused; None where it does not.
        shown_messages: For pictures alone: what agents told each other in the last step, float32 ``[E, N, B]`` in
            [-1, 1], set by whoever plays; None where they do not talk.
    """

    id: str
    render_modes: tuple[str, ...] = ("human", "rgb_array", "ansi")
    render_fps: int = 10
    config_class: type[EnvConfig]
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {}
    action_dependent_draws: str | None = None
    shown_messages: Array | None = None
    possible_agents: tuple[str, ...]
    observation_space: gymnasium.spaces.Box
    action_space: gymnasium.spaces.Discrete | gymnasium.spaces.Box
    state_space: gymnasium.spaces.Box
    has_action_mask: bool = False
    teams: tuple[tuple[str, ...], ...] | None = None
    lacks_opponents: str | None = None
    intervention_spaces: Mapping[str, gymnasium.spaces.Box | gymnasium.spaces.Discrete] = {}
    config: ConfigT
    arrays: StateT

    def __init__(self, config: ConfigT, num_envs: int = 1) -> None:
        self.config = config
        self.num_envs = operator.index(num_envs)
        if self.num_envs < 1:
            raise ValueError(f"num_envs: expected an integer of at least 1, got {num_envs!r}")

    @property
    def num_agents(self) -> int:
        """Number of agents ``N``."""
        return len(self.possible_agents)

    @property
    def running(self) -> Array:
        """Bool ``[E]``: environments that were reset and whose episode has not ended (the caller's own array)."""
        return self.arrays.running.copy()

    # -- what an environment implements ---------------------------------------------------------------------

    @abc.abstractmethod
    def _reset(self, mask: Array) -> None:
        """Start an episode where ``mask`` (bool ``[E]``) is true; seed, episode and step are set already."""

    @abc.abstractmethod
    def _step(self, actions: Array) -> Transition:
        """Advance all environments by valid ``actions`` and set ``arrays.running``."""

    @abc.abstractmethod
    def observe(self, out: Array | None = None) -> Array:
        """Return every agent's observation, float32 ``[E, N, *observation_space.shape]``.

        Args:
            out: C-contiguous array of that shape and dtype to write to; a new one when absent.
        """

    @abc.abstractmethod
    def state(self) -> Array:
        """Return the global state, float32 ``[E, *state_space.shape]``: what a centralised critic may see."""

    @abc.abstractmethod
    def info(self) -> dict[str, Array]:
        """Return the episode's metrics so far, by name; ``team_return`` is the score.

        A metric of the whole environment is ``[E]``. A metric of every agent is ``[E, N]``, in the order of
        ``possible_agents``, and listed in the class's documentation as such; these are to be read by agent, never
        as one number: the PettingZoo adapter gives each agent its own.
        """

    @abc.abstractmethod
    def render(self, index: int = 0, mode: str = "rgb_array") -> Array | str:
        """Return a picture of environment ``index``: uint8 ``[h, w, 3]`` for ``rgb_array``, text for ``ansi``."""

    @abc.abstractmethod
    def state_limits(self) -> Limits:
        """Return the lowest and the highest number that `set_state` takes in each array of the state, by name."""

    def _state_relations(self, state: StateT) -> Relations:
        """Return what must hold besides in a state within `state_limits`, in environments that were reset."""
        return ()

    def action_mask(self) -> Array:
        """Return which actions are legal, int8 ``[E, N, A]`` of 0 and 1 (all ones unless overridden)."""
        if not isinstance(self.action_space, gymnasium.spaces.Discrete):
            raise TypeError(f"{self.id} has continuous actions: there is no action mask")
        return np.ones((self.num_envs, self.num_agents, int(self.action_space.n)), np.int8)

    def graph(self) -> StepGraph:
        """Return the causal graph of one time step with the present settings.

        Raises:
            UnsupportedError: The environment describes none.
        """
        raise UnsupportedError(f"{self.id} has no description of its causal graph")

    def variables(self) -> dict[str, Array]:
        """Return the components of the state by the names of `graph`, float32 ``[E]`` each, hidden ones too.

        Raises:
            UnsupportedError: The environment names none.
        """
        raise UnsupportedError(f"{self.id} has no names for the components of its state")

    def _intervene(self, mask: Array, values: Array) -> None:
        """Set variables to ``values`` (float32 ``[E, K]``, within `intervention_spaces`) where ``mask`` is true."""
        raise NotImplementedError

    # -- what every environment shares ----------------------------------------------------------------------

    def reset(self, seeds: int | Sequence[int] | Array | None = None, mask: Array | None = None) -> None:
        """Start new episodes.

        Args:
            seeds: One seed per environment (``[E]``, 0 to 2**64 - 1), or one integer ``s`` for ``s, s + 1, ...``;
                the episode counter starts at 0. Without it every environment goes on to the next episode of its
                seed; one that never had a seed draws it from the operating system's entropy.
            mask: Bool ``[E]``, the environments to reset; all when absent.

        Raises:
            ValueError: Seeds or mask of the wrong shape, type or range.
        """
        chosen = np.ones(self.num_envs, bool) if mask is None else np.ascontiguousarray(mask)
        if chosen.shape != (self.num_envs,) or chosen.dtype != bool:
            raise ValueError(
                f"mask: expected bool of shape ({self.num_envs},), got {chosen.dtype} of shape {chosen.shape}"
            )
        arrays = self.arrays
        if seeds is not None:
            arrays.seed[chosen] = self._seeds(seeds)[chosen]
            arrays.episode[chosen] = 0
        else:
            unseeded = chosen & (arrays.step < 0)
            if unseeded.any():
                entropy = np.random.SeedSequence().generate_state(self.num_envs, np.uint64)
                arrays.seed[unseeded] = entropy[unseeded]
                arrays.episode[unseeded] = 0
            arrays.episode[chosen & ~unseeded] += np.uint32(1)
        arrays.step[chosen] = 0
        arrays.running[chosen] = True
        self._reset(chosen)

    def step(self, actions: Array) -> Transition:
        """Advance every environment by one time step.

        Args:
            actions: Integers ``[E, N]`` for discrete actions, floats ``[E, N, *action_space.shape]`` otherwise.
                Rows of agents that have ended are ignored.

        Raises:
            InvalidActionError: Wrong shape or type, a discrete action out of range, or a continuous one
                that is not finite; nothing has been advanced.
            ResetNeededError: An environment was never reset or has ended.
        """
        running, check = self.arrays.running, self._action_check
        if check.passes(actions, running):
            return self._step(actions)
        if not running.all():
            raise self._not_running(~running)
        return self._step(check.checked(actions, self.num_envs, self.agents_alive, self.possible_agents))

    @functools.cached_property
    def _action_check(self) -> ActionCheck:
        from qio_envs.api.actions import ActionCheck  # numba, which takes half a second to import

        return ActionCheck(self.action_space, self.num_agents)

    @functools.cached_property
    def _observation_shape(self) -> tuple[int, ...]:
        """Shape of the observations of one environment, ``(N, *observation_space.shape)``."""
        return self.num_agents, *self.observation_space.shape

    def agents_alive(self) -> Array:
        """Return bool ``[E, N]``: agents whose episode goes on."""
        return np.repeat(self.arrays.running[:, None], self.num_agents, axis=1)

    @functools.cached_property
    def _scenario(self) -> str:
        return self.config.described(self.id)

    def get_state(self) -> dict[str, Array]:
        """Return a copy of the state by name, and whose it is (`SCENARIO`); `set_state` goes on from it exactly."""
        state = {name: array.copy() for name, array in self.arrays._asdict().items()}
        return state | {SCENARIO: np.full(self.num_envs, self._scenario)}

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Continue from a state of `get_state`, of an environment with the same id and settings.

        Raises:
            ValueError: It does not match (`matching_arrays`), or a number lies outside `state_limits` or contradicts
                another. Nothing has been set then.
        """
        arrays = self.arrays._asdict()
        new = matching_arrays(state, arrays, self._scenario)
        check_state(new, self.state_limits(), self._state_relations(type(self.arrays)(**new)))
        for name, have in arrays.items():
            have[...] = new[name]

    def clone(self) -> BatchedEnv:
        """Return an independent copy that continues as this one would."""
        return copy.deepcopy(self)

    def branch(self, count: int) -> BatchedEnv:
        """Return ``count * E`` environments in which each of these stands ``count`` times in its present state.

        Environment ``e`` of branch ``c`` has the index ``c * E + e``. Seed, episode and step are the same in every
        branch, so that all meet the same random numbers.

        Args:
            count: Number of branches, at least 1.

        Raises:
            ValueError: ``count`` is no integer of at least 1.
        """
        if not is_integer(count) or count < 1:
            raise ValueError(f"count: expected an integer of at least 1, got {count!r}")
        from qio_envs.api.kernels import Kernel  # as above

        result = copy.copy(self)
        result.num_envs, result.shown_messages = int(count) * self.num_envs, None
        tiled = {
            name: np.tile(array, (int(count),) + (1,) * (array.ndim - 1))
            for name, array in self.arrays._asdict().items()
        }
        result.arrays = type(self.arrays)(**tiled)
        for name, value in vars(self).items():
            if isinstance(value, Kernel):
                setattr(result, name, value.copy())
        return result

    def counterfactual(self, actions: Array) -> Counterfactual:
        """Return what the next step would give under each of ``C`` choices of actions; nothing here changes.

        All branches meet the random numbers that `step` would meet: abduction, action and prediction with the noise
        known, not inferred. The branch with the actions that are really taken is the future bit for bit.

        Args:
            actions: ``[C, E, N, ...]``: for each branch what `step` takes.

        Raises:
            UnsupportedError: What a random number means depends on actions (`action_dependent_draws`).
            InvalidActionError: Actions that do not fit; the environment named is ``c * E + e``.
            ResetNeededError: An environment was never reset or has ended.
        """
        if self.action_dependent_draws is not None:
            raise UnsupportedError(
                f"{self.id} has no exact counterfactuals with these settings: {self.action_dependent_draws}"
            )
        values = np.asarray(actions)
        shape = (self.num_envs, *self._action_check.shape)
        if values.shape[1:] != shape or values.shape[0] < 1:
            raise InvalidActionError(
                f"actions: expected shape (C, {str(shape)[1:-1]}) with at least one branch, got {values.shape}"
            )
        env = self.branch(values.shape[0])
        *outcome, observations = (
            array.reshape(*values.shape[:2], *array.shape[1:])
            for array in (*env.step(values.reshape(env.num_envs, *shape[1:])), env.observe())
        )
        rewards, terminated, truncated = outcome
        return Counterfactual(rewards, terminated, truncated, observations, env)

    @property
    def intervention_variables(self) -> tuple[str, ...]:
        """Names of the ``K`` variables that `intervene` can set, in the order of its columns."""
        return tuple(self.intervention_spaces)

    def intervene(self, mask: Array, values: Array) -> None:
        """Set variables from outside: do(variable = value), now, between two steps.

        Nothing else changes now, not even an episode's end: effects come with the next step. For names with ``'``
        behind the value replaces what would cause the variable in the coming step, once.

        Args:
            mask: Which variables to set, bool ``[E, K]``, in the order of `intervention_variables`.
            values: Numbers ``[E, K]``; those outside the mask do not matter.

        Raises:
            UnsupportedError: The environment has no variables that can be set.
            InterventionError: Wrong shape or type, or a value outside `intervention_spaces`, such as NaN.
            ResetNeededError: One of the environments was never reset or has ended. Nothing has been set then.
        """
        if not self.intervention_spaces:
            raise UnsupportedError(f"{self.id} has no variables to intervene on")
        chosen, numbers = checked_intervention(mask, values, self.intervention_spaces, self.num_envs)
        ended = chosen.any(axis=1) & ~self.arrays.running
        if ended.any():
            raise self._not_running(ended)
        self._intervene(chosen, numbers)

    def _not_running(self, ended: Array) -> ResetNeededError:
        index = int(np.flatnonzero(ended)[0])
        return ResetNeededError(f"env {index} of {self.id} has ended or was never reset: call reset() first")

    def _observation_array(self, out: Array | None) -> Array:
        """Return what `observe` writes to: ``out`` if it fits, a new array without it.

        Raises:
            ValueError: It does not fit.
        """
        shape = (self.num_envs, *self._observation_shape)
        if out is None:
            return np.empty(shape, np.float32)
        if out.shape != shape or out.dtype != np.float32 or not out.flags.carray:
            raise ValueError(
                f"out: expected writable C-contiguous float32 of shape {shape}, got {out.dtype} of shape {out.shape}"
            )
        return out

    def _seeds(self, seeds: int | Sequence[int] | Array) -> Array:
        if is_integer(seeds):
            seeds = [int(seeds) + index for index in range(self.num_envs)]  # type: ignore[arg-type]
        # As objects: NumPy makes floats of a list that mixes integers below and above 2**63.
        values = seeds if isinstance(seeds, np.ndarray) else np.array(seeds, object)
        if values.shape != (self.num_envs,):
            raise ValueError(f"seeds: expected one or {self.num_envs} integers, got shape {values.shape}")
        for value in values:
            if not is_integer(value) or not 0 <= value < 2**64:
                raise ValueError(f"seeds: expected integers from 0 to 2**64 - 1, got {value!r}")
        return values.astype(np.uint64)

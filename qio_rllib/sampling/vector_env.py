"""`VectorEnv`: several environments as arrays, whoever made them; what `EnvStepper` steps."""

from __future__ import annotations

import abc
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np

Array = np.ndarray
Agent = Hashable


class InvalidSampleError(ValueError):
    """An environment gave something that cannot be learned from; the message names environment, step, agent and value.

    Steps are counted from the start of the environment's episode: step 0 is the reset.
    """

    def __init__(self, env_index: int, step: int, what: str) -> None:
        super().__init__(f"environment {env_index}, step {step} of its episode: {what}")
        self._parts = (env_index, step, what)

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._parts


class VectorEnv(abc.ABC):
    """``E`` environments of one kind with ``N`` agents, as arrays; an agent's place in `agents` is its index.

    Attributes:
        agents: ``N`` agent ids; ``(None,)`` for an environment without agents' names.
        observation_spaces: By agent; a Dict of ``observation`` and ``action_mask`` where there are masks.
        action_spaces: By agent.
        num_envs: ``E``.
        state_size: Numbers in `state`; None where the environment has no global state.
        has_time_limit: Whether every episode is known to end, by a time limit of the environment's own or by its rules.
        teams: The agents that play together, by team; None where the environment does not say.
        lacks_opponents: Why agents have nobody to play against, and what to set; None where nothing is to be said.
    """

    agents: tuple[Agent, ...]
    observation_spaces: dict[Agent, gymnasium.Space]
    action_spaces: dict[Agent, gymnasium.Space]
    num_envs: int
    state_size: int | None
    has_time_limit: bool
    teams: tuple[tuple[Agent, ...], ...] | None = None
    lacks_opponents: str | None = None

    @abc.abstractmethod
    def reset(self, seeds: Array | None = None, mask: Array | None = None) -> None:
        """Start episodes in the environments of ``mask`` (bool ``[E]``; all when absent).

        Args:
            seeds: uint64 ``[E]``; without them the environments' own random numbers go on.
            mask: Which environments.
        """

    @abc.abstractmethod
    def step(self, actions: Sequence[tuple[Array, Array]]) -> tuple[Array, Array, Array]:
        """Advance all environments.

        Args:
            actions: For each group of agent indices (int64 ``[M]``) its actions ``[E, M, ...]``, as the environment
                takes them; those of agents that are not alive are ignored. Together the groups hold every agent once; a
                single group holds them in order.

        Returns:
            Rewards (float32), terminated and truncated (bool), each ``[E, N]``.
        """

    @abc.abstractmethod
    def retire(self, mask: Array) -> None:
        """Let environments whose episode has ended (bool ``[E]``) play no further part until they are reset.

        Their later steps cost little and mean nothing.
        """

    @abc.abstractmethod
    def alive(self) -> Array:
        """Return which agents act next, bool ``[E, N]``; an environment without any has ended."""

    @abc.abstractmethod
    def observe(self, agents: Array, out: Array) -> None:
        """Write what the agents of some indices see now.

        Args:
            agents: int64 ``[M]``.
            out: C-contiguous float32 ``[E, M, ...]``. The row of an agent that has just ended gets what it saw last.

        Raises:
            InvalidSampleError: An observation is missing or of the wrong shape.
        """

    @abc.abstractmethod
    def action_mask(self, agents: Array) -> Array | None:
        """Return which actions of the agents of some indices are legal, bool ``[E, M, A]``; None without masks.

        All actions of agents that are not alive count as legal.
        """

    @abc.abstractmethod
    def state(self) -> Array:
        """Return the global states, float32 ``[E, state_size]``.

        Raises:
            InvalidSampleError: A state is not of that size.
        """

    @abc.abstractmethod
    def info(self, env_index: int) -> dict[str, float]:
        """Return the numbers of an environment's last info; of those that each agent has, the mean over agents."""

    @abc.abstractmethod
    def get_state(self) -> Any:
        """Return what `set_state` needs to go on exactly, or None where the environment cannot be pickled."""

    @abc.abstractmethod
    def set_state(self, state: Any) -> None:
        """Go on from a state of `get_state`, of as many environments of the same environment."""

    @abc.abstractmethod
    def close(self) -> None:
        """Release what the environments hold."""


def numbers_of(info: Mapping[str, Any] | None) -> dict[str, float]:
    """Return what of an ``info`` is a number."""
    return {
        key: value  # type: ignore[misc]
        for key, value in (info or {}).items()
        if isinstance(value, int | float | np.number) and not isinstance(value, bool)
    }


def mean_over_agents(values: Any) -> float:
    """Return the mean of one number an agent; the number itself, without rounding, where all have the same."""
    array = np.asarray(values, np.float64).ravel()
    return float(array[0] if (array == array[0]).all() else array.mean())


def name_of(agent: Agent) -> str:
    """Return how messages call an agent."""
    return "the agent" if agent is None else str(agent)

"""What a central critic sees: the environment's own state, or the observations of all agents."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import gymnasium
import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.models.spaces import bare_space
from qio_rllib.sampling.vector_env import Array, VectorEnv

STATE, OBSERVATIONS = "state", "observations"


@dataclasses.dataclass(frozen=True)
class StateSource:
    """Where the global states of a `Rollout` come from.

    Attributes:
        kind: ``state`` (the environment's ``state()``) or ``observations`` (those of all agents, one after the other,
            zeros for agents that are not alive; without one-hot agent indices).
        size: Numbers in a global state.
    """

    kind: str
    size: int

    @classmethod
    def of(
        cls,
        kind: str | None,
        env: Any,
        observation_spaces: Mapping[Any, gymnasium.Space],
        state_size: int | None,
    ) -> Self | None:
        """Find the size of a source's states.

        Args:
            kind: ``state``, ``observations``, or None for no states at all.
            env: The environment's name, for messages.
            observation_spaces: By agent.
            state_size: Numbers in the environment's ``state()``; None without one.

        Raises:
            ConfigError: Another kind, or ``state`` of an environment that has none.
        """
        if kind is None:
            return None
        if kind not in (STATE, OBSERVATIONS):
            raise ConfigError(f"expected {STATE} or {OBSERVATIONS}, got {kind!r}")
        if kind == OBSERVATIONS:
            return cls(
                kind, sum(math.prod(bare_space(space).shape or ()) for space in observation_spaces.values())
            )
        if not state_size:
            raise ConfigError(f"{env} has no state(): take '{OBSERVATIONS}', which joins those of all agents")
        return cls(kind, state_size)

    def read(self, env: VectorEnv, obs: Sequence[tuple[Array, Array]], alive: Array) -> Array:
        """Return the present states, float32 ``[E, size]``.

        Args:
            env: The environments.
            obs: (agent indices ``[M]``, observations ``[E, M, ...]``) of each group of agents.
            alive: bool ``[E, N]``.
        """
        if self.kind == STATE:
            return env.state()
        rows = [
            np.where(alive[:, index, None], values.reshape(*values.shape[:2], -1), 0) for index, values in obs
        ]
        return np.concatenate([row.reshape(env.num_envs, -1) for row in rows], axis=1, dtype=np.float32)

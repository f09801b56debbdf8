"""A `BatchedEnv` of `qio_envs` as a `VectorEnv`."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qio_envs.adapters.spaces import agent_observation_space
from qio_envs.api import BatchedEnv
from qio_rllib.sampling.vector_env import Array, VectorEnv, mean_over_agents


class BatchedVectorEnv(VectorEnv):
    """The environments of a `BatchedEnv`; arrays go straight from its kernels into the rollout.

    Args:
        env: The batch; it must honour ``observe(out)``.
    """

    has_time_limit = True

    def __init__(self, env: BatchedEnv) -> None:
        self.env = env
        self.num_envs = env.num_envs
        self.agents = tuple(env.possible_agents)
        self.teams, self.lacks_opponents = env.teams, env.lacks_opponents
        space = agent_observation_space(env)
        self.observation_spaces = dict.fromkeys(self.agents, space)
        self.action_spaces = dict.fromkeys(self.agents, env.action_space)
        shape = (env.num_envs, env.num_agents, *(env.action_space.shape or ()))
        self._actions = np.zeros(shape, env.action_space.dtype)
        self.state_size = int(np.prod(env.state_space.shape))

    def reset(self, seeds: Array | None = None, mask: Array | None = None) -> None:
        """Start episodes, as `BatchedEnv.reset` does; without seeds, the next episode of each one's own seed."""
        self.env.reset(seeds, mask)

    def step(self, actions: Sequence[tuple[Array, Array]]) -> tuple[Array, Array, Array]:
        """Advance all environments; see `VectorEnv.step`. Errors are those of `BatchedEnv.step`."""
        if len(actions) == 1:
            return self.env.step(actions[0][1])
        for index, chosen in actions:
            self._actions[:, index] = chosen
        return self.env.step(self._actions)

    def retire(self, mask: Array) -> None:
        """Let environments play no further part: a kernel steps all, so that these start another episode."""
        self.env.reset(mask=mask)

    def alive(self) -> Array:
        """Return which agents act next, bool ``[E, N]``."""
        return self.env.agents_alive()

    def observe(self, agents: Array, out: Array) -> None:
        """Write what the agents of some indices see now to ``out``, float32 ``[E, M, ...]``."""
        if len(agents) == len(self.agents):
            self.env.observe(out)
        else:
            out[...] = self.env.observe()[:, agents]

    def action_mask(self, agents: Array) -> Array | None:
        """Return which actions are legal, bool ``[E, M, A]``; None without masks."""
        if not self.env.has_action_mask:
            return None
        legal = self.env.action_mask()[:, agents] != 0
        legal[~self.env.agents_alive()[:, agents]] = True
        return legal

    def state(self) -> Array:
        """Return the global states, float32 ``[E, state_size]``."""
        return self.env.state().reshape(self.num_envs, -1)

    def info(self, env_index: int) -> dict[str, float]:
        """Return the numbers of an environment's info now; of those that each agent has, the mean over agents."""
        return {key: mean_over_agents(array[env_index]) for key, array in self.env.info().items()}

    def get_state(self) -> dict[str, Array]:
        """Return the state of all environments and whose it is, by name."""
        return self.env.get_state()

    def set_state(self, state: dict[str, Array]) -> None:
        """Go on from a state; raises ValueError as `BatchedEnv.set_state`."""
        self.env.set_state(state)

    def close(self) -> None:
        """Release nothing: a batch is arrays."""

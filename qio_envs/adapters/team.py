"""`TeamEnv`: one player who chooses for all agents of an environment."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import gymnasium
import numpy as np

from qio_envs.api.batched import Array, BatchedEnv, ScriptedPolicy, Transition
from qio_envs.api.config import ConfigError
from qio_envs.api.limits import Limits

_MAX_ACTIONS = 1_000_000


class TeamEnv(BatchedEnv):
    """A `BatchedEnv` with discrete actions as the problem of a single player, ``team``.

    The player sees what all agents see and answers with a joint action; so methods for one agent (and Gymnasium)
    apply. It is another, often easier problem: what agents could not tell each other, the player knows.

    **Actions**: ``Discrete(A**N)``: the agents' actions are the digits to the base A, that of the first agent the
    most significant. Digits of agents that have ended are ignored.

    **Observations**: float32 ``[N D]``, the agents' observations one after the other.

    **Rewards**: the sum over the agents.

    **Ends**: with the environment's episode; truncated if the last step truncated any agent, terminated otherwise.

    **Action masks**, where the environment has them: a joint action is legal if each agent's part is; to agents that
    have ended everything is legal.

    **State**, pictures, configuration, id, saved states and interventions are the environment's. So is **info**, but
    numbers by agent come as one ``[E]`` for each agent with its name at the end, as ``agent_return_agent_0``.

    **Scripted policies**: those of the environment.

    Args:
        env: The environment to play; it belongs to the team from now on.

    Attributes:
        env: That environment.

    Raises:
        ConfigError: Continuous actions, or more than 1,000,000 joint ones.
    """

    def __init__(self, env: BatchedEnv) -> None:
        super().__init__(env.config, env.num_envs)
        if not isinstance(env.action_space, gymnasium.spaces.Discrete):
            raise ConfigError(
                f"as_team: {env.id} has continuous actions here; a team needs discrete ones, which can be counted"
            )
        self.env = env
        self._choices, agents = int(env.action_space.n), env.num_agents
        joint = self._choices**agents
        if joint > _MAX_ACTIONS:
            raise ConfigError(
                f"as_team: {agents} agents with {self._choices} actions each have {joint} joint actions; "
                f"allowed: up to {_MAX_ACTIONS}"
            )
        space = env.observation_space
        low, high = (np.tile(bound.ravel(), agents) for bound in (space.low, space.high))
        self.id = env.id  # the wrapped environment's, not the class's
        self.render_modes = env.render_modes
        self.render_fps = env.render_fps
        self.config_class = type(env.config)
        self.scripted_policies = {
            name: functools.partial(_TeamPolicy, policy) for name, policy in env.scripted_policies.items()
        }
        self.possible_agents = ("team",)
        self.observation_space = gymnasium.spaces.Box(low, high, dtype=np.float32)
        self.action_space = gymnasium.spaces.Discrete(joint)
        self.state_space = env.state_space
        self.has_action_mask = env.has_action_mask
        self.intervention_spaces = env.intervention_spaces
        self.action_dependent_draws = env.action_dependent_draws
        self.arrays = env.arrays

    def encode(self, actions: Array) -> Array:
        """Return the agents' actions, integers ``[E, N]``, as joint actions, int64 ``[E, 1]``."""
        joint = np.zeros((len(actions), 1), np.int64)
        for column in range(actions.shape[1]):
            joint[:, 0] = joint[:, 0] * self._choices + actions[:, column]
        return joint

    def decode(self, joint: Array) -> Array:
        """Return joint actions, integers ``[E, 1]``, as the agents' actions, int64 ``[E, N]``."""
        powers = self._choices ** np.arange(self.env.num_agents, dtype=np.int64)[::-1]
        return np.asarray(joint, np.int64) // powers % self._choices

    def state_limits(self) -> Limits:
        """Return what `set_state` takes, by array: what the environment's does."""
        return self.env.state_limits()

    def _reset(self, mask: Array) -> None:
        self.env._reset(mask)

    def _step(self, actions: Array) -> Transition:
        rewards, terminated, truncated = self.env.step(self.decode(actions))
        total = np.zeros((self.num_envs, 1), np.float32)
        for column in range(rewards.shape[1]):  # in this order, whatever the number of environments
            total[:, 0] += rewards[:, column]
        over = ~self.arrays.running[:, None]
        cut = over & (truncated & ~terminated).any(axis=1, keepdims=True)
        return Transition(total, over & ~cut, cut)

    def branch(self, count: int) -> TeamEnv:
        """Return the team of ``count * E`` environments, as `BatchedEnv.branch`.

        Raises:
            ValueError: ``count`` is no integer of at least 1.
        """
        return TeamEnv(self.env.branch(count))

    def variables(self) -> dict[str, Array]:
        """Return the components of the environment's state by name, as `BatchedEnv.variables`."""
        return self.env.variables()

    def _intervene(self, mask: Array, values: Array) -> None:
        self.env._intervene(mask, values)

    def observe(self, out: Array | None = None) -> Array:
        """Return what all agents observe, float32 ``[E, 1, N D]``.

        Raises:
            ValueError: ``out`` is not a C-contiguous float32 array of that shape.
        """
        out = self._observation_array(out)
        self.env.observe(out.reshape(self.num_envs, self.env.num_agents, *self.env.observation_space.shape))
        return out

    def action_mask(self) -> Array:
        """Return which joint actions are legal, int8 ``[E, 1, A**N]`` of 0 and 1."""
        if not self.has_action_mask:
            return super().action_mask()
        alive = self.env.agents_alive()[..., None]
        masks = np.where(alive, self.env.action_mask(), np.int8(1))  # [E, N, A]
        joint = np.ones((self.num_envs, 1), np.int8)
        for column in range(self.env.num_agents):
            joint = (joint[:, :, None] & masks[:, column, None]).reshape(self.num_envs, -1)
        return joint[:, None]

    def state(self) -> Array:
        """Return the environment's global state, float32 ``[E, *state_space.shape]``."""
        return self.env.state()

    def info(self) -> dict[str, Array]:
        """Return the episode's metrics so far, each ``[E]``."""
        metrics = {}
        for key, values in self.env.info().items():
            if values.ndim == 1:
                metrics[key] = values
            else:
                for column, agent in enumerate(self.env.possible_agents):
                    metrics[f"{key}_{agent}"] = np.ascontiguousarray(values[:, column])
        return metrics

    def render(self, index: int = 0, mode: str = "rgb_array") -> Array | str:
        """Return the environment's picture of environment ``index``."""
        return self.env.render(index, mode)

    def get_state(self) -> dict[str, Array]:
        """Return a copy of the environment's whole state, by name; `set_state` continues from it exactly."""
        return self.env.get_state()

    def set_state(self, state: Mapping[str, Array]) -> None:
        """Continue from a state of `get_state`, of the team's or of the environment's own.

        Raises:
            ValueError: As `BatchedEnv.set_state`.
        """
        self.env.set_state(state)


class _TeamPolicy:
    """A scripted policy of the wrapped environment; its actions come as joint ones."""

    def __init__(self, policy: Callable[[Any], ScriptedPolicy], env: TeamEnv) -> None:
        self.env = env
        self.policy = policy(env.env)

    def act(self) -> Array:
        """Return joint actions, int64 ``[E, 1]``."""
        return self.env.encode(self.policy.act())

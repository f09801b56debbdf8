"""`Branches` of the environments, in which an agent acts otherwise under the same noise, and what they give."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from qio_envs.api import ConfigError, Transition
from qio_rllib.acting.actor import DIST_INPUTS, Acted, Array
from qio_rllib.acting.distributions import sample
from qio_rllib.acting.team import AgentGroup, Team, with_agent_id
from qio_rllib.causal.baseline import COUNTERFACTUAL_BASELINE, CounterfactualBaselineSettings
from qio_rllib.random_numbers import RandomNumbers
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.global_state import StateSource
from qio_rllib.sampling.vector_env import VectorEnv

REWARDS = "counterfactual_rewards"
TERMINATED = "counterfactual_terminated"
OBSERVATIONS = "counterfactual_observations"
STATES = "counterfactual_states"
"""Columns of a `ModuleRollout`, ``[T, E, M, K, ...]``: of each of an agent's ``K`` other actions."""


class Branches:
    """The environments once for each agent and each of its ``K`` other actions, all others acting as they do.

    Discrete actions are all tried; of continuous ones some are drawn from the agent's policy, an even number in pairs
    that mirror each other about the mean.

    Args:
        env: The environments.
        team: Who acts in them.
        setting: Name of what needs the branches, for messages.
        samples: ``K`` of continuous actions.

    Attributes:
        source: The environments.
        env: The ``N K E`` environments of the branches: that of agent ``n``, its action ``k`` and environment ``e`` at
            ``(n K + k) E + e``.
        count: ``K``.

    Raises:
        ConfigError: Environments that cannot be branched.
    """

    def __init__(self, env: VectorEnv, team: Team, setting: str, samples: int = 0) -> None:
        if not isinstance(env, BatchedVectorEnv):
            raise ConfigError(
                f"{setting}: needs an environment that can be branched, one of the suite by its name (forest_uav_v0)"
            )
        self.source, self.team = env.env, team
        actions = team.groups[0].actor.action  # all agents of such an environment have the same
        self.discrete = actions.count is not None
        self.count = samples if actions.count is None else actions.count
        self.env = self.source.branch(self.source.num_agents * self.count)

    def step(self, acted: Sequence[Acted], rng: RandomNumbers | None) -> Transition:
        """Step all branches from where the environments are now.

        Args:
            acted: What each group is about to do; its extras hold `DIST_INPUTS`.
            rng: Source of the draws of continuous actions.
        """
        to = self.env.arrays._asdict()
        copies = self.source.num_agents * self.count  # an array may be empty: no -1 in its shape
        for name, array in self.source.arrays._asdict().items():
            np.copyto(to[name].reshape(copies, *array.shape), array)
        return self.env.step(self._actions(acted, rng))

    def _actions(self, acted: Sequence[Acted], rng: RandomNumbers | None) -> Array:
        """Return the joint actions of all branches, ``[N K E, N, ...]``."""
        envs, agents, count = self.source.num_envs, self.source.num_agents, self.count
        shape = tuple(self.source.action_space.shape or ())
        joint = np.empty((agents, count, envs, agents, *shape), self.source.action_space.dtype)
        others = []
        for group, one in zip(self.team.groups, acted, strict=True):
            joint[:, :, :, group.index] = group.actor.action.to_env(one.actions)
            others.append(self._others(group, one, rng))
        for group, alternatives in zip(self.team.groups, others, strict=True):
            for m, n in enumerate(group.index):
                joint[n, :, :, n] = alternatives[:, :, m]
        return joint.reshape(-1, agents, *shape)

    def _others(self, group: AgentGroup, acted: Acted, rng: RandomNumbers | None) -> Array:
        """Return the other actions of a group as the environment takes them, ``[K, E, M, ...]``."""
        shape = acted.actions.shape
        if self.discrete:
            return np.broadcast_to(np.arange(self.count)[:, None, None], (self.count, *shape))
        assert rng is not None
        noise = mirrored_noise(rng, self.count, shape)
        inputs = acted.extras[DIST_INPUTS]
        drawn, _ = sample(np.broadcast_to(inputs, (self.count, *inputs.shape)), False, False, noise)
        return group.actor.action.to_env(drawn)


class Counterfactuals:
    """Records what the next step would give each agent, had it acted otherwise: rewards, ends and observations.

    The marginalisation of COMA (Foerster et al. 2018), with the environment itself in place of a learned critic.

    Args:
        env: The environments.
        team: Who acts in them.
        state_source: Where global states come from; None for none.
        settings: How many actions are drawn.
        limits_end: Whether a branch that a time limit cuts has ended there, as if it had terminated.

    Raises:
        ConfigError: Environments that cannot be branched.
    """

    def __init__(
        self,
        env: VectorEnv,
        team: Team,
        state_source: StateSource | None,
        settings: CounterfactualBaselineSettings,
        limits_end: bool = False,
    ) -> None:
        self.limits_end = limits_end
        self.branches = Branches(env, team, COUNTERFACTUAL_BASELINE, settings.samples)
        self.team, self.state_source = team, state_source
        self._as_vector = BatchedVectorEnv(self.branches.env)

    def columns(self, group: AgentGroup) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Return (shape of one agent's entry, dtype) of the columns of a group."""
        shape, count = tuple(self.branches.source.observation_space.shape), self.branches.count
        if group.agent_id:
            shape = (int(np.prod(shape)) + len(group.index),)
        found: dict[str, tuple[tuple[int, ...], Any]] = {
            REWARDS: ((count,), np.float32),
            TERMINATED: ((count,), bool),
            OBSERVATIONS: ((count, *shape), np.float32),
        }
        if self.state_source is not None:
            found[STATES] = ((count, self.state_source.size), np.float32)
        return found

    def record(self, acted: Sequence[Acted], alive: Array, rng: RandomNumbers | None) -> list[Acted]:
        """Return what the groups do with the columns of `columns` beside it; before the environments are stepped.

        Args:
            acted: What each group is about to do; its extras hold `DIST_INPUTS`.
            alive: Who acts, bool ``[E, N]``.
            rng: Source of the draws of continuous actions.
        """
        branches = self.branches
        envs, agents, count = branches.source.num_envs, branches.source.num_agents, branches.count
        rewards, terminated, truncated = branches.step(acted, rng)
        observed = branches.env.observe()
        states = self._states(observed, alive, truncated)
        if self.limits_end:
            terminated = terminated | truncated

        def own(values: Array, n: int) -> Array:
            """Return what an agent gets in its branches, ``[E, K, ...]``."""
            shaped = values.reshape(agents, count, envs, agents, *values.shape[2:])
            return shaped[n, :, :, n].swapaxes(0, 1)

        found = []
        for group, one in zip(self.team.groups, acted, strict=True):
            seen = np.stack([own(observed, n) for n in group.index], axis=2)  # [E, K, M, ...]
            if group.agent_id:
                rows = with_agent_id(seen.reshape(envs * count, *seen.shape[2:]))
                seen = rows.reshape(envs, count, *rows.shape[1:])
            columns = {
                REWARDS: np.stack([own(rewards, n) for n in group.index], axis=1),
                TERMINATED: np.stack([own(terminated, n) for n in group.index], axis=1),
                OBSERVATIONS: seen.swapaxes(1, 2),
            }
            if states is not None:
                columns[STATES] = np.stack(
                    [states.reshape(agents, count, envs, -1)[n].swapaxes(0, 1) for n in group.index], axis=1
                )
            found.append(one._replace(extras={**one.extras, **columns}))
        return found

    def _states(self, observed: Array, alive: Array, truncated: Array) -> Array | None:
        """Return the global states after the step, ``[N K E, S]``, as `EnvStepper.final` takes them."""
        if self.state_source is None:
            return None
        before = np.tile(alive, (len(observed) // len(alive), 1))
        present = self.branches.env.agents_alive() | (before & truncated)
        parts = [(group.index, observed[:, group.index]) for group in self.team.groups]
        return self.state_source.read(self._as_vector, parts, present)


def mirrored_noise(rng: RandomNumbers, count: int, shape: tuple[int, ...]) -> Array:
    """Return standard normal numbers, float32 ``[count, ...]``; of an even number the second half mirrors the first."""
    half = count // 2
    if count != 2 * half:
        return rng.standard_normal((count, *shape), np.float32)
    noise = rng.standard_normal((half, *shape), np.float32)
    return np.concatenate([noise, -noise])

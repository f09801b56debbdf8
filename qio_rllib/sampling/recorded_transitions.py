"""Transitions that a policy experiences in its own environment, as data for causal discovery."""

from __future__ import annotations

import math

import gymnasium
import numpy as np

from qio_envs.api import AFTER, ConfigError, did_you_mean
from qio_rllib.acting.policy import EpisodeStreams, Policy
from qio_rllib.causal.datasets import REWARD, TransitionData, numbered, variable_names
from qio_rllib.models.spaces import bare_space
from qio_rllib.sampling.batched_vector_env import BatchedVectorEnv
from qio_rllib.sampling.environments import make_vector_env
from qio_rllib.sampling.stepper import EnvStepper, one_thread
from qio_rllib.sampling.vector_env import Agent, Array, VectorEnv


def played_transitions(
    policy: Policy, count: int, seed: int, agent: str | None = None, num_envs: int = 16
) -> TransitionData:
    """Return transitions of a policy with sampled actions in the environment of its training.

    A row is a step of one agent: what it observed, its action as the environment takes it (a discrete one as one-hot),
    what it observed after the step, and its reward. Other agents are part of its environment.

    Args:
        policy: What acts.
        count: Transitions, at least 1.
        seed: Of the episodes and the draws.
        agent: Whose steps; when absent those of all agents, which then have to share one module.
        num_envs: Environments that are played at once.

    Raises:
        ConfigError: An unknown agent, or several modules and no agent.
    """
    if count < 1:
        raise ConfigError(f"count: expected at least 1 transition, got {count!r}")
    env = make_vector_env(policy.env, dict(policy.env_config), num_envs)
    try:
        with one_thread():
            return _played(policy, env, count, seed, agent)
    finally:
        env.close()


def _played(policy: Policy, env: VectorEnv, count: int, seed: int, agent: str | None) -> TransitionData:
    team = policy.team_for(env.agents)
    chosen = _agents(env, agent)
    groups = [g for g, group in enumerate(team.groups) if chosen & set(group.index.tolist())]
    if len(groups) > 1:
        modules = ", ".join(team.groups[g].module_id for g in groups)
        raise ConfigError(f"--agent: the modules {modules} act for different agents; say whose steps")
    (g,) = groups
    group = team.groups[g]
    members = [member for member, index in enumerate(group.index.tolist()) if index in chosen]
    size = math.prod(bare_space(env.observation_spaces[group.agents[0]]).shape or ())
    stepper, seeds = EnvStepper(env, team), range(seed, seed + env.num_envs)
    rng = EpisodeStreams(seeds)
    stepper.reset(np.array(seeds, np.uint64))
    inputs: list[Array] = []
    targets: list[Array] = []
    rows = 0
    while rows < count:
        before = _numbers(stepper.obs[g], members, size)
        here = stepper.alive[:, group.index[members]]
        step = stepper.step(rng, True)
        following, _ = stepper.final(step)
        actions = group.actor.action.to_env(step.acted[g].actions[:, members])
        if group.actor.action.count is not None:
            actions = np.eye(group.actor.action.count)[actions]
        rewards = step.rewards[:, group.index[members], None]
        inputs.append(np.concatenate([before, actions], axis=-1)[here])
        targets.append(np.concatenate([_numbers(following[g], members, size), rewards], axis=-1)[here])
        rows += len(inputs[-1])
        stepper.advance(step, reset=step.over)
    observed, named = _names(env, group.agents[0], size)
    return TransitionData(
        np.concatenate(inputs)[:count].astype(np.float64),
        np.concatenate(targets)[:count].astype(np.float64),
        (*observed, *named),
        (*(name + AFTER for name in observed), REWARD),
        num_one_hot=group.actor.action.count or 0,
    )


def _numbers(obs: Array, members: list[int], size: int) -> Array:
    """Return what some members of a group observe as flat rows ``[E, M, size]``, without one-hot indices."""
    return obs[:, members].reshape(len(obs), len(members), -1)[..., :size].copy()


def _names(env: VectorEnv, agent: Agent, size: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    if isinstance(env, BatchedVectorEnv):
        return variable_names(env.env)
    space = env.action_spaces[agent]
    width = int(space.n) if isinstance(space, gymnasium.spaces.Discrete) else math.prod(space.shape or ())
    return numbered("obs", size), numbered("action", width)


def _agents(env: VectorEnv, agent: str | None) -> set[int]:
    if agent is None:
        return set(range(len(env.agents)))
    return {agent_index(env, agent)}


def agent_index(env: VectorEnv, agent: str) -> int:
    """Return the index of an agent by its name.

    Raises:
        ConfigError: There is none of that name.
    """
    names = ["" if name is None else str(name) for name in env.agents]
    if env.agents == (None,):
        raise ConfigError(f"--agent: the environment has one agent without a name, got '{agent}'")
    if agent not in names:
        raise ConfigError(
            f"--agent: there is no agent '{agent}'{did_you_mean(agent, names)}; allowed: {', '.join(names)}"
        )
    return names.index(agent)

"""What a trained policy experiences, as data for ``rllib causal``."""

from __future__ import annotations

from collections.abc import Sequence

import qio_envs
from qio_rllib.acting.policy import Policy
from qio_rllib.causal.datasets import POLICY, REMEMBERING, play_graph
from qio_rllib.experiments.causal_analysis import Source, source_of_steps
from qio_rllib.sampling.recorded_transitions import played_transitions


def read_policy(
    policy: Policy,
    name: str,
    samples: int = 1000,
    seed: int = 0,
    agent: str | None = None,
    variables: Sequence[str] = (),
) -> Source:
    """Return what a policy experiences in its own environment, with sampled actions.

    Args:
        policy: What acts.
        name: For headings.
        samples: Transitions.
        seed: Of the episodes and the draws.
        agent: Whose steps they are; when absent those of all agents of the one module.
        variables: Columns to keep; all when empty.

    Raises:
        ConfigError: As `played_transitions`.
    """
    transitions = played_transitions(policy, samples, seed, agent)
    graph, groups = None, policy.team.groups
    if policy.env in qio_envs.environments():
        env = qio_envs.environment(policy.env).batched_env(1, **policy.env_config)
        remembers = any(group.actor.memory for group in groups)
        graph = play_graph(env, REMEMBERING if remembers else POLICY)
    agents = sum(len(group.agents) for group in groups)
    whose = f", {agent}" if agent is not None else f", {agents} agents pooled" if agents > 1 else ""
    notes = ("what other agents do is no variable: it counts as noise",) if agents > 1 else ()
    return source_of_steps(transitions, f"{name} in {policy.env}{whose}", graph, notes).only(variables)

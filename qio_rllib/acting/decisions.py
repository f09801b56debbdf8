"""Decisions before a draw is made of them: an agent's distribution over actions, or its mean action."""

from __future__ import annotations

import copy
import dataclasses

import numpy as np

from qio_rllib.acting.actor import DIST_INPUTS, Acted, Array, NetworkActor
from qio_rllib.acting.distributions import sample
from qio_rllib.acting.module_actor import ModuleActor
from qio_rllib.acting.team import AgentGroup, Team
from qio_rllib.models.policy_network import EPSILON_GREEDY, SQUASHED_GAUSSIAN


def deciding_team(team: Team) -> Team:
    """Return a team that acts as the given one and tells of its distributions, for `decisions`."""
    groups = []
    for group in team.groups:
        actor = copy.copy(group.actor)
        if isinstance(actor, NetworkActor | ModuleActor):
            actor.records = (DIST_INPUTS,)
        groups.append(dataclasses.replace(group, actor=actor))
    return Team(groups, team.communication)


def decisions(group: AgentGroup, acted: Acted, explore: bool) -> Array:
    """Return what the agents of a group decide.

    Args:
        group: Of a `deciding_team`.
        acted: What it did.
        explore: Whether it explored. If not, an epsilon-greedy policy takes its best action with probability 1.

    Returns:
        Probabilities of discrete actions, float64 ``[E, M, A]``; of continuous ones the mean (of a squashed Gaussian
        its tanh) as the environment takes it, within the bounds, ``[E, M, D]``. An Actor without a distribution, such
        as a planner, decides on what it does.
    """
    inputs, spec = acted.extras.get(DIST_INPUTS), group.actor.action
    if spec.count is None:
        means = acted.actions
        if inputs is not None:
            means = sample(inputs, False, _distribution(group) == SQUASHED_GAUSSIAN, None)[0]
        return spec.to_env(means).astype(np.float64)
    if inputs is None:
        return np.eye(spec.count)[acted.actions]
    if not explore and _distribution(group) == EPSILON_GREEDY:
        return np.eye(spec.count)[inputs.argmax(axis=-1)]
    logits = inputs.astype(np.float64)
    weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weights / weights.sum(axis=-1, keepdims=True)


def _distribution(group: AgentGroup) -> str | None:
    actor = group.actor
    return actor.network.spec.distribution if isinstance(actor, NetworkActor) else None

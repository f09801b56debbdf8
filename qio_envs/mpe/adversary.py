"""Adversary: good agents cover a goal whose place the adversary does not know."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numba import njit

from qio_envs.api import Array, ScriptedPolicy, setting
from qio_envs.api.policies import RandomPolicy
from qio_envs.mpe.config import MAX_ENTITIES, ParticleConfig
from qio_envs.mpe.env import ParticleEnv
from qio_envs.mpe.kernels import distance_between, put_offset, put_offsets, put_zeros
from qio_envs.mpe.policies import PlannedPolicy, assignment, gaps, picked
from qio_envs.mpe.state import ParticleState, World, world_of

_AGENT, _LANDMARK = 0.15, 0.08  # radii


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdversaryConfig(ParticleConfig):
    """Settings of `Adversary`."""

    task: ClassVar[str] = "adversary"

    num_good: int = setting(2, "number of good agents, and of landmarks", low=1, high=MAX_ENTITIES)


@njit(cache=True, error_model="numpy")
def reward(state: ParticleState, world: World, rewards: Array) -> None:
    """Write the rewards, float32 ``[E, N]``; tally the adversary's distance and the least of the good agents'."""
    agents = world.movable.shape[0]
    for e in range(rewards.shape[0]):
        goal, position = agents + state.goal[e, 0], state.position[e]
        theirs, ours = distance_between(position, 0, goal), np.inf
        for n in range(1, agents):
            ours = min(ours, distance_between(position, n, goal))
        for n in range(agents):
            given = theirs - ours if n else -theirs
            rewards[e, n] = given
            state.returns[e, n] += given
        state.tally[e, 0] += theirs
        state.tally[e, 1] += ours


@njit(cache=True)
def observe(state: ParticleState, world: World, out: Array) -> None:
    """Write every agent's observation to ``out``, float32 ``[E, N, D]``."""
    agents = world.movable.shape[0]
    for e in range(out.shape[0]):
        position = state.position[e]
        for n in range(agents):
            row, at = out[e, n], 0
            if n:
                at = put_offset(row, at, position, n, agents + state.goal[e, 0])
            at = put_offsets(row, at, position, n, agents, position.shape[0])
            at = put_offsets(row, at, position, n, 0, agents)
            put_zeros(row, at)


class AdversaryOracle(PlannedPolicy):
    """Good agents cover all landmarks, with the sum of their ways least, so that nothing says which is the goal."""

    def goals(self) -> Array:
        """Return each good agent's landmark, and for the adversary the one that a good agent is nearest to."""
        agents, landmarks = self.agents, self.landmarks
        goals = agents.copy()
        goals[:, 1:] = picked(landmarks, assignment(agents[:, 1:], landmarks))
        closest = gaps(landmarks, agents[:, 1:]).min(axis=2).argmin(axis=1)
        goals[:, :1] = picked(landmarks, closest[:, None])
        return goals


class ContestPolicy(AdversaryOracle):
    """Good agents as the oracle's; the adversary goes to the landmark that a good agent is nearest to."""

    everybody = True


class Adversary(ParticleEnv):
    """Good agents cover a goal that the adversary has to guess (mixed): mpe2's simple_adversary_v3.

    **World**: ``adversary_0``, the first agent; ``agent_0``, ..., ``num_good`` good agents; as many landmarks, of which
    one is the goal. Agents have a radius of 0.15; nobody collides.

    **Rewards**: the adversary's minus its distance to the goal; a good agent's that distance, minus the distance of the
    good agent that is nearest to the goal.

    **Observations**: a good agent's the goal from its own position (2), all landmarks (2 ``num_good``), the other
    agents (2 ``num_good``); the adversary's the same without the goal.

    **Score** (``team_return``): the sum over the good agents.

    **Info** besides, averaged over the steps so far: ``adversary_distance`` to the goal, and ``distance``, that of the
    good agent nearest to it.

    **Scripted policies**: ``random``; ``contest``, good agents as the oracle's, while the adversary goes to the
    landmark that any good agent is nearest to; ``oracle``, each good agent covers a landmark of its own, against a
    random adversary.

    Version history: v0, first version.
    """

    id = "mpe_adversary_v0"
    config_class = AdversaryConfig
    config: AdversaryConfig
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "contest": ContestPolicy,
        "oracle": AdversaryOracle,
    }
    functions = (reward, observe)
    means = ("adversary_distance", "distance")

    def _build(self) -> World:
        good = self.config.num_good
        return world_of(
            max_steps=self.config.max_steps,
            continuous=self.config.continuous_actions,
            radius=np.array([_AGENT] * (1 + good) + [_LANDMARK] * good),
            spawn=np.ones(1 + 2 * good),
            collides=np.zeros(1 + 2 * good, bool),
            movable=np.ones(1 + good, bool),
            speaks=np.zeros(1 + good, bool),
            adversaries=1,
            goal_choices=(good,),
        )

    def _names(self) -> tuple[str, ...]:
        return ("adversary_0", *(f"agent_{n}" for n in range(self.config.num_good)))

    def _observation_sizes(self) -> tuple[int, ...]:
        good = self.config.num_good
        return (4 * good, *(2 + 4 * good,) * good)

"""Push: an agent goes to its goal, and an adversary pushes it away."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numba import njit

from qio_envs.api import Array, ScriptedPolicy
from qio_envs.api.policies import RandomPolicy
from qio_envs.mpe.config import ParticleConfig
from qio_envs.mpe.env import ParticleEnv
from qio_envs.mpe.kernels import distance_between, put_offset, put_offsets, put_row, put_zeros, touch
from qio_envs.mpe.policies import PlannedPolicy, gaps, picked
from qio_envs.mpe.state import ParticleState, World, world_of
from qio_envs.mpe.viewer import PRIMARY

_ADVERSARY, _GOOD, _LANDMARKS = 0, 1, 2
_RADIUS = 0.05  # of agents and landmarks
_HUES = np.full((_LANDMARKS, 3), 0.1)  # colours of the landmarks: 0.9 in the second or third number
_HUES[np.arange(_LANDMARKS), np.arange(_LANDMARKS) + 1] += 0.8
_OWN_HUES = np.full((_LANDMARKS, 3), 0.25)  # colour of the good agent, by its goal
_OWN_HUES[np.arange(_LANDMARKS), np.arange(_LANDMARKS) + 1] += 0.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class PushConfig(ParticleConfig):
    """Settings of `Push`."""

    task: ClassVar[str] = "push"


@njit(cache=True, error_model="numpy")
def reward(state: ParticleState, world: World, rewards: Array) -> None:
    """Write the rewards, float32 ``[E, 2]``; tally contacts and both distances to the goal."""
    for e in range(rewards.shape[0]):
        goal, position = 2 + state.goal[e, 0], state.position[e]
        theirs, ours = distance_between(position, _ADVERSARY, goal), distance_between(position, _GOOD, goal)
        rewards[e, _ADVERSARY] = ours - theirs
        rewards[e, _GOOD] = -ours
        state.returns[e, _ADVERSARY] += ours - theirs
        state.returns[e, _GOOD] -= ours
        state.tally[e, 0] += touch(position, world.radius, _ADVERSARY, _GOOD)
        state.tally[e, 1] += theirs
        state.tally[e, 2] += ours


@njit(cache=True)
def observe(state: ParticleState, world: World, out: Array) -> None:
    """Write both agents' observations to ``out``, float32 ``[E, 2, 19]``."""
    for e in range(out.shape[0]):
        position, goal = state.position[e], state.goal[e, 0]
        row = out[e, _ADVERSARY]
        at = put_row(row, 0, state.velocity[e, _ADVERSARY])
        at = put_offsets(row, at, position, _ADVERSARY, 2, 2 + _LANDMARKS)
        at = put_offset(row, at, position, _ADVERSARY, _GOOD)
        put_zeros(row, at)
        row = out[e, _GOOD]
        at = put_row(row, 0, state.velocity[e, _GOOD])
        at = put_offset(row, at, position, _GOOD, 2 + goal)
        at = put_row(row, at, _OWN_HUES[goal])
        at = put_offsets(row, at, position, _GOOD, 2, 2 + _LANDMARKS)
        for landmark in range(_LANDMARKS):
            at = put_row(row, at, _HUES[landmark])
        put_offset(row, at, position, _GOOD, _ADVERSARY)


class PushOracle(PlannedPolicy):
    """The good agent goes to its goal."""

    def goals(self) -> Array:
        """Return the goal, and for the adversary the landmark nearest to the good agent, ``[E, 2, 2]``."""
        guess = gaps(self.agents[:, 1:], self.landmarks).argmin(axis=2)
        return picked(self.landmarks, np.concatenate([guess, self.env.arrays.goal], axis=1))


class ContestPolicy(PushOracle):
    """The good agent goes to its goal; the adversary to the landmark nearest to the good agent, to be in its way."""

    everybody = True


class Push(ParticleEnv):
    """An agent goes to its goal, an adversary keeps it away (competitive): mpe2's simple_push_v3.

    **World**: ``adversary_0`` and ``agent_0``, of radius 0.05, collide with each other; 2 landmarks, of which one is
    the goal, that nobody collides with.

    **Rewards**: the good agent's minus its distance to the goal; the adversary's that distance, minus its own distance
    to the goal.

    **Observations**: the good agent's own velocity (2), the goal from its own position (2), its own colour (3 numbers:
    0.75 in the second or third place, for the first or second landmark as the goal, else 0.25), the landmarks (4),
    their colours (3 numbers each: 0.9 in the second or third place, else 0.1), and the adversary (2): 19; the
    adversary's own velocity (2), the landmarks (4) and the good agent (2): 8. It does not know the goal.

    **Score** (``team_return``): the return of the good agent.

    **Info** besides: ``contacts``, steps so far after which the two touch; averaged over the steps,
    ``adversary_distance`` and ``distance`` from the goal.

    **Scripted policies**: ``random``; ``contest``, the good agent as the oracle's, while the adversary goes to the
    landmark nearest to the good agent; ``oracle``, the good agent goes to its goal, against a random adversary.

    Version history: v0, first version.
    """

    id = "mpe_push_v0"
    config_class = PushConfig
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "contest": ContestPolicy,
        "oracle": PushOracle,
    }
    functions = (reward, observe)
    sums = ("contacts",)
    means = ("adversary_distance", "distance")

    def _build(self) -> World:
        return world_of(
            max_steps=self.config.max_steps,
            continuous=self.config.continuous_actions,
            radius=np.full(2 + _LANDMARKS, _RADIUS),
            spawn=np.ones(2 + _LANDMARKS),
            collides=np.array([True, True, False, False]),
            movable=np.ones(2, bool),
            speaks=np.zeros(2, bool),
            adversaries=1,
            goal_choices=(_LANDMARKS,),
        )

    def _names(self) -> tuple[str, ...]:
        return "adversary_0", "agent_0"

    def _observation_sizes(self) -> tuple[int, ...]:
        return 4 + 2 * _LANDMARKS, 9 + 5 * _LANDMARKS

    def landmark_colours(self, index: int) -> Array:
        """Return green and blue."""
        return PRIMARY[1:]

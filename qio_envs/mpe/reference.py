"""Reference: each of two agents knows where the other is to go."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numba import njit

from qio_envs.api import Array, ScriptedPolicy, setting
from qio_envs.api.policies import RandomPolicy
from qio_envs.mpe.config import ParticleConfig
from qio_envs.mpe.env import ParticleEnv
from qio_envs.mpe.kernels import distance_between, put_offsets, put_row
from qio_envs.mpe.policies import PlannedPolicy, picked
from qio_envs.mpe.state import ParticleState, World, world_of
from qio_envs.mpe.viewer import PRIMARY

_LANDMARKS, _SYMBOLS = 3, 10
_RADIUS = 0.05  # of agents and landmarks
_ARRIVED = 0.1  # distance below which an agent counts as at its goal
_HUES = np.full((3, 3), 0.25)
_HUES[np.diag_indices(3)] = 0.75  # of the landmarks, as agents see their mate's goal


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReferenceConfig(ParticleConfig):
    """Settings of `Reference`."""

    task: ClassVar[str] = "reference"

    local_ratio: float = setting(
        0.5, "weight of the distance of the agent that one directs; the rest is that of both agents' mean",
        low=0.0, high=1.0,
    )  # fmt: skip


@njit(cache=True, error_model="numpy")
def reward(state: ParticleState, world: World, local_ratio: float, rewards: Array) -> None:
    """Write the rewards, float32 ``[E, 2]``; tally agents at their goals and their distances."""
    for e in range(rewards.shape[0]):
        position = state.position[e]
        first = distance_between(position, 1, 2 + state.goal[e, 0])  # of the agent that agent 0 directs
        second = distance_between(position, 0, 2 + state.goal[e, 1])
        mean = (first + second) / 2
        for n in range(2):
            own = second if n else first
            given = -(mean * (1.0 - local_ratio) + own * local_ratio)
            rewards[e, n] = given
            state.returns[e, n] += given
        state.tally[e, 0] += (first < _ARRIVED) + (second < _ARRIVED)
        state.tally[e, 1] += mean


@njit(cache=True)
def observe(state: ParticleState, world: World, out: Array) -> None:
    """Write both agents' observations to ``out``, float32 ``[E, 2, 21]``."""
    for e in range(out.shape[0]):
        for n in range(2):
            row = out[e, n]
            at = put_row(row, 0, state.velocity[e, n])
            at = put_offsets(row, at, state.position[e], n, 2, 2 + _LANDMARKS)
            at = put_row(row, at, _HUES[state.goal[e, n]])
            put_row(row, at, state.message[e, 1 - n])


class MutePolicy(PlannedPolicy):
    """Both wait at the centre of the landmarks, the best place without a message."""

    def goals(self) -> Array:
        """Return the centre for both, ``[E, 2, 2]``."""
        return np.repeat(self.landmarks.mean(axis=1, keepdims=True), 2, axis=1)


class ReferenceOracle(PlannedPolicy):
    """Each says the number of the other's goal and goes to its own, which it knows from the start."""

    def goals(self) -> Array:
        """Return each agent's goal, ``[E, 2, 2]``."""
        return picked(self.landmarks, self.env.arrays.goal[:, ::-1])

    def symbols(self) -> Array:
        """Return the number of the other's goal, ``[E, 2]``."""
        return self.env.arrays.goal


class Reference(ParticleEnv):
    """Two agents tell each other where to go (cooperative): mpe2's simple_reference_v3.

    **World**: ``agent_0`` and ``agent_1`` move and say one of 10 symbols; 3 landmarks, of which each agent has one as
    its goal (perhaps the same), which only the other knows. Nobody collides.

    **Rewards**: with ``local_ratio`` l, minus l times the distance of the agent that one directs to its goal, minus
    (1 - l) times the mean of both agents' distances.

    **Observations**, 21 numbers: own velocity (2), the landmarks from one's own position (6), the colour of the other's
    goal (3 numbers: 0.75 in the place of its number, else 0.25), and the other's message (10).

    **Score** (``team_return``): the sum over both agents.

    **Info** besides, averaged over the steps so far: ``arrived``, agents nearer than 0.1 to their goals, and
    ``distance``, the mean of their distances.

    **Scripted policies**: ``random``; ``mute``, both wait at the centre of the landmarks; ``oracle``, each names the
    other's goal, and goes to its own from the first step on (before it can have heard).

    Version history: v0, first version.
    """

    id = "mpe_reference_v0"
    config_class = ReferenceConfig
    config: ReferenceConfig
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "mute": MutePolicy,
        "oracle": ReferenceOracle,
    }
    functions = (reward, observe)
    means = ("arrived", "distance")

    def _build(self) -> World:
        return world_of(
            max_steps=self.config.max_steps,
            continuous=self.config.continuous_actions,
            radius=np.full(2 + _LANDMARKS, _RADIUS),
            spawn=np.ones(2 + _LANDMARKS),
            collides=np.zeros(2 + _LANDMARKS, bool),
            movable=np.ones(2, bool),
            speaks=np.ones(2, bool),
            symbols=_SYMBOLS,
            goal_choices=(_LANDMARKS, _LANDMARKS),
        )

    def _names(self) -> tuple[str, ...]:
        return "agent_0", "agent_1"

    def _observation_sizes(self) -> tuple[int, ...]:
        return (2 + 2 * _LANDMARKS + 3 + _SYMBOLS,) * 2

    def _rewards(self, rewards: Array) -> None:
        self._reward_kernel(self.arrays, self.world, self.config.local_ratio, rewards)

    def landmark_colours(self, index: int) -> Array:
        """Return red, green and blue."""
        return PRIMARY

    def aims(self, index: int) -> tuple[tuple[int, int], ...]:
        """Return each agent with its goal."""
        of_second, of_first = self.arrays.goal[index].tolist()
        return (0, of_first), (1, of_second)

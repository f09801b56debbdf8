"""Speaker and listener: one knows which landmark counts and can only speak, the other can go there and only listen."""

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
from qio_envs.mpe.kernels import distance_between, put_offsets, put_row, put_zeros
from qio_envs.mpe.policies import PlannedPolicy, picked
from qio_envs.mpe.state import ParticleState, World, world_of
from qio_envs.mpe.viewer import PRIMARY

_SPEAKER, _LISTENER, _LANDMARKS = 0, 1, 3
_AGENT, _LANDMARK = 0.075, 0.04  # radii
_ARRIVED = 0.1  # distance below which the listener counts as at the goal
_HUES = np.full((3, 3), 0.15)
_HUES[np.diag_indices(3)] = 0.65  # of the landmarks, as the speaker sees them


@dataclasses.dataclass(frozen=True, kw_only=True)
class SpeakerListenerConfig(ParticleConfig):
    """Settings of `SpeakerListener`."""

    task: ClassVar[str] = "speaker_listener"


@njit(cache=True, error_model="numpy")
def reward(state: ParticleState, world: World, rewards: Array) -> None:
    """Write the rewards, float32 ``[E, 2]``; tally arrivals and the distance."""
    for e in range(rewards.shape[0]):
        position = state.position[e]
        distance = distance_between(position, _LISTENER, 2 + state.goal[e, 0])
        for n in range(2):
            rewards[e, n] = -distance * distance
            state.returns[e, n] -= distance * distance
        state.tally[e, 0] += distance < _ARRIVED
        state.tally[e, 1] += distance


@njit(cache=True)
def observe(state: ParticleState, world: World, out: Array) -> None:
    """Write both agents' observations to ``out``, float32 ``[E, 2, 11]``."""
    for e in range(out.shape[0]):
        at = put_row(out[e, _SPEAKER], 0, _HUES[state.goal[e, 0]])
        put_zeros(out[e, _SPEAKER], at)
        row = out[e, _LISTENER]
        at = put_row(row, 0, state.velocity[e, _LISTENER])
        at = put_offsets(row, at, state.position[e], _LISTENER, 2, 2 + _LANDMARKS)
        put_row(row, at, state.message[e, _SPEAKER])


class MutePolicy(PlannedPolicy):
    """The listener waits at the centre of the landmarks, the best place without a message."""

    def goals(self) -> Array:
        """Return the centre for both, ``[E, 2, 2]``."""
        return np.repeat(self.landmarks.mean(axis=1, keepdims=True), 2, axis=1)


class SpeakerListenerOracle(PlannedPolicy):
    """The speaker says the goal's number, and the listener, who knows it from the start, goes there."""

    def goals(self) -> Array:
        """Return the goal for both, ``[E, 2, 2]``."""
        return picked(self.landmarks, np.repeat(self.env.arrays.goal, 2, axis=1))

    def symbols(self) -> Array:
        """Return the goal's number for both, ``[E, 2]``."""
        return np.repeat(self.env.arrays.goal, 2, axis=1)


class SpeakerListener(ParticleEnv):
    """One agent names the landmark to which the other is to go (cooperative): mpe2's simple_speaker_listener_v4.

    **World**: ``speaker_0``, who cannot move and says one of 3 symbols, ``listener_0``, who moves and is silent, and 3
    landmarks, of which one is the goal. Nobody collides.

    **Rewards**: minus the square of the listener's distance to the goal, for both.

    **Observations**: the speaker's the colour of the goal (3 numbers: 0.65 in the place of its number, else 0.15); the
    listener's own velocity (2), the landmarks from its position (6), and the speaker's message (3).

    **Score** (``team_return``): the sum over both agents.

    **Info** besides, averaged over the steps so far: ``arrived``, whether the listener is nearer than 0.1 to the goal,
    and ``distance`` from there.

    **Scripted policies**: ``random``; ``mute``, the listener waits at the centre of the landmarks; ``oracle``, the
    speaker names the goal, and the listener goes there from the first step on (before it can have heard).

    Version history: v0, first version.
    """

    id = "mpe_speaker_listener_v0"
    config_class = SpeakerListenerConfig
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "mute": MutePolicy,
        "oracle": SpeakerListenerOracle,
    }
    functions = (reward, observe)
    means = ("arrived", "distance")

    def _build(self) -> World:
        return world_of(
            max_steps=self.config.max_steps,
            continuous=self.config.continuous_actions,
            radius=np.array([_AGENT] * 2 + [_LANDMARK] * _LANDMARKS),
            spawn=np.ones(2 + _LANDMARKS),
            collides=np.zeros(2 + _LANDMARKS, bool),
            movable=np.array([False, True]),
            speaks=np.array([True, False]),
            symbols=3,
            goal_choices=(_LANDMARKS,),
        )

    def _names(self) -> tuple[str, ...]:
        return "speaker_0", "listener_0"

    def _observation_sizes(self) -> tuple[int, ...]:
        return 3, 2 + 2 * _LANDMARKS + 3

    def landmark_colours(self, index: int) -> Array:
        """Return red, green and blue."""
        return PRIMARY

    def aims(self, index: int) -> tuple[tuple[int, int], ...]:
        """Return the listener with its goal."""
        return ((_LISTENER, int(self.arrays.goal[index, 0])),)

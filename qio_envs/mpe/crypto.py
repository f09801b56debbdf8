"""Crypto: a message that one agent can read and another, who hears it too, cannot."""

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
from qio_envs.mpe.kernels import put_row, put_zeros
from qio_envs.mpe.policies import PlannedPolicy
from qio_envs.mpe.state import ParticleState, World, world_of
from qio_envs.mpe.viewer import PRIMARY

_EVE, _BOB, _ALICE = 0, 1, 2
_SYMBOLS, _LANDMARKS = 4, 2
_RADIUS = 0.05  # of agents and landmarks
_CODES = np.eye(_SYMBOLS)  # colours: a one in the place of a number


@dataclasses.dataclass(frozen=True, kw_only=True)
class CryptoConfig(ParticleConfig):
    """Settings of `Crypto`."""

    task: ClassVar[str] = "crypto"


@njit(cache=True, forceinline=True)
def _error(message: Array, goal: int) -> float:
    """Return the square of the distance of a message from the goal's colour, 0 where nothing was said."""
    total, silent = 0.0, True
    for c in range(message.shape[0]):
        silent &= message[c] == 0.0
        gap = message[c] - (1.0 if c == goal else 0.0)
        total += gap * gap
    return 0.0 if silent else total


@njit(cache=True)
def reward(state: ParticleState, world: World, rewards: Array) -> None:
    """Write the rewards, float32 ``[E, 3]``; tally the errors of Bob and Eve."""
    for e in range(rewards.shape[0]):
        goal = state.goal[e, 0]
        bob, eve = _error(state.message[e, _BOB], goal), _error(state.message[e, _EVE], goal)
        for n in range(3):
            given = eve - bob if n else -eve
            rewards[e, n] = given
            state.returns[e, n] += given
        state.tally[e, 0] += bob
        state.tally[e, 1] += eve


@njit(cache=True)
def observe(state: ParticleState, world: World, out: Array) -> None:
    """Write every agent's observation to ``out``, float32 ``[E, 3, 8]``."""
    for e in range(out.shape[0]):
        heard, key = state.message[e, _ALICE], _CODES[state.goal[e, 1]]
        put_zeros(out[e, _EVE], put_row(out[e, _EVE], 0, heard))
        put_row(out[e, _BOB], put_row(out[e, _BOB], 0, key), heard)
        put_row(out[e, _ALICE], put_row(out[e, _ALICE], 0, _CODES[state.goal[e, 0]]), key)


class PlainPolicy(PlannedPolicy):
    """Alice says the goal in the clear; Bob and Eve repeat what they have heard."""

    everybody = True

    def symbols(self) -> Array:
        """Return the goal's number for Alice, what she has said before for Bob and Eve, ``[E, 3]``."""
        arrays = self.env.arrays
        heard = arrays.message[:, _ALICE].argmax(axis=1)
        return np.stack([heard, heard, arrays.goal[:, 0]], axis=1)


class CryptoOracle(PlannedPolicy):
    """Alice says goal + key modulo 2, and Bob, who knows the goal from the start, says it."""

    def symbols(self) -> Array:
        """Return the goal's number for Bob and its cipher for Alice, ``[E, 3]``."""
        goal, key = self.env.arrays.goal.T
        return np.stack([np.zeros_like(goal), goal, (goal + key) % _LANDMARKS], axis=1)


class CipherPolicy(PlannedPolicy):
    """Alice says goal + key modulo 2; Bob takes the key away again, and Eve repeats what she has heard."""

    everybody = True

    def symbols(self) -> Array:
        """Return the cipher for Alice, what they make of the one before for Bob and Eve, ``[E, 3]``."""
        goal, key = self.env.arrays.goal.T
        heard = self.env.arrays.message[:, _ALICE].argmax(axis=1)
        return np.stack([heard, (heard - key) % _LANDMARKS, (goal + key) % _LANDMARKS], axis=1)


class Crypto(ParticleEnv):
    """Alice tells Bob a secret that Eve hears too (mixed): mpe2's simple_crypto_v3.

    **World**: ``eve_0``, the adversary, ``bob_0`` and ``alice_0``, who cannot move and say one of 4 symbols each (or 4
    numbers). Alice knows which of 2 landmarks is the goal; she and Bob share a key, which is one of the 2 landmarks
    too, drawn apart from the goal. Bob and Eve hear Alice.

    **Rewards**: with the error of an agent the square of the distance of its message from the goal's colour (a one in
    the place of the goal's number), which is 2 for a wrong symbol and 0 for the right one or for no message at all
    (four zeros): Eve's minus her error; Bob's and Alice's Eve's error minus Bob's.

    **Observations**: Alice's the colours of goal and key (8), Bob's the colour of the key and Alice's message (8),
    Eve's Alice's message (4).

    **Score** (``team_return``): the sum over Bob and Alice.

    **Info** besides, averaged over the steps so far: ``error`` of Bob and ``adversary_error`` of Eve.

    **Scripted policies**: ``random``; ``plain``, Alice says the goal in the clear, and Bob and Eve repeat it;
    ``cipher``, Alice says goal + key modulo 2, Bob decodes it and Eve repeats it; ``oracle``, the same with a Bob who
    knows the goal from the first step on, against a random Eve.

    Version history: v0, first version.
    """

    id = "mpe_crypto_v0"
    config_class = CryptoConfig
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "plain": PlainPolicy,
        "cipher": CipherPolicy,
        "oracle": CryptoOracle,
    }
    functions = (reward, observe)
    means = ("error", "adversary_error")

    def _build(self) -> World:
        return world_of(
            max_steps=self.config.max_steps,
            continuous=self.config.continuous_actions,
            radius=np.full(3 + _LANDMARKS, _RADIUS),
            spawn=np.ones(3 + _LANDMARKS),
            collides=np.zeros(3 + _LANDMARKS, bool),
            movable=np.zeros(3, bool),
            speaks=np.ones(3, bool),
            symbols=_SYMBOLS,
            adversaries=1,
            goal_choices=(_LANDMARKS, _LANDMARKS),
        )

    def _names(self) -> tuple[str, ...]:
        return "eve_0", "bob_0", "alice_0"

    def _observation_sizes(self) -> tuple[int, ...]:
        return _SYMBOLS, 2 * _SYMBOLS, 2 * _SYMBOLS

    def landmark_colours(self, index: int) -> Array:
        """Return red and green."""
        return PRIMARY[:_LANDMARKS]

    def aims(self, index: int) -> tuple[tuple[int, int], ...]:
        """Return the goal; the key is no place to mark."""
        return ((-1, int(self.arrays.goal[index, 0])),)

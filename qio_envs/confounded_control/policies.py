"""Scripted policies of confounded control."""

from __future__ import annotations

import numpy as np

from qio_envs.api import Array, BatchedEnv
from qio_envs.confounded_control import kernels
from qio_envs.confounded_control.config import ACTION_LIMIT, EFFECT, ConfoundedControlConfig
from qio_envs.confounded_control.model import lqr_gain, naive_effect
from qio_envs.confounded_control.state import ConfoundedControlState

_Env = BatchedEnv[ConfoundedControlConfig, ConfoundedControlState]


class ZeroPolicy:
    """Does nothing.

    Args:
        env: The environment to act in.
    """

    def __init__(self, env: _Env) -> None:
        self.env = env

    def act(self) -> Array:
        """Return float32 actions ``[E, 1, 1]`` of 0."""
        return np.zeros((self.env.num_envs, 1, 1), np.float32)


class LQRPolicy:
    """The linear-quadratic regulator for an effect of the action that is believed; see `lqr_gain`.

    It sees s and not u. Actions are clipped to [-2, 2].

    Args:
        env: The environment to act in.
        effect: What the state is believed to gain by a unit of the action; the default is the truth.
    """

    def __init__(self, env: _Env, effect: float = EFFECT) -> None:
        self.env = env
        self.gain = lqr_gain(effect, env.config.action_cost)

    def act(self) -> Array:
        """Return float32 actions ``[E, 1, 1]``."""
        wanted = -np.float32(self.gain) * self.env.arrays.s
        return np.clip(wanted, -ACTION_LIMIT, ACTION_LIMIT)[:, None, None]


class NaiveLQRPolicy(LQRPolicy):
    """The same regulator for the effect that a regression of the behaviour's data on s and a finds; see `naive_effect`.

    Args:
        env: The environment to act in.
    """

    def __init__(self, env: _Env) -> None:
        super().__init__(env, naive_effect(env.config))


class BehaviourPolicy:
    """The behaviour that was logged: a = -0.3 s - u + z + n, clipped to [-2, 2]; it sees u, and nothing records that.

    z and n are normals with standard deviations of 0.3 and 0.1: a pure function of (seed, environment seed, episode,
    step).

    Args:
        env: The environment to act in.
        seed: Key of the policy's own random numbers, 0 to 2**64 - 1.

    Attributes:
        instrument: z of the last actions, float32 ``[E]``.
    """

    def __init__(self, env: _Env, seed: int = 0) -> None:
        self.env = env
        self.seed = np.uint64(seed)
        self.instrument = np.zeros(env.num_envs, np.float32)

    def act(self) -> Array:
        """Return float32 actions ``[E, 1, 1]``."""
        actions = np.empty(self.env.num_envs, np.float32)
        kernels.behaviour(self.seed, self.env.arrays, self.instrument, actions)
        return actions[:, None, None]

"""Numba kernels of the causal chain; each loops over the environments of a batch, in float32."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import normals
from qio_envs.causal_chain.config import A0_TO_X2, NOISES, X1_TO_X2, X1_TO_X3, X2_TO_X3
from qio_envs.causal_chain.state import CausalChainState

NOISE = 0  # stream of random numbers: lanes 0, 1 and 2 are the noises of x1, x2 and x3 of a round

_ONE = np.float32(1)
_X1_TO_X2, _A0_TO_X2 = np.float32(X1_TO_X2), np.float32(A0_TO_X2)
_X2_TO_X3, _X1_TO_X3 = np.float32(X2_TO_X3), np.float32(X1_TO_X3)
_NOISE_1, _NOISE_2, _NOISE_3 = (np.float32(noise) for noise in NOISES)


@njit(cache=True)
def reset(mask: Array, state: CausalChainState) -> None:
    """Draw x1 of the first round where ``mask`` (bool ``[E]``) is true; the rest of the state is written anew."""
    for e in range(mask.shape[0]):
        if not mask[e]:
            continue
        state.values[e, 0] = _NOISE_1 * normals(0, 0, state.episode[e], NOISE, state.seed[e])[0]
        for k in range(2):
            state.values[e, k + 1] = 0
            state.fixed[e, k] = False
            state.fixed_values[e, k] = 0
            state.action[e, k] = 0
        state.cause[e] = 0
        state.returns[e] = 0
        state.clipped[e] = 0


@njit(cache=True)
def step(actions: Array, state: CausalChainState, rounds: int, rewards: Array, truncated: Array) -> None:
    """Play one round in every environment and draw x1 of the next.

    Args:
        actions: Float32 ``[E, 1, 2]``.
        state: Is advanced.
        rounds: Rounds of an episode.
        rewards: Float32 ``[E, 1]``, is written.
        truncated: Bool ``[E, 1]``, is written.
    """
    values, steps, episode, seed = state.values, state.step, state.episode, state.seed
    fixed, fixed_values = state.fixed, state.fixed_values
    for e in range(values.shape[0]):
        a0, a1 = actions[e, 0, 0], actions[e, 0, 1]
        state.clipped[e] += abs(a0) > _ONE or abs(a1) > _ONE
        a0, a1 = min(max(a0, -_ONE), _ONE), min(max(a1, -_ONE), _ONE)
        _, n2, n3, _ = normals(0, steps[e], episode[e], NOISE, seed[e])
        x1 = values[e, 0]
        x2 = _X1_TO_X2 * x1 + _A0_TO_X2 * a0 + _NOISE_2 * n2
        if fixed[e, 0]:
            x2 = fixed_values[e, 0]
        x3 = _X2_TO_X3 * x2 + _X1_TO_X3 * x1 + _NOISE_3 * n3
        if fixed[e, 1]:
            x3 = fixed_values[e, 1]
        fixed[e, 0], fixed[e, 1] = False, False
        fixed_values[e, 0], fixed_values[e, 1] = 0, 0
        steps[e] += 1
        state.cause[e] = x1
        state.action[e, 0], state.action[e, 1] = a0, a1
        values[e, 0] = _NOISE_1 * normals(0, steps[e], episode[e], NOISE, seed[e])[0]
        values[e, 1], values[e, 2] = x2, x3
        state.running[e] = steps[e] < rounds
        state.returns[e] += x3
        rewards[e, 0] = x3
        truncated[e, 0] = not state.running[e]

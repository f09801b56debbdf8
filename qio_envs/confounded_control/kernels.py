"""Numba kernels of confounded control; each loops over the environments of a batch, in float32."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import normals
from qio_envs.confounded_control.config import (
    ACTION_LIMIT,
    BEHAVIOUR_NOISE,
    EFFECT,
    FEEDBACK,
    INSTRUMENT,
    STATE_LIMIT,
)
from qio_envs.confounded_control.state import ConfoundedControlRules, ConfoundedControlState

# Streams of random numbers. Lanes 0, 1 and 2 of the second are u, the mediator's noise and the state's; lanes 0 and 1
# of the third are the behaviour's instrument and noise.
START, NOISE, BEHAVIOUR = 0, 1, 2

_EFFECT, _ACTION_LIMIT, _STATE_LIMIT = np.float32(EFFECT), np.float32(ACTION_LIMIT), np.float32(STATE_LIMIT)
_FEEDBACK, _INSTRUMENT = np.float32(FEEDBACK), np.float32(INSTRUMENT)
_BEHAVIOUR_NOISE = np.float32(BEHAVIOUR_NOISE)


@njit(cache=True)
def _clip(value: np.float32, limit: np.float32) -> np.float32:
    return min(max(value, -limit), limit)


@njit(cache=True)
def reset(mask: Array, state: ConfoundedControlState, rules: ConfoundedControlRules) -> None:
    """Draw the start where ``mask`` (bool ``[E]``) is true; all but seed, episode, step, running is written anew."""
    confounding = np.float32(rules.confounding)
    for e in range(mask.shape[0]):
        if not mask[e]:
            continue
        episode, seed = state.episode[e], state.seed[e]
        state.s[e] = _clip(normals(0, 0, episode, START, seed)[0], _STATE_LIMIT)
        state.u[e] = confounding * normals(0, 0, episode, NOISE, seed)[0]
        state.mediator[e], state.action[e] = 0, 0
        state.fixed[e], state.fixed_mediator[e] = False, 0
        state.returns[e], state.clipped[e] = 0, 0


@njit(cache=True)
def step(
    actions: Array,
    state: ConfoundedControlState,
    rules: ConfoundedControlRules,
    rewards: Array,
    truncated: Array,
) -> None:
    """Advance every environment by one step.

    Args:
        actions: Float32 ``[E, 1, 1]``.
        state: Is advanced.
        rules: What holds.
        rewards: Float32 ``[E, 1]``, is written.
        truncated: Bool ``[E, 1]``, is written.
    """
    confounding, mediator_noise = np.float32(rules.confounding), np.float32(rules.mediator_noise)
    process_noise, action_cost = np.float32(rules.process_noise), np.float32(rules.action_cost)
    steps = state.step
    for e in range(actions.shape[0]):
        episode, seed = state.episode[e], state.seed[e]
        wanted, s = actions[e, 0, 0], state.s[e]
        a = _clip(wanted, _ACTION_LIMIT)
        state.clipped[e] += a != wanted
        _, n_mediator, n_process, _ = normals(0, steps[e], episode, NOISE, seed)
        mediator = a + mediator_noise * n_mediator
        if state.fixed[e]:
            mediator = state.fixed_mediator[e]
        state.fixed[e], state.fixed_mediator[e] = False, 0
        reward = -(s * s + action_cost * a * a)
        s = s + _EFFECT * mediator + state.u[e] + process_noise * n_process
        steps[e] += 1
        state.s[e] = _clip(s, _STATE_LIMIT)
        state.u[e] = confounding * normals(0, steps[e], episode, NOISE, seed)[0]
        state.mediator[e], state.action[e] = mediator, a
        state.returns[e] += reward
        state.running[e] = steps[e] < rules.max_steps
        rewards[e, 0], truncated[e, 0] = reward, not state.running[e]


@njit(cache=True)
def behaviour(key: np.uint64, state: ConfoundedControlState, instrument: Array, actions: Array) -> None:
    """Draw the instrument and the action of the behaviour that was logged.

    Args:
        key: Of the random numbers, beside the environments' own seeds.
        state: State, hidden variable and clocks.
        instrument: Float32 ``[E]``, is written.
        actions: Float32 ``[E]``, is written; within the limit.
    """
    for e in range(actions.shape[0]):
        drawn = normals(0, state.step[e], state.episode[e], BEHAVIOUR, state.seed[e] ^ key)
        instrument[e] = _INSTRUMENT * drawn[0]
        wanted = _FEEDBACK * state.s[e] - state.u[e] + instrument[e] + _BEHAVIOUR_NOISE * drawn[1]
        actions[e] = _clip(wanted, _ACTION_LIMIT)

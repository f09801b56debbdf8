"""Numba kernels of drift control; each loops over the environments of a batch.

All arithmetic is in float32, the type of the state: an observation so is exactly what the state holds.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import normals, uniform
from qio_envs.drift_control.config import (
    DECAY_2,
    DECAY_3,
    DISTRACTOR_MEMORY,
    DISTRACTOR_SCALES,
    PRODUCT,
    SINE,
    STEP,
)
from qio_envs.drift_control.state import DriftControlRules, DriftControlState

START, PROCESS, DRIVE, DISTRACTOR = 0, 1, 2, 3  # streams of random numbers

_ZERO, _ONE, _TWO = np.float32(0.0), np.float32(1.0), np.float32(2.0)
_STEP, _SINE, _PRODUCT = np.float32(STEP), np.float32(SINE), np.float32(PRODUCT)
_DECAY_2, _DECAY_3 = np.float32(DECAY_2), np.float32(DECAY_3)
_MEMORY = np.float32(DISTRACTOR_MEMORY)
_SCALE_0, _SCALE_1 = (np.float32(scale) for scale in DISTRACTOR_SCALES)


@njit(cache=True, error_model="numpy", forceinline=True)
def clip(value: np.float32) -> np.float32:
    """Return the number of [-1, 1] that is nearest."""
    return min(max(value, -_ONE), _ONE)


@njit(cache=True, error_model="numpy", forceinline=True)
def advance(
    s0: np.float32, s1: np.float32, s2: np.float32, s3: np.float32, a0: np.float32, a1: np.float32
) -> tuple[np.float32, np.float32, np.float32, np.float32]:
    """Return the next state without noise; the action lies in [-1, 1]^2."""
    return (
        s0 + _STEP * a0 + _SINE * np.sin(s1),
        s1 + _STEP * a1 + _PRODUCT * s0 * s2,
        _DECAY_2 * s2 + _STEP * np.tanh(a0 + a1),
        _DECAY_3 * s3,
    )


@njit(cache=True, error_model="numpy", forceinline=True)
def square(s0: np.float32, s1: np.float32, s2: np.float32, s3: np.float32) -> np.float32:
    """Return the square of a state's Euclidean norm."""
    return s0 * s0 + s1 * s1 + s2 * s2 + s3 * s3


@njit(cache=True, error_model="numpy")
def _sense(state: DriftControlState, rules: DriftControlRules, e: int) -> None:
    """Advance the distractors of environment ``e`` to its present step and state."""
    distractors = state.distractors
    noise = np.float32(rules.distractor_noise)
    memory = _ZERO if state.step[e] == 0 else _MEMORY
    n0 = n1 = n2 = n3 = _ZERO
    for d in range(distractors.shape[1]):
        if d & 3 == 0:
            n0, n1, n2, n3 = normals(d >> 2, state.step[e], state.episode[e], DISTRACTOR, state.seed[e])
        else:
            n0, n1, n2 = n1, n2, n3
        if rules.sensor_shift:
            distractors[e, d] = (_SCALE_1 if d & 1 else _SCALE_0) * n0
        else:
            followed = state.components[e, d & 1]
            distractors[e, d] = memory * distractors[e, d] + (_ONE - memory) * followed + noise * n0


@njit(cache=True, error_model="numpy")
def reset(mask: Array, state: DriftControlState, rules: DriftControlRules) -> None:
    """Draw the start where ``mask`` (bool ``[E]``) is true; all but seed, episode, step, running is written anew."""
    for e in range(mask.shape[0]):
        if not mask[e]:
            continue
        for k in range(state.components.shape[1]):
            state.components[e, k] = _TWO * uniform(k, 0, state.episode[e], START, state.seed[e]) - _ONE
        for d in range(state.distractors.shape[1]):
            state.distractors[e, d] = 0
        _sense(state, rules, e)
        state.action[e, 0], state.action[e, 1] = 0, 0
        state.out[e] = False
        state.returns[e], state.travel[e], state.clipped[e] = 0, 0, 0


@njit(cache=True, error_model="numpy")
def step(
    actions: Array,
    state: DriftControlState,
    rules: DriftControlRules,
    rewards: Array,
    terminated: Array,
    truncated: Array,
) -> None:
    """Advance every environment by one step.

    Args:
        actions: Float32 ``[E, 1, 2]``.
        state: Is advanced.
        rules: What holds.
        rewards: Float32 ``[E, 1]``, are written.
        terminated: Bool ``[E, 1]``, is written.
        truncated: Bool ``[E, 1]``, is written.
    """
    components, steps, episode, seed = state.components, state.step, state.episode, state.seed
    process_noise, drive_noise = np.float32(rules.process_noise), np.float32(rules.drive_noise)
    out_radius, action_cost = np.float32(rules.out_radius), np.float32(rules.action_cost)
    for e in range(components.shape[0]):
        steps[e] += 1
        a0, a1 = actions[e, 0, 0], actions[e, 0, 1]
        state.clipped[e] += abs(a0) > _ONE or abs(a1) > _ONE
        a0, a1 = clip(a0), clip(a1)
        s0, s1, s2, s3 = advance(
            components[e, 0], components[e, 1], components[e, 2], components[e, 3], a0, a1
        )
        n0, n1, n2, n3 = normals(0, steps[e], episode[e], PROCESS, seed[e])
        drive = normals(0, steps[e], episode[e], DRIVE, seed[e])[0]
        s0 += process_noise * n0
        s1 += process_noise * n1
        s2 += process_noise * n2
        s3 += process_noise * n3 + _STEP * (drive_noise * drive)
        components[e, 0], components[e, 1], components[e, 2], components[e, 3] = s0, s1, s2, s3
        state.action[e, 0], state.action[e, 1] = a0, a1
        _sense(state, rules, e)
        norm = square(s0, s1, s2, s3)
        distance = np.sqrt(norm)
        out, over = distance > out_radius, steps[e] >= rules.max_steps
        reward = -norm - action_cost * (a0 * a0 + a1 * a1)
        state.out[e] = out
        state.running[e] = not (out or over)
        state.returns[e] += reward
        state.travel[e] += distance
        rewards[e, 0], terminated[e, 0], truncated[e, 0] = reward, out, over and not out


@njit(cache=True, error_model="numpy")
def observe(state: DriftControlState, rules: DriftControlRules, out: Array) -> None:
    """Write observations to ``out``, float32 ``[E, 1, V + D]``: visible components, then distractors."""
    visible = rules.visible
    seen = visible.shape[0]
    for e in range(out.shape[0]):
        for k in range(seen):
            out[e, 0, k] = state.components[e, visible[k]]
        for d in range(state.distractors.shape[1]):
            out[e, 0, seen + d] = state.distractors[e, d]

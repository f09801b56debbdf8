"""Drift control without noise: dynamics, causal graph, linearisation and its optimal control (NumPy, float64)."""

from __future__ import annotations

import functools

import numpy as np

from qio_envs.api import AFTER, Array, StepGraph
from qio_envs.drift_control.config import (
    COMPONENTS,
    DECAY_2,
    DECAY_3,
    DISTRACTOR_SCALES,
    PRODUCT,
    SINE,
    STEP,
    DriftControlConfig,
)

_ITERATIONS = 100_000  # of the Riccati recursion at most
_CONVERGED = 1e-13  # relative change of the value at which it stops


def mean_next_state(components: Array, actions: Array) -> Array:
    """Return the expected next state of drift control, float64 ``[..., 4]``.

    The noises of `DriftControl` have mean 0 and are added, so this is also the next state without noise.

    Args:
        components: States s0 to s3, ``[..., 4]``.
        actions: Actions ``[..., 2]``; numbers outside [-1, 1] are clipped.
    """
    s0, s1, s2, s3 = np.moveaxis(np.asarray(components, np.float64), -1, 0)
    a0, a1 = np.moveaxis(np.clip(np.asarray(actions, np.float64), -1, 1), -1, 0)
    return np.stack(
        [
            s0 + STEP * a0 + SINE * np.sin(s1),
            s1 + STEP * a1 + PRODUCT * s0 * s2,
            DECAY_2 * s2 + STEP * np.tanh(a0 + a1),
            DECAY_3 * s3 + np.zeros_like(a0),
        ],
        axis=-1,
    )


def step_graph(config: DriftControlConfig) -> StepGraph:
    """Return the causal graph of one time step: the dynamics of `DriftControl` as edges.

    Coefficients that are 0 give no edge: an action costs nothing with ``action_cost`` 0.

    Args:
        config: The settings.
    """
    components, distractors = config.component_names, config.distractor_names
    first, second = config.action_names if config.actions == "continuous" else config.action_names * 2
    causes = {
        "s0": ("s0", "s1", first),
        "s1": ("s0", "s1", "s2", second),
        "s2": ("s2", *dict.fromkeys((first, second))),
        "s3": ("s3",),
    }
    edges = [(cause, effect + AFTER) for effect in components for cause in causes[effect]]
    if not config.sensor_shift:
        followed = len(DISTRACTOR_SCALES)
        for index, name in enumerate(distractors):
            edges += [(name, name + AFTER), (components[index % followed] + AFTER, name + AFTER)]
    edges += [(name + AFTER, "reward") for name in components]
    edges += [(name, "reward") for name in config.action_names] if config.action_cost > 0 else []
    before = components + distractors
    unseen = [components[index] for index in config.hidden]
    return StepGraph(
        variables=(*before, *config.action_names, *(name + AFTER for name in before), "reward"),
        hidden=(*unseen, *(name + AFTER for name in unseen)),
        edges=tuple(edges),
    )


def linear_model() -> tuple[Array, Array]:
    """Return A ``[4, 4]`` and B ``[4, 2]``, float64: near the origin the next state is A s + B a."""
    a = np.diag([1.0, 1.0, DECAY_2, DECAY_3])
    a[0, 1] = SINE
    return a, STEP * np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])


def lqr_value(config: DriftControlConfig) -> Array:
    """Return the matrix P of the linear-quadratic regulator's cost-to-go, float64 ``[4, 4]``, read-only.

    The solution of the discrete algebraic Riccati equation with state cost I and action cost ``action_cost`` I, for
    the linearisation at the origin, without limits on the action, without noise and without a time limit. There,
    ``s' P s`` is the cost of s itself and of everything after it under the best actions; where costs up to and with
    the state s are counted already, as in `DriftControl`, ``s' (P - I) s`` is what remains.

    Args:
        config: The settings; ``action_cost`` matters.
    """
    return _riccati(config.action_cost)[0]


def lqr_gain(config: DriftControlConfig) -> Array:
    """Return the gain K of the linear-quadratic regulator, float64 ``[2, 4]``, read-only: the action is -K s, clipped.

    Args:
        config: The settings; ``action_cost`` matters.
    """
    return _riccati(config.action_cost)[1]


@functools.lru_cache(maxsize=64)
def _riccati(action_cost: float) -> tuple[Array, Array]:
    """Return P and K by the Riccati recursion."""
    (a, b), identity = linear_model(), np.eye(COMPONENTS)
    value = identity
    for _ in range(_ITERATIONS):
        gain = _gain(value, a, b, action_cost)
        last, value = value, identity + a.T @ value @ (a - b @ gain)
        value = (value + value.T) / 2
        if np.abs(value - last).max() <= _CONVERGED * np.abs(value).max():
            break
    gain = _gain(value, a, b, action_cost)
    for array in (value, gain):
        array.flags.writeable = False
    return value, gain


def _gain(value: Array, a: Array, b: Array, action_cost: float) -> Array:
    return np.linalg.solve(action_cost * np.eye(2) + b.T @ value @ b, b.T @ value @ a)

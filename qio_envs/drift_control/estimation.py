"""The extended Kalman filter of drift control, over a batch of environments (NumPy, float64).

Elementwise products and sums in a fixed order only: an estimate is bit for bit the same for one environment and for
many.
"""

from __future__ import annotations

import numpy as np

from qio_envs.api import Array
from qio_envs.drift_control.config import COMPONENTS, PRODUCT, SINE, STEP, DriftControlConfig
from qio_envs.drift_control.model import linear_model, mean_next_state

START_VARIANCE = 1 / 3
"""Variance of each component of the first state, which is uniform in [-1, 1)."""


def predicted(
    mean: Array, covariance: Array, actions: Array, config: DriftControlConfig
) -> tuple[Array, Array]:
    """Return mean ``[E, 4]`` and covariance ``[E, 4, 4]`` of the estimate after a step that was not observed.

    Args:
        mean: Before the step, ``[E, 4]``.
        covariance: Before the step, ``[E, 4, 4]``.
        actions: As executed, ``[E, 2]``.
        config: The settings; the noises matter.
    """
    slope = np.broadcast_to(linear_model()[0], covariance.shape).copy()
    slope[:, 0, 1] = SINE * np.cos(mean[:, 1])
    slope[:, 1, 0], slope[:, 1, 2] = PRODUCT * mean[:, 2], PRODUCT * mean[:, 0]
    noise = np.full(COMPONENTS, config.process_noise**2)
    noise[3] += (STEP * config.drive_noise) ** 2
    spread = _product(_product(slope, covariance), slope.transpose(0, 2, 1)) + np.diag(noise)
    return mean_next_state(mean, actions), (spread + spread.transpose(0, 2, 1)) / 2


def observe_exactly(mean: Array, covariance: Array, component: int, values: Array) -> None:
    """Condition estimates on the true value of one component; ``mean`` and ``covariance`` are changed.

    Args:
        mean: ``[E, 4]``.
        covariance: ``[E, 4, 4]``.
        component: Which one is known, 0 to 3.
        values: What it is, ``[E]``.
    """
    row = covariance[:, component].copy()
    variance = row[:, component]
    gain = np.divide(row, variance[:, None], out=np.zeros_like(row), where=variance[:, None] > 0)
    mean += gain * (values - mean[:, component])[:, None]
    covariance -= gain[:, :, None] * row[:, None, :]
    mean[:, component] = values
    covariance[:, component], covariance[:, :, component] = 0, 0


def _product(left: Array, right: Array) -> Array:
    """Return matrix products ``[E, 4, 4]``."""
    return sum(left[:, :, k, None] * right[:, k, None, :] for k in range(COMPONENTS))

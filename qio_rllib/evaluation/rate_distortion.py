"""What a message can be worth: lower bounds on the distortion at which a source can be told in so many bits.

The distortion-rate function ``D(R)`` is the least expected distortion between a source ``X`` and anything ``Y`` that
has at most ``R`` bits of information about it (Shannon, 1959). Blahut (1972) and Arimoto (1972) find the channels that
attain it; the dual of each gives a line that lies below ``D`` whatever the reproductions are (Berger, 1971, section
2.5), so that what stands here are bounds, not estimates.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

Array = np.ndarray

_TOLERANCE = 1e-5  # nats between the dual and the primal at which iterations end


@dataclasses.dataclass(frozen=True)
class DistortionRate:
    """A lower bound on ``D(R)``: the greatest of some lines and 0, less a constant.

    Attributes:
        slopes: ``s``, nats a unit of distortion, above 0, ``[S]``.
        heights: ``h`` in nats: a line says that ``R >= h - s D``, ``[S]``.
        error: Taken off: what a source that stands for another one differs from it on average.
    """

    slopes: Array
    heights: Array
    error: float = 0.0

    def at(self, bits: Array | float) -> Array:
        """Return the bound on the distortion for rates in bits, of the same shape."""
        rates = np.asarray(bits, float)[..., None] * np.log(2.0)
        lines = (self.heights - rates) / self.slopes
        return np.maximum(lines.max(axis=-1) - self.error, 0.0)


def distortion_rate(
    source: Array,
    distortion: Array,
    slopes: Sequence[float] | Array,
    everywhere: Array | None = None,
    slack: float = 0.0,
    iterations: int = 5000,
) -> DistortionRate:
    """Return a lower bound on the distortion-rate function of a finite source.

    Args:
        source: Probabilities of its letters, ``[X]``.
        distortion: Of each reproduction ``[X, Y]``; or ``[X, Y, A]``: each of ``Y`` stands for ``A`` equally likely
            ones, such as all rotations where source and distortion do not change by them.
        slopes: One line each; small ones are close to ``D`` at low rates, large ones at high rates.
        everywhere: Distortions like ``distortion`` of reproductions that are only checked against, none of which need
            be near the best; by default those of ``distortion`` are all that there are.
        slack: How much less the distortion of any reproduction at all may be than that of one of ``everywhere``.
        iterations: At most so many of Blahut and Arimoto for a line, from uniform reproductions.
    """
    checked = distortion if everywhere is None else everywhere
    heights = []
    for slope in slopes:
        kernel, whole = _kernel(distortion, slope), _kernel(checked, slope)
        chosen = np.full(kernel.shape[1], 1.0 / kernel.shape[1])
        for _ in range(iterations):
            weights = 1.0 / (kernel @ chosen)
            grown = (source * weights) @ kernel
            if np.log(grown.max()) < _TOLERANCE:
                break
            chosen = chosen * grown
        # Weights w are feasible in the dual if sum_x p w exp(-s d(x, y)) <= 1 for every y.
        excess = np.log(((source * weights) @ whole).max()) + slope * slack
        heights.append(float(source @ np.log(weights) - excess))
    return DistortionRate(np.asarray(slopes, float), np.array(heights))


def disc_distance(radius: float, cells: int = 48, angles: int = 360) -> DistortionRate:
    """Return a lower bound on ``D(R)`` of a point uniform in a disc, where the distortion is the distance from it.

    Source, distance and so the best channel do not change by rotations; radii are cut into cells. Below the bound by
    Blahut and Arimoto stands Shannon's at high rates, ``D >= sqrt(2) r / e 2^(-R / 2)``, whose tangents are added: at a
    given mean distance the density ``exp(-s |z|)`` has the greatest entropy.

    Args:
        radius: ``r``, above 0.
        cells: Of radii, of the source and of reproductions.
        angles: In the mean over half a turn.
    """
    edges = np.linspace(0.0, radius, cells + 1)
    masses = np.diff(edges**2) / radius**2
    middles = (edges[1:] + edges[:-1]) / 2
    # The mean of |r - middle| over a cell, with the density of r; cells of the width w: w / 4 whatever the middle.
    error = float(edges[1]) / 4
    turn = (np.arange(angles) + 0.5) * np.pi / angles
    reproductions = np.linspace(0.0, radius, cells)
    fine = np.linspace(0.0, radius, 400)
    slopes = np.geomspace(0.02, 40.0, 32) / radius
    found = distortion_rate(
        masses,
        distances(middles, reproductions, turn),
        slopes,
        distances(middles, fine, turn),
        float(fine[1]) / 2,
        iterations=300,
    )
    # Shannon's bound in nats: R >= ln(2 r^2 / (e^2 D^2)); its tangent at D = 2 / s.
    steep = np.geomspace(1.0, 1e6, 400) / radius
    tangents = np.log(2.0 * radius**2 / np.e**2) - 2.0 * np.log(2.0 / steep) + 2.0
    return DistortionRate(
        np.concatenate([slopes, steep]),
        np.concatenate([found.heights - slopes * error, tangents]),
    )


def _kernel(distortion: Array, slope: float) -> Array:
    kernel = np.exp(-slope * distortion)
    return kernel if kernel.ndim == 2 else kernel.mean(axis=2)


def distances(radii: Array, others: Array, turn: Array) -> Array:
    """Return the distances of points in the plane.

    Args:
        radii: Their distances from the origin, ``[X]``.
        others: Those of other points, ``[Y]``.
        turn: Angles between the two, radians, ``[A]``.

    Returns:
        ``[X, Y, A]``.
    """
    r, q = radii[:, None, None], others[:, None]
    return np.sqrt(np.maximum(r**2 + q**2 - 2.0 * r * q * np.cos(turn), 0.0))

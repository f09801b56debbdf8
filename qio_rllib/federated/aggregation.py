"""Rules by which a server makes one update of many, the mean and those that bear malicious clients.

Updates are float32 ``[n, d]``, one row a client: the weights after its training less those before it.
"""

from __future__ import annotations

import math

import numpy as np

from qio_envs.api import ConfigError

Array = np.ndarray


def mean(updates: Array, weights: Array | None = None) -> Array:
    """Return the weighted mean, float32 ``[d]`` (McMahan et al., 2017: FedAvg).

    Args:
        updates: ``[n, d]``.
        weights: ``[n]``, not negative, not all 0; None for equal ones.

    Raises:
        ConfigError: Wrong updates or weights.
    """
    updates = _checked(updates)
    return (_weights(weights, len(updates)) @ updates.astype(np.float64)).astype(np.float32)


def median(updates: Array) -> Array:
    """Return the median of each number, float32 ``[d]`` (Yin et al., 2018).

    Raises:
        ConfigError: Wrong updates.
    """
    return np.median(_checked(updates), axis=0).astype(np.float32)


def trimmed_mean(updates: Array, trim: float) -> Array:
    """Return the mean of each number without its smallest and largest values, float32 ``[d]`` (Yin et al., 2018).

    Args:
        updates: ``[n, d]``.
        trim: Share of the clients that is left out at either end, in [0, 1/2); rounded up to whole clients.

    Raises:
        ConfigError: Wrong updates, or a share that leaves nobody.
    """
    updates = _checked(updates)
    count = len(updates)
    cut = math.ceil(trim * count - 1e-9)
    if not 0 <= trim < 0.5 or 2 * cut >= count:
        raise ConfigError(
            f"trim: expected a share in [0, 1/2) that leaves some of {count} updates, got {trim}"
        )
    return np.sort(updates, axis=0)[cut : count - cut].mean(0, dtype=np.float64).astype(np.float32)


def geometric_median(
    updates: Array, weights: Array | None = None, tolerance: float = 1e-6, max_iterations: int = 100
) -> Array:
    """Return the point with the least weighted sum of distances to all, float32 ``[d]``.

    Weiszfeld's iteration with smoothed distances (Pillutla et al., 2022: RFA).

    Args:
        updates: ``[n, d]``.
        weights: ``[n]``; None for equal ones.
        tolerance: Of the step between two iterations, as a share of the spread of the updates; distances are smoothed
            at the same share.
        max_iterations: At most.

    Raises:
        ConfigError: Wrong updates or weights.
    """
    points = _checked(updates).astype(np.float64)
    shares = _weights(weights, len(points))
    centre = np.median(points, axis=0)
    spread = float(np.median(np.linalg.norm(points - centre, axis=1)))
    smallest = max(tolerance * spread, 1e-12)
    for _ in range(max_iterations):
        pull = shares / np.maximum(np.linalg.norm(points - centre, axis=1), smallest)
        following = pull @ points / pull.sum()
        step = float(np.linalg.norm(following - centre))
        centre = following
        if step <= smallest:
            break
    return centre.astype(np.float32)


def multi_krum(updates: Array, byzantine: int, keep: int | None = None) -> Array:
    """Return the mean of the updates that lie closest to their neighbours, float32 ``[d]`` (Blanchard et al., 2017).

    Args:
        updates: ``[n, d]``.
        byzantine: How many clients may be malicious, ``2 byzantine + 2 < n``.
        keep: How many updates are averaged, 1 (Krum) to ``n - byzantine``; None for as many.

    Raises:
        ConfigError: Wrong updates, or more malicious clients than the rule bears.
    """
    updates = _checked(updates)
    count = len(updates)
    if not (byzantine >= 0 and 2 * byzantine + 2 < count):
        raise ConfigError(
            f"byzantine: expected 0 to {max((count - 3) // 2, 0)} of {count} updates (2 byzantine + 2 < n), "
            f"got {byzantine}"
        )
    chosen = count - byzantine if keep is None else keep
    if not 1 <= chosen <= count - byzantine:
        raise ConfigError(f"keep: expected 1 to {count - byzantine}, got {keep}")
    distances = _squared_distances(updates)
    np.fill_diagonal(distances, np.inf)
    scores = np.sort(distances, axis=1)[:, : count - byzantine - 2].sum(1)
    best = np.argsort(scores, kind="stable")[:chosen]
    return updates[np.sort(best)].mean(0, dtype=np.float64).astype(np.float32)


def distance_filter(
    updates: Array, byzantine: float, radius: float | None = None, tight: float = 1.0
) -> tuple[Array, Array]:
    """Return the mean of the updates near a central one, and which they are (Fan et al., 2021: FedPG-BR).

    The central update is, of those with more than half of all within twice the radius, the one nearest to their mean.
    Kept is what lies within twice the radius of it; first with the radius times ``tight``; where that keeps fewer than
    the honest ones, with the radius itself. The paper's radii are ``sigma`` and ``sigma sqrt(2 log(2 n / delta) / B)``
    with a known bound sigma of the gradients' deviation; without a radius it is the median distance to the median of
    each number, which is this project's choice.

    Args:
        updates: ``[n, d]``.
        byzantine: Share of the clients that may be malicious, in [0, 1/2).
        radius: Positive; None to take it from the updates.
        tight: In (0, 1].

    Returns:
        float32 ``[d]``, and bool ``[n]``.

    Raises:
        ConfigError: Wrong updates or a value outside its range.
    """
    updates = _checked(updates)
    count = len(updates)
    if not 0 <= byzantine < 0.5:
        raise ConfigError(f"byzantine: expected a share in [0, 1/2), got {byzantine}")
    if (radius is not None and not radius > 0) or not 0 < tight <= 1:
        raise ConfigError(f"radius, tight: expected positive numbers, tight at most 1, got {radius}, {tight}")
    if radius is None:
        radius = float(np.median(np.linalg.norm(updates - np.median(updates, axis=0), axis=1)))
    distances = np.sqrt(_squared_distances(updates))
    kept = np.ones(count, bool)
    for limit in (2 * radius * tight, 2 * radius):
        central = (distances <= limit).sum(1) > count / 2
        if not central.any():
            continue
        middle = updates[central].mean(0)
        candidates = np.flatnonzero(central)
        nearest = candidates[np.argmin(np.linalg.norm(updates[candidates] - middle, axis=1))]
        kept = distances[nearest] <= limit
        if kept.sum() >= (1 - byzantine) * count:
            break
    return updates[kept].mean(0, dtype=np.float64).astype(np.float32), kept


def _checked(updates: Array) -> Array:
    updates = np.asarray(updates)
    if updates.ndim != 2 or len(updates) == 0 or updates.shape[1] == 0:
        raise ConfigError(f"updates: expected shape (clients, numbers), got {updates.shape}")
    if not np.isfinite(updates).all():
        bad = int(np.flatnonzero(~np.isfinite(updates).all(1))[0])
        raise ConfigError(f"updates: that of client {bad} is not finite")
    return updates


def _weights(weights: Array | None, count: int) -> Array:
    shares = np.ones(count) if weights is None else np.asarray(weights, np.float64)
    if shares.shape != (count,) or not np.isfinite(shares).all() or (shares < 0).any() or shares.sum() <= 0:
        raise ConfigError(f"weights: expected {count} numbers of at least 0, not all 0")
    return shares / shares.sum()


def _squared_distances(updates: Array) -> Array:
    """Return the squared distances of all pairs, float64 ``[n, n]``."""
    found = np.zeros((len(updates), len(updates)))
    for row, update in enumerate(updates):  # a product of the whole would lose the digits of small distances
        gaps = (updates[row + 1 :] - update).astype(np.float64)
        found[row, row + 1 :] = np.einsum("nd,nd->n", gaps, gaps)
    return found + found.T

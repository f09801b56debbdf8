"""Numba kernel of the cross-entropy method: plans on the true model without noise."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import normals
from qio_envs.drift_control.kernels import advance, clip, square

_STREAM = 1001  # apart from the environments' own streams and random play's
_ZERO = np.float32(0.0)


class Search(NamedTuple):
    """What a search is done with; float32 where not said otherwise."""

    horizon: int  # steps H of a plan
    candidates: int  # plans that are compared in an iteration
    iterations: int
    elites: int  # best plans of an iteration, which the next ones are drawn around
    first_spread: float  # standard deviation of the first candidates of a new plan
    next_spread: float  # and of those of a plan that goes on
    least_spread: float  # and of any
    discrete: bool  # whether actions are rounded to -1, 0, 1
    action_cost: float
    gain: Array  # [2, 4], of the linear-quadratic regulator
    value: Array  # [4, 4], of its cost-to-go
    seed: np.uint64  # key of the random numbers, besides the environment's


@njit(cache=True, error_model="numpy", forceinline=True)
def _legal(value: np.float32, discrete: bool) -> np.float32:
    value = clip(value)
    return np.rint(value) if discrete else value


@njit(cache=True, error_model="numpy")
def _cost(start: Array, plan: Array, first: int, search: Search) -> np.float32:
    """Return the cost of a plan (``[H, 2]``), whose actions from step ``first`` on are first set to the regulator's."""
    gain, value, action_cost = search.gain, search.value, np.float32(search.action_cost)
    s0, s1, s2, s3 = start[0], start[1], start[2], start[3]
    total = _ZERO
    for t in range(search.horizon):
        if t >= first:
            for k in range(2):
                wanted = gain[k, 0] * s0 + gain[k, 1] * s1 + gain[k, 2] * s2 + gain[k, 3] * s3
                plan[t, k] = _legal(-wanted, search.discrete)
        a0, a1 = plan[t, 0], plan[t, 1]
        s0, s1, s2, s3 = advance(s0, s1, s2, s3, a0, a1)
        total += action_cost * (a0 * a0 + a1 * a1)
        if t < search.horizon - 1:
            total += square(s0, s1, s2, s3)
    last = (s0, s1, s2, s3)
    for i in range(4):
        for j in range(4):
            total += last[i] * value[i, j] * last[j]
    return total


@njit(cache=True, error_model="numpy")
def plan(
    components: Array,
    seed: Array,
    episode: Array,
    step: Array,
    goes_on: Array,
    elites: Array,
    actions: Array,
    search: Search,
) -> None:
    """Search a plan for each environment and write its first action.

    In each iteration candidates are drawn from independent normals around the elites' mean; the elites so far, and in
    the first one the regulator's plan, compete with them. The best plan of all is taken.

    Args:
        components: Present states, float32 ``[E, 4]``.
        seed: Of the environments, uint64 ``[E]``.
        episode: Likewise, uint32 ``[E]``.
        step: Likewise, int32 ``[E]``.
        goes_on: Bool ``[E]``, whether ``elites`` holds plans of the step before.
        elites: Best plans found, best first, float32 ``[E, elites, H, 2]``; is read and written.
        actions: Float32 ``[E, 2]``, is written.
        search: How to search.
    """
    horizon, candidates, kept = search.horizon, search.candidates, search.elites
    numbers = 2 * horizon
    blocks = (numbers + 3) // 4
    pool = np.empty((candidates, horizon, 2), np.float32)
    costs = np.empty(candidates, np.float32)
    mean, spread = np.empty((horizon, 2), np.float32), np.empty((horizon, 2), np.float32)
    for e in range(components.shape[0]):
        start, best = components[e], elites[e]
        for i in range(search.iterations):
            old = kept if i > 0 or goes_on[e] else 0
            if i == 0:
                for c in range(old):  # the plans of the step before, from their second action on
                    for t in range(horizon - 1):
                        pool[c, t] = best[c, t + 1]
                    costs[c] = _cost(start, pool[c], horizon - 1, search)
                costs[old] = _cost(start, pool[old], 0, search)
                nearest = int(np.argmin(costs[: old + 1]))
                for t in range(horizon):
                    for k in range(2):
                        mean[t, k] = pool[nearest, t, k]
                        spread[t, k] = search.next_spread if goes_on[e] else search.first_spread
                old += 1
            for c in range(old, candidates):
                for block in range(blocks):
                    draws = normals(
                        (i * candidates + c) * blocks + block,
                        step[e],
                        episode[e],
                        _STREAM,
                        seed[e] ^ search.seed,
                    )
                    for k in range(4):
                        m = 4 * block + k
                        if m < numbers:
                            t, j = m >> 1, m & 1
                            wanted = mean[t, j] + spread[t, j] * draws[k]
                            pool[c, t, j] = _legal(wanted, search.discrete)
                costs[c] = _cost(start, pool[c], horizon, search)
            order = np.argsort(costs)
            mean[:], spread[:] = 0, 0
            for c in range(kept):
                best[c] = pool[order[c]]
                mean += best[c]
            mean /= np.float32(kept)
            for c in range(kept):
                spread += (best[c] - mean) ** 2
                pool[c] = best[c]
            costs[:kept] = costs[order[:kept]]
            for t in range(horizon):
                for k in range(2):
                    spread[t, k] = max(np.sqrt(spread[t, k] / kept), np.float32(search.least_spread))
        actions[e] = best[0, 0]

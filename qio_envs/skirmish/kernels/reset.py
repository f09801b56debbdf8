"""Starts of episodes."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import below, uniform
from qio_envs.skirmish.config import SCATTER, STOP, UNITS
from qio_envs.skirmish.kernels.bodies import NUM_FIGURES, RADIUS, X, Y, push
from qio_envs.skirmish.state import SkirmishRules, SkirmishState

TYPES, START, LAYOUT, GROUPS = 0, 1, 2, 3  # streams of random numbers
_NUM_TYPES, _NUM_GROUPS = len(UNITS), 4
_SCATTER, _TWO, _HALF = np.float32(SCATTER), np.float32(2.0), np.float32(0.5)


@njit(cache=True, error_model="numpy")
def reset(mask: Array, state: SkirmishState, rules: SkirmishRules) -> None:
    """Place the teams where ``mask`` (bool ``[E]``) is true; all but seed, episode, step, running is written anew."""
    units, allies = state.kind.shape[1], rules.num_allies
    width, height = np.float32(rules.width), np.float32(rules.height)
    figures = np.empty((NUM_FIGURES, units), np.float32)
    for e in range(mask.shape[0]):
        if not mask[e]:
            continue
        episode, seed = state.episode[e], state.seed[e]
        for u in range(units):
            kind = _type_of(u, rules, episode, seed)
            state.kind[e, u] = kind
            state.health[e, u], state.shield[e, u] = rules.health[kind], rules.shield[kind]
            state.alive[e, u], state.action[e, u] = True, STOP
            state.cooldown[e, u], state.unhurt[e, u] = 0, 0
        position = state.position[e]
        if not rules.smacv2_start:
            _sides(position, allies, width, height, episode, seed)
        elif uniform(0, 0, episode, LAYOUT, seed) < _HALF:
            _surround(position, allies, width, height, episode, seed)
        else:
            _reflect(position, allies, width, height, episode, seed)
        for u in range(units):
            figures[X, u], figures[Y, u] = position[0, u], position[1, u]
            figures[RADIUS, u] = rules.radius[state.kind[e, u]]
        push(figures, units)
        for u in range(units):
            position[0, u], position[1, u] = figures[X, u], figures[Y, u]
        for m in range(units - allies):
            state.goal[e, m, 0] = width - position[0, allies + m]
            state.goal[e, m, 1] = height - position[1, allies + m]
            state.target[e, m] = -1
        state.won[e], state.team_reward[e] = False, 0
        state.team_return[e], state.enemy_return[e] = 0, 0


@njit(cache=True)
def _type_of(unit: int, rules: SkirmishRules, episode: int, seed: int) -> int:
    """Return a unit's type; where an enemy's is drawn, it is that of the ally of its number if there is one."""
    kind = rules.types[unit]
    if kind < _NUM_TYPES:
        return kind
    allies = rules.num_allies
    if allies <= unit < 2 * allies:
        unit -= allies
        if rules.types[unit] < _NUM_TYPES:
            return rules.types[unit]
    return below(_NUM_TYPES, unit, 0, episode, TYPES, seed)


@njit(cache=True)
def _scatter(lane: int, episode: int, seed: int) -> np.float32:
    """Return a number uniform in [-SCATTER, SCATTER)."""
    return _SCATTER * (_TWO * uniform(lane, 0, episode, START, seed) - np.float32(1))


@njit(cache=True)
def _sides(position: Array, allies: int, width: float, height: float, episode: int, seed: int) -> None:
    """Scatter allies around a point on the left, enemies around one on the right."""
    for u in range(position.shape[1]):
        x = width / np.float32(4) if u < allies else width / np.float32(4) * np.float32(3)
        position[0, u] = x + _scatter(2 * u, episode, seed)
        position[1, u] = height / _TWO + _scatter(2 * u + 1, episode, seed)


@njit(cache=True)
def _reflect(position: Array, allies: int, width: float, height: float, episode: int, seed: int) -> None:
    """Place allies anywhere on the left half and enemies as their mirror image, the surplus anywhere on the right."""
    for u in range(position.shape[1]):
        if allies <= u < 2 * allies:
            position[0, u] = width - position[0, u - allies]
            position[1, u] = position[1, u - allies]
        else:
            x = width / _TWO * uniform(2 * u, 0, episode, START, seed)
            position[0, u] = x if u < allies else width - x
            position[1, u] = height * uniform(2 * u + 1, 0, episode, START, seed)


@njit(cache=True)
def _surround(position: Array, allies: int, width: float, height: float, episode: int, seed: int) -> None:
    """Scatter one team around the middle and the other around four points between the middle and the corners."""
    allies_inside = uniform(1, 0, episode, LAYOUT, seed) < _HALF
    for u in range(position.shape[1]):
        x, y = width / _TWO, height / _TWO
        if (u < allies) != allies_inside:
            group = below(_NUM_GROUPS, u, 0, episode, GROUPS, seed)
            inwards = uniform(4 + group, 0, episode, LAYOUT, seed)
            x = inwards * x + (np.float32(1) - inwards) * (width if group >= 2 else np.float32(0))
            y = inwards * y + (np.float32(1) - inwards) * (height if group % 2 else np.float32(0))
        position[0, u] = x + _scatter(2 * u, episode, seed)
        position[1, u] = y + _scatter(2 * u + 1, episode, seed)

"""Observations, the global state and action masks."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.skirmish.config import FIRST_ATTACK, MOVES, STOP, UNITS
from qio_envs.skirmish.state import SkirmishRules, SkirmishState

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_MOVES = np.array(MOVES, np.float32)
_NUM_TYPES = len(UNITS)
_HEALTH, _MOVE_X, _MOVE_Y, _ATTACK, _WAIT, _SHIELD = 0, 1, 2, 3, 4, 5  # rows of what units look like


@njit(cache=True, error_model="numpy")
def _looks(e: int, state: SkirmishState, rules: SkirmishRules, looks: Array) -> None:
    """Write what all units of environment ``e`` look like to an ally wherever it stands, float32 ``[6, U]``."""
    units, allies = looks.shape[1], rules.num_allies
    for u in range(units):
        kind, action = state.kind[e, u], state.action[e, u]
        looks[_HEALTH, u] = state.health[e, u] / rules.health[kind]
        looks[_MOVE_X, u], looks[_MOVE_Y, u], looks[_ATTACK, u] = 0, 0, 0
        if u < allies or rules.see_enemy_actions:
            if action < STOP:
                looks[_MOVE_X, u], looks[_MOVE_Y, u] = _MOVES[action, 0], _MOVES[action, 1]
            elif action >= FIRST_ATTACK:
                opponents = units - allies if u < allies else allies
                looks[_ATTACK, u] = np.float32(action) / np.float32(opponents + STOP)
        looks[_WAIT, u] = min(max(state.cooldown[e, u] / rules.reload[kind], _ZERO), _ONE)
        looks[_SHIELD, u] = state.shield[e, u] / rules.shield[kind] if rules.shield[kind] > 0 else _ZERO


@njit(cache=True, error_model="numpy")
def observe(state: SkirmishState, rules: SkirmishRules, out: Array) -> None:
    """Write what every ally observes, float32 ``[E, N, D]``."""
    kinds, positions, alive, sights = state.kind, state.position, state.alive, rules.sight_range
    units, allies, shields = kinds.shape[1], rules.num_allies, rules.shields
    width, height = np.float32(rules.width), np.float32(rules.height)
    size = 7 + _NUM_TYPES + shields
    looks = np.empty((6, units), np.float32)
    for e in range(out.shape[0]):
        _looks(e, state, rules, looks)
        for n in range(allies):
            for k in range(out.shape[2]):
                out[e, n, k] = 0
            if not alive[e, n]:
                continue
            x, y, sight = positions[e, 0, n], positions[e, 1, n], sights[kinds[e, n]]
            p = 0
            for j in range(units):
                if j == n:
                    continue
                dx, dy = positions[e, 0, j] - x, positions[e, 1, j] - y
                if alive[e, j] and dx * dx + dy * dy < sight * sight:
                    out[e, n, p], out[e, n, p + 1], out[e, n, p + 2] = (
                        looks[_HEALTH, j],
                        dx / sight,
                        dy / sight,
                    )
                    out[e, n, p + 3], out[e, n, p + 4] = looks[_MOVE_X, j], looks[_MOVE_Y, j]
                    out[e, n, p + 5], out[e, n, p + 6] = looks[_ATTACK, j], looks[_WAIT, j]
                    out[e, n, p + 7 + kinds[e, j]] = 1
                    if shields:
                        out[e, n, p + size - 1] = looks[_SHIELD, j]
                p += size
            out[e, n, p], out[e, n, p + 1], out[e, n, p + 2] = looks[_HEALTH, n], x / width, y / height
            out[e, n, p + 3] = looks[_WAIT, n]
            out[e, n, p + 4 + kinds[e, n]] = 1
            if shields:
                out[e, n, out.shape[2] - 1] = looks[_SHIELD, n]


@njit(cache=True, error_model="numpy")
def global_state(state: SkirmishState, rules: SkirmishRules, out: Array) -> None:
    """Write the global state, float32 ``[E, D]``."""
    kinds, positions, alive, cooldowns = state.kind, state.position, state.alive, state.cooldown
    healths, shields, full, whole = state.health, state.shield, rules.health, rules.shield
    units, allies = kinds.shape[1], rules.num_allies
    size = 4 + _NUM_TYPES + rules.shields
    for e in range(out.shape[0]):
        for k in range(units * size):
            out[e, k] = 0
        for u in range(units):
            p, kind = u * size, kinds[e, u]
            if alive[e, u]:
                out[e, p] = healths[e, u] / full[kind]
                out[e, p + 1], out[e, p + 2] = positions[e, 0, u], positions[e, 1, u]
                out[e, p + 3], out[e, p + 4 + kind] = cooldowns[e, u], 1
                if whole[kind] > 0:
                    out[e, p + size - 1] = shields[e, u] / whole[kind]
            out[e, units * size + u] = u >= allies
            out[e, units * (size + 1) + u] = kind


@njit(cache=True, error_model="numpy")
def action_mask(state: SkirmishState, rules: SkirmishRules, out: Array) -> None:
    """Write which actions are legal, int8 ``[E, N, A]``: the dead can stop only, others attack what is in range."""
    positions, alive, kinds, ranges = state.position, state.alive, state.kind, rules.attack_range
    allies = rules.num_allies
    for e in range(out.shape[0]):
        for n in range(allies):
            reach = ranges[kinds[e, n]]
            for action in range(STOP):
                out[e, n, action] = alive[e, n]
            out[e, n, STOP] = 1
            for action in range(FIRST_ATTACK, out.shape[2]):
                j = allies + action - FIRST_ATTACK
                dx, dy = positions[e, 0, j] - positions[e, 0, n], positions[e, 1, j] - positions[e, 1, n]
                out[e, n, action] = alive[e, n] and alive[e, j] and dx * dx + dy * dy < reach * reach

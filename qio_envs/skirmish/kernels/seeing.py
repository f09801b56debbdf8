"""Observations, the global state and action masks."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.skirmish.config import FIRST_ATTACK, MOVES, STOP, UNITS
from qio_envs.skirmish.kernels.sides import mirrored
from qio_envs.skirmish.state import SkirmishRules, SkirmishState

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_MOVES = np.array(MOVES, np.float32)
_NUM_TYPES = len(UNITS)
_HEALTH, _MOVE_X, _MOVE_Y, _ATTACK, _WAIT, _SHIELD, _X, _Y = range(8)  # rows of what units look like


@njit(cache=True, error_model="numpy")
def _arrange(
    e: int, side: int, state: SkirmishState, rules: SkirmishRules, looks: Array, types: Array
) -> None:
    """Write all units of environment ``e`` as a side sees them wherever its unit stands, its own units first.

    Args:
        e: The environment.
        side: 0 for the allies; 1 for the enemies, who see the mirror image: their own start is on the left.
        state: What holds now.
        rules: What holds always.
        looks: Float32 ``[8, U]``, is written; the dead are infinitely far away.
        types: Int64 ``[U]``, likewise.
    """
    kinds, actions, healths, cooldowns = state.kind, state.action, state.health, state.cooldown
    shields, positions, alive = state.shield, state.position, state.alive
    full, reloads, whole, see_all = rules.health, rules.reload, rules.shield, rules.see_enemy_actions
    units, allies, width = looks.shape[1], rules.num_allies, np.float32(rules.width)
    for i in range(units):
        u = i
        if side:
            u = i + allies if i < units - allies else i - (units - allies)
        kind, action = kinds[e, u], actions[e, u]
        types[i] = kind
        x = width - positions[e, 0, u] if side else positions[e, 0, u]
        looks[_X, i], looks[_Y, i] = x if alive[e, u] else np.float32(np.inf), positions[e, 1, u]
        looks[_HEALTH, i] = healths[e, u] / full[kind]
        looks[_MOVE_X, i], looks[_MOVE_Y, i], looks[_ATTACK, i] = 0, 0, 0
        if see_all or (u >= allies) == side:
            if action < STOP:
                action = mirrored(action) if side else action
                looks[_MOVE_X, i], looks[_MOVE_Y, i] = _MOVES[action, 0], _MOVES[action, 1]
            elif action >= FIRST_ATTACK:
                opponents = units - allies if u < allies else allies
                looks[_ATTACK, i] = np.float32(action) / np.float32(opponents + STOP)
        looks[_WAIT, i] = min(max(cooldowns[e, u] / reloads[kind], _ZERO), _ONE)
        looks[_SHIELD, i] = shields[e, u] / whole[kind] if whole[kind] > 0 else _ZERO


@njit(cache=True, error_model="numpy")
def observe(state: SkirmishState, rules: SkirmishRules, out: Array) -> None:
    """Write what every agent observes, each from its own side, float32 ``[E, N, D]``."""
    units, allies, shields, sights = state.kind.shape[1], rules.num_allies, rules.shields, rules.sight_range
    width, height = np.float32(rules.width), np.float32(rules.height)
    size = 7 + _NUM_TYPES + shields
    looks, types = np.empty((8, units), np.float32), np.empty(units, np.int64)
    for e in range(out.shape[0]):
        for side in range(1 + rules.enemy_agents):
            _arrange(e, side, state, rules, looks, types)
            first, count = (allies, units - allies) if side else (0, allies)
            for i in range(count):
                n = first + i
                for k in range(out.shape[2]):
                    out[e, n, k] = 0
                if looks[_X, i] == np.inf:
                    continue
                x, y, sight = looks[_X, i], looks[_Y, i], sights[types[i]]
                square, p = sight * sight, 0
                for j in range(units):
                    if j == i:
                        continue
                    dx, dy = looks[_X, j] - x, looks[_Y, j] - y
                    if dx * dx + dy * dy < square:
                        out[e, n, p], out[e, n, p + 1] = looks[_HEALTH, j], dx / sight
                        out[e, n, p + 2], out[e, n, p + 3] = dy / sight, looks[_MOVE_X, j]
                        out[e, n, p + 4], out[e, n, p + 5] = looks[_MOVE_Y, j], looks[_ATTACK, j]
                        out[e, n, p + 6], out[e, n, p + 7 + types[j]] = looks[_WAIT, j], 1
                        if shields:
                            out[e, n, p + size - 1] = looks[_SHIELD, j]
                    p += size
                out[e, n, p], out[e, n, p + 1], out[e, n, p + 2] = looks[_HEALTH, i], x / width, y / height
                out[e, n, p + 3], out[e, n, p + 4 + types[i]] = looks[_WAIT, i], 1
                if shields:
                    out[e, n, out.shape[2] - 1] = looks[_SHIELD, i]


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
    units, allies = kinds.shape[1], rules.num_allies
    for e in range(out.shape[0]):
        for n in range(out.shape[1]):
            first, opponents = (0, allies) if n >= allies else (allies, units - allies)
            x, y, lives, reach = positions[e, 0, n], positions[e, 1, n], alive[e, n], ranges[kinds[e, n]]
            square = reach * reach
            for action in range(STOP):
                out[e, n, action] = lives
            out[e, n, STOP] = 1
            for k in range(opponents):
                j = first + k
                dx, dy = positions[e, 0, j] - x, positions[e, 1, j] - y
                out[e, n, FIRST_ATTACK + k] = lives and alive[e, j] and dx * dx + dy * dy < square
            for action in range(FIRST_ATTACK + opponents, out.shape[2]):
                out[e, n, action] = 0

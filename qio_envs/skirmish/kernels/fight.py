"""The ticks of a step."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import uniform
from qio_envs.skirmish.config import COOLDOWN_NOISE, SHIELD_DELAY, SHIELD_RATE, STOP, TICK, TICKS
from qio_envs.skirmish.kernels.bodies import (
    ATTACK,
    HARM,
    HEALTH,
    NUM_FIGURES,
    NUM_MARKS,
    RADIUS,
    REACH,
    RELOAD,
    SHIELD,
    SPEED_X,
    SPEED_Y,
    TARGET,
    UNIT,
    WAIT,
    X,
    Y,
    bury,
    find_targets,
    push,
    set_order,
)
from qio_envs.skirmish.state import SkirmishRules, SkirmishState

COOLDOWN = 5  # stream of random numbers; lane: tick times units, plus the unit
_ZERO, _TICK = np.float32(0.0), np.float32(TICK)
_NOISE_LOW = np.float32(COOLDOWN_NOISE[0])
_NOISE_RANGE = np.float32(COOLDOWN_NOISE[1] - COOLDOWN_NOISE[0])
_SHIELD_TICKS = round(SHIELD_DELAY / TICK)
_SHIELD_GAIN = np.float32(SHIELD_RATE * TICK)


@njit(cache=True, error_model="numpy")
def fight(actions: Array, orders: Array, state: SkirmishState, rules: SkirmishRules) -> None:
    """Let all units act for `TICKS` ticks; only what follows from that is left to `outcome`.

    In each tick all shoot at once from where they stand, then all move, then the dead are gone, then units that overlap
    push each other.

    Args:
        actions: Of the allies, int64 ``[E, N]``; those of the dead are ignored.
        orders: Of the enemies, int64 ``[E, M]``, likewise.
        state: Is advanced.
        rules: What holds.
    """
    # out of the tuples once: numba counts references at each look into one
    kinds, positions, healths, shields = state.kind, state.position, state.health, state.shield
    alive, cooldowns, unhurt, chosen = state.alive, state.cooldown, state.unhurt, state.action
    steps, episodes, seeds = state.step, state.episode, state.seed
    speeds, attacks, ranges, radii = rules.speed, rules.attack, rules.attack_range, rules.radius
    reloads, full, walls_kill, shielded = rules.reload, rules.shield, rules.walls_kill, rules.shields
    width, height = np.float32(rules.width), np.float32(rules.height)
    units, allies, backwards = kinds.shape[1], rules.num_allies, not rules.enemy_agents
    figures, marks = np.empty((NUM_FIGURES, units), np.float32), np.empty((NUM_MARKS, units), np.int64)
    for e in range(actions.shape[0]):
        living = 0
        for u in range(units):
            if not alive[e, u]:
                chosen[e, u] = STOP
                continue
            i, kind = living, kinds[e, u]
            chosen[e, u] = actions[e, u] if u < allies else orders[e, u - allies]
            marks[UNIT, i], figures[X, i], figures[Y, i] = u, positions[e, 0, u], positions[e, 1, u]
            set_order(figures, marks, i, chosen[e, u], speeds[kind], allies, backwards)
            figures[RADIUS, i], figures[REACH, i] = radii[kind], ranges[kind] * ranges[kind]
            figures[ATTACK, i], figures[RELOAD, i] = attacks[kind], reloads[kind]
            figures[WAIT, i], figures[HEALTH, i] = cooldowns[e, u], healths[e, u]
            figures[SHIELD, i] = shields[e, u]
            living += 1
        find_targets(marks, living)
        for tick in range(TICKS):
            hit = _shoot(figures, marks, living, tick * units, steps[e], episodes[e], seeds[e])
            if shielded:
                _absorb(figures, marks, living, unhurt[e], kinds[e], full)
            if _move_and_hurt(figures, living, hit, width, height, walls_kill):
                for i in range(living):
                    if figures[HEALTH, i] <= 0:
                        u = marks[UNIT, i]
                        positions[e, 0, u], positions[e, 1, u] = figures[X, i], figures[Y, i]
                        cooldowns[e, u], healths[e, u], shields[e, u] = figures[WAIT, i], 0, 0
                        alive[e, u] = False
                living = bury(figures, marks, living)
            push(figures, living)
        for i in range(living):
            u = marks[UNIT, i]
            positions[e, 0, u], positions[e, 1, u] = figures[X, i], figures[Y, i]
            cooldowns[e, u], healths[e, u] = figures[WAIT, i], figures[HEALTH, i]
            shields[e, u] = figures[SHIELD, i]
        steps[e] += 1


@njit(cache=True, error_model="numpy", forceinline=True)
def _shoot(figures: Array, marks: Array, living: int, lane: int, step: int, episode: int, seed: int) -> bool:
    """Let all units shoot at once that can, from where they stand; return whether any did."""
    hit = False
    for i in range(living):
        figures[HARM, i] = 0
        figures[WAIT, i] -= _TICK
    for i in range(living):
        k = marks[TARGET, i]
        if k >= 0 and figures[WAIT, i] <= -_TICK:
            dx, dy = figures[X, i] - figures[X, k], figures[Y, i] - figures[Y, k]
            if dx * dx + dy * dy < figures[REACH, i]:
                figures[HARM, k] += figures[ATTACK, i]
                noise = uniform(lane + marks[UNIT, i], step, episode, COOLDOWN, seed)
                figures[WAIT, i] = figures[RELOAD, i] + (_NOISE_LOW + _NOISE_RANGE * noise)
                hit = True
    return hit


@njit(cache=True, error_model="numpy")
def _absorb(figures: Array, marks: Array, living: int, unhurt: Array, kind: Array, full: Array) -> None:
    """Let shields take what they can of the harm, and recover where there has long been none."""
    for i in range(living):
        u = marks[UNIT, i]
        if figures[HARM, i] > 0:
            taken = min(figures[SHIELD, i], figures[HARM, i])
            figures[SHIELD, i] -= taken
            figures[HARM, i] -= taken
            unhurt[u] = 0
            continue
        unhurt[u] += 1
        if unhurt[u] > _SHIELD_TICKS:
            figures[SHIELD, i] = min(figures[SHIELD, i] + _SHIELD_GAIN, full[kind[u]])


@njit(cache=True, error_model="numpy", forceinline=True)
def _move_and_hurt(
    figures: Array, living: int, hit: bool, width: np.float32, height: np.float32, walls_kill: bool
) -> bool:
    """Move units within the map and take the harm from their health; return whether any died.

    Who touches the border dies.
    """
    deaths = 0
    for i in range(living):
        figures[X, i] = max(min(figures[X, i] + figures[SPEED_X, i], width), _ZERO)
        figures[Y, i] = max(min(figures[Y, i] + figures[SPEED_Y, i], height), _ZERO)
    if hit:
        for i in range(living):
            figures[HEALTH, i] -= figures[HARM, i]
            deaths += figures[HEALTH, i] <= 0
    if walls_kill:
        for i in range(living):
            x, y = figures[X, i], figures[Y, i]
            if x <= 0 or x >= width or y <= 0 or y >= height:
                figures[HEALTH, i] = 0
                deaths += 1
    return deaths > 0

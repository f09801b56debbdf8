"""Scripted policies of the skirmish."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array, BatchedEnv
from qio_envs.skirmish.config import FIRST_ATTACK, MOVES, STOP, TICK, TICKS, SkirmishConfig
from qio_envs.skirmish.kernels.enemies import move_along
from qio_envs.skirmish.kernels.sides import mirrored
from qio_envs.skirmish.state import SkirmishRules, SkirmishState

_MOVES = np.array(MOVES, np.float32)
_LAST_TICK = (TICKS - 1) * TICK  # seconds; a longer cooldown leaves no shot in the coming step
_DOOMED = 1e6  # put to the health of those whom the shots of others kill
_SAFE = 2.0  # distance beyond an opponent's range that is kept, units of length
_MARGIN = 1.5  # likewise, from the border


class NearestPolicy:
    """Each unit attacks the nearest opponent in range, or goes towards the nearest, wherever that is.

    Where enemies are agents too, both sides play so.

    Args:
        env: The environment to act in.
    """

    _focus = False

    def __init__(self, env: BatchedEnv[SkirmishConfig, SkirmishState]) -> None:
        self.env = env
        self._rules = SkirmishRules.of(env.config)

    def act(self) -> Array:
        """Return int64 actions ``[E, N]``."""
        actions = np.empty((self.env.num_envs, self.env.num_agents), np.int64)
        _act(self.env.arrays, self._rules, self._focus, actions)
        return actions


class FocusPolicy(NearestPolicy):
    """Units attack the weakest opponent in range, no more of them than it takes, and keep out of reach meanwhile.

    A unit takes the opponent in range with the least health of those that the shots of the units before it leave alive,
    or of all where they leave none. Where it cannot shoot in this step, and an opponent of shorter range is near, it
    makes the move that ends farthest from the nearest opponent. Otherwise it does as `NearestPolicy`.
    """

    _focus = True


@njit(cache=True, error_model="numpy")
def _act(state: SkirmishState, rules: SkirmishRules, focus: bool, actions: Array) -> None:
    allies, units = rules.num_allies, state.kind.shape[1]
    left = np.empty(units, np.float32)
    for e in range(actions.shape[0]):
        x, y, alive, kinds = state.position[e, 0], state.position[e, 1], state.alive[e], state.kind[e]
        for j in range(units):
            left[j] = state.health[e, j] + state.shield[e, j]
        for n in range(actions.shape[1]):
            actions[e, n] = STOP
            if not alive[n]:
                continue
            first, end = (0, allies) if n >= allies else (allies, units)  # its opponents
            reach = rules.attack_range[kinds[n]]
            nearest, weakest, hunted = -1, -1, False
            least, lowest = np.inf, np.inf
            for j in range(first, end):
                if not alive[j]:
                    continue
                distance = np.hypot(x[j] - x[n], y[j] - y[n])
                if distance < least:
                    nearest, least = j, distance
                health = left[j] if left[j] > 0 else left[j] + _DOOMED
                if distance < reach and health < lowest:
                    weakest, lowest = j, health
                theirs = rules.attack_range[kinds[j]]
                hunted = hunted or (theirs < reach and distance < theirs + _SAFE)
            if focus and hunted and state.cooldown[e, n] > _LAST_TICK:
                actions[e, n] = _away(x, y, alive, n, first, end, rules.speed[kinds[n]] * TICKS * TICK, rules)
            elif weakest < 0:
                ahead = x[nearest] - x[n] if n < allies else x[n] - x[nearest]
                actions[e, n] = move_along(ahead, y[nearest] - y[n])
            else:
                target = weakest if focus else nearest
                actions[e, n] = FIRST_ATTACK + target - first
                if state.cooldown[e, n] <= 0:
                    left[target] -= rules.attack[kinds[n]]


@njit(cache=True, error_model="numpy")
def _away(
    x: Array, y: Array, alive: Array, n: int, first: int, end: int, way: float, rules: SkirmishRules
) -> int:
    """Return the move that leads a unit farthest from its nearest opponent; none that leads to the border.

    Opponents are the units from ``first`` to ``end - 1``; the move is as the unit's side sees it.
    """
    farthest, action = 0.0, STOP
    for move in range(STOP):
        there = mirrored(move) if n >= rules.num_allies else move
        to_x, to_y = x[n] + way * _MOVES[there, 0], y[n] + way * _MOVES[there, 1]
        if min(to_x, to_y, rules.width - to_x, rules.height - to_y) < _MARGIN:
            continue
        nearest = np.inf
        for j in range(first, end):
            if alive[j]:
                nearest = min(nearest, np.hypot(x[j] - to_x, y[j] - to_y))
        if nearest > farthest:
            farthest, action = nearest, move
    return action

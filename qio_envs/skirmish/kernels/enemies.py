"""What the enemy does: SMAX's heuristic."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import below
from qio_envs.skirmish.config import FIRST_ATTACK, STOP
from qio_envs.skirmish.state import SkirmishRules, SkirmishState

CHASE = 4  # stream of random numbers


@njit(cache=True, error_model="numpy")
def command_enemies(state: SkirmishState, rules: SkirmishRules, orders: Array) -> None:
    """Choose what enemies do, as SMAX's heuristic with ``attack_mode="closest"``, and what they remember.

    An enemy goes on shooting at what it shot at last while that is in range; otherwise it shoots at the nearest ally in
    range, otherwise it goes towards one of the allies that it sees, drawn anew in each step, or where there is none to
    its goal. Numbers go through the observation's units and back, as in SMAX, where the heuristic sees observations.

    Args:
        state: ``target`` is written.
        rules: What holds.
        orders: Actions, int64 ``[E, M]``, are written; `STOP` for the dead.
    """
    allies, width, height = rules.num_allies, np.float32(rules.width), np.float32(rules.height)
    dx, dy = np.empty(allies, np.float32), np.empty(allies, np.float32)
    for e in range(orders.shape[0]):
        x, y, alive = state.position[e, 0], state.position[e, 1], state.alive[e]
        for m in range(orders.shape[1]):
            u = allies + m
            if not alive[u]:
                orders[e, m] = STOP
                continue
            sight, reach = rules.sight_range[state.kind[e, u]], rules.attack_range[state.kind[e, u]]
            last, keeps, seen = state.target[e, m], False, 0
            nearest, least = -1, reach * reach
            for k in range(allies):  # allies from the last to the first, as enemies count them
                j = allies - 1 - k
                if not alive[j]:
                    continue
                away_x, away_y = x[j] - x[u], y[j] - y[u]
                if away_x * away_x + away_y * away_y >= sight * sight:
                    continue
                away_x, away_y = away_x / sight * sight, away_y / sight * sight
                dx[seen], dy[seen] = away_x, away_y
                seen += 1
                square = away_x * away_x + away_y * away_y
                if square < reach * reach:
                    keeps = keeps or k == last
                    if square < least:
                        nearest, least = k, square
            if not keeps:
                state.target[e, m] = nearest
            if nearest >= 0:
                orders[e, m] = FIRST_ATTACK + state.target[e, m]
                continue
            own_x, own_y = x[u] / width * width, y[u] / height * height
            if seen > 0:
                chosen = below(seen, m, state.step[e], state.episode[e], CHASE, state.seed[e])
                away_x, away_y = dx[chosen] + own_x - own_x, dy[chosen] + own_y - own_y
            else:
                away_x, away_y = state.goal[e, m, 0] - own_x, state.goal[e, m, 1] - own_y
            orders[e, m] = move_along(away_x, away_y)


@njit(cache=True)
def move_along(x: float, y: float) -> int:
    """Return the move nearest a direction, of equally near ones the first."""
    best, action = y, 0
    if x > best:
        best, action = x, 1
    if -y > best:
        best, action = -y, 2
    if -x > best:
        action = 3
    return action

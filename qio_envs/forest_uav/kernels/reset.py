"""The start of an episode: obstacles, vegetation and the UAVs' cells."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import below, uniform
from qio_envs.forest_uav.config import COARSE
from qio_envs.forest_uav.state import ForestRules, ForestState

VEGETATION, OBSTACLES, STARTS = 0, 1, 2  # streams of random numbers; 3 is the radio's
_RING = np.array([[-1, -1], [-1, 0], [-1, 1], [0, 1], [1, 1], [1, 0], [1, -1], [0, -1]], np.int64)


@njit(cache=True, error_model="numpy")
def _keeps_connected(blocked: Array, row: int, column: int) -> bool:
    """Whether blocking a cell leaves its free neighbours joined within the ring of eight cells around it.

    Sufficient for the free cells to stay 4-connected: a path through the cell can go around it.
    """
    height, width = blocked.shape
    free = np.zeros(8, np.bool_)
    for k in range(8):
        i, j = row + _RING[k, 0], column + _RING[k, 1]
        free[k] = 0 <= i < height and 0 <= j < width and not blocked[i, j]
    runs = 0  # runs of free ring cells that hold at least one 4-neighbour (odd k)
    if free.all():
        return True
    start = 0
    while free[start]:
        start += 1
    touches = False
    for step in range(1, 9):
        k = (start + step) % 8
        if free[k]:
            touches = touches or k % 2 == 1
        else:
            runs += touches
            touches = False
    return runs <= 1


@njit(cache=True, error_model="numpy")
def reset(mask: Array, state: ForestState, rules: ForestRules) -> None:
    """Draw a forest and distinct start cells where ``mask`` (bool ``[E]``) is true.

    All but seed, episode and step is written anew. Loops rather than array expressions: they compile several times
    faster.
    """
    seed, episode, radius = state.seed, state.episode, rules.radius
    vegetation, blocked, monitored, occupancy = (
        state.vegetation,
        state.blocked,
        state.monitored,
        state.occupancy,
    )
    position, belief, coarse = state.position, state.belief, state.coarse
    block_of_row, block_of_column = rules.block_of_row, rules.block_of_column
    num_envs, agents = position.shape[0], position.shape[1]
    height, width = block_of_row.shape[0], block_of_column.shape[0]
    cells, columns = height * width, occupancy.shape[2]
    order = np.empty(cells, np.int64)
    ground = np.empty((height, width), np.uint8)  # obstacles without margin
    for e in range(num_envs):
        if not mask[e]:
            continue
        for k in range(cells):
            order[k] = k
            ground[k // width, k % width] = 0
        placed = 0
        if rules.num_obstacles > 0:
            for k in range(cells):
                pick = k + below(cells - k, k, 0, episode[e], OBSTACLES, seed[e])
                order[k], order[pick] = order[pick], order[k]
                row, column = order[k] // width, order[k] % width
                if placed < rules.num_obstacles and _keeps_connected(ground, row, column):
                    ground[row, column] = 1
                    placed += 1
        state.free_count[e] = cells - placed
        for k in range(blocked.shape[1]):
            blocked[e, k] = 255
            monitored[e, k] = 0
            belief[e, 0, k] = 0
        for i in range(occupancy.shape[1]):
            for j in range(columns):
                occupancy[e, i, j] = 0
                vegetation[e, i, j] = 0
        free_cells = 0
        for k in range(COARSE * COARSE):
            coarse[e, 0, k] = 0
        for k in range(cells):
            row, column = k // width, k % width
            cell = (radius + row) * columns + radius + column
            vegetation[e, radius + row, radius + column] = uniform(k, 0, episode[e], VEGETATION, seed[e])
            if not ground[row, column]:
                order[free_cells] = k
                free_cells += 1
                blocked[e, cell >> 3] ^= 1 << (cell & 7)
                belief[e, 0, cell >> 3] |= 1 << (cell & 7)
                coarse[e, 0, block_of_row[row] * COARSE + block_of_column[column]] += 1
        for n in range(1, agents):
            for k in range(blocked.shape[1]):
                belief[e, n, k] = belief[e, 0, k]
            for k in range(COARSE * COARSE):
                coarse[e, n, k] = coarse[e, 0, k]
        for n in range(agents):
            pick = n + below(free_cells - n, n, 0, episode[e], STARTS, seed[e])
            order[n], order[pick] = order[pick], order[n]
            row, column = order[n] // width, order[n] % width
            position[e, n, 0], position[e, n, 1] = row, column
            occupancy[e, radius + row, radius + column] += 1
            for other in range(agents):
                state.heard_block[e, n, other] = 0
                state.heard_step[e, n, other] = -1
        state.monitored_count[e] = 0
        state.collisions[e] = 0
        state.messages[e] = 0
        state.team_reward[e] = 0
        state.team_return[e] = 0
        for k in range(state.milestones.shape[1]):
            state.milestones[e, k] = -1

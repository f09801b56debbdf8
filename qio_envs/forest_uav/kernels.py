"""Numba kernels of the UAV forest; each loops over the copies of a batch.

Maps carry a margin of ``r`` (the sensing radius) cells on every side, so that a crop never needs a border check:
there, a cell is blocked, without vegetation, and nobody believes it unmonitored. On the right the margin goes on to
the next multiple of eight columns, so that belief maps can be joined eight cells at a time. Positions are without
margin. The NumPy error model spares the check before each division; no divisor here can be zero.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api.random import below, uniform
from qio_envs.forest_uav.config import COARSE

VEGETATION, OBSTACLES, STARTS, RADIO = 0, 1, 2, 3  # streams of random numbers
TEAM, LOCAL, DIFFERENCE = 0, 1, 2  # reward modes, in the order of ForestConfig.reward
MILESTONES = np.array([90, 95])  # per cent of coverage whose first step is reported
MOVES = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], np.int64)  # stay, up, down, left, right
_RING = np.array([[-1, -1], [-1, 0], [-1, 1], [0, 1], [1, 1], [1, 0], [1, -1], [0, -1]], np.int64)


@njit(cache=True, error_model="numpy")
def _keeps_connected(blocked: np.ndarray, row: int, column: int) -> bool:
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
def reset(
    mask,
    seed,
    episode,
    radius,
    num_obstacles,
    vegetation,
    blocked,
    monitored,
    occupancy,
    position,
    belief,
    coarse,
    block_of_row,
    block_of_column,
    heard_position,
    heard_step,
    free_count,
):
    """Draw a forest and distinct start cells in the copies of ``mask``; every map is written anew."""
    copies, agents = position.shape[0], position.shape[1]
    height, width = block_of_row.shape[0], block_of_column.shape[0]
    cells = height * width
    order = np.empty(cells, np.int64)
    for e in range(copies):
        if not mask[e]:
            continue
        for i in range(height):
            for j in range(width):
                vegetation[e, radius + i, radius + j] = uniform(
                    i * width + j, 0, episode[e], VEGETATION, seed[e]
                )
        blocked[e] = 1
        ground = blocked[e, radius : radius + height, radius : radius + width]
        ground[:] = 0
        placed = 0
        if num_obstacles > 0:
            for k in range(cells):
                order[k] = k
            for k in range(cells):
                pick = k + below(cells - k, k, 0, episode[e], OBSTACLES, seed[e])
                order[k], order[pick] = order[pick], order[k]
                row, column = order[k] // width, order[k] % width
                if placed < num_obstacles and _keeps_connected(ground, row, column):
                    ground[row, column] = 1
                    placed += 1
        free_count[e] = cells - placed
        monitored[e] = 0
        occupancy[e] = 0
        free = 0
        for k in range(cells):
            if not ground[k // width, k % width]:
                order[free] = k
                free += 1
        for n in range(agents):
            pick = n + below(free - n, n, 0, episode[e], STARTS, seed[e])
            order[n], order[pick] = order[pick], order[n]
            position[e, n, 0] = order[n] // width
            position[e, n, 1] = order[n] % width
            occupancy[e, radius + position[e, n, 0], radius + position[e, n, 1]] += 1
        belief[e, 0] = 1 - blocked[e]
        coarse[e, 0] = 0
        for i in range(height):
            for j in range(width):
                coarse[e, 0, block_of_row[i] * COARSE + block_of_column[j]] += 1 - ground[i, j]
        for n in range(1, agents):
            belief[e, n] = belief[e, 0]
            coarse[e, n] = coarse[e, 0]
        heard_position[e] = -1
        heard_step[e] = -1


@njit(cache=True, error_model="numpy")
def step(
    actions,
    seed,
    episode,
    clock,
    radius,
    reward_mode,
    cell_reward,
    collision_penalty,
    comm_budget,
    comm_range,
    comm_loss,
    blocked,
    free_count,
    monitored,
    occupancy,
    position,
    belief,
    coarse,
    block_of_row,
    block_of_column,
    heard_position,
    heard_step,
    monitored_count,
    milestones,
    collisions,
    messages,
    team_reward,
    rewards,
    sent_belief,
):
    """Move, monitor, credit, sense and exchange, in that order; ``clock`` is the step that is being made."""
    copies, agents = position.shape[0], position.shape[1]
    height, width = block_of_row.shape[0], block_of_column.shape[0]
    for e in range(copies):
        for n in range(agents):
            row, column = position[e, n, 0], position[e, n, 1]
            to_row, to_column = row + MOVES[actions[e, n], 0], column + MOVES[actions[e, n], 1]
            inside = 0 <= to_row < height and 0 <= to_column < width
            if inside and not blocked[e, radius + to_row, radius + to_column]:
                occupancy[e, radius + row, radius + column] -= 1
                occupancy[e, radius + to_row, radius + to_column] += 1
                position[e, n, 0] = to_row
                position[e, n, 1] = to_column
        _credit(
            e,
            radius,
            clock,
            reward_mode,
            cell_reward,
            collision_penalty,
            free_count,
            monitored,
            occupancy,
            position,
            monitored_count,
            milestones,
            collisions,
            team_reward,
            rewards,
        )
        _sense(e, radius, monitored, position, belief, coarse, block_of_row, block_of_column)
        # The budget is exact: after t steps there have been floor(t * budget) exchanges.
        if np.floor(clock[e] * comm_budget + 1e-9) > np.floor((clock[e] - 1) * comm_budget + 1e-9):
            _exchange(
                e,
                seed[e],
                episode[e],
                clock[e],
                radius,
                comm_range,
                comm_loss,
                position,
                belief,
                coarse,
                block_of_row,
                block_of_column,
                heard_position,
                heard_step,
                messages,
                sent_belief,
            )


@njit(cache=True, error_model="numpy")
def _credit(
    e,
    radius,
    clock,
    reward_mode,
    cell_reward,
    collision_penalty,
    free_count,
    monitored,
    occupancy,
    position,
    monitored_count,
    milestones,
    collisions,
    team_reward,
    rewards,
):
    agents = position.shape[1]
    new_cells = 0
    crowded_cells = 0
    for n in range(agents):
        row, column = radius + position[e, n, 0], radius + position[e, n, 1]
        share = occupancy[e, row, column]
        new = monitored[e, row, column] == 0
        first = True  # the first UAV of its cell counts the cell
        if share > 1:
            for other in range(n):
                if position[e, other, 0] == position[e, n, 0] and position[e, other, 1] == position[e, n, 1]:
                    first = False
                    break
        if first:
            new_cells += new
            crowded_cells += share > 1
        if reward_mode == LOCAL:
            rewards[e, n] = (cell_reward * new - collision_penalty * (share > 1)) / share
        elif reward_mode == DIFFERENCE:
            rewards[e, n] = cell_reward * (new and share == 1) - collision_penalty * (share == 2)
    team = cell_reward * new_cells - collision_penalty * crowded_cells
    for n in range(agents):
        monitored[e, radius + position[e, n, 0], radius + position[e, n, 1]] = 1
        if reward_mode == TEAM:
            rewards[e, n] = team
    monitored_count[e] += new_cells
    for k in range(MILESTONES.shape[0]):
        if milestones[e, k] < 0 and 100 * monitored_count[e] >= MILESTONES[k] * free_count[e]:
            milestones[e, k] = clock[e]
    collisions[e] += crowded_cells
    team_reward[e] = team


@njit(cache=True, error_model="numpy")
def _sense(e, radius, monitored, position, belief, coarse, block_of_row, block_of_column):
    """Every UAV learns which cells of its crop are monitored."""
    side = 2 * radius + 1
    for n in range(position.shape[1]):
        # With margin, the crop starts at the bare position; views keep the inner loops free of index checks.
        top, left = position[e, n, 0], position[e, n, 1]
        believed = belief[e, n, top : top + side, left : left + side]
        true = monitored[e, top : top + side, left : left + side]
        news = np.uint8(0)
        for i in range(side):
            for j in range(side):
                news |= believed[i, j] & true[i, j]
        if news:
            for i in range(side):
                for j in range(side):
                    if believed[i, j] & true[i, j]:
                        believed[i, j] = 0
                        block = block_of_row[top + i - radius] * COARSE + block_of_column[left + j - radius]
                        coarse[e, n, block] -= 1


@njit(cache=True, error_model="numpy")
def _exchange(
    e,
    seed,
    episode,
    clock,
    radius,
    comm_range,
    comm_loss,
    position,
    belief,
    coarse,
    block_of_row,
    block_of_column,
    heard_position,
    heard_step,
    messages,
    sent_belief,
):
    """All UAVs send belief and position at once; what is received changes nothing of what is being sent."""
    agents, height = position.shape[1], block_of_row.shape[0]
    sent_belief[:] = belief[e]
    sent_words, words = sent_belief.view(np.uint64), belief[e].view(np.uint64)
    for n in range(agents):
        for other in range(agents):
            if other == n:
                continue
            rows = position[e, n, 0] - position[e, other, 0]
            columns = position[e, n, 1] - position[e, other, 1]
            if rows * rows + columns * columns > comm_range * comm_range:
                continue
            messages[e] += 1
            if comm_loss > 0 and uniform(other * agents + n, clock, episode, RADIO, seed) < comm_loss:
                continue
            heard_position[e, n, other, 0] = position[e, other, 0]
            heard_position[e, n, other, 1] = position[e, other, 1]
            heard_step[e, n, other] = clock
            mine, theirs = words[n].reshape(-1), sent_words[other].reshape(-1)
            for k in range(mine.shape[0]):
                mine[k] &= theirs[k]
        for i in range(height):
            for k in range(words.shape[2]):
                if words[n, radius + i, k] != sent_words[n, radius + i, k]:
                    # Beyond the map nothing is ever believed unmonitored, so that only columns of the map differ.
                    for column in range(8 * k, 8 * k + 8):
                        if belief[e, n, radius + i, column] != sent_belief[n, radius + i, column]:
                            coarse[e, n, block_of_row[i] * COARSE + block_of_column[column - radius]] -= 1


@njit(cache=True, error_model="numpy")
def observe(
    clock,
    radius,
    max_steps,
    vegetation,
    blocked,
    occupancy,
    position,
    belief,
    coarse,
    block_size,
    block_of_row,
    block_of_column,
    heard_position,
    heard_step,
    out,
):
    """Write every observation, float32 ``[E, N, D]``, in the order of ``ForestConfig.observation_layout``."""
    copies, agents = position.shape[0], position.shape[1]
    side = 2 * radius + 1
    cells = side * side
    blocks = COARSE * COARSE
    last_row, last_column = np.float32(block_of_row.shape[0] - 1), np.float32(block_of_column.shape[0] - 1)
    others = np.float32(max(agents - 1, 1))  # divide by it: a product with 1 / others can round above 1
    pooled = 4 * cells
    heard = pooled + blocks
    tail = heard + blocks
    for e in range(copies):
        time_left = np.float32(1.0) - np.float32(clock[e]) / np.float32(max_steps)
        for n in range(agents):
            row = out[e, n]
            top, left = position[e, n, 0], position[e, n, 1]
            seen_belief = belief[e, n, top : top + side, left : left + side]
            seen_vegetation = vegetation[e, top : top + side, left : left + side]
            seen_uavs = occupancy[e, top : top + side, left : left + side]
            seen_blocked = blocked[e, top : top + side, left : left + side]
            for i in range(side):
                start = i * side
                for j in range(side):
                    row[start + j] = seen_belief[i, j]
                    row[cells + start + j] = seen_vegetation[i, j]
                    row[2 * cells + start + j] = seen_uavs[i, j] / others
                    row[3 * cells + start + j] = seen_blocked[i, j]
            own = 2 * cells + radius * side + radius
            row[own] = (occupancy[e, top + radius, left + radius] - 1) / others
            for k in range(blocks):
                row[pooled + k] = coarse[e, n, k] / block_size[k]
                row[heard + k] = 0
            for other in range(agents):
                when = heard_step[e, n, other]
                if when >= 0:
                    block = (
                        block_of_row[heard_position[e, n, other, 0]] * COARSE
                        + block_of_column[heard_position[e, n, other, 1]]
                    )
                    fresh = np.float32(1.0) / (others * np.float32(1 + clock[e] - when))
                    row[heard + block] = min(row[heard + block] + fresh, np.float32(1.0))
            row[tail] = np.float32(top) / last_row
            row[tail + 1] = np.float32(left) / last_column
            row[tail + 2] = time_left


@njit(cache=True, error_model="numpy")
def action_mask(radius, height, width, blocked, position, out):
    """Write int8 ``[E, N, 5]``: 0 where the move leads off the map or into an obstacle."""
    for e in range(position.shape[0]):
        for n in range(position.shape[1]):
            for action in range(MOVES.shape[0]):
                row = position[e, n, 0] + MOVES[action, 0]
                column = position[e, n, 1] + MOVES[action, 1]
                inside = 0 <= row < height and 0 <= column < width
                out[e, n, action] = inside and not blocked[e, radius + row, radius + column]

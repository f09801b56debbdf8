"""Numba kernels of the UAV forest; each loops over the copies of a batch.

Maps carry a margin of ``r`` (the sensing radius) cells on every side, so that a crop never needs a border
check: there, a cell is blocked, without vegetation, and nobody believes it unmonitored. On the right the
margin goes on to the next multiple of eight columns, so that belief maps can be joined eight cells at a
time. Positions are without margin.

The kernels of a step see the maps as flat arrays and index them by unsigned integers, which spares the test
for negative indices; a *cell* is an index into one map, a *base* the start of a copy's or UAV's map. The
NumPy error model spares the check before each division; no divisor here can be zero.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import below, uniform
from qio_envs.forest_uav.config import COARSE

VEGETATION, OBSTACLES, STARTS, RADIO = 0, 1, 2, 3  # streams of random numbers
TEAM, LOCAL, DIFFERENCE = 0, 1, 2  # reward modes, in the order of ForestConfig.reward
MILESTONES = np.array([90, 95])  # per cent of coverage whose first step is reported
MOVES = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], np.int64)  # stay, up, down, left, right
_RING = np.array([[-1, -1], [-1, 0], [-1, 1], [0, 1], [1, 1], [1, 0], [1, -1], [0, -1]], np.int64)
_USUAL_SIDE = np.uintp(
    5
)  # crops of the default radius have loops of their own, which compile to straight code


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
def reset(
    mask: Array,
    seed: Array,
    episode: Array,
    radius: int,
    num_obstacles: int,
    vegetation: Array,
    blocked: Array,
    monitored: Array,
    occupancy: Array,
    position: Array,
    belief: Array,
    coarse: Array,
    block_of_row: Array,
    block_of_column: Array,
    heard_position: Array,
    heard_step: Array,
    free_count: Array,
) -> None:
    """Draw a forest and distinct start cells in the copies of ``mask``; every map is written anew.

    Loops rather than array expressions: they compile several times faster.
    """
    copies, agents = position.shape[0], position.shape[1]
    height, width = block_of_row.shape[0], block_of_column.shape[0]
    cells = height * width
    order = np.empty(cells, np.int64)
    ground = np.empty((height, width), np.uint8)  # obstacles without margin
    for e in range(copies):
        if not mask[e]:
            continue
        for k in range(cells):
            order[k] = k
            ground[k // width, k % width] = 0
        placed = 0
        if num_obstacles > 0:
            for k in range(cells):
                pick = k + below(cells - k, k, 0, episode[e], OBSTACLES, seed[e])
                order[k], order[pick] = order[pick], order[k]
                row, column = order[k] // width, order[k] % width
                if placed < num_obstacles and _keeps_connected(ground, row, column):
                    ground[row, column] = 1
                    placed += 1
        free_count[e] = cells - placed
        for i in range(blocked.shape[1]):
            for j in range(blocked.shape[2]):
                row, column = i - radius, j - radius
                inside = 0 <= row < height and 0 <= column < width
                free = inside and not ground[row, column]
                blocked[e, i, j] = not free
                monitored[e, i, j] = 0
                occupancy[e, i, j] = 0
                vegetation[e, i, j] = 0
                if inside:
                    vegetation[e, i, j] = uniform(row * width + column, 0, episode[e], VEGETATION, seed[e])
                for n in range(agents):
                    belief[e, n, i, j] = free
        free_cells = 0
        for n in range(agents):
            for k in range(COARSE * COARSE):
                coarse[e, n, k] = 0
        for k in range(cells):
            row, column = k // width, k % width
            if not ground[row, column]:
                order[free_cells] = k
                free_cells += 1
                for n in range(agents):
                    coarse[e, n, block_of_row[row] * COARSE + block_of_column[column]] += 1
        for n in range(agents):
            pick = n + below(free_cells - n, n, 0, episode[e], STARTS, seed[e])
            order[n], order[pick] = order[pick], order[n]
            row, column = order[n] // width, order[n] % width
            position[e, n, 0], position[e, n, 1] = row, column
            occupancy[e, radius + row, radius + column] += 1
            for other in range(agents):
                heard_position[e, n, other, 0] = -1
                heard_position[e, n, other, 1] = -1
                heard_step[e, n, other] = -1


@njit(cache=True, error_model="numpy")
def step(
    actions: Array,
    seed: Array,
    episode: Array,
    clock: Array,
    running: Array,
    max_steps: int,
    radius: int,
    reward_mode: int,
    cell_reward: float,
    collision_penalty: float,
    comm_budget: float,
    comm_range: float,
    comm_loss: float,
    blocked: Array,
    free_count: Array,
    monitored: Array,
    occupancy: Array,
    position: Array,
    belief: Array,
    coarse: Array,
    block_of_row: Array,
    block_of_column: Array,
    heard_position: Array,
    heard_step: Array,
    monitored_count: Array,
    milestones: Array,
    collisions: Array,
    messages: Array,
    team_reward: Array,
    team_return: Array,
    rewards: Array,
    truncated: Array,
) -> None:
    """Advance the clock, then move, monitor, credit, sense and exchange, in that order."""
    copies, agents = position.shape[0], position.shape[1]
    height, width = block_of_row.shape[0], block_of_column.shape[0]
    columns = blocked.shape[2]
    map_size = np.uintp(blocked.shape[1] * columns)
    flat_blocked, flat_monitored = blocked.reshape(-1), monitored.reshape(-1)
    flat_occupancy, flat_belief = occupancy.reshape(-1), belief.reshape(-1)
    cell_of = np.empty(agents, np.uintp)  # where each UAV is
    for e in range(copies):
        clock[e] += 1
        base = np.uintp(e) * map_size
        for n in range(agents):
            row, column = np.int64(position[e, n, 0]), np.int64(position[e, n, 1])
            cell = np.uintp((radius + row) * columns + radius + column)
            action = np.uintp(actions[e, n])
            row, column = row + MOVES[action, 0], column + MOVES[action, 1]
            if 0 <= row < height and 0 <= column < width:
                target = np.uintp((radius + row) * columns + radius + column)
                if not flat_blocked[base + target]:
                    flat_occupancy[base + cell] -= 1
                    flat_occupancy[base + target] += 1
                    position[e, n, 0] = row
                    position[e, n, 1] = column
                    cell = target
            cell_of[n] = cell

        new_cells, crowded_cells = _credit(
            cell_of,
            base,
            reward_mode,
            cell_reward,
            collision_penalty,
            flat_monitored,
            flat_occupancy,
            rewards[e],
        )
        team_reward[e] = cell_reward * new_cells - collision_penalty * crowded_cells
        team_return[e] += team_reward[e]
        collisions[e] += crowded_cells
        monitored_count[e] += new_cells
        for k in range(MILESTONES.shape[0]):
            if milestones[e, k] < 0 and 100 * monitored_count[e] >= MILESTONES[k] * free_count[e]:
                milestones[e, k] = clock[e]

        for n in range(agents):
            corner = cell_of[n] - np.uintp(radius * (columns + 1))
            own = np.uintp(e * agents + n) * map_size
            if _sees_news(flat_belief, own + corner, flat_monitored, base + corner, radius, columns):
                _sense(e, n, radius, monitored, position, belief, coarse, block_of_row, block_of_column)

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
            )
        running[e] = clock[e] < max_steps
        for n in range(agents):
            truncated[e, n] = not running[e]


@njit(cache=True, error_model="numpy")
def _credit(
    cell_of: Array,
    base: int,
    reward_mode: int,
    cell_reward: float,
    collision_penalty: float,
    monitored: Array,
    occupancy: Array,
    rewards: Array,
) -> tuple[int, int]:
    """Monitor the cells of one copy's UAVs, write their rewards, count new and crowded cells."""
    agents = cell_of.shape[0]
    new_cells = 0
    crowded_cells = 0
    for n in range(agents):
        cell = base + cell_of[n]
        share = occupancy[cell]
        new = monitored[cell] == 0
        first = True  # the first UAV of its cell counts the cell
        if share > 1:
            for other in range(n):
                if cell_of[other] == cell_of[n]:
                    first = False
                    break
        if first:
            new_cells += new
            crowded_cells += share > 1
        if reward_mode == LOCAL:
            rewards[n] = (cell_reward * new - collision_penalty * (share > 1)) / share
        elif reward_mode == DIFFERENCE:
            rewards[n] = cell_reward * (new and share == 1) - collision_penalty * (share == 2)
    team = cell_reward * new_cells - collision_penalty * crowded_cells
    for n in range(agents):
        monitored[base + cell_of[n]] = 1
        if reward_mode == TEAM:
            rewards[n] = team
    return new_cells, crowded_cells


@njit(cache=True, error_model="numpy", forceinline=True)
def _sees_news(belief: Array, believed: int, monitored: Array, true: int, radius: int, columns: int) -> bool:
    """Whether a crop (by its first cell in either flat array) holds a monitored cell believed not to be."""
    side, stride = np.uintp(2 * radius + 1), np.uintp(columns)
    news = np.uint8(0)
    for i in range(side):
        for j in range(side):
            news |= belief[believed + i * stride + j] & monitored[true + i * stride + j]
    return news != 0


@njit(cache=True, error_model="numpy")
def _sense(
    e: int,
    n: int,
    radius: int,
    monitored: Array,
    position: Array,
    belief: Array,
    coarse: Array,
    block_of_row: Array,
    block_of_column: Array,
) -> None:
    """A UAV learns which cells of its crop are monitored."""
    side = 2 * radius + 1
    top, left = position[e, n, 0], position[e, n, 1]  # with margin, the crop starts at the bare position
    for i in range(top, top + side):
        for j in range(left, left + side):
            if belief[e, n, i, j] & monitored[e, i, j]:
                belief[e, n, i, j] = 0
                coarse[e, n, block_of_row[i - radius] * COARSE + block_of_column[j - radius]] -= 1


@njit(cache=True, error_model="numpy")
def _exchange(
    e: int,
    seed: int,
    episode: int,
    clock: int,
    radius: int,
    comm_range: float,
    comm_loss: float,
    position: Array,
    belief: Array,
    coarse: Array,
    block_of_row: Array,
    block_of_column: Array,
    heard_position: Array,
    heard_step: Array,
    messages: Array,
) -> None:
    """All UAVs send belief and position at once; what is received changes nothing of what is being sent."""
    agents = position.shape[1]
    sent = belief[e].copy()
    received = belief[e].view(np.uint64).reshape(agents, -1)
    words = sent.view(np.uint64).reshape(agents, -1)  # eight cells each
    if comm_range == np.inf and comm_loss == 0:  # everybody hears everybody: one joint map for all
        for n in range(1, agents):
            _join(received[0], words[n])
        _recount(radius, belief[e, 0], sent[0], coarse[e, 0], block_of_row, block_of_column)
        for n in range(agents):
            for k in range(received.shape[1]):
                received[n, k] = received[0, k]
            for k in range(coarse.shape[2]):
                coarse[e, n, k] = coarse[e, 0, k]
            for other in range(agents):
                if other != n:
                    heard_position[e, n, other, 0] = position[e, other, 0]
                    heard_position[e, n, other, 1] = position[e, other, 1]
                    heard_step[e, n, other] = clock
        messages[e] += agents * (agents - 1)
        return
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
            _join(received[n], words[other])
        _recount(radius, belief[e, n], sent[n], coarse[e, n], block_of_row, block_of_column)


@njit(cache=True, error_model="numpy")
def _join(mine: Array, theirs: Array) -> None:
    """Believe unmonitored only what both do."""
    for k in range(mine.shape[0]):
        mine[k] &= theirs[k]


@njit(cache=True, error_model="numpy")
def _recount(
    radius: int, belief: Array, before: Array, coarse: Array, block_of_row: Array, block_of_column: Array
) -> None:
    """Take the cells in which a belief has changed off the coarse counts."""
    words, words_before = belief.view(np.uint64), before.view(np.uint64)
    for i in range(block_of_row.shape[0]):
        for k in range(words.shape[1]):
            if words[radius + i, k] != words_before[radius + i, k]:
                # Beyond the map nothing is ever believed unmonitored, so that only columns of the map differ.
                for column in range(8 * k, 8 * k + 8):
                    if belief[radius + i, column] != before[radius + i, column]:
                        coarse[block_of_row[i] * COARSE + block_of_column[column - radius]] -= 1


@njit(cache=True, error_model="numpy")
def observe(
    clock: Array,
    radius: int,
    max_steps: int,
    vegetation: Array,
    blocked: Array,
    occupancy: Array,
    position: Array,
    belief: Array,
    coarse: Array,
    block_size: Array,
    block_of_row: Array,
    block_of_column: Array,
    heard_position: Array,
    heard_step: Array,
    out: Array,
) -> None:
    """Write every observation, float32 ``[E, N, D]``, in the order of ``ForestConfig.observation_layout``."""
    copies, agents = position.shape[0], position.shape[1]
    side, columns = np.uintp(2 * radius + 1), np.uintp(blocked.shape[2])
    map_size = np.uintp(blocked.shape[1]) * columns
    blocks = np.uintp(COARSE * COARSE)
    pooled = np.uintp(4) * side * side
    heard = pooled + blocks
    tail = heard + blocks
    last_row, last_column = np.float32(block_of_row.shape[0] - 1), np.float32(block_of_column.shape[0] - 1)
    others = np.float32(max(agents - 1, 1))  # divide by it: a product with 1 / others can round above 1
    flat_vegetation, flat_blocked = vegetation.reshape(-1), blocked.reshape(-1)
    flat_occupancy, flat_belief = occupancy.reshape(-1), belief.reshape(-1)
    flat_coarse, flat_out = coarse.reshape(-1), out.reshape(-1)
    for e in range(copies):
        time_left = np.float32(1.0) - np.float32(clock[e]) / np.float32(max_steps)
        base = np.uintp(e) * map_size
        for n in range(agents):
            uav = np.uintp(e * agents + n)
            start = uav * np.uintp(out.shape[2])
            top, left = position[e, n, 0], position[e, n, 1]
            corner = np.uintp(top) * columns + np.uintp(left)  # with margin, the crop starts here
            if side == _USUAL_SIDE:
                _crop(
                    flat_out, start, _USUAL_SIDE, columns, corner + base, corner + uav * map_size, others,
                    flat_belief, flat_vegetation, flat_occupancy, flat_blocked,
                )  # fmt: skip
            else:
                _crop(
                    flat_out, start, side, columns, corner + base, corner + uav * map_size, others,
                    flat_belief, flat_vegetation, flat_occupancy, flat_blocked,
                )  # fmt: skip
            for k in range(blocks):
                flat_out[start + pooled + k] = np.float32(flat_coarse[uav * blocks + k]) / block_size[k]
                flat_out[start + heard + k] = 0
            for other in range(agents):
                when = heard_step[e, n, other]
                if when >= 0:
                    block = np.uintp(
                        block_of_row[heard_position[e, n, other, 0]] * COARSE
                        + block_of_column[heard_position[e, n, other, 1]]
                    )
                    fresh = np.float32(1.0) / (others * np.float32(1 + clock[e] - when))
                    place = start + heard + block
                    flat_out[place] = min(flat_out[place] + fresh, np.float32(1.0))
            flat_out[start + tail] = np.float32(top) / last_row
            flat_out[start + tail + np.uintp(1)] = np.float32(left) / last_column
            flat_out[start + tail + np.uintp(2)] = time_left


@njit(cache=True, error_model="numpy", forceinline=True)
def _crop(
    out: Array,
    start: int,
    side: int,
    columns: int,
    true: int,
    believed: int,
    others: float,
    belief: Array,
    vegetation: Array,
    occupancy: Array,
    blocked: Array,
) -> None:
    """Write the four crops of one UAV; ``true`` and ``believed`` are the crop's first cell in flat maps."""
    cells = side * side
    second, third, fourth = start + cells, start + np.uintp(2) * cells, start + np.uintp(3) * cells
    for i in range(side):
        place, cell = i * side, i * columns  # four short loops: each copies a row of one map
        for j in range(side):
            out[start + place + j] = belief[believed + cell + j]
        for j in range(side):
            out[second + place + j] = vegetation[true + cell + j]
        for j in range(side):
            out[third + place + j] = np.float32(occupancy[true + cell + j]) / others
        for j in range(side):
            out[fourth + place + j] = blocked[true + cell + j]
    middle = cells >> np.uintp(1)
    reach = side >> np.uintp(1)
    out[third + middle] = np.float32(occupancy[true + reach * columns + reach] - 1) / others


@njit(cache=True, error_model="numpy")
def action_mask(radius: int, height: int, width: int, blocked: Array, position: Array, out: Array) -> None:
    """Write int8 ``[E, N, 5]``: 0 where the move leads off the map or into an obstacle."""
    for e in range(position.shape[0]):
        for n in range(position.shape[1]):
            for action in range(MOVES.shape[0]):
                row = position[e, n, 0] + MOVES[action, 0]
                column = position[e, n, 1] + MOVES[action, 1]
                inside = 0 <= row < height and 0 <= column < width
                out[e, n, action] = inside and not blocked[e, radius + row, radius + column]

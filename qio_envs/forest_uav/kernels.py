"""Numba kernels of the UAV forest; each loops over the copies of a batch.

Maps carry a margin of ``r`` (the sensing radius) cells on every side, so that a crop never needs a border
check: there, a cell is blocked, without vegetation, and nobody believes it unmonitored. On the right the
margin goes on to the next multiple of eight columns, and below there is one row more, so that from any cell
of a crop eight can be read. Positions are without margin.

A *cell* is an index into one map, row by row. What is true or false of a cell is one bit: bit ``cell % 8`` of
byte ``cell // 8``. The small maps of a whole batch so stay in the processor's nearest memory, and beliefs are
joined 64 cells at a time.

The kernels of a step see the maps as flat arrays and index them by unsigned integers, which spares the test
for negative indices; a *base* is the start of a copy's or UAV's map. The NumPy error model spares the check
before each division; no divisor here can be zero.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import below, uniform
from qio_envs.forest_uav.config import COARSE
from qio_envs.forest_uav.lanes import LANES, divide, divide_each, spread, word

VEGETATION, OBSTACLES, STARTS, RADIO = 0, 1, 2, 3  # streams of random numbers
TEAM, LOCAL, DIFFERENCE = 0, 1, 2  # reward modes, in the order of ForestConfig.reward
MILESTONES = np.array([90, 95])  # per cent of coverage whose first step is reported
MOVES = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], np.int64)  # stay, up, down, left, right
_RING = np.array([[-1, -1], [-1, 0], [-1, 1], [0, 1], [1, 1], [1, 0], [1, -1], [0, -1]], np.int64)
_BYTE, _IN_BYTE, _ONE = np.uintp(3), np.uintp(7), np.uint64(1)  # byte of a cell, bit in it
_USUAL_SIDE = np.uintp(5)  # crops of the default radius have code of their own, without loops
_WORD = np.uintp(56)  # columns that a word holds from any bit of its first byte onwards


@njit(cache=True, error_model="numpy", forceinline=True)
def _bit(bits: Array, base: int, cell: int) -> bool:
    """Whether a cell of the flat bit map that begins at byte ``base`` is set."""
    return (bits[base + (cell >> _BYTE)] >> (cell & _IN_BYTE)) & np.uintp(1) != 0


@njit(cache=True, error_model="numpy", forceinline=True)
def _lowest(count: int) -> np.uint64:
    """Return a word with its ``count`` lowest bits set, `_WORD` of them at most."""
    return (_ONE << np.uint64(count if count < _WORD else _WORD)) - _ONE


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
    heard_block: Array,
    heard_step: Array,
    free_count: Array,
) -> None:
    """Draw a forest and distinct start cells in the copies of ``mask``; every map is written anew.

    Loops rather than array expressions: they compile several times faster.
    """
    copies, agents = position.shape[0], position.shape[1]
    height, width = block_of_row.shape[0], block_of_column.shape[0]
    cells, columns = height * width, occupancy.shape[2]
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
                heard_block[e, n, other] = 0
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
    heard_block: Array,
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
    columns = occupancy.shape[2]
    map_size, map_bytes = np.uintp(occupancy.shape[1] * columns), np.uintp(blocked.shape[1])
    flat_blocked, flat_monitored = blocked.reshape(-1), monitored.reshape(-1)
    flat_occupancy, flat_belief = occupancy.reshape(-1), belief.reshape(-1)
    side = np.uintp(2 * radius + 1)
    cell_of = np.empty(agents, np.uintp)  # where each UAV is
    for e in range(copies):
        clock[e] += 1
        base, base_byte = np.uintp(e) * map_size, np.uintp(e) * map_bytes
        for n in range(agents):
            row, column = np.int64(position[e, n, 0]), np.int64(position[e, n, 1])
            cell = np.uintp((radius + row) * columns + radius + column)
            action = np.uintp(actions[e, n])
            row, column = row + MOVES[action, 0], column + MOVES[action, 1]
            if 0 <= row < height and 0 <= column < width:
                target = np.uintp((radius + row) * columns + radius + column)
                if not _bit(flat_blocked, base_byte, target):
                    flat_occupancy[base + cell] -= 1
                    flat_occupancy[base + target] += 1
                    position[e, n, 0] = row
                    position[e, n, 1] = column
                    cell = target
            cell_of[n] = cell

        new_cells, crowded_cells = _credit(
            cell_of,
            base,
            base_byte,
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
            own = np.uintp(e * agents + n) * map_bytes
            if side == _USUAL_SIDE:
                news = _sees_news(flat_belief, own, flat_monitored, base_byte, corner, _USUAL_SIDE, columns)
            else:
                news = _sees_news(flat_belief, own, flat_monitored, base_byte, corner, side, columns)
            if news:
                _sense(
                    flat_belief,
                    own,
                    flat_monitored,
                    base_byte,
                    corner,
                    radius,
                    columns,
                    position[e, n],
                    coarse[e, n],
                    block_of_row,
                    block_of_column,
                )

        # The budget is exact: after t steps there have been floor(t * budget) exchanges.
        if np.floor(clock[e] * comm_budget + 1e-9) > np.floor((clock[e] - 1) * comm_budget + 1e-9):
            _exchange(
                e,
                seed[e],
                episode[e],
                clock[e],
                radius,
                columns,
                comm_range,
                comm_loss,
                position,
                belief,
                coarse,
                block_of_row,
                block_of_column,
                heard_block,
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
    base_byte: int,
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
        share = occupancy[base + cell_of[n]]
        new = not _bit(monitored, base_byte, cell_of[n])
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
        monitored[base_byte + (cell_of[n] >> _BYTE)] |= np.uint8(1) << (cell_of[n] & _IN_BYTE)
        if reward_mode == TEAM:
            rewards[n] = team
    return new_cells, crowded_cells


@njit(cache=True, error_model="numpy", forceinline=True)
def _sees_news(
    belief: Array, own: int, monitored: Array, base: int, corner: int, side: int, columns: int
) -> bool:
    """Whether the crop whose first cell is ``corner`` holds a monitored cell believed not to be."""
    row_bytes = np.uintp(columns) >> _BYTE
    news = False
    for j in range(np.uintp(0), side, _WORD):
        byte, found = (corner + j) >> _BYTE, np.uint64(0)
        for _ in range(side):
            found |= word(belief, own + byte) & word(monitored, base + byte)
            byte += row_bytes
        wanted = _lowest(side - j)
        news |= (found >> ((corner + j) & _IN_BYTE)) & wanted != 0
    return news


@njit(cache=True, error_model="numpy")
def _sense(
    belief: Array,
    own: int,
    monitored: Array,
    base: int,
    corner: int,
    radius: int,
    columns: int,
    position: Array,
    coarse: Array,
    block_of_row: Array,
    block_of_column: Array,
) -> None:
    """A UAV learns which cells of its crop are monitored."""
    side, row_bytes = np.uintp(2 * radius + 1), np.uintp(columns) >> _BYTE
    for j in range(np.uintp(0), side, _WORD):
        byte, shift = (corner + j) >> _BYTE, (corner + j) & _IN_BYTE
        wanted = _lowest(side - j)
        for i in range(side):
            found = ((word(belief, own + byte) & word(monitored, base + byte)) >> shift) & wanted
            column: Any = j
            while found:
                if found & _ONE:
                    cell = shift + column - j
                    belief[own + byte + (cell >> _BYTE)] ^= np.uint8(1) << (cell & _IN_BYTE)
                    row_block = block_of_row[np.int64(position[0]) + np.int64(i) - radius]
                    column_block = block_of_column[np.int64(position[1]) + np.int64(column) - radius]
                    coarse[row_block * COARSE + column_block] -= 1
                found >>= _ONE
                column += np.uintp(1)
            byte += row_bytes


@njit(cache=True, error_model="numpy")
def _exchange(
    e: int,
    seed: int,
    episode: int,
    clock: int,
    radius: int,
    columns: int,
    comm_range: float,
    comm_loss: float,
    position: Array,
    belief: Array,
    coarse: Array,
    block_of_row: Array,
    block_of_column: Array,
    heard_block: Array,
    heard_step: Array,
    messages: Array,
) -> None:
    """All UAVs send belief and position at once; what is received changes nothing of what is being sent."""
    agents = position.shape[1]
    sent = belief[e].copy()
    received = belief[e].view(np.uint64).reshape(agents, -1)
    words = sent.view(np.uint64).reshape(agents, -1)
    block = np.empty(agents, np.int8)
    for n in range(agents):
        block[n] = block_of_row[position[e, n, 0]] * COARSE + block_of_column[position[e, n, 1]]
    if comm_range == np.inf and comm_loss == 0:  # everybody hears everybody: one joint map for all
        for n in range(1, agents):
            _join(received[0], words[n])
        _recount(radius, columns, belief[e, 0], sent[0], coarse[e, 0], block_of_row, block_of_column)
        for n in range(agents):
            for k in range(received.shape[1]):
                received[n, k] = received[0, k]
            for k in range(coarse.shape[2]):
                coarse[e, n, k] = coarse[e, 0, k]
            for other in range(agents):
                if other != n:
                    heard_block[e, n, other] = block[other]
                    heard_step[e, n, other] = clock
        messages[e] += agents * (agents - 1)
        return
    for n in range(agents):
        for other in range(agents):
            if other == n:
                continue
            down = position[e, n, 0] - position[e, other, 0]
            right = position[e, n, 1] - position[e, other, 1]
            if down * down + right * right > comm_range * comm_range:
                continue
            messages[e] += 1
            if comm_loss > 0 and uniform(other * agents + n, clock, episode, RADIO, seed) < comm_loss:
                continue
            heard_block[e, n, other] = block[other]
            heard_step[e, n, other] = clock
            _join(received[n], words[other])
        _recount(radius, columns, belief[e, n], sent[n], coarse[e, n], block_of_row, block_of_column)


@njit(cache=True, error_model="numpy")
def _join(mine: Array, theirs: Array) -> None:
    """Believe unmonitored only what both do."""
    for k in range(mine.shape[0]):
        mine[k] &= theirs[k]


@njit(cache=True, error_model="numpy")
def _recount(
    radius: int,
    columns: int,
    belief: Array,
    before: Array,
    coarse: Array,
    block_of_row: Array,
    block_of_column: Array,
) -> None:
    """Take the cells in which a belief has changed off the coarse counts."""
    words, words_before = belief.view(np.uint64), before.view(np.uint64)
    for k in range(words.shape[0]):
        if words[k] != words_before[k]:
            # Beyond the map nothing is ever believed unmonitored, so that only cells of the map differ.
            for byte in range(8 * k, 8 * k + 8):
                changed = belief[byte] ^ before[byte]
                cell = 8 * byte
                while changed:
                    if changed & 1:
                        row, column = cell // columns - radius, cell % columns - radius
                        coarse[block_of_row[row] * COARSE + block_of_column[column]] -= 1
                    changed >>= 1
                    cell += 1


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
    heard_block: Array,
    heard_step: Array,
    out: Array,
) -> None:
    """Write every observation, float32 ``[E, N, D]``, in the order of ``ForestConfig.observation_layout``."""
    copies, agents = position.shape[0], position.shape[1]
    side, columns = np.uintp(2 * radius + 1), np.uintp(occupancy.shape[2])
    map_size, map_bytes = np.uintp(occupancy.shape[1]) * columns, np.uintp(blocked.shape[1])
    pooled, blocks = np.uintp(4) * side * side, np.uintp(COARSE * COARSE)
    last_row, last_column = np.float32(block_of_row.shape[0] - 1), np.float32(block_of_column.shape[0] - 1)
    others = np.float32(max(agents - 1, 1))  # divide by it: a product with 1 / others can round above 1
    flat_vegetation, flat_blocked = vegetation.reshape(-1), blocked.reshape(-1)
    flat_occupancy, flat_belief = occupancy.reshape(-1), belief.reshape(-1)
    flat_coarse, flat_out = coarse.reshape(-1), out.reshape(-1)
    flat_block, flat_step = heard_block.reshape(-1), heard_step.reshape(-1)
    for e in range(copies):
        time_left = np.float32(1.0) - np.float32(clock[e]) / np.float32(max_steps)
        base, base_byte = np.uintp(e) * map_size, np.uintp(e) * map_bytes
        for n in range(agents):
            uav = np.uintp(e * agents + n)
            start = uav * np.uintp(out.shape[2])
            top, left = position[e, n, 0], position[e, n, 1]
            corner = np.uintp(top) * columns + np.uintp(left)  # with margin, the crop starts here

            if side == _USUAL_SIDE:
                _crops(
                    flat_out, start, _USUAL_SIDE, columns, corner, base, base_byte, uav * map_bytes, others,
                    flat_belief, flat_vegetation, flat_occupancy, flat_blocked,
                )  # fmt: skip
            else:
                _crops(
                    flat_out, start, side, columns, corner, base, base_byte, uav * map_bytes, others,
                    flat_belief, flat_vegetation, flat_occupancy, flat_blocked,
                )  # fmt: skip
            place = start + pooled
            for k in range(np.uintp(0), blocks - np.uintp(1), np.uintp(LANES)):
                divide_each(flat_out, place + k, flat_coarse, uav * blocks + k, block_size, k)
            last = blocks - np.uintp(1)
            flat_out[place + last] = np.float32(flat_coarse[uav * blocks + last]) / block_size[last]
            place += blocks

            for k in range(blocks):
                flat_out[place + k] = 0
            known, fresh = np.int32(-1), np.float32(0.0)
            for other in range(np.uintp(agents)):
                when = flat_step[uav * np.uintp(agents) + other]
                if when >= 0:
                    if when != known:  # mostly, all were heard at once
                        known, fresh = when, np.float32(1.0) / (others * np.float32(1 + clock[e] - when))
                    block = place + np.uintp(flat_block[uav * np.uintp(agents) + other])
                    flat_out[block] = min(flat_out[block] + fresh, np.float32(1.0))
            place += blocks
            flat_out[place] = np.float32(top) / last_row
            flat_out[place + np.uintp(1)] = np.float32(left) / last_column
            flat_out[place + np.uintp(2)] = time_left


@njit(cache=True, error_model="numpy", forceinline=True)
def _crops(
    out: Array,
    place: int,
    side: int,
    columns: int,
    corner: int,
    base: int,
    base_byte: int,
    own_byte: int,
    others: float,
    belief: Array,
    vegetation: Array,
    occupancy: Array,
    blocked: Array,
) -> None:
    """Write the four crops of a UAV, whose first cell is ``corner``.

    Eight numbers are written at a time; what is too much, the next part overwrites.
    """
    cells = side * side
    _spread_crop(out, place, belief, own_byte, corner, side, columns)
    place += cells
    _divide_crop(out, place, vegetation, base + corner, side, columns, np.float32(1.0))
    place += cells
    _divide_crop(out, place, occupancy, base + corner, side, columns, others)
    middle = base + corner + (side >> np.uintp(1)) * (columns + np.uintp(1))
    out[place + (cells >> np.uintp(1))] = np.float32(occupancy[middle] - 1) / others
    place += cells
    _spread_crop(out, place, blocked, base_byte, corner, side, columns)


@njit(cache=True, error_model="numpy", forceinline=True)
def _spread_crop(
    out: Array, place: int, bits: Array, base: int, corner: int, side: int, columns: int
) -> None:
    """Write the crop of a bit map as 0 and 1; ``corner`` is its first cell."""
    shift = corner & _IN_BYTE
    byte, row_bytes = base + (corner >> _BYTE), columns >> _BYTE
    for _ in range(side):
        spread(out, place, word(bits, byte) >> shift)
        for j in range(np.uintp(LANES), side, np.uintp(LANES)):
            spread(out, place + j, word(bits, byte + (j >> _BYTE)) >> shift)
        place += side
        byte += row_bytes


@njit(cache=True, error_model="numpy", forceinline=True)
def _divide_crop(
    out: Array, place: int, values: Array, first: int, side: int, columns: int, divisor: float
) -> None:
    """Write the crop whose first cell is ``first`` of the flat ``values``, divided."""
    for _ in range(side):
        divide(out, place, values, first, divisor)
        for j in range(np.uintp(LANES), side, np.uintp(LANES)):
            divide(out, place + j, values, first + j, divisor)
        place += side
        first += columns


@njit(cache=True, error_model="numpy")
def action_mask(
    radius: int, height: int, width: int, columns: int, blocked: Array, position: Array, out: Array
) -> None:
    """Write int8 ``[E, N, 5]``: 0 where the move leads off the map or into an obstacle."""
    for e in range(position.shape[0]):
        for n in range(position.shape[1]):
            for action in range(MOVES.shape[0]):
                row = position[e, n, 0] + MOVES[action, 0]
                column = position[e, n, 1] + MOVES[action, 1]
                inside = 0 <= row < height and 0 <= column < width
                cell = np.uintp((radius + row) * columns + radius + column)
                out[e, n, action] = inside and not _bit(blocked[e], np.uintp(0), cell)

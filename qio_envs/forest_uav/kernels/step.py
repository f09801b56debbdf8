"""A step: all move at once, cells are credited, every UAV senses its crop, and at times all exchange."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.forest_uav.config import COARSE, MOVES
from qio_envs.forest_uav.kernels.bits import BYTE, IN_BYTE, ONE, USUAL_SIDE, WORD, is_set, lowest
from qio_envs.forest_uav.kernels.lanes import word
from qio_envs.forest_uav.kernels.radio import exchange
from qio_envs.forest_uav.state import DIFFERENCE, LOCAL, MILESTONES, TEAM, ForestRules, ForestState


@njit(cache=True, error_model="numpy")
def step(actions: Array, state: ForestState, rules: ForestRules, rewards: Array, truncated: Array) -> None:
    """Advance the clock, then move, monitor, credit, sense and exchange, in that order.

    Args:
        actions: Int64 ``[E, N]``.
        state: Is advanced.
        rules: What holds.
        rewards: Float32 ``[E, N]``, is written.
        truncated: Bool ``[E, N]``, is written.
    """
    clock, running, radius = state.step, state.running, rules.radius
    blocked, monitored, occupancy = state.blocked, state.monitored, state.occupancy
    position, belief, coarse = state.position, state.belief, state.coarse
    monitored_count, milestones, free_count = state.monitored_count, state.milestones, state.free_count
    team_reward, team_return, collisions = state.team_reward, state.team_return, state.collisions
    block_of_row, block_of_column = rules.block_of_row, rules.block_of_column
    reward_mode, cell_reward, collision_penalty = (
        rules.reward_mode,
        rules.cell_reward,
        rules.collision_penalty,
    )
    comm_budget = rules.comm_budget
    num_envs, agents = position.shape[0], position.shape[1]
    height, width = block_of_row.shape[0], block_of_column.shape[0]
    columns = occupancy.shape[2]
    map_size, map_bytes = np.uintp(occupancy.shape[1] * columns), np.uintp(blocked.shape[1])
    flat_blocked, flat_monitored = blocked.reshape(-1), monitored.reshape(-1)
    flat_occupancy, flat_belief = occupancy.reshape(-1), belief.reshape(-1)
    side = np.uintp(2 * radius + 1)
    cell_of = np.empty(agents, np.uintp)  # where each UAV is
    for e in range(num_envs):
        clock[e] += 1
        base, base_byte = np.uintp(e) * map_size, np.uintp(e) * map_bytes
        for n in range(agents):
            row, column = np.int64(position[e, n, 0]), np.int64(position[e, n, 1])
            cell = np.uintp((radius + row) * columns + radius + column)
            action = np.uintp(actions[e, n])
            row, column = row + MOVES[action, 0], column + MOVES[action, 1]
            if 0 <= row < height and 0 <= column < width:
                target = np.uintp((radius + row) * columns + radius + column)
                if not is_set(flat_blocked, base_byte, target):
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
            if side == USUAL_SIDE:
                news = _sees_news(flat_belief, own, flat_monitored, base_byte, corner, USUAL_SIDE, columns)
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
            exchange(e, state, rules)
        running[e] = clock[e] < rules.max_steps
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
    """Monitor the cells of one environment's UAVs, write their rewards, count new and crowded cells."""
    agents = cell_of.shape[0]
    new_cells = 0
    crowded_cells = 0
    for n in range(agents):
        share = occupancy[base + cell_of[n]]
        new = not is_set(monitored, base_byte, cell_of[n])
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
        monitored[base_byte + (cell_of[n] >> BYTE)] |= np.uint8(1) << (cell_of[n] & IN_BYTE)
        if reward_mode == TEAM:
            rewards[n] = team
    return new_cells, crowded_cells


@njit(cache=True, error_model="numpy", forceinline=True)
def _sees_news(
    belief: Array, own: int, monitored: Array, base: int, corner: int, side: int, columns: int
) -> bool:
    """Whether the crop whose first cell is ``corner`` holds a monitored cell believed not to be."""
    row_bytes = np.uintp(columns) >> BYTE
    news = False
    for j in range(np.uintp(0), side, WORD):
        byte, found = (corner + j) >> BYTE, np.uint64(0)
        for _ in range(side):
            found |= word(belief, own + byte) & word(monitored, base + byte)
            byte += row_bytes
        wanted = lowest(side - j)
        news |= (found >> ((corner + j) & IN_BYTE)) & wanted != 0
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
    side, row_bytes = np.uintp(2 * radius + 1), np.uintp(columns) >> BYTE
    for j in range(np.uintp(0), side, WORD):
        byte, shift = (corner + j) >> BYTE, (corner + j) & IN_BYTE
        wanted = lowest(side - j)
        for i in range(side):
            found = ((word(belief, own + byte) & word(monitored, base + byte)) >> shift) & wanted
            column: Any = j
            while found:
                if found & ONE:
                    cell = shift + column - j
                    belief[own + byte + (cell >> BYTE)] ^= np.uint8(1) << (cell & IN_BYTE)
                    row_block = block_of_row[np.int64(position[0]) + np.int64(i) - radius]
                    column_block = block_of_column[np.int64(position[1]) + np.int64(column) - radius]
                    coarse[row_block * COARSE + column_block] -= 1
                found >>= ONE
                column += np.uintp(1)
            byte += row_bytes

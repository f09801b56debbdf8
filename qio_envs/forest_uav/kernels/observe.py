"""Observations and action masks."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.forest_uav.config import COARSE, MOVES
from qio_envs.forest_uav.kernels.bits import BYTE, IN_BYTE, USUAL_SIDE, is_set
from qio_envs.forest_uav.kernels.lanes import LANES, divide, divide_each, spread, word
from qio_envs.forest_uav.state import ForestRules, ForestState


@njit(cache=True, error_model="numpy")
def observe(state: ForestState, rules: ForestRules, out: Array) -> None:
    """Write every observation to ``out``, float32 ``[E, N, D]``, as ``ForestConfig.observation_layout`` says."""
    clock, radius, max_steps, position = state.step, rules.radius, rules.max_steps, state.position
    vegetation, blocked, occupancy = state.vegetation, state.blocked, state.occupancy
    belief, coarse, heard_block, heard_step = state.belief, state.coarse, state.heard_block, state.heard_step
    block_of_row, block_of_column, block_size = rules.block_of_row, rules.block_of_column, rules.block_size
    num_envs, agents = position.shape[0], position.shape[1]
    side, columns = np.uintp(2 * radius + 1), np.uintp(occupancy.shape[2])
    map_size, map_bytes = np.uintp(occupancy.shape[1]) * columns, np.uintp(blocked.shape[1])
    pooled, blocks = np.uintp(4) * side * side, np.uintp(COARSE * COARSE)
    last_row, last_column = np.float32(block_of_row.shape[0] - 1), np.float32(block_of_column.shape[0] - 1)
    others = np.float32(max(agents - 1, 1))  # divide by it: a product with 1 / others can round above 1
    flat_vegetation, flat_blocked = vegetation.reshape(-1), blocked.reshape(-1)
    flat_occupancy, flat_belief = occupancy.reshape(-1), belief.reshape(-1)
    flat_coarse, flat_out = coarse.reshape(-1), out.reshape(-1)
    flat_block, flat_step = heard_block.reshape(-1), heard_step.reshape(-1)
    for e in range(num_envs):
        time_left = np.float32(1.0) - np.float32(clock[e]) / np.float32(max_steps)
        base, base_byte = np.uintp(e) * map_size, np.uintp(e) * map_bytes
        for n in range(agents):
            uav = np.uintp(e * agents + n)
            start = uav * np.uintp(out.shape[2])
            top, left = position[e, n, 0], position[e, n, 1]
            corner = np.uintp(top) * columns + np.uintp(left)  # with margin, the crop starts here

            if side == USUAL_SIDE:
                _crops(
                    flat_out, start, USUAL_SIDE, columns, corner, base, base_byte, uav * map_bytes, others,
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
    shift = corner & IN_BYTE
    byte, row_bytes = base + (corner >> BYTE), columns >> BYTE
    for _ in range(side):
        spread(out, place, word(bits, byte) >> shift)
        for j in range(np.uintp(LANES), side, np.uintp(LANES)):
            spread(out, place + j, word(bits, byte + (j >> BYTE)) >> shift)
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
def action_mask(state: ForestState, rules: ForestRules, out: Array) -> None:
    """Write int8 ``[E, N, 5]`` to ``out``: 0 where the move leads off the map or into an obstacle."""
    position, blocked, radius, columns = state.position, state.blocked, rules.radius, state.occupancy.shape[2]
    height, width = rules.block_of_row.shape[0], rules.block_of_column.shape[0]
    for e in range(position.shape[0]):
        for n in range(position.shape[1]):
            for action in range(MOVES.shape[0]):
                row = position[e, n, 0] + MOVES[action, 0]
                column = position[e, n, 1] + MOVES[action, 1]
                inside = 0 <= row < height and 0 <= column < width
                cell = np.uintp((radius + row) * columns + radius + column)
                out[e, n, action] = inside and not is_set(blocked[e], np.uintp(0), cell)

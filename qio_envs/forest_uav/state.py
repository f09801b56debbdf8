"""What the kernels of the forest work on: state and rules as named tuples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qio_envs.api import Array
from qio_envs.forest_uav.config import COARSE, REWARDS, ForestConfig

TEAM, LOCAL, DIFFERENCE = (REWARDS.index(name) for name in ("team", "local", "difference"))
MILESTONES = np.array([90, 95])  # per cent of coverage whose first step is reported


class ForestState(NamedTuple):
    """Arrays of the forest; ``Hp`` and ``Wp`` are height and width with margins, ``B`` the bytes of a bit map.

    See `kernels` for the layout; `ForestUAV.unpack` and `ForestUAV.without_margin` give plain maps.
    """

    seed: Array  # uint64 [E], key of the random numbers
    episode: Array  # uint32 [E], episodes since the seed was given
    step: Array  # int32 [E], steps since the reset; -1 before the first
    running: Array  # bool [E], reset and not ended
    vegetation: Array  # float32 [E, Hp, Wp], density in [0, 1); 0 in the margin
    blocked: Array  # uint8 [E, B], bit map: 1 = cannot be entered; 1 in the margin
    free_count: Array  # int32 [E], cells that can be entered
    monitored: Array  # uint8 [E, B], bit map: 1 = some UAV has been there
    monitored_count: Array  # int32 [E]
    occupancy: Array  # int16 [E, Hp, Wp], UAVs in the cell
    position: Array  # int16 [E, N, 2], row and column without margin
    belief: Array  # uint8 [E, N, B], bit map: 1 = the UAV believes the cell unmonitored
    coarse: Array  # int32 [E, N, 25], believed unmonitored cells in each block of the coarse map
    heard_block: Array  # int8 [E, N, N], block of the coarse map in which UAV n last heard the other to be
    heard_step: Array  # int32 [E, N, N], when; -1 = never
    collisions: Array  # int32 [E], cells with more than one UAV, summed over steps
    messages: Array  # int32 [E], messages sent to a UAV in range, lost ones included
    milestones: Array  # int32 [E, 2], step at which 90% and 95% coverage were reached; -1 = not yet
    team_reward: Array  # float32 [E], of the last step
    team_return: Array  # float64 [E], of the episode so far

    @classmethod
    def empty(cls, config: ForestConfig, num_envs: int) -> ForestState:
        """Return the state of environments that were never reset."""
        envs, agents, radius = num_envs, config.num_uavs, config.sensing_radius
        rows, columns = config.height + 2 * radius + 1, -(-(config.width + 2 * radius) // 8) * 8
        size = rows * columns // 64 * 8 + 16  # bytes of a bit map: whole words, and eight bytes more at least
        return cls(
            seed=np.zeros(envs, np.uint64),
            episode=np.zeros(envs, np.uint32),
            step=np.full(envs, -1, np.int32),
            running=np.zeros(envs, bool),
            vegetation=np.zeros((envs, rows, columns), np.float32),
            blocked=np.full((envs, size), 255, np.uint8),
            free_count=np.zeros(envs, np.int32),
            monitored=np.zeros((envs, size), np.uint8),
            monitored_count=np.zeros(envs, np.int32),
            occupancy=np.zeros((envs, rows, columns), np.int16),
            position=np.zeros((envs, agents, 2), np.int16),
            belief=np.zeros((envs, agents, size), np.uint8),
            coarse=np.zeros((envs, agents, COARSE**2), np.int32),
            heard_block=np.zeros((envs, agents, agents), np.int8),
            heard_step=np.full((envs, agents, agents), -1, np.int32),
            collisions=np.zeros(envs, np.int32),
            messages=np.zeros(envs, np.int32),
            milestones=np.full((envs, len(MILESTONES)), -1, np.int32),
            team_reward=np.zeros(envs, np.float32),
            team_return=np.zeros(envs, np.float64),
        )


class ForestRules(NamedTuple):
    """What of a configuration the kernels need, in their types."""

    max_steps: int
    radius: int  # of sensing, cells
    num_obstacles: int  # that a reset tries to place
    reward_mode: int  # TEAM, LOCAL or DIFFERENCE
    cell_reward: float
    collision_penalty: float
    comm_budget: float  # share of the steps with an exchange
    comm_range: float  # cells; infinity for no limit
    comm_loss: float  # probability that a message is lost
    block_of_row: Array  # int64 [H], row of the coarse map in which a row lies
    block_of_column: Array  # int64 [W], column of the coarse map in which a column lies
    block_size: Array  # float32 [25], cells in each block of the coarse map

    @classmethod
    def of(cls, config: ForestConfig) -> ForestRules:
        """Return the rules of a configuration."""
        block_of_row = np.arange(config.height) * COARSE // config.height
        block_of_column = np.arange(config.width) * COARSE // config.width
        rows, columns = (np.bincount(blocks, minlength=COARSE) for blocks in (block_of_row, block_of_column))
        return cls(
            max_steps=config.max_steps,
            radius=config.sensing_radius,
            num_obstacles=config.num_obstacles,
            reward_mode=REWARDS.index(config.reward),
            cell_reward=config.cell_reward,
            collision_penalty=config.collision_penalty,
            comm_budget=config.comm_budget,
            comm_range=np.inf if config.comm_range is None else config.comm_range,
            comm_loss=config.comm_loss,
            block_of_row=block_of_row,
            block_of_column=block_of_column,
            block_size=np.outer(rows, columns).ravel().astype(np.float32),
        )


def unpack(bits: Array, state: ForestState) -> Array:
    """Return bit maps (uint8 ``[..., B]``) as uint8 maps of 0 and 1, with margins, ``[..., Hp, Wp]``."""
    rows, columns = state.occupancy.shape[1:]
    cells = np.unpackbits(bits, axis=-1, count=rows * columns, bitorder="little")
    return cells.reshape(*bits.shape[:-1], rows, columns)

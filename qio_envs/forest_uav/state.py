"""What the kernels of the forest work on: state and rules as named tuples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qio_envs.api import Array, Limits, Relations, clock_limits
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
    messages: Array  # int64 [E], messages sent to a UAV in range, lost ones included
    milestones: Array  # int32 [E, 2], step at which 90% and 95% coverage were reached; -1 = not yet
    team_reward: Array  # float32 [E], of the last step
    team_return: Array  # float64 [E], of the episode so far

    @classmethod
    def empty(cls, config: ForestConfig, num_envs: int) -> ForestState:
        """Return the state of environments that were never reset."""
        envs, agents = num_envs, config.num_uavs
        rows, columns = padded_shape(config)
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
            messages=np.zeros(envs, np.int64),
            milestones=np.full((envs, len(MILESTONES)), -1, np.int32),
            team_reward=np.zeros(envs, np.float32),
            team_return=np.zeros(envs, np.float64),
        )

    @classmethod
    def limits(cls, config: ForestConfig) -> Limits:
        """Return what each array may hold; see `BatchedEnv.state_limits`."""
        agents, steps, cells = config.num_uavs, config.max_steps, config.height * config.width
        rows, columns = config.height - 1, config.width - 1
        on_map = inside(config)
        gain, loss = 1.001 * agents * config.cell_reward, 1.001 * agents * config.collision_penalty
        return clock_limits(steps) | {
            "vegetation": (0, on_map),
            "blocked": (0, 255),
            "free_count": (0, cells),
            "monitored": (0, 255),
            "monitored_count": (0, cells),
            "occupancy": (0, agents * on_map),
            "position": (0, np.array([rows, columns])),
            "belief": (0, 255),
            "coarse": (0, ForestRules.of(config).block_size.astype(np.int64)),
            "heard_block": (0, COARSE**2 - 1),
            "heard_step": (-1, steps),
            "collisions": (0, steps * agents),
            "messages": (0, steps * agents * agents),
            "milestones": (-1, steps),
            "team_reward": (-loss, gain),
            "team_return": (-steps * loss, steps * gain),
        }

    def relations(self, config: ForestConfig) -> Relations:
        """Return what must hold between the arrays; see `qio_envs.api.limits`."""
        margin = ~np.packbits(inside(config), bitorder="little")
        margin = np.pad(margin, (0, self.blocked.shape[1] - len(margin)), constant_values=255)
        free = ~self.blocked & ~margin
        seen = self.monitored[:, None]
        yield "blocked", (self.blocked & margin == margin).all(axis=1), "1 in the margin"
        yield "free_count", _ones(free) == self.free_count, "the number of cells that are not blocked"
        yield (
            "monitored",
            (self.monitored & ~free == 0).all(axis=1),
            "0 in the margin and where cells are blocked",
        )
        counted = _ones(self.monitored) == self.monitored_count
        yield "monitored_count", counted, "the number of monitored cells"
        known = (self.belief & ~free[:, None] == 0) & (~self.belief & free[:, None] & ~seen == 0)
        yield "belief", known.all(axis=(1, 2)), "1 in free cells only, and in all that nobody has monitored"
        yield (
            "coarse",
            self._coarse_is_right(config),
            "the numbers of cells that the UAV believes unmonitored",
        )
        yield "occupancy", self._occupancy_is_right(config), "the number of UAVs at each position"
        heard = self.heard_step.max(axis=(1, 2)) <= self.step
        yield "heard_step", heard, "no step that is still to come"
        reached = self.milestones.max(axis=1) <= self.step
        yield "milestones", reached, "no step that is still to come"

    def _coarse_is_right(self, config: ForestConfig) -> Array:
        rules, radius = ForestRules.of(config), config.sensing_radius
        starts = [
            np.searchsorted(blocks, np.arange(COARSE))
            for blocks in (rules.block_of_row, rules.block_of_column)
        ]
        right = np.empty(len(self.step), bool)
        for e, belief in enumerate(
            self.belief
        ):  # maps of one environment at a time: those of all may not fit
            cells = unpack(belief, self)[:, radius : radius + config.height, radius : radius + config.width]
            rows = np.add.reduceat(cells, starts[0], axis=1, dtype=np.int32)
            right[e] = (
                np.add.reduceat(rows, starts[1], axis=2).reshape(self.coarse[e].shape) == self.coarse[e]
            ).all()
        return right

    def _occupancy_is_right(self, config: ForestConfig) -> Array:
        envs, count = np.arange(len(self.step))[:, None], np.zeros_like(self.occupancy)
        row, column = (self.position[..., axis] + config.sensing_radius for axis in range(2))
        np.add.at(count, (envs, row, column), 1)
        return (count == self.occupancy).all(axis=(1, 2))


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


def padded_shape(config: ForestConfig) -> tuple[int, int]:
    """Return rows ``Hp`` and columns ``Wp`` of a map with margins; columns come in eights."""
    margin = 2 * config.sensing_radius
    return config.height + margin + 1, -(-(config.width + margin) // 8) * 8


def inside(config: ForestConfig) -> Array:
    """Return which cells of a map with margins belong to the forest, int64 ``[Hp, Wp]`` of 0 and 1."""
    result, radius = np.zeros(padded_shape(config), np.int64), config.sensing_radius
    result[radius : radius + config.height, radius : radius + config.width] = 1
    return result


def _ones(bits: Array) -> Array:
    """Return the number of ones in each bit map, ``[E]``."""
    return np.bitwise_count(bits).sum(axis=1, dtype=np.int64)


def unpack(bits: Array, state: ForestState) -> Array:
    """Return bit maps (uint8 ``[..., B]``) as uint8 maps of 0 and 1, with margins, ``[..., Hp, Wp]``."""
    rows, columns = state.occupancy.shape[1:]
    cells = np.unpackbits(bits, axis=-1, count=rows * columns, bitorder="little")
    return cells.reshape(*bits.shape[:-1], rows, columns)

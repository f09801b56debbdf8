"""Settings of the UAV forest."""

from __future__ import annotations

import dataclasses

import numpy as np

from qio_envs.api import ConfigError, EnvConfig, setting

COARSE = 5
"""Rows and columns of the average-pooled maps."""
MOVES = np.array([[0, 0], [-1, 0], [1, 0], [0, -1], [0, 1]], np.int64)
"""What the actions stay, up, down, left, right add to row and column, ``[5, 2]``."""
REWARDS = ("team", "local", "difference")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ForestConfig(EnvConfig):
    """Size, sensing, radio and reward of the UAV forest; see `ForestUAV` for what each does."""

    height: int = setting(20, "rows of the grid, cells", low=COARSE, high=512)
    width: int = setting(20, "columns of the grid, cells", low=COARSE, high=512)
    num_uavs: int = setting(10, "number of UAVs", low=1, high=1000)
    max_steps: int = setting(200, "time limit of an episode, steps", low=1, high=1_000_000)
    sensing_radius: int = setting(2, "half side of the square crop that a UAV senses, cells", low=0, high=64)
    obstacle_density: float = setting(0.0, "share of the cells that cannot be entered", low=0.0, high=0.6)
    mask_blocked_moves: bool = setting(False, "whether moves off the map or into an obstacle are masked out")
    comm_budget: float = setting(0.1, "share of the steps in which UAVs may exchange", low=0.0, high=1.0)
    comm_range: float | None = setting(
        None, "Euclidean reach of the radio, cells; null for no limit", low=0.0
    )
    comm_loss: float = setting(0.0, "probability that a message is lost", low=0.0, high=1.0)
    reward: str = setting("team", "who is credited", choices=REWARDS)
    cell_reward: float = setting(1.0, "reward of a cell monitored for the first time", low=0.0, high=1e6)
    collision_penalty: float = setting(
        0.25, "penalty of a cell that holds more than one UAV", low=0.0, high=1e6
    )

    def validate(self) -> None:
        """Refuse more UAVs than free cells and a crop that is larger than the grid."""
        if self.num_uavs > self.free_cells:
            raise ConfigError(
                f"num_uavs: {self.num_uavs} UAVs do not fit on the {self.free_cells} free cells of a "
                f"{self.height} x {self.width} grid with obstacle_density {self.obstacle_density:g}; "
                f"allowed: 1 to {self.free_cells}"
            )
        reach = min(self.height, self.width) - 1
        if self.sensing_radius > reach:
            raise ConfigError(
                f"sensing_radius: {self.sensing_radius} reaches beyond the {self.height} x {self.width} "
                f"grid; allowed: 0 to {reach}"
            )

    @property
    def num_obstacles(self) -> int:
        """Obstacles that a reset tries to place (fewer where the next would cut the free cells in two)."""
        return round(self.obstacle_density * self.height * self.width)

    @property
    def free_cells(self) -> int:
        """Cells that can surely be entered."""
        return self.height * self.width - self.num_obstacles

    @property
    def crop(self) -> int:
        """Side of the sensed square, cells."""
        return 2 * self.sensing_radius + 1

    @property
    def observation_layout(self) -> dict[str, slice]:
        """Where each part of a flat observation lies, by name."""
        cells, coarse = self.crop**2, COARSE**2
        sizes = {
            "unmonitored": cells,
            "vegetation": cells,
            "others": cells,
            "blocked": cells,
            "coarse_unmonitored": coarse,
            "coarse_heard": coarse,
            "position": 2,
            "time_left": 1,
        }
        layout, start = {}, 0
        for name, size in sizes.items():
            layout[name] = slice(start, start + size)
            start += size
        return layout

    @property
    def observation_size(self) -> int:
        """Length of a flat observation."""
        return self.observation_layout["time_left"].stop

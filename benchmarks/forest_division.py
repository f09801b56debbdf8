"""A scripted team that divides the forest of `forest_uav_v0` by what its UAVs tell each other of where they start.

What a team reaches with so many bits is a lower bound on the best return that they allow: the forest's counterpart of
`qio_rllib.evaluation.hidden_target`, which is an upper bound on that of another task.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from qio_envs.api import Array, BatchedEnv, ConfigError
from qio_envs.forest_uav.config import MOVES, ForestConfig
from qio_envs.forest_uav.state import ForestState


class DivisionPolicy:
    """Each UAV flies round its own strip of two rows, and who gets which is settled by one message of each.

    A strip of two rows is a closed tour: a UAV enters it at the nearest cell and flies round once. All that a UAV uses
    is its own position, its index, and from each other UAV the block of rows in which that one starts: every UAV then
    solves the same assignment of strips to UAVs, with the least sum of excess distances from the blocks' middles. With
    one block nothing is told, and UAV ``n`` takes strip ``n``. Nobody looks at what has been monitored.

    Args:
        env: With an even number of rows, two to a UAV, and no obstacles.
        blocks: Into how many blocks of equally many rows a start is rounded, a divisor of the number of rows.

    Raises:
        ConfigError: The forest has no such strips, or is not divided evenly by ``blocks``.
    """

    def __init__(self, env: BatchedEnv[ForestConfig, ForestState], blocks: int) -> None:
        config = env.config
        if config.height != 2 * config.num_uavs or config.num_obstacles:
            raise ConfigError(
                f"height: expected two rows to a UAV and no obstacles, got {config.height} rows, "
                f"{config.num_uavs} UAVs and obstacle_density {config.obstacle_density:g}"
            )
        if blocks < 1 or config.height % blocks:
            raise ConfigError(f"blocks: expected a divisor of {config.height} rows, got {blocks}")
        self.env, self.blocks = env, blocks
        self._strip = np.zeros((env.num_envs, env.num_agents), np.int64)

    @property
    def bits_per_step(self) -> float:
        """Bits that each UAV sends per step, on average over an episode of full length."""
        return float(np.log2(self.blocks)) / self.env.config.max_steps

    def act(self) -> Array:
        """Return int64 actions ``[E, N]``; divides the forest anew in environments at the start of an episode."""
        state = self.env.arrays
        for e in np.flatnonzero(state.step == 0):
            self._strip[e] = self._divide(state.position[e, :, 0])
        row, column = (state.position[:, :, k].astype(np.int64) for k in (0, 1))
        top = 2 * self._strip
        last = self.env.config.width - 1
        fly_round = np.where(
            row == top,  # to the right along the upper row, to the left along the lower
            np.where(column < last, _action(0, 1), _action(1, 0)),
            np.where(column > 0, _action(0, -1), _action(-1, 0)),
        )
        enter = np.where(row < top, _action(1, 0), _action(-1, 0))
        return np.where((row < top) | (row > top + 1), enter, fly_round)

    def _divide(self, rows: Array) -> Array:
        """Return the strip of each UAV, ``[N]``, from the row in which each starts."""
        agents = len(rows)
        if self.blocks == 1:
            return np.arange(agents)
        size = self.env.config.height // self.blocks
        middle = rows // size * size + (size - 1) / 2
        top = 2.0 * np.arange(agents)
        away = np.maximum(np.maximum(top - middle[:, None], middle[:, None] - top - 1), 0.0)
        spare = self.env.config.max_steps - (2 * self.env.config.width - 1)  # steps to fly there, at most
        return linear_sum_assignment(np.maximum(away - spare, 0.0) + 1e-3 * away**2)[1]


def _action(down: int, right: int) -> int:
    """Return the action that moves so."""
    return int(np.flatnonzero((np.array([down, right]) == MOVES).all(1))[0])

"""Scripted policies of the UAV forest: the reference points between which a score is normalised."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array, BatchedEnv
from qio_envs.forest_uav.config import MOVES, ForestConfig
from qio_envs.forest_uav.state import ForestState, unpack


class GreedyPolicy:
    """Each UAV walks to the nearest cell that *it believes* unmonitored and that no sensed UAV is in.

    It uses what the UAV knows: its belief map, the obstacles, and the other UAVs inside its crop. The search
    is breadth first, through cells without a sensed UAV; the order of directions begins at one of four by the
    UAV's index, so that UAVs that have met part again. A UAV without such a target stays; if it shares its
    cell and is not the first there, it steps aside instead.
    """

    def __init__(self, env: BatchedEnv[ForestConfig, ForestState]) -> None:
        self.env = env

    def act(self) -> Array:
        """Return int64 actions ``[E, N]``."""
        env, arrays = self.env, self.env.arrays
        return _greedy(
            env.config.sensing_radius,
            unpack(arrays.blocked, arrays),
            unpack(arrays.belief, arrays),
            arrays.occupancy,
            arrays.position,
        )


class LawnmowerPolicy:
    """Oracle: the free cells, in boustrophedon order, are divided evenly, and each UAV sweeps its own part.

    It knows the true map and the plan of all. Parts are given out in the order of the start cells along the
    sweep; a UAV enters its part at the nearest cell, goes on cyclically, and skips what is monitored already.
    """

    def __init__(self, env: BatchedEnv[ForestConfig, ForestState]) -> None:
        self.env = env
        cells = env.config.height * env.config.width
        self._tour = np.zeros((env.num_envs, cells), np.int64)
        self._part = np.zeros((env.num_envs, env.num_agents), np.int64)
        self._next = np.zeros((env.num_envs, env.num_agents), np.int64)
        self._planned = np.zeros(env.num_envs, bool)

    def act(self) -> Array:
        """Return int64 actions ``[E, N]``; plans anew in environments at the start of an episode."""
        env, arrays = self.env, self.env.arrays
        radius = env.config.sensing_radius
        blocked = unpack(arrays.blocked, arrays)
        unplanned = ~self._planned | (arrays.step == 0)
        self._planned[:] = True
        _plan(
            unplanned,
            radius,
            env.config.height,
            env.config.width,
            blocked,
            arrays.free_count,
            arrays.position,
            self._tour,
            self._part,
            self._next,
        )
        return _sweep(
            radius,
            env.config.width,
            blocked,
            unpack(arrays.monitored, arrays),
            arrays.free_count,
            arrays.position,
            self._tour,
            self._part,
            self._next,
        )


@njit(cache=True)
def _first_move(
    blocked: Array, targets: Array, row: int, column: int, turn: int, seen: Array, queue: Array
) -> int:
    """Return the first action of a shortest path to the nearest target cell (with margins), 0 if none.

    Args:
        blocked: ``[Hp, Wp]``, nonzero where the path may not lead.
        targets: ``[Hp, Wp]``, nonzero where it may end.
        row: Row of the start.
        column: Column of the start.
        turn: 0 to 3, by how much the order up, down, left, right of equal paths is rotated.
        seen: Scratch ``[Hp, Wp]``.
        queue: Scratch ``[Hp Wp, 3]``.
    """
    if targets[row, column]:
        return 0
    height, width = blocked.shape
    for i in range(height):
        for j in range(width):
            seen[i, j] = 0
    seen[row, column] = 1
    queue[0, 0], queue[0, 1], queue[0, 2] = row, column, 0
    head, tail = 0, 1
    while head < tail:
        i, j, first = queue[head, 0], queue[head, 1], queue[head, 2]
        head += 1
        for k in range(4):
            action = 1 + (k + turn) % 4
            to_i, to_j = i + MOVES[action, 0], j + MOVES[action, 1]
            inside = 0 <= to_i < height and 0 <= to_j < width
            if not inside or blocked[to_i, to_j] or seen[to_i, to_j]:
                continue
            move = first if first else action
            if targets[to_i, to_j]:
                return move
            seen[to_i, to_j] = 1
            queue[tail, 0], queue[tail, 1], queue[tail, 2] = to_i, to_j, move
            tail += 1
    return 0


@njit(cache=True)
def _greedy(radius: int, blocked: Array, belief: Array, occupancy: Array, position: Array) -> Array:
    num_envs, agents = position.shape[0], position.shape[1]
    actions = np.zeros((num_envs, agents), np.int64)
    seen = np.empty(blocked.shape[1:], np.uint8)
    queue = np.empty((seen.size, 3), np.int64)
    closed: Array = np.empty(
        blocked.shape[1:], np.bool_
    )  # obstacles, and the cells of the UAVs that one senses
    for e in range(num_envs):
        for i in range(closed.shape[0]):
            for j in range(closed.shape[1]):
                closed[i, j] = blocked[e, i, j] != 0
        for n in range(agents):
            row, column = radius + position[e, n, 0], radius + position[e, n, 1]
            for i in range(row - radius, row + radius + 1):
                for j in range(column - radius, column + radius + 1):
                    closed[i, j] = blocked[e, i, j] != 0 or occupancy[e, i, j] > 0
            actions[e, n] = _first_move(closed, belief[e, n], row, column, n % 4, seen, queue)
            if actions[e, n] == 0 and occupancy[e, row, column] > 1 and not _is_first(position[e], n):
                for k in range(4):
                    aside = 1 + (k + n) % 4
                    if _is_open(closed, row + MOVES[aside, 0], column + MOVES[aside, 1]):
                        actions[e, n] = aside
                        break
            for i in range(row - radius, row + radius + 1):
                for j in range(column - radius, column + radius + 1):
                    closed[i, j] = blocked[e, i, j] != 0
    return actions


@njit(cache=True)
def _is_first(position: Array, n: int) -> bool:
    """Whether no UAV of a lower index is in the cell of UAV ``n``."""
    for other in range(n):
        if position[other, 0] == position[n, 0] and position[other, 1] == position[n, 1]:
            return False
    return True


@njit(cache=True)
def _is_open(closed: Array, row: int, column: int) -> bool:
    """Whether a cell (with margins) lies in the array and is not closed."""
    return 0 <= row < closed.shape[0] and 0 <= column < closed.shape[1] and not closed[row, column]


@njit(cache=True)
def _plan(
    mask: Array,
    radius: int,
    height: int,
    width: int,
    blocked: Array,
    free_count: Array,
    position: Array,
    tour: Array,
    part: Array,
    pointer: Array,
) -> None:
    num_envs, agents = position.shape[0], position.shape[1]
    for e in range(num_envs):
        if not mask[e]:
            continue
        place = np.zeros((height, width), np.int64)  # of a cell in the tour
        length = 0
        for i in range(height):
            for step in range(width):
                j = step if i % 2 == 0 else width - 1 - step
                if not blocked[e, radius + i, radius + j]:
                    tour[e, length] = i * width + j
                    place[i, j] = length
                    length += 1
        starts = np.empty(agents, np.int64)
        for n in range(agents):
            starts[n] = place[position[e, n, 0], position[e, n, 1]]
        order = np.argsort(starts)
        for rank in range(agents):
            n = order[rank]
            part[e, n] = rank
            begin, end = length * rank // agents, length * (rank + 1) // agents
            best = height + width
            pointer[e, n] = begin
            for k in range(begin, end):
                i, j = tour[e, k] // width, tour[e, k] % width
                distance = abs(i - position[e, n, 0]) + abs(j - position[e, n, 1])
                if distance < best:
                    best = distance
                    pointer[e, n] = k


@njit(cache=True)
def _sweep(
    radius: int,
    width: int,
    blocked: Array,
    monitored: Array,
    free_count: Array,
    position: Array,
    tour: Array,
    part: Array,
    pointer: Array,
) -> Array:
    num_envs, agents = position.shape[0], position.shape[1]
    actions = np.zeros((num_envs, agents), np.int64)
    seen = np.empty(blocked.shape[1:], np.uint8)
    targets = np.zeros(blocked.shape[1:], np.uint8)
    queue = np.empty((seen.size, 3), np.int64)
    for e in range(num_envs):
        for n in range(agents):
            begin = free_count[e] * part[e, n] // agents
            end = free_count[e] * (part[e, n] + 1) // agents
            for _ in range(end - begin):
                cell = tour[e, pointer[e, n]]
                row, column = radius + cell // width, radius + cell % width
                if not monitored[e, row, column]:
                    targets[row, column] = 1
                    actions[e, n] = _first_move(
                        blocked[e],
                        targets,
                        radius + position[e, n, 0],
                        radius + position[e, n, 1],
                        0,
                        seen,
                        queue,
                    )
                    targets[row, column] = 0
                    break
                pointer[e, n] += 1
                if pointer[e, n] == end:
                    pointer[e, n] = begin
    return actions

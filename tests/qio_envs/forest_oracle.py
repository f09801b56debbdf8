"""The UAV forest once more, one environment, in plain Python: what the kernels are compared with, bit for bit.

Written from the documentation of `ForestUAV` alone: no margins, no flat indices, sets for beliefs, exact
fractions for the radio budget, and the difference reward by taking each UAV out.
"""

from fractions import Fraction
from math import floor

import numpy as np

MOVES = {0: (0, 0), 1: (-1, 0), 2: (1, 0), 3: (0, -1), 4: (0, 1)}
VEGETATION, OBSTACLES, STARTS, RADIO = range(4)
BLOCKS = 5


def philox(counter, key):
    """Philox-4x32-10 on four counter words and two key words."""
    c, k = list(counter), list(key)
    for _ in range(10):
        first, second = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [
            (second >> 32) ^ c[1] ^ k[0],
            second & 0xFFFFFFFF,
            (first >> 32) ^ c[3] ^ k[1],
            first & 0xFFFFFFFF,
        ]
        k = [(k[0] + 0x9E3779B9) & 0xFFFFFFFF, (k[1] + 0xBB67AE85) & 0xFFFFFFFF]
    return c


class ForestOracle:
    def __init__(self, config, seed, episode=0):
        self.c = config
        self.seed, self.episode = seed, episode
        self.cells = [(i, j) for i in range(config.height) for j in range(config.width)]
        self.reset()

    # -- random numbers

    def word(self, lane, step, stream):
        counter = (lane // 4, step, self.episode, stream)
        return philox(counter, (self.seed & 0xFFFFFFFF, self.seed >> 32))[lane % 4]

    def uniform(self, lane, step, stream):
        return np.float32((self.word(lane, step, stream) >> 8) / 2**24)

    def below(self, bound, lane, stream):
        return self.word(lane, 0, stream) * bound >> 32

    # -- reset

    def reset(self):
        c = self.c
        self.t = 0
        self.vegetation = {cell: self.uniform(k, 0, VEGETATION) for k, cell in enumerate(self.cells)}
        self.obstacles = set()
        if c.num_obstacles:
            order = list(self.cells)
            for k in range(len(order)):
                pick = k + self.below(len(order) - k, k, OBSTACLES)
                order[k], order[pick] = order[pick], order[k]
            for cell in order:
                if len(self.obstacles) < c.num_obstacles and self.can_block(cell):
                    self.obstacles.add(cell)
        free = [cell for cell in self.cells if cell not in self.obstacles]
        self.num_free = len(free)
        self.at = []
        for n in range(c.num_uavs):
            pick = n + self.below(len(free) - n, n, STARTS)
            free[n], free[pick] = free[pick], free[n]
            self.at.append(free[n])
        self.monitored = set()
        self.unmonitored_belief = [set(free) for _ in self.at]
        self.heard = [{} for _ in self.at]
        self.collisions = self.messages = 0
        self.milestones = {90: -1, 95: -1}
        self.team_reward, self.team_return = np.float32(0), 0.0

    def is_free(self, cell):
        return 0 <= cell[0] < self.c.height and 0 <= cell[1] < self.c.width and cell not in self.obstacles

    def can_block(self, cell):
        """Whether the free 4-neighbours are joined by paths among the eight cells around the cell."""
        ring = {
            (cell[0] + i, cell[1] + j)
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
            if (i, j) != (0, 0) and self.is_free((cell[0] + i, cell[1] + j))
        }
        sides = [(cell[0] + i, cell[1] + j) for i, j in list(MOVES.values())[1:]]
        sides = [side for side in sides if side in ring]
        if not sides:
            return True
        reached, frontier = {sides[0]}, [sides[0]]
        while frontier:
            i, j = frontier.pop()
            for di, dj in list(MOVES.values())[1:]:
                neighbour = (i + di, j + dj)
                if neighbour in ring and neighbour not in reached:
                    reached.add(neighbour)
                    frontier.append(neighbour)
        return reached.issuperset(sides)

    # -- step

    def team_score(self, positions, monitored):
        occupied = set(positions)
        crowded = sum(positions.count(cell) > 1 for cell in occupied)
        return self.c.cell_reward * len(occupied - monitored) - self.c.collision_penalty * crowded, crowded

    def step(self, actions):
        c = self.c
        self.t += 1
        for n, action in enumerate(actions):
            target = tuple(np.add(self.at[n], MOVES[int(action)]).tolist())
            if self.is_free(target):
                self.at[n] = target
        team, crowded = self.team_score(self.at, self.monitored)
        rewards = []
        for n, cell in enumerate(self.at):
            if c.reward == "team":
                rewards.append(team)
            elif c.reward == "local":
                share = self.at.count(cell)
                new, crowd = cell not in self.monitored, share > 1
                rewards.append((c.cell_reward * new - c.collision_penalty * crowd) / share)
            else:
                without = self.at[:n] + self.at[n + 1 :]
                rewards.append(team - self.team_score(without, self.monitored)[0])
        self.monitored |= set(self.at)
        self.collisions += crowded
        self.team_reward = np.float32(team)
        self.team_return += float(self.team_reward)
        for per_cent, reached in self.milestones.items():
            if reached < 0 and Fraction(len(self.monitored), self.num_free) >= Fraction(per_cent, 100):
                self.milestones[per_cent] = self.t
        for n, cell in enumerate(self.at):
            self.unmonitored_belief[n] -= self.monitored & self.crop_cells(cell)
        budget = Fraction(str(c.comm_budget))
        if floor(self.t * budget) > floor((self.t - 1) * budget):
            self.exchange()
        truncated = self.t >= c.max_steps
        return np.array(rewards, np.float32), truncated

    def crop_cells(self, cell):
        r = self.c.sensing_radius
        return {(cell[0] + i, cell[1] + j) for i in range(-r, r + 1) for j in range(-r, r + 1)}

    def exchange(self):
        sent = [set(belief) for belief in self.unmonitored_belief]
        for n in range(self.c.num_uavs):
            for other in range(self.c.num_uavs):
                if other == n:
                    continue
                squared = sum((a - b) ** 2 for a, b in zip(self.at[n], self.at[other], strict=True))
                if self.c.comm_range is not None and squared > self.c.comm_range**2:
                    continue
                self.messages += 1
                if self.uniform(other * self.c.num_uavs + n, self.t, RADIO) < self.c.comm_loss:
                    continue
                self.unmonitored_belief[n] &= sent[other]
                self.heard[n][other] = (self.at[other], self.t)

    # -- what is seen

    def block(self, cell):
        return cell[0] * BLOCKS // self.c.height * BLOCKS + cell[1] * BLOCKS // self.c.width

    def observe(self):
        return np.array([self.observe_one(n) for n in range(self.c.num_uavs)], np.float32)

    def observe_one(self, n):
        c, r = self.c, self.c.sensing_radius
        row, column = self.at[n]
        others = np.float32(max(c.num_uavs - 1, 1))
        crop = [(row + i, column + j) for i in range(-r, r + 1) for j in range(-r, r + 1)]
        elsewhere = self.at[:n] + self.at[n + 1 :]
        parts = [
            [float(cell in self.unmonitored_belief[n]) for cell in crop],
            [self.vegetation.get(cell, 0.0) for cell in crop],
            [np.float32(elsewhere.count(cell)) / others for cell in crop],
            [float(not self.is_free(cell)) for cell in crop],
        ]
        unmonitored, size = [0] * BLOCKS**2, [0] * BLOCKS**2
        for cell in self.cells:
            unmonitored[self.block(cell)] += cell in self.unmonitored_belief[n]
            size[self.block(cell)] += 1
        parts.append([np.float32(a) / np.float32(b) for a, b in zip(unmonitored, size, strict=True)])
        heard = [np.float32(0)] * BLOCKS**2
        for _, (cell, when) in sorted(self.heard[n].items()):
            weight = np.float32(1) / (others * np.float32(1 + self.t - when))
            heard[self.block(cell)] = min(heard[self.block(cell)] + weight, np.float32(1))
        parts.append(heard)
        parts.append(
            [np.float32(row) / np.float32(c.height - 1), np.float32(column) / np.float32(c.width - 1)]
        )
        parts.append([np.float32(1) - np.float32(self.t) / np.float32(c.max_steps)])
        return np.concatenate([np.array(part, np.float32) for part in parts])

    def action_mask(self):
        legal = np.ones((self.c.num_uavs, len(MOVES)), np.int8)
        if self.c.mask_blocked_moves:
            for n, (row, column) in enumerate(self.at):
                for action, (i, j) in MOVES.items():
                    legal[n, action] = self.is_free((row + i, column + j))
        return legal

    def state(self):
        share = [np.float32(self.at.count(cell)) / np.float32(self.c.num_uavs) for cell in self.cells]
        parts = [
            [cell in self.monitored for cell in self.cells],
            share,
            [self.vegetation[cell] for cell in self.cells],
            [cell in self.obstacles for cell in self.cells],
            [np.float32(1) - np.float32(self.t) / np.float32(self.c.max_steps)],
        ]
        return np.concatenate([np.array(part, np.float32) for part in parts])

    def info(self):
        return {
            "coverage": len(self.monitored) / self.num_free,
            "steps_to_90": self.milestones[90],
            "steps_to_95": self.milestones[95],
            "collisions": self.collisions,
            "messages": self.messages,
            "team_reward": self.team_reward,
            "team_return": self.team_return,
        }

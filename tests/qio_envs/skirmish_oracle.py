"""The skirmish once more, one environment, in plain NumPy and double precision: what the kernels are compared with.

Written from the documentation of `Skirmish` alone, with matrices of all pairs of units.
"""

import functools

import numpy as np
from forest_oracle import philox

from qio_envs.skirmish.config import UNITS

TYPES, START, LAYOUT, GROUPS, CHASE, COOLDOWN = range(6)
WAYS = np.array([[0, 1], [1, 0], [0, -1], [-1, 0]])
NUMBERS = UNITS["marine"]._fields[1:]
FIGURES = {name: np.array([float(getattr(unit, name)) for unit in UNITS.values()]) for name in NUMBERS}

block = functools.lru_cache(64)(philox)  # four lanes share one


class SkirmishOracle:
    def __init__(self, config, seed, episode=0):
        self.c, self.seed, self.episode, self.t = config, seed, episode, 0
        self.n, self.m = len(config.ally_types), len(config.enemy_types)
        self.size = np.array([config.map_width, config.map_height], float)
        self.ally = np.arange(self.n + self.m) < self.n
        self.kind = np.array(self.types())
        full = FIGURES["shield"][self.kind] if config.shields else np.zeros(self.n + self.m)
        self.full = FIGURES["health"][self.kind] - full, full
        self.health, self.shield = (part.copy() for part in self.full)
        self.position = np.array(self.starts())
        self.cooldown = np.zeros(self.n + self.m)
        self.unhurt = np.zeros(self.n + self.m, int)
        self.push()
        self.goal = self.size - self.position
        self.target = np.full(self.m, -1)
        self.score = 0.0

    @property
    def alive(self):
        return self.health > 0

    def figure(self, name):
        return FIGURES[name][self.kind]

    # -- random numbers

    def word(self, lane, step, stream):
        lane = int(lane)
        counter = (lane // 4, step, self.episode, stream)
        return block(counter, (self.seed & 0xFFFFFFFF, self.seed >> 32))[lane % 4]

    def uniform(self, lane, stream, step=0):
        return (self.word(lane, step, stream) >> 8) / 2**24

    def below(self, bound, lane, stream, step=0):
        return self.word(lane, step, stream) * bound >> 32

    # -- starts

    def types(self):
        wanted = [*self.c.ally_types, *self.c.enemy_types]
        found = []
        for u, kind in enumerate(wanted):
            twin = u - self.n if self.n <= u < 2 * self.n else None
            if kind < len(UNITS):
                found.append(kind)
            elif twin is not None:
                found.append(found[twin])
            else:
                found.append(self.below(len(UNITS), u, TYPES))
        return found

    def starts(self):
        units, middle = range(self.n + self.m), self.size / 2
        noise = [np.array([4 * self.uniform(2 * u + k, START) - 2 for k in (0, 1)]) for u in units]
        if self.c.start == "sides":
            return [self.size * [0.25 if u < self.n else 0.75, 0.5] + noise[u] for u in units]
        if self.uniform(0, LAYOUT) < 0.5:
            inside = self.ally if self.uniform(1, LAYOUT) < 0.5 else ~self.ally
            return [middle + noise[u] if inside[u] else self.group(u) + noise[u] for u in units]
        half = [
            np.array([self.uniform(2 * u + k, START) for k in (0, 1)]) * self.size * [0.5, 1] for u in units
        ]
        mirrored = [self.size * [1, 0] + half[u - self.n if u < 2 * self.n else u] * [-1, 1] for u in units]
        return [half[u] if u < self.n else mirrored[u] for u in units]

    def group(self, u):
        number = self.below(4, u, GROUPS)
        corner = self.size * [number // 2, number % 2]
        share = self.uniform(4 + number, LAYOUT)
        return share * self.size / 2 + (1 - share) * corner

    # -- a step

    def away(self):
        """Return the way from each unit to each other one, ``[U, U, 2]``, and its length."""
        way = self.position[None] - self.position[:, None]
        return way, np.hypot(way[..., 0], way[..., 1])

    def push(self):
        way, distance = self.away()
        reach = self.figure("radius")[:, None] + self.figure("radius")
        both = self.alive[:, None] & self.alive & ~np.eye(len(self.alive), dtype=bool)
        overlap = np.where(both, np.maximum(reach / (distance + 1e-6) - 1, 0), 0)
        self.position = self.position - (way * overlap[..., None]).sum(axis=1) / 2

    def orders(self):
        """Return what the enemies do."""
        way, distance = self.away()
        chosen = []
        for m in range(self.m):
            u = self.n + m
            order = [j for j in reversed(range(self.n)) if self.alive[j]]
            seen = [j for j in order if distance[u, j] < self.figure("sight_range")[u]]
            near = [j for j in seen if distance[u, j] < self.figure("attack_range")[u]]
            if not self.alive[u]:
                chosen.append(4)
                continue
            if self.n - 1 - self.target[m] not in near or self.target[m] < 0:
                self.target[m] = self.n - 1 - min(near, key=lambda j: distance[u, j]) if near else -1
            if near:
                chosen.append(5 + self.target[m])
            elif seen:
                j = seen[self.below(len(seen), m, CHASE, self.t)]
                chosen.append(int(np.argmax(WAYS @ way[u, j])))
            else:
                chosen.append(int(np.argmax(WAYS @ (self.goal[u] - self.position[u]))))
        return chosen

    def step(self, actions):
        orders = np.array([*actions, *self.orders()])
        before, stood = self.health + self.shield, self.alive
        aims = np.where(self.ally, self.n + orders - 5, self.n - 1 - (orders - 5))
        ways = np.where((orders < 4)[:, None], WAYS[np.minimum(orders, 3)], 0)
        for tick in range(8):
            _, distance = self.away()
            alive, harm = self.alive, np.zeros(len(orders))
            for u in np.flatnonzero(alive):
                aim = aims[u]
                hits = orders[u] >= 5 and alive[aim] and distance[u, aim] < self.figure("attack_range")[u]
                if hits and self.cooldown[u] <= 1e-6:
                    harm[aim] += self.figure("attack")[u]
                    noise = self.uniform(tick * len(orders) + u, COOLDOWN, self.t)
                    self.cooldown[u] = self.figure("cooldown")[u] - 1 / 16 + 3 / 16 * noise
                else:
                    self.cooldown[u] -= 1 / 16
            if self.c.shields:
                self.shields(alive, harm)
            moved = np.clip(self.position + ways * self.figure("speed")[:, None] / 16, 0, self.size)
            self.position[alive] = moved[alive]
            self.health = np.maximum(self.health - harm, 0)
            if self.c.walls_kill:
                self.health[((self.position <= 0) | (self.position >= self.size)).any(axis=1)] = 0
            self.shield[~self.alive] = 0
            self.push()
        self.t += 1
        loss = np.maximum(before - self.health - self.shield, 0) / self.figure("health")
        self.won = bool(self.alive[: self.n].any() and not self.alive[self.n :].any())
        shaped = loss[self.n :].sum() / self.m if self.c.reward == "shaped" else 0.0
        reward = shaped + self.c.win_bonus * self.won
        self.score += reward
        decided = not (self.alive[: self.n].any() and self.alive[self.n :].any())
        terminated = stood[: self.n] & (~self.alive[: self.n] | decided)
        truncated = stood[: self.n] & ~terminated & (self.t >= self.c.max_steps)
        self.running = not decided and self.t < self.c.max_steps
        return reward, terminated, truncated

    def shields(self, alive, harm):
        for u in np.flatnonzero(alive):
            if harm[u] > 0:
                taken = min(self.shield[u], harm[u])
                self.shield[u] -= taken
                harm[u] -= taken
                self.unhurt[u] = 0
            else:
                self.unhurt[u] += 1
                if self.unhurt[u] > 160:
                    self.shield[u] = min(self.shield[u] + 2 / 16, self.full[1][u])

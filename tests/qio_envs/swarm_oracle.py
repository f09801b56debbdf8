"""The swarm once more, one environment, in plain Python and double precision: what the kernels are compared with.

Written from the documentation of `Swarm` and its tasks alone; normals by the textbook's formula.
"""

import functools
from math import cos, dist, hypot, inf, log, pi, sin, sqrt

import numpy as np
from forest_oracle import philox

START, TARGET, PROCESS, OBSERVATION, VELOCITY = range(5)
FIVE = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]


block = functools.lru_cache(64)(philox)  # four lanes share one


def teams_of(config):
    if config.task == "cooperative":
        return [0] * config.num_agents
    if config.task == "competitive":
        return list(range(config.num_agents))
    return [0] * config.team_a + [1] * config.team_b


class SwarmOracle:
    def __init__(self, config, seed, episode=0):
        self.c, self.seed, self.episode = config, seed, episode
        self.teams = teams_of(config)
        self.agents = range(len(self.teams))
        self.t = 0
        spawn = {"disc": self.disc, "box": self.box}[config.spawn]
        self.x = [spawn(n, START, config.spawn_radius) for n in self.agents]
        self.v = [self.box(n, VELOCITY, config.spawn_speed) for n in self.agents]
        spread = config.target_spread if config.task == "cooperative" else 0.0
        self.has_target = spread > 0
        self.cue = config.cue_steps if config.task == "cooperative" else None
        self.target = self.disc(0, TARGET, spread)
        self.alive = [True for _ in self.agents]
        self.rewards = [0.0 for _ in self.agents]
        self.returns = [0.0 for _ in self.agents]
        self.clipped = 0
        self.variances = []

    # -- random numbers

    def word(self, lane, step, stream):
        counter = (lane // 4, step, self.episode, stream)
        return block(counter, (self.seed & 0xFFFFFFFF, self.seed >> 32))[lane % 4]

    def disc(self, n, stream, radius):
        share, turn = ((self.word(2 * n + k, 0, stream) >> 8) / 2**24 for k in (0, 1))
        return radius * sqrt(share) * cos(2 * pi * turn), radius * sqrt(share) * sin(2 * pi * turn)

    def box(self, n, stream, half):
        return tuple(half * (2 * (self.word(2 * n + k, 0, stream) >> 8) / 2**24 - 1) for k in (0, 1))

    def normal(self, lane, step, stream):
        first, second = (self.word(lane // 2 * 2 + k, step, stream) for k in (0, 1))
        radius = sqrt(-2 * log(((first >> 8) + 1) / 2**24))
        angle = 2 * pi * (second >> 6) / 2**26 - pi / 4
        return radius * (cos, sin)[lane % 2](angle)

    # -- step

    def living(self, besides=None):
        return [n for n in self.agents if self.alive[n] and n != besides]

    def step(self, actions):
        """Return rewards, terminated and truncated, each a list over agents."""
        c = self.c
        self.t += 1
        acting = self.living()
        for n in acting:
            a = FIVE[int(actions[n])] if c.actions == "discrete" else [float(part) for part in actions[n]]
            self.clipped += any(abs(part) > 1 for part in a)
            a = [min(max(part, -1), 1) for part in a]
            if self.t <= (self.cue or 0):
                continue
            noise = [c.process_noise * self.normal(4 * n + k, self.t, PROCESS) for k in range(4)]
            self.v[n] = tuple(c.damping * (self.v[n][k] + c.time_step * a[k]) + noise[k] for k in (0, 1))
            self.x[n] = tuple(self.x[n][k] + c.time_step * self.v[n][k] + noise[2 + k] for k in (0, 1))
        terminated = [n in acting and hypot(*self.x[n]) > c.out_radius for n in self.agents]
        truncated = [n in acting and not terminated[n] and self.t >= c.max_steps for n in self.agents]
        self.alive = [self.alive[n] and not terminated[n] for n in self.agents]
        self.rewards = [
            self.reward(n) - c.exit_penalty * terminated[n] if n in acting else 0.0 for n in self.agents
        ]
        self.returns = [total + gain for total, gain in zip(self.returns, self.rewards, strict=True)]
        living = [self.x[n] for n in self.living()]
        apart = [dist(x, np.mean(living, axis=0)) for x in living]
        self.variances.append(np.var(apart) if apart else 0.0)
        return self.rewards, terminated, truncated

    def reward(self, n):
        x = self.x
        if self.c.task == "cooperative":
            return -dist(x[n], self.target) - 0.05 * sum(dist(x[n], x[j]) for j in self.living(n))
        if self.c.task == "competitive":
            nearest = min(self.living(), key=lambda j: hypot(*x[j]), default=None)
            return 1.0 if n == nearest else -0.1
        mates = [j for j in self.living(n) if self.teams[j] == self.teams[n]]
        opponents = [j for j in self.living(n) if self.teams[j] != self.teams[n]]
        contact = sum(max(0, 2 - dist(x[n], x[j])) for j in opponents)
        return 0.05 * contact - 0.1 * sum(dist(x[n], x[j]) for j in mates)

    # -- what is seen

    def others(self, n):
        count = len(self.agents)
        around = [(n + k) % count for k in range(1, count)]
        mates = [j for j in around if self.teams[j] == self.teams[n]]
        return mates + [j for j in around if self.teams[j] != self.teams[n]]

    def observe(self):
        rows, m = [], 0
        reach = inf if self.c.sensing_range is None else self.c.sensing_range
        for n in self.agents:
            row = [*self.x[n], *self.v[n]]
            if self.c.observe == "own":
                noise = [self.normal(4 * n + k, self.t, OBSERVATION) for k in range(4)]
                row = [value + self.c.observation_noise * z for value, z in zip(row, noise, strict=True)]
            for j in self.others(n) if self.c.observe == "relative" else []:
                noise = [
                    self.c.observation_noise * self.normal(2 * m + k, self.t, OBSERVATION) for k in (0, 1)
                ]
                m += 1
                seen = dist(self.x[j], self.x[n]) < reach
                row += [(self.x[j][k] - self.x[n][k] + noise[k]) * seen for k in (0, 1)]
            if self.has_target:
                informed = self.c.informed_agents is None or n < self.c.informed_agents
                informed &= self.cue is None or self.t < self.cue
                row += [(self.target[k] - self.x[n][k]) * informed for k in (0, 1)]
            rows.append(row)
        return np.array(rows)

    def state(self):
        target = self.target if self.has_target else []
        left = 1 - self.t / self.c.max_steps
        return np.array([*np.ravel(self.x), *np.ravel(self.v), *self.alive, *target, left])

    def info(self):
        distance = [dist(self.x[n], self.target) for n in self.agents]
        living = [self.x[n] for n in self.living()]
        ours = [n for n in self.agents if self.teams[n] == 0]
        theirs = [n for n in self.agents if self.teams[n] != 0]
        returns = np.round(self.returns, 9)  # sums in another order may differ in the last bit
        if self.c.task == "cooperative":
            success = all(self.alive) and max(distance) <= 0.5
        elif self.c.task == "competitive":
            success = all(returns[0] > returns[n] for n in theirs)
        else:
            means = [np.mean(returns[team]) for team in (ours, theirs)]
            success = means[0] > means[1]
        return {
            "coordination": np.mean(self.variances) if self.variances else 0.0,
            "success": float(success),
            "distance": distance,
            "mean_distance": np.mean(distance),
            "exits": len(self.agents) - len(living),
            "team_reward": sum(self.rewards[n] for n in ours),
            "team_return": sum(self.returns[n] for n in ours),
            "total_return": sum(self.returns),
            "agent_return": self.returns,
            "clipped_actions": self.clipped,
        }

"""Drift control once more, one environment, in plain Python and double precision: what the kernels are compared with.

Written from the documentation of `DriftControl` alone; normals by the textbook's formula.
"""

import functools
from math import cos, hypot, log, pi, sin, sqrt, tanh

from forest_oracle import philox

START, PROCESS, DRIVE, DISTRACTOR = range(4)

block = functools.lru_cache(64)(philox)  # four lanes share one


class DriftOracle:
    def __init__(self, config, seed, episode=0):
        self.c, self.seed, self.episode = config, seed, episode
        self.t = 0
        self.s = [2 * (self.word(k, START) >> 8) / 2**24 - 1 for k in range(4)]
        self.d = [
            1.4 * self.sense(i) if config.sensor_shift and i % 2 == 0
            else 0.6 * self.sense(i) if config.sensor_shift
            else self.s[i % 2] + config.distractor_noise * self.sense(i)
            for i in range(config.distractors)
        ]  # fmt: skip
        self.rewards, self.distances, self.clipped = [], [], 0

    # -- random numbers

    def word(self, lane, stream):
        counter = (lane // 4, self.t, self.episode, stream)
        return block(counter, (self.seed & 0xFFFFFFFF, self.seed >> 32))[lane % 4]

    def normal(self, lane, stream):
        first, second = (self.word(lane // 2 * 2 + k, stream) for k in (0, 1))
        radius = sqrt(-2 * log(((first >> 8) + 1) / 2**24))
        angle = 2 * pi * (second >> 6) / 2**26 - pi / 4
        return radius * (cos, sin)[lane % 2](angle)

    def sense(self, i):
        return self.normal(i, DISTRACTOR)

    # -- step

    def step(self, action):
        """Return reward, terminated and truncated."""
        c = self.c
        self.t += 1
        a = (
            [int(action) // 3 - 1, int(action) % 3 - 1]
            if c.actions == "discrete"
            else [float(x) for x in action]
        )
        self.clipped += any(abs(x) > 1 for x in a)
        a0, a1 = (min(max(x, -1), 1) for x in a)
        s0, s1, s2, s3 = self.s
        after = [
            s0 + 0.1 * a0 + 0.05 * sin(s1),
            s1 + 0.1 * a1 + 0.02 * s0 * s2,
            0.9 * s2 + 0.1 * tanh(a0 + a1),
            0.95 * s3 + 0.1 * c.drive_noise * self.normal(0, DRIVE),
        ]
        self.s = [value + c.process_noise * self.normal(k, PROCESS) for k, value in enumerate(after)]
        for i in range(c.distractors):
            if c.sensor_shift:
                self.d[i] = (1.4, 0.6)[i % 2] * self.sense(i)
            else:
                self.d[i] = 0.5 * self.d[i] + 0.5 * self.s[i % 2] + c.distractor_noise * self.sense(i)
        distance = hypot(*self.s)
        self.distances.append(distance)
        self.rewards.append(-(distance**2) - c.action_cost * (a0**2 + a1**2))
        out = distance > c.out_radius
        return self.rewards[-1], out, self.t >= c.max_steps and not out

    # -- what is seen

    def observe(self):
        return [value for k, value in enumerate(self.s) if k not in self.c.hidden] + self.d

    def state(self):
        return [*self.s, 1 - self.t / self.c.max_steps]

    def info(self):
        total = sum(self.rewards)
        return {
            "team_return": total,
            "cost": -total,
            "steps": self.t,
            "distance": hypot(*self.s),
            "mean_distance": sum(self.distances) / max(self.t, 1),
            "out": float(any(distance > self.c.out_radius for distance in self.distances)),
            "clipped_actions": self.clipped,
        }

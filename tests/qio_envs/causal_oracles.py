"""The causal environments once more, one environment each, in plain Python and double precision.

Written from the documentation alone; normals by the textbook's formula.
"""

import functools
from math import cos, log, pi, sin, sqrt

from forest_oracle import philox

block = functools.lru_cache(64)(philox)  # four lanes share one


class Oracle:
    def __init__(self, config, seed, episode=0):
        self.c, self.seed, self.episode, self.t = config, seed, episode, 0
        self.rewards, self.clipped = [], 0
        self.start()

    def word(self, lane, stream, step=None):
        counter = (lane // 4, self.t if step is None else step, self.episode, stream)
        return block(counter, (self.seed & 0xFFFFFFFF, self.seed >> 32))[lane % 4]

    def normal(self, lane, stream):
        first, second = (self.word(lane // 2 * 2 + k, stream) for k in (0, 1))
        radius = sqrt(-2 * log(((first >> 8) + 1) / 2**24))
        angle = 2 * pi * (second >> 6) / 2**26 - pi / 4
        return radius * (cos, sin)[lane % 2](angle)

    def clip(self, values, limit):
        self.clipped += any(abs(value) > limit for value in values)
        return [min(max(float(value), -limit), limit) for value in values]

    @property
    def score(self):
        return sum(self.rewards)


class ChainOracle(Oracle):
    def start(self):
        self.x1, self.x2, self.x3 = 0.5 * self.normal(0, 0), 0, 0

    def step(self, action, x2=None, x3=None):
        """Return the reward and whether the episode is over; numbers given replace the equations."""
        a0, _ = self.clip(action, 1)
        n2, n3 = self.normal(1, 0), self.normal(2, 0)
        self.x2 = 0.7 * self.x1 + 0.5 * a0 + 0.3 * n2 if x2 is None else x2
        self.x3 = 0.8 * self.x2 + 0.3 * self.x1 + 0.4 * n3 if x3 is None else x3
        self.t += 1
        self.x1 = 0.5 * self.normal(0, 0)
        self.rewards.append(self.x3)
        return self.x3, self.t >= self.c.rounds

    def observe(self):
        return [self.x1, self.x2, self.x3]

    def state(self):
        return [*self.observe(), 1 - self.t / self.c.rounds]

    def info(self):
        return {
            "team_return": self.score,
            "mean_x3": self.score / max(self.t, 1),
            "rounds": self.t,
            "clipped_actions": self.clipped,
        }


class CasinoOracle(Oracle):
    followed = 0

    def start(self):
        self.drunk, self.blinking = (self.word(lane, 0) >> 31 for lane in (0, 1))
        self.intent = int(self.drunk != self.blinking)

    def step(self, machine):
        """Return the reward and whether the episode is over."""
        machine = int(machine)
        intended = machine == self.intent
        low, high = (0.2, 0.4) if self.drunk else (0.1, 0.5)
        chance = low if machine == int(self.drunk != self.blinking) else high
        paid = float((self.word(machine, 1) >> 8) / 2**24 < chance)
        self.followed += intended
        self.rewards.append(paid)
        self.t += 1
        self.start()
        return paid, self.t >= self.c.rounds

    def observe(self):
        return [float(self.c.observe_intent and self.intent == machine) for machine in (0, 1)]

    def state(self):
        return [self.drunk, self.blinking, self.intent, 1 - self.t / self.c.rounds]

    def info(self):
        return {
            "team_return": self.score,
            "payout_rate": self.score / max(self.t, 1),
            "followed_rate": self.followed / max(self.t, 1),
            "rounds": self.t,
        }


class ControlOracle(Oracle):
    def start(self):
        self.s, self.m = min(max(self.normal(0, 0), -10), 10), 0
        self.u = self.c.confounding * self.normal(0, 1)

    def step(self, action, m=None):
        """Return the reward and whether the episode is over; ``m`` replaces the mediator."""
        (a,) = self.clip(action, 2)
        self.m = a + self.c.mediator_noise * self.normal(1, 1) if m is None else m
        self.rewards.append(-(self.s**2) - self.c.action_cost * a**2)
        moved = self.s + 0.5 * self.m + self.u + self.c.process_noise * self.normal(2, 1)
        self.s = min(max(moved, -10), 10)
        self.t += 1
        self.u = self.c.confounding * self.normal(0, 1)
        return self.rewards[-1], self.t >= self.c.max_steps

    def behaviour(self):
        """Return the instrument and the action of the behaviour with the seed 0."""
        z, n = 0.3 * self.normal(0, 2), 0.1 * self.normal(1, 2)
        return z, min(max(-0.3 * self.s - self.u + z + n, -2), 2)

    def observe(self):
        return [self.s, self.m]

    def state(self):
        return [self.s, self.m, self.u, 1 - self.t / self.c.max_steps]

    def info(self):
        return {
            "team_return": self.score,
            "cost": -self.score,
            "steps": self.t,
            "distance": abs(self.s),
            "clipped_actions": self.clipped,
        }

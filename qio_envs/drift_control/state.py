"""What the kernels of drift control work on: state and rules as named tuples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qio_envs.api import FLAG, Array, Limits, Relations, clock_limits
from qio_envs.drift_control.config import COMPONENTS, DriftControlConfig


class DriftControlState(NamedTuple):
    """Arrays of drift control; ``D`` is the number of distractors."""

    seed: Array  # uint64 [E], key of the random numbers
    episode: Array  # uint32 [E], episodes since the seed was given
    step: Array  # int32 [E], steps since the reset; -1 before the first
    running: Array  # bool [E], reset and not ended
    components: Array  # float32 [E, 4], s0 to s3
    distractors: Array  # float32 [E, D]
    action: Array  # float32 [E, 2], last one after clipping; 0 at reset
    out: Array  # bool [E], has left the ball of radius out_radius
    returns: Array  # float64 [E], of the episode so far
    travel: Array  # float64 [E], distances to the origin, summed over the episode's steps
    clipped: Array  # int32 [E], actions with a component outside [-1, 1]

    @classmethod
    def empty(cls, num_envs: int, distractors: int) -> DriftControlState:
        """Return the state of environments that were never reset."""
        return cls(
            seed=np.zeros(num_envs, np.uint64),
            episode=np.zeros(num_envs, np.uint32),
            step=np.full(num_envs, -1, np.int32),
            running=np.zeros(num_envs, bool),
            components=np.zeros((num_envs, COMPONENTS), np.float32),
            distractors=np.zeros((num_envs, distractors), np.float32),
            action=np.zeros((num_envs, 2), np.float32),
            out=np.zeros(num_envs, bool),
            returns=np.zeros(num_envs),
            travel=np.zeros(num_envs),
            clipped=np.zeros(num_envs, np.int32),
        )

    @classmethod
    def limits(cls, config: DriftControlConfig) -> Limits:
        """Return what each array may hold; see `BatchedEnv.state_limits`."""
        high, steps = np.array(config.max_components), config.max_steps
        farthest = 1.001 * float(np.linalg.norm(high))  # rounding included
        return clock_limits(steps) | {
            "components": (-high, high),
            "distractors": (-config.max_distractor, config.max_distractor),
            "action": (-1, 1),
            "out": FLAG,
            "returns": (-steps * (farthest**2 + 2 * config.action_cost), 0),
            "travel": (0, steps * farthest),
            "clipped": (0, steps),
        }

    def relations(self, config: DriftControlConfig) -> Relations:
        """Return what must hold between the arrays; see `qio_envs.api.limits`.

        An intervention may lead out of the ball of radius ``out_radius``, but no component beyond that number.
        """
        ended, radius = ~self.running, config.out_radius
        inside = (np.abs(self.components) <= 1.001 * radius).all(axis=1)
        yield "components", ended | inside, f"-{radius:g} to {radius:g} each while the episode runs"
        yield "out", ended | ~self.out, "false while the episode runs"


class DriftControlRules(NamedTuple):
    """What of a configuration the kernels need; numbers are made float32 there."""

    max_steps: int
    out_radius: float
    process_noise: float
    drive_noise: float
    action_cost: float
    distractor_noise: float
    sensor_shift: bool
    visible: Array  # int64 [V], components that are observed

    @classmethod
    def of(cls, config: DriftControlConfig) -> DriftControlRules:
        """Return the rules of a configuration."""
        return cls(
            max_steps=config.max_steps,
            out_radius=config.out_radius,
            process_noise=config.process_noise,
            drive_noise=config.drive_noise,
            action_cost=config.action_cost,
            distractor_noise=config.distractor_noise,
            sensor_shift=config.sensor_shift,
            visible=np.array(config.visible, np.int64),
        )

"""What the kernels of confounded control work on: state and rules as named tuples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qio_envs.api import FLAG, Array, Limits, clock_limits
from qio_envs.confounded_control.config import ACTION_LIMIT, STATE_LIMIT, ConfoundedControlConfig


class ConfoundedControlState(NamedTuple):
    """Arrays of confounded control."""

    seed: Array  # uint64 [E], key of the random numbers
    episode: Array  # uint32 [E], episodes since the seed was given
    step: Array  # int32 [E], steps since the reset; -1 before the first
    running: Array  # bool [E], reset and not ended
    s: Array  # float32 [E]
    u: Array  # float32 [E], hidden, of the step to come
    mediator: Array  # float32 [E], of the last step; 0 at reset
    fixed: Array  # bool [E], whether the mediator of the step to come is set from outside
    fixed_mediator: Array  # float32 [E], to what
    action: Array  # float32 [E], last one after clipping; 0 at reset
    returns: Array  # float64 [E], of the episode so far
    clipped: Array  # int32 [E], actions outside [-2, 2]

    @classmethod
    def empty(cls, num_envs: int) -> ConfoundedControlState:
        """Return the state of environments that were never reset."""
        return cls(
            seed=np.zeros(num_envs, np.uint64),
            episode=np.zeros(num_envs, np.uint32),
            step=np.full(num_envs, -1, np.int32),
            running=np.zeros(num_envs, bool),
            s=np.zeros(num_envs, np.float32),
            u=np.zeros(num_envs, np.float32),
            mediator=np.zeros(num_envs, np.float32),
            fixed=np.zeros(num_envs, bool),
            fixed_mediator=np.zeros(num_envs, np.float32),
            action=np.zeros(num_envs, np.float32),
            returns=np.zeros(num_envs),
            clipped=np.zeros(num_envs, np.int32),
        )

    @classmethod
    def limits(cls, config: ConfoundedControlConfig) -> Limits:
        """Return what each array may hold; see `BatchedEnv.state_limits`."""
        mediator, confounder = config.max_mediator, config.max_confounder
        cost = 1.001 * (STATE_LIMIT**2 + config.action_cost * ACTION_LIMIT**2)  # of a step, rounding included
        return clock_limits(config.max_steps) | {
            "s": (-STATE_LIMIT, STATE_LIMIT),
            "u": (-confounder, confounder),
            "mediator": (-mediator, mediator),
            "fixed": FLAG,
            "fixed_mediator": (-mediator, mediator),
            "action": (-ACTION_LIMIT, ACTION_LIMIT),
            "returns": (-config.max_steps * cost, 0),
            "clipped": (0, config.max_steps),
        }


class ConfoundedControlRules(NamedTuple):
    """What of a configuration the kernels need; numbers are made float32 there."""

    max_steps: int
    confounding: float
    mediator_noise: float
    process_noise: float
    action_cost: float

    @classmethod
    def of(cls, config: ConfoundedControlConfig) -> ConfoundedControlRules:
        """Return the rules of a configuration."""
        return cls(
            max_steps=config.max_steps,
            confounding=config.confounding,
            mediator_noise=config.mediator_noise,
            process_noise=config.process_noise,
            action_cost=config.action_cost,
        )

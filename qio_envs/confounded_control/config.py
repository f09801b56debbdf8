"""Settings of confounded control."""

from __future__ import annotations

import dataclasses

from qio_envs.api import EnvConfig, setting
from qio_envs.api.random import MAX_NORMAL

EFFECT = 0.5
"""What the state gains by a unit of the mediator, and so by a unit of the action."""
ACTION_LIMIT, STATE_LIMIT = 2.0, 10.0
"""Magnitudes at which the action and the state are clipped."""
FEEDBACK, INSTRUMENT, BEHAVIOUR_NOISE = -0.3, 0.3, 0.1
"""Of the behaviour that was logged: gain on the state, standard deviations of the instrument and of its own noise."""
_SLACK = 1.001  # float32 rounding must not lead out of a space


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConfoundedControlConfig(EnvConfig):
    """Settings of `ConfoundedControl`; see there for what each does."""

    max_steps: int = setting(50, "time limit of an episode, steps", low=1, high=1_000_000)
    confounding: float = setting(
        0.5, "standard deviation of the hidden variable u; 0 for no confounding", low=0.0, high=10.0
    )
    mediator_noise: float = setting(
        0.3, "standard deviation of what the mediator differs by from the action", low=0.0, high=10.0
    )
    process_noise: float = setting(
        0.1, "standard deviation of what the state gains a step of its own", low=0.0, high=10.0
    )
    action_cost: float = setting(
        0.1, "taken from the reward for each unit of the action's square", low=0.0, high=100.0
    )

    @property
    def max_mediator(self) -> float:
        """Bound on the magnitude of the mediator."""
        return _SLACK * (ACTION_LIMIT + MAX_NORMAL * self.mediator_noise)

    @property
    def max_confounder(self) -> float:
        """Bound on the magnitude of u."""
        return _SLACK * MAX_NORMAL * self.confounding

"""Settings of drift control."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from qio_envs.api import ConfigError, EnvConfig, setting
from qio_envs.api.random import MAX_NORMAL

COMPONENTS = 4
"""Number of components of the state, s0 to s3."""
DIRECTIONS = np.array([[x, y] for x in (-1, 0, 1) for y in (-1, 0, 1)], np.float32)
"""What the discrete actions are as continuous ones, ``[9, 2]``."""
STEP, SINE, PRODUCT, DECAY_2, DECAY_3 = 0.1, 0.05, 0.02, 0.9, 0.95
"""Coefficients of the dynamics, see `DriftControl`."""
DISTRACTOR_MEMORY = 0.5
"""Autoregressive coefficient of a distractor."""
DISTRACTOR_SCALES = (1.4, 0.6)
"""Distractor i follows s0 or s1, component ``i % 2``. If it is noise, its standard deviation is this number: the
component's root mean square in random play with the default settings, rounded."""
_SLACK = 1.001  # float32 rounding must not lead out of a space


@dataclasses.dataclass(frozen=True, kw_only=True)
class DriftControlConfig(EnvConfig):
    """Settings of `DriftControl`; see there for what each does."""

    max_steps: int = setting(200, "time limit of an episode, steps", low=1, high=1_000_000)
    out_radius: float = setting(
        3.0, "Euclidean norm of the state beyond which the episode terminates", low=2.0, high=100.0
    )
    process_noise: float = setting(
        0.02, "standard deviation of what each component gains a step", low=0.0, high=1.0
    )
    drive_noise: float = setting(
        0.1,
        "standard deviation of the noise that drives s3, which gains a tenth of it a step",
        low=0.0,
        high=10.0,
    )
    action_cost: float = setting(
        0.01, "taken from the reward for each unit of the action's square", low=0.0, high=100.0
    )
    actions: str = setting("continuous", "kind of action", choices=("continuous", "discrete"))
    hidden: tuple[int, ...] = setting((), "components that are not observed, increasing", low=0, high=3)
    distractors: int = setting(
        0, "further numbers in the observation, on which nothing depends", low=0, high=256
    )
    distractor_noise: float = setting(
        0.05, "standard deviation of what a distractor gains a step of its own", low=0.0, high=10.0
    )
    sensor_shift: bool = setting(
        False, "whether distractors are noise and no longer follow components of the state"
    )

    def validate(self) -> None:
        """Refuse observations without components, components named twice, and a shift of no distractors."""
        if list(self.hidden) != sorted(set(self.hidden)):
            raise ConfigError(f"hidden: expected increasing component indices, got {list(self.hidden)}")
        if len(self.hidden) == COMPONENTS:
            raise ConfigError(
                "hidden: at least one of the components 0 to 3 must be observed, got all of them"
            )
        if self.sensor_shift and self.distractors == 0:
            raise ConfigError(
                "sensor_shift: there are no distractors to become noise; allowed: false, or distractors above 0"
            )

    @property
    def visible(self) -> tuple[int, ...]:
        """Components that are observed, increasing."""
        return tuple(index for index in range(COMPONENTS) if index not in self.hidden)

    @property
    def observation_layout(self) -> dict[str, slice]:
        """Where each part of an observation lies, by name."""
        seen = len(self.visible)
        layout = {"components": slice(0, seen)}
        return layout | ({"distractors": slice(seen, seen + self.distractors)} if self.distractors else {})

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return len(self.visible) + self.distractors

    @property
    def state_layout(self) -> dict[str, slice]:
        """Where each part of the global state lies, by name."""
        return {"components": slice(0, COMPONENTS), "time_left": slice(COMPONENTS, COMPONENTS + 1)}

    @property
    def component_names(self) -> tuple[str, ...]:
        """Names of the components, as interventions and the causal graph use them."""
        return tuple(f"s{index}" for index in range(COMPONENTS))

    @property
    def distractor_names(self) -> tuple[str, ...]:
        """Names of the distractors."""
        return tuple(f"d{index}" for index in range(self.distractors))

    @property
    def action_names(self) -> tuple[str, ...]:
        """Names of the actions in the causal graph: two numbers, or one choice."""
        return ("a0", "a1") if self.actions == "continuous" else ("a",)

    @property
    def max_intervention(self) -> float:
        """Bound on the magnitude of a component that is set from outside: a step leads from there into the spaces."""
        return self.out_radius / math.sqrt(2)

    @property
    def max_components(self) -> tuple[float, float, float, float]:
        """Bound on the magnitude of each component, those with which an episode terminates included."""
        radius, noise = self.out_radius, MAX_NORMAL * self.process_noise
        drive = STEP * MAX_NORMAL * self.drive_noise
        return (
            _SLACK * (radius + STEP + SINE + noise),
            _SLACK * (radius + STEP + PRODUCT * radius**2 / 2 + noise),
            _SLACK * (DECAY_2 * radius + STEP + noise),
            _SLACK * (DECAY_3 * radius + drive + noise),
        )

    @property
    def max_distractor(self) -> float:
        """Bound on the magnitude of a distractor."""
        if self.sensor_shift:
            return _SLACK * MAX_NORMAL * max(DISTRACTOR_SCALES)
        own = MAX_NORMAL * self.distractor_noise / (1 - DISTRACTOR_MEMORY)
        return max(self.max_components[: len(DISTRACTOR_SCALES)]) + _SLACK * own

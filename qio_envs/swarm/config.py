"""Settings of the swarm's three tasks."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from qio_envs.api import ConfigError, EnvConfig, setting
from qio_envs.api.random import MAX_NORMAL

TASKS = ("cooperative", "competitive", "mixed")
ACCELERATIONS = np.array([[0, 0], [1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
"""What the discrete actions stay, +x, -x, +y, -y are as continuous ones, ``[5, 2]``."""
SUCCESS_DISTANCE = 0.5
"""Distance to the target within which the cooperative task counts as solved, units of length."""
_SLACK = 1.001  # float32 rounding must not lead out of a space
_MAX_AGENTS = 100


@dataclasses.dataclass(frozen=True, kw_only=True)
class SwarmConfig(EnvConfig):
    """What the tasks have in common; see `Swarm` for what each setting does."""

    task: ClassVar[str]
    """Name of the task: the key of its scenarios in ``scenarios.yaml``."""

    max_steps: int = setting(200, "time limit of an episode, steps", low=1, high=1_000_000)
    spawn: str = setting(
        "disc", "where agents start: in a disc or a square around the origin", choices=("disc", "box")
    )
    spawn_radius: float = setting(
        2.0, "radius of that disc, or half the side of that square, units of length", low=0.0, high=100.0
    )
    spawn_speed: float = setting(
        0.0,
        "bound of each component of the velocity at the start, units of length a unit of time",
        low=0.0,
        high=100.0,
    )
    out_radius: float = setting(
        5.0, "distance from the origin beyond which an agent is out, units of length", low=0.1, high=100.0
    )
    process_noise: float = setting(
        0.02, "standard deviation of what each component of velocity and position gains a step",
        low=0.0, high=1.0,
    )  # fmt: skip
    time_step: float = setting(
        0.1, "time that passes in a step, units of time", low=0.001, high=1.0, added=True
    )
    damping: float = setting(
        0.9, "factor by which each velocity is multiplied in a step", low=0.0, high=0.99, added=True
    )
    observe: str = setting(
        "relative",
        "what agents observe: themselves exactly and the others with noise, or themselves alone with noise",
        choices=("relative", "own"),
    )
    observation_noise: float = setting(
        0.1, "standard deviation of each number that is observed with noise", low=0.0, high=10.0
    )
    sensing_range: float | None = setting(
        None, "distance within which others are seen; 0 for nobody, null for no limit", low=0.0, high=1000.0
    )
    exit_penalty: float = setting(
        0.0, "taken from the reward of the step in which an agent leaves", low=0.0, high=1e6
    )
    actions: str = setting("continuous", "kind of action", choices=("continuous", "discrete"))

    def validate(self) -> None:
        """Refuse starts outside the arena, and a range of sight where nobody is seen anyway."""
        if self.spawn == "box" and self.spawn_radius * 2**0.5 > self.out_radius:
            raise ConfigError(
                f"spawn_radius: the corners of a square of half side {self.spawn_radius:g} lie outside out_radius "
                f"{self.out_radius:g}; allowed with spawn box: 0 to {self.out_radius / 2**0.5:.4g}"
            )
        if self.spawn_radius > self.out_radius:
            raise ConfigError(
                f"spawn_radius: {self.spawn_radius:g} is more than out_radius {self.out_radius:g}; "
                f"allowed: 0 to {self.out_radius:g}"
            )
        if self.observe == "own" and self.sensing_range is not None:
            raise ConfigError(
                f"sensing_range: {self.sensing_range:g} has no meaning with observe own, which shows no others; "
                "allowed: null"
            )

    @classmethod
    def scenarios(cls) -> dict[str, dict[str, Any]]:
        """Return the task's named settings, by scenario name."""
        return {name: dict(values) for name, values in super().scenarios()[cls.task].items()}

    @property
    def team_sizes(self) -> tuple[int, ...]:
        """Agents in each team, the first agents' team first; the score is that of the first team."""
        raise NotImplementedError

    @property
    def has_target(self) -> bool:
        """Whether the point that counts is drawn at reset, and shown to those who are informed."""
        return self.target_radius > 0

    @property
    def target_radius(self) -> float:
        """Radius of the disc in which the point that counts is drawn; 0 for the origin."""
        return 0.0

    @property
    def num_informed(self) -> int:
        """How many agents, the first ones, observe a target that is drawn."""
        return sum(self.team_sizes)

    @property
    def held_steps(self) -> int:
        """Steps at the start in which nobody moves, the only ones in which the target is observed; 0 for no such."""
        return 0

    @property
    def max_speed(self) -> float:
        """Bound on each component of a velocity, units of length a unit of time."""
        gain = self.damping * self.time_step + MAX_NORMAL * self.process_noise
        return _SLACK * max(gain / (1 - self.damping), self.spawn_speed)

    @property
    def max_position(self) -> float:
        """Bound on each component of a position, that of an agent that has just left included."""
        step = self.time_step * self.max_speed + MAX_NORMAL * self.process_noise
        return _SLACK * (self.out_radius + step)

    @property
    def observation_layout(self) -> dict[str, slice]:
        """Where each part of an observation lies, by name."""
        others = 4 if self.observe == "own" else 4 + 2 * (sum(self.team_sizes) - 1)
        layout = {"position": slice(0, 2), "velocity": slice(2, 4)}
        layout |= {"others": slice(4, others)} if self.observe == "relative" else {}
        if self.has_target:
            layout["target"] = slice(others, others + 2)
        return layout

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return max(part.stop for part in self.observation_layout.values())

    @property
    def state_layout(self) -> dict[str, slice]:
        """Where each part of the global state lies, by name."""
        agents = sum(self.team_sizes)
        sizes = {"position": 2 * agents, "velocity": 2 * agents, "alive": agents}
        sizes |= {"target": 2} if self.has_target else {}
        layout, start = {}, 0
        for name, size in (sizes | {"time_left": 1}).items():
            layout[name] = slice(start, start + size)
            start += size
        return layout


@dataclasses.dataclass(frozen=True, kw_only=True)
class CooperativeConfig(SwarmConfig):
    """Settings of `CooperativeSwarm`."""

    task: ClassVar[str] = "cooperative"

    num_agents: int = setting(3, "number of agents", low=1, high=_MAX_AGENTS)
    target_spread: float = setting(
        0.0, "radius of the disc in which the target is drawn at reset; 0 for the origin", low=0.0, high=100.0
    )
    informed_agents: int | None = setting(
        None, "how many agents, the first ones, see the target; null for all", low=0
    )
    cue_steps: int | None = setting(
        None, "steps at the start in which the target is shown and nobody moves; null for always shown", low=1
    )

    def validate(self) -> None:
        """Refuse targets outside the arena and more informed agents than agents."""
        super().validate()
        if self.target_spread > self.out_radius:
            raise ConfigError(
                f"target_spread: {self.target_spread:g} is more than out_radius {self.out_radius:g}; "
                f"allowed: 0 to {self.out_radius:g}"
            )
        if self.informed_agents is not None and self.informed_agents > self.num_agents:
            raise ConfigError(
                f"informed_agents: {self.informed_agents} is more than num_agents {self.num_agents}; "
                f"allowed: 0 to {self.num_agents} or null"
            )
        if self.cue_steps is not None and not self.has_target:
            raise ConfigError(
                "cue_steps: there is no target to show; allowed: null, or target_spread above 0"
            )
        if self.cue_steps is not None and self.cue_steps >= self.max_steps:
            raise ConfigError(
                f"cue_steps: {self.cue_steps} is not less than max_steps {self.max_steps}; "
                f"allowed: 1 to {self.max_steps - 1} or null"
            )

    @property
    def team_sizes(self) -> tuple[int, ...]:
        """One team of all."""
        return (self.num_agents,)

    @property
    def target_radius(self) -> float:
        """Radius of the disc in which the target is drawn."""
        return self.target_spread

    @property
    def num_informed(self) -> int:
        """How many agents observe the target."""
        return self.num_agents if self.informed_agents is None else self.informed_agents

    @property
    def held_steps(self) -> int:
        """Steps of the cue."""
        return self.cue_steps or 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompetitiveConfig(SwarmConfig):
    """Settings of `CompetitiveSwarm`."""

    task: ClassVar[str] = "competitive"

    num_agents: int = setting(3, "number of agents", low=2, high=_MAX_AGENTS)

    @property
    def team_sizes(self) -> tuple[int, ...]:
        """Each agent for itself."""
        return (1,) * self.num_agents


@dataclasses.dataclass(frozen=True, kw_only=True)
class MixedConfig(SwarmConfig):
    """Settings of `MixedSwarm`."""

    task: ClassVar[str] = "mixed"

    team_a: int = setting(2, "agents in team A, whose return is the score", low=1, high=_MAX_AGENTS // 2)
    team_b: int = setting(2, "agents in team B", low=1, high=_MAX_AGENTS // 2)

    @property
    def team_sizes(self) -> tuple[int, ...]:
        """Teams A and B."""
        return self.team_a, self.team_b

"""Settings of the skirmish, and the figures of its units."""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple

from qio_envs.api import ConfigError, EnvConfig, did_you_mean, setting


class UnitType(NamedTuple):
    """Figures of a type of unit."""

    letter: str  # how pictures name it
    speed: float  # units of length a second
    attack: float  # health that a hit takes
    attack_range: float  # units of length
    sight_range: float  # units of length
    radius: float  # units of length
    health: float  # at the start
    cooldown: float  # seconds from one shot to the next, the random part apart
    shield: float  # part of `health` that is a shield where shields are on


UNITS = {
    "marine": UnitType("m", 3.15, 9, 5, 9, 0.375, 45, 0.61, 0),
    "marauder": UnitType("M", 2.25, 10, 6, 10, 0.5625, 125, 1.07, 0),
    "stalker": UnitType("s", 4.13, 13, 6, 10, 0.625, 160, 1.87, 80),
    "zealot": UnitType("Z", 3.15, 8, 2, 9, 0.5, 150, 0.86, 50),
    "zergling": UnitType("z", 4.13, 5, 2, 8, 0.375, 35, 0.5, 0),
    "hydralisk": UnitType("h", 3.15, 12, 5, 9, 0.625, 80, 0.59, 0),
}
"""Types of units by name, in the order in which observations have them; SMAX's figures, shields apart."""
RANDOM = "random"
"""In the place of a type: drawn for each episode."""
MOVES = ((0, 1), (1, 0), (0, -1), (-1, 0))
"""Directions of the actions 0 to 3: up, right, down, left."""
STOP = len(MOVES)
FIRST_ATTACK = STOP + 1
"""Action `FIRST_ATTACK + k` attacks enemy k."""
TICKS, TICK = 8, 1 / 16
"""Ticks in a step, and seconds in a tick."""
COOLDOWN_NOISE = (-TICK, 2 * TICK)
"""Range of the random part of a cooldown, seconds."""
SCATTER = 2.0
"""Largest distance along each axis of a unit from the place of its group at the start, units of length."""
SHIELD_DELAY, SHIELD_RATE = 10.0, 2.0
"""Seconds without a hit after which a shield recovers, and what it then gains a second."""
STARTS = ("sides", "smacv2")
HEURISTIC, AGENTS = "heuristic", "agents"
_MAX_UNITS = 100  # in a team
_MAX_COVER = 0.5  # share of the map that units may cover
_SLACK = 1.001  # float32 rounding must not lead out of a space


@dataclasses.dataclass(frozen=True, kw_only=True)
class SkirmishConfig(EnvConfig):
    """Teams, map, time and rewards of `Skirmish`; see there for what each setting does."""

    allies: str = setting(
        "2 stalker, 3 zealot", f"units of the agents: numbers with one of {', '.join(UNITS)}, {RANDOM}"
    )
    enemies: str = setting("2 stalker, 3 zealot", "units of the enemy, likewise")
    start: str = setting(
        "sides",
        "where units start: each team on its side, or as in SMACv2 mirrored or one team around the other",
        choices=STARTS,
    )
    max_steps: int = setting(101, "time limit of an episode, steps of half a second", low=1, high=1_000_000)
    map_width: int = setting(32, "width of the map, units of length", low=8, high=1024)
    map_height: int = setting(32, "height of the map, units of length", low=8, high=1024)
    walls_kill: bool = setting(True, "whether a unit that touches the border of the map dies")
    see_enemy_actions: bool = setting(True, "whether observations show what enemies did in the last step")
    reward: str = setting(
        "shaped", "what is rewarded: damage and the win, or the win alone", choices=("shaped", "sparse")
    )
    win_bonus: float = setting(1.0, "reward of the win", low=0.0, high=1e6)
    shields: bool = setting(False, "whether stalkers and zealots have a part of their health as a shield")
    enemy: str = setting(
        HEURISTIC,
        "who commands the enemy: SMAX's heuristic, or agents of its own, for self-play",
        choices=(HEURISTIC, AGENTS),
        added=True,
    )

    def validate(self) -> None:
        """Refuse teams that cannot be, and maps that are too small for them."""
        for key in ("allies", "enemies"):
            _parsed(key, getattr(self, key))
        largest = max(unit.radius for unit in UNITS.values())
        types = list(UNITS.values())
        radii = [
            types[kind].radius if kind < len(types) else largest
            for kind in (*self.ally_types, *self.enemy_types)
        ]
        covered, area = sum(math.pi * radius**2 for radius in radii), self.map_width * self.map_height
        if covered > _MAX_COVER * area:
            raise ConfigError(
                f"map_width: the {len(radii)} units cover {covered:.4g} of the {area} square units of length of a "
                f"{self.map_width} x {self.map_height} map; allowed: up to {_MAX_COVER:.0%}"
            )
        if not self.win_bonus and self.reward == "sparse":
            raise ConfigError("win_bonus: 0 with reward sparse leaves nothing to earn; allowed: above 0")

    @property
    def ally_types(self) -> tuple[int, ...]:
        """Type of each ally: index in `UNITS`, or their number where it is drawn."""
        return _parsed("allies", self.allies)

    @property
    def enemy_types(self) -> tuple[int, ...]:
        """Type of each enemy, likewise."""
        return _parsed("enemies", self.enemies)

    @property
    def max_position(self) -> float:
        """Distance beyond the border of the map at which a unit's middle can never be, units of length.

        A unit starts at most `SCATTER` outside, moves to the border only, and is pushed by each other unit by half the
        sum of their radii at most.
        """
        others = len(self.ally_types) + len(self.enemy_types) - 1
        return _SLACK * (SCATTER + others * max(unit.radius for unit in UNITS.values()))

    @property
    def cooldown_range(self) -> tuple[float, float]:
        """Least and greatest cooldown of a unit, seconds."""
        longest = max(unit.cooldown for unit in UNITS.values())
        return -_SLACK * TICKS * TICK * self.max_steps, longest + COOLDOWN_NOISE[1]

    @property
    def unit_size(self) -> int:
        """Numbers of another unit in an observation."""
        return 7 + len(UNITS) + self.shields

    @property
    def own_size(self) -> int:
        """Numbers of the agent's own unit in an observation, and of each unit in the global state."""
        return 4 + len(UNITS) + self.shields

    @property
    def num_actions(self) -> int:
        """Number of actions: those of the side that has more, where both are agents."""
        allies, enemies = len(self.ally_types), len(self.enemy_types)
        return FIRST_ATTACK + (max(allies, enemies) if self.enemy == AGENTS else enemies)

    @property
    def observation_layout(self) -> dict[str, slice]:
        """Where each part of an ally's observation lies, by name."""
        return self._seen(len(self.ally_types), len(self.enemy_types))

    @property
    def enemy_observation_layout(self) -> dict[str, slice]:
        """Likewise of an enemy that is an agent: ``allies`` are of its own side."""
        return self._seen(len(self.enemy_types), len(self.ally_types))

    def _seen(self, own: int, others: int) -> dict[str, slice]:
        return _layout(allies=(own - 1) * self.unit_size, enemies=others * self.unit_size, own=self.own_size)

    @property
    def observation_size(self) -> int:
        """Length of an observation."""
        return self.observation_layout["own"].stop

    @property
    def state_layout(self) -> dict[str, slice]:
        """Where each part of the global state lies, by name."""
        units = len(self.ally_types) + len(self.enemy_types)
        return _layout(units=units * self.own_size, teams=units, types=units)

    @property
    def state_size(self) -> int:
        """Length of the global state."""
        return self.state_layout["types"].stop


def _layout(**sizes: int) -> dict[str, slice]:
    layout, start = {}, 0
    for name, size in sizes.items():
        layout[name] = slice(start, start + size)
        start += size
    return layout


def _parsed(key: str, text: str) -> tuple[int, ...]:
    """Return the types of a team such as ``2 stalker, 3 zealot``: indices in `UNITS`, their number for ``random``.

    Raises:
        ConfigError: The text names no team; the message names ``key``.
    """
    names = [*UNITS, RANDOM]
    types: list[int] = []
    for part in text.split(","):
        number, _, name = part.strip().partition(" ")
        if not (number.isascii() and number.isdigit()) or not name:
            raise ConfigError(
                f"{key}: expected numbers and types of units, as in '2 stalker, 3 zealot', got {text!r}"
            )
        if name not in names:
            raise ConfigError(
                f"{key}: unknown type of unit '{name}'{did_you_mean(name, names)}; allowed: {', '.join(names)}"
            )
        count = int(number)
        if not 1 <= count <= _MAX_UNITS:
            raise ConfigError(f"{key}: expected 1 to {_MAX_UNITS} units of a type, got {count} {name}")
        types += [names.index(name)] * count
    if len(types) > _MAX_UNITS:
        raise ConfigError(f"{key}: expected 1 to {_MAX_UNITS} units in a team, got {len(types)}")
    return tuple(types)

"""What the kernels of the skirmish work on: state and rules as named tuples."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qio_envs.api import FLAG, Array, Limits, Relations, clock_limits
from qio_envs.skirmish.config import AGENTS, FIRST_ATTACK, STOP, TICKS, UNITS, SkirmishConfig


class SkirmishState(NamedTuple):
    """Arrays of the skirmish; ``U`` units are ``N`` allies, then ``M`` enemies. The dead stay where they fell."""

    seed: Array  # uint64 [E], key of the random numbers
    episode: Array  # uint32 [E], episodes since the seed was given
    step: Array  # int32 [E], steps since the reset; -1 before the first
    running: Array  # bool [E], reset and not ended
    kind: Array  # uint8 [E, U], type of the unit, index in UNITS
    position: Array  # float32 [E, 2, U], x to the right and y upwards, units of length
    health: Array  # float32 [E, U], 0 for the dead
    shield: Array  # float32 [E, U], 0 where shields are off
    alive: Array  # bool [E, U]
    cooldown: Array  # float32 [E, U], seconds until the unit can shoot; negative afterwards
    unhurt: Array  # int32 [E, U], ticks since the last hit; counted where shields are on
    action: Array  # int16 [E, U], of the last step, moves as allies see them; STOP at the reset
    goal: Array  # float32 [E, M, 2], where an enemy that sees nobody goes: its start, mirrored at the middle
    target: Array  # int16 [E, M], what an enemy shot at last, counted from the last ally backwards; -1 for nothing
    won: Array  # bool [E], all enemies are dead and not all allies
    team_reward: Array  # float32 [E], of the last step
    team_return: Array  # float64 [E], of the episode so far
    enemy_return: Array  # float64 [E], likewise of enemies that are agents; else 0

    @classmethod
    def empty(cls, num_envs: int, num_allies: int, num_enemies: int) -> SkirmishState:
        """Return the state of environments that were never reset."""
        units = num_allies + num_enemies
        return cls(
            seed=np.zeros(num_envs, np.uint64),
            episode=np.zeros(num_envs, np.uint32),
            step=np.full(num_envs, -1, np.int32),
            running=np.zeros(num_envs, bool),
            kind=np.zeros((num_envs, units), np.uint8),
            position=np.zeros((num_envs, 2, units), np.float32),
            health=np.zeros((num_envs, units), np.float32),
            shield=np.zeros((num_envs, units), np.float32),
            alive=np.zeros((num_envs, units), bool),
            cooldown=np.zeros((num_envs, units), np.float32),
            unhurt=np.zeros((num_envs, units), np.int32),
            action=np.full((num_envs, units), STOP, np.int16),
            goal=np.zeros((num_envs, num_enemies, 2), np.float32),
            target=np.full((num_envs, num_enemies), -1, np.int16),
            won=np.zeros(num_envs, bool),
            team_reward=np.zeros(num_envs, np.float32),
            team_return=np.zeros(num_envs),
            enemy_return=np.zeros(num_envs),
        )

    @classmethod
    def limits(cls, config: SkirmishConfig) -> Limits:
        """Return what each array may hold; see `BatchedEnv.state_limits`."""
        rules = SkirmishRules.of(config)
        allies, enemies = rules.num_allies, len(rules.types) - rules.num_allies
        size, beyond = np.array([config.map_width, config.map_height]), config.max_position
        opponents = np.repeat([enemies, allies], [allies, enemies])
        reward = 1.001 + config.win_bonus  # rounding included
        return clock_limits(config.max_steps) | {
            "kind": (0, len(UNITS) - 1),
            "position": (-beyond, (size + beyond)[:, None]),
            "health": (0, rules.health.max()),
            "shield": (0, rules.shield.max()),
            "alive": FLAG,
            "cooldown": config.cooldown_range,
            "unhurt": (0, TICKS * config.max_steps),
            "action": (0, FIRST_ATTACK + opponents - 1),
            "goal": (-beyond, size + beyond),
            "target": (-1, allies - 1),
            "won": FLAG,
            "team_reward": (0, reward),
            "team_return": (0, config.max_steps * reward),
            "enemy_return": (0, config.max_steps * reward * rules.enemy_agents),
        }

    def relations(self, rules: SkirmishRules) -> Relations:
        """Return what must hold between the arrays; see `qio_envs.api.limits`."""
        drawn = rules.types == len(UNITS)
        yield "kind", (drawn | (self.kind == rules.types)).all(axis=1), "the types of units of the two teams"
        full, shield = rules.health[self.kind], rules.shield[self.kind]
        yield "health", (self.health <= full).all(axis=1), "at most what the unit's type has"
        yield (
            "shield",
            (self.shield <= shield * self.alive).all(axis=1),
            "at most what the unit's type has; 0 if dead",
        )
        yield (
            "alive",
            (self.alive == (self.health > 0)).all(axis=1),
            "true for units with health, and for no others",
        )
        ours = self.alive[:, : rules.num_allies].any(axis=1)
        theirs = self.alive[:, rules.num_allies :].any(axis=1)
        yield "running", ~self.running | (ours & theirs), "false where a team is dead"
        yield "won", ~self.won | (ours & ~theirs), "false unless all enemies are dead and an ally lives"


class SkirmishRules(NamedTuple):
    """What of a configuration the kernels need; arrays by type of unit are float32 ``[6]``."""

    num_allies: int
    enemy_agents: bool  # whether enemies are agents too
    types: Array  # int64 [U], index in UNITS, or their number where the type is drawn
    smacv2_start: bool
    max_steps: int
    width: float
    height: float
    walls_kill: bool
    see_enemy_actions: bool
    shaped: bool
    win_bonus: float
    shields: bool
    speed: Array
    attack: Array
    attack_range: Array
    sight_range: Array
    radius: Array
    health: Array  # without the shield
    shield: Array
    reload: Array  # seconds from one shot to the next, the random part apart

    @classmethod
    def of(cls, config: SkirmishConfig) -> SkirmishRules:
        """Return the rules of a configuration."""

        def by_type(name: str) -> Array:
            return np.array([getattr(unit, name) for unit in UNITS.values()], np.float32)

        shield = by_type("shield") * np.float32(config.shields)
        return cls(
            num_allies=len(config.ally_types),
            enemy_agents=config.enemy == AGENTS,
            types=np.array(config.ally_types + config.enemy_types),
            smacv2_start=config.start == "smacv2",
            max_steps=config.max_steps,
            width=float(config.map_width),
            height=float(config.map_height),
            walls_kill=config.walls_kill,
            see_enemy_actions=config.see_enemy_actions,
            shaped=config.reward == "shaped",
            win_bonus=config.win_bonus,
            shields=config.shields,
            speed=by_type("speed"),
            attack=by_type("attack"),
            attack_range=by_type("attack_range"),
            sight_range=by_type("sight_range"),
            radius=by_type("radius"),
            health=by_type("health") - shield,
            shield=shield,
            reload=by_type("cooldown"),
        )

"""World with communication: tag with food, forests to hide in, and a leader of the adversaries who sees and speaks."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from numba import njit

from qio_envs.api import Array, ScriptedPolicy, setting
from qio_envs.api.policies import RandomPolicy
from qio_envs.mpe.config import MAX_ENTITIES, ParticleConfig
from qio_envs.mpe.env import ParticleEnv
from qio_envs.mpe.kernels import (
    boundary_price,
    distance_between,
    put_offset,
    put_offsets,
    put_row,
    put_zeros,
    touch,
)
from qio_envs.mpe.policies import PlannedPolicy, flight, gaps, picked, pursuit
from qio_envs.mpe.state import ParticleState, World, world_of
from qio_envs.mpe.tag import ACCELERATIONS, HUNTER, OBSTACLE, SPAWN, SPEEDS
from qio_envs.mpe.viewer import FOOD, FOREST, LANDMARK

_PREY, _FOOD, _FOREST = 0.045, 0.03, 0.3  # radii
_SYMBOLS = 4
_CAUGHT = 5.0  # price of a contact between an adversary and a good agent
_EATEN = 2.0  # reward for touching food
_HUNGER = 0.05  # price of a unit of distance to the nearest food
_LAG = 0.1  # price of a unit of an adversary's distance to the nearest good agent
_DANGER = 0.5  # distance from the nearest adversary within which good agents rather flee than eat


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorldCommConfig(ParticleConfig):
    """Settings of `WorldComm`."""

    task: ClassVar[str] = "world_comm"

    num_good: int = setting(2, "number of good agents", low=1, high=MAX_ENTITIES)
    num_adversaries: int = setting(
        4, "number of adversaries, of which the first is the leader", low=1, high=MAX_ENTITIES
    )
    num_obstacles: int = setting(1, "number of obstacles", low=0, high=MAX_ENTITIES)
    num_food: int = setting(2, "number of pieces of food", low=1, high=MAX_ENTITIES)
    num_forests: int = setting(2, "number of forests", low=0, high=MAX_ENTITIES)


@njit(cache=True, error_model="numpy")
def reward(state: ParticleState, world: World, first_food: int, first_forest: int, rewards: Array) -> None:
    """Write the rewards, float32 ``[E, N]``; tally contacts, food, and adversaries' distances to good agents."""
    agents, hunters, radius = world.movable.shape[0], world.adversaries, world.radius
    for e in range(rewards.shape[0]):
        position = state.position[e]
        contacts, eaten, lag = 0, 0, 0.0
        for n in range(hunters, agents):
            caught, meals, nearest = 0, 0, np.inf
            for hunter in range(hunters):
                caught += touch(position, radius, n, hunter)
            for food in range(first_food, first_forest):
                meals += touch(position, radius, n, food)
                nearest = min(nearest, distance_between(position, n, food))
            price = _CAUGHT * caught + 2.0 * boundary_price(position, n) + _HUNGER * nearest
            rewards[e, n] = _EATEN * meals - price
            state.returns[e, n] += _EATEN * meals - price
            contacts += caught
            eaten += meals
        for hunter in range(hunters):
            nearest = np.inf
            for n in range(hunters, agents):
                nearest = min(nearest, distance_between(position, n, hunter))
            given = _CAUGHT * contacts - _LAG * nearest
            rewards[e, hunter] = given
            state.returns[e, hunter] += given
            lag += nearest
        state.tally[e, 0] += contacts
        state.tally[e, 1] += eaten
        state.tally[e, 2] += lag / hunters


@njit(cache=True, error_model="numpy")
def observe(state: ParticleState, world: World, first_forest: int, out: Array) -> None:
    """Write every agent's observation to ``out``, float32 ``[E, N, D]``."""
    agents, hunters = world.movable.shape[0], world.adversaries
    entities = world.radius.shape[0]
    inside = np.zeros((agents, entities - first_forest), np.bool_)  # whether an agent is in a forest
    seen = np.zeros(agents, np.bool_)  # by the agent whose turn it is
    for e in range(out.shape[0]):
        position, velocity = state.position[e], state.velocity[e]
        for n in range(agents):
            for f in range(entities - first_forest):
                inside[n, f] = touch(position, world.radius, n, first_forest + f)
        for n in range(agents):
            for other in range(agents):
                seen[other] = n == 0 or _visible(inside, n, other)
            row = out[e, n]
            at = put_row(row, 0, velocity[n])
            at = put_row(row, at, position[n])
            at = put_offsets(row, at, position, n, agents, entities)
            for other in range(agents):
                if other == n:
                    continue
                if seen[other]:
                    at = put_offset(row, at, position, n, other)
                else:
                    row[at], row[at + 1] = 0.0, 0.0
                    at += 2
            if n >= hunters:
                at = _put_inside(row, at, inside[n])
            for other in range(hunters, agents):
                if other == n:
                    continue
                row[at] = velocity[other, 0] if seen[other] else 0.0
                row[at + 1] = velocity[other, 1] if seen[other] else 0.0
                at += 2
            if n < hunters:
                at = _put_inside(row, at, inside[n])
                at = put_row(row, at, state.message[e, 0])
            put_zeros(row, at)


@njit(cache=True, forceinline=True)
def _visible(inside: Array, n: int, other: int) -> bool:
    """Return whether both are in the same forest, or both in none (bool ``[N, F]``)."""
    hidden = False
    for f in range(inside.shape[1]):
        if inside[n, f] and inside[other, f]:
            return True
        hidden |= inside[n, f] or inside[other, f]
    return not hidden


@njit(cache=True, forceinline=True)
def _put_inside(out: Array, at: int, inside: Array) -> int:
    """Write 1 for each forest that the agent is in, -1 for the others; return the place after them."""
    for f in range(inside.shape[0]):
        out[at + f] = 1.0 if inside[f] else -1.0
    return at + inside.shape[0]


class WorldCommOracle(PlannedPolicy):
    """Each adversary heads for where it meets the nearest good agent, hidden or not."""

    def goals(self) -> Array:
        """Return where adversaries meet good agents, and where those flee or eat, ``[E, N, 2]``."""
        config = self.env.config
        hunters, prey = self.agents[:, : self.adversaries], self.agents[:, self.adversaries :]
        velocity = self.env.arrays.velocity[:, self.adversaries :]
        food = self.landmarks[:, config.num_obstacles : config.num_obstacles + config.num_food]
        safe = gaps(prey, hunters).min(axis=2) > _DANGER
        meals = picked(food, gaps(prey, food).argmin(axis=2))
        theirs = np.where(safe[..., None], meals, flight(prey, hunters))
        return np.concatenate([pursuit(hunters, prey, velocity), theirs], axis=1)


class ContestPolicy(WorldCommOracle):
    """Adversaries as the oracle's; a good agent goes to the nearest food, or flees from an adversary within 0.5."""

    everybody = True


class WorldComm(ParticleEnv):
    """Tag with food, forests to hide in, and a leader who sees everybody (competitive): mpe2's simple_world_comm_v3.

    **World**: ``leadadversary_0``, the leader, who says one of 4 symbols; the other adversaries ``adversary_0``, ...;
    all with radius 0.075, push 3 and speed limit 1; good agents ``agent_0``, ... of radius 0.045, push 4 and speed
    limit 1.3; obstacles of radius 0.2, food of radius 0.03 and forests of radius 0.3, in that order and placed in
    [-0.9, 0.9]^2. Agents and obstacles collide with each other.

    **Rewards**: an adversary's 5 for each pair of an adversary and a good agent that touch, whoever they are, minus 0.1
    times its distance to the nearest good agent. A good agent's -5 for each adversary that touches it, 2 for each food
    that it touches, minus 0.05 times its distance to the nearest food, and twice the price for leaving the square as in
    `mpe_tag_v0`.

    **Observations**: own velocity (2), own position (2), all landmarks from there (2 each), the other agents (2 each),
    then, an adversary's: the velocities of the good agents (2 each), for each forest whether one is in it (1, else -1),
    and the leader's message (4); a good agent's: the forests, then the velocities of the other good agents. Place and
    velocity of another agent read 0 if it is in a forest and one is not in the same, or one is in a forest and it is
    not; the leader sees everybody.

    **Score** (``team_return``): the sum over the adversaries.

    **Info** besides: ``captures``, pairs of an adversary and a good agent that touch, and ``eaten``, pairs of a good
    agent and food that do, both summed over the steps so far; averaged over them, ``distance`` of an adversary to the
    nearest good agent.

    **Scripted policies**: ``random``; ``contest``, adversaries as the oracle's, while good agents go to the nearest
    food and flee from adversaries nearer than 0.5; ``oracle``, each adversary pursues the nearest good agent, which
    plays at random. The leader says nothing of use in either.

    Version history: v0, first version.
    """

    id = "mpe_world_comm_v0"
    config_class = WorldCommConfig
    config: WorldCommConfig
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "contest": ContestPolicy,
        "oracle": WorldCommOracle,
    }
    functions = (reward, observe)
    sums = ("captures", "eaten")
    means = ("distance",)

    def __init__(self, config: WorldCommConfig, num_envs: int = 1) -> None:
        super().__init__(config, num_envs)
        self._first_food = config.num_adversaries + config.num_good + config.num_obstacles
        self._first_forest = self._first_food + config.num_food

    def _build(self) -> World:
        config = self.config
        sides = (config.num_adversaries, config.num_good)
        kinds = (*sides, config.num_obstacles, config.num_food, config.num_forests)
        return world_of(
            max_steps=config.max_steps,
            continuous=config.continuous_actions,
            radius=np.repeat([HUNTER, _PREY, OBSTACLE, _FOOD, _FOREST], kinds),
            spawn=np.repeat([1.0, 1.0, SPAWN, SPAWN, SPAWN], kinds),
            collides=np.repeat([True, True, True, False, False], kinds),
            movable=np.ones(sum(sides), bool),
            speaks=np.arange(sum(sides)) == 0,
            symbols=_SYMBOLS,
            adversaries=config.num_adversaries,
            acceleration=np.repeat(ACCELERATIONS, sides),
            max_speed=np.repeat(SPEEDS, sides),
        )

    def _names(self) -> tuple[str, ...]:
        hunters = (f"adversary_{n}" for n in range(self.config.num_adversaries - 1))
        return ("leadadversary_0", *hunters, *(f"agent_{n}" for n in range(self.config.num_good)))

    def _observation_sizes(self) -> tuple[int, ...]:
        config = self.config
        hunters, prey, forests = config.num_adversaries, config.num_good, config.num_forests
        landmarks = config.num_obstacles + config.num_food + forests
        common = 4 + 2 * landmarks + 2 * (hunters + prey - 1) + forests
        return (common + 2 * prey + _SYMBOLS,) * hunters + (common + 2 * (prey - 1),) * prey

    def _scored(self) -> slice:
        return slice(self.config.num_adversaries)

    def _rewards(self, rewards: Array) -> None:
        self._reward_kernel(self.arrays, self.world, self._first_food, self._first_forest, rewards)

    def _write_observations(self, out: Array) -> None:
        self._observe_kernel(self.arrays, self.world, self._first_forest, out)

    def landmark_colours(self, index: int) -> Array:
        """Return grey obstacles, blue food and green forests."""
        config = self.config
        kinds = (config.num_obstacles, config.num_food, config.num_forests)
        return np.repeat(np.stack([LANDMARK, FOOD, FOREST]), kinds, axis=0)

"""Tag: slow adversaries hunt faster good agents among obstacles."""

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
from qio_envs.mpe.kernels import boundary_price, distance_between, put_offsets, put_row, put_zeros, touch
from qio_envs.mpe.policies import PlannedPolicy, flight, pursuit
from qio_envs.mpe.state import ParticleState, World, world_of

HUNTER, PREY, OBSTACLE = 0.075, 0.05, 0.2
"""Radii of adversaries, good agents and obstacles."""
ACCELERATIONS, SPEEDS = (3.0, 4.0), (1.0, 1.3)
"""Forces of a full push and speed limits of adversaries and good agents."""
SPAWN = 0.9
"""Half the side of the square in which landmarks are placed."""
_CAUGHT = 10.0  # price of a contact between an adversary and a good agent


@dataclasses.dataclass(frozen=True, kw_only=True)
class TagConfig(ParticleConfig):
    """Settings of `Tag`."""

    task: ClassVar[str] = "tag"

    num_good: int = setting(1, "number of good agents", low=1, high=MAX_ENTITIES)
    num_adversaries: int = setting(3, "number of adversaries", low=1, high=MAX_ENTITIES)
    num_obstacles: int = setting(2, "number of obstacles", low=0, high=MAX_ENTITIES)


@njit(cache=True, error_model="numpy")
def reward(state: ParticleState, world: World, rewards: Array) -> None:
    """Write the rewards, float32 ``[E, N]``; tally contacts, and good agents' distances to the nearest adversary."""
    agents, hunters = world.movable.shape[0], world.adversaries
    for e in range(rewards.shape[0]):
        position = state.position[e]
        contacts, distance = 0, 0.0
        for n in range(hunters, agents):
            caught, nearest = 0, np.inf
            for hunter in range(hunters):
                caught += touch(position, world.radius, n, hunter)
                nearest = min(nearest, distance_between(position, n, hunter))
            given = -_CAUGHT * caught - boundary_price(position, n)
            rewards[e, n] = given
            state.returns[e, n] += given
            contacts += caught
            distance += nearest
        for hunter in range(hunters):
            rewards[e, hunter] = _CAUGHT * contacts
            state.returns[e, hunter] += _CAUGHT * contacts
        state.tally[e, 0] += contacts
        state.tally[e, 1] += distance / (agents - hunters)


@njit(cache=True)
def observe(state: ParticleState, world: World, out: Array) -> None:
    """Write every agent's observation to ``out``, float32 ``[E, N, D]``."""
    agents = world.movable.shape[0]
    for e in range(out.shape[0]):
        position, velocity = state.position[e], state.velocity[e]
        for n in range(agents):
            row = out[e, n]
            at = put_row(row, 0, velocity[n])
            at = put_row(row, at, position[n])
            at = put_offsets(row, at, position, n, agents, position.shape[0])
            at = put_offsets(row, at, position, n, 0, agents)
            for other in range(world.adversaries, agents):
                if other != n:
                    at = put_row(row, at, velocity[other])
            put_zeros(row, at)


class TagOracle(PlannedPolicy):
    """Each adversary heads for where it meets the nearest good agent, as if no obstacle were in the way."""

    def goals(self) -> Array:
        """Return where adversaries meet good agents, and where those flee, ``[E, N, 2]``."""
        hunters, prey = self.agents[:, : self.adversaries], self.agents[:, self.adversaries :]
        velocity = self.env.arrays.velocity[:, self.adversaries :]
        return np.concatenate([pursuit(hunters, prey, velocity), flight(prey, hunters)], axis=1)


class ContestPolicy(TagOracle):
    """Adversaries as the oracle's; a good agent flees to the place near it that the adversaries are farthest from."""

    everybody = True


class Tag(ParticleEnv):
    """Adversaries hunt good agents, who are faster (competitive): mpe2's simple_tag_v3.

    **World**: ``adversary_0``, ... of radius 0.075, push 3 and speed limit 1; good agents ``agent_0``, ... of radius
    0.05, push 4 and speed limit 1.3; obstacles of radius 0.2, placed in [-0.9, 0.9]^2. All collide with each other.

    **Rewards**: every adversary's 10 for each pair of an adversary and a good agent that touch, whoever they are; a
    good agent's -10 for each adversary that touches it, and, along each axis, at a distance x from the middle, nothing
    up to 0.9, -10 (x - 0.9) up to 1, then -min(exp(2 x - 2), 10).

    **Observations**: own velocity (2), own position (2), the obstacles from there (2 each), the other agents (2 each),
    and the velocities of the other good agents (2 each).

    **Score** (``team_return``): the sum over the adversaries.

    **Info** besides: ``captures``, pairs of an adversary and a good agent that touch, summed over the steps so far;
    averaged over them, ``distance`` of a good agent to the nearest adversary.

    **Scripted policies**: ``random``; ``contest``, adversaries as the oracle's, while good agents flee within the
    square that costs nothing; ``oracle``, each adversary pursues the nearest good agent, which plays at random.

    Version history: v0, first version.
    """

    id = "mpe_tag_v0"
    config_class = TagConfig
    config: TagConfig
    scripted_policies: Mapping[str, Callable[[Any], ScriptedPolicy]] = {
        "random": RandomPolicy,
        "contest": ContestPolicy,
        "oracle": TagOracle,
    }
    functions = (reward, observe)
    sums = ("captures",)
    means = ("distance",)

    def _build(self) -> World:
        hunters, prey, obstacles = (
            self.config.num_adversaries,
            self.config.num_good,
            self.config.num_obstacles,
        )
        sides, kinds = (hunters, prey), (hunters, prey, obstacles)
        return world_of(
            max_steps=self.config.max_steps,
            continuous=self.config.continuous_actions,
            radius=np.repeat([HUNTER, PREY, OBSTACLE], kinds),
            spawn=np.repeat([1.0, 1.0, SPAWN], kinds),
            collides=np.ones(sum(kinds), bool),
            movable=np.ones(sum(sides), bool),
            speaks=np.zeros(sum(sides), bool),
            adversaries=hunters,
            acceleration=np.repeat(ACCELERATIONS, sides),
            max_speed=np.repeat(SPEEDS, sides),
        )

    def _names(self) -> tuple[str, ...]:
        hunters = (f"adversary_{n}" for n in range(self.config.num_adversaries))
        return (*hunters, *(f"agent_{n}" for n in range(self.config.num_good)))

    def _observation_sizes(self) -> tuple[int, ...]:
        config = self.config
        hunters, prey = config.num_adversaries, config.num_good
        common = 4 + 2 * config.num_obstacles + 2 * (hunters + prey - 1)
        return (common + 2 * prey,) * hunters + (common + 2 * (prey - 1),) * prey

    def _scored(self) -> slice:
        return slice(self.config.num_adversaries)

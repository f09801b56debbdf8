"""What the kernels of the particle environments work on: the state, and the world with its entities."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from qio_envs.api import FINITE, Array, Limits, clock_limits

ACCELERATION = 5.0
"""Force of a full push where a task says nothing else; all masses are 1."""
TIME_STEP = 0.1
DAMPING = 0.25
"""Share of the velocity that is lost in a step."""
CONTACT_FORCE = 100.0
CONTACT_MARGIN = 1e-3
"""How soft a contact is, units of length."""


class ParticleState(NamedTuple):
    """Arrays of ``E`` environments with ``N`` agents, ``M`` entities (agents, then landmarks) and ``C`` symbols.

    Numbers are float64, as in the package mpe2, so that the same start and actions give the same episode.
    """

    seed: Array  # uint64 [E], key of the random numbers
    episode: Array  # uint32 [E], episodes since the seed was given
    step: Array  # int32 [E], steps since the reset; -1 before the first
    running: Array  # bool [E], reset and not ended
    position: Array  # float64 [E, M, 2], x to the right and y upwards, units of length
    velocity: Array  # float64 [E, N, 2], units of length a unit of time
    message: Array  # float64 [E, N, C], what each agent said in the last step; 0 where silent
    goal: Array  # int64 [E, G], landmarks by number that the task draws at reset
    returns: Array  # float64 [E, N], of the episode so far
    tally: Array  # float64 [E, K], the task's metrics, summed over the steps of the episode so far

    @classmethod
    def empty(cls, num_envs: int, world: World, metrics: int) -> ParticleState:
        """Return the state of environments that were never reset, with ``K = metrics``."""
        agents = len(world.movable)
        return cls(
            seed=np.zeros(num_envs, np.uint64),
            episode=np.zeros(num_envs, np.uint32),
            step=np.full(num_envs, -1, np.int32),
            running=np.zeros(num_envs, bool),
            position=np.zeros((num_envs, len(world.radius), 2)),
            velocity=np.zeros((num_envs, agents, 2)),
            message=np.zeros((num_envs, agents, world.symbols)),
            goal=np.zeros((num_envs, len(world.goal_choices)), np.int64),
            returns=np.zeros((num_envs, agents)),
            tally=np.zeros((num_envs, metrics)),
        )

    @classmethod
    def limits(cls, world: World) -> Limits:
        """Return what each array may hold; see `BatchedEnv.state_limits`."""
        velocity = np.where(world.movable, world.fastest, 0)[:, None]
        position = world.spawn.max() + world.max_steps * TIME_STEP * velocity.max()
        speaks = world.speaks[:, None].astype(float)
        return clock_limits(world.max_steps) | {
            "position": (-position, position),
            "velocity": (-velocity, velocity),
            "message": (0, speaks),
            "goal": (0, world.goal_choices - 1),
            "returns": FINITE,
            "tally": (0, np.inf),
        }


class World(NamedTuple):
    """The entities of a task, agents first; what does not change."""

    max_steps: int
    adversaries: (
        int  # agents, the first ones, of the side that is called adversaries; 0 where there is one side
    )
    symbols: int  # that a message consists of, C; 0 where nobody speaks
    movable: Array  # bool [N]
    speaks: Array  # bool [N]
    acceleration: Array  # float64 [N], force of a full push
    max_speed: Array  # float64 [N]; infinity for no limit
    action_sizes: Array  # int64 [N], actions of each agent (discrete), or numbers in them (continuous)
    radius: Array  # float64 [M]
    colliders: Array  # int64 [K], entities that push each other away, ascending
    spawn: Array  # float64 [M], half the side of the square around the origin in which each starts
    goal_choices: Array  # int64 [G], from how many landmarks, the first ones, each goal is drawn

    @property
    def fastest(self) -> Array:
        """Bound on each component of a velocity, float64 ``[N]``: that of a push with contacts at every step."""
        others = max(len(self.colliders) - 1, 0)
        contact = CONTACT_FORCE * (2 * self.radius.max() + CONTACT_MARGIN)  # of one other entity
        unlimited = TIME_STEP / DAMPING * (self.acceleration + others * contact)
        return 1.001 * np.minimum(unlimited, self.max_speed)  # rounding included


def world_of(
    *,
    max_steps: int,
    continuous: bool,
    radius: Array,
    spawn: Array,
    collides: Array,
    movable: Array,
    speaks: Array,
    symbols: int = 0,
    adversaries: int = 0,
    acceleration: Array | None = None,
    max_speed: Array | None = None,
    goal_choices: tuple[int, ...] = (),
) -> World:
    """Return the world of a task.

    Args:
        max_steps: Time limit, steps.
        continuous: Whether actions are numbers.
        radius: Of each entity, agents first, ``[M]``.
        spawn: Half the side of the square in which each starts, ``[M]``.
        collides: Which entities push each other away, bool ``[M]``.
        movable: Which agents move, bool ``[N]``.
        speaks: Which agents send messages, bool ``[N]``.
        symbols: Length of a message.
        adversaries: Agents, the first ones, of the other side.
        acceleration: Force of a full push, ``[N]``; `ACCELERATION` when absent.
        max_speed: Limits of the speed, ``[N]``; none when absent.
        goal_choices: From how many landmarks each goal is drawn.
    """
    agents = len(movable)
    if continuous:
        sizes = 5 * movable + symbols * speaks
    else:
        sizes = np.where(movable, 5, 1) * np.where(speaks, symbols, 1)
    return World(
        max_steps=max_steps,
        adversaries=adversaries,
        symbols=symbols,
        movable=movable,
        speaks=speaks,
        acceleration=np.full(agents, ACCELERATION) if acceleration is None else acceleration,
        max_speed=np.full(agents, np.inf) if max_speed is None else max_speed,
        action_sizes=sizes.astype(np.int64),
        radius=radius,
        colliders=np.flatnonzero(collides),
        spawn=spawn,
        goal_choices=np.array(goal_choices, np.int64),
    )

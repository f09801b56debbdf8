"""What the scripted policies of all tasks have in common: from places and symbols to actions."""

from __future__ import annotations

from typing import Any

import numpy as np

from qio_envs.api import Array
from qio_envs.api.policies import RandomPolicy
from qio_envs.mpe.planning import assign, steer, steer_smoothly
from qio_envs.mpe.state import World

_FLIGHT = 0.6  # how far ahead a fleeing agent looks for a place, units of length
_INSIDE = 0.85  # fleeing agents stay within this distance of the middle along each axis
_LEAD = 0.4  # time over which a pursued agent's velocity is taken to last; found by search
_DIRECTIONS = 16


class PlannedPolicy:
    """Agents that go where `goals` says and say what `symbols` says; all others play at random.

    Args:
        env: The environment to act in, a `ParticleEnv`.
        seed: Key of the random play, 0 to 2**64 - 1.
    """

    everybody = False
    """Whether all agents are played, not those alone whose returns are the score."""

    def __init__(self, env: Any, seed: int = 0) -> None:
        self.env = env
        self.world: World = env.world
        self.adversaries = self.world.adversaries
        self._random = RandomPolicy(env, seed)
        self._played = np.zeros(env.num_agents, bool)
        self._played[slice(None) if self.everybody else env.scored] = True

    @property
    def agents(self) -> Array:
        """Positions of the agents, float64 ``[E, N, 2]``."""
        return self.env.arrays.position[:, : self.env.num_agents]

    @property
    def landmarks(self) -> Array:
        """Positions of the landmarks, float64 ``[E, M - N, 2]``."""
        return self.env.arrays.position[:, self.env.num_agents :]

    def goals(self) -> Array:
        """Return where each agent is to be, float64 ``[E, N, 2]``: by default where it is."""
        return self.agents.copy()

    def symbols(self) -> Array:
        """Return what each agent says, int64 ``[E, N]``: by default 0."""
        return np.zeros((self.env.num_envs, self.env.num_agents), np.int64)

    def act(self) -> Array:
        """Return int64 actions ``[E, N]``, or float32 ``[E, N, A]`` where they are continuous."""
        actions = self._random.act()
        encode = self._continuous if self.env.config.continuous_actions else self._discrete
        actions[:, self._played] = encode()[:, self._played]
        return actions

    def _discrete(self) -> Array:
        world, arrays = self.world, self.env.arrays
        moves = np.zeros((self.env.num_envs, self.env.num_agents), np.int64)
        steer(self.agents, arrays.velocity, self.goals(), world.acceleration, world.max_speed, moves)
        moves[:, ~world.movable] = 0
        return moves + self.symbols() * np.where(world.speaks, np.where(world.movable, 5, 1), 0)

    def _continuous(self) -> Array:
        world, arrays = self.world, self.env.arrays
        envs, agents = self.env.num_envs, self.env.num_agents
        push = np.zeros((envs, agents, 2), np.float32)
        steer_smoothly(self.agents, arrays.velocity, self.goals(), world.acceleration, push)
        actions = np.zeros((envs, agents, max(world.action_sizes)), np.float32)
        if world.movable.any():
            actions[:, :, 1:5] = np.stack([-push[..., 0], push[..., 0], -push[..., 1], push[..., 1]], axis=2)
            actions[:, ~world.movable] = 0
        symbols, rows = self.symbols(), np.arange(envs)
        for n in np.flatnonzero(world.speaks):
            actions[rows, n, 5 * world.movable[n] + symbols[:, n]] = 1
        return np.maximum(actions, 0)


def gaps(points: Array, others: Array) -> Array:
    """Return the distances of ``points`` (``[E, A, 2]``) from ``others`` (``[E, B, 2]``), ``[E, A, B]``."""
    offsets = points[:, :, None] - others[:, None]
    return np.sqrt((offsets**2).sum(axis=3))


def picked(points: Array, index: Array) -> Array:
    """Return the points (of ``[E, B, 2]``) with the numbers ``index`` (int ``[E, A]``), ``[E, A, 2]``."""
    return np.take_along_axis(points, index[:, :, None], axis=1)


def assignment(points: Array, places: Array) -> Array:
    """Return a place of its own for each point so that the sum of the distances is least, int64 ``[E, n]``.

    Args:
        points: Float64 ``[E, n, 2]``.
        places: Float64 ``[E, n, 2]``.
    """
    index = np.empty(points.shape[:2], np.int64)
    assign(gaps(points, places), index)
    return index


def pursuit(hunters: Array, prey: Array, prey_velocity: Array) -> Array:
    """Return where each hunter meets the nearest prey, ``[E, H, 2]``, of ``[E, H, 2]`` and twice ``[E, P, 2]``."""
    nearest = gaps(hunters, prey).argmin(axis=2)
    return picked(prey + _LEAD * prey_velocity, nearest)


def flight(prey: Array, hunters: Array) -> Array:
    """Return where each prey flees, ``[E, P, 2]``, of ``[E, P, 2]`` and ``[E, H, 2]``.

    Of places around it, within the square that costs nothing, the one whose nearest hunter is farthest from it.
    """
    angles = 2 * np.pi * np.arange(_DIRECTIONS) / _DIRECTIONS
    around = _FLIGHT * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    envs, count = prey.shape[:2]
    places = np.clip(prey[:, :, None] + around, -_INSIDE, _INSIDE)  # [E, P, directions, 2]
    safety = gaps(places.reshape(envs, -1, 2), hunters).min(axis=2).reshape(envs, count, -1)
    best = safety.argmax(axis=2)
    return np.take_along_axis(places, best[:, :, None, None], axis=2)[:, :, 0]

"""The swarm's controller: the upper reference point between which and random play a score is normalised."""

from __future__ import annotations

import numpy as np

from qio_envs.api import Array, BatchedEnv
from qio_envs.api.policies import RandomPolicy
from qio_envs.swarm.config import SwarmConfig
from qio_envs.swarm.state import SwarmRules, SwarmState

_POSITION_GAIN = 50.0  # wanted acceleration per unit of distance from the goal; found by search
_VELOCITY_GAIN = 12.5  # and against each unit of velocity
_CONTACT = 2.0  # distance within which an opponent pays in the mixed task
_SAFE = 0.8  # goals lie within this share of the radius beyond which an agent is out


class ControllerPolicy:
    """Oracle: proportional-derivative control of the first team towards its goal, from the true state.

    The goal is the origin or the target. In the mixed task it is one point for the whole team: the living
    opponent around which contact pays most (of nearly equal ones the nearest), or the team's centroid where there is
    none. Discrete actions are those nearest the wanted acceleration. All other agents play at random.

    Args:
        env: The environment to act in.
        seed: Key of the random play, 0 to 2**64 - 1.
    """

    def __init__(self, env: BatchedEnv[SwarmConfig, SwarmState], seed: int = 0) -> None:
        self.env = env
        self._first = SwarmRules.of(env.config).team == 0
        self._others = RandomPolicy(env, seed)

    def act(self) -> Array:
        """Return actions ``[E, N, 2]`` (float32), or ``[E, N]`` (int64) where they are discrete."""
        env, body = self.env, self.env.arrays.body
        wanted = _POSITION_GAIN * (self._goal() - body[..., :2]) - _VELOCITY_GAIN * body[..., 2:]
        if env.config.actions == "discrete":
            actions = _nearest_of_five(wanted)
        else:
            actions = np.clip(wanted, -1, 1).astype(np.float32)
        actions[:, ~self._first] = self._others.act()[:, ~self._first]
        return actions

    def _goal(self) -> Array:
        """Return where the first team should be, ``[E, 1, 2]``."""
        return self._meeting_point() if self.env.config.task == "mixed" else self.env.arrays.target[:, None]

    def _meeting_point(self) -> Array:
        """Return the point around which contact pays most, ``[E, 1, 2]``."""
        env, s, first = self.env, self.env.arrays, self._first
        position = s.body[..., :2].astype(np.float64)
        mates, opponents = s.alive & first, s.alive & ~first
        count = np.maximum(mates.sum(axis=1), 1)[:, None]
        centroid = (position * mates[..., None]).sum(axis=1) / count
        theirs, living = position[:, ~first], opponents[:, ~first]
        gaps = np.hypot(*np.moveaxis(theirs[:, :, None] - theirs[:, None], -1, 0))  # [E, M, M]
        value = (np.maximum(0, _CONTACT - gaps) * living[:, None]).sum(axis=2)
        travel = np.hypot(*np.moveaxis(theirs - centroid[:, None], -1, 0))
        value = np.where(living, value - 0.2 * travel, -np.inf)
        best = value.argmax(axis=1)
        goal = np.where(living.any(axis=1)[:, None], theirs[np.arange(len(best)), best], centroid)
        norm = np.maximum(np.hypot(*goal.T), 1e-9)
        goal *= np.minimum(1, _SAFE * env.config.out_radius / norm)[:, None]
        return goal[:, None]


def _nearest_of_five(wanted: Array) -> Array:
    """Return the discrete action nearest each wanted acceleration (``[E, N, 2]``), int64 ``[E, N]``."""
    axis = np.abs(wanted).argmax(axis=2)
    along = np.take_along_axis(wanted, axis[..., None], axis=2)[..., 0]
    return np.where(np.abs(along) > 0.5, 1 + 2 * axis + (along < 0), 0)

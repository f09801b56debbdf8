"""Scripted policies of the skirmish."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array, BatchedEnv
from qio_envs.skirmish.config import FIRST_ATTACK, STOP, SkirmishConfig
from qio_envs.skirmish.kernels.enemies import move_along
from qio_envs.skirmish.state import SkirmishRules, SkirmishState


class NearestPolicy:
    """Each ally attacks the nearest enemy in range, or goes towards the nearest enemy, wherever that is.

    Args:
        env: The environment to act in.
    """

    _focus = False

    def __init__(self, env: BatchedEnv[SkirmishConfig, SkirmishState]) -> None:
        self.env = env
        self._rules = SkirmishRules.of(env.config)

    def act(self) -> Array:
        """Return int64 actions ``[E, N]``."""
        actions = np.empty((self.env.num_envs, self.env.num_agents), np.int64)
        _act(self.env.arrays, self._rules, self._focus, actions)
        return actions


class FocusPolicy(NearestPolicy):
    """Allies attack the enemy in range with the least health left, as many as it takes; otherwise as `NearestPolicy`.

    An ally takes the weakest of the enemies in range that the shots of the allies before it leave alive, or the weakest
    of all where they leave none.
    """

    _focus = True


@njit(cache=True, error_model="numpy")
def _act(state: SkirmishState, rules: SkirmishRules, focus: bool, actions: Array) -> None:
    allies, units = rules.num_allies, state.kind.shape[1]
    left = np.empty(units, np.float32)
    for e in range(actions.shape[0]):
        x, y, alive = state.position[e, 0], state.position[e, 1], state.alive[e]
        for j in range(units):
            left[j] = state.health[e, j] + state.shield[e, j]
        for n in range(allies):
            actions[e, n] = STOP
            if not alive[n]:
                continue
            reach = rules.attack_range[state.kind[e, n]]
            nearest, weakest = -1, -1
            least, lowest = np.float32(np.inf), np.float32(np.inf)
            for j in range(allies, units):
                if not alive[j]:
                    continue
                dx, dy = x[j] - x[n], y[j] - y[n]
                square = dx * dx + dy * dy
                if square < least:
                    nearest, least = j, square
                health = left[j] if left[j] > 0 else left[j] + np.float32(1e6)  # the doomed come last
                if square < reach * reach and health < lowest:
                    weakest, lowest = j, health
            if weakest < 0:
                actions[e, n] = move_along(x[nearest] - x[n], y[nearest] - y[n])
                continue
            target = weakest if focus else nearest
            actions[e, n] = FIRST_ATTACK + target - allies
            if state.cooldown[e, n] <= 0:
                left[target] -= rules.attack[state.kind[e, n]]

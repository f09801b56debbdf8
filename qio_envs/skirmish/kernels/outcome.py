"""A whole step: the fight, then rewards and endings."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.skirmish.kernels.fight import fight
from qio_envs.skirmish.state import SkirmishRules, SkirmishState


@njit(cache=True, error_model="numpy")
def advance(
    actions: Array,
    orders: Array,
    state: SkirmishState,
    rules: SkirmishRules,
    rewards: Array,
    terminated: Array,
    truncated: Array,
) -> None:
    """Advance every environment by one step.

    Args:
        actions: Of the allies, int64 ``[E, N]``.
        orders: Of the enemies, int64 ``[E, M]``.
        state: Is advanced.
        rules: What holds.
        rewards: Float32 ``[E, N]``, are written.
        terminated: Bool ``[E, N]``, is written.
        truncated: Bool ``[E, N]``, is written.
    """
    before = state.health + state.shield
    acted = state.alive[:, : rules.num_allies].copy()
    fight(actions, orders, state, rules)
    _pay(before, state, rules)
    alive, steps, running = state.alive, state.step, state.running
    allies, units = rules.num_allies, alive.shape[1]
    for e in range(actions.shape[0]):
        allies_left, enemies_left = 0, 0
        for u in range(units):
            if u < allies:
                allies_left += alive[e, u]
            else:
                enemies_left += alive[e, u]
        decided, over = allies_left == 0 or enemies_left == 0, steps[e] >= rules.max_steps
        running[e] = not (decided or over)
        for n in range(allies):
            terminated[e, n] = acted[e, n] and (decided or not alive[e, n])
            truncated[e, n] = acted[e, n] and over and not terminated[e, n]
            rewards[e, n] = state.team_reward[e]


@njit(cache=True, error_model="numpy")
def _pay(before: Array, state: SkirmishState, rules: SkirmishRules) -> None:
    """Write ``won`` and the team's reward: the mean share of health that the enemies lost, and the bonus of the win.

    Args:
        before: Health and shield of all units before the step, float32 ``[E, U]``.
        state: ``won``, ``team_reward`` and ``team_return`` are written.
        rules: What holds.
    """
    alive, healths, shields, kinds = state.alive, state.health, state.shield, state.kind
    full = rules.health + rules.shield
    allies, units = rules.num_allies, alive.shape[1]
    for e in range(before.shape[0]):
        lost = np.float32(0)
        for u in range(allies, units):
            loss = before[e, u] - (healths[e, u] + shields[e, u])
            if loss > 0:  # a shield may recover
                lost += loss / full[kinds[e, u]]
        won = alive[e, :allies].any() and not alive[e, allies:].any()
        reward = lost / np.float32(units - allies) if rules.shaped else np.float32(0)
        reward += np.float32(rules.win_bonus) if won else np.float32(0)
        state.won[e], state.team_reward[e] = won, reward
        state.team_return[e] += reward

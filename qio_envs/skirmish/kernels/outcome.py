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
    alive, healths, shields, steps, running = (
        state.alive,
        state.health,
        state.shield,
        state.step,
        state.running,
    )
    allies, units = rules.num_allies, alive.shape[1]
    before = np.empty(healths.shape, np.float32)
    for e in range(actions.shape[0]):
        for u in range(units):
            before[e, u] = healths[e, u] + shields[e, u]
        for n in range(allies):
            terminated[e, n] = alive[e, n]
    fight(actions, orders, state, rules)
    for e in range(actions.shape[0]):
        allies_left, enemies_left = 0, 0
        for u in range(units):
            if u < allies:
                allies_left += alive[e, u]
            else:
                enemies_left += alive[e, u]
        decided, over = allies_left == 0 or enemies_left == 0, steps[e] >= rules.max_steps
        state.won[e], running[e] = enemies_left == 0 and allies_left > 0, not (decided or over)
        for n in range(allies):
            acted = terminated[e, n]
            terminated[e, n] = acted and (decided or not alive[e, n])
            truncated[e, n] = acted and over and not terminated[e, n]
    _pay(before, state, rules, rewards)


@njit(cache=True, error_model="numpy")
def _pay(before: Array, state: SkirmishState, rules: SkirmishRules, rewards: Array) -> None:
    """Write the team's reward: the mean share of health that the enemies lost, and the bonus of the win.

    Args:
        before: Health and shield of all units before the step, float32 ``[E, U]``.
        state: ``team_reward`` and ``team_return`` are written.
        rules: What holds.
        rewards: Float32 ``[E, N]``, are written.
    """
    healths, shields, kinds = state.health, state.shield, state.kind
    full_health, full_shield = rules.health, rules.shield
    allies, units = rules.num_allies, kinds.shape[1]
    for e in range(before.shape[0]):
        lost = np.float32(0)
        for u in range(allies, units):
            loss = before[e, u] - (healths[e, u] + shields[e, u])
            if loss > 0:  # a shield may recover
                lost += loss / (full_health[kinds[e, u]] + full_shield[kinds[e, u]])
        reward = lost / np.float32(units - allies) if rules.shaped else np.float32(0)
        if state.won[e]:
            reward += np.float32(rules.win_bonus)
        state.team_reward[e] = reward
        state.team_return[e] += reward
        for n in range(allies):
            rewards[e, n] = reward

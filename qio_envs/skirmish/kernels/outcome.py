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
        rewards: Float32 ``[E, N]``, are written; ``[E, N + M]`` where enemies are agents too.
        terminated: Bool, likewise, is written.
        truncated: Likewise.
    """
    alive, healths, shields, steps, running = (
        state.alive,
        state.health,
        state.shield,
        state.step,
        state.running,
    )
    allies, units, agents = rules.num_allies, alive.shape[1], terminated.shape[1]
    before, lost = np.empty(healths.shape, np.float32), np.empty(alive.shape[0], np.bool_)
    for e in range(actions.shape[0]):
        for u in range(units):
            before[e, u] = healths[e, u] + shields[e, u]
        for n in range(agents):
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
        lost[e] = allies_left == 0 and enemies_left > 0
        for n in range(agents):
            acted = terminated[e, n]
            terminated[e, n] = acted and (decided or not alive[e, n])
            truncated[e, n] = acted and over and not terminated[e, n]
    _pay(before, lost, state, rules, rewards)


@njit(cache=True, error_model="numpy")
def _pay(before: Array, lost: Array, state: SkirmishState, rules: SkirmishRules, rewards: Array) -> None:
    """Write each side's reward: the mean share of health that its opponents lost, and the bonus of its win.

    Args:
        before: Health and shield of all units before the step, float32 ``[E, U]``.
        lost: Whether the enemies have won, bool ``[E]``.
        state: ``team_reward`` and the returns are written.
        rules: What holds.
        rewards: Float32 ``[E, N]``, or ``[E, N + M]`` where enemies are agents too, are written.
    """
    healths, shields, kinds, won = state.health, state.shield, state.kind, state.won
    last, team, enemy = state.team_reward, state.team_return, state.enemy_return
    full_health, full_shield = rules.health, rules.shield
    allies, units, sides = rules.num_allies, kinds.shape[1], 1 + rules.enemy_agents
    bonus = np.float32(rules.win_bonus)
    for e in range(before.shape[0]):
        for side in range(sides):
            first, end = (0, allies) if side else (allies, units)  # its opponents
            share = np.float32(0)
            for u in range(first, end):
                loss = before[e, u] - (healths[e, u] + shields[e, u])
                if loss > 0:  # a shield may recover
                    share += loss / (full_health[kinds[e, u]] + full_shield[kinds[e, u]])
            reward = share / np.float32(end - first) if rules.shaped else np.float32(0)
            if side:
                if lost[e]:
                    reward += bonus
                enemy[e] += reward
                for n in range(allies, units):
                    rewards[e, n] = reward
            else:
                if won[e]:
                    reward += bonus
                last[e] = reward
                team[e] += reward
                for n in range(allies):
                    rewards[e, n] = reward

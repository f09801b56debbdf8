"""Numba kernels of matrix games; each loops over the environments of a batch."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import uniform
from qio_envs.matrix_game.state import MatrixGameRules, MatrixGameState

MIXED = 0  # stream of random numbers


@njit(cache=True)
def reset(mask: Array, state: MatrixGameState) -> None:
    """Begin the first stage where ``mask`` (bool ``[E]``) is true; all but seed, episode, step is written anew."""
    for e in range(mask.shape[0]):
        if not mask[e]:
            continue
        state.stage[e], state.played_stage[e] = 0, -1
        state.history[e] = -1
        state.returns[e] = 0


@njit(cache=True)
def step(
    actions: Array,
    state: MatrixGameState,
    rules: MatrixGameRules,
    rewards: Array,
    terminated: Array,
    truncated: Array,
) -> None:
    """Play one round in every environment.

    Args:
        actions: Int64 ``[E, N]``; one that its agent does not have counts as the agent's last one.
        state: Is advanced.
        rules: Of the game.
        rewards: Float32 ``[E, N]``, is written.
        terminated: Bool ``[E, N]``, is written.
        truncated: Bool ``[E, N]``, is written.
    """
    history, stage, steps = state.history, state.stage, state.step
    agents = actions.shape[1]
    for e in range(actions.shape[0]):
        for k in range(history.shape[1] - 1, 0, -1):
            for n in range(agents):
                history[e, k, n] = history[e, k - 1, n]
        joint = 0
        for n in range(agents):
            action = min(actions[e, n], rules.counts[n] - 1)
            history[e, 0, n] = action
            joint += action * rules.strides[n]
        here = stage[e]
        there = rules.next_stage[here, joint]
        steps[e] += 1
        state.played_stage[e] = here
        over = there < 0
        cut = not over and steps[e] >= rules.rounds
        if not over:
            stage[e] = there
        state.running[e] = not (over or cut)
        for n in range(agents):
            rewards[e, n] = rules.payoffs[here, joint, n]
            state.returns[e, n] += rewards[e, n]
            terminated[e, n] = over
            truncated[e, n] = cut


@njit(cache=True)
def observe(state: MatrixGameState, rules: MatrixGameRules, out: Array) -> None:
    """Write observations, float32 ``[E, N, S + K N A]``: stage, and past joint actions, the own action first."""
    agents, stages = out.shape[1], rules.payoffs.shape[0]
    out[:] = 0
    for e in range(out.shape[0]):
        for n in range(agents):
            out[e, n, state.stage[e]] = 1
            for k in range(rules.memory):
                for i in range(agents):
                    action = state.history[e, k, (n + i) % agents]
                    if action >= 0:
                        out[e, n, stages + (k * agents + i) * rules.num_actions + action] = 1


@njit(cache=True)
def mixed_actions(key: np.uint64, state: MatrixGameState, cumulative: Array, out: Array) -> None:
    """Draw actions independently from the mixed strategies of the present stages.

    Args:
        key: Of the random numbers, beside the environments' own seeds.
        state: Stages and clocks.
        cumulative: Float64 ``[S, N, A]``, probability of each action or one before it; 1 at the end.
        out: Int64 ``[E, N]``, is written.
    """
    for e in range(out.shape[0]):
        own = state.seed[e] ^ key
        for n in range(out.shape[1]):
            draw = uniform(n, state.step[e], state.episode[e], MIXED, own)
            action = 0
            while draw >= cumulative[state.stage[e], n, action]:
                action += 1
            out[e, n] = action

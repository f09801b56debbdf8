"""Numba kernels of the greedy casino; each loops over the environments of a batch."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import below, uniform
from qio_envs.greedy_casino.config import PAYOUTS
from qio_envs.greedy_casino.state import GreedyCasinoState

CAUSES, PAYOUT = 0, 1  # streams of random numbers; lane k of the second belongs to machine k


@njit(cache=True)
def _next_round(e: int, state: GreedyCasinoState) -> None:
    """Draw the hidden variables of environment ``e`` for the step to come, and what they make the agent intend."""
    for k in range(2):
        state.causes[e, k] = below(2, k, state.step[e], state.episode[e], CAUSES, state.seed[e])
    state.intent[e] = state.causes[e, 0] ^ state.causes[e, 1]


@njit(cache=True)
def reset(mask: Array, state: GreedyCasinoState) -> None:
    """Begin the first round where ``mask`` (bool ``[E]``) is true; all but seed, episode, step is written anew."""
    for e in range(mask.shape[0]):
        if not mask[e]:
            continue
        _next_round(e, state)
        state.intended[e], state.machine[e], state.paid[e] = -1, -1, 0
        state.payouts[e], state.followed[e] = 0, 0


@njit(cache=True)
def step(actions: Array, state: GreedyCasinoState, rounds: int, rewards: Array, truncated: Array) -> None:
    """Play one round in every environment and begin the next.

    Args:
        actions: Machines, int64 ``[E, 1]``.
        state: Is advanced.
        rounds: Rounds of an episode.
        rewards: Float32 ``[E, 1]``, is written.
        truncated: Bool ``[E, 1]``, is written.
    """
    causes, steps = state.causes, state.step
    for e in range(actions.shape[0]):
        machine = actions[e, 0]
        chance = PAYOUTS[machine, causes[e, 0], causes[e, 1]]
        paid = uniform(machine, steps[e], state.episode[e], PAYOUT, state.seed[e]) < chance
        steps[e] += 1
        state.intended[e], state.machine[e], state.paid[e] = state.intent[e], machine, paid
        state.payouts[e] += paid
        state.followed[e] += machine == state.intent[e]
        _next_round(e, state)
        state.running[e] = steps[e] < rounds
        rewards[e, 0] = np.float32(paid)
        truncated[e, 0] = not state.running[e]

"""Numba kernels of the CHSH game; each loops over the environments of a batch."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import below, uniform
from qio_envs.chsh.state import CHSHState

QUESTIONS, ENTANGLED = 0, 1  # streams of random numbers
_SHARE = np.float32(0.5)  # of each agent in a round that is won: a round counts 1


@njit(cache=True)
def _ask(seed: int, episode: int, step: int, question: Array) -> None:
    for n in range(2):
        question[n] = below(2, n, step, episode, QUESTIONS, seed)


@njit(cache=True)
def reset(mask: Array, state: CHSHState) -> None:
    """Ask the first questions where ``mask`` (bool ``[E]``) is true; all but seed, episode, step is written anew."""
    for e in range(mask.shape[0]):
        if not mask[e]:
            continue
        _ask(state.seed[e], state.episode[e], 0, state.question[e])
        for n in range(2):
            state.asked[e, n] = -1
            state.answer[e, n] = -1
        state.wins[e] = 0


@njit(cache=True)
def step(actions: Array, state: CHSHState, rounds: int, rewards: Array, truncated: Array) -> None:
    """Play one round in every environment and ask the next questions.

    Args:
        actions: Answers, int64 ``[E, 2]``.
        state: Is advanced.
        rounds: Rounds of an episode.
        rewards: Float32 ``[E, 2]``, is written.
        truncated: Bool ``[E, 2]``, is written.
    """
    question, asked, answer = state.question, state.asked, state.answer
    seed, episode, steps, wins, running = state.seed, state.episode, state.step, state.wins, state.running
    for e in range(actions.shape[0]):
        won = (actions[e, 0] ^ actions[e, 1]) == (question[e, 0] & question[e, 1])
        wins[e] += won
        steps[e] += 1
        over = steps[e] >= rounds
        running[e] = not over
        for n in range(2):
            asked[e, n] = question[e, n]
            answer[e, n] = actions[e, n]
            rewards[e, n] = _SHARE if won else np.float32(0)
            truncated[e, n] = over
        _ask(seed[e], episode[e], steps[e], question[e])


@njit(cache=True)
def entangled_answers(key: np.uint64, state: CHSHState, agree: Array, out: Array) -> None:
    """Draw the answers of agents who give equal ones with probability ``agree[x, y]``, each bit an even coin.

    Args:
        key: Of the random numbers, beside the environments' own seeds.
        state: Questions and clocks.
        agree: Float64 ``[2, 2]``, by question of Alice and of Bob.
        out: Int64 ``[E, 2]``, is written.
    """
    for e in range(out.shape[0]):
        own, steps, episode = state.seed[e] ^ key, state.step[e], state.episode[e]
        chance = agree[state.question[e, 0], state.question[e, 1]]
        out[e, 0] = below(2, 0, steps, episode, ENTANGLED, own)
        out[e, 1] = out[e, 0] ^ (uniform(1, steps, episode, ENTANGLED, own) >= chance)

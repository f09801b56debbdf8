"""Numba kernels of the CHSH game; each loops over the copies of a batch."""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import below, uniform

QUESTIONS, ENTANGLED = 0, 1  # streams of random numbers
_SHARE = np.float32(0.5)  # of each agent in a round that is won: a round counts 1


@njit(cache=True)
def _ask(seed: int, episode: int, step: int, question: Array) -> None:
    for n in range(2):
        question[n] = below(2, n, step, episode, QUESTIONS, seed)


@njit(cache=True)
def reset(
    mask: Array, seed: Array, episode: Array, question: Array, asked: Array, answer: Array, wins: Array
) -> None:
    """Ask the first questions in the copies of ``mask``; every array is written anew."""
    for e in range(mask.shape[0]):
        if not mask[e]:
            continue
        _ask(seed[e], episode[e], 0, question[e])
        for n in range(2):
            asked[e, n] = -1
            answer[e, n] = -1
        wins[e] = 0


@njit(cache=True)
def step(
    actions: Array,
    seed: Array,
    episode: Array,
    steps: Array,
    running: Array,
    rounds: int,
    question: Array,
    asked: Array,
    answer: Array,
    wins: Array,
    rewards: Array,
    truncated: Array,
) -> None:
    """Play one round in every copy and ask the next questions; ``rewards`` and ``truncated`` are written."""
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
def entangled_answers(
    key: np.uint64, seed: Array, episode: Array, steps: Array, question: Array, agree: Array, out: Array
) -> None:
    """Write the answers (``[E, 2]``) of agents who are equal with probability ``agree[x, y]``, each bit even."""
    for e in range(out.shape[0]):
        own = seed[e] ^ key
        chance = agree[question[e, 0], question[e, 1]]
        out[e, 0] = below(2, 0, steps[e], episode[e], ENTANGLED, own)
        out[e, 1] = out[e, 0] ^ (uniform(1, steps[e], episode[e], ENTANGLED, own) >= chance)

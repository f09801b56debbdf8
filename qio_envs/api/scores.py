"""Scripted policies as reference points: what random play and an oracle score, and scores between the two."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from qio_envs.api.batched import Array, BatchedEnv, ScriptedPolicy


def episode_scores(
    env: BatchedEnv, policy: Callable[[Any], ScriptedPolicy], seed: int = 0, metric: str = "team_return"
) -> Array:
    """Return what a policy scores in one episode of each environment, float64 ``[E]``.

    Args:
        env: The environments to play in; environment ``i`` is reset to ``seed + i``.
        policy: Makes the policy for the environment, such as a class in ``env.scripted_policies``.
        seed: First seed.
        metric: The score: name of a number of the environment in ``env.info()``, at the end of the episode.
    """
    env.reset(seed)
    player = policy(env)
    scores, ended = np.full(env.num_envs, np.nan), np.zeros(env.num_envs, bool)
    while not ended.all():
        env.step(player.act())
        now = ~env.running & ~ended
        scores[now] = env.info()[metric][now]
        ended |= now
        if not ended.all():
            env.reset(mask=~env.running)
    return scores


def reference_scores(env: BatchedEnv, seed: int = 0, metric: str = "team_return") -> dict[str, float]:
    """Return the mean score of each of the environment's scripted policies, over one episode of each environment.

    Args:
        env: The environments to play in.
        seed: As for `episode_scores`.
        metric: Likewise.
    """
    return {
        name: float(episode_scores(env, policy, seed, metric).mean())
        for name, policy in env.scripted_policies.items()
    }


def normalized_score(value: float, random: float, oracle: float) -> float:
    """Return ``value`` on the scale where random play is 0 and the oracle 1.

    Raises:
        ValueError: The two reference scores are equal.
    """
    if random == oracle:
        raise ValueError(f"random and oracle: the reference scores are both {random:g}, there is no scale")
    return (value - random) / (oracle - random)

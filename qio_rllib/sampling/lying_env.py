"""Environments that lie to a client of a federation: attacks on the environment's side."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

import gymnasium
import numpy as np

from qio_rllib.sampling.vector_env import Array, VectorEnv


@contextlib.contextmanager
def lying(env: VectorEnv, attack: str | None, rng: np.random.Generator) -> Iterator[None]:
    """Let environments lie for a while.

    Args:
        env: The environments.
        attack: "flipped_rewards": minus what was paid; "random_actions": uniformly random legal actions are taken in
            place of the policy's, which takes them for its own; None for the truth.
        rng: Of the random actions.
    """
    if attack is None:
        yield
        return
    honest = env.step

    def flipped(actions: Sequence[tuple[Array, Array]]) -> tuple[Array, Array, Array]:
        rewards, terminated, truncated = honest(actions)
        return -rewards, terminated, truncated

    def random(actions: Sequence[tuple[Array, Array]]) -> tuple[Array, Array, Array]:
        return honest([(index, _random_actions(env, index, chosen, rng)) for index, chosen in actions])

    # An attribute of the object hides the method of its class until it is deleted.
    vars(env)["step"] = flipped if attack == "flipped_rewards" else random
    try:
        yield
    finally:
        del vars(env)["step"]


def _random_actions(env: VectorEnv, index: Array, chosen: Array, rng: np.random.Generator) -> Array:
    """Return uniformly random legal actions in the shape of those that were chosen, ``[E, M, ...]``."""
    space = env.action_spaces[env.agents[index[0]]]
    if isinstance(space, gymnasium.spaces.Discrete):
        legal = env.action_mask(index)
        first, count = int(space.start), int(space.n)
        if legal is None:
            return rng.integers(first, first + count, chosen.shape).astype(chosen.dtype)
        keys = np.where(legal, rng.random(legal.shape), -1.0)
        return (first + keys.argmax(-1)).astype(chosen.dtype)
    assert isinstance(space, gymnasium.spaces.Box)
    return rng.uniform(space.low, space.high, chosen.shape).astype(chosen.dtype)

"""Observation spaces with an action mask in them."""

from __future__ import annotations

import gymnasium

OBSERVATION, ACTION_MASK = "observation", "action_mask"
"""Keys of an observation that comes with the mask of legal actions (nonzero = legal)."""


def is_masked_space(space: gymnasium.Space | None) -> bool:
    """Whether an observation space is the Dict of ``observation`` and ``action_mask``."""
    return isinstance(space, gymnasium.spaces.Dict) and set(space.spaces) == {OBSERVATION, ACTION_MASK}


def bare_space(space: gymnasium.Space) -> gymnasium.Space:
    """Return the space of observations without the action mask beside them, if there is one."""
    return (
        space[OBSERVATION] if isinstance(space, gymnasium.spaces.Dict) and is_masked_space(space) else space
    )

"""Observation spaces: with an action mask in them, and of other kinds than a Box."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.models.parts import SpaceParts, encoded_bounds, of_uint8

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


class EncodedBox(gymnasium.spaces.Box):
    """The Box of the numbers that stand for observations of another space; equal to none of another `original`.

    Args:
        original: A space that `SpaceParts.of` takes.

    Attributes:
        original: That space.
        parts: What writes its members as numbers.

    Raises:
        ConfigError: A space that cannot be written as a fixed number of numbers.
    """

    def __init__(self, original: gymnasium.Space) -> None:
        self.original = original
        self.parts = SpaceParts.of(original)
        low, high = encoded_bounds(original)
        shape = self.parts.encoded_shape
        super().__init__(low.reshape(shape), high.reshape(shape), dtype=np.float32)

    def __repr__(self) -> str:
        """Say what it encodes."""
        return f"{self.original} as {self.parts.encoded_size} numbers"

    def __eq__(self, other: object) -> bool:
        """Whether the other encodes the same space."""
        return isinstance(other, EncodedBox) and self.original == other.original

    __hash__ = gymnasium.spaces.Box.__hash__


def array_space(space: gymnasium.Space) -> gymnasium.Space:
    """Return the space of what networks get of observations of any space: a Box, or a Dict of one and a mask.

    A Box stays as it is, but for bytes (uint8 from 0 to 255), which are divided by 255. All else is an `EncodedBox`.

    Raises:
        ConfigError: A space that cannot be written as a fixed number of numbers.
    """
    if is_masked_space(space):
        assert isinstance(space, gymnasium.spaces.Dict)
        bare = array_space(space[OBSERVATION])
        return gymnasium.spaces.Dict({OBSERVATION: bare, ACTION_MASK: space[ACTION_MASK]})
    if isinstance(space, EncodedBox) or (isinstance(space, gymnasium.spaces.Box) and not of_uint8(space)):
        return space
    return EncodedBox(space)


def encoded(space: gymnasium.Space, value: Any) -> Any:
    """Return one observation in its `array_space`, given that space: one that is no `EncodedBox` as it is.

    Raises:
        ValueError: The observation does not lie in the original space.
    """
    if is_masked_space(space) and isinstance(space, gymnasium.spaces.Dict):
        return {**value, OBSERVATION: encoded(space[OBSERVATION], value[OBSERVATION])}
    if not isinstance(space, EncodedBox):
        return value
    row = np.empty((1, space.parts.encoded_size), np.float32)
    space.parts.encode([value], row)
    return row.reshape(space.shape)


def check_space(name: str, space: gymnasium.Space) -> gymnasium.Space:
    """Return the `array_space` of an agent's observations.

    Args:
        name: The agent, for messages.
        space: Its space.

    Raises:
        ConfigError: The space cannot be written as a fixed number of numbers.
    """
    try:
        return array_space(space)
    except ConfigError as error:
        raise ConfigError(f"env: observations of {name} are {space}; {error}") from error

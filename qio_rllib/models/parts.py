"""`SpaceParts`: nested spaces as rows of numbers, for observations and actions of any kind."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

import gymnasium
import numpy as np

from qio_envs.api import ConfigError

Array = np.ndarray
_BYTE = 255.0
_LEAVES = (
    gymnasium.spaces.Discrete,
    gymnasium.spaces.MultiDiscrete,
    gymnasium.spaces.MultiBinary,
    gymnasium.spaces.Box,
)


@dataclasses.dataclass(frozen=True)
class Part:
    """A Discrete, MultiDiscrete, MultiBinary or Box space inside a nested one.

    Attributes:
        path: Keys of Dict spaces (texts) and places in Tuple spaces (integers) that lead to it.
        shape: Of its values; () for Discrete.
        sizes: Of each number among its values how many values it takes; () where they are real numbers.
        starts: The least value of each of them.
        scale: What real numbers are divided by as observations.
    """

    path: tuple[str | int, ...]
    shape: tuple[int, ...]
    sizes: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    scale: float = 1.0

    @property
    def size(self) -> int:
        """Numbers in a value."""
        return math.prod(self.shape)

    def of(self, value: Any) -> Any:
        """Return the part of a nested value.

        Raises:
            ValueError: The value has no such part.
        """
        for key in self.path:
            kind: Any = Mapping if isinstance(key, str) else Sequence
            try:
                if not isinstance(value, kind | np.ndarray):
                    raise TypeError
                value = value[key]
            except (KeyError, IndexError, TypeError) as error:
                raise ValueError(f"it has no {self.name}") from error
        return value

    @property
    def name(self) -> str:
        """What messages call it."""
        return f"part {'.'.join(map(str, self.path))}" if self.path else "value"


@dataclasses.dataclass(frozen=True)
class SpaceParts:
    """A nested space as the sequence of its `Part`s, in the order of ``gymnasium.spaces.utils.flatten``.

    Observations are rows of ``encoded_size`` numbers: one-hot for each number of Discrete and MultiDiscrete spaces,
    real numbers and bits as they are, bytes (uint8 from 0 to 255) divided by 255. Actions are rows of as many numbers
    as the space has: first those of all discrete parts, counted from 0 (``factors`` says how many values each takes),
    then all real ones.

    Attributes:
        parts: The parts.
    """

    parts: tuple[Part, ...]

    @classmethod
    def of(cls, space: gymnasium.Space, actions: bool = False) -> Self:
        """Describe a space.

        Args:
            space: The space.
            actions: Whether it is one of actions, whose bits are chosen: numbers of two values.

        Raises:
            ConfigError: It holds another kind of space, a Dict whose keys are no texts, or nothing at all.
        """
        parts = tuple(_part_of(path, leaf, actions) for path, leaf in _leaves(space, ()))
        if not sum(part.size for part in parts):
            raise ConfigError("an empty space holds no numbers")
        return cls(parts)

    @classmethod
    def from_list(cls, values: Sequence[Mapping[str, Any]]) -> Self:
        """Return what `as_list` described."""
        kept: Iterator[dict[str, Any]] = (
            {key: tuple(value) if isinstance(value, list) else value for key, value in one.items()}
            for one in values
        )
        return cls(tuple(Part(**one) for one in kept))

    def as_list(self) -> list[dict[str, Any]]:
        """Return plain values, fit for JSON."""
        return [dataclasses.asdict(part) for part in self.parts]

    # -- observations ---------------------------------------------------------------------------------------------

    @property
    def encoded_size(self) -> int:
        """Numbers in an encoded observation."""
        return sum(sum(part.sizes) or part.size for part in self.parts)

    @property
    def encoded_shape(self) -> tuple[int, ...]:
        """Shape of an encoded observation: that of a Box alone, flat for all else."""
        if len(self.parts) == 1 and not self.parts[0].path and not self.parts[0].sizes:
            return self.parts[0].shape
        return (self.encoded_size,)

    def encode(self, values: Sequence[Any], out: Array) -> None:
        """Write observations as numbers, all at once.

        Args:
            values: ``B`` observations.
            out: float32 ``[B, encoded_size]``, which may be a view.

        Raises:
            ValueError: An observation does not lie in the space; what is wrong with it is said, not which it is.
        """
        rows, place = np.arange(len(values)), 0
        for part in self.parts:
            column = _stacked(part, [part.of(value) for value in values] if part.path else values)
            if not part.sizes:
                out[:, place : place + part.size] = column if part.scale == 1.0 else column / part.scale
                place += part.size
                continue
            chosen = _whole(part, column)
            width = sum(part.sizes)
            out[:, place : place + width] = 0.0
            for digits, size in zip(chosen.T, part.sizes, strict=True):
                out[rows, place + digits] = 1.0
                place += size

    # -- actions --------------------------------------------------------------------------------------------------

    @property
    def factors(self) -> tuple[int, ...]:
        """How many values each discrete number of an action takes."""
        return tuple(size for part in self.parts for size in part.sizes)

    def decode(self, row: Array) -> Any:
        """Return the action that a row stands for, as the environment takes it.

        Args:
            row: float32, the discrete numbers first.
        """
        first, second = 0, len(self.factors)
        found: Any = None
        for part in self.parts:
            if part.sizes:
                numbers: Any = row[first : first + part.size].astype(np.int64) + np.array(part.starts)
                first += part.size
            else:
                numbers = row[second : second + part.size].astype(np.float32)
                second += part.size
            value = numbers.reshape(part.shape)
            if part.sizes and not part.shape:
                value = int(value)
            if not part.path:
                return value
            found = _put(found, part.path, value)
        return _closed(found)


def of_uint8(space: gymnasium.spaces.Box) -> bool:
    """Whether a Box holds bytes, as pictures do: uint8 from 0 to 255."""
    return bool(space.dtype == np.uint8 and (space.low == 0).all() and (space.high == _BYTE).all())


def encoded_bounds(space: gymnasium.Space) -> tuple[Array, Array]:
    """Return least and largest numbers of a space's encoded observations, float32 ``[encoded_size]`` each."""
    low, high = [], []
    for path, leaf in _leaves(space, ()):
        part = _part_of(path, leaf, actions=False)
        if isinstance(leaf, gymnasium.spaces.Box):
            low.append(leaf.low.ravel() / part.scale)
            high.append(leaf.high.ravel() / part.scale)
        else:
            low.append(np.zeros(sum(part.sizes) or part.size))
            high.append(np.ones(sum(part.sizes) or part.size))
    return np.concatenate(low).astype(np.float32), np.concatenate(high).astype(np.float32)


def action_bounds(space: gymnasium.Space) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return least and largest values of the real numbers of a space's actions."""
    boxes = [leaf for _, leaf in _leaves(space, ()) if isinstance(leaf, gymnasium.spaces.Box)]
    low = tuple(bound for box in boxes for bound in box.low.ravel().tolist())
    return low, tuple(bound for box in boxes for bound in box.high.ravel().tolist())


def _leaves(
    space: gymnasium.Space, path: tuple[str | int, ...]
) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yield the spaces inside a nested one, each with its path."""
    if isinstance(space, _LEAVES):
        yield path, space
        return
    inner: list[tuple[Any, gymnasium.Space]]
    if isinstance(space, gymnasium.spaces.Dict):
        inner = list(space.spaces.items())
        for key, _ in inner:
            if not isinstance(key, str):
                raise ConfigError(f"keys of Dict spaces must be texts, got {key!r}; wrap the environment")
    elif isinstance(space, gymnasium.spaces.Tuple):
        inner = list(enumerate(space.spaces))
    else:
        raise ConfigError(
            f"{type(space).__name__} has no fixed number of values; spaces may be Box, Discrete, MultiDiscrete, "
            "MultiBinary, and Dict or Tuple of these: wrap the environment"
        )
    for key, child in inner:
        yield from _leaves(child, (*path, key))


def _part_of(path: tuple[str | int, ...], space: Any, actions: bool) -> Part:
    if isinstance(space, gymnasium.spaces.Discrete):
        return Part(path, (), (int(space.n),), (int(space.start),))
    shape = tuple(int(side) for side in space.shape)
    if isinstance(space, gymnasium.spaces.MultiDiscrete):
        sizes, starts = (
            tuple(int(number) for number in array.ravel()) for array in (space.nvec, space.start)
        )
        return Part(path, shape, sizes, starts)
    if isinstance(space, gymnasium.spaces.MultiBinary):
        bits = math.prod(shape) if actions else 0
        return Part(path, shape, (2,) * bits, (0,) * bits)
    return Part(path, shape, scale=_BYTE if not actions and of_uint8(space) else 1.0)


def _stacked(part: Part, values: Sequence[Any]) -> Array:
    """Return a part of all values as numbers ``[B, size]``."""
    try:
        array = np.asarray(values)
    except ValueError as error:  # of different shapes
        raise ValueError(f"{part.name} is not of shape {part.shape}") from error
    if array.shape != (len(values), *part.shape) or array.dtype.kind not in "buif":
        raise ValueError(
            f"{part.name} is {array.dtype} of shape {array.shape[1:]}, not numbers of {part.shape}"
        )
    return array.reshape(len(values), part.size)


def _whole(part: Part, column: Array) -> Array:
    """Return a part's discrete numbers, counted from 0."""
    digits = column.astype(np.int64)
    if column.dtype.kind == "f" and not (digits == column).all():
        raise ValueError(f"{part.name} is no integer")
    digits = digits - np.array(part.starts)
    if ((digits < 0) | (digits >= np.array(part.sizes))).any():
        raise ValueError(f"{part.name} is outside its range")
    return digits


class _Branch(dict):
    """A Dict or a Tuple on its way: its values by key."""


def _put(tree: Any, path: tuple[str | int, ...], value: Any) -> Any:
    tree = _Branch() if tree is None else tree
    key, *rest = path
    tree[key] = _put(tree.get(key), tuple(rest), value) if rest else value
    return tree


def _closed(tree: Any) -> Any:
    """Return a tree with dictionaries for Dict spaces and tuples for Tuple spaces."""
    if not isinstance(tree, _Branch):
        return tree
    values = {key: _closed(value) for key, value in tree.items()}
    return tuple(values.values()) if all(isinstance(key, int) for key in values) else values

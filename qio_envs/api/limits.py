"""What a saved state may hold: the range of each of its arrays, and what must be true of several together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

Array = np.ndarray
Limits = Mapping[str, tuple[Any, Any]]
"""Lowest and highest allowed number of each array by name; each a number, or an array that broadcasts to it.

Floats are finite besides, so that ``(-inf, inf)`` allows every finite number. Of complex numbers the limits are those
of real and imaginary part.
"""
Relations = Iterable[tuple[str, Array, str]]
"""For each condition the array that it is about, where it is true (bool ``[E]``), and what is expected, as text."""

FINITE = (-np.inf, np.inf)
"""Limits of an array that may hold any finite number."""
FLAG = (0, 1)
"""Limits of an array of bool."""


def clock_limits(max_steps: int) -> dict[str, tuple[Any, Any]]:
    """Return the limits of what every state has: seed, episode, step and running."""
    return {"seed": (0, 2**64 - 1), "episode": (0, 2**32 - 1), "step": (-1, max_steps), "running": FLAG}


def check_state(arrays: Mapping[str, Array], limits: Limits, relations: Relations) -> None:
    """Refuse a state outside its limits.

    Args:
        arrays: By name, in the types and shapes of the environment's, each with a leading axis ``E``.
        limits: Of every array.
        relations: What must hold besides in environments that were reset; looked at where all limits hold.

    Raises:
        ValueError: One line that names array, place and range.
    """
    for name, array in arrays.items():
        _check_range(name, array, *limits[name])
    step, last = arrays["step"], limits["step"][1]
    waiting = ~arrays["running"] | ((step >= 0) & (step < last))
    _check_relation("step", waiting, f"0 to {last - 1} where the environment is running")
    for name, holds, expected in relations:
        _check_relation(name, holds | (step < 0), expected)


def _check_range(name: str, array: Array, low: Any, high: Any) -> None:
    if array.dtype.kind == "c":
        _check_range(name, array.real, low, high)
        _check_range(name, array.imag, low, high)
        return
    if array.dtype.kind == "b":
        array = array.view(np.uint8)  # a byte other than 0 and 1 is true here and false there
    bounds = [np.asarray(bound).astype(array.dtype) for bound in (low, high)]
    fits = (array >= bounds[0]) & (array <= bounds[1])  # false for NaN
    if array.dtype.kind == "f":
        fits &= np.isfinite(array)
    if fits.all():
        return
    place = tuple(int(index) for index in np.argwhere(~fits)[0])
    least, most = (np.broadcast_to(bound, array.shape)[place] for bound in bounds)
    raise ValueError(
        f"state['{name}']{list(place)}: expected {_range_text(array.dtype.kind, least, most)}, got {array[place]}"
    )


def _range_text(kind: str, low: Any, high: Any) -> str:
    noun = "a finite number" if kind == "f" else "an integer"
    if np.isinf(low) and np.isinf(high):
        return noun
    return f"{noun} of at least {low}" if np.isinf(high) else f"{noun} from {low} to {high}"


def _check_relation(name: str, holds: Array, expected: str) -> None:
    if not holds.all():
        index = int(np.flatnonzero(~holds)[0])
        raise ValueError(f"state['{name}'] of environment {index}: expected {expected}")

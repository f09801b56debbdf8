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

SCENARIO = "scenario"
"""Name of the array in a saved state that says whose it is: what `EnvConfig.described` gives, text ``[E]``."""
FINITE = (-np.inf, np.inf)
"""Limits of an array that may hold any finite number."""
FLAG = (0, 1)
"""Limits of an array of bool."""


def clock_limits(max_steps: int) -> dict[str, tuple[Any, Any]]:
    """Return the limits of what every state has: seed, episode, step and running."""
    return {"seed": (0, 2**64 - 1), "episode": (0, 2**32 - 1), "step": (-1, max_steps), "running": FLAG}


def matching_arrays(state: Any, arrays: Mapping[str, Array], scenario: str) -> dict[str, Array]:
    """Return the arrays of a saved state, which is one of the same environment and settings.

    Args:
        state: As `BatchedEnv.get_state` gives it.
        arrays: The environment's own, by name.
        scenario: The environment's, as `EnvConfig.described` gives it.

    Raises:
        ValueError: It is of another environment or of other settings, or an array is missing, unknown, or differs in
            shape or dtype.
    """
    expected = {*arrays, SCENARIO}
    if not isinstance(state, Mapping) or set(state) != expected:
        got = sorted(map(str, state)) if isinstance(state, Mapping) else type(state).__name__
        raise ValueError(f"state: expected the arrays {sorted(expected)}, got {got}")
    for text in sorted({str(text) for text in np.ravel(state[SCENARIO])}):
        if _identity(text) != _identity(scenario):
            raise ValueError(f"state: expected one of {scenario}, got one of {text}")
    found = {name: np.asarray(state[name]) for name in arrays}
    for name, have in arrays.items():
        new = found[name]
        if new.shape != have.shape or new.dtype != have.dtype:
            raise ValueError(
                f"state['{name}']: expected {have.dtype} of shape {have.shape}, got {new.dtype} of shape {new.shape}"
            )
    return found


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


def _identity(scenario: str) -> tuple[str, str]:
    """Return id and content hash of what `EnvConfig.described` gives; the name of a scenario does not matter."""
    words = scenario.split(" ")
    return words[0], words[-1]

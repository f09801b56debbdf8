"""The causal graph of a time step as plain data, and the check of interventions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import gymnasium
import numpy as np

from qio_envs.api.errors import InterventionError

AFTER = "'"
"""Ends the name of a variable after the step: ``s0`` at time t is ``s0'`` at time t + 1."""

InterventionSpaces = Mapping[str, gymnasium.spaces.Box | gymnasium.spaces.Discrete]


class StepGraph(NamedTuple):
    """The causal graph of one time step, as data that any library reads.

    Variables are the components of the state and the actions by name, the components after the step with `AFTER`
    behind the name, and ``reward``. Noises are left out: they are independent of each other, each acts on one
    variable. Components at time t are causes; edges into them are given only where all their causes belong to time t
    too, as those of an intention that is formed anew in each step.
    """

    variables: tuple[str, ...]
    hidden: tuple[str, ...]  # variables that no observation shows
    edges: tuple[tuple[str, str], ...]  # pairs (cause, effect)


def checked_intervention(
    mask: np.ndarray, values: np.ndarray, spaces: InterventionSpaces, num_envs: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return ``mask`` (bool ``[E, K]``) and ``values`` as float32 ``[E, K]``, 0 where the mask is false.

    Args:
        mask: Which variables to set, bool ``[E, K]``.
        values: Numbers ``[E, K]``; those outside the mask do not matter.
        spaces: What is allowed for each of the ``K`` variables, by name: a Box of one number, or a Discrete.
        num_envs: Number of environments ``E``.

    Raises:
        InterventionError: Wrong shape or type, or a value outside its space, such as NaN.
    """
    chosen, numbers = np.asarray(mask), np.asarray(values)
    shape = (num_envs, len(spaces))
    if chosen.shape != shape or chosen.dtype != bool:
        raise InterventionError(
            f"mask: expected bool of shape {shape} for the variables {', '.join(spaces)}, "
            f"got {chosen.dtype} of shape {chosen.shape}"
        )
    if numbers.shape != shape or numbers.dtype.kind not in "biuf":
        raise InterventionError(
            f"values: expected numbers of shape {shape} for the variables {', '.join(spaces)}, "
            f"got {numbers.dtype} of shape {numbers.shape}"
        )
    with np.errstate(over="ignore"):
        result = np.where(chosen, numbers, 0).astype(np.float32)
    for column, (name, space) in enumerate(spaces.items()):
        new, kind = result[:, column], "a number"
        if isinstance(space, gymnasium.spaces.Discrete):
            kind, low, high = "an integer", 0, int(space.n) - 1
            fits = np.isin(new, np.arange(low, high + 1))
        else:
            low, high = space.low.item(), space.high.item()
            fits = (new >= low) & (new <= high)  # false for NaN
        wrong = np.flatnonzero(chosen[:, column] & ~fits)
        if wrong.size:
            raise InterventionError(
                f"an intervention outside the space: {name} in env {wrong[0]}: expected {kind} "
                f"from {low:g} to {high:g}, got {numbers[wrong[0], column]}"
            )
    return chosen, result

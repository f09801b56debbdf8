"""The parts of a circuit: gates on qubits, and the angles that are given when it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from qio_rllib.quantum.gates import FIXED, ROTATIONS, Array

UNITARY = "UNITARY"


@dataclass(frozen=True)
class Angle:
    """An angle that is given when the circuit runs: ``scale`` times a weight or a feature, radians.

    Attributes:
        source: "weight" (what is learned) or "feature" (what is encoded).
        index: Its place among them, at least 0.
        scale: Factor; ``2.0 * weight(0)`` sets it.

    Raises:
        ValueError: Another source, a negative index, or a scale that is not finite.
    """

    source: Literal["weight", "feature"]
    index: int
    scale: float = 1.0

    def __post_init__(self) -> None:
        if self.source not in ("weight", "feature"):
            raise ValueError(f"angle: expected the source 'weight' or 'feature', got {self.source!r}")
        _index(self.source, self.index)
        if not math.isfinite(self.scale):
            raise ValueError(
                f"angle: the scale of {self.source}({self.index}) must be finite, got {self.scale}"
            )

    def __mul__(self, factor: float) -> Angle:
        return replace(self, scale=self.scale * float(factor))

    __rmul__ = __mul__

    def __neg__(self) -> Angle:
        return self * -1.0


def weight(index: int) -> Angle:
    """Return the angle that is the trainable weight of that index."""
    return Angle("weight", _index("weight", index))


def feature(index: int) -> Angle:
    """Return the angle that is the input feature of that index."""
    return Angle("feature", _index("feature", index))


@dataclass(frozen=True)
class Operation:
    """One gate in a circuit.

    Attributes:
        name: One of `GATES`, or "UNITARY" for a matrix of the user's own.
        qubits: On which it acts, the control first.
        angle: Radians, or where they come from; None for gates without one.
        matrix: complex128 ``[2**k, 2**k]`` of "UNITARY", None for the others.
    """

    name: str
    qubits: tuple[int, ...]
    angle: float | Angle | None = None
    matrix: Array | None = None

    def fixed_matrix(self) -> Array | None:
        """Return the matrix of a gate whose angle is known, complex128; None where it is given later."""
        if self.matrix is not None:
            return self.matrix
        if self.name in FIXED:
            return FIXED[self.name]
        return (
            None if isinstance(self.angle, Angle) else ROTATIONS[self.name].matrix(float(self.angle or 0.0))
        )


def _index(name: str, index: int) -> int:
    if isinstance(index, bool) or not isinstance(index, int | np.integer) or index < 0:
        raise ValueError(f"{name}: expected an index of at least 0, got {index!r}")
    return int(index)

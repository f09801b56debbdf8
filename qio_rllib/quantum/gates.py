"""Gates: their matrices, and for those with an angle the generator.

Conventions: ``RX(t) = exp(-i t X / 2)`` and so on; ``PHASE(t) = diag(1, exp(i t))``; in gates on several qubits the
first qubit is the control and the most significant one. They are those of M. Nielsen and I. Chuang, "Quantum
Computation and Quantum Information" (2000), chapter 4, and of PennyLane.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

Array = np.ndarray

_I = np.eye(2, dtype=np.complex128)
_X = np.array([[0, 1], [1, 0]], np.complex128)
_Y = np.array([[0, -1j], [1j, 0]], np.complex128)
_Z = np.diag([1, -1]).astype(np.complex128)
_H = (_X + _Z) / math.sqrt(2)
_S = np.diag([1, 1j]).astype(np.complex128)
_T = np.diag([1, np.exp(0.25j * math.pi)]).astype(np.complex128)

PAULIS: dict[str, Array] = {"I": _I, "X": _X, "Y": _Y, "Z": _Z}
"""Pauli matrices, complex128 ``[2, 2]``."""


@dataclass(frozen=True)
class Rotation:
    """A gate with an angle: ``exp(-i angle D)`` in the basis in which its generator D is diagonal.

    Attributes:
        basis: For each qubit the matrix ``V`` that leads there: the gate is ``V exp(-i angle D) V^dagger``.
        diagonal: Of ``D``, float64 ``[2**k]``.
    """

    basis: tuple[Array, ...]
    diagonal: Array

    @property
    def frequencies(self) -> Array:
        """Positive differences of D's eigenvalues: what a parameter-shift rule needs, float64 ``[R]``."""
        gaps = np.abs(self.diagonal[:, None] - self.diagonal)
        return np.unique(gaps[gaps > 0])

    def matrix(self, angle: float) -> Array:
        """Return the gate's matrix, complex128 ``[2**k, 2**k]``."""
        basis = kron(*self.basis)
        return (basis * np.exp(-1j * angle * self.diagonal)) @ basis.conj().T


def kron(*factors: Array) -> Array:
    """Return the Kronecker product, the first factor the most significant."""
    product = np.ones((1, 1), np.complex128)
    for factor in factors:
        product = np.kron(product, factor)
    return product


def controlled(matrix: Array) -> Array:
    """Return the gate with one more qubit in front, its control."""
    size = len(matrix)
    result = np.eye(2 * size, dtype=np.complex128)
    result[size:, size:] = matrix
    return result


FIXED: dict[str, Array] = {
    "I": _I,
    "X": _X,
    "Y": _Y,
    "Z": _Z,
    "H": _H,
    "S": _S,
    "SDG": _S.conj(),
    "T": _T,
    "TDG": _T.conj(),
    "CNOT": controlled(_X),
    "CY": controlled(_Y),
    "CZ": controlled(_Z),
    "SWAP": np.eye(4, dtype=np.complex128)[[0, 2, 1, 3]],
    "TOFFOLI": controlled(controlled(_X)),
}
"""Gates without an angle: complex128 ``[2**k, 2**k]``."""

_TO_X, _TO_Y = _H, _S @ _H  # V Z V^dagger is X and Y
_HALF = np.array([0.5, -0.5])
_BASES = {"X": _TO_X, "Y": _TO_Y, "Z": _I}

ROTATIONS: dict[str, Rotation] = {
    **{f"R{axis}": Rotation((basis,), _HALF) for axis, basis in _BASES.items()},
    "PHASE": Rotation((_I,), np.array([0.0, -1.0])),
    **{
        f"CR{axis}": Rotation((_I, basis), np.concatenate([np.zeros(2), _HALF]))
        for axis, basis in _BASES.items()
    },
    **{
        f"R{axis}{axis}": Rotation((basis, basis), np.array([0.5, -0.5, -0.5, 0.5]))
        for axis, basis in _BASES.items()
    },
}
"""Gates with one angle, radians."""

GATES: tuple[str, ...] = (*FIXED, *ROTATIONS)
"""Names of all gates."""


def num_qubits_of(name: str) -> int:
    """Return on how many qubits a gate acts."""
    return len(ROTATIONS[name].basis) if name in ROTATIONS else int(math.log2(len(FIXED[name])))


def check_unitary(matrix: Array, num_qubits: int) -> Array:
    """Return a user's matrix as complex128 ``[2**k, 2**k]``.

    Raises:
        ValueError: It has another shape, numbers that are not finite, or is not unitary to 1e-6.
    """
    values = np.asarray(matrix)
    size = 2**num_qubits
    if values.shape != (size, size):
        raise ValueError(
            f"matrix: expected shape ({size}, {size}) for {num_qubits} qubit(s), got {values.shape}"
        )
    values = values.astype(np.complex128)
    error = np.abs(values @ values.conj().T - np.eye(size)).max()
    if not error <= 1e-6:  # NaN included
        raise ValueError(f"matrix: not unitary, U U^dagger differs from the identity by {error:.2g}")
    return values


def suggestion(given: object, allowed: Iterable[str]) -> str:
    """Return the end of a message: the nearest allowed name, and all of them."""
    allowed = list(allowed)
    near = difflib.get_close_matches(str(given).upper(), allowed, n=1)
    return (f" (did you mean {near[0]}?)" if near else "") + f"; allowed: {', '.join(allowed)}"

"""Gates and states as arrays.

Qubit 0 is the most significant bit of a basis state's index, as in PennyLane: of two qubits, |10> has index 2 and
qubit 0 in state |1>.
"""

from __future__ import annotations

import re
from typing import NamedTuple

import numpy as np

from qio_envs.api import Array
from qio_envs.qubit_control.config import QubitControlConfig

_ROOT = 2**-0.5
_PAULIS = {
    "X": np.array([[0, 1], [1, 0]], np.complex128),
    "Y": np.array([[0, -1j], [1j, 0]], np.complex128),
    "Z": np.array([[1, 0], [0, -1]], np.complex128),
}
_FIXED = {
    "H": np.array([[_ROOT, _ROOT], [_ROOT, -_ROOT]], np.complex128),
    "S": np.array([[1, 0], [0, 1j]], np.complex128),
    "T": np.array([[1, 0], [0, _ROOT + 1j * _ROOT]], np.complex128),
    "X": _PAULIS["X"],
    "Z": _PAULIS["Z"],
}
_NAME = re.compile(r"(?P<kind>[A-Z]+)\(((?P<sign>[+-])pi/(?P<part>\d),)?((?P<control>\d),)?(?P<qubit>\d)\)")


def rotation(axis: str, angle: float) -> Array:
    """Return exp(-i angle P / 2) for P = X, Y or Z, complex128 ``[2, 2]``; ``angle`` in radians."""
    return np.cos(angle / 2) * np.eye(2) - 1j * np.sin(angle / 2) * _PAULIS[axis]


class GateSet(NamedTuple):
    """The gates of a configuration as the kernels take them, in the order of ``config.gate_names``."""

    matrix: Array  # complex128 [A, 2, 2], what happens to the qubit
    qubit: Array  # int64 [A], bit of the qubit in a basis state's index
    control: Array  # int64 [A], bit that must be 1 for it to happen; 0 where there is none

    @classmethod
    def of(cls, config: QubitControlConfig) -> GateSet:
        """Return the gates of a configuration."""
        matrix, qubit, control = [], [], []
        for name in config.gate_names:
            parts = _NAME.fullmatch(name)
            assert parts is not None
            if parts["part"]:
                angle = np.pi / int(parts["part"]) * (-1 if parts["sign"] == "-" else 1)
                matrix.append(rotation(parts["kind"][1], angle))
            else:
                matrix.append(_FIXED["X" if parts["kind"] == "CNOT" else parts["kind"]])
            qubit.append(_bit(config, parts["qubit"]))
            control.append(_bit(config, parts["control"]) if parts["control"] else 0)
        return cls(np.array(matrix), np.array(qubit, np.int64), np.array(control, np.int64))


def _bit(config: QubitControlConfig, qubit: str) -> int:
    return 1 << (config.num_qubits - 1 - int(qubit))


def zero_state(num_qubits: int) -> Array:
    """Return |0...0>, complex128 ``[2**num_qubits]``."""
    state = np.zeros(2**num_qubits, np.complex128)
    state[0] = 1
    return state


def fixed_target(config: QubitControlConfig) -> Array | None:
    """Return the target, complex128 ``[2**num_qubits]``, or None where each episode draws its own."""
    size = 2**config.num_qubits
    if config.draws_target:
        return None
    if config.target == "uniform":
        return np.full(size, size**-0.5, np.complex128)
    state = np.zeros(size, np.complex128)  # a Bell pair is the GHZ state of two qubits
    state[[0, -1]] = _ROOT
    return state


def pauli_tables(num_qubits: int) -> tuple[Array, Array]:
    """Return where the Pauli strings other than the identity stand in ``config.pauli_names``, and their phases.

    With a bit for each qubit, a string is ``i**turn X_flip Z_sign``: it takes |j> to
    ``i**turn (-1)**(number of ones in j & sign) |j ^ flip>``.

    Returns:
        place and turn, int64 ``[D, D]`` each, by flip and sign; the identity's place is -1.
    """
    digits = np.arange(4**num_qubits)[:, None] // 4 ** np.arange(num_qubits)[::-1] % 4  # I, X, Y, Z
    bits = 1 << np.arange(num_qubits)[::-1]
    flip = ((digits == 1) | (digits == 2)) @ bits
    sign = ((digits == 2) | (digits == 3)) @ bits
    place, turn = np.empty((2, 2**num_qubits, 2**num_qubits), np.int64)
    place[flip, sign] = np.arange(4**num_qubits) - 1
    turn[flip, sign] = (digits == 2).sum(axis=1) % 4  # Y = i X Z
    return place, turn

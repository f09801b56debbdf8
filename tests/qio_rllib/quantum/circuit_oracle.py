"""Random circuits, and a plain NumPy simulator to check them with: one gate after the other, one row at a time."""

import math

import numpy as np

from qio_rllib.quantum import GATES, Angle, Circuit, feature, weight
from qio_rllib.quantum.gates import FIXED, num_qubits_of

WEIGHTS, FEATURES = 4, 3

PAULI = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
}


def exponential(generator, angle):
    """Return ``exp(-i angle generator)`` of a Hermitian matrix."""
    values, vectors = np.linalg.eigh(generator)
    return (vectors * np.exp(-1j * angle * values)) @ vectors.conj().T


def controlled(matrix):
    return np.block(
        [
            [np.eye(len(matrix)), np.zeros((len(matrix),) * 2)],
            [np.zeros((len(matrix),) * 2), matrix],
        ]
    )


def gate(name, angle):
    """Return a gate's matrix from its definition, without the package's tables."""
    if name in PAULI:
        return PAULI[name]
    if name in ("RX", "RY", "RZ"):
        return exponential(PAULI[name[1]] / 2, angle)
    if name in ("RXX", "RYY", "RZZ"):
        return exponential(np.kron(PAULI[name[1]], PAULI[name[1]]) / 2, angle)
    if name in ("CRX", "CRY", "CRZ"):
        return controlled(exponential(PAULI[name[2]] / 2, angle))
    swap = np.eye(4)[[0, 2, 1, 3]]
    return {
        "H": np.array([[1, 1], [1, -1]]) / math.sqrt(2),
        "S": np.diag([1, 1j]),
        "SDG": np.diag([1, -1j]),
        "T": np.diag([1, np.exp(1j * math.pi / 4)]),
        "TDG": np.diag([1, np.exp(-1j * math.pi / 4)]),
        "PHASE": np.diag([1, np.exp(1j * (angle or 0.0))]),
        "CNOT": controlled(PAULI["X"]),
        "CY": controlled(PAULI["Y"]),
        "CZ": controlled(PAULI["Z"]),
        "SWAP": swap,
        "TOFFOLI": controlled(controlled(PAULI["X"])),
    }[name]


def dense_state(circuit, weights=None, features=None, initial=None):
    """Return the final amplitudes of one row, complex128 ``[2**n]``."""
    n = circuit.num_qubits
    given = {"weight": weights, "feature": features}
    state = np.zeros(2**n, complex) if initial is None else np.array(initial, complex)
    if initial is None:
        state[0] = 1
    state = state.reshape((2,) * n)
    for operation in circuit.operations:
        angle = operation.angle
        if isinstance(angle, Angle):
            angle = angle.scale * float(given[angle.source][angle.index])
        matrix = operation.matrix if operation.matrix is not None else gate(operation.name, angle)
        k = len(operation.qubits)
        tensor = np.asarray(matrix).reshape((2,) * (2 * k))
        state = np.tensordot(tensor, state, axes=(list(range(k, 2 * k)), list(operation.qubits)))
        state = np.moveaxis(state, range(k), operation.qubits)
    return state.reshape(-1)


def random_unitary(generator, size):
    values = generator.normal(size=(size, size)) + 1j * generator.normal(size=(size, size))
    return np.linalg.qr(values)[0]


def random_circuit(num_qubits, seed, depth):
    """Every gate that fits at least once, then random ones; a unitary in the middle; all weights and features used."""
    generator = np.random.default_rng(seed)
    fitting = [name for name in GATES if num_qubits_of(name) <= num_qubits]
    names = [*generator.permutation(fitting), *generator.choice(fitting, max(depth - len(fitting), 0))]
    circuit = Circuit(num_qubits)
    for place, name in enumerate(names):
        qubits = generator.permutation(num_qubits).tolist()
        angle = None
        if name not in FIXED:
            scale = float(generator.uniform(-2, 2))
            angle = [
                float(generator.uniform(-4, 4)),
                scale * weight(int(generator.integers(WEIGHTS))),
                scale * feature(int(generator.integers(FEATURES))),
            ][generator.integers(3)]
        circuit.add(str(name), *qubits[: num_qubits_of(name)], angle=angle)
        if place == len(names) // 2:
            size = min(2, num_qubits)
            circuit.unitary(random_unitary(generator, 2**size), *qubits[:size])
    for index in range(WEIGHTS):
        circuit.add("RY", int(generator.integers(num_qubits)), angle=weight(index))
    for index in range(FEATURES):
        circuit.add("RX", int(generator.integers(num_qubits)), angle=feature(index))
    return circuit

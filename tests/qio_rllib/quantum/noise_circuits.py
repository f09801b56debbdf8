"""What tests of noise share: channels, probabilities and random circuits."""

import dataclasses

import numpy as np
import torch
from hypothesis import strategies as st

from qio_rllib.quantum import (
    GATES,
    AmplitudeDamping,
    Circuit,
    Dephasing,
    Depolarizing,
    feature,
    weight,
)
from qio_rllib.quantum.gates import ROTATIONS, num_qubits_of


@dataclasses.dataclass(frozen=True)
class Own:
    kraus: np.ndarray


CHANNELS = (Depolarizing(0.3), AmplitudeDamping(0.4), Dephasing(0.2))


PROBABILITY = st.one_of(st.sampled_from([0.0, 1e-12, 0.5, 1.0]), st.floats(0.0, 1.0))


def random_circuit(num_qubits, size, seed, num_features=2):
    """A circuit of gates of all kinds, weights [size] and features [3, num_features], float64."""
    rng = np.random.default_rng(seed)
    names = [name for name in GATES if num_qubits_of(name) <= num_qubits]
    circuit = Circuit(num_qubits).add("RY", 0, angle=feature(0)).add("RX", 0, angle=weight(0))
    for index in range(2, size):
        if rng.random() < 0.1:
            count = int(rng.integers(1, min(num_qubits, 2) + 1))
            matrix, _ = np.linalg.qr(rng.normal(size=(2**count,) * 2) + 1j * rng.normal(size=(2**count,) * 2))
            circuit.unitary(matrix, *rng.permutation(num_qubits)[:count].tolist())
            continue
        name = str(rng.choice(names))
        angle = None
        if name in ROTATIONS:
            kinds = (float(rng.normal()), -1.5 * weight(index), 0.5 * feature(index % num_features))
            angle = kinds[rng.integers(3)]
        circuit.add(name, *rng.permutation(num_qubits)[: num_qubits_of(name)].tolist(), angle=angle)
    weights = torch.from_numpy(rng.normal(size=circuit.num_weights))
    features = torch.from_numpy(rng.normal(size=(3, circuit.num_features)))
    return circuit, weights, features


def outer(state):
    return state[..., :, None] * state[..., None, :].conj()

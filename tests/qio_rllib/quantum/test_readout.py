import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_circuits import PROBABILITY, outer, random_circuit

from qio_rllib.quantum import (
    Circuit,
    PauliSum,
    Projector,
    ReadoutError,
    expectation,
    expectation_of_density,
    probabilities,
    probabilities_of_density,
    sample,
)
from qio_rllib.quantum.gates import kron


@settings(max_examples=30, deadline=None)
@given(num_qubits=st.integers(1, 4), p01=PROBABILITY, p10=PROBABILITY, seed=st.integers(0, 10**6))
def test_readout_is_a_product_of_matrices(num_qubits, p01, p10, seed):
    readout = ReadoutError(p01, p10)
    np.testing.assert_allclose(readout.matrix.sum(0), 1.0)
    assert readout.matrix[1, 0] == p01
    assert readout.matrix[0, 1] == p10
    probs = torch.from_numpy(np.random.default_rng(seed).dirichlet(np.ones(2**num_qubits), size=(3, 2)))
    whole = torch.from_numpy(kron(*[readout.matrix] * num_qubits).real)
    read = readout.of_probabilities(probs)
    torch.testing.assert_close(read, probs @ whole.mT, atol=1e-12, rtol=0)


def test_samples_are_read_with_the_same_probabilities():
    readout, count = ReadoutError(0.1, 0.3), 20000
    state = Circuit(2).add("RY", 0, angle=1.0).add("CNOT", 0, 1).state(dtype=torch.complex128)
    generator = torch.Generator().manual_seed(0)
    read = readout.of_samples(sample(state, count, generator).reshape(2, -1), 2, generator)
    assert read.shape == (2, count // 2)
    found = torch.bincount(read.reshape(-1), minlength=4) / count
    expected = readout.of_probabilities(probabilities(state))
    error = (expected * (1 - expected) / count).sqrt()
    assert ((found - expected).abs() <= 4 * error).all()
    assert readout.of_samples(torch.zeros(0, dtype=torch.int64), 2).shape == (0,)
    torch.testing.assert_close(ReadoutError(1.0, 1.0).of_samples(torch.arange(8), 3), 7 - torch.arange(8))


@settings(max_examples=30, deadline=None)
@given(p01=PROBABILITY, p10=PROBABILITY, seed=st.integers(0, 10**6))
def test_observables_as_they_are_read(p01, p10, seed):
    readout = ReadoutError(p01, p10)
    circuit, weights, features = random_circuit(3, 10, seed)
    state = circuit.state(weights, features)
    # each string in its own basis, read with the error, and then signs
    for letters in ("XYZ", "ZIX", "IYI"):
        turn = Circuit(3)
        for qubit, letter in enumerate(letters):
            if letter == "Y":
                turn.add("SDG", qubit)
            if letter in "XY":
                turn.add("H", qubit)
        read = readout.of_probabilities(probabilities(turn.state(initial=state) if len(turn) else state))
        signs = PauliSum.of(" ".join(f"Z{q}" for q in range(3) if letters[q] != "I")).diagonal(3)
        expected = read @ torch.from_numpy(signs)
        string = " ".join(f"{letter}{qubit}" for qubit, letter in enumerate(letters))
        found = expectation(state, [readout.of_observable(string)])[..., 0]
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=0)
        of_density = expectation_of_density(outer(state), [string], readout)[..., 0]
        torch.testing.assert_close(of_density, expected, atol=1e-12, rtol=0)
    read = probabilities_of_density(outer(state), [2, 0], readout)
    found = expectation(state, [readout.of_observable(Projector("10", (2, 0)))])[..., 0]
    torch.testing.assert_close(found, read[..., 2], atol=1e-12, rtol=0)

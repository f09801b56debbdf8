"""Networks that are circuits: what they compute."""

import functools
import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qio_envs.api import ConfigError
from qio_rllib.models.circuits import (
    CircuitSettings,
    suffix_parities,
)
from qio_rllib.quantum import Circuit, amplitude_encoding, pennylane_expectation, pennylane_state

ROOT = Path(__file__).parents[2]
TINY = {"num_qubits": 2, "num_layers": 1, "inputs": "arctan"}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rotation(axis, angle):
    pauli = {"X": [[0, 1], [1, 0]], "Y": [[0, -1j], [1j, 0]], "Z": [[1, 0], [0, -1]]}[axis]
    return math.cos(angle / 2) * np.eye(2) - 1j * math.sin(angle / 2) * np.array(pauli)


def on(qubits, places, matrix):
    """Return a gate on some of the qubits as a dense matrix; the first place is the most significant."""
    size = 2**qubits
    dense = np.zeros((size, size), complex)
    for column in range(size):
        bits = [column >> (qubits - 1 - q) & 1 for q in range(qubits)]
        index = functools.reduce(lambda total, place: 2 * total + bits[place], places, 0)
        for row in range(len(matrix)):
            out = list(bits)
            for n, place in enumerate(places):
                out[place] = row >> (len(places) - 1 - n) & 1
            dense[functools.reduce(lambda total, bit: 2 * total + bit, out, 0), column] += matrix[row, index]
    return dense


def reference(network, config, row):
    """Return a circuit network's output for one observation, from the equations of its docstring alone."""
    qubits, layers = config.num_qubits, config.num_layers
    weights, by_angles = network.weights.detach().double().numpy(), config.encoding == "angles"
    two = np.eye(4)[[0, 1, 3, 2]] if config.entangler == "CNOT" else np.diag([1, 1, 1, -1])
    state = np.zeros(2**qubits, complex)
    state[0] = 1
    if not by_angles and np.any(row):
        state[: len(row)] = row / np.linalg.norm(row)
        state[len(row) :] = 0
    given = iter(weights)
    for layer in range(layers + 1):
        for qubit in range(qubits):
            for axis in "XYZ" if layer < layers else "ZY" if by_angles else "XY":
                state = on(qubits, [qubit], rotation(axis, next(given))) @ state
        if layer == layers:
            break
        for qubit in range(qubits if qubits > 2 else qubits - 1):
            state = on(qubits, [qubit, (qubit + 1) % qubits], two) @ state
        for index, value in enumerate(row if by_angles else []):
            angle = network.scales[layer, index].item() * value
            angle = math.atan(angle) if config.inputs == "arctan" else angle
            axis = "YZX"[index // qubits % 3]
            state = on(qubits, [index % qubits], rotation(axis, angle)) @ state
    probs = np.abs(state) ** 2
    if network.measurement is None:
        actions = network.groups.shape[1]
        shares = np.zeros(actions)
        for k, p in enumerate(probs):
            bits = [k >> (qubits - 1 - q) & 1 for q in range(qubits)]
            place = sum((sum(bits[q:]) % 2) << (qubits - 1 - q) for q in range(qubits))
            shares[place * actions // 2**qubits] += p
        return np.log(shares)
    signs = np.array([[1 - 2 * (k >> (qubits - 1 - q) & 1) for k in range(2**qubits)] for q in range(qubits)])
    pairs = [signs[a] * signs[b] for a, b in itertools.combinations(range(qubits), 2)]
    expectations = np.array([*signs, *pairs]) @ probs
    matrix, bias = (x.detach().double().numpy() for x in (network.readout.weight, network.readout.bias))
    return matrix @ expectations + bias


@pytest.mark.parametrize(
    ("readout", "size", "entangler", "angles", "inputs"),
    [
        ("observables", (3, 2), "CNOT", "linear", 5),
        ("observables", (2, 1), "CZ", "arctan", 7),
        ("observables", (1, 1), "CNOT", "linear", 1),
        ("born", (3, 1), "CZ", "linear", 2),
        ("born", (2, 2), "CNOT", "arctan", 3),
    ],
)
def test_a_circuit_computes_what_its_equations_say(readout, size, entangler, angles, inputs):
    torch.manual_seed(0)
    config = CircuitSettings(
        num_qubits=size[0], num_layers=size[1], entangler=entangler, inputs=angles, policy=readout
    )
    network = config.network(inputs, 3, readout)
    with torch.no_grad():
        network.scales.uniform_(-2, 2)
        batch = 3 * torch.randn(4, inputs)
        expected = np.array([reference(network, config, row) for row in batch.double().numpy()])
        np.testing.assert_allclose(network(batch).numpy(), expected, atol=2e-5)


@pytest.mark.parametrize(
    ("readout", "size", "entangler", "inputs"),
    [
        ("observables", (3, 2), "CNOT", 5),
        ("observables", (2, 1), "CZ", 4),
        ("observables", (1, 1), "CNOT", 1),
        ("born", (3, 1), "CZ", 8),
        ("born", (2, 2), "CNOT", 3),
    ],
)
def test_amplitudes_are_the_normalised_observation(readout, size, entangler, inputs):
    torch.manual_seed(0)
    config = CircuitSettings(
        num_qubits=size[0], num_layers=size[1], entangler=entangler, encoding="amplitude", policy=readout
    )
    outputs = min(3, 2 ** size[0])
    network = config.network(inputs, outputs, readout)
    batch = 3 * torch.randn(5, inputs)
    batch[2] = 0  # has no direction: |0...0>
    with torch.no_grad():
        expected = np.array([reference(network, config, row) for row in batch.double().numpy()])
        np.testing.assert_allclose(network(batch).numpy(), expected, atol=2e-5)
        for multiple in (-1.0, 1e-3, 1e6):
            torch.testing.assert_close(network(multiple * batch), network(batch), atol=2e-5, rtol=1e-4)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_amplitudes_are_traced_without_the_example_that_they_were_traced_with():
    network = CircuitSettings(encoding="amplitude", num_qubits=3, num_layers=2).network(6, 4)
    for example in (torch.zeros(2, 6), torch.randn(2, 6)):
        traced = torch.jit.trace(network, example, check_trace=False)
        for rows in (1, 2, 13):
            batch = torch.randn(rows, 6)
            batch[0] = 0
            torch.testing.assert_close(traced(batch), network(batch))


def test_gradients_with_respect_to_amplitude_encoded_observations():
    network = CircuitSettings(encoding="amplitude", num_qubits=2, num_layers=1).network(3, 2).double()
    batch = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(network, (batch,))
    zeros = torch.zeros(2, 3, requires_grad=True)
    single = CircuitSettings(encoding="amplitude", num_qubits=2, num_layers=1).network(3, 2)
    single(zeros).sum().backward()
    assert (zeros.grad == 0).all()


def test_pennylane_agrees_on_amplitudes():
    pytest.importorskip("pennylane")
    torch.manual_seed(2)
    network = CircuitSettings(num_qubits=3, num_layers=2, encoding="amplitude").network(5, 2)
    batch = torch.randn(4, 5)
    state = amplitude_encoding(batch.double())
    signs = torch.tensor([[1.0 - 2 * (k >> (2 - q) & 1) for k in range(8)] for q in range(3)])
    strings = torch.stack([*signs, *(signs[a] * signs[b] for a, b in itertools.combinations(range(3), 2))])
    with torch.no_grad():
        unitary = torch.stack(
            [pennylane_from(network.circuit, network.weights.double(), k) for k in range(8)], dim=-1
        )
        probs = (state @ unitary.mT).abs().square()
        values = network.readout(probs.float() @ strings.mT)
        torch.testing.assert_close(network(batch), values, atol=1e-5, rtol=1e-5)


def pennylane_from(circuit, weights, index):
    """Return PennyLane's final state from a basis state, which X gates prepare."""
    prepared = Circuit(circuit.num_qubits)
    for qubit in range(circuit.num_qubits):
        if index >> (circuit.num_qubits - 1 - qubit) & 1:
            prepared.add("X", qubit)
    return pennylane_state(prepared.extend(circuit.operations), weights, None)


def test_an_observation_with_more_numbers_than_amplitudes_is_refused():
    config = CircuitSettings(num_qubits=2, encoding="amplitude")
    config.network(4, 2)
    message = r"circuit.num_qubits: 2 qubits have 4 amplitudes, an observation has 5 numbers; take 3 or more"
    with pytest.raises(ConfigError, match=message):
        config.network(5, 2)
    with pytest.raises(ConfigError, match="an observation has 4097 numbers; take encoding angles"):
        config.network(4097, 2)


def test_pennylane_agrees():
    pytest.importorskip("pennylane")
    torch.manual_seed(1)
    config = CircuitSettings(num_qubits=4, num_layers=2)
    observing, born = config.network(6, 3), config.network(6, 3, "born")
    batch = torch.randn(5, 6)
    strings = [f"Z{q}" for q in range(4)] + [f"Z{a} Z{b}" for a, b in itertools.combinations(range(4), 2)]
    with torch.no_grad():
        angles = (batch[:, None] * observing.scales).flatten(1).double()
        values = pennylane_expectation(observing.circuit, strings, observing.weights.double(), angles)
        torch.testing.assert_close(observing(batch), observing.readout(values.float()), atol=1e-5, rtol=1e-5)
        state = pennylane_state(born.circuit, born.weights.double(), angles)
        shares = state.abs().square() @ born.groups.double()
        torch.testing.assert_close(born(batch).double(), shares.log(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("encoding", ["angles", "amplitude"])
@pytest.mark.parametrize("readout", ["observables", "born"])
@pytest.mark.parametrize("entangler", ["CNOT", "CZ"])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 2)])
def test_every_parameter_has_a_gradient(encoding, readout, entangler, size):
    """Nothing is counted that cannot be learned: parameter-matched MLPs have as many, and use them all."""
    torch.manual_seed(0)
    qubits, layers = size
    config = CircuitSettings(num_qubits=qubits, num_layers=layers, entangler=entangler, encoding=encoding)
    inputs = 5 if encoding == "angles" else 2**qubits
    network = config.network(inputs, 2, readout)
    (network(torch.randn(16, inputs)) * torch.randn(16, 2)).sum().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad.abs() > 1e-6).all(), name


@pytest.mark.parametrize("form", [{"inputs": "linear"}, {"inputs": "arctan"}, {"encoding": "amplitude"}])
def test_large_observations_stay_finite(form):
    for readout in ("observables", "born"):
        network = CircuitSettings(num_qubits=2, num_layers=1, **form).network(3, 2, readout)
        batch = torch.tensor([[1e6, -1e6, 0.0], [0.0, 0.0, 0.0]])
        values = network(batch)
        values.sum().backward()
        assert values.isfinite().all()
        assert all(p.grad.isfinite().all() for p in network.parameters())


def test_born_probabilities_sum_to_one_over_nearly_equal_runs_of_states():
    for qubits, actions in [(1, 2), (2, 3), (3, 5), (4, 16), (3, 1)]:
        network = CircuitSettings(num_qubits=qubits, num_layers=1).network(2, actions, "born")
        torch.testing.assert_close(network(torch.randn(9, 2)).exp().sum(-1), torch.ones(9))
        sizes = network.groups.sum(0)
        assert sizes.sum() == 2**qubits
        assert sizes.min() >= 1
        assert sizes.max() - sizes.min() <= 1
        owner = network.groups.argmax(1)[suffix_parities(qubits).argsort()]
        assert (owner.diff() >= 0).all()


@settings(deadline=None)
@given(st.integers(1, 8))
def test_suffix_parities_are_a_permutation_whose_first_bit_is_the_parity_of_all(qubits):
    found = suffix_parities(qubits).tolist()
    assert sorted(found) == list(range(2**qubits))
    assert [value >> (qubits - 1) for value in found] == [k.bit_count() % 2 for k in range(2**qubits)]


def test_the_born_rule_needs_a_state_for_each_action():
    config = CircuitSettings(num_qubits=2, num_layers=1)
    config.network(3, 4, "born")
    with pytest.raises(
        ConfigError, match=r"circuit.num_qubits: .* 2 qubits tells 4 actions apart, there are 5"
    ):
        config.network(3, 5, "born")

"""Networks that are circuits, and MLPs of as many parameters: their numbers and gradients."""

import contextlib
import functools
import itertools
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qio_envs.api import ConfigError
from qio_rllib.models.circuits import (
    CircuitNetwork,
    CircuitSettings,
    EqualCountMLP,
    count_parameters,
    suffix_parities,
)
from qio_rllib.quantum import pennylane_expectation, pennylane_state


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# -- the numbers --------------------------------------------------------------------------------------------------


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
    weights, scales = (x.detach().double().numpy() for x in (network.weights, network.scales))
    two = np.eye(4)[[0, 1, 3, 2]] if config.entangler == "CNOT" else np.diag([1, 1, 1, -1])
    state = np.zeros(2**qubits, complex)
    state[0] = 1
    given = iter(weights)
    for layer in range(layers + 1):
        for qubit in range(qubits):
            for axis in "XYZ" if layer < layers else "ZY":
                state = on(qubits, [qubit], rotation(axis, next(given))) @ state
        if layer == layers:
            break
        for qubit in range(qubits if qubits > 2 else qubits - 1):
            state = on(qubits, [qubit, (qubit + 1) % qubits], two) @ state
        for index, value in enumerate(row):
            angle = scales[layer, index] * value
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
        seen = 3 * torch.randn(4, inputs)
        expected = np.array([reference(network, config, row) for row in seen.double().numpy()])
        np.testing.assert_allclose(network(seen).numpy(), expected, atol=2e-5)


def test_pennylane_agrees():
    pytest.importorskip("pennylane")
    torch.manual_seed(1)
    config = CircuitSettings(num_qubits=4, num_layers=2)
    observing, born = config.network(6, 3), config.network(6, 3, "born")
    seen = torch.randn(5, 6)
    strings = [f"Z{q}" for q in range(4)] + [f"Z{a} Z{b}" for a, b in itertools.combinations(range(4), 2)]
    with torch.no_grad():
        angles = (seen[:, None] * observing.scales).flatten(1).double()
        values = pennylane_expectation(observing.circuit, strings, observing.weights.double(), angles)
        torch.testing.assert_close(observing(seen), observing.readout(values.float()), atol=1e-5, rtol=1e-5)
        state = pennylane_state(born.circuit, born.weights.double(), angles)
        shares = state.abs().square() @ born.groups.double()
        torch.testing.assert_close(born(seen).double(), shares.log(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("readout", ["observables", "born"])
@pytest.mark.parametrize("entangler", ["CNOT", "CZ"])
@pytest.mark.parametrize("size", [(1, 1), (2, 1), (3, 2)])
def test_every_parameter_has_a_gradient(readout, entangler, size):
    """Nothing is counted that cannot be learned: matched MLPs have as many parameters, and those are all used."""
    torch.manual_seed(0)
    qubits, layers = size
    config = CircuitSettings(num_qubits=qubits, num_layers=layers, entangler=entangler, inputs="arctan")
    network = config.network(5, 2, readout)
    (network(torch.randn(16, 5)) * torch.randn(16, 2)).sum().backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad.abs() > 1e-6).all(), name


@pytest.mark.parametrize("inputs", ["linear", "arctan"])
def test_large_observations_stay_finite(inputs):
    for readout in ("observables", "born"):
        network = CircuitSettings(num_qubits=2, num_layers=1, inputs=inputs).network(3, 2, readout)
        seen = torch.tensor([[1e6, -1e6, 0.0], [0.0, 0.0, 0.0]])
        values = network(seen)
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


# -- the MLP of as many parameters ------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    qubits=st.integers(1, 5),
    layers=st.integers(1, 4),
    inputs=st.integers(1, 40),
    outputs=st.integers(1, 12),
    readout=st.sampled_from(["observables", "born"]),
)
def test_the_matched_mlp_has_exactly_as_many_parameters(qubits, layers, inputs, outputs, readout):
    if readout == "born" and outputs > 2**qubits:
        return
    sizes = {"num_qubits": qubits, "num_layers": layers}
    circuit = CircuitSettings(**sizes).network(inputs, outputs, readout)
    assert isinstance(circuit, CircuitNetwork)
    classical = CircuitSettings(**sizes, kind="classical")
    hidden = math.ceil((count_parameters(circuit) - outputs) / (inputs + 1 + outputs))
    if hidden * inputs >= inputs + outputs + 1:  # what is too much can be left out of the first layer
        matched = classical.network(inputs, outputs, readout)
    else:  # so few connections that there may be none
        with contextlib.suppress(ConfigError):
            matched = classical.network(inputs, outputs, readout)
            check_matched(matched, inputs, outputs, count_parameters(circuit))
        return
    check_matched(matched, inputs, outputs, count_parameters(circuit))


@settings(max_examples=200, deadline=None)
@given(inputs=st.integers(1, 200), outputs=st.integers(1, 20), parameters=st.integers(1, 3000))
def test_a_network_of_a_given_count_has_it(inputs, outputs, parameters):
    try:
        matched = EqualCountMLP(inputs, outputs, parameters)
    except ConfigError:
        assert parameters < outputs + (outputs + 1) * 3 + max(inputs, outputs) * 10
        return
    check_matched(matched, inputs, outputs, parameters)


def check_matched(matched, inputs, outputs, parameters):
    assert sum(p.numel() for p in matched.parameters() if p.requires_grad) == parameters
    assert len(matched.places.unique()) == len(matched.first)
    torch.nn.init.uniform_(matched.bias, -0.5, 0.5)  # from 0 they leave a hidden unit without inputs at 0
    seen = 0.1 * torch.randn(8, inputs) / math.sqrt(inputs)
    values = matched(seen)
    assert values.shape == (8, outputs)
    (values * torch.randn(8, outputs)).sum().backward()
    for name, parameter in matched.named_parameters():
        assert (parameter.grad != 0).all(), name
    hidden, _ = matched.shape
    widest = outputs + (hidden - 1) * (inputs + 1 + outputs)
    assert widest < parameters <= outputs + hidden * (inputs + 1 + outputs)


def test_every_hidden_unit_of_a_matched_mlp_keeps_inputs():
    matched = CircuitSettings(kind="classical").network(8, 5)
    hidden, inputs = matched.shape
    kept = torch.zeros(hidden * inputs).index_fill(0, matched.places, 1).reshape(hidden, inputs).sum(1)
    assert kept.min() >= 1


def test_too_few_parameters_for_a_matched_mlp_are_refused():
    with pytest.raises(ConfigError, match="circuit: no network of 1 inputs and 12 outputs has just 30 param"):
        CircuitSettings(kind="classical", num_qubits=1, num_layers=1).network(1, 12)
    with pytest.raises(ConfigError, match="take other numbers of qubits"):
        EqualCountMLP(3, 2, 2)

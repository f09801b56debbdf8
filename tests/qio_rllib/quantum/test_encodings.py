"""How numbers enter circuits, and the layered circuits."""

import itertools
import math

import numpy as np
import pytest
import torch
from circuit_oracle import dense_state

from qio_rllib.quantum import (
    Angle,
    amplitude_encoding,
    angle_encoding,
    entangling_layer,
    layered_circuit,
    reuploading_circuit,
    variational_circuit,
    variational_layer,
)


def names(circuit):
    return [operation.name for operation in circuit.operations]


@pytest.mark.parametrize(
    ("length", "size"), [(1, 2), (2, 2), (3, 4), (4, 4), (5, 8), (8, 8), (9, 16), (100, 128)]
)
def test_vectors_become_normalised_amplitudes_padded_with_zeros(length, size):
    values = torch.randn(3, 2, length, dtype=torch.float64)
    state = amplitude_encoding(values)
    assert state.shape == (3, 2, size)
    assert (state[..., length:] == 0).all()
    wanted = values / values.norm(dim=-1, keepdim=True)
    torch.testing.assert_close(state[..., :length].real, wanted, rtol=0, atol=1e-15)


@pytest.mark.parametrize(
    ("given", "result"),
    [
        (torch.float32, torch.complex64),
        (torch.float64, torch.complex128),
        (torch.complex64, torch.complex64),
        (torch.complex128, torch.complex128),
        (torch.bfloat16, torch.complex64),
        (torch.int64, torch.complex64),
    ],
)
def test_the_dtype_follows_the_values(given, result):
    state = amplitude_encoding(torch.tensor([3, 4]).to(given))
    assert state.dtype == result
    torch.testing.assert_close(state, torch.tensor([0.6, 0.8]).to(result))


def test_phases_of_complex_values_are_kept():
    state = amplitude_encoding(torch.tensor([3j, -4.0]))
    torch.testing.assert_close(state, torch.tensor([0.6j, -0.8]))


@pytest.mark.parametrize("scale", [1e30, 1e-30, 1e38, 1e-37])
def test_large_and_small_numbers_keep_their_direction(scale):
    values = torch.tensor([[1.0, 2.0, 0.0, -2.0]])
    scaled = (values * scale).requires_grad_()
    state = amplitude_encoding(scaled)
    torch.testing.assert_close(state, amplitude_encoding(values), rtol=1e-5, atol=1e-6)
    state.real[0, 0].backward()
    assert torch.isfinite(scaled.grad).all()
    # d(a/|a|)/da falls with the scale
    wanted = torch.tensor([[1 / 3 - 1 / 27, -2 / 27, 0, 2 / 27]])
    torch.testing.assert_close(scaled.grad * scale, wanted, rtol=1e-4, atol=1e-5)


def test_numbers_of_very_different_size_stay_finite():
    values = torch.tensor([1e30, 1e-30, 0.0, 1.0], requires_grad=True)
    state = amplitude_encoding(values)
    torch.testing.assert_close(state, torch.tensor([1, 0, 0, 0], dtype=torch.complex64))
    state.abs().square().sum().backward()
    assert torch.isfinite(values.grad).all()


def test_vectors_of_zeros_are_refused_or_become_the_ground_state():
    values = torch.tensor([[0.0, 0.0, 0.0], [0.0, 3.0, 4.0]], requires_grad=True)
    with pytest.raises(ValueError, match=r"not normalisable, 1 vector\(s\) are all 0; zero='ground'"):
        amplitude_encoding(values)
    state = amplitude_encoding(values, zero="ground")
    torch.testing.assert_close(state.detach().real, torch.tensor([[1.0, 0, 0, 0], [0.0, 0.6, 0.8, 0]]))
    (state.real * torch.tensor([1.0, 2.0, 3.0, 4.0])).sum().backward()
    assert (values.grad[0] == 0).all()
    assert torch.isfinite(values.grad).all()
    assert values.grad[1].abs().sum() > 0


def test_gradients_are_those_of_the_normalised_vector():
    values = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(amplitude_encoding, values)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_not_finite_are_refused(bad):
    for zero in ("refuse", "ground"):
        with pytest.raises(ValueError, match="not normalisable, there are numbers that are not finite"):
            amplitude_encoding(torch.tensor([[1.0, 2.0], [bad, 1.0]]), zero=zero)


def test_wrong_shapes_and_options_are_refused():
    for values in (torch.tensor(1.0), torch.ones(3, 0)):
        with pytest.raises(ValueError, match=r"values: expected \[..., D\] with D of at least 1"):
            amplitude_encoding(values)
    with pytest.raises(ValueError, match="zero: expected 'refuse' or 'ground', got 'skip'"):
        amplitude_encoding(torch.ones(2), zero="skip")


@pytest.mark.parametrize("axis", ["X", "Y", "Z"])
def test_angle_encoding_turns_each_qubit_by_its_feature(axis):
    circuit = angle_encoding(3, axis, first=2)
    assert circuit.num_features == 5
    assert [(o.name, o.qubits, o.angle) for o in circuit.operations] == [
        (f"R{axis}", (qubit,), Angle("feature", 2 + qubit)) for qubit in range(3)
    ]
    features = torch.randn(4, 5, dtype=torch.float64)
    wanted = [dense_state(circuit, features=row) for row in features]
    np.testing.assert_allclose(circuit.state(features=features), wanted, atol=1e-14)


@pytest.mark.parametrize(
    ("num_qubits", "pairs"), [(1, []), (2, [(0, 1)]), (3, [(0, 1), (1, 2), (2, 0)]), (4, None)]
)
@pytest.mark.parametrize("entangler", ["CNOT", "CZ"])
def test_the_entangling_layer_is_a_ring(num_qubits, pairs, entangler):
    circuit = entangling_layer(num_qubits, entangler)
    pairs = [(0, 1), (1, 2), (2, 3), (3, 0)] if pairs is None else pairs
    assert [operation.qubits for operation in circuit.operations] == pairs
    assert set(names(circuit)) <= {entangler}


def test_a_variational_layer_has_three_weights_for_each_qubit():
    circuit = variational_layer(3, first=5)
    assert names(circuit) == ["RX", "RY", "RZ"] * 3 + ["CNOT"] * 3
    assert [o.angle.index for o in circuit.operations if o.angle] == list(range(5, 14))
    assert len(variational_layer(3, entangler=None)) == 9


@pytest.mark.parametrize(("n", "layers"), itertools.product((1, 2, 3), (0, 1, 4)))
def test_layered_circuits_have_weights_of_their_own_in_each_layer(n, layers):
    circuit = layered_circuit(n, layers)
    assert (circuit.num_weights, circuit.num_features) == (3 * n * layers, 0)
    indices = [o.angle.index for o in circuit.operations if o.angle]
    assert indices == list(range(3 * n * layers))


@pytest.mark.parametrize(("n", "layers", "features"), itertools.product((1, 2, 4), (1, 3), (1, 4, 9)))
def test_reuploading_circuits_encode_all_features_in_each_layer(n, layers, features):
    circuit = reuploading_circuit(n, layers, features)
    assert circuit.num_weights == 3 * n * layers + 2 * n
    assert circuit.num_features == features * layers
    encoded = [o for o in circuit.operations if o.angle and o.angle.source == "feature"]
    assert [o.angle.index for o in encoded] == list(range(features * layers))
    for place, operation in enumerate(encoded):
        turn, qubit = divmod(place % features, n)
        assert operation.qubits == (qubit,)
        assert operation.name == f"R{'YZX'[turn % 3]}"
    assert names(circuit)[-2 * n :] == ["RZ", "RY"] * n


def test_reuploading_circuits_agree_with_one_gate_after_the_other():
    circuit = reuploading_circuit(3, 2, 7, "CZ")
    weights = torch.randn(circuit.num_weights, dtype=torch.float64)
    features = torch.randn(3, circuit.num_features, dtype=torch.float64)
    wanted = [dense_state(circuit, weights, row) for row in features]
    np.testing.assert_allclose(circuit.state(weights, features), wanted, atol=1e-13)


def test_sizes_below_one_are_refused():
    with pytest.raises(ValueError, match="num_layers: expected an integer of at least 1, got 0"):
        reuploading_circuit(2, 0, 1)
    with pytest.raises(ValueError, match="num_features: expected an integer of at least 1, got 0"):
        reuploading_circuit(2, 1, 0)
    for make in (
        lambda: reuploading_circuit(0, 1, 1),
        lambda: angle_encoding(0),
        lambda: layered_circuit(0, 1),
    ):
        with pytest.raises(ValueError, match="num_qubits: expected an integer of at least 1"):
            make()
    with pytest.raises(ValueError, match="gate: unknown 'RW'"):
        angle_encoding(1, "W")
    with pytest.raises(ValueError, match="qubits: TOFFOLI acts on 3, got 2"):
        entangling_layer(3, "TOFFOLI")


def test_subnormal_vectors_count_as_zeros():
    values = torch.tensor([[1e-40, 2e-40]])
    with pytest.raises(ValueError, match="1 vector"):
        amplitude_encoding(values)
    assert amplitude_encoding(values, zero="ground").tolist() == [[1, 0]]


def test_a_variational_circuit_is_layers_and_a_last_rotation_of_each_qubit():
    circuit = variational_circuit(2, 3, "CZ")
    assert (circuit.num_weights, circuit.num_features) == (3 * 2 * 3 + 2 * 2, 0)
    assert circuit.operations[: len(layered_circuit(2, 3))] == layered_circuit(2, 3, "CZ").operations
    assert names(circuit)[-4:] == ["RX", "RY", "RX", "RY"]
    assert sorted(o.angle.index for o in circuit.operations if o.angle is not None) == list(range(22))
    with pytest.raises(ValueError, match="num_layers: expected an integer of at least 1, got 0"):
        variational_circuit(2, 0)

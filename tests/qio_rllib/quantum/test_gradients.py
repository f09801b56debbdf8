"""Gradients: parameter shift beside autograd, second derivatives beside finite differences."""

import numpy as np
import pytest
import torch
from circuit_oracle import FEATURES, WEIGHTS, random_circuit

from qio_rllib.quantum import (
    Circuit,
    Measurement,
    PauliSum,
    Projector,
    amplitude_encoding,
    estimate,
    expectation,
    feature,
    fidelity,
    parameter_shift,
    probabilities,
    reuploading_circuit,
    weight,
)
from qio_rllib.quantum.gates import ROTATIONS, num_qubits_of

OBSERVABLES = ["Z0", "X0 Y1", PauliSum.of("Y0") - 2 * PauliSum.of("Z1"), Projector("10")]


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def jacobian(circuit, observables, weights, features=None):
    """By autograd: ``[..., K, W]``."""
    return torch.autograd.functional.jacobian(
        lambda w: expectation(circuit.state(w, features), observables), weights
    )


def entangled(num_qubits):
    circuit = Circuit(num_qubits)
    for qubit in range(num_qubits):
        circuit.add("RX", qubit, angle=0.4 + qubit).add("RZ", qubit, angle=1.3 - qubit)
        if qubit:
            circuit.add("CNOT", qubit - 1, qubit)
    return circuit


@pytest.mark.parametrize("scale", [1.0, -0.7, 3.0])
@pytest.mark.parametrize("name", ROTATIONS)
def test_the_shift_rule_of_each_gate_agrees_with_autograd(name, scale):
    circuit = entangled(2).add(name, *[1, 0][: num_qubits_of(name)], angle=scale * weight(0))
    circuit.add("RX", 0, angle=0.3).add("RY", 1, angle=0.8).add("CZ", 0, 1).add("RX", 1, angle=0.9)
    weights = draw(1)
    shifted = parameter_shift(circuit, OBSERVABLES, weights)
    assert shifted.shape == (4, 1)
    torch.testing.assert_close(shifted, jacobian(circuit, OBSERVABLES, weights), rtol=0, atol=1e-10)
    assert shifted.abs().max() > 1e-3


@pytest.mark.parametrize("num_qubits", [1, 2, 4])
@pytest.mark.parametrize("batch", [(), (5,), (2, 3)])
def test_shared_weights_scales_and_batches_of_features_agree_with_autograd(num_qubits, batch):
    circuit = random_circuit(num_qubits, seed=num_qubits, depth=40)  # each weight in several places
    observables = ["Z0", f"X0 Y{num_qubits - 1}" if num_qubits > 1 else "Y0", Projector("1")]
    weights, features = draw(WEIGHTS), draw(*batch, FEATURES)
    shifted = parameter_shift(circuit, observables, weights, features)
    assert shifted.shape == (*batch, 3, WEIGHTS)
    assert not shifted.requires_grad
    torch.testing.assert_close(shifted, jacobian(circuit, observables, weights, features), rtol=0, atol=1e-10)


def test_weights_that_no_gate_uses_have_no_derivative():
    circuit = Circuit(1).add("RX", 0, angle=weight(2))
    shifted = parameter_shift(circuit, ["Z0"], draw(3))
    assert (shifted[:, :2] == 0).all()
    assert shifted[0, 2] != 0
    fixed = parameter_shift(Circuit(1).add("RX", 0, angle=feature(0)), ["Z0", "X0"], draw(0), draw(4, 1))
    assert fixed.shape == (4, 2, 0)


def test_single_precision_gives_single_precision():
    circuit = reuploading_circuit(2, 2, 2)
    weights, features = draw(circuit.num_weights).float(), draw(3, circuit.num_features).float()
    shifted = parameter_shift(circuit, ["Z0"], weights, features)
    assert shifted.dtype == torch.float32
    torch.testing.assert_close(shifted, jacobian(circuit, ["Z0"], weights, features), rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch", [(), (4,)])
def test_gradients_of_weights_features_and_states_agree_with_finite_differences(batch):
    circuit = random_circuit(3, seed=7, depth=40)
    weights = draw(*batch, WEIGHTS).requires_grad_()
    features = draw(4, FEATURES).requires_grad_()
    start = torch.complex(draw(8), draw(8, seed=1)).requires_grad_()
    other = amplitude_encoding(torch.complex(draw(8, seed=2), draw(8, seed=3)))

    def run(w, f, s):
        state = circuit.state(w, f, initial=amplitude_encoding(s))
        return (
            expectation(state, ["Z0", "X1 Y2"]),
            probabilities(state, [2, 0]),
            fidelity(state, other),
        )

    assert torch.autograd.gradcheck(run, (weights, features, start))


@pytest.mark.parametrize("batch", [(), (2,)])
def test_second_derivatives_agree_with_finite_differences(batch):
    circuit = random_circuit(2, seed=8, depth=30)
    inputs = (draw(*batch, WEIGHTS).requires_grad_(), draw(2, FEATURES).requires_grad_())
    assert torch.autograd.gradgradcheck(
        lambda w, f: expectation(circuit.state(w, f), ["Z0", "X0 Y1"]), inputs
    )


def test_torch_func_transforms_agree_with_autograd():
    circuit = random_circuit(3, seed=9, depth=40)
    weights, features = draw(WEIGHTS), draw(5, FEATURES)
    observables = ["Z0", "X1 Y2", "Z2"]

    def run(w, f):
        return expectation(circuit.state(w, f), observables)

    expected = jacobian(circuit, observables, weights, features)
    by_row = torch.func.vmap(run, (None, 0))(weights, features)
    torch.testing.assert_close(by_row, run(weights, features), rtol=0, atol=1e-12)
    rows = torch.func.vmap(run)(weights.expand(5, -1), features)
    torch.testing.assert_close(rows, by_row, rtol=0, atol=1e-12)
    for transform in (torch.func.jacrev, torch.func.jacfwd):
        torch.testing.assert_close(transform(run)(weights, features), expected, rtol=0, atol=1e-12)
        each = torch.func.vmap(transform(run), (None, 0))(weights, features)
        torch.testing.assert_close(each, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("transform", ["hessian", "reverse twice"])
def test_hessians_agree_with_autograd(transform):
    circuit = random_circuit(3, seed=9, depth=40)
    weights, features = draw(WEIGHTS), draw(FEATURES)

    def energy(w):
        return expectation(circuit.state(w, features), ["X1 Y2"]).sum()

    expected = torch.autograd.functional.hessian(energy, weights)
    twice = (
        torch.func.hessian if transform == "hessian" else lambda f: torch.func.jacrev(torch.func.jacrev(f))
    )
    torch.testing.assert_close(twice(energy)(weights), expected, rtol=0, atol=1e-11)
    step, finite = 1e-4, torch.zeros(WEIGHTS, WEIGHTS, dtype=torch.float64)
    eye = step * torch.eye(WEIGHTS, dtype=torch.float64)
    for i in range(WEIGHTS):
        for j in range(WEIGHTS):
            corners = [weights + a * eye[i] + b * eye[j] for a in (1, -1) for b in (1, -1)]
            pp, pm, mp, mm = (energy(corner) for corner in corners)
            finite[i, j] = (pp - pm - mp + mm) / (4 * step**2)
    torch.testing.assert_close(expected, finite, rtol=0, atol=1e-5)


def test_shift_rules_from_samples_are_unbiased():
    circuit = Circuit(2).add("RY", 0, angle=weight(0)).add("CRX", 0, 1, angle=weight(1)).add("CNOT", 1, 0)
    circuit.add("RX", 0, angle=0.5 * weight(0)).add("RZ", 1, angle=feature(0)).add(
        "RXX", 0, 1, angle=weight(1)
    )
    weights, features, observables = draw(2), draw(1), ["Z0", "X1", "Z0 Z1"]
    exact = parameter_shift(circuit, observables, weights, features)
    generator = torch.Generator().manual_seed(0)
    runs, shots = 200, 50
    estimates = torch.stack(
        [
            parameter_shift(
                circuit, observables, weights, features, lambda s: estimate(s, observables, shots, generator)
            )
            for _ in range(runs)
        ]
    )
    error = estimates.std(0) / np.sqrt(runs)
    assert (error > 0).any()
    assert ((estimates.mean(0) - exact).abs() <= 4 * error + 1e-12).all()


def test_a_measurement_may_be_handed_over():
    circuit = reuploading_circuit(2, 1, 2)
    weights, features = draw(circuit.num_weights), draw(3, circuit.num_features)
    measurement = Measurement(2, ["Z0", "Z1"])
    again = parameter_shift(circuit, ["Z0", "Z1"], weights, features, measurement.expectation)
    assert torch.equal(again, parameter_shift(circuit, ["Z0", "Z1"], weights, features))


def test_wrong_weights_and_features_are_refused():
    circuit = Circuit(1).add("RX", 0, angle=weight(1)).add("RY", 0, angle=feature(0))
    for weights in (draw(1), draw(3), draw(4, 2), torch.tensor(1.0)):
        with pytest.raises(ValueError, match="weights: expected one row"):
            parameter_shift(circuit, ["Z0"], weights, draw(1))
    with pytest.raises(ValueError, match="features: the circuit has 1, none were given"):
        parameter_shift(circuit, ["Z0"], draw(2))
    with pytest.raises(ValueError, match=r"features: expected floats of shape \[..., 1\]"):
        parameter_shift(circuit, ["Z0"], draw(2), draw(2))
    with pytest.raises(ValueError, match="observables: expected at least one"):
        parameter_shift(circuit, [], draw(2), draw(1))

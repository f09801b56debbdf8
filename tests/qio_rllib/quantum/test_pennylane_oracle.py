"""The simulator against PennyLane's default.qubit in double precision."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from circuit_oracle import FEATURES, WEIGHTS, random_circuit

from qio_envs.api.distribution import install_command
from qio_rllib.quantum import (
    GATES,
    Circuit,
    PauliSum,
    Projector,
    expectation,
    feature,
    pennylane_expectation,
    pennylane_state,
    reuploading_circuit,
    weight,
)
from qio_rllib.quantum.gates import FIXED, num_qubits_of

ROOT = Path(__file__).parents[3]
ROWS = 3
VALUES = {torch.float64: 1e-12, torch.float32: 1e-6}
GRADIENTS = {torch.float64: 1e-12, torch.float32: 1e-5}


def random_observables(num_qubits, seed):
    generator = np.random.default_rng(seed + 1)
    strings = [" ".join(f"{letter}{qubit}" for qubit in range(num_qubits)) for letter in "XYZ"]
    mixed = " ".join(f"{generator.choice(list('XYZ'))}{qubit}" for qubit in range(num_qubits))
    summed = 0.5 * PauliSum.of(mixed) - 0.3 * PauliSum.of("Z0") + 0.2 * PauliSum.of("I")
    bits = "".join(str(bit) for bit in generator.integers(0, 2, num_qubits))
    projectors = [Projector(bits), Projector(bits[:1], (num_qubits - 1,))]
    return [*strings, mixed, "Y0", summed, *projectors]


def angles(seed, dtype, batched_weights):
    generator = torch.Generator().manual_seed(seed)
    rows = (ROWS,) if batched_weights else ()
    weights = 3 * torch.randn(*rows, WEIGHTS, generator=generator)
    features = 3 * torch.randn(ROWS, FEATURES, generator=generator)
    return weights.to(dtype).requires_grad_(), features.to(dtype).requires_grad_()


def both(circuit, observables, weights, features):
    """Values and gradients of ours and of PennyLane's, the latter in double precision from the same angles."""
    results = []
    for run in (
        lambda w, f: expectation(circuit.state(w, f), observables),
        lambda w, f: pennylane_expectation(circuit, observables, w.double(), f.double()),
    ):
        values = run(weights, features)
        # a random direction, so that no two gradients cancel
        direction = torch.linspace(-1, 1, values.numel(), dtype=values.dtype).reshape(values.shape)
        gradients = torch.autograd.grad((values * direction).sum(), (weights, features))
        results.append((values.detach().double(), *(gradient.double() for gradient in gradients)))
    return results


def errors(circuit, observables, weights, features):
    ours, theirs = both(circuit, observables, weights, features)
    return [float((a - b).abs().max()) for a, b in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize("batched_weights", [False, True], ids=["shared weights", "weights by row"])
@pytest.mark.parametrize("num_qubits", range(1, 9))
def test_random_circuits_agree_with_pennylane(num_qubits, batched_weights):
    circuit = random_circuit(num_qubits, seed=num_qubits, depth=30)
    observables = random_observables(num_qubits, num_qubits)
    for dtype in (torch.float64, torch.float32):
        weights, features = angles(num_qubits, dtype, batched_weights)
        values, *gradients = errors(circuit, observables, weights, features)
        assert values < VALUES[dtype], (dtype, values)
        # the gradient with respect to a shared weight is a sum over rows
        assert max(gradients) < GRADIENTS[dtype], (dtype, gradients)


@pytest.mark.parametrize(("num_qubits", "num_layers"), [(4, 3), (8, 3), (4, 10)])
def test_the_circuits_of_policies_agree_with_pennylane(num_qubits, num_layers):
    circuit = reuploading_circuit(num_qubits, num_layers, num_qubits)
    generator = torch.Generator().manual_seed(0)
    for dtype in (torch.float64, torch.float32):
        weights = torch.randn(circuit.num_weights, generator=generator).to(dtype).requires_grad_()
        features = torch.randn(ROWS, circuit.num_features, generator=generator).to(dtype).requires_grad_()
        observables = [f"Z{qubit}" for qubit in range(num_qubits)]
        values, *gradients = errors(circuit, observables, weights, features)
        assert values < VALUES[dtype], (dtype, values)
        assert max(gradients) < GRADIENTS[dtype], (dtype, gradients)


@pytest.mark.parametrize("name", GATES)
def test_each_gate_agrees_with_pennylane(name):
    qubits = [2, 0, 1][: num_qubits_of(name)]
    circuit = Circuit(3)
    for qubit in range(3):
        circuit.add("RX", qubit, angle=0.3 + qubit).add("RZ", qubit, angle=1.1 - qubit)
    circuit.add(name, *qubits, angle=None if name in FIXED else -0.7 * weight(0))
    weights = None if name in FIXED else torch.tensor([0.9], dtype=torch.float64)
    ours = circuit.state(weights, dtype=torch.complex128)
    theirs = pennylane_state(circuit, weights)
    assert torch.allclose(ours, theirs.to(ours), rtol=0, atol=1e-12 if weights is not None else 1e-7)


def test_states_and_batch_axes_agree_with_pennylane():
    circuit = random_circuit(3, seed=5, depth=20)
    weights = torch.randn(2, 1, WEIGHTS, dtype=torch.float64)
    features = torch.randn(4, FEATURES, dtype=torch.float64)
    ours, theirs = circuit.state(weights, features), pennylane_state(circuit, weights, features)
    assert theirs.shape == ours.shape == (2, 4, 8)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-12)
    assert pennylane_expectation(circuit, ["Z0", "X1"], weights, features).shape == (2, 4, 2)
    assert pennylane_expectation(circuit, ["Z0"], weights.float(), features.float()).dtype == torch.float32


def test_a_circuit_without_a_batch_of_angles_serves_all_rows():
    circuit = Circuit(2).add("H", 0)
    rows = torch.zeros(5, 0)
    assert torch.allclose(pennylane_expectation(circuit, ["X0", "Z1"], features=rows), torch.ones(5, 2))
    assert torch.allclose(pennylane_expectation(circuit, ["X0", "Z1"]), torch.ones(2))


def test_other_devices_and_shots():
    qml = pytest.importorskip("pennylane")
    circuit = Circuit(2).add("RY", 0, angle=weight(0)).add("CNOT", 0, 1).add("RX", 1, angle=feature(0))
    weights = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    features = torch.tensor([[0.2], [1.4]], dtype=torch.float64)
    exact = expectation(circuit.state(weights, features), ["Z0 Z1", "X1"])
    (wanted,) = torch.autograd.grad(exact.sum(), weights)
    density = pennylane_expectation(circuit, ["Z0 Z1", "X1"], weights, features, device="default.mixed")
    assert torch.allclose(exact, density, atol=1e-12)
    shifted = pennylane_expectation(
        circuit, ["Z0 Z1", "X1"], weights, features, diff_method="parameter-shift"
    )
    assert torch.allclose(torch.autograd.grad(shifted.sum(), weights)[0], wanted, atol=1e-10)
    device = qml.device("default.qubit", wires=2, seed=1)
    shots = 20_000
    sampled = pennylane_expectation(circuit, ["Z0 Z1", "X1"], weights, features, device, shots)
    assert not torch.allclose(exact, sampled, atol=1e-9)
    error = ((1 - exact**2) / shots).sqrt() + 1e-9
    assert ((exact - sampled).abs() < 4.5 * error).all()


def test_bad_input_is_refused():
    circuit = Circuit(2).add("RY", 0, angle=weight(0))
    one = torch.zeros(1)
    with pytest.raises(ValueError, match="weights: the circuit has 1, none were given"):
        pennylane_expectation(circuit, ["Z0"])
    with pytest.raises(ValueError, match=r"weights: expected floats of shape \[..., 1\]"):
        pennylane_expectation(circuit, ["Z0"], torch.zeros(2))
    with pytest.raises(ValueError, match="observables: expected at least one"):
        pennylane_expectation(circuit, "Z0", one)
    with pytest.raises(ValueError, match="needs 3 qubits, there are 2"):
        pennylane_expectation(circuit, ["Z2"], one)
    with pytest.raises(ValueError, match="shots: expected an integer of at least 1"):
        pennylane_expectation(circuit, ["Z0"], one, shots=0)


def test_without_pennylane_the_message_names_the_extra():
    code = (
        "import sys; sys.modules['pennylane'] = None\n"
        "from qio_rllib.quantum import Circuit, pennylane_expectation\n"
        "try: pennylane_expectation(Circuit(1), ['Z0'])\n"
        "except ImportError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert install_command("pennylane") in done.stdout, done.stderr


def test_pennylane_is_imported_only_when_called():
    code = "import sys, qio_rllib.quantum; print('pennylane' in sys.modules, 'ray' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.split() == ["False", "False"], done.stderr

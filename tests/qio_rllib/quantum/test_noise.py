import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from noise_circuits import PROBABILITY, Own, outer, random_circuit

from qio_rllib.quantum import (
    AmplitudeDamping,
    Circuit,
    Dephasing,
    Depolarizing,
    NoiseModel,
    PauliSum,
    Projector,
    ReadoutError,
    density_matrix,
    expectation,
    expectation_of_density,
    feature,
    fold,
    layered_circuit,
    probabilities,
    probabilities_of_density,
    trajectories,
    weight,
    zero_noise_extrapolation,
)


@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128])
@pytest.mark.parametrize("num_qubits", [1, 3, 6])
def test_without_noise_it_is_the_pure_state(num_qubits, dtype):
    circuit, weights, features = random_circuit(num_qubits, 20, num_qubits)
    state = circuit.state(weights, features, dtype=dtype)
    tolerance = {"atol": 1e-12 if dtype == torch.complex128 else 1e-5, "rtol": 0}
    for noise in (None, NoiseModel(), NoiseModel(Depolarizing(0.0))):
        rho = density_matrix(circuit, weights, features, noise, dtype=dtype)
        assert rho.dtype == dtype
        torch.testing.assert_close(rho, outer(state), **tolerance)
    states = trajectories(circuit, NoiseModel(AmplitudeDamping(0.0)), weights, features, 2, dtype=dtype)
    torch.testing.assert_close(states, state.expand(2, *state.shape), **tolerance)


def test_batches_are_their_rows():
    circuit, _, _ = random_circuit(2, 15, 3)
    generator = torch.Generator().manual_seed(0)
    weights = torch.randn(4, 1, circuit.num_weights, dtype=torch.float64, generator=generator)
    features = torch.randn(3, circuit.num_features, dtype=torch.float64, generator=generator)
    initial = torch.tensor([0.6, 0.0, 0.0, 0.8j], dtype=torch.complex128)
    noise = NoiseModel((Depolarizing(0.1), AmplitudeDamping(0.2)))
    whole = density_matrix(circuit, weights, features, noise, initial=initial)
    assert whole.shape == (4, 3, 4, 4)
    for i in range(4):
        for j in range(3):
            row = density_matrix(circuit, weights[i, 0], features[j], noise, initial=initial)
            torch.testing.assert_close(whole[i, j], row, atol=1e-12, rtol=0)
    states = trajectories(circuit, noise, weights, features, 5, generator, initial=initial)
    assert states.shape == (5, 4, 3, 4)
    torch.testing.assert_close(states.abs().square().sum(-1), torch.ones(5, 4, 3, dtype=torch.float64))
    fixed = Circuit(1).add("H", 0)
    assert density_matrix(fixed, noise=noise).dtype == torch.complex64
    assert trajectories(fixed, noise, num_trajectories=3).shape == (3, 2)
    many = density_matrix(fixed, noise=noise, initial=torch.eye(2, dtype=torch.complex64).expand(5, 2, 2))
    assert many.shape == (5, 2, 2, 2)
    assert density_matrix(fixed, features=torch.zeros(3, 0), noise=noise).shape == (3, 2, 2)


# PennyLane as an oracle.
PENNYLANE = {"PHASE": "PhaseShift", "TOFFOLI": "Toffoli", "I": "Identity", "H": "Hadamard"}


PENNYLANE |= {f"R{axis}{axis}": f"Ising{axis * 2}" for axis in "XYZ"} | {f"Pauli{a}": a for a in "XYZ"}


def pennylane_density(circuit, weights, features, channels, gates=None):
    """Density matrix of one row from PennyLane; ``channels(qml, wire)`` are applied after each gate."""
    qml = pytest.importorskip("pennylane")

    @qml.qnode(qml.device("default.mixed", wires=circuit.num_qubits))
    def run():
        for operation in circuit.operations:
            angle, wires = operation.angle, list(operation.qubits)
            if angle is not None and not isinstance(angle, float):
                given = weights if angle.source == "weight" else features
                angle = angle.scale * float(given[angle.index])
            if operation.name == "UNITARY":
                qml.QubitUnitary(operation.matrix, wires=wires)
            elif operation.name in ("SDG", "TDG"):
                qml.adjoint(getattr(qml, operation.name[0]))(wires=wires)
            else:
                gate = getattr(qml, PENNYLANE.get(operation.name, operation.name))
                gate(*([] if angle is None else [angle]), wires=wires)
            if gates is None or operation.name in gates:
                for wire in wires:
                    channels(qml, wire)
        return qml.state()

    return torch.from_numpy(np.array(run()))


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (Depolarizing(0.2), lambda qml, wire: qml.DepolarizingChannel(0.75 * 0.2, wires=wire)),
        (AmplitudeDamping(0.3), lambda qml, wire: qml.AmplitudeDamping(0.3, wires=wire)),
        (Dephasing(0.1), lambda qml, wire: qml.PhaseFlip(0.1, wires=wire)),
        (Dephasing(0.1), lambda qml, wire: qml.PhaseDamping(4 * 0.1 * 0.9, wires=wire)),
        (
            [AmplitudeDamping(0.3), Depolarizing(0.04)],  # they do not commute
            lambda qml, wire: [
                qml.AmplitudeDamping(0.3, wires=wire),
                qml.DepolarizingChannel(0.03, wires=wire),
            ],
        ),
    ],
)
@pytest.mark.parametrize("num_qubits", [1, 2, 3, 4])
def test_density_matrices_equal_pennylanes(num_qubits, ours, theirs):
    circuit, weights, features = random_circuit(num_qubits, 14, 10 + num_qubits)
    rho = density_matrix(circuit, weights, features, NoiseModel(ours))
    expected = pennylane_density(circuit, weights, features[1], theirs)
    torch.testing.assert_close(rho[1], expected, atol=1e-10, rtol=0)


def test_only_the_named_gates_are_noisy():
    circuit = layered_circuit(3, 2)
    weights = torch.linspace(-2, 2, circuit.num_weights, dtype=torch.float64)
    rho = density_matrix(circuit, weights, noise=NoiseModel(AmplitudeDamping(0.3), gates=("CNOT",)))
    expected = pennylane_density(
        circuit, weights, None, lambda qml, wire: qml.AmplitudeDamping(0.3, wires=wire), ("CNOT",)
    )
    torch.testing.assert_close(rho, expected, atol=1e-10, rtol=0)
    states = trajectories(circuit, NoiseModel(Depolarizing(0.9), gates=("RXX",)), weights, num_trajectories=2)
    torch.testing.assert_close(states[1], circuit.state(weights))


@settings(max_examples=20, deadline=None)
@given(
    num_qubits=st.integers(1, 4),
    p=PROBABILITY,
    gamma=PROBABILITY,
    flip=PROBABILITY,
    seed=st.integers(0, 10**6),
)
def test_density_matrices_are_states(num_qubits, p, gamma, flip, seed):
    circuit, weights, features = random_circuit(num_qubits, 10, seed)
    noise = NoiseModel((Depolarizing(p), AmplitudeDamping(gamma), Dephasing(flip)))
    rho = density_matrix(circuit, weights, features, noise)
    trace = rho.diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(trace, torch.ones_like(trace), atol=1e-12, rtol=0)
    torch.testing.assert_close(rho, rho.mH, atol=1e-12, rtol=0)
    assert torch.linalg.eigvalsh(rho).min() > -1e-12


def test_density_matrices_are_differentiable():
    circuit = Circuit(2).add("RY", 0, angle=feature(0)).add("CRX", 0, 1, angle=2 * weight(0))
    circuit.add("RXX", 0, 1, angle=weight(1)).add("PHASE", 1, angle=feature(1))
    noise = NoiseModel((AmplitudeDamping(0.2), Depolarizing(0.1)), readout=ReadoutError(0.1, 0.2))
    weights = torch.tensor([0.3, -0.7], dtype=torch.float64, requires_grad=True)
    features = torch.tensor([[0.5, 1.1], [-0.4, 0.2]], dtype=torch.float64, requires_grad=True)

    def measured(w, x):
        rho = density_matrix(circuit, w, x, noise)
        values = expectation_of_density(rho, ["Z0 X1", "Y1"], noise.readout)
        return values, probabilities_of_density(rho, [1], noise.readout)

    assert torch.autograd.gradcheck(measured, (weights, features))


@settings(max_examples=20, deadline=None)
@given(num_qubits=st.integers(1, 3), seed=st.integers(0, 10**6))
def test_measurements_of_density_matrices(num_qubits, seed):
    circuit, weights, features = random_circuit(num_qubits, 8, seed)
    rho = density_matrix(circuit, weights, features, NoiseModel(AmplitudeDamping(0.3)))
    rng = np.random.default_rng(seed)
    letters = [f"{rng.choice(list('IXYZ'))}{qubit}" for qubit in range(num_qubits)]
    given = [" ".join(letters), 2 * PauliSum.of("Y0") - PauliSum.of("X0"), Projector("1", (num_qubits - 1,))]
    values = expectation_of_density(rho, given)
    for k, each in enumerate(given):
        matrix = (PauliSum.of(each) if isinstance(each, str) else each).matrix(num_qubits)
        expected = torch.einsum("ij,bji->b", torch.from_numpy(matrix), rho).real
        torch.testing.assert_close(values[:, k], expected, atol=1e-12, rtol=0)
    pure = circuit.state(weights, features)
    torch.testing.assert_close(expectation_of_density(outer(pure), given), expectation(pure, given))
    qubits = rng.permutation(num_qubits)[: rng.integers(1, num_qubits + 1)].tolist()
    torch.testing.assert_close(probabilities_of_density(outer(pure), qubits), probabilities(pure, qubits))
    torch.testing.assert_close(probabilities_of_density(outer(pure)), probabilities(pure))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NoiseModel(0.1), r"after_gate: expected a channel such as Depolarizing\(0.01\).* got 0.1"),
        (lambda: NoiseModel([Depolarizing]), "after_gate: expected a channel"),
        (lambda: NoiseModel(Own(np.eye(2)[None] * 0.9)), "differs from the identity by 0.19"),
        (lambda: NoiseModel(Own(np.ones(2))), r"Kraus operators \[K, 2, 2\] of Own.*, got shape \(2,\)"),
        (lambda: NoiseModel(readout=0.1), "readout: expected a ReadoutError or None, got 0.1"),
        (lambda: NoiseModel(gates=("CNOTT",)), r"gates: unknown 'CNOTT' \(did you mean CNOT\?\)"),
        (lambda: NoiseModel(gates="CNOT"), "gates: expected several names"),
        (
            lambda: density_matrix(Circuit(7), initial=torch.zeros(10, 128)),
            r"up to 6 qubits, got 7: 10 of them would take 1,310,720 bytes; trajectories\(\)",
        ),
        (
            lambda: density_matrix(Circuit(1).add("RX", 0, angle=weight(0))),
            "weights: the circuit has 1, none",
        ),
        (
            lambda: density_matrix(Circuit(1).add("RX", 0, angle=weight(0)), torch.zeros(2)),
            r"weights: expected floats of shape \[..., 1\]",
        ),
        (
            lambda: density_matrix(Circuit(2), initial=torch.zeros(3)),
            r"initial: expected \[..., 4\] amplitudes",
        ),
        (
            lambda: trajectories(
                Circuit(1).add("RX", 0, angle=weight(0)).add("RX", 0, angle=feature(0)),
                NoiseModel(),
                torch.zeros(2, 1),
                torch.zeros(3, 1),
            ),
            r"batch axes do not broadcast: \(2,\), \(3,\)",
        ),
        (
            lambda: trajectories(Circuit(1), NoiseModel(), num_trajectories=0),
            "num_trajectories: expected .* got 0",
        ),
        (
            lambda: trajectories(Circuit(20), NoiseModel(), num_trajectories=10**9),
            "1,000,000,000 state vectors of 20 qubits",
        ),
        (
            lambda: expectation_of_density(torch.zeros(2, 4) + 0j, ["Z0"]),
            r"rho: expected complex \[..., 2\*\*n",
        ),
        (lambda: expectation_of_density(torch.eye(4), ["Z0"]), "rho: expected complex .* got torch.float32"),
        (lambda: expectation_of_density(torch.eye(2) + 0j, []), "observables: expected at least one"),
        (lambda: expectation_of_density(torch.eye(2) + 0j, ["Z1"]), "needs 2 qubits, there are 1"),
        (lambda: probabilities_of_density(torch.eye(2) + 0j, [1]), "qubits: 1 is out of range"),
        (
            lambda: ReadoutError(0, 0).of_probabilities(torch.ones(3)),
            r"probs: expected floats \[..., 2\*\*n\]",
        ),
        (
            lambda: ReadoutError(0, 0).of_samples(torch.tensor([4]), 2),
            "indices of 2 qubits are 0 to 3, got 4 to 4",
        ),
        (lambda: ReadoutError(0, 0).of_samples(torch.ones(1), 2), "samples: expected int64"),
        (lambda: fold(Circuit(1), 2), "scale: expected an odd integer of at least 1, got 2"),
        (lambda: fold(Circuit(1), -1), "scale: expected an odd integer"),
        (lambda: zero_noise_extrapolation(float, (1, 1)), r"scales: expected distinct .* got \[1, 1\]"),
        (lambda: zero_noise_extrapolation(float, ()), "scales: expected distinct"),
        (lambda: zero_noise_extrapolation(float, (0, 1)), "scales: expected distinct finite numbers above 0"),
        (lambda: zero_noise_extrapolation(float, order=3), "order: 3 scales allow 0 to 2, got 3"),
    ],
)
def test_impossible_inputs_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

import dataclasses
import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from qio_rllib.quantum import (
    GATES,
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
    reuploading_circuit,
    sample,
    trajectories,
    weight,
    zero_noise_extrapolation,
)
from qio_rllib.quantum.gates import ROTATIONS, kron, num_qubits_of


@dataclasses.dataclass(frozen=True)
class Own:
    kraus: np.ndarray


CHANNELS = (Depolarizing(0.3), AmplitudeDamping(0.4), Dephasing(0.2))
PROBABILITY = st.one_of(st.sampled_from([0.0, 1e-12, 0.5, 1.0]), st.floats(0.0, 1.0))


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """Arrays are small, and threads that wait for each other cost more than they bring."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


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


@pytest.mark.parametrize("make", [Depolarizing, AmplitudeDamping, Dephasing])
@settings(max_examples=30, deadline=None)
@given(p=PROBABILITY)
def test_kraus_operators_are_complete(make, p):
    kraus = make(p).kraus
    assert kraus.dtype == np.complex128
    assert kraus.shape[1:] == (2, 2)
    total = sum(each.conj().T @ each for each in kraus)
    np.testing.assert_allclose(total, np.eye(2), atol=1e-14)


def test_channels_do_what_their_definitions_say():
    rho = np.array([[0.3, 0.2 - 0.1j], [0.2 + 0.1j, 0.7]])

    def through(channel):
        return sum(each @ rho @ each.conj().T for each in channel.kraus)

    np.testing.assert_allclose(through(Depolarizing(0.2)), 0.8 * rho + 0.1 * np.eye(2))
    z = np.diag([1, -1])
    np.testing.assert_allclose(through(Dephasing(0.2)), 0.8 * rho + 0.2 * z @ rho @ z)
    shrunk = math.sqrt(0.75)
    damped = [[0.3 + 0.25 * 0.7, shrunk * rho[0, 1]], [shrunk * rho[1, 0], 0.75 * 0.7]]
    np.testing.assert_allclose(through(AmplitudeDamping(0.25)), damped)


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


# Trajectories.


# Damping after a turn: probabilities that depend on the state's coherences, with their phase.
TURNED = Own(AmplitudeDamping(0.5).kraus @ (ROTATIONS["RX"].matrix(0.9) @ ROTATIONS["RY"].matrix(1.1)))


@pytest.mark.parametrize("channel", [*CHANNELS, TURNED, CHANNELS])
def test_trajectories_average_to_the_density_matrix(channel):
    circuit, weights, features = random_circuit(2, 12, 5)
    noise = NoiseModel(channel)
    count = 4000
    states = trajectories(circuit, noise, weights, features, count, torch.Generator().manual_seed(1))
    norms = states.abs().square().sum(-1)
    torch.testing.assert_close(norms, torch.ones_like(norms), atol=1e-12, rtol=0)
    given = [f"{a}0 {b}1" for a in "IXYZ" for b in "IXYZ" if a + b != "II"]  # all that there is to know
    values = expectation(states, given)
    exact = expectation_of_density(density_matrix(circuit, weights, features, noise), given)
    error = values.std(0) / math.sqrt(count)
    assert ((values.mean(0) - exact).abs() <= 4 * error + 1e-12).all()
    assert error.max() > 1e-3  # the draws do differ


@pytest.mark.parametrize("channel", CHANNELS)
def test_gradients_of_trajectories_are_unbiased(channel):
    circuit = Circuit(2).add("RY", 0, angle=weight(0)).add("CNOT", 0, 1).add("RX", 1, angle=weight(1))
    circuit.add("RY", 0, angle=0.7 * weight(0))
    noise, given = NoiseModel(channel), ["Z0", "X0 Y1", "Z1"]
    weights = torch.tensor([0.8, -1.3], dtype=torch.float64, requires_grad=True)

    def exact(w):
        return expectation_of_density(density_matrix(circuit, w, noise=noise), given).sum()

    (wanted,) = torch.autograd.grad(exact(weights), weights)
    count = 3000
    rows = weights.detach().expand(count, 2).clone().requires_grad_()
    states = trajectories(circuit, noise, rows, None, 1, torch.Generator().manual_seed(2))[0]
    (found,) = torch.autograd.grad(expectation(states, given).sum(), rows)
    error = found.std(0) / math.sqrt(count)
    assert ((found.mean(0) - wanted).abs() <= 4 * error).all()


def test_trajectories_repeat_with_their_generator():
    circuit, weights, features = random_circuit(3, 10, 1)
    noise = NoiseModel(Depolarizing(0.5))
    first, second, other = (
        trajectories(circuit, noise, weights, features, 20, torch.Generator().manual_seed(seed))
        for seed in (0, 0, 1)
    )
    assert torch.equal(first, second)
    assert not torch.equal(first, other)
    # rows of a batch that are equal have draws of their own
    twins = trajectories(circuit, noise, weights, features[:1].expand(2, -1), 20)
    assert not torch.allclose(twins[:, 0], twins[:, 1])
    # also where the noise comes before the first gate that tells them apart
    late, early = (
        Circuit(1).add("H", 0).add("RX", 0, angle=feature(0)),
        NoiseModel(Dephasing(0.5), gates=("H",)),
    )
    twins = trajectories(late, early, None, torch.zeros(2, 1), 50, torch.Generator().manual_seed(0))
    assert not torch.allclose(twins[:, 0], twins[:, 1])


def test_impossible_operators_are_never_drawn():
    # |0> cannot decay and |1> always does: probabilities of 0 and 1
    down = Circuit(1).add("X", 0)
    for dtype in (torch.complex64, torch.complex128):
        stay = trajectories(Circuit(1).add("I", 0), NoiseModel(AmplitudeDamping(1.0)), dtype=dtype)
        torch.testing.assert_close(stay, torch.tensor([1.0, 0.0], dtype=dtype).expand(100, 2))
        fall = trajectories(down, NoiseModel(AmplitudeDamping(1.0)), dtype=dtype)
        torch.testing.assert_close(fall, torch.tensor([1.0, 0.0], dtype=dtype).expand(100, 2))


def test_trajectories_of_more_qubits_than_density_matrices():
    circuit = reuploading_circuit(8, 1, 4)
    states = trajectories(
        circuit,
        NoiseModel(Depolarizing(1.0)),
        torch.randn(circuit.num_weights, generator=torch.Generator().manual_seed(0)),
        torch.zeros(2, circuit.num_features),
        200,
        torch.Generator().manual_seed(0),
    )
    assert states.shape == (200, 2, 256)
    assert expectation(states, ["Z0", "X7"]).mean(0).abs().max() < 0.3  # all is mixed


# Readout.


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
        seen = expectation(state, [readout.of_observable(string)])[..., 0]
        torch.testing.assert_close(seen, expected, atol=1e-12, rtol=0)
        of_density = expectation_of_density(outer(state), [string], readout)[..., 0]
        torch.testing.assert_close(of_density, expected, atol=1e-12, rtol=0)
    read = probabilities_of_density(outer(state), [2, 0], readout)
    seen = expectation(state, [readout.of_observable(Projector("10", (2, 0)))])[..., 0]
    torch.testing.assert_close(seen, read[..., 2], atol=1e-12, rtol=0)


# Zero-noise extrapolation.


@settings(max_examples=30, deadline=None)
@given(
    coefficients=st.lists(st.floats(-2, 2), min_size=1, max_size=4),
    more=st.integers(0, 2),
    shape=st.sampled_from([(), (3,)]),
)
def test_extrapolation_is_exact_for_polynomials(coefficients, more, shape):
    order = len(coefficients) - 1
    scales = list(range(1, 2 * (len(coefficients) + more), 2))

    def evaluate(scale):
        value = sum(c * (0.1 * scale) ** power for power, c in enumerate(coefficients))
        return torch.full(shape, value, dtype=torch.float64)

    for chosen in (order, None):
        result = zero_noise_extrapolation(evaluate, scales, order=chosen)
        torch.testing.assert_close(
            result, torch.full(shape, coefficients[0], dtype=torch.float64), atol=1e-9, rtol=0
        )
    plain = zero_noise_extrapolation(lambda scale: float(evaluate(scale).sum()), scales)
    assert plain.item() == pytest.approx(coefficients[0] * max(math.prod(shape), 1), abs=1e-9)


def test_fits_of_low_order_are_least_squares():
    values = {1: 0.7, 3: 0.2, 5: 0.1, 7: -0.3}
    found = zero_noise_extrapolation(values.__getitem__, (1, 3, 5, 7), order=1)
    line = np.polynomial.Polynomial.fit(list(values), list(values.values()), 1)
    assert found.item() == pytest.approx(line(0.0))
    mean = zero_noise_extrapolation(values.__getitem__, (1, 3, 5, 7), order=0)
    assert mean.item() == pytest.approx(0.175)


@pytest.mark.parametrize("channel", [Depolarizing(0.01), AmplitudeDamping(0.01), Dephasing(0.01)])
def test_extrapolation_comes_closer_to_the_true_value(channel):
    circuit = layered_circuit(3, 2)
    weights = torch.linspace(-1.5, 2.0, circuit.num_weights, dtype=torch.float64, requires_grad=True)
    given, noise = ["Z0", "X1 Z2"], NoiseModel(channel)
    true = expectation(circuit.state(weights), given)

    def noisy(scale):
        return expectation_of_density(density_matrix(fold(circuit, scale), weights, noise=noise), given)

    mitigated = zero_noise_extrapolation(noisy)
    assert ((mitigated - true).abs() < 0.2 * (noisy(1) - true).abs()).all()
    (gradient,) = torch.autograd.grad(mitigated.sum(), weights)
    assert gradient.isfinite().all()
    assert gradient.abs().max() > 0.01


@pytest.mark.parametrize("scale", [1, 3, 5])
def test_folded_circuits_do_the_same(scale):
    circuit, weights, features = random_circuit(3, 25, 4)
    folded = fold(circuit, scale)
    assert len(folded) == scale * len(circuit)
    assert (folded.num_weights, folded.num_features) == (circuit.num_weights, circuit.num_features)
    same = folded.matrix(weights, features[0])
    torch.testing.assert_close(same, circuit.matrix(weights, features[0]), atol=1e-12, rtol=0)
    assert len(circuit) == 25


# What is refused.


@pytest.mark.parametrize("value", [-1e-9, 1.0 + 1e-9, math.nan, math.inf, "often", None, True])
def test_numbers_that_are_no_probabilities_are_refused(value):
    cases = {
        "Depolarizing: p": lambda: Depolarizing(value),
        "AmplitudeDamping: gamma": lambda: AmplitudeDamping(value),
        "Dephasing: p": lambda: Dephasing(value),
        "ReadoutError: p01": lambda: ReadoutError(value, 0.1),
        "ReadoutError: p10": lambda: ReadoutError(0.1, value),
    }
    for name, make in cases.items():
        message = f"{name} must be a probability in [0, 1], got {value!r}"
        with pytest.raises(ValueError, match=re.escape(message)):
            make()


def test_channels_of_ones_own():
    flip = Own(np.stack([math.sqrt(0.75) * np.eye(2), math.sqrt(0.25) * np.array([[0, 1], [1, 0]])]))
    rho = density_matrix(Circuit(1).add("I", 0), noise=NoiseModel(flip))
    torch.testing.assert_close(rho.diagonal().real, torch.tensor([0.75, 0.25]))


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

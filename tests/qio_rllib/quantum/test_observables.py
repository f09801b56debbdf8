"""Observables against their matrices, and samples against Born's rule."""

import copy
import itertools
import math
import pickle

import numpy as np
import pytest
import torch
from circuit_oracle import PAULI
from scipy import stats

from qio_rllib.quantum import (
    Circuit,
    Measurement,
    PauliSum,
    Projector,
    estimate,
    expectation,
    fidelity,
    probabilities,
    sample,
)


def random_state(n, *batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    parts = torch.randn(2, *batch, 2**n, dtype=torch.float64, generator=generator)
    state = torch.complex(parts[0], parts[1])
    return state / state.abs().square().sum(-1, keepdim=True).sqrt()


def dense(text, n):
    """Matrix of a Pauli string by Kronecker products."""
    letters = {int(part[1:]): part[0] for part in text.split() if part != "I"}
    matrix = np.ones((1, 1))
    for qubit in range(n):
        matrix = np.kron(matrix, PAULI[letters.get(qubit, "I")])
    return matrix


def strings(n):
    for letters in itertools.product("IXYZ", repeat=n):
        yield " ".join(f"{letter}{qubit}" for qubit, letter in enumerate(letters))


def test_every_pauli_string_has_its_matrix_and_expectation():
    state = random_state(3, 4)
    texts = list(strings(3))
    values = expectation(state, texts)
    assert values.shape == (4, 64)
    for column, text in enumerate(texts):
        matrix = dense(text, 3)
        np.testing.assert_array_equal(PauliSum.of(text).matrix(3), matrix)
        wanted = np.einsum("bi,ij,bj->b", state.numpy().conj(), matrix, state.numpy()).real
        np.testing.assert_allclose(values[:, column].numpy(), wanted, rtol=0, atol=1e-14)


def test_sums_differences_and_multiples_are_those_of_matrices():
    a, b = PauliSum.of("Z0 X2", 0.5), PauliSum.of("Y1")
    total = 2 * (a - b) * 0.25 + PauliSum.of("I", 3.0)
    wanted = 0.5 * (0.5 * dense("Z0 X2", 3) - dense("Y1", 3)) + 3 * np.eye(8)
    np.testing.assert_allclose(total.matrix(3), wanted, atol=1e-15)
    assert total.num_qubits == 3
    assert not total.is_diagonal
    state = random_state(3)
    direct = (state.conj() @ torch.from_numpy(wanted) @ state).real
    torch.testing.assert_close(expectation(state, [total])[0], direct, rtol=0, atol=1e-14)


def test_letters_may_come_in_any_order_and_identities_count_for_nothing():
    assert PauliSum.of("X2 Z0") == PauliSum.of("Z0 I1 X2")
    assert PauliSum.of("I") == PauliSum.of("I0")
    assert PauliSum.of("I").num_qubits == 1
    assert PauliSum.of("Z10").num_qubits == 11


def test_the_diagonal_holds_the_eigenvalues_of_basis_states():
    energy = PauliSum.of("Z0 Z2", 1.5) - PauliSum.of("Z1") + PauliSum.of("I", 0.25)
    assert energy.is_diagonal
    np.testing.assert_allclose(energy.diagonal(4), np.diag(energy.matrix(4)).real)
    assert energy.diagonal(3).dtype == np.float64
    with pytest.raises(ValueError, match="not diagonal in the computational basis"):
        PauliSum.of("Z0 X1").diagonal(2)


def test_observables_on_a_larger_register_leave_the_other_qubits_alone():
    state = random_state(4)
    matrix = torch.from_numpy(dense("Y1", 4))
    torch.testing.assert_close(expectation(state, ["Y1"])[0], (state.conj() @ matrix @ state).real)


def test_projectors_give_probabilities():
    state = random_state(3, 5)
    every = [Projector(f"{index:03b}") for index in range(8)]
    np.testing.assert_allclose(expectation(state, every), probabilities(state), atol=1e-15)
    pairs = [Projector(f"{index:02b}", (2, 0)) for index in range(4)]
    np.testing.assert_allclose(expectation(state, pairs), probabilities(state, [2, 0]), atol=1e-15)
    np.testing.assert_array_equal(Projector("01").matrix(2), np.diag([0, 1, 0, 0]))


@pytest.mark.parametrize("batch", [(), (3,), (2, 3)])
def test_probabilities_of_qubits_in_any_order_are_sums_over_the_others(batch):
    n = 4
    state = random_state(n, *batch)
    weights = state.abs().square().numpy()
    for k in range(1, n + 1):
        for qubits in itertools.permutations(range(n), k):
            wanted = np.zeros((*batch, 2**k))
            for index in range(2**n):
                bits = [(index >> (n - 1 - qubit)) & 1 for qubit in qubits]
                wanted[..., int("".join(map(str, bits)), 2)] += weights[..., index]
            np.testing.assert_allclose(probabilities(state, qubits), wanted, rtol=0, atol=1e-15)
    np.testing.assert_allclose(probabilities(state), weights, atol=1e-15)


def test_samples_follow_the_probabilities():
    state, shots = random_state(3, 2), 20_000
    draws = sample(state, shots, torch.Generator().manual_seed(0))
    assert draws.shape == (2, shots)
    assert draws.dtype == torch.int64
    for row, probs in zip(draws, probabilities(state), strict=True):
        counts = torch.bincount(row, minlength=8).numpy()
        assert stats.chisquare(counts, shots * probs.numpy()).pvalue > 1e-4


def test_samples_depend_on_the_generator_alone_and_never_hit_the_impossible():
    bell = Circuit(2).add("H", 0).add("CNOT", 0, 1).state()
    first, again = (sample(bell, 500, torch.Generator().manual_seed(7)) for _ in range(2))
    assert torch.equal(first, again)
    assert set(first.tolist()) == {0, 3}


def test_estimates_lie_within_their_standard_errors():
    state, shots = random_state(3, 40, seed=1), 400
    observables = [
        "Z0",
        "X0 Y1",
        "Y2",
        Projector("10", (2, 0)),
        PauliSum.of("Z0 Z1") - 0.5 * PauliSum.of("X2"),
    ]
    exact = expectation(state, observables)
    values = estimate(state, observables, shots, torch.Generator().manual_seed(0))
    assert values.shape == exact.shape == (40, 5)
    assert values.dtype == torch.float64
    variances = 1 - exact[:, :3].square()
    projector = exact[:, 3] * (1 - exact[:, 3])
    # measured in bases of their own, so that the variances of the two strings add
    strings_ = expectation(state, ["Z0 Z1", "X2"])
    summed = (1 - strings_[:, 0].square()) + 0.25 * (1 - strings_[:, 1].square())
    variance = torch.cat([variances, projector[:, None], summed[:, None]], -1) / shots
    scores = (values - exact) / variance.sqrt()
    assert scores.abs().max() < 4.5  # of 200 scores
    assert abs(float(scores.mean())) < 4 / math.sqrt(200)
    assert 0.8 < float(scores.std()) < 1.2


def test_estimates_of_certain_outcomes_are_exact():
    bell = Circuit(2).add("H", 0).add("CNOT", 0, 1).state()
    observables = ["Z0 Z1", "X0 X1", "Y0 Y1", PauliSum.of("I", 2.5), PauliSum.of("Z0 Z1") + PauliSum.of("I")]
    values = estimate(bell, observables, 10)
    assert values.dtype == torch.float32
    torch.testing.assert_close(values, torch.tensor([1.0, 1.0, -1.0, 2.5, 2.0]))


def test_strings_of_z_share_their_samples():
    state = random_state(2)
    a, b = estimate(state, ["Z0", -1.0 * PauliSum.of("Z0")], 25, torch.Generator().manual_seed(0))
    assert a == -b


def test_fidelity_is_the_squared_overlap():
    a, b = random_state(3, 5), random_state(3, 5, seed=1)
    wanted = np.abs((a.numpy().conj() * b.numpy()).sum(-1)) ** 2
    np.testing.assert_allclose(fidelity(a, b), wanted, atol=1e-15)
    np.testing.assert_allclose(fidelity(a, a * np.exp(0.7j)), np.ones(5), atol=1e-14)
    np.testing.assert_allclose(fidelity(a, b[0]), fidelity(b[0], a), atol=1e-15)


def test_a_measurement_serves_several_dtypes_copies_and_pickles():
    measurement = Measurement(2, ["Z0", "X0 Y1"])
    state = random_state(2, 3)
    wide = measurement.expectation(state)
    assert wide.dtype == torch.float64
    assert measurement.expectation(state.to(torch.complex64)).dtype == torch.float32
    for again in (copy.deepcopy(measurement), pickle.loads(pickle.dumps(measurement))):
        assert torch.equal(again.expectation(state), wide)


# What is refused.


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "got an empty text"),
        ("Q0", "expected a Pauli string such as 'X0 Z2', got 'Q0'"),
        ("X", "expected a Pauli string"),
        ("z0", "expected a Pauli string"),
        ("X-1", "expected a Pauli string"),
        ("X0Z1", "expected a Pauli string"),
        ("X0 Z0", "'X0 Z0' names qubit 0 twice"),
    ],
)
def test_texts_that_are_no_pauli_strings_are_refused(text, message):
    with pytest.raises(ValueError, match=message):
        PauliSum.of(text)


def test_wrong_coefficients_and_projectors_are_refused():
    for coefficient in (math.nan, math.inf):
        with pytest.raises(ValueError, match="must be finite"):
            PauliSum.of("Z0", coefficient)
    for bits in ("", "02", "ab"):
        with pytest.raises(ValueError, match="bits must be a text of 0 and 1"):
            Projector(bits)
    for qubits in ((0,), (0, 0), (0, 1, 2), (0, -1)):
        with pytest.raises(ValueError, match="2 bits need as many distinct qubits"):
            Projector("01", qubits)


def test_observables_that_do_not_fit_are_refused():
    state = random_state(2)
    for given in ("Z2", PauliSum.of("X3"), Projector("1", (2,))):
        with pytest.raises(ValueError, match=r"needs \d qubits, there are 2"):
            expectation(state, [given])
    for given in ("Z0", [], ()):
        with pytest.raises(ValueError, match="observables: expected at least one in a list"):
            expectation(state, given)
    with pytest.raises(ValueError, match=r"expected \[..., 8\] amplitudes for 3 qubits, got shape \(4,\)"):
        Measurement(3, ["Z0"]).expectation(state)


@pytest.mark.parametrize(
    "state",
    [torch.ones(3) + 0j, torch.ones(4), torch.ones(1) + 0j, torch.tensor(1 + 0j), torch.ones(4, 0) + 0j],
    ids=["length 3", "real", "length 1", "number", "length 0"],
)
def test_what_is_no_state_is_refused(state):
    for measure in (lambda s: expectation(s, ["Z0"]), probabilities, lambda s: sample(s, 3)):
        with pytest.raises(ValueError, match=r"state: expected complex amplitudes \[..., 2\*\*n\]"):
            measure(state)


def test_wrong_qubits_and_shots_are_refused():
    state = random_state(2)
    with pytest.raises(ValueError, match="qubits: 2 is out of range; allowed: 0 to 1"):
        probabilities(state, [2])
    with pytest.raises(ValueError, match="qubits: -1 is out of range"):
        probabilities(state, [-1])
    with pytest.raises(ValueError, match="names one twice"):
        probabilities(state, [1, 1])
    for shots in (0, -1, 1.5, True, "3"):
        for measure in (lambda s, k: sample(s, k), lambda s, k: estimate(s, ["Z0"], k)):
            with pytest.raises(ValueError, match="shots: expected an integer of at least 1"):
                measure(state, shots)

"""Circuits against a plain NumPy simulator, and what they refuse."""

import copy
import math
import pickle
import re

import numpy as np
import pytest
import torch
from circuit_oracle import FEATURES, WEIGHTS, dense_state, random_circuit, random_unitary

from qio_rllib.quantum import (
    GATES,
    Angle,
    Circuit,
    Measurement,
    expectation,
    feature,
    layered_circuit,
    reuploading_circuit,
    weight,
)
from qio_rllib.quantum.gates import FIXED, num_qubits_of


def draw(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def random_state(n, *batch, seed=0):
    state = torch.complex(draw(*batch, 2**n, seed=seed), draw(*batch, 2**n, seed=seed + 1))
    return state / state.abs().square().sum(-1, keepdim=True).sqrt()


def close(actual, expected, atol=1e-12):
    np.testing.assert_allclose(actual.detach().numpy(), np.asarray(expected), rtol=0, atol=atol)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("num_qubits", [1, 2, 3, 5, 7])
def test_random_circuits_agree_with_one_gate_after_the_other(num_qubits, seed):
    circuit = random_circuit(num_qubits, seed, depth=40)
    weights, features = draw(WEIGHTS, seed=seed), draw(2, FEATURES, seed=seed + 1)
    expected = [dense_state(circuit, weights, row) for row in features]
    close(circuit.state(weights, features), expected)
    # the other plan, in which weights differ from row to row
    close(circuit.state(weights.expand(2, -1), features), expected)
    single = circuit.state(weights.float(), features.float())
    assert single.dtype == torch.complex64
    close(single, expected, atol=1e-5)


@pytest.mark.parametrize("name", GATES)
@pytest.mark.parametrize("source", ["number", "weight", "feature", "weight by row"])
def test_each_gate_agrees_with_its_definition(name, source):
    qubits = [3, 0, 2][: num_qubits_of(name)]
    angle = {"number": 1.3, "feature": -0.5 * feature(0)}.get(source, -0.5 * weight(0))
    circuit = Circuit(4).add(name, *qubits, angle=None if name in FIXED else angle)
    initial, value = random_state(4), draw(1)
    by_row = value[None] if source == "weight by row" else value
    weights = by_row if circuit.num_weights else None
    features = value if circuit.num_features else None
    actual = circuit.state(weights, features, initial=initial)
    close(actual.reshape(-1), dense_state(circuit, value, value, initial.numpy()))


@pytest.mark.parametrize(
    ("weights", "features", "initial"),
    [
        ((), (), ()),
        ((), (5,), ()),
        ((5,), (), ()),
        ((), (2, 3), ()),
        ((2, 1), (3,), ()),
        ((1, 3), (2, 1), (3,)),
        ((), (), (4,)),
        ((), (4,), (4,)),
        ((4,), (), (2, 1)),
        ((1,), (1,), (1, 1)),
        ((), (2, 1, 1), (3, 2)),
        ((4,), (1,), ()),
    ],
)
def test_batch_axes_of_weights_features_and_states_broadcast(weights, features, initial):
    circuit = random_circuit(3, seed=1, depth=30)
    w, f, s = draw(*weights, WEIGHTS), draw(*features, FEATURES), random_state(3, *initial)
    batch = np.broadcast_shapes(weights, features, initial)
    actual = circuit.state(w, f, initial=s)
    assert actual.shape == (*batch, 8)
    rows = [np.broadcast_to(x.numpy(), (*batch, x.shape[-1])) for x in (w, f, s)]
    for place in np.ndindex(*batch):
        close(actual[place], dense_state(circuit, *(x[place] for x in rows)))


def test_an_empty_batch_gives_an_empty_batch():
    circuit = random_circuit(3, seed=1, depth=30)
    for weights, features in (((), (0,)), ((0,), (0,)), ((0,), ()), ((), (2, 0))):
        state = circuit.state(draw(*weights, WEIGHTS), draw(*features, FEATURES))
        assert state.shape == (*np.broadcast_shapes(weights, features), 8)
        assert expectation(state, ["Z0", "X1"]).shape == (*state.shape[:-1], 2)


def test_a_circuit_without_gates_keeps_the_state():
    close(Circuit(2).state(), [1, 0, 0, 0])
    initial = random_state(2, 3)
    close(Circuit(2).state(initial=initial), initial.numpy())


@pytest.mark.parametrize("num_qubits", [1, 2, 4])
def test_inverse_undoes(num_qubits):
    circuit = random_circuit(num_qubits, seed=3, depth=40)
    weights, features, initial = draw(WEIGHTS), draw(5, FEATURES), random_state(num_qubits, 5)
    there = circuit.state(weights, features, initial=initial)
    close(circuit.inverse().state(weights, features, initial=there), initial.numpy())
    assert [operation.name for operation in circuit.inverse().inverse().operations] == [
        operation.name for operation in circuit.operations
    ]


def test_matrix_is_unitary_and_acts_as_the_circuit():
    circuit = random_circuit(3, seed=4, depth=40)
    weights, features, initial = draw(WEIGHTS), draw(FEATURES), random_state(3)
    matrix = circuit.matrix(weights, features)
    assert matrix.shape == (8, 8)
    close(matrix @ matrix.mH, np.eye(8))
    close(matrix @ initial, circuit.state(weights, features, initial=initial).numpy())
    inverse = circuit.inverse().matrix(weights, features)
    close(inverse @ matrix, np.eye(8))


def test_norm_stays_one():
    circuit = reuploading_circuit(5, 4, 7)
    state = circuit.state(draw(circuit.num_weights), draw(64, circuit.num_features))
    close(state.abs().square().sum(-1), np.ones(64))


def test_the_dtype_is_that_of_the_arguments_or_the_one_asked_for():
    circuit = Circuit(2).add("RX", 0, angle=weight(0)).add("RY", 1, angle=feature(0))
    narrow, wide = torch.ones(1), torch.ones(1, dtype=torch.float64)
    assert circuit.state(narrow, narrow).dtype == torch.complex64
    assert circuit.state(narrow, wide).dtype == torch.complex128
    assert circuit.state(wide, narrow).dtype == torch.complex128
    assert circuit.state(narrow, narrow, initial=random_state(2)).dtype == torch.complex128
    assert circuit.state(narrow, narrow, dtype=torch.complex128).dtype == torch.complex128
    assert circuit.state(wide, wide, dtype=torch.complex64).dtype == torch.complex64
    assert circuit.state(narrow.bfloat16(), narrow.half()).dtype == torch.complex64
    assert Circuit(1).state().dtype == torch.complex64


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_and_pickles_run_alike(duplicate):
    circuit = random_circuit(3, seed=2, depth=30)
    weights, features = draw(WEIGHTS), draw(4, FEATURES)
    expected = circuit.state(weights, features)  # with compiled plans inside
    again = duplicate(circuit)
    assert torch.equal(again.state(weights, features), expected)
    again.add("X", 0)
    assert len(again) == len(circuit) + 1
    assert torch.equal(circuit.state(weights, features), expected)


def test_gates_added_after_a_run_count():
    circuit = Circuit(2).add("H", 0)
    circuit.state()
    circuit.add("CNOT", 0, 1)
    close(circuit.state(dtype=torch.complex128), np.array([1, 0, 0, 1]) / math.sqrt(2))


def test_angles_scale_and_counts_are_one_more_than_the_largest_index():
    assert 2 * weight(1) * 0.5 == weight(1)
    assert -feature(0) == Angle("feature", 0, -1.0)
    circuit = Circuit(1).add("RX", 0, angle=weight(3)).add("RY", 0, angle=feature(1))
    assert (circuit.num_weights, circuit.num_features, len(circuit)) == (4, 2, 2)


def test_extend_appends_operations_of_another_circuit():
    unitary = random_unitary(np.random.default_rng(0), 4)
    part = Circuit(2).add("RX", 0, angle=weight(0)).unitary(unitary, 1, 0)
    whole = Circuit(3).extend(part.operations).extend(part.operations)
    assert len(whole) == 4
    close(whole.state(draw(1)), dense_state(whole, draw(1)))


class Policy(torch.nn.Module):
    """A module that runs a circuit, as a policy does."""

    def __init__(self, circuit):
        super().__init__()
        self.circuit = circuit
        self.measurement = Measurement(circuit.num_qubits, ["Z0", "X1 Y2", "Z2"])
        self.weights = torch.nn.Parameter(draw(circuit.num_weights).float())

    def forward(self, features):
        return self.measurement.expectation(self.circuit.state(self.weights, features))


@pytest.fixture(scope="module")
def policy():
    module = Policy(reuploading_circuit(3, 2, 3))
    module(draw(2, 6).float())  # compiles the circuit and makes its constants
    return module


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
def test_a_traced_module_gives_the_same_numbers_for_other_batch_sizes(policy):
    traced = torch.jit.trace(policy, (draw(4, 6).float(),))
    for rows in (1, 4, 17):
        features = draw(rows, 6, seed=rows).float()
        torch.testing.assert_close(traced(features), policy(features))


def test_an_exported_module_gives_the_same_numbers_for_other_batch_sizes(policy):
    rows = torch.export.Dim("rows", min=1, max=1024)
    exported = torch.export.export(policy, (draw(4, 6).float(),), dynamic_shapes=({0: rows},))
    for size in (1, 4, 17):
        features = draw(size, 6, seed=size).float()
        torch.testing.assert_close(exported.module()(features), policy(features))


def test_a_module_can_be_copied_and_saved(policy, tmp_path):
    features = draw(3, 6).float()
    again = copy.deepcopy(policy)
    torch.testing.assert_close(again(features), policy(features))
    torch.save(policy, tmp_path / "policy.pt")
    loaded = torch.load(tmp_path / "policy.pt", weights_only=False)
    torch.testing.assert_close(loaded(features), policy(features))


def test_acting_in_inference_mode_does_not_stand_in_the_way_of_learning():
    circuit = Circuit(2).add("H", 0).add("RX", 1, angle=feature(0)).add("CNOT", 0, 1)
    circuit.add("CZ", 0, 1).add("RY", 0, angle=weight(0)).add("RXX", 0, 1, angle=weight(1))
    fixed = Circuit(2).add("H", 0).add("RX", 1, angle=feature(0)).add("H", 1)
    measurement = Measurement(2, ["Z0", "X0", "Y1"])
    weights, features = draw(2), draw(3, 1)
    with torch.inference_mode():
        acting = measurement.expectation(circuit.state(weights, features))
        measurement.expectation(fixed.state(features=features))
    weights, features = weights.requires_grad_(), features.requires_grad_()
    learning = measurement.expectation(circuit.state(weights, features))
    close(learning, acting.numpy())
    (learning.sum() + measurement.expectation(fixed.state(features=features)).sum()).backward()
    assert weights.grad.abs().sum() > 0
    assert features.grad.abs().sum() > 0


# What is refused.


@pytest.mark.parametrize("given", [0, -1, 1.5, True, "2", None])
def test_numbers_of_qubits_below_one_are_refused(given):
    with pytest.raises(ValueError, match="num_qubits: expected an integer of at least 1"):
        Circuit(given)


def test_states_beyond_memory_are_refused_with_their_bytes():
    with pytest.raises(ValueError, match=r"40 qubits in complex64 would take 87,960,930,222,080 bytes"):
        Circuit(40)
    circuit = Circuit(20).add("RX", 0, angle=feature(0))
    with pytest.raises(ValueError, match=r"1,000,000 state vectors of 20 qubits in complex64 would take"):
        circuit.state(features=torch.zeros(1, 1).expand(1_000_000, 1))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("X", 2), "qubits: X on 2 is out of range; allowed: 0 to 1"),
        (("X", -1), "qubits: X on -1 is out of range"),
        (("X", True), "qubits: X on True is out of range"),
        (("X", 0.0), "qubits: X on 0.0 is out of range"),
        (("CNOT", 0, 0), "qubits: CNOT names a qubit twice"),
        (("CNOT", 0), "qubits: CNOT acts on 2, got 1"),
        (("X", 0, 1), "qubits: X acts on 1, got 2"),
        (("CNOTT", 0, 1), r"gate: unknown 'CNOTT' \(did you mean CNOT\?\); allowed: I, X"),
        (("cnot", 0, 1), r"gate: unknown 'cnot' \(did you mean CNOT\?\)"),
        (("qqqqq", 0, 1), "gate: unknown 'qqqqq'; allowed"),
    ],
)
def test_wrong_gates_and_qubits_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Circuit(2).add(*arguments)


@pytest.mark.parametrize("angle", [None, math.nan, math.inf, "0.1", True, 1j])
def test_angles_that_are_no_finite_number_are_refused(angle):
    with pytest.raises(ValueError, match=r"angle: RX needs a finite number, weight\(i\) or feature\(i\)"):
        Circuit(1).add("RX", 0, angle=angle)


def test_angles_of_gates_without_one_are_refused():
    for angle in (0.1, weight(0)):
        with pytest.raises(ValueError, match="angle: H takes none"):
            Circuit(1).add("H", 0, angle=angle)


@pytest.mark.parametrize("index", [-1, 1.5, True, "0"])
def test_indices_of_angles_are_counted_from_zero(index):
    for make, name in ((weight, "weight"), (feature, "feature")):
        with pytest.raises(ValueError, match=f"{name}: expected an index of at least 0"):
            make(index)


@pytest.mark.parametrize(
    ("matrix", "qubits", "message"),
    [
        (np.ones((2, 2)), (0,), "matrix: not unitary, U U.dagger differs from the identity by"),
        (np.full((2, 2), np.nan), (0,), "matrix: not unitary"),
        (np.eye(2) * 1.001, (0,), "matrix: not unitary"),
        (np.eye(2), (0, 1), r"matrix: expected shape \(4, 4\) for 2 qubit\(s\), got \(2, 2\)"),
        (np.eye(3), (0,), r"matrix: expected shape \(2, 2\) for 1 qubit\(s\), got \(3, 3\)"),
        (np.ones(4), (0,), r"got \(4,\)"),
        (np.eye(4), (1, 1), "qubits: UNITARY names a qubit twice"),
        (np.eye(4), (0, 2), "qubits: UNITARY on 2 is out of range"),
        (np.eye(1), (), "qubits: UNITARY needs at least one"),
    ],
)
def test_matrices_that_are_no_gates_are_refused(matrix, qubits, message):
    with pytest.raises(ValueError, match=message):
        Circuit(2).unitary(matrix, *qubits)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"features": draw(2)}, "weights: the circuit has 10, none were given"),
        ({"weights": draw(10)}, "features: the circuit has 2, none were given"),
        ({"weights": draw(9), "features": draw(2)}, r"weights: expected floats of shape [..., 10]"),
        ({"weights": draw(10), "features": draw(3)}, r"features: expected floats of shape [..., 2]"),
        ({"weights": torch.tensor(1.0), "features": draw(2)}, "weights: expected floats of shape [..., 10]"),
        ({"weights": torch.ones(10, dtype=int), "features": draw(2)}, "got torch.int64 of shape (10,)"),
        ({"weights": draw(3, 10), "features": draw(2, 2)}, "batch axes do not broadcast: (3,), (2,)"),
        (
            {"weights": draw(10), "features": draw(2, 2), "initial": random_state(2, 3)},
            "weights, features and initial: batch axes do not broadcast: (), (2,), (3,)",
        ),
        (
            {"weights": draw(10), "features": draw(2), "initial": random_state(3)},
            "initial: expected [..., 4] amplitudes for 2 qubits, got shape (8,)",
        ),
        (
            {"weights": draw(10), "features": draw(2), "dtype": torch.float32},
            "dtype: expected torch.complex64 or torch.complex128, got torch.float32",
        ),
    ],
)
def test_wrong_arguments_of_a_run_are_refused(arguments, message):
    circuit = reuploading_circuit(2, 1, 2)
    with pytest.raises(ValueError, match=re.escape(message)):
        circuit.state(**arguments)


def test_weights_of_a_circuit_that_has_none_are_refused():
    with pytest.raises(ValueError, match=r"weights: expected floats of shape \[..., 0\]"):
        Circuit(1).add("H", 0).state(torch.ones(1))


def test_operations_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="qubits: RX on 2 is out of range"):
        Circuit(2).extend(layered_circuit(3, 1).operations)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: float("nan") * weight(0), r"the scale of weight\(0\) must be finite, got nan"),
        (lambda: Angle("weight", -1), "weight: expected an index of at least 0, got -1"),
        (lambda: Angle("input", 0), "expected the source 'weight' or 'feature', got 'input'"),
    ],
)
def test_angles_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_the_tables_of_a_large_circuit_stay_small():
    circuit = Circuit(20).add("H", 0).add("CNOT", 0, 19)
    state = circuit.state()
    assert state.abs().square()[[0, 2**19 + 1]].tolist() == pytest.approx([0.5, 0.5])

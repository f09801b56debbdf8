"""Problems against brute enumeration, QAOA and VQE against brute force."""

import dataclasses
import itertools
import math

import numpy as np
import pytest
import torch

from qio_rllib.quantum import (
    Circuit,
    PauliSum,
    Problem,
    brute_force,
    expectation,
    feature,
    ising_problem,
    joint_action_problem,
    maxcut_problem,
    probabilities,
    qaoa,
    qaoa_circuit,
    qubo_problem,
    vqe,
    weight,
)

RING = np.roll(np.eye(6), 1, axis=1) + np.roll(np.eye(6), -1, axis=1)


def every(n):
    return itertools.product((0, 1), repeat=n)


def generator(seed=0):
    return np.random.default_rng(seed)


def random_graph(n, seed=0):
    upper = np.triu(generator(seed).normal(size=(n, n)), 1)
    return upper + upper.T


def random_ising(n, seed=0):
    return ising_problem(generator(seed).normal(size=n), np.triu(generator(seed + 1).normal(size=(n, n)), 1))


# Problems.


def test_ising_energies_are_those_of_the_formula():
    h, j = generator().normal(size=4), generator(1).normal(size=(4, 4))
    np.fill_diagonal(j, 0)
    problem = ising_problem(h, torch.from_numpy(j), 0.7)
    diagonal = problem.hamiltonian.diagonal(4)
    for index, bits in enumerate(every(4)):
        z = 1 - 2 * np.array(bits)
        wanted = 0.7 + h @ z + z @ j @ z
        assert problem.energy(bits) == pytest.approx(wanted)
        assert diagonal[index] == pytest.approx(wanted)


def test_qubo_energies_are_those_of_the_formula():
    q = generator().normal(size=(4, 4))  # of no symmetry
    problem = qubo_problem(q)
    for bits in every(4):
        assert problem.energy(bits) == pytest.approx(np.array(bits) @ q @ np.array(bits))


def test_maxcut_energies_are_minus_the_weight_of_the_cut():
    weights = random_graph(5)
    problem = maxcut_problem(weights)
    for bits in every(5):
        cut = sum(weights[i, j] for i in range(5) for j in range(i) if bits[i] != bits[j])
        assert problem.energy(bits) == pytest.approx(-cut)


def test_vertices_without_edges_keep_their_qubits():
    weights = np.zeros((4, 4))
    weights[0, 1] = weights[1, 0] = 1
    assert maxcut_problem(weights).num_qubits == 4
    assert len(brute_force(maxcut_problem(weights)).bits) == 4
    empty = brute_force(maxcut_problem(np.zeros((2, 2))))
    assert (empty.energy, empty.bits) == (0, (0, 0))


def test_joint_action_energies_are_minus_the_utility_of_the_team():
    unary = generator().normal(size=(4, 2))
    pairwise = {
        pair: generator(place).normal(size=(2, 2)) for place, pair in enumerate([(0, 1), (3, 1), (1, 0)])
    }
    problem = joint_action_problem(torch.from_numpy(unary), pairwise)
    best = -math.inf
    for actions in every(4):
        utility = sum(unary[i, a] for i, a in enumerate(actions))
        utility += sum(values[actions[i], actions[j]] for (i, j), values in pairwise.items())
        assert problem.energy(actions) == pytest.approx(-utility)
        best = max(best, utility)
    assert brute_force(problem).energy == pytest.approx(-best)


def test_agents_that_must_differ_do_so():
    differ = np.array([[0.0, 1.0], [1.0, 0.0]])
    problem = joint_action_problem([[0.1, 0.0], [0.0, 0.0], [0.0, 0.0]], {(0, 1): differ, (1, 2): differ})
    for solution in (brute_force(problem), qaoa(problem, 2, num_steps=60), vqe(problem, num_steps=60)):
        assert solution.bits == (0, 1, 0)
        assert solution.bits_energy == pytest.approx(-2.1)


# Brute force.


@pytest.mark.parametrize("seed", range(3))
def test_brute_force_finds_the_least_energy_of_diagonal_hamiltonians(seed):
    problem = random_ising(7, seed)
    solution = brute_force(problem)
    least = min(every(7), key=problem.energy)
    assert solution.bits == least
    assert solution.energy == solution.bits_energy == pytest.approx(problem.energy(least))
    assert probabilities(solution.state)[int("".join(map(str, least)), 2)] == 1
    assert (solution.method, solution.evaluations, solution.weights) == ("brute_force", 128, None)
    assert solution.history == (solution.energy,)


def test_brute_force_finds_the_ground_state_of_other_hamiltonians():
    terms = [
        PauliSum.of("X0 X1"),
        PauliSum.of("Y1 Y2", -0.7),
        PauliSum.of("Z0", 0.3),
        PauliSum.of("X2 Y0 Z1", 1.1),
    ]
    hamiltonian = terms[0] + terms[1] + terms[2] + terms[3]
    solution = brute_force(Problem(hamiltonian, 3))
    assert solution.energy == pytest.approx(np.linalg.eigvalsh(hamiltonian.matrix(3))[0])
    assert solution.bits is None
    assert solution.bits_energy is None
    assert float(expectation(solution.state, [hamiltonian])) == pytest.approx(solution.energy)


def test_brute_force_goes_beyond_what_can_be_diagonalised_if_diagonal():
    assert brute_force(random_ising(16)).evaluations == 2**16
    with pytest.raises(ValueError, match="is diagonalised up to 12, got 13"):
        brute_force(Problem(PauliSum.of("X12"), 13))
    with pytest.raises(ValueError, match="40 qubits in complex128 would take"):
        brute_force(Problem(PauliSum.of("Z0"), 40))


# QAOA.


def test_the_circuit_of_qaoa_is_that_of_farhi_et_al():
    hamiltonian = (
        PauliSum.of("Z0 Z2", 0.5) - 2 * PauliSum.of("Z1") + PauliSum.of("Z0 Z1 Z2") + PauliSum.of("I", 3)
    )
    circuit = qaoa_circuit(Problem(hamiltonian, 3), 2)
    weights = torch.tensor([0.3, -0.7, 1.1, 0.4], dtype=torch.float64)
    cost = hamiltonian.diagonal(3) - 3  # the constant is a global phase
    mixer = sum(PauliSum.of(f"X{qubit}").matrix(3) for qubit in range(3))
    values, vectors = np.linalg.eigh(mixer)
    state = np.full(8, 8**-0.5, complex)
    for gamma, beta in weights.reshape(2, 2).tolist():
        state = np.exp(-1j * gamma * cost / 2) * state  # 2 is the largest coefficient
        state = (vectors * np.exp(-1j * beta * values)) @ vectors.T.conj() @ state
    np.testing.assert_allclose(circuit.state(weights), state, atol=1e-13)
    assert (circuit.num_weights, circuit.num_features) == (4, 0)


def test_long_strings_of_z_have_their_phases():
    hamiltonian = PauliSum.of("Z0 Z1 Z2 Z3", 0.8)
    circuit = qaoa_circuit(Problem(hamiltonian, 4))
    weights = torch.tensor([0.9, 0.0], dtype=torch.float64)
    wanted = np.exp(-0.9j * hamiltonian.diagonal(4) / 0.8) / 4
    np.testing.assert_allclose(circuit.state(weights), wanted, atol=1e-14)


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_qaoa_reaches_the_known_ratios_of_the_ring(layers):
    """Farhi et al., section 5: on a ring (2p + 1) / (2p + 2) of the edges are cut, while 2p + 1 is below its length."""
    if layers == 3:  # seven vertices see themselves around a ring of six, which is then cut altogether
        wanted = 1.0
    else:
        wanted = (2 * layers + 1) / (2 * layers + 2)
    solution = qaoa(maxcut_problem(RING), layers, num_starts=24, num_steps=150, seed=1)
    assert -solution.energy / 6 == pytest.approx(wanted, abs=2e-3)
    assert solution.bits_energy == -6
    assert solution.bits in ((0, 1, 0, 1, 0, 1), (1, 0, 1, 0, 1, 0))


def test_a_solution_of_qaoa_is_consistent():
    problem = random_ising(5)
    solution = qaoa(problem, 3, num_starts=8, num_steps=80)
    assert solution.method == "qaoa"
    assert solution.energy == min(solution.history)
    assert solution.energy < solution.history[0]
    assert len(solution.history) == 81
    assert solution.evaluations == 8 * 81
    assert solution.weights.shape == (6,)
    assert float(expectation(solution.state, [problem.hamiltonian])) == pytest.approx(solution.energy)
    assert solution.bits_energy == pytest.approx(problem.energy(solution.bits))
    exact = brute_force(problem).energy
    assert exact <= solution.bits_energy + 1e-12
    assert exact < solution.energy
    assert solution.bits_energy == pytest.approx(exact)
    for name in ("energy", "bits"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(solution, name, None)


def test_energies_of_any_unit_are_minimised_alike():
    small, large = (maxcut_problem(random_graph(4) * unit) for unit in (1e-12, 1e12))
    a, b = (qaoa(problem, 2, num_starts=4, num_steps=40) for problem in (small, large))
    assert a.energy * 1e24 == pytest.approx(b.energy, rel=1e-6)
    assert a.bits == b.bits


def test_the_seed_decides_alone():
    problem = random_ising(4)
    first, again, other = (qaoa(problem, num_starts=2, num_steps=5, seed=seed) for seed in (3, 3, 4))
    assert first.history == again.history
    assert torch.equal(first.state, again.state)
    assert first.history != other.history


def test_solvers_work_where_gradients_are_switched_off():
    with torch.no_grad():
        solution = qaoa(random_ising(3), num_starts=2, num_steps=20)
    assert solution.energy < solution.history[0]
    assert not solution.state.requires_grad


# VQE.


def test_vqe_finds_the_ground_state_of_a_transverse_ising_chain():
    hamiltonian = PauliSum.of("Z0 Z1", -1.0) + PauliSum.of("Z1 Z2", -1.0)
    for qubit in range(3):
        hamiltonian = hamiltonian - 0.8 * PauliSum.of(f"X{qubit}")
    problem = Problem(hamiltonian, 3)
    exact, found = brute_force(problem), vqe(problem, num_steps=250)
    assert found.energy == pytest.approx(exact.energy, abs=1e-3)
    assert found.energy >= exact.energy - 1e-9  # the variational principle
    assert found.bits is None
    overlap = (exact.state.conj() @ found.state).abs().square()
    assert overlap > 0.99
    assert found.evaluations == 8 * 251


def test_vqe_gives_bits_of_diagonal_hamiltonians():
    problem = random_ising(4, seed=5)
    found = vqe(problem, num_steps=100)
    assert found.bits == brute_force(problem).bits
    assert found.bits_energy == pytest.approx(brute_force(problem).energy)


def test_vqe_takes_an_ansatz():
    ansatz = Circuit(2).add("RY", 0, angle=weight(0)).add("CNOT", 0, 1)
    found = vqe(Problem(PauliSum.of("X0 X1") + PauliSum.of("Z0 Z1"), 2), ansatz, num_steps=200)
    assert found.weights.shape == (1,)
    assert found.energy == pytest.approx(0.0, abs=1e-4)  # cos(t/2)|00> + sin(t/2)|11>: sin(t) + 1


# What is refused.


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Problem(PauliSum(()), 2), "hamiltonian: there are no terms"),
        (lambda: Problem(math.nan * PauliSum.of("Z0"), 2), "hamiltonian: .* not finite"),
        (lambda: Problem(PauliSum.of("Z2"), 2), "num_qubits: the Hamiltonian needs 3, got 2"),
        (lambda: Problem(PauliSum.of("Z0"), True), "num_qubits: expected an integer"),
        (lambda: Problem(PauliSum.of("X0"), 1).energy((0,)), "not diagonal .* bits have no energy"),
        (lambda: Problem(PauliSum.of("Z0"), 2).energy((0,)), "bits: expected 2 of 0 and 1"),
        (lambda: Problem(PauliSum.of("Z0"), 1).energy((2,)), "bits: expected 1 of 0 and 1"),
        (lambda: ising_problem([1.0], np.zeros((2, 2))), r"couplings: expected shape \(1, 1\), got \(2, 2\)"),
        (lambda: ising_problem([1.0], [[1.0]]), "couplings: the diagonal must be 0"),
        (lambda: ising_problem([[1.0]], [[0.0]]), "fields: expected 1 axes"),
        (lambda: ising_problem([1.0], [[0.0]], math.inf), "constant: there are numbers that are not finite"),
        (lambda: qubo_problem(np.ones((2, 3))), "matrix: expected a square matrix"),
        (lambda: qubo_problem([[math.nan]]), "matrix: there are numbers that are not finite"),
        (lambda: maxcut_problem([[0, 1], [2, 0]]), "weights: expected a symmetric matrix with diagonal 0"),
        (lambda: maxcut_problem([[1.0]]), "weights: expected a symmetric matrix with diagonal 0"),
        (lambda: maxcut_problem(np.zeros((0, 0))), "weights: expected 2 axes of at least 1"),
        (lambda: joint_action_problem(np.ones((2, 3))), r"unary: expected shape \[N, 2\], got \(2, 3\)"),
        (
            lambda: joint_action_problem(np.ones((2, 2)), {(0, 2): np.eye(2)}),
            "pairwise: .* no two of the agents 0 to 1",
        ),
        (
            lambda: joint_action_problem(np.ones((2, 2)), {(0, 0): np.eye(2)}),
            "pairwise: .* no two of the agents",
        ),
        (
            lambda: joint_action_problem(np.ones((2, 2)), {(0, 1): np.eye(3)}),
            r"expected shape \(2, 2\), got \(3, 3\)",
        ),
        (lambda: qaoa(Problem(PauliSum.of("X0"), 1)), "QAOA needs one that is diagonal"),
        (lambda: qaoa(random_ising(2), 0), "num_layers: expected an integer of at least 1, got 0"),
        (lambda: qaoa(random_ising(2), num_starts=0), "num_starts: expected an integer of at least 1"),
        (lambda: qaoa(random_ising(2), num_steps=-1), "num_steps: expected an integer of at least 0"),
        (lambda: qaoa(random_ising(2), learning_rate=0.0), "learning_rate: expected a finite number above 0"),
        (lambda: qaoa(random_ising(2), shots=0), "shots: expected an integer of at least 1"),
        (lambda: vqe(random_ising(2), num_layers=-1), "num_layers: expected an integer of at least 0"),
        (lambda: vqe(random_ising(2), Circuit(3)), "ansatz: expected 2 qubits, .* got 3 qubits, 0 weights"),
        (
            lambda: vqe(
                random_ising(1), Circuit(1).add("RX", 0, angle=weight(0)).add("RX", 0, angle=feature(0))
            ),
            "1 weights and 1 features",
        ),
    ],
)
def test_wrong_problems_and_settings_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()

"""Grover's search and amplitude amplification, and what the Q operator has in common with them."""

import math

import numpy as np
import pytest
import torch

from qio_rllib.exploration import amplify
from qio_rllib.quantum import Circuit, grover_amplify, grover_circuit, optimal_iterations, probabilities


def draw_policies(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.softmax(2 * torch.randn(*shape, dtype=torch.float64, generator=generator), -1)


def by_reflections(probs, good, iterations, phases=None):
    """One policy after the oracle and the reflection about the start, as matrices on complex amplitudes."""
    start = np.sqrt(probs) * (1 if phases is None else np.exp(1j * phases))
    state = start.astype(complex)
    for _ in range(iterations):
        state = np.where(good, -state, state)
        state = 2 * start * (start.conj() @ state) - state
    return np.abs(state) ** 2


@pytest.mark.parametrize("iterations", [0, 1, 2, 3, 10, 57])
def test_the_closed_form_agrees_with_reflections_of_the_state(iterations):
    probs = draw_policies(6, 7)
    generator = np.random.default_rng(0)
    good = generator.random((6, 7)) < 0.4
    actual = grover_amplify(probs, torch.from_numpy(good), iterations)
    for row in range(6):
        phases = generator.uniform(0, 6, 7) if row % 2 else None  # phases do not matter
        wanted = by_reflections(probs[row].numpy(), good[row], iterations, phases)
        np.testing.assert_allclose(actual[row], wanted, rtol=0, atol=1e-12)
    np.testing.assert_allclose(actual.sum(-1), np.ones(6), atol=1e-12)


@pytest.mark.parametrize("num_qubits", [1, 2, 3, 5])
@pytest.mark.parametrize("iterations", [0, 1, 4, None])
def test_the_circuit_gives_the_same_probabilities(num_qubits, iterations):
    size = 2**num_qubits
    for marked in ([0], [size - 1], list(range(0, size, 3)), []):
        circuit = grover_circuit(num_qubits, marked, iterations)
        good = torch.zeros(size, dtype=torch.bool)
        good[marked] = True
        count = optimal_iterations(len(marked) / size) if iterations is None else iterations
        uniform = torch.full((size,), 1 / size, dtype=torch.float64)
        wanted = grover_amplify(uniform, good, count)
        actual = probabilities(circuit.state(dtype=torch.complex128))
        torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-12)


def test_a_search_among_many_finds_one_in_about_a_quarter_pi_root_n_steps():
    circuit = grover_circuit(8, [77])
    assert optimal_iterations(1 / 256) == 12 == math.floor(math.pi / 4 * 16)
    found = probabilities(circuit.state())[77]
    assert found > 0.999
    assert len(circuit) == 8 + 12 * (2 + 16)


def test_operations_of_all_iterations_share_their_matrices():
    operations = grover_circuit(4, [3], 5).operations
    assert len({id(operation.matrix) for operation in operations if operation.matrix is not None}) == 2


def test_the_optimal_number_of_iterations_is_the_best_before_the_first_turn():
    for p in np.concatenate([np.linspace(0.001, 1, 200), 1 / 2.0 ** np.arange(12)]):
        count = optimal_iterations(float(p))
        row, good = torch.tensor([p, 1 - p]), torch.tensor([True, False])
        reached = [float(grover_amplify(row, good, k)[0]) for k in range(count + 2)]
        assert reached[count] >= max(reached) - 1e-9
        assert reached[count] >= max(p, 1 - p) - 1e-9  # Brassard et al., theorem 2


def test_iterations_may_differ_from_row_to_row():
    probs = draw_policies(4, 3, 5)
    good = probs < 0.1
    counts = optimal_iterations((probs * good).sum(-1))
    assert counts.shape == (4, 3)
    assert counts.dtype == torch.int64
    actual = grover_amplify(probs, good, counts)
    for place in np.ndindex(4, 3):
        wanted = grover_amplify(probs[place], good[place], int(counts[place]))
        torch.testing.assert_close(actual[place], wanted, rtol=0, atol=1e-12)


def test_policies_without_good_actions_or_with_good_ones_only_stay_as_they_are():
    probs = draw_policies(3, 4)
    for good in (torch.zeros(4, dtype=torch.bool), torch.ones(4, dtype=torch.bool)):
        torch.testing.assert_close(grover_amplify(probs, good, 5), probs, rtol=0, atol=1e-12)
    assert (optimal_iterations(0.0), optimal_iterations(1.0), optimal_iterations(0.25)) == (0, 0, 1)


def test_gradients_are_exact_and_finite_at_the_ends():
    logits = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    good = torch.tensor([True, False, False, True, False])
    assert torch.autograd.gradcheck(lambda x: grover_amplify(torch.softmax(x, -1), good, 3), logits)
    ends = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]], requires_grad=True)
    grover_amplify(ends, torch.tensor([True, False]), 4).square().sum().backward()
    assert torch.isfinite(ends.grad).all()


def test_single_precision_is_kept_and_close_to_double():
    probs, good = draw_policies(5, 6), torch.tensor([True, False] * 3)
    single = grover_amplify(probs.float(), good, 20)
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), grover_amplify(probs, good, 20), rtol=0, atol=1e-4)


# What the Q operator shares with the diffusion step, and what it does not.


def q_line(amplitudes, eta):
    """The Q operator before clipping and normalisation."""
    return amplitudes + eta * (amplitudes - amplitudes.mean(-1, keepdim=True))


def deviation(amplitudes):
    return amplitudes - amplitudes.mean(-1, keepdim=True)


@pytest.mark.parametrize("eta", [0.05, 0.1, 1.0])
def test_diffusion_multiplies_deviations_by_minus_one_and_the_q_operator_by_one_plus_eta(eta):
    amplitudes = draw_policies(5, 8).sqrt()
    # the circuit's diffusion: its second diagonal between two layers of H's
    turn = Circuit(3).extend(grover_circuit(3, [], 1).operations[4:])
    diffused = turn.state(initial=amplitudes.to(torch.complex128)).real
    mean = amplitudes.mean(-1, keepdim=True)
    torch.testing.assert_close(diffused, 2 * mean - amplitudes, rtol=0, atol=1e-14)
    torch.testing.assert_close(deviation(diffused), -deviation(amplitudes), rtol=0, atol=1e-14)
    torch.testing.assert_close(diffused, q_line(amplitudes, -2.0), rtol=0, atol=1e-14)
    raised = q_line(amplitudes, eta)
    torch.testing.assert_close(deviation(raised), (1 + eta) * deviation(amplitudes), rtol=0, atol=1e-14)
    for after in (diffused, raised):
        torch.testing.assert_close(after.mean(-1, keepdim=True), mean, rtol=0, atol=1e-14)


def test_the_line_is_the_one_that_amplify_computes():
    probs = draw_policies(6, 4)
    raised = q_line(probs.sqrt(), 0.1).clamp_min(0).square()
    wanted = raised / raised.sum(-1, keepdim=True)
    actual = amplify(probs.log(), eta=0.1, h_min=0.0).exp()
    torch.testing.assert_close(actual, wanted, rtol=0, atol=1e-12)


def test_diffusion_keeps_the_norm_and_the_q_operator_does_not():
    amplitudes = draw_policies(5, 8).sqrt()
    mean, eta = amplitudes.mean(-1), 0.1
    variance = deviation(amplitudes).square().mean(-1)
    for factor, line in ((-1.0, q_line(amplitudes, -2.0)), (1 + eta, q_line(amplitudes, eta))):
        norm = line.square().sum(-1)
        torch.testing.assert_close(norm, 8 * (mean**2 + factor**2 * variance), rtol=0, atol=1e-13)
    assert (q_line(amplitudes, eta).square().sum(-1) > 1.001).all()


def test_the_q_operator_many_times_is_the_q_operator_once_where_nothing_is_clipped():
    probs = torch.tensor([[0.3, 0.25, 0.25, 0.2], [0.26, 0.25, 0.25, 0.24]], dtype=torch.float64)
    eta, times = 0.1, 5
    log_probs = probs.log()
    for _ in range(times):
        log_probs = amplify(log_probs, eta=eta, h_min=0.0)
    once = amplify(probs.log(), eta=(1 + eta) ** times - 1, h_min=0.0)
    torch.testing.assert_close(log_probs, once, rtol=0, atol=1e-12)


def test_the_q_operator_amplifies_what_is_probable_and_grover_what_is_marked():
    probs = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    marked = torch.tensor([False, False, False, True])
    assert grover_amplify(probs, marked, optimal_iterations(0.05))[3] > 0.95
    policy = probs
    for _ in range(50):
        policy = amplify(policy.log(), eta=0.1, h_min=0.0).exp()
        assert policy[3] <= 0.05
    assert policy[0] > 0.999
    # and a uniform policy, in which nothing is more probable, it leaves alone
    uniform = torch.full((4,), 0.25, dtype=torch.float64)
    torch.testing.assert_close(amplify(uniform.log(), eta=0.1, h_min=0.0).exp(), uniform)
    assert grover_amplify(uniform, marked, 1)[3] == pytest.approx(1.0)


# What is refused.


@pytest.mark.parametrize(
    ("probs", "good", "iterations", "message"),
    [
        ([0.5, 0.6], [True, False], 1, "probs: expected probabilities, .* got sums from 1.1"),
        ([1.5, -0.5], [True, False], 1, "the least number is -0.5"),
        ([math.nan, 1.0], [True, False], 1, "probs: expected probabilities"),
        ([1, 0], [True, False], 1, r"probs: expected floats \[..., A\], got torch.int64"),
        ([0.5, 0.5], [1, 0], 1, "good: expected bool"),
        ([0.5, 0.5], [True, False, True], 1, r"good: expected bool \[..., 2\], got shape \(3,\)"),
        ([0.5, 0.5], [True, False], -1, "iterations: expected an integer of at least 0, got -1"),
        ([0.5, 0.5], [True, False], True, "iterations: expected an integer of at least 0"),
        ([0.5, 0.5], [True, False], 1.0, "iterations: expected an integer of at least 0"),
        ([0.5, 0.5], [True, False], torch.tensor(-1), "iterations: expected int64 of at least 0"),
        ([0.5, 0.5], [True, False], torch.tensor([1, 2]), r"iterations: expected shape \(\), got \(2,\)"),
    ],
)
def test_wrong_policies_masks_and_iterations_are_refused(probs, good, iterations, message):
    with pytest.raises(ValueError, match=message):
        grover_amplify(torch.tensor(probs), torch.tensor(good), iterations)


def test_wrong_marks_and_probabilities_are_refused():
    for marked in ([8], [-1], [True], [0.5]):
        with pytest.raises(ValueError, match="marked: .* is out of range; allowed: 0 to 7"):
            grover_circuit(3, marked)
    with pytest.raises(ValueError, match="marked: names a state twice"):
        grover_circuit(3, [1, 1])
    with pytest.raises(ValueError, match="iterations: expected an integer of at least 0"):
        grover_circuit(3, [1], -1)
    for p_good in (-0.1, 1.1, math.nan, torch.tensor([0.5, 2.0])):
        with pytest.raises(ValueError, match=r"p_good: expected probabilities in \[0, 1\]"):
            optimal_iterations(p_good)

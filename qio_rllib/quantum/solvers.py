"""Variational solvers: QAOA and VQE beside brute force, all with one kind of problem and one kind of answer.

A `Problem` is a Hamiltonian over ``n`` qubits; solving it is finding a state, or for a diagonal one the bits, of least
energy.

```python
from qio_rllib.quantum import brute_force, maxcut_problem, qaoa

problem = maxcut_problem(adjacency)                # float [n, n]
qaoa(problem, num_layers=3, seed=0).bits           # (0, 1, 0, 1)
brute_force(problem).energy                        # -4.0: four edges can be cut
```

Where this serves learning: a team of ``N`` agents that each choose between two actions has ``2**N`` joint actions. With
utilities of single agents and of pairs, such as those of a pairwise factored value function (C. Guestrin, M. Lagoudakis
and R. Parr, "Coordinated reinforcement learning", ICML 2002), the best joint action is the ground state of an Ising
problem, which `joint_action_problem` makes; assignments with penalties are written as a `qubo_problem`. On a simulator
these solvers cost more than `brute_force`, which is the reference for what they find, not a rival in speed.

QAOA: E. Farhi, J. Goldstone and S. Gutmann, "A quantum approximate optimization algorithm" (2014, arXiv:1411.4028).
VQE: A. Peruzzo et al., "A variational eigenvalue solver on a photonic quantum processor", Nature Communications 5, 4213
(2014).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qio_rllib.quantum.circuit import Circuit, check_memory
from qio_rllib.quantum.encodings import layered_circuit, variational_layer
from qio_rllib.quantum.gates import Array
from qio_rllib.quantum.observables import Measurement, PauliSum, check_shots, sample
from qio_rllib.quantum.operations import weight

_DENSE_QUBITS = 12
"""Above this many the matrix of a Hamiltonian that is not diagonal is too large to diagonalise."""


@dataclass(frozen=True)
class Problem:
    """A Hamiltonian whose least energy is looked for.

    Attributes:
        hamiltonian: The energy.
        num_qubits: ``n``, at least as many as the Hamiltonian names.

    Raises:
        ValueError: Fewer qubits, a Hamiltonian without terms, or a coefficient that is not finite.
    """

    hamiltonian: PauliSum
    num_qubits: int

    def __post_init__(self) -> None:
        if not self.hamiltonian.terms:
            raise ValueError("hamiltonian: there are no terms")
        if not all(math.isfinite(coefficient) for coefficient, _ in self.hamiltonian.terms):
            raise ValueError("hamiltonian: there are coefficients that are not finite")
        if isinstance(self.num_qubits, bool) or not isinstance(self.num_qubits, int):
            raise ValueError(f"num_qubits: expected an integer, got {self.num_qubits!r}")
        if self.num_qubits < self.hamiltonian.num_qubits:
            raise ValueError(
                f"num_qubits: the Hamiltonian needs {self.hamiltonian.num_qubits}, got {self.num_qubits}"
            )

    def energy(self, bits: Sequence[int]) -> float:
        """Return the energy of a basis state, from the Hamiltonian's terms.

        Args:
            bits: ``n`` of 0 and 1, qubit 0 first.

        Raises:
            ValueError: The Hamiltonian is not diagonal, or these are not ``n`` bits.
        """
        if not self.hamiltonian.is_diagonal:
            raise ValueError("hamiltonian: not diagonal in the computational basis, so bits have no energy")
        if len(bits) != self.num_qubits or not set(bits) <= {0, 1}:
            raise ValueError(f"bits: expected {self.num_qubits} of 0 and 1, got {list(bits)}")
        return float(
            sum(c * (-1) ** sum(bits[qubit] for qubit, _ in letters) for c, letters in self.hamiltonian.terms)
        )


@dataclass(frozen=True, eq=False)
class Solution:
    """What a solver found.

    Attributes:
        method: "brute_force", "qaoa" or "vqe".
        energy: Expected energy of ``state``.
        bits: The best bits, qubit 0 first: of brute force the optimal ones, otherwise the best of those sampled from
            ``state``; None for a Hamiltonian that is not diagonal.
        bits_energy: Their energy; None without bits.
        state: Amplitudes, complex128 ``[2**n]``.
        weights: The circuit's, float64 ``[W]``; None for brute force.
        evaluations: Expectation values computed; for brute force the dimension ``2**n``.
        history: Least expected energy of all starts after each step of the optimiser, the start first.
    """

    method: str
    energy: float
    bits: tuple[int, ...] | None
    bits_energy: float | None
    state: Tensor
    weights: Tensor | None
    evaluations: int
    history: tuple[float, ...]


def ising_problem(fields: Any, couplings: Any, constant: float = 0.0) -> Problem:
    """Return ``E(z) = constant + sum_i h_i z_i + sum_{i<j} J_ij z_i z_j`` with ``z = 1`` for bit 0 and -1 for bit 1.

    Args:
        fields: ``h``, array or tensor of floats ``[n]``.
        couplings: ``J``, floats ``[n, n]``; ``J_ij`` and ``J_ji`` add up, the diagonal must be 0.
        constant: Added to each energy.

    Raises:
        ValueError: Other shapes, numbers that are not finite, or a diagonal.
    """
    h = _finite("fields", fields, 1)
    j = _finite("couplings", couplings, 2)
    if j.shape != (len(h), len(h)):
        raise ValueError(f"couplings: expected shape ({len(h)}, {len(h)}), got {j.shape}")
    if np.diag(j).any():
        raise ValueError("couplings: the diagonal must be 0, z_i z_i is a constant")
    terms: list[tuple[float, tuple[tuple[int, str], ...]]] = []
    if constant or not (h.any() or j.any()):
        terms.append((float(_finite("constant", constant, 0)), ()))
    terms += [(float(value), ((i, "Z"),)) for i, value in enumerate(h) if value]
    both = j + j.T
    terms += [
        (float(both[i, k]), ((i, "Z"), (k, "Z")))
        for i in range(len(h))
        for k in range(i + 1, len(h))
        if both[i, k]
    ]
    return Problem(PauliSum(tuple(terms)), len(h))


def qubo_problem(matrix: Any) -> Problem:
    """Return ``E(b) = sum_ij Q_ij b_i b_j`` over bits ``b``: quadratic unconstrained binary optimisation, minimised.

    Args:
        matrix: ``Q``, array or tensor of floats ``[n, n]``, of any symmetry; the diagonal holds what single bits cost.

    Raises:
        ValueError: Not square, or numbers that are not finite.
    """
    q = _square("matrix", matrix)
    both = (q + q.T) / 2
    off = both - np.diag(np.diag(both))
    # b = (1 - z) / 2
    fields = -(np.diag(both) + off.sum(1)) / 2
    return ising_problem(fields, off / 4, float(np.diag(both).sum() / 2 + off.sum() / 4))


def maxcut_problem(weights: Any) -> Problem:
    """Return the problem of cutting a graph in two so that the edges between the parts weigh most.

    The energy is minus the weight of the cut; bits say in which part each vertex is.

    Args:
        weights: Of the edges, array or tensor of floats ``[n, n]``, symmetric with diagonal 0.

    Raises:
        ValueError: Not square, not symmetric, a diagonal, or numbers that are not finite.
    """
    w = _square("weights", weights)
    if not np.array_equal(w, w.T) or np.diag(w).any():
        raise ValueError("weights: expected a symmetric matrix with diagonal 0")
    # an edge is cut where z_i z_j = -1: its weight times (1 - z_i z_j) / 2
    return ising_problem(np.zeros(len(w)), w / 4, float(-w.sum() / 4))


def joint_action_problem(unary: Any, pairwise: Mapping[tuple[int, int], Any] | None = None) -> Problem:
    """Return the problem of the best joint action of ``N`` agents with two actions each.

    The energy is minus the team's utility ``sum_i unary[i, a_i] + sum_(i,j) pairwise[i, j][a_i, a_j]``; bit ``i`` is
    the action of agent ``i``.

    Args:
        unary: Utilities of each agent's actions, array or tensor of floats ``[N, 2]``.
        pairwise: Utilities of pairs ``(i, j)`` of different agents, ``[2, 2]`` each, the action of ``i`` first.

    Raises:
        ValueError: Other shapes, pairs that are no two agents, or numbers that are not finite.
    """
    u = _finite("unary", unary, 2)
    if u.shape[1] != 2:
        raise ValueError(f"unary: expected shape [N, 2], got {u.shape}")
    fields, couplings, constant = -(u[:, 0] - u[:, 1]) / 2, np.zeros((len(u),) * 2), -u.sum() / 2
    for (i, j), given in (pairwise or {}).items():
        values = _finite(f"pairwise[{i}, {j}]", given, 2)
        if values.shape != (2, 2):
            raise ValueError(f"pairwise[{i}, {j}]: expected shape (2, 2), got {values.shape}")
        if i == j or not (0 <= i < len(u) and 0 <= j < len(u)):
            raise ValueError(f"pairwise: {(i, j)} are no two of the agents 0 to {len(u) - 1}")
        sign = np.array([1.0, -1.0])
        constant -= values.sum() / 4
        fields[i] -= (sign @ values).sum() / 4
        fields[j] -= (values @ sign).sum() / 4
        couplings[i, j] -= sign @ values @ sign / 4
    return ising_problem(fields, couplings, float(constant))


def brute_force(problem: Problem) -> Solution:
    """Return the exact ground state.

    A diagonal Hamiltonian takes the least of ``2**n`` energies, for any ``n`` that fits into memory; of several such
    bits the first are returned. Any other is diagonalised as a matrix, up to 12 qubits.

    Raises:
        ValueError: Too many qubits.
    """
    n, hamiltonian = problem.num_qubits, problem.hamiltonian
    check_memory(n, 4, torch.complex128)  # what the diagonal is made from, beside the state
    if hamiltonian.is_diagonal:
        energies = hamiltonian.diagonal(n)
        index = int(energies.argmin())
        least, bits = float(energies[index]), _bits(index, n)
        state = torch.zeros(2**n, dtype=torch.complex128)
        state[index] = 1
        return Solution("brute_force", least, bits, least, state, None, 2**n, (least,))
    if n > _DENSE_QUBITS:
        raise ValueError(
            f"num_qubits: a Hamiltonian that is not diagonal is diagonalised up to {_DENSE_QUBITS}, got {n}"
        )
    values, vectors = np.linalg.eigh(hamiltonian.matrix(n))
    least = float(values[0])
    state = torch.from_numpy(np.ascontiguousarray(vectors[:, 0]))
    return Solution("brute_force", least, None, None, state, None, 2**n, (least,))


def qaoa_circuit(problem: Problem, num_layers: int = 1) -> Circuit:
    """Return QAOA's circuit: H on all qubits, then cost and mixer in turn.

    They are ``exp(-i gamma H / s)``, without H's constant, and ``exp(-i beta sum_q X_q)``. The cost is scaled by the
    largest coefficient ``s`` of the Hamiltonian, so that ``gamma`` is of the order of 1 whatever the energies' unit.
    Weight ``2 l`` is ``gamma`` of layer ``l``, weight ``2 l + 1`` its ``beta``.

    Args:
        problem: With a diagonal Hamiltonian.
        num_layers: ``p``, at least 1.

    Returns:
        A circuit with ``2 p`` weights, no features.

    Raises:
        ValueError: The Hamiltonian is not diagonal, or ``num_layers`` is below 1.
    """
    if not problem.hamiltonian.is_diagonal:
        raise ValueError(
            "hamiltonian: QAOA needs one that is diagonal in the computational basis; vqe does not"
        )
    _at_least("num_layers", num_layers, 1)
    n = problem.num_qubits
    strings = [
        (c, [qubit for qubit, _ in letters]) for c, letters in problem.hamiltonian.terms if letters and c
    ]
    scale = max((abs(c) for c, _ in strings), default=1.0)
    circuit = Circuit(n)
    for qubit in range(n):
        circuit.add("H", qubit)
    for layer in range(num_layers):
        gamma, beta = weight(2 * layer), weight(2 * layer + 1)
        for coefficient, qubits in strings:
            angle = (2.0 * coefficient / scale) * gamma
            if len(qubits) == 1:
                circuit.add("RZ", qubits[0], angle=angle)
                continue
            # the parity of all but the last two is brought to the last but one, and taken away again
            ladder = list(itertools.pairwise(qubits[:-1]))
            for control, target in ladder:
                circuit.add("CNOT", control, target)
            circuit.add("RZZ", *qubits[-2:], angle=angle)
            for control, target in reversed(ladder):
                circuit.add("CNOT", control, target)
        for qubit in range(n):
            circuit.add("RX", qubit, angle=2.0 * beta)
    return circuit


def qaoa(
    problem: Problem,
    num_layers: int = 1,
    num_starts: int = 16,
    num_steps: int = 200,
    learning_rate: float = 0.05,
    shots: int = 1024,
    seed: int = 0,
) -> Solution:
    """Minimise a diagonal Hamiltonian's energy by the quantum approximate optimisation algorithm.

    All starts run as one batch of weights, each optimised by Adam on its own; the best weights that any of them passed
    are kept, and bits are sampled from their state.

    Args:
        problem: With a diagonal Hamiltonian.
        num_layers: ``p``, at least 1.
        num_starts: Random starts, uniform: ``gamma`` in [-pi, pi), ``beta`` in [-pi/2, pi/2); at least 1.
        num_steps: Of the optimiser, at least 0.
        learning_rate: Of Adam, radians, above 0.
        shots: Bits sampled at the end, at least 1.
        seed: Of the starts and the samples.

    Raises:
        ValueError: As in `qaoa_circuit`, or a number is out of its range.
    """
    circuit = qaoa_circuit(problem, num_layers)
    _at_least("num_starts", num_starts, 1)
    generator = torch.Generator().manual_seed(seed)
    starts = torch.rand(num_starts, num_layers, 2, generator=generator, dtype=torch.float64) - 0.5
    starts = (starts * torch.tensor([2 * math.pi, math.pi], dtype=torch.float64)).reshape(num_starts, -1)
    return _minimize("qaoa", problem, circuit, starts, num_steps, learning_rate, shots, generator)


def vqe(
    problem: Problem,
    ansatz: Circuit | None = None,
    num_layers: int = 2,
    num_starts: int = 8,
    num_steps: int = 300,
    learning_rate: float = 0.1,
    shots: int = 1024,
    seed: int = 0,
) -> Solution:
    """Minimise any Hamiltonian's energy over a circuit's weights: the variational quantum eigensolver.

    Args:
        problem: The Hamiltonian.
        ansatz: Circuit over ``n`` qubits with weights and without features; by default `layered_circuit`, and RX, RY
            and RZ on each qubit after its last ring.
        num_layers: Of the default ansatz, at least 0.
        num_starts: Random starts, uniform in [-pi, pi), optimised as one batch; at least 1.
        num_steps: Of the optimiser, at least 0.
        learning_rate: Of Adam, radians, above 0.
        shots: Bits sampled at the end if the Hamiltonian is diagonal, at least 1.
        seed: Of the starts and the samples.

    Raises:
        ValueError: The ansatz does not fit, or a number is out of its range.
    """
    if ansatz is None:
        _at_least("num_layers", num_layers, 0)
        n = problem.num_qubits
        last = variational_layer(n, 3 * n * num_layers, None)
        ansatz = layered_circuit(n, num_layers).extend(last.operations)
    if ansatz.num_qubits != problem.num_qubits or not ansatz.num_weights or ansatz.num_features:
        raise ValueError(
            f"ansatz: expected {problem.num_qubits} qubits, weights and no features, got {ansatz.num_qubits} qubits, "
            f"{ansatz.num_weights} weights and {ansatz.num_features} features"
        )
    _at_least("num_starts", num_starts, 1)
    generator = torch.Generator().manual_seed(seed)
    starts = torch.rand(num_starts, ansatz.num_weights, generator=generator, dtype=torch.float64) - 0.5
    starts = starts * (2 * math.pi)
    return _minimize("vqe", problem, ansatz, starts, num_steps, learning_rate, shots, generator)


def _minimize(
    method: str,
    problem: Problem,
    circuit: Circuit,
    starts: Tensor,
    num_steps: int,
    learning_rate: float,
    shots: int,
    generator: torch.Generator,
) -> Solution:
    """Run Adam from each row of weights, and report the best of all steps."""
    _at_least("num_steps", num_steps, 0)
    check_shots(shots)
    if not 0.0 < learning_rate < math.inf:
        raise ValueError(f"learning_rate: expected a finite number above 0, got {learning_rate}")
    measurement = Measurement(problem.num_qubits, [problem.hamiltonian])
    weights = starts.clone().requires_grad_()
    # Adam is elementwise: rows do not affect each other. Without the energies' unit its epsilon is negligible.
    unit = max(abs(coefficient) for coefficient, _ in problem.hamiltonian.terms) or 1.0
    optimizer = torch.optim.Adam([weights], lr=learning_rate)
    best, found, history = math.inf, starts[0], []
    with torch.enable_grad():
        for step in range(num_steps + 1):
            energies = measurement.expectation(circuit.state(weights))[..., 0]
            row = int(energies.detach().argmin())
            least = float(energies[row].detach())
            history.append(least)
            if least < best:
                best, found = least, weights[row].detach().clone()
            if step < num_steps:
                optimizer.zero_grad()
                (energies / unit).sum().backward()
                optimizer.step()
    with torch.no_grad():
        state = circuit.state(found)
    bits, bits_energy = None, None
    if problem.hamiltonian.is_diagonal:
        sampled_bits = [
            _bits(index, problem.num_qubits) for index in sample(state, shots, generator).unique().tolist()
        ]
        bits_energy, bits = min((problem.energy(each), each) for each in sampled_bits)
    evaluations = len(starts) * (num_steps + 1)
    return Solution(method, best, bits, bits_energy, state, found, evaluations, tuple(history))


def _bits(index: int, num_qubits: int) -> tuple[int, ...]:
    return tuple((index >> place) & 1 for place in range(num_qubits - 1, -1, -1))


def _at_least(name: str, value: int, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ValueError(f"{name}: expected an integer of at least {least}, got {value!r}")


def _finite(name: str, given: Any, axes: int) -> Array:
    values = np.asarray(given.detach().cpu() if isinstance(given, Tensor) else given, np.float64)
    if values.ndim != axes or not values.size:
        raise ValueError(f"{name}: expected {axes} axes of at least 1, got shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{name}: there are numbers that are not finite")
    return values


def _square(name: str, given: Any) -> Array:
    values = _finite(name, given, 2)
    if values.shape[0] != values.shape[1]:
        raise ValueError(f"{name}: expected a square matrix, got shape {values.shape}")
    return values

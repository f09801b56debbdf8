"""Numba kernels of qubit control; each loops over the environments of a batch.

States are complex128, so that long circuits do not drift; no gate is ever a matrix of the whole state.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from qio_envs.api import Array
from qio_envs.api.random import below, normals, uniform
from qio_envs.qubit_control.gates import GateSet
from qio_envs.qubit_control.state import CIRCUIT_TARGET, HAAR_TARGET, QubitControlRules, QubitControlState

CIRCUIT, HAAR, NOISE = 0, 1, 2  # streams of random numbers
CANDIDATES = 16
"""Circuits that are drawn at most for one target."""
_GRID = 1e6  # points of a unit on which amplitudes are compared
_PIVOT = 0.4321  # of the root mean square amplitude: the first above it fixes the phase; no gate set hits it


@njit(cache=True, error_model="numpy")
def apply(matrix: Array, qubit: int, control: int, state: Array) -> None:
    """Apply a one-qubit gate (``[2, 2]``) to a state (``[D]``), where the control bit is 1 if there is one."""
    a, b, c, d = matrix[0, 0], matrix[0, 1], matrix[1, 0], matrix[1, 1]
    for half in range(state.shape[0] // 2):
        low = half & (qubit - 1)
        i = ((half - low) << 1) | low  # the indices whose bit of the qubit is 0
        if (i & control) == control:
            j = i | qubit
            zero, one = state[i], state[j]
            state[i] = a * zero + b * one
            state[j] = c * zero + d * one


@njit(cache=True, error_model="numpy")
def _flip(pauli: int, qubit: int, state: Array) -> None:
    """Apply X (0), Y (1) or Z (2)."""
    for half in range(state.shape[0] // 2):
        low = half & (qubit - 1)
        i = ((half - low) << 1) | low
        j = i | qubit
        if pauli == 2:
            state[j] = -state[j]
        elif pauli == 0:
            state[i], state[j] = state[j], state[i]
        else:
            state[i], state[j] = -1j * state[j], 1j * state[i]


@njit(cache=True, error_model="numpy")
def overlap(target: Array, state: Array) -> float:
    """Return the fidelity of two pure states, |<target|state>|^2, at most 1."""
    real, imag = 0.0, 0.0
    for i in range(state.shape[0]):
        product = target[i].conjugate() * state[i]
        real += product.real
        imag += product.imag
    return min(real * real + imag * imag, 1.0)


@njit(cache=True, error_model="numpy")
def _zero(state: Array) -> None:
    state[:] = 0
    state[0] = 1


@njit(cache=True, error_model="numpy")
def _draw_circuit(seed: int, episode: int, rules: QubitControlRules, start: Array, target: Array) -> None:
    """Write the first of some random circuits' states that is not solved already."""
    matrix, qubit, control = rules.gates
    for candidate in range(CANDIDATES):
        _zero(target)
        for k in range(rules.depth):
            gate = below(matrix.shape[0], candidate * rules.depth + k, 0, episode, CIRCUIT, seed)
            apply(matrix[gate], qubit[gate], control[gate], target)
        if overlap(target, start) < rules.success:
            return


@njit(cache=True, error_model="numpy")
def _draw_haar(seed: int, episode: int, target: Array) -> None:
    """Write a normalised vector of independent complex normals: uniform over all states."""
    total = 0.0
    for block in range(target.shape[0] // 2):
        n0, n1, n2, n3 = normals(block, 0, episode, HAAR, seed)
        target[2 * block] = complex(n0, n1)
        target[2 * block + 1] = complex(n2, n3)
        for value in (n0, n1, n2, n3):
            total += float(value) * float(value)
    if total == 0:  # as good as impossible
        _zero(target)
    else:
        target /= np.sqrt(total)


@njit(cache=True, error_model="numpy")
def reset(mask: Array, state: QubitControlState, rules: QubitControlRules) -> None:
    """Start at |0...0> where ``mask`` (bool ``[E]``) is true and draw the target, unless it is fixed."""
    for e in range(mask.shape[0]):
        if not mask[e]:
            continue
        amplitude, target = state.amplitude[e], state.target[e]
        _zero(amplitude)
        if rules.kind == CIRCUIT_TARGET:
            _draw_circuit(state.seed[e], state.episode[e], rules, amplitude, target)
        elif rules.kind == HAAR_TARGET:
            _draw_haar(state.seed[e], state.episode[e], target)
        state.fidelity[e] = overlap(target, amplitude)
        state.best[e] = state.fidelity[e]
        state.reached[e] = -1
        state.noise_events[e] = 0
        state.last_gate[e] = -1
        state.returns[e] = 0


@njit(cache=True, error_model="numpy")
def step(
    actions: Array,
    state: QubitControlState,
    rules: QubitControlRules,
    rewards: Array,
    terminated: Array,
    truncated: Array,
) -> None:
    """Apply a gate in every environment.

    Args:
        actions: Gates, int64 ``[E, 1]``.
        state: Is advanced.
        rules: What holds.
        rewards: Float32 ``[E, 1]``, is written.
        terminated: Bool ``[E, 1]``, is written.
        truncated: Bool ``[E, 1]``, is written.
    """
    seed, episode, steps, running = state.seed, state.episode, state.step, state.running
    amplitude, target, fidelity, best = state.amplitude, state.target, state.fidelity, state.best
    matrix, qubit, control = rules.gates
    noise = rules.noise
    for e in range(actions.shape[0]):
        gate = actions[e, 0]
        steps[e] += 1
        state.last_gate[e] = gate
        apply(matrix[gate], qubit[gate], control[gate], amplitude[e])
        if noise > 0:
            # the control comes first, then the qubit; lanes 2 k and 2 k + 1 are of the k-th
            first = 0
            for touched in (control[gate], qubit[gate]):
                if touched == 0:
                    continue
                if uniform(first, steps[e], episode[e], NOISE, seed[e]) < noise:
                    pauli = below(3, first + 1, steps[e], episode[e], NOISE, seed[e])
                    _flip(pauli, touched, amplitude[e])
                    state.noise_events[e] += 1
                first += 2
        now = overlap(target[e], amplitude[e])
        reward = (now - fidelity[e] if rules.gain else now) - rules.cost
        fidelity[e] = now
        best[e] = max(best[e], now)
        done = now >= rules.success
        over = steps[e] >= rules.max_steps
        if done:
            state.reached[e] = steps[e]
        running[e] = not (done or over)
        rewards[e, 0] = reward
        state.returns[e] += reward
        terminated[e, 0] = done
        truncated[e, 0] = over and not done


@njit(cache=True, error_model="numpy", forceinline=True)
def _within(value: float) -> np.float32:
    """Return a number that may exceed 1 by rounding, within [-1, 1]."""
    return np.float32(min(max(value, -1.0), 1.0))


@njit(cache=True, error_model="numpy")
def write_amplitudes(state: Array, out: Array) -> None:
    """Write real parts, then imaginary parts of the states (``[E, D]``) to ``out``, ``[E, 2 D]``."""
    size = state.shape[1]
    for e in range(state.shape[0]):
        for i in range(size):
            out[e, i] = _within(state[e, i].real)
            out[e, size + i] = _within(state[e, i].imag)


@njit(cache=True, error_model="numpy")
def write_paulis(state: Array, place: Array, turn: Array, out: Array) -> None:
    """Write the expectations of Pauli strings in the states (``[E, D]``) to ``out``, ``[E, D**2 - 1]``.

    For strings with the same flips they are the Walsh-Hadamard transform of one vector; see `pauli_tables`.
    """
    size = state.shape[1]
    terms = np.empty(size, np.complex128)
    for e in range(state.shape[0]):
        for flip in range(size):
            for j in range(size):
                terms[j] = state[e, j ^ flip].conjugate() * state[e, j]
            half = 1
            while half < size:
                for i in range(size):
                    if not i & half:
                        first, second = terms[i], terms[i | half]
                        terms[i], terms[i | half] = first + second, first - second
                half <<= 1
            for sign in range(size):
                if place[flip, sign] < 0:
                    continue
                quarter = turn[flip, sign]  # the real part of i**quarter times the term
                value = terms[sign].imag if quarter & 1 else terms[sign].real
                if quarter == 1 or quarter == 2:
                    value = -value
                out[e, place[flip, sign]] = _within(value)


@njit(cache=True, error_model="numpy")
def expand(states: Array, gate_set: GateSet, target: Array, factors: Array) -> tuple[Array, Array]:
    """Apply every gate to every state (``[F, D]``).

    Args:
        states: Where to start.
        gate_set: The gates.
        target: State, ``[D]``.
        factors: Odd random numbers for the keys, uint64 ``[2 D]``.

    Returns:
        Fidelities with the target, float64 ``[F A]``, and keys, uint64 ``[F A]``, gates fastest. States that differ
        by a global phase only have one key; others differ in it, but for chances of about 2**-64.
    """
    matrix, qubit, control = gate_set
    gates, size = matrix.shape[0], states.shape[1]
    fidelity = np.empty(states.shape[0] * gates)
    keys = np.empty(states.shape[0] * gates, np.uint64)
    child = np.empty(size, np.complex128)
    for row in range(states.shape[0]):
        for gate in range(gates):
            child[:] = states[row]
            apply(matrix[gate], qubit[gate], control[gate], child)
            fidelity[row * gates + gate] = overlap(target, child)
            keys[row * gates + gate] = _key(child, factors)
    return fidelity, keys


@njit(cache=True, error_model="numpy")
def _key(state: Array, factors: Array) -> np.uint64:
    size = state.shape[0]
    pivot = 0
    while abs(state[pivot]) * np.sqrt(size) < _PIVOT:
        pivot += 1
    turn = state[pivot].conjugate() / abs(state[pivot])
    key = np.uint64(0)
    for i in range(size):
        value = state[i] * turn
        key += np.uint64(np.int64(np.floor(value.real * _GRID + 0.5))) * factors[2 * i]
        key += np.uint64(np.int64(np.floor(value.imag * _GRID + 0.5))) * factors[2 * i + 1]
    return key


@njit(cache=True, error_model="numpy")
def children(states: Array, rows: Array, gates: Array, gate_set: GateSet) -> Array:
    """Return the states that the gates (``[K]``) make of the rows (``[K]``) of ``states``, ``[K, D]``."""
    matrix, qubit, control = gate_set
    out = np.empty((rows.shape[0], states.shape[1]), np.complex128)
    for k in range(rows.shape[0]):
        out[k] = states[rows[k]]
        apply(matrix[gates[k]], qubit[gates[k]], control[gates[k]], out[k])
    return out

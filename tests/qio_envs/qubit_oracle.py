"""Qubit control once more, one environment, with matrices of the whole state: what the kernels are compared with.

Written from the documentation of `QubitControl` alone: every gate is a Kronecker product, a CNOT a sum of two.
"""

import functools
from itertools import product
from math import cos, log, pi, sin, sqrt

import numpy as np
from forest_oracle import philox

CIRCUIT, HAAR, NOISE = range(3)
PAULI = {
    "I": np.eye(2),
    "X": np.array([[0, 1], [1, 0]]),
    "Y": np.array([[0, -1j], [1j, 0]]),
    "Z": np.diag([1, -1]),
}
FIXED = {
    "H": (PAULI["X"] + PAULI["Z"]) / sqrt(2),
    "S": np.diag([1, 1j]),
    "T": np.diag([1, np.exp(1j * pi / 4)]),
    "X": PAULI["X"],
    "Z": PAULI["Z"],
}
SETS = {"clifford": "HSXZ", "clifford_t": "HST", "published": "HX"}

block = functools.lru_cache(64)(philox)


def on(qubits, parts):
    """The operator with ``parts[q]`` on qubit q and nothing on the others; qubit 0 comes first in the product."""
    return functools.reduce(np.kron, [parts.get(q, PAULI["I"]) for q in range(qubits)])


def cnot(qubits, control, target):
    zero, one = np.diag([1, 0]), np.diag([0, 1])
    return on(qubits, {control: zero}) + on(qubits, {control: one, target: PAULI["X"]})


@functools.cache
def gates_of(kind, qubits):
    """The gates in order: (name, matrix, qubits that are touched)."""
    gates = []
    for q in range(qubits):
        if kind == "rotations":
            for axis, (sign, turn) in product("XYZ", (("+", pi / 8), ("-", -pi / 8))):
                matrix = cos(turn / 2) * PAULI["I"] - 1j * sin(turn / 2) * PAULI[axis]
                gates.append((f"R{axis}({sign}pi/8,{q})", on(qubits, {q: matrix}), (q,)))
        else:
            gates += [(f"{name}({q})", on(qubits, {q: FIXED[name]}), (q,)) for name in SETS[kind]]
        if kind == "published":
            for axis in "YZ":
                matrix = cos(pi / 8) * PAULI["I"] - 1j * sin(pi / 8) * PAULI[axis]
                gates.append((f"R{axis}(+pi/4,{q})", on(qubits, {q: matrix}), (q,)))
    if kind == "published":
        return gates
    for c, t in product(range(qubits), repeat=2):
        if c != t:
            gates.append((f"CNOT({c},{t})", cnot(qubits, c, t), (c, t)))
    return gates


def strings(qubits):
    return ["".join(letters) for letters in product("IXYZ", repeat=qubits)][1:]


@functools.cache
def pauli_matrices(qubits):
    return np.array([on(qubits, {q: PAULI[a] for q, a in enumerate(name)}) for name in strings(qubits)])


class QubitOracle:
    def __init__(self, config, seed, episode=0):
        self.c, self.seed, self.episode = config, seed, episode
        self.size = 2**config.num_qubits
        self.gates = gates_of(config.gates, config.num_qubits)
        self.zero = np.eye(self.size, dtype=complex)[0]
        self.state, self.target = self.zero, self.draw_target()
        self.t, self.events, self.total, self.reached = 0, 0, 0.0, -1
        self.best = self.fidelity()

    def word(self, lane, step, stream):
        counter = (lane // 4, step, self.episode, stream)
        return block(counter, (self.seed & 0xFFFFFFFF, self.seed >> 32))[lane % 4]

    def normal(self, lane):
        first, second = (self.word(lane // 2 * 2 + k, 0, HAAR) for k in (0, 1))
        radius = sqrt(-2 * log(((first >> 8) + 1) / 2**24))
        return radius * (cos, sin)[lane % 2](2 * pi * (second >> 6) / 2**26 - pi / 4)

    def draw_target(self):
        c = self.c
        if c.target == "uniform":
            return np.ones(self.size) / sqrt(self.size)
        if c.target in ("bell", "ghz"):
            ends = np.eye(self.size)
            return (ends[0] + ends[-1]) / sqrt(2)
        if c.target == "haar":
            draws = np.array([self.normal(lane) for lane in range(2 * self.size)]).reshape(-1, 2)
            vector = draws[:, 0] + 1j * draws[:, 1]
            return vector / np.linalg.norm(vector)
        for candidate in range(16):
            state = self.zero
            for k in range(c.target_depth):
                word = self.word(candidate * c.target_depth + k, 0, CIRCUIT)
                state = self.gates[word * len(self.gates) >> 32][1] @ state
            if abs(state[0]) ** 2 < c.success_fidelity - 1e-9:
                break
        return state

    def fidelity(self):
        return abs(np.vdot(self.target, self.state)) ** 2

    def step(self, action):
        """Return reward, terminated and truncated."""
        c, before = self.c, self.fidelity()
        self.t += 1
        _, matrix, touched = self.gates[action]
        self.state = matrix @ self.state
        for k, qubit in enumerate(touched):
            if (self.word(2 * k, self.t, NOISE) >> 8) / 2**24 < c.gate_noise:
                pauli = "XYZ"[self.word(2 * k + 1, self.t, NOISE) * 3 >> 32]
                self.state = on(c.num_qubits, {qubit: PAULI[pauli]}) @ self.state
                self.events += 1
        after = self.fidelity()
        reward = after - (before if c.reward == "gain" else 0) - c.gate_cost
        self.total += reward
        self.best = max(self.best, after)
        done = bool(after >= c.success_fidelity - 1e-9)
        if done:
            self.reached = self.t
        return reward, done, self.t >= c.max_steps and not done

    def left(self):
        return 1 - self.t / self.c.max_steps

    def observe(self):
        states = [self.state, self.target] if self.c.target in ("circuit", "haar") else [self.state]
        parts = []
        for state in states:
            if self.c.observation == "tomography":
                parts.append(
                    np.einsum("i,pij,j->p", state.conj(), pauli_matrices(self.c.num_qubits), state).real
                )
            else:
                parts += [state.real, state.imag]
        return np.concatenate([*parts, [self.left()]])

    def central(self):
        return np.concatenate(
            [self.state.real, self.state.imag, self.target.real, self.target.imag, [self.left()]]
        )

    def info(self):
        return {
            "team_return": self.total,
            "fidelity": self.fidelity(),
            "best_fidelity": self.best,
            "gates": self.t,
            "noise_events": self.events,
            "success": float(self.reached > 0),
            "steps_to_success": self.reached,
        }

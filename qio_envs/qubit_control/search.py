"""Search for the fewest gates to a target."""

from __future__ import annotations

import functools
from typing import NamedTuple

import numpy as np

from qio_envs.api import Array
from qio_envs.qubit_control import kernels
from qio_envs.qubit_control.config import QubitControlConfig
from qio_envs.qubit_control.gates import GateSet, zero_state
from qio_envs.qubit_control.state import TOLERANCE

_MAX_AMPLITUDES = 2**20  # of all states that `optimal_gates` visits
_BEAM = 500  # states of a level that a search follows where it goes on beyond its limit
_DIGITS = 9  # fidelities that differ by less are equal


class Plan(NamedTuple):
    """What a search found."""

    gates: tuple[int, ...]  # actions, in order
    found: bool  # whether they lead to the target
    shortest: bool  # whether fewer gates certainly do not


def optimal_gates(config: QubitControlConfig, target: Array) -> tuple[int, ...] | None:
    """Return the shortest sequence of actions from |0...0> to a target without noise, known by search.

    The search is breadth first over the states that the gates reach, those equal up to a global phase taken as one.
    Of sequences of the same length it returns one that ends with the highest fidelity.

    Args:
        config: The gates, the fidelity that counts as success, and ``max_steps``, the most gates allowed.
        target: State, complex ``[2**num_qubits]``, qubit 0 the most significant bit; of length 1.

    Returns:
        At least one action, for an episode ends after a gate only; None if the search does not find the target
        within ``max_steps`` gates and ``2**(20 - num_qubits)`` states.

    Raises:
        ValueError: The target has another shape or length.
    """
    size = 2**config.num_qubits
    target = np.asarray(target, np.complex128)
    if target.shape != (size,):
        raise ValueError(f"target: expected shape ({size},), got {target.shape}")
    norm = float(np.linalg.norm(target))
    if not abs(norm - 1) < 1e-6:
        raise ValueError(f"target: expected a state of length 1, got length {norm:g}")
    start = zero_state(config.num_qubits)
    plan = search(config, start, target, config.max_steps, _MAX_AMPLITUDES // size, beam=False)
    return plan.gates if plan.found else None


@functools.lru_cache(maxsize=64)
def fewest_gates(config: QubitControlConfig, target: bytes) -> int:
    """Return the length of `optimal_gates` for a target's bytes, -1 if the search does not find it."""
    gates = optimal_gates(config, np.frombuffer(target, np.complex128))
    return -1 if gates is None else len(gates)


def search(
    config: QubitControlConfig, start: Array, target: Array, max_gates: int, max_states: int, beam: bool
) -> Plan:
    """Look for a shortest sequence of gates.

    Args:
        config: The gates and the fidelity that counts as success.
        start: State, complex128 ``[D]``.
        target: State, complex128 ``[D]``.
        max_gates: Longest sequence, at least 1.
        max_states: States that are visited breadth first.
        beam: Whether to go on, once the states are too many, with those of each level that are nearest the target.

    Returns:
        The plan; where the target is not found, that to the state of the highest fidelity found (if that is the
        start, the one gate that loses least).
    """
    gate_set, factors = _tables(config)
    count = len(gate_set.matrix)
    success = config.success_fidelity - TOLERANCE
    states, exact = start[None], True
    # the start need not be kept from being visited again: its children are one level late and harmless
    visited = np.empty(0, np.uint64)
    parents: list[Array] = []  # of each level, the row in the level before
    moves: list[Array] = []  # and the gate
    best_value, best_place = -1.0, (0, 0)
    start_value = round(kernels.overlap(target, start), _DIGITS)
    for level in range(max_gates):
        with np.errstate(over="ignore"):  # keys are modulo 2**64; without a compiler NumPy would warn
            fidelity, keys = kernels.expand(states, gate_set, target, factors)
        _, new = np.unique(keys, return_index=True)
        new.sort()
        new = new[~np.isin(keys[new], visited)]
        if not len(new):
            break
        values = np.round(fidelity[new], _DIGITS)
        first = int(values.argmax())
        solved = fidelity[new[first]] >= success
        if not solved and len(visited) + len(new) > max_states:
            if not beam:
                return Plan((), False, False)
            exact = False
            kept = np.sort(np.argsort(-values, kind="stable")[:_BEAM])
            new, values = new[kept], values[kept]
            first = int(values.argmax())
        parents.append(new // count)
        moves.append(new % count)
        if level == 0 or values[first] > max(best_value, start_value):
            best_value, best_place = float(values[first]), (level, first)
        if solved:
            return Plan(_trace(parents, moves, level, first), True, exact)
        visited = np.concatenate([visited, keys[new]])
        states = kernels.children(states, parents[-1], moves[-1], gate_set)
    return Plan(_trace(parents, moves, *best_place), False, False)


def _trace(parents: list[Array], moves: list[Array], level: int, row: int) -> tuple[int, ...]:
    """Return the gates that lead to a row of a level."""
    gates = []
    for back in range(level, -1, -1):
        gates.append(int(moves[back][row]))
        row = int(parents[back][row])
    return tuple(reversed(gates))


@functools.lru_cache(maxsize=64)
def _tables(config: QubitControlConfig) -> tuple[GateSet, Array]:
    """Return the gates, and factors for the keys of states."""
    numbers = np.random.default_rng(0).integers(0, 2**63, 2 * 2**config.num_qubits, dtype=np.uint64)
    return GateSet.of(config), numbers * np.uint64(2) + np.uint64(1)

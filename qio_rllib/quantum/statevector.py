"""State vectors in torch: a circuit compiled to a few large array operations.

Every gate with an angle is a diagonal one between two fixed changes of basis. Angles that differ from row to row
(features) therefore become one phase per amplitude, ``exp(-i angles @ M)``, however many gates they belong to; angles
that all rows share (weights) become matrices on groups of qubits, each the product of all the gates between two
entangling ones, and are applied by one matrix product; gates that move amplitudes about (CNOT, SWAP) are one gather.
What is left per layer is a handful of torch operations that autograd follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qio_rllib.quantum.gates import ROTATIONS, Array, Rotation
from qio_rllib.quantum.operations import Angle, Operation

_GROUP = 6
"""Qubits whose gates are multiplied out to one matrix: of 64 x 64 numbers at most."""

_ROOT = math.sqrt(2)
"""Moved from one change of basis to the other, so that both hold 1 and 1/2 only, which complex64 does not round."""


@dataclass
class _Factor:
    """The matrix ``constant + cos(m a) even + sin(m a) odd`` of one qubit, for the weight ``a``."""

    index: int
    rate: float  # m, the angle's scale included
    constant: Array
    even: Array
    odd: Array

    @classmethod
    def of(cls, rotation: Rotation, angle: Angle) -> _Factor:
        (basis,), parts = rotation.basis, np.zeros((3, 2, 2), np.complex128)
        rate = float(np.abs(rotation.diagonal).max())
        for column, eigenvalue in zip(basis.T, rotation.diagonal, strict=True):
            projector = np.outer(column, column.conj())
            if eigenvalue == 0:
                parts[0] += projector
            else:
                parts[1] += projector
                parts[2] += -1j * np.sign(eigenvalue) * projector
        return cls(angle.index, rate * angle.scale, *parts)

    def times(self, left: Array | None = None, right: Array | None = None) -> _Factor:
        parts = [self.constant, self.even, self.odd]
        if left is not None:
            parts = [left @ part for part in parts]
        if right is not None:
            parts = [part @ right for part in parts]
        return _Factor(self.index, self.rate, *parts)


@dataclass
class _Local:
    """Gates on single qubits, in order for each: constants and factors."""

    gates: dict[int, list[Array | _Factor]] = field(default_factory=dict)

    def add(self, qubit: int, gate: Array | _Factor) -> None:
        line = self.gates.setdefault(qubit, [])
        if isinstance(gate, np.ndarray):
            if line and isinstance(line[-1], np.ndarray):
                line[-1] = gate @ line[-1]
            elif line:
                line[-1] = line[-1].times(left=gate)  # type: ignore[union-attr]
            else:
                line.append(gate)
        elif line and isinstance(line[-1], np.ndarray):
            line[-1] = gate.times(right=line[-1])
        else:
            line.append(gate)

    def factors(self, qubit: int) -> list[_Factor]:
        found = []
        for gate in self.gates.get(qubit, [np.eye(2, dtype=np.complex128)]):
            zero = np.zeros((2, 2), np.complex128)
            found.append(gate if isinstance(gate, _Factor) else _Factor(0, 0.0, gate, zero, zero))
        return found


@dataclass
class _Moves:
    """``new[i] = phase[i] old[source[i]]``."""

    source: Array
    phase: Array


@dataclass
class _Phases:
    """``new[i] = exp(-i angles @ rows)[i] old[i]``; rows by (kind of angle, its index)."""

    rows: dict[tuple[str, int], Array] = field(default_factory=dict)


@dataclass
class _Dense:
    """A fixed matrix on some qubits."""

    matrix: Array
    qubits: tuple[int, ...]


_Step = _Local | _Moves | _Phases | _Dense


def compile_plan(num_qubits: int, operations: Sequence[Operation], batched: bool) -> Plan:
    """Order a circuit's gates into steps.

    Args:
        num_qubits: ``n``.
        operations: The gates.
        batched: Whether weights differ from row to row; they are then treated as features are.
    """
    builder = _Builder(num_qubits)
    for operation in operations:
        matrix = operation.fixed_matrix()
        if matrix is not None:
            builder.fixed(matrix, operation.qubits)
            continue
        rotation, angle = ROTATIONS[operation.name], operation.angle
        if len(operation.qubits) == 1 and angle.source == "weight" and not batched:  # type: ignore[union-attr]
            builder.local(operation.qubits[0], _Factor.of(rotation, angle))  # type: ignore[arg-type]
        else:
            builder.rotation(rotation, angle, operation.qubits)  # type: ignore[arg-type]
    return Plan(num_qubits, builder.steps)


class _Builder:
    """Puts each gate into the earliest step of its kind that it commutes back to."""

    def __init__(self, num_qubits: int) -> None:
        self.num_qubits = num_qubits
        self.steps: list[_Step] = []
        self.last = [0] * num_qubits  # the step that touched a qubit last

    def fixed(self, matrix: Array, qubits: tuple[int, ...]) -> None:
        if len(qubits) == 1:
            self.local(qubits[0], matrix)
            return
        nonzero = np.abs(matrix) > 0
        if (nonzero.sum(axis=0) == 1).all() and (nonzero.sum(axis=1) == 1).all():
            step = self._step(_Moves, qubits, self._identity)
            source, phase = self._moves(matrix, nonzero, qubits)
            # first the step as it is, then this gate
            step.phase, step.source = phase * step.phase[source], step.source[source]
        else:
            self.steps.append(_Dense(matrix, qubits))
            self._touch(qubits, len(self.steps) - 1)

    def local(self, qubit: int, gate: Array | _Factor) -> None:
        self._step(_Local, (qubit,), _Local).add(qubit, gate)

    def rotation(self, rotation: Rotation, angle: Angle, qubits: tuple[int, ...]) -> None:
        for qubit, basis in zip(qubits, rotation.basis, strict=True):
            if not _is_identity(basis):
                self.local(qubit, basis.conj().T / _ROOT)
        step = self._step(_Phases, qubits, _Phases)
        row = angle.scale * rotation.diagonal[self._values(qubits)]
        key = (angle.source, angle.index)
        step.rows[key] = step.rows.get(key, 0.0) + row
        for qubit, basis in zip(qubits, rotation.basis, strict=True):
            if not _is_identity(basis):
                self.local(qubit, basis * _ROOT)

    def _step(self, kind: Any, qubits: tuple[int, ...], make: Any) -> Any:
        first = max(self.last[qubit] for qubit in qubits)
        for index in range(first, len(self.steps)):
            if isinstance(self.steps[index], kind):
                self._touch(qubits, index)
                return self.steps[index]
        self.steps.append(make())
        self._touch(qubits, len(self.steps) - 1)
        return self.steps[-1]

    def _touch(self, qubits: tuple[int, ...], index: int) -> None:
        for qubit in qubits:
            self.last[qubit] = index

    def _identity(self) -> _Moves:
        size = 2**self.num_qubits
        return _Moves(np.arange(size), np.ones(size, np.complex128))

    def _values(self, qubits: tuple[int, ...]) -> Array:
        """Return what some qubits read in each basis state, int64 ``[2**n]``."""
        index = np.arange(2**self.num_qubits)
        value = np.zeros_like(index)
        for qubit in qubits:
            value = 2 * value + ((index >> (self.num_qubits - 1 - qubit)) & 1)
        return value

    def _moves(self, matrix: Array, nonzero: Array, qubits: tuple[int, ...]) -> tuple[Array, Array]:
        column_of = nonzero.argmax(axis=1)
        old, index = self._values(qubits), np.arange(2**self.num_qubits)
        new = column_of[old]
        source = index
        for place, qubit in enumerate(reversed(qubits)):
            flipped = ((old ^ new) >> place) & 1
            source = source ^ (flipped << (self.num_qubits - 1 - qubit))
        return source, matrix[old, new]


class Plan:
    """A compiled circuit.

    Args:
        num_qubits: ``n``.
        steps: In order.
    """

    def __init__(self, num_qubits: int, steps: Sequence[_Step]) -> None:
        self.num_qubits = num_qubits
        self.steps = list(steps)
        groups = math.ceil(num_qubits / _GROUP)
        self.groups = [part.tolist() for part in np.array_split(np.arange(num_qubits), groups)]
        self._locals = [step for step in self.steps if isinstance(step, _Local)]
        self._constants: dict[tuple[torch.dtype, torch.device], dict[str, Any]] = {}

    def run(
        self,
        weights: Tensor | None,
        features: Tensor | None,
        initial: Tensor | None,
        dtype: torch.dtype,
        device: torch.device,
    ) -> Tensor:
        """Return the final state, ``[B, 2**n]`` or ``[1, 2**n]``.

        Args:
            weights: ``[W]`` or ``[B, W]``.
            features: ``[F]`` or ``[B, F]``.
            initial: ``[2**n]`` or ``[B, 2**n]``; None for |0...0>.
            dtype: complex64 or complex128.
            device: Where to.
        """
        constants = self._on(dtype, device)
        state = constants["ground"] if initial is None else torch.atleast_2d(initial)
        matrices = self._local_matrices(weights, constants) if self._locals else []
        index, local = 0, 0
        while index < len(self.steps):
            step, held = self.steps[index], constants["steps"][index]
            if isinstance(step, _Local):
                mine = matrices[local]
                local += 1
                after = self.steps[index + 1] if index + 1 < len(self.steps) else None
                if len(mine) == 1 and isinstance(after, _Moves):
                    index += 1  # of the matrix rather than of the states
                    mine = [_gather(mine[0], *constants["steps"][index])]
                state = _apply_local(state, mine)
            elif isinstance(step, _Moves):
                state = _gather(state, *held)
            elif isinstance(step, _Phases):
                state = state * _phases(weights, features, held)
            else:
                state = _apply_dense(state, held, step.qubits, self.num_qubits)
            index += 1
        return state

    def _on(self, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        """Return the constants as tensors, made once."""
        key = (dtype, device)
        if key not in self._constants:
            with torch.inference_mode(
                False
            ):  # what is made in inference mode could not be learned through later
                self._constants[key] = self._made(dtype, device)
        return self._constants[key]

    def _made(self, dtype: torch.dtype, device: torch.device) -> dict[str, Any]:
        real = torch.float64 if dtype == torch.complex128 else torch.float32
        ground = np.zeros((1, 2**self.num_qubits))
        ground[0, 0] = 1

        def tensor(values: Array, kind: torch.dtype = dtype) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(values)).to(device=device, dtype=kind)

        steps: list[Any] = []
        for step in self.steps:
            held: Any = None
            if isinstance(step, _Moves):
                plain = np.array_equal(step.phase, np.ones_like(step.phase))
                held = (
                    tensor(step.source, torch.int64),
                    None if plain else tensor(step.phase),
                )
            elif isinstance(step, _Phases):
                held = []
                for source in ("weight", "feature"):
                    keys = sorted(key for key in step.rows if key[0] == source)
                    if keys:
                        rows = tensor(np.stack([-step.rows[key] for key in keys]), real)
                        indices = torch.tensor([index for _, index in keys], device=device)
                        held.append((source, indices, rows))
            elif isinstance(step, _Dense):
                held = tensor(step.matrix)
            steps.append(held)
        constants: dict[str, Any] = {"ground": tensor(ground), "steps": steps}
        if self._locals:
            constants["factors"] = self._factor_constants(tensor, real)
            if constants["factors"]["even"] is None:
                constants["matrices"] = self._multiplied(constants["factors"]["constant"])
        return constants

    def _factor_constants(self, tensor: Any, real: torch.dtype) -> dict[str, Any]:
        """Return the factors of all single-qubit gates, padded to as many per qubit and step: ``[K, S, n, 2, 2]``."""
        lines = [[step.factors(qubit) for qubit in range(self.num_qubits)] for step in self._locals]
        most = max(len(line) for step in lines for line in step)
        zero = np.zeros((2, 2), np.complex128)
        neutral = _Factor(0, 0.0, np.eye(2, dtype=np.complex128), zero, zero)
        padded = [[[(line + [neutral] * most)[k] for line in step] for step in lines] for k in range(most)]

        def gathered(name: str) -> Array:
            return np.array([[[getattr(f, name) for f in line] for line in step] for step in padded])

        rate = gathered("rate")
        moving = rate.any() or gathered("even").any()  # a scale of 0 leaves an angle of 0
        return {
            "constant": tensor(gathered("constant")),
            "even": tensor(gathered("even")) if moving else None,
            "odd": tensor(gathered("odd")) if moving else None,
            "rate": tensor(rate, real),
            "index": tensor(gathered("index"), torch.int64),
        }

    def _local_matrices(self, weights: Tensor | None, constants: dict[str, Any]) -> list[list[Tensor]]:
        """Return for each step of single-qubit gates the matrices of its groups of qubits, transposed."""
        if "matrices" in constants:  # there are no weights in them
            return constants["matrices"]
        held = constants["factors"]
        assert weights is not None
        angles = weights[held["index"]] * held["rate"]
        cosine, sine = torch.cos(angles)[..., None, None], torch.sin(angles)[..., None, None]
        return self._multiplied(held["constant"] + cosine * held["even"] + sine * held["odd"])

    def _multiplied(self, factors: Tensor) -> list[list[Tensor]]:
        matrices = factors[0]
        for later in factors[1:]:
            matrices = later @ matrices
        matrices = matrices.mT  # of a Kronecker product the transpose is that of the factors
        steps = len(self._locals)
        by_group = []
        for group in self.groups:
            product = matrices[:, group[0]]
            for qubit in group[1:]:
                size = 2 * product.shape[-1]
                product = product[:, :, None, :, None] * matrices[:, qubit][:, None, :, None, :]
                product = product.reshape(steps, size, size)
            by_group.append(product.unbind(0))
        return [list(step) for step in zip(*by_group, strict=True)]


def _apply_local(state: Tensor, transposed: list[Tensor]) -> Tensor:
    """Apply a matrix to each group of qubits; ``transposed`` holds their transposes."""
    if len(transposed) == 1:
        return state @ transposed[0]
    rows, size = state.shape
    for matrix in reversed(transposed):
        width = len(matrix)
        # the last group's axis goes to the front, so that after all groups the order is as before
        state = (state.reshape(rows, size // width, width) @ matrix).mT.reshape(rows, size)
    return state


def _phases(weights: Tensor | None, features: Tensor | None, held: Any) -> Tensor:
    exponent: Any = 0.0
    for source, index, rows in held:
        angles = weights if source == "weight" else features
        assert angles is not None
        if angles.shape[-1] > len(index):
            angles = angles.index_select(-1, index)
        exponent = exponent + angles @ rows
    return torch.complex(torch.cos(exponent), torch.sin(exponent))


def _apply_dense(state: Tensor, matrix: Tensor, qubits: tuple[int, ...], num_qubits: int) -> Tensor:
    axes = [1 + qubit for qubit in qubits]
    ends = list(range(num_qubits + 1 - len(qubits), num_qubits + 1))
    moved = state.reshape(-1, *(2,) * num_qubits).movedim(axes, ends)
    done = (moved.reshape(-1, len(matrix)) @ matrix.mT).reshape(moved.shape)
    return done.movedim(ends, axes).reshape(state.shape)


def _gather(state: Tensor, source: Tensor, phase: Tensor | None) -> Tensor:
    moved = state.gather(-1, source.expand(state.shape[0], -1))  # several times faster than index_select
    return moved if phase is None else moved * phase


def _is_identity(matrix: Array) -> bool:
    return bool(np.array_equal(matrix, np.eye(len(matrix))))

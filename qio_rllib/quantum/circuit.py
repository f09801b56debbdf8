"""Parameterised circuits: what is applied to which qubits, and from where angles come."""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor

from qio_rllib.quantum.gates import (
    FIXED,
    GATES,
    ROTATIONS,
    check_unitary,
    num_qubits_of,
    suggestion,
)
from qio_rllib.quantum.operations import UNITARY, Angle, Operation
from qio_rllib.quantum.statevector import Plan, compile_plan


class Circuit:
    """A circuit over ``n`` qubits; qubit 0 is the most significant bit of a basis state's index.

    ```python
    circuit = Circuit(2).add("H", 0).add("CNOT", 0, 1).add("RY", 1, angle=weight(0))
    state = circuit.state(weights=torch.tensor([0.3]))          # complex64 [4]
    ```

    Args:
        num_qubits: ``n``, at least 1.

    Raises:
        ValueError: ``num_qubits`` is no integer of at least 1, or one state vector does not fit into memory.
    """

    def __init__(self, num_qubits: int) -> None:
        if isinstance(num_qubits, bool) or not isinstance(num_qubits, int) or num_qubits < 1:
            raise ValueError(f"num_qubits: expected an integer of at least 1, got {num_qubits!r}")
        check_memory(num_qubits)
        self.num_qubits = num_qubits
        self._operations: list[Operation] = []
        self._plans: dict[bool, Plan] = {}

    @property
    def operations(self) -> tuple[Operation, ...]:
        """The gates in order."""
        return tuple(self._operations)

    @property
    def num_weights(self) -> int:
        """Number of trainable weights ``W``: one more than the largest index."""
        return self._count("weight")

    @property
    def num_features(self) -> int:
        """Number of input features ``F``: one more than the largest index."""
        return self._count("feature")

    def add(self, name: str, *qubits: int, angle: float | Angle | None = None) -> Self:
        """Append a gate and return the circuit.

        Args:
            name: One of `GATES`.
            qubits: On which it acts, the control first.
            angle: Radians, `weight` or `feature`, for the gates that take one.

        Raises:
            ValueError: An unknown gate, qubits out of range, repeated, or too many or few of them, or an angle that is
                missing, not wanted or not finite.
        """
        if name not in GATES:
            raise ValueError(f"gate: unknown {name!r}{suggestion(name, GATES)}")
        self._check_qubits(name, qubits, num_qubits_of(name))
        if name in FIXED and angle is not None:
            raise ValueError(f"angle: {name} takes none, got {angle!r}")
        if name in ROTATIONS and not isinstance(angle, Angle):
            if isinstance(angle, bool) or not isinstance(angle, int | float) or not math.isfinite(angle):
                raise ValueError(
                    f"angle: {name} needs a finite number, weight(i) or feature(i), got {angle!r}"
                )
            angle = float(angle)
        return self._append(Operation(name, tuple(map(int, qubits)), angle))

    def unitary(self, matrix: Any, *qubits: int) -> Self:
        """Append a gate of one's own and return the circuit.

        Args:
            matrix: Unitary to 1e-6, array or tensor ``[2**k, 2**k]``; a constant.
            qubits: ``k`` of them, the most significant first.

        Raises:
            ValueError: The matrix is not unitary or of another shape, or the qubits are out of range or repeated.
        """
        values = matrix.detach().cpu().numpy() if isinstance(matrix, Tensor) else matrix
        self._check_qubits(UNITARY, qubits, None)
        matrix = check_unitary(values, len(qubits))
        return self._append(Operation(UNITARY, tuple(map(int, qubits)), None, matrix))

    def extend(self, operations: Sequence[Operation]) -> Self:
        """Append operations of another circuit and return this one.

        Raises:
            ValueError: As in `add`.
        """
        for operation in operations:
            if operation.matrix is not None:
                self.unitary(operation.matrix, *operation.qubits)
            else:
                self.add(operation.name, *operation.qubits, angle=operation.angle)
        return self

    def state(
        self,
        weights: Tensor | None = None,
        features: Tensor | None = None,
        *,
        initial: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Run the circuit.

        Args:
            weights: float ``[W]``, or ``[..., W]`` for weights that differ from row to row.
            features: float ``[..., F]``.
            initial: State to start from, complex ``[2**n]`` or ``[..., 2**n]``; by default |0...0>. It is taken as it
                is: `amplitude_encoding` makes one of any vector.
            dtype: complex64 or complex128; by default what fits weights, features and ``initial``, or complex64.

        Returns:
            Amplitudes, complex ``[..., 2**n]``, with the batch axes of the arguments (broadcast); differentiable in all
            of them, to any order.

        Raises:
            ValueError: Arguments of the wrong shape or dtype, missing ones, or states that do not fit into memory.
        """
        dtype = complex_dtype(dtype, weights, features, initial)
        real = torch.float64 if dtype == torch.complex128 else torch.float32
        device = next((x.device for x in (weights, features, initial) if x is not None), torch.device("cpu"))
        angles: dict[str, Tensor | None] = {}
        for name, given, count in (
            ("weights", weights, self.num_weights),
            ("features", features, self.num_features),
        ):
            angles[name] = checked_angles(name, given, count, real)
        if initial is not None and (initial.ndim == 0 or initial.shape[-1] != 2**self.num_qubits):
            raise ValueError(
                f"initial: expected [..., {2**self.num_qubits}] amplitudes for {self.num_qubits} qubits, "
                f"got shape {tuple(initial.shape)}"
            )
        batches = [x.shape[:-1] for x in (*angles.values(), initial) if x is not None]
        try:
            batch = torch.broadcast_shapes(*batches) if batches else torch.Size()
        except RuntimeError:
            shapes = ", ".join(str(tuple(shape)) for shape in batches)
            raise ValueError(
                f"weights, features and initial: batch axes do not broadcast: {shapes}"
            ) from None
        if self.num_qubits > 16:  # smaller ones fit whatever the batch that fitted before them
            check_memory(self.num_qubits, math.prod(batch), dtype)
        rows = math.prod(batch)
        flat = {
            name: None if x is None or x.shape[-1] == 0 else x if x.ndim == 1 else _rows(x, batch, rows)
            for name, x in angles.items()
        }
        start = None
        if initial is not None:
            start = initial.to(dtype)
            if initial.ndim > 1:
                start = _rows(start, batch, rows)
        w = flat["weights"]
        state = self.plan(batched=w is not None and w.ndim > 1).run(w, flat["features"], start, dtype, device)
        return (
            state.expand(math.prod(batch), -1).reshape(*batch, state.shape[-1])
            if batch
            else state.reshape(-1)
        )

    def matrix(
        self,
        weights: Tensor | None = None,
        features: Tensor | None = None,
        dtype: torch.dtype | None = None,
    ) -> Tensor:
        """Return the circuit's unitary, complex ``[2**n, 2**n]``, for one row of weights and features.

        Raises:
            ValueError: As in `state`.
        """
        check_memory(self.num_qubits, 2**self.num_qubits)
        dtype = complex_dtype(dtype, weights, features, None)
        device = next((x.device for x in (weights, features) if x is not None), torch.device("cpu"))
        basis = torch.eye(2**self.num_qubits, dtype=dtype, device=device)
        return self.state(weights, features, initial=basis, dtype=dtype).mT

    def plan(self, batched: bool) -> Plan:
        """Return the compiled circuit.

        Args:
            batched: Whether weights differ from row to row.
        """
        if batched not in self._plans:
            self._plans[batched] = compile_plan(self.num_qubits, self._operations, batched)
        return self._plans[batched]

    def inverse(self) -> Circuit:
        """Return the circuit that undoes this one."""
        result = Circuit(self.num_qubits)
        for operation in reversed(self._operations):
            if operation.angle is not None:
                result._append(replace(operation, angle=-operation.angle))
            else:
                matrix = operation.fixed_matrix()
                assert matrix is not None
                name = _INVERSES.get(operation.name, operation.name)
                own = matrix.conj().T if operation.matrix is not None else None
                result._append(replace(operation, name=name, matrix=own))
        return result

    def __len__(self) -> int:
        return len(self._operations)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_plans": {}}

    def _append(self, operation: Operation) -> Self:
        self._operations.append(operation)
        self._plans = {}
        return self

    def _count(self, source: str) -> int:
        angles = [operation.angle for operation in self._operations]
        return max((a.index + 1 for a in angles if isinstance(a, Angle) and a.source == source), default=0)

    def _check_qubits(self, name: str, qubits: Sequence[int], wanted: int | None) -> None:
        if wanted is not None and len(qubits) != wanted:
            raise ValueError(f"qubits: {name} acts on {wanted}, got {len(qubits)}: {list(qubits)}")
        if not qubits:
            raise ValueError(f"qubits: {name} needs at least one")
        for qubit in qubits:
            whole = isinstance(qubit, int | np.integer) and not isinstance(qubit, bool)
            if not whole or not 0 <= qubit < self.num_qubits:
                raise ValueError(
                    f"qubits: {name} on {qubit!r} is out of range; allowed: 0 to {self.num_qubits - 1}"
                )
        if len(set(qubits)) != len(qubits):
            raise ValueError(f"qubits: {name} names a qubit twice: {list(qubits)}")


_INVERSES = {"S": "SDG", "SDG": "S", "T": "TDG", "TDG": "T"}


def check_memory(num_qubits: int, num_states: int = 1, dtype: torch.dtype = torch.complex64) -> None:
    """Refuse states that this machine's memory cannot hold.

    Raises:
        ValueError: The message says how many bytes they would take, and what is there.
    """
    # A step reads one state and writes another; tables of a compiled circuit take up to 64 bytes an amplitude.
    each = 2 * num_states * dtype.itemsize + 64
    wanted, present = each * 2**num_qubits, _memory()
    if wanted > present:
        what = "a state vector" if num_states == 1 else f"{num_states:,} state vectors"
        most = int(math.log2(max(present / each, 1)))
        raise ValueError(
            f"num_qubits: {what} of {num_qubits} qubits in {str(dtype).removeprefix('torch.')} would take "
            f"{wanted:,} bytes, this machine has {present:,}; at most {most} qubits fit"
        )


def _memory() -> int:
    """Return the bytes of memory that there are for this process."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    limit = Path("/sys/fs/cgroup/memory.max")
    try:
        return min(total, int(limit.read_text()))
    except (OSError, ValueError):  # no control group, or no limit in it ("max")
        return total


def _rows(x: Tensor, batch: torch.Size, rows: int) -> Tensor:
    return x.expand(*batch, x.shape[-1]).reshape(rows, x.shape[-1])


def complex_dtype(dtype: torch.dtype | None, *given: Tensor | None) -> torch.dtype:
    """Return the dtype of a state: as wanted, or the one that fits what is given.

    Raises:
        ValueError: Another dtype than complex64 and complex128 is wanted.
    """
    if dtype not in (None, torch.complex64, torch.complex128):
        raise ValueError(f"dtype: expected torch.complex64 or torch.complex128, got {dtype}")
    wide = any(x is not None and x.dtype in (torch.float64, torch.complex128) for x in given)
    return dtype or (torch.complex128 if wide else torch.complex64)


def checked_angles(name: str, given: Tensor | None, count: int, real: torch.dtype) -> Tensor | None:
    """Return weights or features as floats of one dtype; None where the circuit has none.

    Raises:
        ValueError: They are missing, or not floats ``[..., count]``.
    """
    if count == 0 and given is None:
        return None
    if given is None:
        raise ValueError(f"{name}: the circuit has {count}, none were given")
    if given.ndim == 0 or given.shape[-1] != count or not given.dtype.is_floating_point:
        raise ValueError(
            f"{name}: expected floats of shape [..., {count}], got {given.dtype} of shape {tuple(given.shape)}"
        )
    return given.to(real)

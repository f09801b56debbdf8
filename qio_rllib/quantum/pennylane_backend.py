"""Circuits on PennyLane's devices: a second backend, to check the first one and to reach what PennyLane reaches.

```python
from qio_rllib.quantum.pennylane_backend import pennylane_expectation

values = pennylane_expectation(circuit, ["Z0"], weights, features)                     # like `expectation`
values = pennylane_expectation(circuit, ["Z0"], weights, features, device="lightning.qubit")
```

PennyLane (V. Bergholm et al., "PennyLane: Automatic differentiation of hybrid quantum-classical computations",
arXiv:1811.04968) is imported when one of the functions is called; it comes with the extra ``pennylane``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from qio_envs.api.distribution import install_command
from qio_rllib.quantum.circuit import Circuit
from qio_rllib.quantum.observables import Observable, Projector, check_shots, observable
from qio_rllib.quantum.operations import Angle, Operation

_NAMES = {
    "I": "Identity",
    "X": "PauliX",
    "Y": "PauliY",
    "Z": "PauliZ",
    "H": "Hadamard",
    "TOFFOLI": "Toffoli",
    "PHASE": "PhaseShift",
    "RXX": "IsingXX",
    "RYY": "IsingYY",
    "RZZ": "IsingZZ",
}
"""PennyLane's names where they are not ours."""


def pennylane_expectation(
    circuit: Circuit,
    observables: Sequence[str | Observable],
    weights: Tensor | None = None,
    features: Tensor | None = None,
    device: Any = "default.qubit",
    shots: int | None = None,
    diff_method: str = "best",
) -> Tensor:
    """Return expectation values after a circuit, computed by a PennyLane device.

    The same numbers as ``expectation(circuit.state(weights, features), observables)``. Angles are handed over in
    double precision, in which PennyLane's simulators compute.

    Args:
        circuit: With ``W`` weights and ``F`` features.
        observables: ``K`` of them, as in `expectation`.
        weights: float ``[..., W]``, radians.
        features: float ``[..., F]``, radians.
        device: Name of a PennyLane device, or a device with at least ``n`` wires.
        shots: Measurements behind each expectation value; None for exact ones, if the device has them.
        diff_method: How PennyLane differentiates, "best" for what suits the device: "backprop", "adjoint",
            "parameter-shift" and so on.

    Returns:
        float ``[..., K]``, float32 unless ``weights`` or ``features`` is float64; differentiable in both.

    Raises:
        ImportError: PennyLane is not installed.
        ValueError: As in `Circuit.state` and `expectation`, or ``shots`` is below 1.
    """
    qml = _pennylane()
    if isinstance(observables, str) or not observables:
        raise ValueError(f"observables: expected at least one in a list, got {observables!r}")
    if shots is not None:
        check_shots(shots)
    measured = [observable(given) for given in observables]
    for given in measured:
        if given.num_qubits > circuit.num_qubits:
            raise ValueError(
                f"observable: {given} needs {given.num_qubits} qubits, there are {circuit.num_qubits}"
            )
    columns, batch, dtype = _columns(circuit, weights, features)

    def run(given: dict[str, list[Tensor]]) -> list[Any]:
        _queue(qml, circuit, given)
        return [qml.expval(_observable(qml, each)) for each in measured]

    node = _node(qml, run, circuit, device, diff_method)
    if shots is not None:
        node = qml.set_shots(node, shots)
    rows = math.prod(batch)
    # A device returns values without a batch axis for circuits that no batch of angles entered.
    values = [torch.as_tensor(value).reshape(-1).expand(rows) for value in node(columns)]
    return torch.stack(values, dim=-1).reshape(*batch, len(measured)).to(dtype)


def pennylane_state(
    circuit: Circuit,
    weights: Tensor | None = None,
    features: Tensor | None = None,
    device: Any = "default.qubit",
    diff_method: str = "best",
) -> Tensor:
    """Return the amplitudes after a circuit, computed by a PennyLane device that has them.

    Args:
        circuit: With ``W`` weights and ``F`` features.
        weights: float ``[..., W]``, radians.
        features: float ``[..., F]``, radians.
        device: Name of a PennyLane device, or a device with ``n`` wires.
        diff_method: As in `pennylane_expectation`.

    Returns:
        complex ``[..., 2**n]``, complex64 unless ``weights`` or ``features`` is float64; differentiable in both.

    Raises:
        ImportError: PennyLane is not installed.
        ValueError: As in `Circuit.state`.
    """
    qml = _pennylane()
    columns, batch, dtype = _columns(circuit, weights, features)

    def run(given: dict[str, list[Tensor]]) -> Any:
        _queue(qml, circuit, given)
        return qml.state()

    node = _node(qml, run, circuit, device, diff_method)
    state = torch.as_tensor(node(columns)).reshape(-1, 2**circuit.num_qubits)
    kind = torch.complex128 if dtype == torch.float64 else torch.complex64
    return state.expand(math.prod(batch), -1).reshape(*batch, 2**circuit.num_qubits).to(kind)


def _pennylane() -> Any:
    try:
        import pennylane
    except ImportError:
        raise ImportError(f"pennylane is not installed: {install_command('pennylane')}") from None
    return pennylane


def _node(qml: Any, run: Callable[..., Any], circuit: Circuit, device: Any, diff_method: str) -> Any:
    made = qml.device(device, wires=circuit.num_qubits) if isinstance(device, str) else device
    return qml.QNode(run, made, interface="torch", diff_method=diff_method)


def _columns(
    circuit: Circuit, weights: Tensor | None, features: Tensor | None
) -> tuple[dict[str, list[Tensor]], torch.Size, torch.dtype]:
    """Return the angles by source and index, float64 ``[]`` or ``[B]`` each; the batch axes; the results' dtype."""
    given = {"weight": (weights, circuit.num_weights), "feature": (features, circuit.num_features)}
    for source, (values, count) in given.items():
        if values is None and count:
            raise ValueError(f"{source}s: the circuit has {count}, none were given")
        if values is not None and (
            values.ndim == 0 or values.shape[-1] != count or not values.dtype.is_floating_point
        ):
            raise ValueError(
                f"{source}s: expected floats of shape [..., {count}], "
                f"got {values.dtype} of shape {tuple(values.shape)}"
            )
    there = [values for values, _ in given.values() if values is not None]
    batch = torch.broadcast_shapes(*(values.shape[:-1] for values in there)) if there else torch.Size()
    columns: dict[str, list[Tensor]] = {}
    for source, (values, count) in given.items():
        columns[source] = []
        if values is not None and count:
            wide = values.double()
            flat = wide if wide.ndim == 1 else wide.expand(*batch, count).reshape(-1, count)
            columns[source] = list(flat.unbind(-1))
    double = any(values.dtype == torch.float64 for values in there)
    return columns, batch, torch.float64 if double else torch.float32


def _queue(qml: Any, circuit: Circuit, columns: dict[str, list[Tensor]]) -> None:
    """Queue the circuit's operations, as a function that PennyLane traces does."""
    for wire in range(circuit.num_qubits):
        qml.Identity(wires=wire)  # so that wires that no gate touches are among those of the result
    for operation in circuit.operations:
        _operation(qml, operation, columns)


def _operation(qml: Any, operation: Operation, columns: dict[str, list[Tensor]]) -> None:
    wires, angle, name = list(operation.qubits), operation.angle, operation.name
    if operation.matrix is not None:
        qml.QubitUnitary(operation.matrix, wires=wires)
    elif name in ("SDG", "TDG"):
        qml.adjoint(getattr(qml, name[0]))(wires=wires)
    elif angle is None:
        getattr(qml, _NAMES.get(name, name))(wires=wires)
    else:
        given = angle.scale * columns[angle.source][angle.index] if isinstance(angle, Angle) else angle
        getattr(qml, _NAMES.get(name, name))(given, wires=wires)


def _observable(qml: Any, given: Observable) -> Any:
    if isinstance(given, Projector):
        return qml.Projector([int(bit) for bit in given.bits], wires=list(given.qubits))
    letters = {"X": qml.PauliX, "Y": qml.PauliY, "Z": qml.PauliZ}
    strings = []
    for _, factors in given.terms:
        operators = [letters[letter](qubit) for qubit, letter in factors] or [qml.Identity(0)]
        strings.append(operators[0] if len(operators) == 1 else qml.prod(*operators))
    return qml.Hamiltonian([coefficient for coefficient, _ in given.terms], strings)

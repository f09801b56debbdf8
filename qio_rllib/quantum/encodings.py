"""How numbers enter a circuit, and the layered circuits of the literature."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from qio_rllib.quantum.circuit import Circuit
from qio_rllib.quantum.operations import feature, weight

Axis = Literal["X", "Y", "Z"]
Entangler = Literal["CNOT", "CZ"]


def amplitude_encoding(values: Tensor, zero: Literal["refuse", "ground"] = "refuse") -> Tensor:
    """Return vectors as amplitudes: padded with zeros to a power of two and divided by their norm.

    Args:
        values: float or complex ``[..., D]``, ``D`` of at least 1.
        zero: What becomes of a vector of zeros, which has no direction: an error, or |0...0>. Numbers below the
            smallest normal float (1e-38 in float32) count as zeros.

    Returns:
        complex ``[..., 2**n]`` with ``2**n >= max(D, 2)``; float64 and complex128 give complex128, all else complex64.
        Differentiable, with gradient 0 where a vector of zeros became |0...0>.

    Raises:
        ValueError: A number is not finite, or a vector is 0 with ``zero="refuse"``.
    """
    if zero not in ("refuse", "ground"):
        raise ValueError(f"zero: expected 'refuse' or 'ground', got {zero!r}")
    if values.ndim == 0 or values.shape[-1] == 0:
        raise ValueError(f"values: expected [..., D] with D of at least 1, got shape {tuple(values.shape)}")
    length = values.shape[-1]
    # Numbers, not amplitudes, are checked: what follows has no branch that depends on them.
    largest = values.detach().abs().amax(-1)
    if not bool(torch.isfinite(largest).all()):
        raise ValueError("values: not normalisable, there are numbers that are not finite")
    empty = largest < _least(values)
    if zero == "refuse" and bool(empty.any()):
        raise ValueError(
            f"values: not normalisable, {int(empty.sum())} vector(s) are all 0; zero='ground' maps them to |0...0>"
        )
    return padded_amplitudes(values, 2 ** max((length - 1).bit_length(), 1) - length)


def padded_amplitudes(values: Tensor, padding: int) -> Tensor:
    """Return vectors as amplitudes, as `amplitude_encoding` does with ``zero="ground"``, without looking at numbers.

    No Python branch depends on the values, so that `torch.jit.trace` records what holds for all of them; numbers that
    are not finite give amplitudes that are not.

    Args:
        values: float or complex ``[..., D]``.
        padding: Zeros that are appended, at least 0; ``D + padding`` is to be a power of two.

    Returns:
        complex ``[..., D + padding]`` of norm 1.
    """
    wide = values.dtype in (torch.float64, torch.complex128)
    amplitudes = nn.functional.pad(values.to(torch.complex128 if wide else torch.complex64), (0, padding))
    # Scaled by the largest first: squares of very small or large numbers leave the range of a float.
    largest = amplitudes.detach().abs().amax(-1, keepdim=True)
    empty = largest < _least(amplitudes)
    ground = torch.zeros_like(amplitudes)
    ground[..., 0] = 1
    amplitudes = torch.where(empty, ground, amplitudes) / torch.where(
        empty, torch.ones_like(largest), largest
    )
    return amplitudes / torch.linalg.vector_norm(amplitudes, dim=-1, keepdim=True)


def _least(values: Tensor) -> float:
    """Return the smallest number of the working precision that counts as more than 0."""
    return torch.finfo(
        torch.float64 if values.dtype in (torch.float64, torch.complex128) else torch.float32
    ).tiny


def angle_encoding(num_qubits: int, axis: Axis = "Y", first: int = 0) -> Circuit:
    """Return rotations of qubit ``q`` by the feature ``first + q``.

    Args:
        num_qubits: ``n``.
        axis: Of the rotations; about Z they do nothing to |0...0>.
        first: Index of the first feature.
    """
    circuit = Circuit(num_qubits)
    for qubit in range(num_qubits):
        circuit.add(f"R{axis}", qubit, angle=feature(first + qubit))
    return circuit


def entangling_layer(num_qubits: int, entangler: Entangler = "CNOT") -> Circuit:
    """Return a ring of two-qubit gates, from each qubit to the next; one gate for two qubits, none for one."""
    circuit = Circuit(num_qubits)
    pairs = num_qubits if num_qubits > 2 else num_qubits - 1
    for qubit in range(pairs):
        circuit.add(entangler, qubit, (qubit + 1) % num_qubits)
    return circuit


def variational_layer(num_qubits: int, first: int = 0, entangler: Entangler | None = "CNOT") -> Circuit:
    """Return RX, RY and RZ on each qubit with weights of their own, then a ring.

    Args:
        num_qubits: ``n``.
        first: Index of the first of the ``3 n`` weights.
        entangler: Gate of the ring; None for none.
    """
    circuit = Circuit(num_qubits)
    for qubit in range(num_qubits):
        for place, axis in enumerate("XYZ"):
            circuit.add(f"R{axis}", qubit, angle=weight(first + 3 * qubit + place))
    if entangler is not None:
        circuit.extend(entangling_layer(num_qubits, entangler).operations)
    return circuit


def layered_circuit(num_qubits: int, num_layers: int, entangler: Entangler = "CNOT") -> Circuit:
    """Return ``num_layers`` variational layers: ``3 n`` weights each, no features."""
    circuit = Circuit(num_qubits)
    for layer in range(num_layers):
        circuit.extend(variational_layer(num_qubits, 3 * num_qubits * layer, entangler).operations)
    return circuit


def variational_circuit(num_qubits: int, num_layers: int, entangler: Entangler = "CNOT") -> Circuit:
    """Return variational layers and a last rotation of each qubit, for a state that holds the data already.

    RX and RY on each qubit follow the ``num_layers`` layers: they turn any axis into that of the measurement, so that
    each weight changes what is measured.

    Args:
        num_qubits: ``n``, at least 1.
        num_layers: ``L``, at least 1.
        entangler: Gate of the ring.

    Returns:
        A circuit with ``3 n L + 2 n`` weights and no features.

    Raises:
        ValueError: ``num_layers`` is below 1.
    """
    if num_layers < 1:
        raise ValueError(f"num_layers: expected an integer of at least 1, got {num_layers}")
    circuit, first = layered_circuit(num_qubits, num_layers, entangler), 3 * num_qubits * num_layers
    for qubit in range(num_qubits):
        for place, axis in enumerate("XY"):
            circuit.add(f"R{axis}", qubit, angle=weight(first + 2 * qubit + place))
    return circuit


def reuploading_circuit(
    num_qubits: int, num_layers: int, num_features: int, entangler: Entangler = "CNOT"
) -> Circuit:
    """Return a data re-uploading circuit (Pérez-Salinas et al., 2020; Jerbi et al., 2021, figure 1).

    Each layer is a variational layer and then the encoding: feature ``d`` turns qubit ``d mod n``, about Y in the
    first pass over the qubits, Z in the second, X in the third, and so on. RZ and RY on each qubit follow, which turn
    any axis into that of the measurement; a third rotation would change nothing that is measured. Each layer encodes
    with features of its own, ``num_features`` times ``num_layers`` in all, so that each use can be scaled on its own.

    Args:
        num_qubits: ``n``, at least 1.
        num_layers: ``L``, at least 1.
        num_features: ``D``, at least 1, encoded in each layer.
        entangler: Gate of the ring.

    Returns:
        A circuit with ``3 n L + 2 n`` weights and ``D L`` features, those of layer ``l`` from ``D l``.

    Raises:
        ValueError: A size is below 1.
    """
    for name, value in (("num_layers", num_layers), ("num_features", num_features)):
        if value < 1:
            raise ValueError(f"{name}: expected an integer of at least 1, got {value}")
    circuit = Circuit(num_qubits)
    for layer in range(num_layers):
        circuit.extend(variational_layer(num_qubits, 3 * num_qubits * layer, entangler).operations)
        for index in range(num_features):
            turn, qubit = divmod(index, num_qubits)
            circuit.add(f"R{'YZX'[turn % 3]}", qubit, angle=feature(num_features * layer + index))
    first = 3 * num_qubits * num_layers
    for qubit in range(num_qubits):
        for place, axis in enumerate("ZY"):
            circuit.add(f"R{axis}", qubit, angle=weight(first + 2 * qubit + place))
    return circuit

"""Density matrices: noisy circuits run exactly, and what is measured of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from qio_rllib.quantum.circuit import Circuit, check_memory
from qio_rllib.quantum.noise import NoiseModel, noisy_steps
from qio_rllib.quantum.observables import Observable, check_qubits, observable
from qio_rllib.quantum.readout import ReadoutError
from qio_rllib.quantum.stepping import apply, prepare

MAX_DENSITY_QUBITS = 6
"""Qubits that `density_matrix` takes at most; `trajectories` has no such limit."""


def density_matrix(
    circuit: Circuit,
    weights: Tensor | None = None,
    features: Tensor | None = None,
    noise: NoiseModel | None = None,
    *,
    initial: Tensor | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Run a noisy circuit exactly.

    Args:
        circuit: Of ``n`` qubits, 6 at most.
        weights: float ``[W]`` or ``[..., W]``.
        features: float ``[..., F]``.
        noise: None for none.
        initial: Pure state to start from, complex ``[..., 2**n]``, taken as it is; by default |0...0>.
        dtype: complex64 or complex128; by default as in `Circuit.state`.

    Returns:
        Density matrices before the readout, complex ``[..., 2**n, 2**n]``, with the batch axes of the arguments
        (broadcast); differentiable in all of them.

    Raises:
        ValueError: More qubits, or arguments that do not fit as in `Circuit.state`.
    """
    n = circuit.num_qubits
    angles, start, batch = prepare(circuit, weights, features, initial, dtype)
    if n > MAX_DENSITY_QUBITS:
        wanted = math.prod(batch) * 4**n * start.dtype.itemsize
        raise ValueError(
            f"num_qubits: density matrices go up to {MAX_DENSITY_QUBITS} qubits, got {n}: {math.prod(batch):,} of them "
            f"would take {wanted:,} bytes; trajectories() takes pure states of more qubits"
        )
    check_memory(2 * n, math.prod(batch), start.dtype)
    # A density matrix is a vector of 2 n axes: those of its rows, then those of its columns.
    rho = (start[..., :, None] * start[..., None, :].conj()).flatten(-2)
    for operation, gate, channels in noisy_steps(circuit, angles, noise, start):
        rho = apply(rho, gate, operation.qubits, 2 * n)
        rho = apply(rho, gate.conj(), tuple(n + qubit for qubit in operation.qubits), 2 * n)
        if channels:
            whole = torch.eye(4, dtype=rho.dtype, device=rho.device)
            for kraus in channels:
                whole = torch.einsum("kac,kbd->abcd", kraus, kraus.conj()).reshape(4, 4) @ whole
            for qubit in operation.qubits:
                rho = apply(rho, whole, (qubit, n + qubit), 2 * n)
    return rho.expand(*batch, 4**n).reshape(*batch, 2**n, 2**n)


def expectation_of_density(
    rho: Tensor, observables: Sequence[str | Observable], readout: ReadoutError | None = None
) -> Tensor:
    """Return expectation values ``tr(O_k rho)``.

    Args:
        rho: complex ``[..., 2**n, 2**n]``, of trace 1.
        observables: ``K`` of them: texts such as "Z0 Z1", `PauliSum` or `Projector`.
        readout: Error with which they are read, see `ReadoutError.of_observable`; None for none.

    Returns:
        float ``[..., K]``; differentiable.

    Raises:
        ValueError: ``rho`` has another shape or is not complex, there are no observables, or one does not fit.
    """
    n = _qubits_of_density(rho)
    if isinstance(observables, str) or not observables:
        raise ValueError(f"observables: expected at least one in a list, got {observables!r}")
    index, columns = torch.arange(2**n, device=rho.device), []
    for given in observables:
        shifts = (observable(given) if readout is None else readout.of_observable(given)).shifts(n)
        total = rho.new_zeros(rho.shape[:-2])
        for mask, vector in shifts.items():
            # O[i, i ^ mask] = vector[i], so that tr(O rho) is the sum of vector[i] rho[i ^ mask, i]
            total = total + rho[..., index ^ mask, index] @ torch.from_numpy(vector).to(rho)
        columns.append(total)
    return torch.stack(columns, dim=-1).real


def probabilities_of_density(
    rho: Tensor, qubits: Sequence[int] | None = None, readout: ReadoutError | None = None
) -> Tensor:
    """Return the probabilities of what qubits read.

    Args:
        rho: complex ``[..., 2**n, 2**n]``, of trace 1.
        qubits: ``k`` distinct ones, the most significant first; all by default.
        readout: Error with which they are read; None for none.

    Returns:
        float ``[..., 2**k]``; differentiable.

    Raises:
        ValueError: ``rho`` has another shape or is not complex, or qubits are out of range or repeated.
    """
    n = _qubits_of_density(rho)
    probs = rho.diagonal(dim1=-2, dim2=-1).real
    if qubits is not None and list(qubits) != list(range(n)):
        check_qubits(qubits, n)
        first = probs.ndim - 1
        cube = probs.reshape(*probs.shape[:-1], *(2,) * n)
        cube = cube.movedim([first + qubit for qubit in qubits], list(range(first, first + len(qubits))))
        probs = cube.reshape(*probs.shape[:-1], 2 ** len(qubits), -1).sum(-1)
    return probs if readout is None else readout.of_probabilities(probs)


def _qubits_of_density(rho: Tensor) -> int:
    size = rho.shape[-1] if rho.ndim > 1 else 0
    if size < 2 or size & (size - 1) or rho.shape[-2] != size or not rho.dtype.is_complex:
        raise ValueError(
            f"rho: expected complex [..., 2**n, 2**n], got {rho.dtype} of shape {tuple(rho.shape)}"
        )
    return size.bit_length() - 1

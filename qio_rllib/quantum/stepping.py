"""A circuit gate by gate, as noise needs it: checked arguments, gate matrices, and the product of matrix and state."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from qio_rllib.quantum.circuit import Circuit, checked_angles, complex_dtype
from qio_rllib.quantum.gates import ROTATIONS, kron
from qio_rllib.quantum.operations import Angle, Operation


def prepare(
    circuit: Circuit,
    weights: Tensor | None,
    features: Tensor | None,
    initial: Tensor | None,
    dtype: torch.dtype | None,
) -> tuple[dict[str, Tensor | None], Tensor, torch.Size]:
    """Check the arguments of a run; return its angles, the first state ``[..., 2**n]`` and the batch axes."""
    dtype = complex_dtype(dtype, weights, features, initial)
    real, size = torch.float64 if dtype == torch.complex128 else torch.float32, 2**circuit.num_qubits
    angles = {
        "weight": checked_angles("weights", weights, circuit.num_weights, real),
        "feature": checked_angles("features", features, circuit.num_features, real),
    }
    if initial is not None and (initial.ndim == 0 or initial.shape[-1] != size):
        raise ValueError(
            f"initial: expected [..., {size}] amplitudes for {circuit.num_qubits} qubits, "
            f"got shape {tuple(initial.shape)}"
        )
    given = [x for x in (*angles.values(), initial) if x is not None]
    try:
        batch = torch.broadcast_shapes(*(x.shape[:-1] for x in given)) if given else torch.Size()
    except RuntimeError:
        shapes = ", ".join(str(tuple(x.shape[:-1])) for x in given)
        raise ValueError(f"weights, features and initial: batch axes do not broadcast: {shapes}") from None
    if initial is not None:
        return angles, initial.to(dtype), batch
    ground = torch.zeros(size, dtype=dtype, device=given[0].device if given else None)
    ground[0] = 1
    return angles, ground, batch


def gate_matrix(operation: Operation, angles: dict[str, Tensor | None], like: Tensor) -> Tensor:
    """Return the matrix of an operation, complex ``[..., 2**k, 2**k]``, in the dtype of ``like``."""
    fixed = operation.fixed_matrix()
    if fixed is not None:
        return torch.from_numpy(np.ascontiguousarray(fixed)).to(like)
    angle, rotation = operation.angle, ROTATIONS[operation.name]
    assert isinstance(angle, Angle)
    values = angles[angle.source]
    assert values is not None
    diagonal = torch.from_numpy(angle.scale * rotation.diagonal).to(values)
    phases = -values[..., angle.index, None] * diagonal
    basis = torch.from_numpy(kron(*rotation.basis)).to(like)
    return (basis * torch.complex(phases.cos(), phases.sin())[..., None, :]) @ basis.mH


def apply(state: Tensor, matrix: Tensor, axes: Sequence[int], num_axes: int) -> Tensor:
    """Apply ``matrix [..., 2**k, 2**k]`` to ``k`` of the axes of length 2 of a state ``[..., 2**num_axes]``."""
    batch = state.shape[:-1]
    front = state.reshape(*batch, *(2,) * num_axes)
    front = front.movedim([len(batch) + axis for axis in axes], [len(batch) + i for i in range(len(axes))])
    done = matrix @ front.reshape(*batch, 2 ** len(axes), -1)
    batch = done.shape[:-2]  # a batched gate brings its axes
    done = done.reshape(*batch, *(2,) * num_axes)
    done = done.movedim([len(batch) + i for i in range(len(axes))], [len(batch) + axis for axis in axes])
    return done.reshape(*batch, -1)

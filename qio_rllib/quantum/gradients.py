"""Parameter-shift gradients: derivatives from evaluations of the circuit alone, as a device could make them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from qio_rllib.quantum.circuit import Circuit
from qio_rllib.quantum.gates import ROTATIONS
from qio_rllib.quantum.observables import Measurement, Observable
from qio_rllib.quantum.operations import Angle

_TWO = ((math.pi / 2, 0.5),)
"""Shifts and coefficients for eigenvalues that differ by 1: ``(f(+s) - f(-s)) c`` summed."""
_ROOT = math.sqrt(2)
_FOUR = ((math.pi / 2, (_ROOT + 1) / (4 * _ROOT)), (3 * math.pi / 2, -(_ROOT - 1) / (4 * _ROOT)))
"""For differences of 1/2 and 1 (controlled rotations): D. Wierichs et al., "General parameter-shift rules for quantum
gradients", Quantum 6, 677 (2022); G.-L. Anselmetti et al., New J. Phys. 23, 113010 (2021), equation 8."""


def parameter_shift(
    circuit: Circuit,
    observables: Sequence[str | Observable],
    weights: Tensor,
    features: Tensor | None = None,
    measure: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return the derivatives of expectation values with respect to the weights.

    Two-term rule (M. Schuld et al., Physical Review A 99, 032331, 2019), four-term rule for controlled rotations; a
    weight that occurs several times is shifted at each place in turn. All shifted circuits run as one batch.

    Args:
        circuit: With ``W`` weights.
        observables: ``K`` of them, as in `expectation`.
        weights: float ``[W]``.
        features: float ``[..., F]``, or None without features.
        measure: Maps states ``[..., 2**n]`` to estimates ``[..., K]``, such as one by `estimate` with shots; exact
            expectation values by default.

    Returns:
        float ``[..., K, W]``, without gradient.

    Raises:
        ValueError: As in `Circuit.state`, or ``weights`` is not one row ``[W]``.
    """
    if weights.shape != (circuit.num_weights,):
        raise ValueError(
            f"weights: expected one row [{circuit.num_weights}], got shape {tuple(weights.shape)}"
        )
    measured = measure or Measurement(circuit.num_qubits, observables).expectation
    # A copy in which each place has a weight of its own; `owner` says whose it was.
    unshared, owners, scales, places = Circuit(circuit.num_qubits), [], [], []
    for operation in circuit.operations:
        angle = operation.angle
        if isinstance(angle, Angle) and angle.source == "weight":
            places.append(operation.name)
            owners.append(angle.index)
            scales.append(angle.scale)
            operation = replace(operation, angle=Angle("weight", len(owners) - 1))
        unshared.extend([operation])
    with torch.no_grad():
        if not owners:
            values = measured(circuit.state(weights, features))
            return values.new_zeros(*values.shape, len(weights))
        scale = torch.tensor(scales, dtype=weights.dtype, device=weights.device)
        owner = torch.tensor(owners, device=weights.device)
        angles = weights[owner] * scale
        rules = [_FOUR if len(ROTATIONS[name].frequencies) > 1 else _TWO for name in places]
        shifted, factors, target = [], [], []
        for place, rule in enumerate(rules):
            for shift, coefficient in rule:
                for sign in (1.0, -1.0):
                    row = angles.clone()
                    row[place] += sign * shift
                    shifted.append(row)
                    factors.append(sign * coefficient * scales[place])
                    target.append(owners[place])
        rows = torch.stack(shifted)
        if features is not None and features.ndim > 1:
            rows = rows.reshape(len(shifted), *(1,) * (features.ndim - 1), -1)
        values = measured(unshared.state(rows, features))  # [rows, ..., K]
        factor = torch.tensor(factors, dtype=values.dtype, device=values.device)
        weighted = values * factor.reshape(-1, *(1,) * (values.ndim - 1))
        jacobian = values.new_zeros(len(weights), *values.shape[1:])
        jacobian.index_add_(0, torch.tensor(target, device=values.device), weighted)
    return jacobian.movedim(0, -1)

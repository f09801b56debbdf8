"""Less noise from noisy runs: circuit folding and zero-noise extrapolation."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from qio_rllib.quantum.circuit import Circuit


def fold(circuit: Circuit, scale: int) -> Circuit:
    """Return a circuit that does the same with more gates: ``U (U^dagger U)^((scale - 1) / 2)``.

    Global unitary folding: where noise follows the gates, it multiplies the noise by about ``scale``
    (T. Giurgica-Tiron et al., "Digital zero noise extrapolation for quantum error mitigation", IEEE QCE 2020).

    Args:
        circuit: ``U``.
        scale: Odd, at least 1.

    Returns:
        A circuit of ``scale`` times as many gates, with the same weights and features.

    Raises:
        ValueError: ``scale`` is no odd integer of at least 1.
    """
    if isinstance(scale, bool) or not isinstance(scale, int) or scale < 1 or scale % 2 == 0:
        raise ValueError(f"scale: expected an odd integer of at least 1, got {scale!r}")
    folded = Circuit(circuit.num_qubits).extend(circuit.operations)
    back = circuit.inverse().operations
    for _ in range(scale // 2):
        folded.extend(back).extend(circuit.operations)
    return folded


def zero_noise_extrapolation(
    evaluate: Callable[[int], Tensor | float], scales: Sequence[int] = (1, 3, 5), order: int | None = None
) -> Tensor:
    """Extrapolate a noisy value to no noise.

    A polynomial in the scale of the noise is fitted to ``evaluate(scale)`` by least squares and read off at 0. With as
    many coefficients as scales it goes through all points: Richardson's extrapolation (K. Temme, S. Bravyi and
    J. Gambetta, "Error mitigation for short-depth quantum circuits", Physical Review Letters 119, 180509, 2017), of
    least bias and most variance; with fewer it smooths.

    ```python
    def noisy(scale: int) -> Tensor:
        return expectation_of_density(density_matrix(fold(circuit, scale), weights, features, noise), ["Z0"])

    value = zero_noise_extrapolation(noisy)
    ```

    Args:
        evaluate: From a scale to a number or float tensor ``[...]``, always of the same shape.
        scales: Distinct, finite and above 0, at least one; `fold` takes odd integers.
        order: Of the polynomial, 0 to ``len(scales) - 1``, which is the default.

    Returns:
        float ``[...]``; differentiable as the values are (numbers give float64).

    Raises:
        ValueError: Scales that repeat or are out of range, or ``order`` is.
    """
    points = [float(scale) for scale in scales]
    if not points or len(set(points)) < len(points) or not all(0 < point < math.inf for point in points):
        raise ValueError(f"scales: expected distinct finite numbers above 0, got {list(scales)}")
    highest = len(points) - 1
    order = highest if order is None else order
    if isinstance(order, bool) or not isinstance(order, int) or not 0 <= order <= highest:
        raise ValueError(f"order: {len(points)} scales allow 0 to {highest}, got {order!r}")
    # The value at 0 of the fit is linear in the values: its weights are a row of the pseudo-inverse.
    powers = np.vander(np.array(points) / max(points), order + 1, increasing=True)
    weights = np.linalg.pinv(powers)[0]
    values = []
    for scale in scales:
        value = evaluate(scale)
        values.append(value if isinstance(value, Tensor) else torch.tensor(value, dtype=torch.float64))
    stacked = torch.stack(values)
    return torch.tensordot(torch.from_numpy(weights).to(stacked), stacked, dims=1)

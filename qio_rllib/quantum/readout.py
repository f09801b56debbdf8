"""Errors of the readout: bits that are measured wrongly."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import torch
from torch import Tensor

from qio_rllib.quantum.channels import check_probability
from qio_rllib.quantum.gates import Array
from qio_rllib.quantum.observables import Observable, PauliSum, Projector, observable
from qio_rllib.quantum.stepping import apply


@dataclass(frozen=True)
class ReadoutError:
    """Bits that are read wrongly, each on its own and all with the same probabilities.

    Attributes:
        p01: Probability that a 0 is read as 1, in [0, 1].
        p10: Probability that a 1 is read as 0, in [0, 1].

    Raises:
        ValueError: A probability is no number in [0, 1].
    """

    p01: float
    p10: float

    def __post_init__(self) -> None:
        check_probability("ReadoutError: p01", self.p01)
        check_probability("ReadoutError: p10", self.p10)

    @property
    def matrix(self) -> Array:
        """``matrix[read, true]``, float64 ``[2, 2]``; its columns sum to 1."""
        return np.array([[1 - self.p01, self.p10], [self.p01, 1 - self.p10]])

    def of_probabilities(self, probs: Tensor) -> Tensor:
        """Return the probabilities of what is read.

        Args:
            probs: Those of the true outcomes, float ``[..., 2**n]``, such as `probabilities` gives.

        Returns:
            float ``[..., 2**n]``; differentiable.

        Raises:
            ValueError: The length of the last axis is no power of two above 1, or they are not floats.
        """
        size = probs.shape[-1] if probs.ndim else 0
        if size < 2 or size & (size - 1) or not probs.dtype.is_floating_point:
            raise ValueError(
                f"probs: expected floats [..., 2**n], got {probs.dtype} of shape {tuple(probs.shape)}"
            )
        matrix = torch.from_numpy(self.matrix).to(probs)
        for qubit in range(size.bit_length() - 1):
            probs = apply(probs, matrix, (qubit,), size.bit_length() - 1)
        return probs

    def of_samples(
        self, samples: Tensor, num_qubits: int, generator: torch.Generator | None = None
    ) -> Tensor:
        """Return what is read instead of sampled basis states: each bit flips at random.

        Args:
            samples: Indices of basis states, int64 of any shape, such as `sample` draws.
            num_qubits: ``n``.
            generator: Source of the draws, on the device of ``samples``; torch's own by default.

        Returns:
            Indices, int64 of the same shape.

        Raises:
            ValueError: They are not int64, or an index is not in ``[0, 2**n)``.
        """
        if samples.dtype != torch.int64:
            raise ValueError(f"samples: expected int64 indices of basis states, got {samples.dtype}")
        if samples.numel() and not 0 <= int(samples.min()) <= int(samples.max()) < 2**num_qubits:
            raise ValueError(
                f"samples: indices of {num_qubits} qubits are 0 to {2**num_qubits - 1}, "
                f"got {int(samples.min())} to {int(samples.max())}"
            )
        places = torch.arange(num_qubits, device=samples.device)
        bits = (samples[..., None] >> places) & 1
        flip = torch.tensor([self.p01, self.p10], dtype=torch.float64, device=samples.device)[bits]
        draws = torch.rand(bits.shape, dtype=torch.float64, device=samples.device, generator=generator)
        return (((draws < flip) ^ bits.bool()).long() << places).sum(-1)

    def of_observable(self, given: str | Observable) -> PauliSum:
        """Return the observable whose expectation a device with this readout error would estimate.

        A Pauli string is measured in its own basis, where it is a product of Z's, and as it is read ``Z`` becomes
        ``(1 - p01 - p10) Z + (p10 - p01)``; a projector likewise. Works on states and density matrices alike:
        ``expectation(states, [readout.of_observable("Z0 X1")])``.

        Args:
            given: A Pauli string, `PauliSum` or `Projector` on ``k`` qubits.

        Returns:
            A sum of up to ``2**k`` strings for each string.
        """
        slope, shift = 1 - self.p01 - self.p10, self.p10 - self.p01
        given = observable(given)
        strings: list[tuple[float, list[tuple[int, str, float, float]]]] = []
        if isinstance(given, Projector):  # onto bit b: (1 + (-1)^b Z) / 2
            factors = []
            for qubit, bit in sorted(zip(given.qubits, given.bits, strict=True)):
                sign = 0.5 if bit == "0" else -0.5
                factors.append((qubit, "Z", sign * slope, 0.5 + sign * shift))
            strings.append((1.0, factors))
        else:
            for coefficient, letters in given.terms:
                strings.append((coefficient, [(qubit, letter, slope, shift) for qubit, letter in letters]))
        terms: dict[tuple[tuple[int, str], ...], float] = {}
        for coefficient, factors in strings:
            for present in product((True, False), repeat=len(factors)):
                value, kept = coefficient, []
                for (qubit, letter, with_letter, without), there in zip(factors, present, strict=True):
                    value *= with_letter if there else without
                    kept += [(qubit, letter)] if there else []
                terms[tuple(kept)] = terms.get(tuple(kept), 0.0) + value
        return PauliSum(tuple((value, letters) for letters, value in terms.items()))

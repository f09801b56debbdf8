"""Channels on one qubit: ``rho`` becomes ``sum_i K_i rho K_i^dagger``, with ``sum_i K_i^dagger K_i = I``.

They are those of M. Nielsen and I. Chuang, "Quantum Computation and Quantum Information" (2000), section 8.3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np

from qio_rllib.quantum.gates import PAULIS, Array


@runtime_checkable
class Channel(Protocol):
    """What happens to one qubit: anything that has Kraus operators."""

    @property
    def kraus(self) -> Array:
        """Kraus operators ``K_i``, complex128 ``[K, 2, 2]``, with ``sum_i K_i^dagger K_i = I``."""


@dataclass(frozen=True)
class Depolarizing:
    """With probability ``p`` the qubit is replaced by a completely mixed one: ``(1 - p) rho + p I / 2``.

    Nielsen and Chuang, section 8.3.4. Each of X, Y and Z then acts with probability ``p / 4``: in PennyLane this is
    ``DepolarizingChannel(3 * p / 4)``.

    Attributes:
        p: Probability, in [0, 1].

    Raises:
        ValueError: ``p`` is no number in [0, 1].
    """

    p: float

    def __post_init__(self) -> None:
        check_probability("Depolarizing: p", self.p)

    @property
    def kraus(self) -> Array:
        """Kraus operators, complex128 ``[4, 2, 2]``."""
        weights = np.sqrt([1 - 0.75 * self.p, *(0.25 * self.p,) * 3])
        return weights[:, None, None] * np.stack([PAULIS[letter] for letter in "IXYZ"])


@dataclass(frozen=True)
class AmplitudeDamping:
    """Decay of |1> to |0>, such as the loss of a photon. Nielsen and Chuang, section 8.3.5.

    Attributes:
        gamma: Probability that |1> decays, in [0, 1].

    Raises:
        ValueError: ``gamma`` is no number in [0, 1].
    """

    gamma: float

    def __post_init__(self) -> None:
        check_probability("AmplitudeDamping: gamma", self.gamma)

    @property
    def kraus(self) -> Array:
        """Kraus operators, complex128 ``[2, 2, 2]``."""
        kept, lost = math.sqrt(1 - self.gamma), math.sqrt(self.gamma)
        return np.array([[[1, 0], [0, kept]], [[0, lost], [0, 0]]], np.complex128)


@dataclass(frozen=True)
class Dephasing:
    """The phase flip: Z acts with probability ``p``, ``(1 - p) rho + p Z rho Z``. Nielsen and Chuang, section 8.3.3.

    Coherences shrink by ``1 - 2 p``: they are gone at ``p = 1/2``, and ``p = 1`` is the gate Z. For ``p`` up to 1/2 it
    is the phase damping of section 8.3.6 with ``lambda = 4 p (1 - p)``.

    Attributes:
        p: Probability, in [0, 1].

    Raises:
        ValueError: ``p`` is no number in [0, 1].
    """

    p: float

    def __post_init__(self) -> None:
        check_probability("Dephasing: p", self.p)

    @property
    def kraus(self) -> Array:
        """Kraus operators, complex128 ``[2, 2, 2]``."""
        return np.stack([math.sqrt(1 - self.p) * PAULIS["I"], math.sqrt(self.p) * PAULIS["Z"]])


def check_probability(name: str, value: float) -> None:
    """Raise ValueError, with the name in front, unless a value is a number in [0, 1]."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 <= value <= 1.0:
        raise ValueError(f"{name} must be a probability in [0, 1], got {value!r}")

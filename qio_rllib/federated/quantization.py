"""Vectors as integers, whose sums are exact and can be masked."""

from __future__ import annotations

import dataclasses

import numpy as np

from qio_envs.api import ConfigError

_LIMIT = 2**31  # sums are centred numbers modulo 2^32


@dataclasses.dataclass(frozen=True)
class Quantizer:
    """Fixed-point numbers with stochastic rounding: unbiased within the bound.

    Attributes:
        bound: Every number is clipped to ``[-bound, bound]``, above 0.
        fraction_bits: Binary digits behind the point, 0 to 30.

    Raises:
        ConfigError: A value outside its range, or a bound below one step.
    """

    bound: float = 4.0
    fraction_bits: int = 16

    def __post_init__(self) -> None:
        if type(self.fraction_bits) is not int or not 0 <= self.fraction_bits <= 30:
            raise ConfigError(f"fraction_bits: expected an integer from 0 to 30, got {self.fraction_bits}")
        if not (self.bound > 0 and np.isfinite(self.bound)) or self.largest < 1:
            raise ConfigError(
                f"bound: expected at least 2^-{self.fraction_bits}, one step of fraction_bits, got {self.bound}"
            )

    @property
    def scale(self) -> int:
        """Steps in 1."""
        return int(2**self.fraction_bits)

    @property
    def largest(self) -> int:
        """The largest integer that a number becomes."""
        return int(np.floor(self.bound * self.scale))

    def check_sum(self, num_clients: int, noise_deviation: float = 0.0) -> None:
        """Refuse sums that may leave 32 bits.

        Args:
            num_clients: Vectors in a sum at most.
            noise_deviation: Standard deviation of noise in the sum, in steps; six of it are allowed for.

        Raises:
            ConfigError: They may.
        """
        worst = num_clients * self.largest + 6 * noise_deviation
        if worst >= _LIMIT:
            raise ConfigError(
                f"fraction_bits, bound: {num_clients} clients of at most {self.largest} steps and six deviations of "
                f"noise come to {worst:.0f}; expected less than 2^31"
            )

    def encode(self, vector: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return integers, int64 ``[d]``.

        Args:
            vector: ``[d]``.
            rng: Of the rounding.

        Raises:
            ConfigError: Numbers that are not finite.
        """
        if not np.isfinite(vector).all():
            raise ConfigError("update: expected finite numbers")
        scaled = np.clip(vector.astype(np.float64), -self.bound, self.bound) * self.scale
        below = np.floor(scaled)
        up = rng.random(scaled.shape) < scaled - below
        return np.clip(below + up, -self.largest, self.largest).astype(np.int64)

    def decode(self, total: np.ndarray) -> np.ndarray:
        """Return what integers (or their sum) stand for, float64 ``[d]``."""
        return total / self.scale

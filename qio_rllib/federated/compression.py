"""Fewer bytes: eight-bit numbers, the largest numbers with error feedback, and random numbers by a shared seed."""

from __future__ import annotations

import abc
from typing import ClassVar

import numpy as np

from qio_envs.api import ConfigError, did_you_mean

Array = np.ndarray
_CHUNK = 1024  # numbers that share a scale


class Compressor(abc.ABC):
    """Vectors to bytes and back. `encode` and `decode` agree on ``round_seed``, which both sides know.

    Args:
        size: Numbers ``d`` in a vector.
    """

    fits_secure_sums: ClassVar[bool] = False
    """Whether sums can be taken of what is kept: all clients keep the same numbers."""

    def __init__(self, size: int) -> None:
        self.size = size

    @abc.abstractmethod
    def encode(self, vector: Array, round_seed: int, rng: np.random.Generator) -> bytes:
        """Return a vector as bytes, whose number is the traffic."""

    @abc.abstractmethod
    def decode(self, data: bytes, round_seed: int) -> Array:
        """Return the vector, float32 ``[d]``.

        Raises:
            ConfigError: Bytes that `encode` did not make.
        """

    def encode_with_feedback(
        self, vector: Array, residual: Array, round_seed: int, rng: np.random.Generator
    ) -> tuple[bytes, Array]:
        """Encode a vector and what was left out before; return the bytes and what is left out now.

        Error feedback (Seide et al., 2014; Karimireddy et al., 2019): what is not sent is not lost. Clip after the
        residual is added, not before.
        """
        wanted = vector + residual
        data = self.encode(wanted, round_seed, rng)
        return data, (wanted - self.decode(data, round_seed)).astype(np.float32)

    def _refuse(self, data: bytes, expected: int) -> None:
        if len(data) != expected:
            raise ConfigError(
                f"compression: expected {expected} bytes for {self.size} numbers, got {len(data)}"
            )


class Float32(Compressor):
    """No compression: four bytes a number."""

    fits_secure_sums = True

    def encode(self, vector: Array, round_seed: int, rng: np.random.Generator) -> bytes:
        """Return the numbers as they are."""
        return vector.astype("<f4").tobytes()

    def decode(self, data: bytes, round_seed: int) -> Array:
        """Return the vector."""
        self._refuse(data, 4 * self.size)
        return np.frombuffer(data, "<f4").astype(np.float32)


class Int8(Compressor):
    """One byte a number, four for the scale of each 1,024; stochastic rounding (Alistarh et al., 2017: QSGD)."""

    def encode(self, vector: Array, round_seed: int, rng: np.random.Generator) -> bytes:
        """Return scales and numbers."""
        parts = self._chunks(vector.astype(np.float32))
        scales = np.abs(parts).max(1) / np.float32(127)
        scaled = parts / np.where(scales > 0, scales, 1)[:, None]
        below = np.floor(scaled)
        numbers = np.clip(below + (rng.random(scaled.shape) < scaled - below), -127, 127).astype(np.int8)
        return scales.astype("<f4").tobytes() + numbers.reshape(-1)[: self.size].tobytes()

    def decode(self, data: bytes, round_seed: int) -> Array:
        """Return the vector."""
        count = -(-self.size // _CHUNK)
        self._refuse(data, 4 * count + self.size)
        scales = np.frombuffer(data[: 4 * count], "<f4")
        numbers = self._chunks(np.frombuffer(data[4 * count :], np.int8).astype(np.float32))
        return (numbers * scales[:, None]).reshape(-1)[: self.size].astype(np.float32)

    def _chunks(self, vector: Array) -> Array:
        count = -(-self.size // _CHUNK)
        return np.pad(vector, (0, count * _CHUNK - self.size)).reshape(count, _CHUNK)


class TopK(Compressor):
    """The numbers of largest magnitude with their places, eight bytes each; take it with error feedback.

    Args:
        size: Numbers in a vector.
        keep: Share that is sent, in (0, 1].

    Raises:
        ConfigError: A share outside its range.
    """

    def __init__(self, size: int, keep: float = 0.01) -> None:
        super().__init__(size)
        self.count = _count(size, keep)

    def encode(self, vector: Array, round_seed: int, rng: np.random.Generator) -> bytes:
        """Return places and numbers."""
        places = np.sort(np.argpartition(np.abs(vector), self.size - self.count)[self.size - self.count :])
        return places.astype("<u4").tobytes() + vector[places].astype("<f4").tobytes()

    def decode(self, data: bytes, round_seed: int) -> Array:
        """Return the vector, 0 where nothing was sent."""
        self._refuse(data, 8 * self.count)
        places = np.frombuffer(data[: 4 * self.count], "<u4")
        if (places >= self.size).any():
            raise ConfigError(f"compression: a place beyond {self.size} numbers")
        vector = np.zeros(self.size, np.float32)
        vector[places] = np.frombuffer(data[4 * self.count :], "<f4")
        return vector


class RandomK(Compressor):
    """Numbers at random places, the same for all clients of a round: four bytes each, and sums of them are sums.

    Args:
        size: Numbers in a vector.
        keep: Share that is sent, in (0, 1].

    Raises:
        ConfigError: A share outside its range.
    """

    fits_secure_sums = True

    def __init__(self, size: int, keep: float = 0.1) -> None:
        super().__init__(size)
        self.count = _count(size, keep)

    def places(self, round_seed: int) -> Array:
        """Return the places of a round, int64 ``[k]``, sorted."""
        rng = np.random.Generator(np.random.Philox(key=round_seed))
        return np.sort(rng.choice(self.size, self.count, replace=False))

    def encode(self, vector: Array, round_seed: int, rng: np.random.Generator) -> bytes:
        """Return the numbers at the places of the round."""
        return vector[self.places(round_seed)].astype("<f4").tobytes()

    def decode(self, data: bytes, round_seed: int) -> Array:
        """Return the vector, 0 where nothing was sent: with error feedback the rest follows later."""
        self._refuse(data, 4 * self.count)
        vector = np.zeros(self.size, np.float32)
        vector[self.places(round_seed)] = np.frombuffer(data, "<f4")
        return vector


COMPRESSORS = {"none": Float32, "int8": Int8, "top_k": TopK, "random_k": RandomK}
"""By the name in settings."""


def compressor(name: str, size: int, keep: float | None = None) -> Compressor:
    """Return a compressor.

    Args:
        name: Of `COMPRESSORS`.
        size: Numbers in a vector.
        keep: Share of the numbers that "top_k" and "random_k" send; None for their defaults.

    Raises:
        ConfigError: An unknown name, or a share where none is needed.
    """
    kind = COMPRESSORS.get(name)
    if kind is None:
        raise ConfigError(
            f"compression.type: unknown '{name}'{did_you_mean(name, COMPRESSORS)}; allowed: {', '.join(COMPRESSORS)}"
        )
    if keep is None:
        return kind(size)
    if kind not in (TopK, RandomK):
        raise ConfigError(f"compression.keep: '{name}' sends every number; expected none")
    return kind(size, keep)  # type: ignore[call-arg]


def _count(size: int, keep: float) -> int:
    if not 0 < keep <= 1:
        raise ConfigError(f"compression.keep: expected a share in (0, 1], got {keep}")
    return max(1, round(keep * size))

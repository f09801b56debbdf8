"""What clients do to their updates before they send them: clip, compress, make integers, add noise."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np

from qio_rllib.federated.compression import RandomK, compressor
from qio_rllib.federated.federation_settings import FederationSettings
from qio_rllib.federated.privacy import clip, round_within, rounded_norm, skellam

Streams = Callable[..., np.random.Generator]
"""From a purpose and integers to random numbers that belong to them alone."""


class Sent(NamedTuple):
    """What a client sends of a round."""

    vector: np.ndarray | None  # float32 [d], as the server reads it; None where integers are sent
    integers: np.ndarray | None  # int64 [k]
    num_bytes: int  # without what secure aggregation adds


class Uplink:
    """Turns updates into what is sent; keeps of each client what was left out.

    Args:
        settings: Of the federation.
        size: Numbers ``d`` in an update.
        streams: Random numbers.

    Attributes:
        size: Numbers ``k`` that are sent.
        sensitivity: With privacy, the Euclidean norm of what one client adds to the sum at most (after rounding).
        noise_variance: With Skellam noise, the variance of one client's, in squared steps; 0 without.

    Raises:
        ConfigError: Sums of integers may leave 32 bits.
    """

    def __init__(self, settings: FederationSettings, size: int, streams: Streams) -> None:
        self._settings = settings
        self._streams = streams
        self._full_size = size
        compression = settings.compression
        self._compressor = compressor("none", size)
        self._feedback = False
        if compression is not None:
            self._compressor = compressor(compression.type, size, compression.keep)
            self._feedback = compression.error_feedback
        self.size = self._compressor.count if isinstance(self._compressor, RandomK) else size
        self._residuals: dict[int, np.ndarray] = {}
        self._waiting: dict[int, np.ndarray] = {}
        self._integers = settings.integers
        self.sensitivity = 0.0
        self.noise_variance = 0.0
        privacy = settings.privacy
        if privacy is not None:
            self.sensitivity = privacy.clip
            if self._integers is not None:
                steps = rounded_norm(privacy.clip * self._integers.scale, self.size)
                self.sensitivity = steps / self._integers.scale
                if privacy.mechanism == "skellam":
                    assert settings.secure is not None
                    fewest = settings.secure.min_clients - privacy.colluders
                    self.noise_variance = (privacy.noise_multiplier * steps) ** 2 / fewest
        if self._integers is not None:
            count = settings.largest_sum
            self._integers.check_sum(count, float(np.sqrt(count * self.noise_variance)))

    def send(self, client: int, update: np.ndarray, number: int) -> Sent:
        """Return what a client sends.

        Args:
            client: Its index.
            update: float32 ``[d]``, finite.
            number: Of the round.
        """
        rng = self._streams("rounding", number, client)
        wanted = update
        if self._feedback and client in self._residuals:
            wanted = update + self._residuals[client]
        if self._settings.privacy is not None:  # behind the residual, which could be of any length
            wanted = clip(wanted, self._settings.privacy.clip)
        if self._integers is not None:
            places = self._places(number)
            kept = wanted if places is None else wanted[places]
            integers = self._rounded(kept, rng)
            self._leave(client, wanted, self.expanded(self._integers.decode(integers), number))
            if self.noise_variance:
                integers = integers + skellam(
                    self.size, self.noise_variance, self._noise_stream(number, client)
                )
            return Sent(None, integers, 4 * self.size)
        data = self._compressor.encode(wanted, self._round_seed(number), rng)
        vector = self._compressor.decode(data, self._round_seed(number))
        self._leave(client, wanted, vector)
        return Sent(vector, None, len(data))

    def arrived(self, clients: Iterable[int]) -> None:
        """Take over what clients left out, of those whose update arrived; the others try again."""
        for client in clients:
            if client in self._waiting:
                self._residuals[client] = self._waiting[client]
        self._waiting = {}

    def expanded(self, kept: np.ndarray, number: int) -> np.ndarray:
        """Return a vector ``[d]`` of what all clients keep in a round, ``[k]``; 0 elsewhere."""
        places = self._places(number)
        if places is None:
            return kept
        whole = np.zeros(self._full_size, kept.dtype)
        whole[places] = kept
        return whole

    def get_state(self) -> dict[str, Any]:
        """Return what clients left out."""
        return {"residuals": {client: residual.copy() for client, residual in self._residuals.items()}}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self._residuals = {int(client): residual.copy() for client, residual in state["residuals"].items()}

    def _rounded(self, kept: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        assert self._integers is not None
        if self._settings.privacy is None:
            return self._integers.encode(kept, rng)
        scale = self._integers.scale
        return round_within(kept.astype(np.float64) * scale, self.sensitivity * scale, rng)

    def _noise_stream(self, number: int, client: int) -> np.random.Generator:
        privacy = self._settings.privacy
        assert privacy is not None
        if privacy.randomness == "system":
            return np.random.Generator(np.random.Philox())
        return self._streams("privacy noise", number, client)

    def _leave(self, client: int, wanted: np.ndarray, sent: np.ndarray) -> None:
        if self._feedback:
            self._waiting[client] = (wanted - sent).astype(np.float32)

    def _places(self, number: int) -> np.ndarray | None:
        if isinstance(self._compressor, RandomK):
            return self._compressor.places(self._round_seed(number))
        return None

    def _round_seed(self, number: int) -> int:
        return int(self._streams("compression", number).integers(2**63))

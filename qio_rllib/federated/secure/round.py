"""What all parties of a round agree on beforehand, and who talks to whom."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.federated.secure.primitives import digest, key_numbers

MIN_CLIENTS = 3
"""The sum of fewer clients says too much of each."""


class ProtocolError(Exception):
    """A party cannot go on."""


class AbortError(ProtocolError):
    """A client stops: what it was sent would cost it its privacy, or makes no sense."""


class RefusedError(ProtocolError):
    """The server refuses a message: forged, changed, repeated, late, or not of this round."""


class RoundFailedError(ProtocolError):
    """Too few clients are left: nothing is released."""


@dataclasses.dataclass(frozen=True)
class Round:
    """A round of secure aggregation: every key and signature is bound to all of this by `info`.

    Attributes:
        run: Name of the run.
        number: Of the round.
        layout: Hash of the layout of the vectors.
        weights: Hash of the weights that were sent out; masks of clients that were given different ones do not cancel.
        size: Numbers ``d`` in a vector.
        cohort: Ids of the clients that were chosen, at least `MIN_CLIENTS`.
        threshold: Neighbours that restore the secrets of a client that is gone, more than half of `neighbours`: else a
            server could obtain both secrets of a client from two halves of its neighbours.
        neighbours: Clients that each one shares secrets with, an even number, or at least all others, which is then
            the number of all others.
        min_clients: Clients whose sum may be released at least.

    Raises:
        ConfigError: A value outside its range; the message names it.
    """

    run: str
    number: int
    layout: bytes
    weights: bytes
    size: int
    cohort: tuple[int, ...]
    threshold: int
    neighbours: int
    min_clients: int = MIN_CLIENTS

    def __post_init__(self) -> None:
        count = len(self.cohort)
        if count < MIN_CLIENTS:
            raise ConfigError(
                f"clients: secure aggregation needs at least {MIN_CLIENTS} a round, got {count}"
            )
        if len(set(self.cohort)) != count or any(not 0 <= client < 2**32 for client in self.cohort):
            raise ConfigError("clients: expected different ids from 0 to 2^32 - 1")
        object.__setattr__(self, "cohort", tuple(sorted(self.cohort)))
        if self.neighbours >= count - 1:
            object.__setattr__(self, "neighbours", count - 1)
        elif self.neighbours < 2 or self.neighbours % 2:
            raise ConfigError(
                f"neighbours: expected an even number of at least 2 (or all others), got {self.neighbours}"
            )
        if not self.neighbours // 2 < self.threshold <= self.neighbours:
            raise ConfigError(
                f"threshold: expected {self.neighbours // 2 + 1} to {self.neighbours} (more than half of the "
                f"neighbours), got {self.threshold}"
            )
        if not MIN_CLIENTS <= self.min_clients <= count:
            raise ConfigError(f"min_clients: expected {MIN_CLIENTS} to {count}, got {self.min_clients}")
        if self.size < 1:
            raise ConfigError(f"size: expected at least one number, got {self.size}")

    @functools.cached_property
    def info(self) -> bytes:
        """Hash of everything above, 32 bytes."""
        numbers = (self.number, self.size, self.threshold, self.neighbours, self.min_clients, *self.cohort)
        return digest(
            b"qio secure aggregation 1",
            self.run.encode(),
            self.layout,
            self.weights,
            *(number.to_bytes(8) for number in numbers),
        )

    @functools.cached_property
    def neighbours_of(self) -> dict[int, tuple[int, ...]]:
        """Ids of each client's neighbours, by client id.

        A random regular graph: a ring in an order that `info` gives, in which each one is joined to the
        ``neighbours / 2`` next on either side (Bell et al., "Secure single-server aggregation with (poly)logarithmic
        overhead", 2020). Nobody chooses it.
        """
        count = len(self.cohort)
        if self.neighbours == count - 1:
            return {one: tuple(other for other in self.cohort if other != one) for one in self.cohort}
        ring = np.array(self.cohort)[
            np.argsort(key_numbers(digest(b"graph", self.info), count), kind="stable")
        ]
        reach = self.neighbours // 2
        offsets = np.concatenate([np.arange(-reach, 0), np.arange(1, reach + 1)])
        around = ring[(np.arange(count)[:, None] + offsets) % count]
        return {int(one): tuple(sorted(map(int, row))) for one, row in zip(ring, around, strict=True)}

    def mask_of(self, clients: Sequence[int]) -> bytes:
        """Return a set of clients as one bit for each of the cohort.

        Raises:
            KeyError: A client that does not belong to the cohort.
        """
        bits = np.zeros(len(self.cohort), np.uint8)
        bits[[self._place[client] for client in clients]] = 1
        return np.packbits(bits).tobytes()

    def clients_of(self, mask: bytes) -> frozenset[int]:
        """Return the set of clients of a mask.

        Raises:
            ValueError: Of another length.
        """
        if len(mask) != (len(self.cohort) + 7) // 8:
            raise ValueError(f"mask: expected {(len(self.cohort) + 7) // 8} bytes, got {len(mask)}")
        bits = np.unpackbits(np.frombuffer(mask, np.uint8))
        if bits[len(self.cohort) :].any():
            raise ValueError("mask: names clients that do not exist")
        return frozenset(self.cohort[place] for place in np.flatnonzero(bits))

    @functools.cached_property
    def _place(self) -> dict[int, int]:
        return {client: place for place, client in enumerate(self.cohort)}


def neighbourhood(
    num_clients: int,
    corrupt: float = 0.1,
    dropping: float = 0.2,
    security_bits: int = 40,
    failure_bits: int = 20,
) -> tuple[int, int]:
    """Return how many neighbours and which threshold are enough, ``(neighbours, threshold)``.

    Both are bounded by hypergeometric tails, for all clients together. Privacy: with the corrupt ones that sign
    anything, ``2 threshold`` signers of two different sets must not be found among the neighbours, so that fewer than
    ``2 threshold - neighbours`` of them may be corrupt. Release: at least `threshold` neighbours stay.

    Args:
        num_clients: In a round.
        corrupt: Share of the clients that collude with the server, in [0, 1/3).
        dropping: Share that is lost in the course of the round, in [0, 1/2).
        security_bits: The probability that privacy fails is at most 2 to the minus this.
        failure_bits: The probability that the round fails is at most 2 to the minus this.

    Raises:
        ConfigError: No neighbourhood is large enough.
    """
    from scipy.stats import hypergeom  # takes half a second

    others = num_clients - 1
    bad, lost = round(corrupt * num_clients), round(dropping * num_clients)
    sizes = [*range(2, others, 2), others] if others >= 2 else []
    for size in sizes:
        thresholds = np.arange(size // 2 + 1, size + 1)
        unsafe = num_clients * hypergeom.sf(2 * thresholds - size - 1, others, min(bad, others), size)
        fails = num_clients * hypergeom.cdf(thresholds - 1, others, others - min(lost, others), size)
        good = np.flatnonzero((unsafe <= 2.0**-security_bits) & (fails <= 2.0**-failure_bits))
        if good.size:
            return size, int(thresholds[good[0]])
    raise ConfigError(
        f"clients: {num_clients} a round with {corrupt:.0%} corrupt and {dropping:.0%} dropping admit no threshold; "
        "expected more clients or fewer of those"
    )

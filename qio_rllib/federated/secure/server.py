"""The server's side of secure aggregation: forwards messages, adds masked vectors, takes the masks off the sum."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from qio_rllib.federated.secure import shamir
from qio_rllib.federated.secure.client import commit, pair_key, pair_sign, seed_key
from qio_rllib.federated.secure.messages import (
    SHARES_BYTES,
    Keys,
    Step,
    is_authentic,
    keys_of,
    pack_by_client,
    parse,
    unpack_by_client,
)
from qio_rllib.federated.secure.primitives import add_key_stream, shared_secret
from qio_rllib.federated.secure.round import RefusedError, Round, RoundFailedError

_COMMITMENT_BYTES = 32


class SecureServer:
    """Collects the messages of a round step by step: `receive` each, then `close_step`; at the end `total`.

    Args:
        round_: What was agreed on.
        identities: Public keys of all clients.
    """

    def __init__(self, round_: Round, identities: Mapping[int, Ed25519PublicKey]) -> None:
        self.round = round_
        self.step = Step.ADVERTISE
        self._identities = identities
        self._received: dict[Step, dict[int, bytes]] = {step: {} for step in Step}  # payloads
        self._messages: dict[int, bytes] = {}  # of the present step, as they came
        self._expected = frozenset(round_.cohort)
        self._keys: dict[int, Keys] = {}
        self._shares: dict[int, dict[int, bytes]] = {}  # by sender, then by holder
        self._sum = np.zeros(round_.size, np.uint32)
        self._probe = X25519PrivateKey.generate()

    def clients(self, step: Step) -> frozenset[int]:
        """Return who took part in a step."""
        return frozenset(self._received[step])

    def receive(self, message: bytes) -> None:
        """Take a client's message of the present step.

        Raises:
            RefusedError: Of another round or step, not signed by its sender, repeated, of somebody who missed an
                earlier step, or of the wrong form.
        """
        try:
            signed = parse(message)
        except ValueError as error:
            raise RefusedError(str(error)) from error
        sender, who = signed.sender, f"client {signed.sender}"
        if signed.step is not self.step:
            raise RefusedError(
                f"{who}: message of step {signed.step.name.lower()} in step {self.step.name.lower()}"
            )
        if sender not in self._expected:
            raise RefusedError(f"{who}: does not take part, or missed an earlier step")
        if sender in self._received[self.step]:
            raise RefusedError(f"{who}: sent a second message of step {self.step.name.lower()}")
        if not is_authentic(signed, self.round.info, self._identities):
            raise RefusedError(f"{who}: wrong signature")
        try:
            self._take(sender, signed.payload)
        except ValueError as error:
            raise RefusedError(f"{who}: {error}") from error
        self._received[self.step][sender] = b"" if self.step is Step.UPLOAD else signed.payload
        if self.step in (Step.ADVERTISE, Step.CONFIRM):
            self._messages[sender] = message

    def close_step(self) -> dict[int, bytes]:
        """End the present step; return what each client that is left is to be sent.

        Raises:
            RoundFailedError: Too few clients are left.
        """
        step, here = self.step, self.clients(self.step)
        if len(here) < self.round.min_clients:
            raise RoundFailedError(
                f"step {step.name.lower()}: {len(here)} clients are left; expected {self.round.min_clients}"
            )
        around = {client: here.intersection(self.round.neighbours_of[client]) for client in here}
        if step in (Step.ADVERTISE, Step.CONFIRM):
            found = {
                client: pack_by_client({other: self._messages[other] for other in sorted(others)})
                for client, others in around.items()
            }
        elif step is Step.SHARE:
            found = {
                client: pack_by_client({other: self._shares[other][client] for other in sorted(others)})
                for client, others in around.items()
            }
        elif step is Step.UPLOAD:
            found = dict.fromkeys(here, self.round.mask_of(list(here)))
        else:
            raise RoundFailedError("the last step has no successor; take the total")
        self._expected, self._messages = here, {}
        self.step = Step(step + 1)
        return found

    def total(self) -> np.ndarray:
        """Return the sum of the vectors of all that uploaded, int64 ``[d]``, centred: from -2^31 to 2^31 - 1.

        Raises:
            RoundFailedError: Too few shares, or wrong ones; nothing is released.
        """
        if self.step is not Step.UNMASK:
            raise RoundFailedError(f"step {self.step.name.lower()} is not over")
        alive, shared = self.clients(Step.UPLOAD), self.clients(Step.SHARE)
        shares: dict[int, dict[int, bytes]] = {}
        for holder, payload in self._received[Step.UNMASK].items():
            for owner, part in unpack_by_client(payload, self.round.neighbours_of[holder]).items():
                shares.setdefault(owner, {})[holder] = part
        result = self._sum.copy()
        for client in sorted(alive):
            seed = self._restored(client, shares, functools.partial(self._is_seed, client))
            add_key_stream(result, seed_key(self.round, seed), -1)
        for client in sorted(shared - alive):
            touched = alive.intersection(self.round.neighbours_of[client])
            if touched:
                private = X25519PrivateKey.from_private_bytes(
                    self._restored(client, shares, functools.partial(self._is_private, client))
                )
                for other in touched:
                    key = pair_key(self.round, private, self._keys[other].masking)
                    add_key_stream(result, key, -pair_sign(other, client))
        return result.view(np.int32).astype(np.int64)

    def _take(self, sender: int, payload: bytes) -> None:
        """Check a payload and keep what is needed of it."""
        if self.step is Step.ADVERTISE:
            keys = keys_of(payload)
            for key in keys:
                shared_secret(
                    self._probe, key
                )  # refuses keys of small order, at which honest clients would stop
            self._keys[sender] = keys
        elif self.step is Step.SHARE:
            holders = self._holders(sender)
            parts = unpack_by_client(payload[_COMMITMENT_BYTES:], holders)
            if any(len(part) != SHARES_BYTES for part in parts.values()):
                raise ValueError(f"shares: expected {SHARES_BYTES} bytes each")
            if len(parts) < len(holders):
                raise ValueError(f"shares: expected {len(holders)}, one for each neighbour, got {len(parts)}")
            self._shares[sender] = parts
        elif self.step is Step.UPLOAD:
            if len(payload) != 4 * self.round.size:
                raise ValueError(f"vector: expected {4 * self.round.size} bytes, got {len(payload)}")
            self._sum += np.frombuffer(payload, "<u4")
        elif self.step is Step.CONFIRM:
            if payload != self.round.mask_of(list(self.clients(Step.UPLOAD))):
                raise ValueError("survivors: another set than that of the uploads")
        else:
            parts = unpack_by_client(payload, self._holders(sender))
            if any(len(part) != shamir.SHARE_BYTES for part in parts.values()):
                raise ValueError(f"shares: expected {shamir.SHARE_BYTES} bytes each")

    def _holders(self, client: int) -> frozenset[int]:
        return self.clients(Step.ADVERTISE).intersection(self.round.neighbours_of[client])

    def _restored(
        self, client: int, shares: Mapping[int, Mapping[int, bytes]], is_right: Callable[[bytes], bool]
    ) -> bytes:
        held = shares.get(client, {})
        threshold = self.round.threshold
        if len(held) < threshold:
            raise RoundFailedError(f"client {client}: {len(held)} shares of its secret; expected {threshold}")
        points = {holder + 1: held[holder] for holder in sorted(held)}
        few = dict(itertools.islice(points.items(), threshold))
        for restore in (lambda: shamir.restore(few), lambda: shamir.correct(points, threshold)):
            try:
                found = restore()
            except ValueError:
                continue  # somebody sent a wrong share
            if is_right(found):
                return found
        raise RoundFailedError(f"client {client}: its shares restore nothing that it committed itself to")

    def _is_seed(self, client: int, seed: bytes) -> bool:
        return commit(self.round, seed) == self._received[Step.SHARE][client][:_COMMITMENT_BYTES]

    def _is_private(self, client: int, private: bytes) -> bool:
        public = X25519PrivateKey.from_private_bytes(private).public_key().public_bytes_raw()
        return public == self._keys[client].masking

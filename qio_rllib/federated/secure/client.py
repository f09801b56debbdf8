"""A client's side of secure aggregation."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import NoReturn

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from qio_rllib.federated.secure import shamir
from qio_rllib.federated.secure.messages import (
    SHARES_BYTES,
    Keys,
    Signed,
    Step,
    is_authentic,
    keys_of,
    pack_by_client,
    parse,
    sign,
    unpack_by_client,
)
from qio_rllib.federated.secure.primitives import (
    add_key_stream,
    decrypt,
    derive_key,
    digest,
    encrypt,
    shared_secret,
)
from qio_rllib.federated.secure.round import AbortError, Round


class SecureClient:
    """Contributes one vector to the sum of a round, of which nobody sees more than the sum.

    Each method takes what the server sent, is called once, and returns the message for the server. Keys are fresh and
    are never written anywhere.

    Args:
        client: Id.
        identity: Its private key.
        identities: Everybody's public key, known beforehand.
        round_: What was agreed on; the hash of the weights is that of the weights that THIS client received.

    Raises:
        AbortError: It does not belong to the cohort.
    """

    def __init__(
        self,
        client: int,
        identity: Ed25519PrivateKey,
        identities: Mapping[int, Ed25519PublicKey],
        round_: Round,
    ) -> None:
        self.client = client
        self.round = round_
        self._identity = identity
        self._identities = identities
        self._done = 0
        if client not in round_.neighbours_of:
            self._abort("is not one of the cohort")
        self._neighbours = round_.neighbours_of[client]
        self._sharing, self._masking = X25519PrivateKey.generate(), X25519PrivateKey.generate()
        self._seed = secrets.token_bytes(32)
        self._keys: dict[int, Keys] = {}  # of the neighbours that advertised
        self._ciphertexts: dict[int, bytes] = {}  # of the neighbours that shared
        self._survivors = b""

    def advertise(self) -> bytes:
        """Return the public keys of the round."""
        self._begin(Step.ADVERTISE)
        keys = (self._sharing, self._masking)
        return self._signed(Step.ADVERTISE, b"".join(key.public_key().public_bytes_raw() for key in keys))

    def share(self, advertised: bytes) -> bytes:
        """Share both secrets among the neighbours, each share encrypted for its holder.

        Args:
            advertised: The neighbours' messages of the first step.

        Raises:
            AbortError: A key that its owner did not sign, or too few neighbours.
        """
        self._begin(Step.SHARE)
        for sender, message in self._parts(advertised).items():
            signed = self._authentic(message, sender, Step.ADVERTISE)
            try:
                self._keys[sender] = keys_of(signed.payload)
            except ValueError as error:
                self._abort(f"was given keys of client {sender} that are none", error)
        self._need(self._keys, "keys")
        holders = list(self._keys)
        points = {holder: holder + 1 for holder in holders}
        threshold = self.round.threshold
        seeds = shamir.share(self._seed, list(points.values()), threshold)
        masks = shamir.share(self._masking.private_bytes_raw(), list(points.values()), threshold)
        parts = {
            holder: encrypt(
                self._share_key(holder, self.client, holder),
                seeds[points[holder]] + masks[points[holder]],
                self._direction(self.client, holder),
            )
            for holder in holders
        }
        commitment = commit(self.round, self._seed)
        return self._signed(Step.SHARE, commitment + pack_by_client(parts))

    def upload(self, ciphertexts: bytes, values: np.ndarray) -> bytes:
        """Return the masked vector.

        Args:
            ciphertexts: Shares of the neighbours' secrets, which they encrypted for this client.
            values: Integers ``[d]``; they count modulo 2^32.

        Raises:
            AbortError: Too few neighbours shared.
            ValueError: A vector of another size or type.
        """
        self._begin(Step.UPLOAD)
        if values.shape != (self.round.size,) or values.dtype.kind not in "iu":
            raise ValueError(
                f"values: expected integers of shape ({self.round.size},), got {values.dtype} {values.shape}"
            )
        for sender, ciphertext in self._parts(ciphertexts).items():
            if sender not in self._keys or len(ciphertext) != SHARES_BYTES:
                self._abort(f"was given shares of client {sender} that are none")
            self._ciphertexts[sender] = ciphertext
        self._need(self._ciphertexts, "shares")
        total = values.astype(np.int64).astype(np.uint32)  # modulo 2^32
        add_key_stream(total, seed_key(self.round, self._seed), 1)
        for other in self._ciphertexts:
            try:
                key = pair_key(self.round, self._masking, self._keys[other].masking)
            except ValueError as error:
                self._abort(f"was given a key of client {other} of small order", error)
            add_key_stream(total, key, pair_sign(self.client, other))
        return self._signed(Step.UPLOAD, total.astype("<u4", copy=False).tobytes())

    def confirm(self, survivors: bytes) -> bytes:
        """Sign the set of clients whose vectors the server has.

        Args:
            survivors: One bit for each of the cohort.

        Raises:
            AbortError: Too few of them, without this client, or with one that shared nothing.
        """
        self._begin(Step.CONFIRM)
        try:
            clients = self.round.clients_of(survivors)
        except ValueError as error:
            self._abort("was given no set of survivors", error)
        if self.client not in clients:
            self._abort("is missing from the survivors, though it uploaded")
        if len(clients) < self.round.min_clients:
            self._abort(f"was asked to release a sum of {len(clients)}; expected {self.round.min_clients}")
        around = clients.intersection(self._neighbours)
        if not around <= self._ciphertexts.keys():
            self._abort("was given survivors of which it holds no shares")
        self._need(around, "surviving neighbours")
        self._survivors = survivors
        return self._signed(Step.CONFIRM, survivors)

    def unmask(self, confirmed: bytes) -> bytes:
        """Reveal, for each neighbour, the share of one of its two secrets: its seed if it uploaded, else its key.

        Args:
            confirmed: The neighbours' messages of the step before.

        Raises:
            AbortError: Too few neighbours signed the set that this client signed, or a signature is wrong.
        """
        self._begin(Step.UNMASK)
        signers = set()
        for sender, message in self._parts(confirmed).items():
            signed = self._authentic(message, sender, Step.CONFIRM)
            if signed.payload != self._survivors:
                self._abort(f"signed another set of survivors than client {sender}")
            signers.add(sender)
        self._need(signers, "signatures")
        alive = self.round.clients_of(self._survivors)
        found = {}
        for other, ciphertext in self._ciphertexts.items():
            key = self._share_key(other, other, self.client)
            shares = decrypt(key, ciphertext, self._direction(other, self.client))
            if shares is None:
                continue  # a neighbour that encrypted nonsense; the other holders are enough
            half = len(shares) // 2
            found[other] = shares[:half] if other in alive else shares[half:]
        return self._signed(Step.UNMASK, pack_by_client(found))

    def _begin(self, step: Step) -> None:
        if self._done != step - 1:
            self._abort(f"was asked for step {step.name.lower()} out of turn")
        self._done = step

    def _parts(self, data: bytes) -> dict[int, bytes]:
        try:
            return unpack_by_client(data, self._neighbours)
        except ValueError as error:
            self._abort("was sent no message of its neighbours", error)

    def _authentic(self, message: bytes, sender: int, step: Step) -> Signed:
        try:
            signed = parse(message)
        except ValueError as error:
            self._abort(f"was sent no message of client {sender}", error)
        if signed[:2] != (step, sender) or not is_authentic(signed, self.round.info, self._identities):
            self._abort(f"was sent a message that client {sender} did not sign in this round")
        return signed

    def _need(self, found: object, what: str) -> None:
        if len(found) < self.round.threshold:  # type: ignore[arg-type]
            self._abort(f"has {len(found)} {what}; expected {self.round.threshold}")  # type: ignore[arg-type]

    def _share_key(self, other: int, sender: int, receiver: int) -> bytes:
        try:
            secret = shared_secret(self._sharing, self._keys[other].sharing)
        except ValueError as error:
            self._abort(f"was given a key of client {other} of small order", error)
        return derive_key(secret, b"share", self._direction(sender, receiver))

    def _direction(self, sender: int, receiver: int) -> bytes:
        return self.round.info + sender.to_bytes(4) + receiver.to_bytes(4)

    def _signed(self, step: Step, payload: bytes) -> bytes:
        return sign(self._identity, self.round.info, step, self.client, payload)

    def _abort(self, why: str, cause: Exception | None = None) -> NoReturn:
        self._done = max(Step) + 1  # nothing more of it in this round
        raise AbortError(f"client {self.client} {why}") from cause


def commit(round_: Round, seed: bytes) -> bytes:
    """Return what binds a client to its seed without showing it."""
    return digest(b"commitment", round_.info, seed)


def seed_key(round_: Round, seed: bytes) -> bytes:
    """Return the key of the mask that a client puts on alone."""
    return derive_key(seed, b"own mask", round_.info)


def pair_key(round_: Round, private: X25519PrivateKey, public: bytes) -> bytes:
    """Return the key of the mask that two neighbours share.

    Raises:
        ValueError: A public key of small order.
    """
    return derive_key(shared_secret(private, public), b"pair mask", round_.info)


def pair_sign(client: int, other: int) -> int:
    """Return with which sign a client adds the mask that it shares with another one: theirs cancel."""
    return 1 if other > client else -1

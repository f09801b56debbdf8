"""Messages of the protocol as bytes, signed by their senders."""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from qio_rllib.federated.secure.primitives import (
    KEY_BYTES,
    SIGNATURE_BYTES,
    ciphertext_bytes,
    digest,
    is_signed,
    pack,
    unpack,
)
from qio_rllib.federated.secure.shamir import SHARE_BYTES

_HEAD = 5  # bytes: step, sender
SHARES_BYTES = ciphertext_bytes(2 * SHARE_BYTES)


class Step(enum.IntEnum):
    """The five messages of a client, in their order."""

    ADVERTISE = 1
    SHARE = 2
    UPLOAD = 3
    CONFIRM = 4
    UNMASK = 5


class Signed(NamedTuple):
    """A client's message."""

    step: Step
    sender: int
    payload: bytes
    signature: bytes


def sign(identity: Ed25519PrivateKey, info: bytes, step: Step, sender: int, payload: bytes) -> bytes:
    """Return a message, signed together with the round, the step and its sender."""
    signature = identity.sign(_signed_bytes(info, step, sender, payload))
    return step.to_bytes(1) + sender.to_bytes(4) + signature + payload


def parse(message: bytes) -> Signed:
    """Take a message apart; nothing of it is checked.

    Raises:
        ValueError: It is no message.
    """
    if len(message) < _HEAD + SIGNATURE_BYTES:
        raise ValueError("message: cut off")
    end = _HEAD + SIGNATURE_BYTES
    return Signed(
        Step(message[0]), int.from_bytes(message[1:_HEAD]), message[end:], message[_HEAD:end]
    )  # Step refuses other numbers


def is_authentic(message: Signed, info: bytes, identities: Mapping[int, Ed25519PublicKey]) -> bool:
    """Return whether a message of this round was signed by its sender."""
    public = identities.get(message.sender)
    signed = _signed_bytes(info, message.step, message.sender, message.payload)
    return public is not None and is_signed(public, message.signature, signed)


def _signed_bytes(info: bytes, step: Step, sender: int, payload: bytes) -> bytes:
    return digest(info, step.to_bytes(1), sender.to_bytes(4), payload)


class Keys(NamedTuple):
    """What a client advertises: public keys of the round."""

    sharing: bytes
    masking: bytes


def keys_of(payload: bytes) -> Keys:
    """Read an advertisement.

    Raises:
        ValueError: Of another length.
    """
    if len(payload) != 2 * KEY_BYTES:
        raise ValueError(f"keys: expected {2 * KEY_BYTES} bytes, got {len(payload)}")
    return Keys(payload[:KEY_BYTES], payload[KEY_BYTES:])


def pack_by_client(parts: Mapping[int, bytes]) -> bytes:
    """Join byte strings that belong to clients."""
    return pack([client.to_bytes(4) + part for client, part in parts.items()])


def unpack_by_client(data: bytes, allowed: Iterable[int]) -> dict[int, bytes]:
    """Undo `pack_by_client`.

    Raises:
        ValueError: Data that it did not make, a client that is not allowed, or one twice.
    """
    found: dict[int, bytes] = {}
    known = set(allowed)
    for part in unpack(data):
        client = int.from_bytes(part[:4])
        if len(part) < 4 or client not in known or client in found:
            raise ValueError("message: names a client that it must not name, or one twice")
        found[client] = part[4:]
    return found

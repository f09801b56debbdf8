"""What the protocol is made of: X25519, Ed25519, HKDF-SHA256, AES-256-GCM and AES-256-CTR, from ``cryptography``."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

import numpy as np
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
SIGNATURE_BYTES = 64
_TAG_BYTES = 16
_ZERO_NONCE = bytes(12)
_BLOCK = 1 << 16  # bytes of key stream at once: they stay in the second-level cache
_ZEROS = bytes(_BLOCK)


def digest(*parts: bytes) -> bytes:
    """Return the SHA-256 of parts, each preceded by its length, so that no two sequences of parts agree."""
    whole = hashlib.sha256()
    for part in parts:
        whole.update(len(part).to_bytes(8))
        whole.update(part)
    return whole.digest()


def derive_key(secret: bytes, *context: bytes) -> bytes:
    """Return a key of 32 bytes that is bound to a context: HKDF with SHA-256 (RFC 5869), without salt."""
    extracted = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(extracted, digest(*context) + b"\x01", "sha256")


def shared_secret(private: X25519PrivateKey, public: bytes) -> bytes:
    """Return the Diffie-Hellman secret of a private key and somebody's public key.

    Raises:
        ValueError: No public key, or one of small order.
    """
    return private.exchange(X25519PublicKey.from_public_bytes(public))


def encrypt(key: bytes, message: bytes, associated: bytes) -> bytes:
    """Encrypt and authenticate a message by AES-256-GCM.

    The nonce is 0: a key must encrypt one message only. Those of the protocol are derived anew in each round, one for
    each direction of each pair.
    """
    return AESGCM(key).encrypt(_ZERO_NONCE, message, associated)


def decrypt(key: bytes, ciphertext: bytes, associated: bytes) -> bytes | None:
    """Return the message; None where the ciphertext or what is associated with it was changed."""
    try:
        return AESGCM(key).decrypt(_ZERO_NONCE, ciphertext, associated)
    except InvalidTag:
        return None


def is_signed(public: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    """Return whether a signature is that of a message."""
    try:
        public.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def identities(count: int) -> tuple[list[Ed25519PrivateKey], list[Ed25519PublicKey]]:
    """Return new identities: private keys, one a client, and the public keys that everybody knows beforehand."""
    private = [Ed25519PrivateKey.generate() for _ in range(count)]
    return private, [key.public_key() for key in private]


def add_key_stream(total: np.ndarray, key: bytes, sign: int) -> None:
    """Add the numbers that a key expands to, AES-256-CTR from counter 0, modulo 2^32, in place.

    Args:
        total: uint32 ``[d]``, contiguous.
        key: 32 bytes, for this vector alone.
        sign: 1 to add, -1 to subtract.
    """
    stream = _key_stream(key)
    numbers = total.view(np.uint32)
    for start in range(0, len(numbers), _BLOCK // 4):
        part = numbers[start : start + _BLOCK // 4]
        mask = np.frombuffer(stream.update(_ZEROS[: part.nbytes]), np.dtype("<u4"))
        (np.add if sign > 0 else np.subtract)(part, mask, out=part)


def key_numbers(key: bytes, size: int) -> np.ndarray:
    """Return the first numbers of a key's stream, uint32 ``[size]``."""
    numbers = np.zeros(size, np.uint32)
    add_key_stream(numbers, key, 1)
    return numbers


def _key_stream(key: bytes) -> CipherContext:
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()


def ciphertext_bytes(plain: int) -> int:
    """Return how long the ciphertext of so many bytes is."""
    return plain + _TAG_BYTES


def pack(parts: Sequence[bytes]) -> bytes:
    """Join byte strings, each preceded by its length in 4 bytes."""
    return b"".join(len(part).to_bytes(4) + part for part in parts)


def unpack(data: bytes) -> list[bytes]:
    """Undo `pack`.

    Raises:
        ValueError: Data that `pack` did not make.
    """
    parts, place = [], 0
    while place < len(data):
        end = place + 4 + int.from_bytes(data[place : place + 4])
        if place + 4 > len(data) or end > len(data):
            raise ValueError("message: cut off")
        parts.append(data[place + 4 : end])
        place = end
    return parts

"""Shamir's secret sharing of 256-bit secrets: any ``threshold`` shares restore a secret, fewer say nothing about it."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping, Sequence

PRIME = 2**256 + 297
"""The field's modulus, the smallest prime above 2^256: every 32-byte secret is an element."""

SHARE_BYTES = 33
"""Bytes of an element of the field."""


def share(
    secret: bytes,
    points: Sequence[int],
    threshold: int,
    random_below: Callable[[int], int] = secrets.randbelow,
) -> dict[int, bytes]:
    """Split a secret (Shamir, "How to share a secret", 1979).

    Args:
        secret: 32 bytes.
        points: Where the polynomial is evaluated, a different integer of at least 1 for each holder.
        threshold: Shares that restore the secret, from 1 to the number of holders.
        random_below: Draws coefficients below a bound, uniformly; the operating system's randomness.

    Returns:
        Shares of `SHARE_BYTES` by point.

    Raises:
        ValueError: A secret of another length, points that repeat or are out of range, or a threshold out of range.
    """
    if len(secret) != 32:
        raise ValueError(f"secret: expected 32 bytes, got {len(secret)}")
    _check_points(points)
    if not 1 <= threshold <= len(points):
        raise ValueError(f"threshold: expected 1 to {len(points)} (the number of holders), got {threshold}")
    coefficients = [int.from_bytes(secret)] + [random_below(PRIME) for _ in range(threshold - 1)]
    coefficients.reverse()
    shares = {}
    for point in points:
        value = 0
        for coefficient in coefficients:
            value = (value * point + coefficient) % PRIME
        shares[point] = value.to_bytes(SHARE_BYTES)
    return shares


def restore(shares: Mapping[int, bytes]) -> bytes:
    """Restore a secret from as many shares as its threshold, by Lagrange interpolation at 0.

    Args:
        shares: By point; exactly as many as needed make the result right, fewer give another number.

    Returns:
        32 bytes.

    Raises:
        ValueError: No shares, wrong points, a share that is no element of the field, or shares that restore no
            32-byte secret.
    """
    points = list(shares)
    if not points:
        raise ValueError("shares: expected at least one")
    _check_points(points)
    values = [int.from_bytes(shares[point]) for point in points]
    if any(len(shares[point]) != SHARE_BYTES for point in points) or max(values) >= PRIME:
        raise ValueError(f"shares: expected elements of the field in {SHARE_BYTES} bytes")
    numerator = math.prod(points) % PRIME  # product over all holders; each weight divides its own point out
    denominators = [
        point * math.prod(other - point for other in points if other != point) % PRIME for point in points
    ]
    total = 0
    for value, inverse in zip(values, _inverses(denominators), strict=True):
        total += value * inverse
    secret = total * numerator % PRIME
    if secret >= 2**256:
        raise ValueError("shares: they restore no 32-byte secret; one of them is wrong, or some are missing")
    return secret.to_bytes(32)


def correct(shares: Mapping[int, bytes], threshold: int) -> bytes:
    """Restore a secret where some shares are wrong: up to half of those beyond the threshold.

    Shares are a Reed-Solomon code word, decoded by Gao, "A new algorithm for decoding Reed-Solomon codes", 2003.

    Args:
        shares: By point, each of `SHARE_BYTES`; values count modulo the field.
        threshold: Of the secret.

    Returns:
        32 bytes.

    Raises:
        ValueError: Too many wrong shares, or fewer than the threshold.
    """
    _check_points(list(shares))
    count = len(shares)
    if count < threshold:
        raise ValueError(f"shares: expected {threshold}, got {count}")
    vanishing, interpolated = [1], [0]
    for point, share_ in shares.items():  # Newton's interpolation, coefficients from the lowest
        gap = int.from_bytes(share_) - _value(interpolated, point)
        slope = gap * pow(_value(vanishing, point), -1, PRIME) % PRIME
        interpolated = _combined(interpolated, [slope * one for one in vanishing])
        vanishing = _combined([0, *vanishing], [-point * one for one in vanishing])
    before, now = vanishing, interpolated
    factor_before, factor = [0], [1]
    while 2 * (len(now) - 1) >= count + threshold and now != [0]:
        quotient, rest = _divided(before, now)
        before, now = now, rest
        product = [0] * (len(quotient) + len(factor) - 1)
        for i, one in enumerate(quotient):
            for j, other in enumerate(factor):
                product[i + j] += one * other
        factor_before, factor = factor, _combined(factor_before, [-one for one in product])
    message, rest = _divided(now, factor)
    if rest != [0] or len(message) > threshold or message[0] >= 2**256:
        raise ValueError("shares: too many of them are wrong")
    return message[0].to_bytes(32)


def _value(polynomial: Sequence[int], point: int) -> int:
    value = 0
    for coefficient in reversed(polynomial):
        value = (value * point + coefficient) % PRIME
    return value


def _combined(first: Sequence[int], second: Sequence[int]) -> list[int]:
    """Return the sum of two polynomials without leading zeros."""
    size = max(len(first), len(second))
    padded = ([*one, *[0] * (size - len(one))] for one in (first, second))
    total = [(a + b) % PRIME for a, b in zip(*padded, strict=True)]
    while len(total) > 1 and total[-1] == 0:
        total.pop()
    return total


def _divided(dividend: Sequence[int], divisor: Sequence[int]) -> tuple[list[int], list[int]]:
    """Return quotient and rest of a division of polynomials; the divisor is not 0."""
    rest, inverse = list(dividend), pow(divisor[-1], -1, PRIME)
    quotient = [0] * max(len(rest) - len(divisor) + 1, 1)
    for place in range(len(rest) - len(divisor), -1, -1):
        factor = rest[place + len(divisor) - 1] * inverse % PRIME
        quotient[place] = factor
        for offset, coefficient in enumerate(divisor):
            rest[place + offset] = (rest[place + offset] - factor * coefficient) % PRIME
    return _combined(quotient, [0]), _combined(rest, [0])


def _inverses(values: Sequence[int]) -> list[int]:
    """Return the inverses of numbers that are not 0, with one inversion (Montgomery's trick)."""
    products = [1]
    for value in values:
        products.append(products[-1] * value % PRIME)
    inverse = pow(products[-1], -1, PRIME)
    found = [0] * len(values)
    for place in range(len(values) - 1, -1, -1):
        found[place] = products[place] * inverse % PRIME
        inverse = inverse * values[place] % PRIME
    return found


def _check_points(points: Sequence[int]) -> None:
    if len(set(points)) != len(points) or any(not 1 <= point < 2**64 for point in points):
        raise ValueError("points: expected different integers from 1 to 2^64 - 1")

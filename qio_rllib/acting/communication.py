"""Learned communication: what agents send each other, what of it arrives, and what a receiver makes of it."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import numpy as np
import torch

from qio_envs.api import ConfigError, check_keys
from qio_rllib.random_numbers import RandomNumbers

Array = np.ndarray


@dataclasses.dataclass(frozen=True)
class Communication:
    """Broadcast communication: one message an agent and step, to all the others.

    Attributes:
        bandwidth: Numbers in a message, each in [-1, 1]; at least 1.
        drop: Probability that a message does not reach one of its receivers, in [0, 1], for each receiver by itself.

    Raises:
        ConfigError: A value outside its range.
    """

    bandwidth: int
    drop: float = 0.0

    def __post_init__(self) -> None:
        if isinstance(self.bandwidth, bool) or not isinstance(self.bandwidth, int) or self.bandwidth < 1:
            raise ConfigError(
                f"communication.bandwidth: expected an integer of at least 1, got {self.bandwidth!r}"
            )
        if (
            isinstance(self.drop, bool)
            or not isinstance(self.drop, int | float)
            or not 0.0 <= self.drop <= 1.0
        ):
            raise ConfigError(f"communication.drop: expected a number from 0 to 1, got {self.drop!r}")

    @classmethod
    def of(cls, settings: Any) -> Self | None:
        """Read ``{"bandwidth": 4, "drop": 0.1}``; None, or a bandwidth of 0, is no communication.

        Raises:
            ConfigError: An unknown key, or a value outside its range.
        """
        if settings is None:
            return None
        check_keys("communication", settings, [field.name for field in dataclasses.fields(cls)])
        if "bandwidth" not in settings:
            raise ConfigError("communication.bandwidth: missing; how many numbers a message holds")
        if settings["bandwidth"] == 0 and not isinstance(settings["bandwidth"], bool):
            cls(1, settings.get("drop", 0.0))
            return None
        return cls(**settings)

    def deliver(self, alive: Array, rng: RandomNumbers | None) -> Array:
        """Draw whose message reaches whom.

        Args:
            alive: bool ``[E, N]``; only the living send and hear.
            rng: Source of the draws; not used without losses.

        Returns:
            bool ``[E, N, N]``: receiver, sender. Nobody hears itself.
        """
        delivered = alive[:, :, None] & alive[:, None, :] & ~np.eye(alive.shape[1], dtype=bool)
        if self.drop > 0.0:
            assert rng is not None
            delivered &= rng.random(delivered.shape, np.float32) >= self.drop
        return delivered


def inbox(messages: Any, delivered: Any) -> Any:
    """Return what each receiver hears: the mean of the messages that reached it; 0 where none did.

    Args:
        messages: ``[..., N, B]``, NumPy or torch.
        delivered: bool ``[..., M, N]``, of the same kind.

    Returns:
        ``[..., M, B]``; gradients pass to the messages.
    """
    if isinstance(messages, torch.Tensor):
        weights = delivered.to(messages.dtype)
        return (weights @ messages) / weights.sum(-1, keepdim=True).clamp_min(1.0)
    weights = delivered.astype(np.float32)
    return (weights @ messages) / np.maximum(weights.sum(-1, keepdims=True), np.float32(1.0))

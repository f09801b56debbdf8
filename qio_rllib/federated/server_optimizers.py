"""How a server's weights follow the aggregated update: plain, with momentum, or Adam (Reddi et al., 2021: FedOpt)."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.mapping_settings import MappingSettings, is_number

NAMES = ("sgd", "adam")


@dataclasses.dataclass(frozen=True)
class ServerOptimizerSettings(MappingSettings):
    """Settings of a `ServerOptimizer`.

    Attributes:
        type: "sgd" or "adam".
        lr: Step size, above 0; with "sgd" and 1 the weights move by the update itself (FedAvg).
        momentum: Of "sgd", in [0, 1).
        betas: Decay of the first and second moments of "adam", each in [0, 1).
        epsilon: Added to the root of the second moment, above 0.
    """

    key = "server"
    type: str = "sgd"
    lr: float = 1.0
    momentum: float = 0.0
    betas: Sequence[float] = (0.9, 0.99)
    epsilon: float = 1e-3

    def checks(self) -> list[tuple[str, str, bool]]:
        """Return what is allowed."""
        betas = self.betas
        return [
            ("type", " or ".join(NAMES), self.type in NAMES),
            ("lr", "a number above 0", is_number(self.lr) and self.lr > 0),
            ("momentum", "a number in [0, 1)", is_number(self.momentum) and 0 <= self.momentum < 1),
            (
                "betas",
                "two numbers in [0, 1)",
                isinstance(betas, Sequence)
                and len(betas) == 2
                and all(is_number(one) and 0 <= one < 1 for one in betas),
            ),
            ("epsilon", "a number above 0", is_number(self.epsilon) and self.epsilon > 0),
        ]


class ServerOptimizer:
    """Applies aggregated updates to the server's weights; minus an update counts as a gradient.

    Args:
        settings: Which, and its numbers.
        size: Numbers ``d`` in the weights.
    """

    def __init__(self, settings: ServerOptimizerSettings, size: int) -> None:
        self.settings = settings
        self._first = np.zeros(size)
        self._second = np.zeros(size)

    def apply(self, weights: np.ndarray, update: np.ndarray) -> np.ndarray:
        """Return the next weights, float32 ``[d]``.

        Args:
            weights: float32 ``[d]``.
            update: Aggregated, ``[d]``.

        Raises:
            ConfigError: Other shapes, or numbers that are not finite.
        """
        if not (weights.shape == update.shape == self._first.shape) or not np.isfinite(update).all():
            raise ConfigError(f"update: expected {self._first.size} finite numbers, got shape {update.shape}")
        settings, change = self.settings, update.astype(np.float64)
        if settings.type == "sgd":
            self._first = settings.momentum * self._first + change
            return (weights + settings.lr * self._first).astype(np.float32)
        beta, beta_2 = settings.betas
        self._first = beta * self._first + (1 - beta) * change
        self._second = beta_2 * self._second + (1 - beta_2) * change**2
        step = self._first / (
            np.sqrt(self._second) + settings.epsilon
        )  # without bias correction, as in the paper
        return (weights + settings.lr * step).astype(np.float32)

    def get_state(self) -> dict[str, Any]:
        """Return the moments."""
        return {"first": self._first.copy(), "second": self._second.copy()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Go on from a state.

        Raises:
            ConfigError: Of another size.
        """
        for name in ("first", "second"):
            if state[name].shape != self._first.shape:
                raise ConfigError(
                    f"server: the state has {state[name].shape[0]} numbers, expected {self._first.size}"
                )
        self._first, self._second = state["first"].copy(), state["second"].copy()

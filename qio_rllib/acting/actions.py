"""How the output of a policy becomes an action of the environment."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import gymnasium
import numpy as np

from qio_envs.api import ConfigError


@dataclasses.dataclass(frozen=True)
class ActionSpec:
    """How a module's output becomes an action.

    Attributes:
        count: Number of discrete actions, or None for continuous ones.
        low: Lower bounds of continuous actions, flat.
        high: Upper bounds of continuous actions, flat.
        rescaled: Whether the policy acts in [-1, 1] and is scaled to the bounds (RLlib's ``normalize_actions``).
    """

    count: int | None
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    rescaled: bool = False

    @classmethod
    def of(cls, space: gymnasium.Space, rescaled: bool) -> Self:
        """Describe a Discrete (from 0) or one-dimensional Box space.

        Raises:
            ConfigError: Another kind of space.
        """
        if isinstance(space, gymnasium.spaces.Discrete) and space.start == 0:
            return cls(int(space.n))
        if isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1:
            return cls(None, tuple(space.low.tolist()), tuple(space.high.tolist()), rescaled)
        raise ConfigError(f"policies act in Discrete and one-dimensional Box spaces, not in {space}")

    def __str__(self) -> str:
        """Return it as messages show it."""
        if self.count is not None:
            return f"{self.count} discrete actions"
        return f"{len(self.low)} numbers from {list(self.low)} to {list(self.high)}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one action."""
        return () if self.count is not None else (len(self.low),)

    @property
    def dtype(self) -> Any:
        """Type of an action's numbers: int64 or float32."""
        return np.int64 if self.count is not None else np.float32

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Return what `as_dict` described."""
        return cls(values["count"], tuple(values["low"]), tuple(values["high"]), values["rescaled"])

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Return what the environment takes for a policy's actions: scaled or clipped to the bounds.

        Args:
            actions: int ``[...]`` or float32 ``[..., D]``.
        """
        if self.count is not None:
            return actions
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        if self.rescaled:
            bounded = np.isfinite(low) & np.isfinite(high)
            scaled = low + (np.clip(actions, -1, 1) + 1) * (np.where(bounded, high - low, 0) / 2)
            return np.where(bounded, scaled, actions).astype(np.float32)
        return np.clip(actions, low, high)

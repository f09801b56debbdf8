"""How the output of a policy becomes an action of the environment."""

from __future__ import annotations

import dataclasses
from typing import Any, Self

import gymnasium
import numpy as np

from qio_envs.api import ConfigError
from qio_rllib.models.parts import SpaceParts, action_bounds


@dataclasses.dataclass(frozen=True)
class ActionSpec:
    """How a module's output becomes an action.

    Attributes:
        count: Number of discrete actions, or None for others.
        low: Lower bounds of continuous actions, flat.
        high: Upper bounds of continuous actions, flat.
        rescaled: Whether the policy acts in [-1, 1] and is scaled to the bounds (RLlib's ``normalize_actions``).
        parts: What rows of numbers become; None for Discrete spaces from 0 and one-dimensional Boxes, whose actions are
            taken as they are.
    """

    count: int | None
    low: tuple[float, ...] = ()
    high: tuple[float, ...] = ()
    rescaled: bool = False
    parts: SpaceParts | None = None

    @classmethod
    def of(cls, space: gymnasium.Space, rescaled: bool) -> Self:
        """Describe an action space.

        Raises:
            ConfigError: A kind of space that no policy acts in.
        """
        if is_plain(space):
            if isinstance(space, gymnasium.spaces.Discrete):
                return cls(int(space.n))
            assert isinstance(space, gymnasium.spaces.Box)
            return cls(None, tuple(space.low.tolist()), tuple(space.high.tolist()), rescaled)
        try:
            parts = SpaceParts.of(space, actions=True)
        except ConfigError as error:
            raise ConfigError(f"env: actions are {space}; {error}") from error
        low, high = action_bounds(space)
        return cls(None, low, high, rescaled, parts)

    @property
    def factors(self) -> tuple[int, ...]:
        """How many values each discrete number of a product of spaces takes; () for plain spaces."""
        return () if self.parts is None else self.parts.factors

    @property
    def width(self) -> int:
        """Numbers in a row of an action that is no single discrete one."""
        return len(self.factors) + len(self.low)

    def __str__(self) -> str:
        """Return it as messages show it."""
        if self.count is not None:
            return f"{self.count} discrete actions"
        return f"{len(self.low)} numbers from {list(self.low)} to {list(self.high)}"

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one action, as a policy gives it."""
        return () if self.count is not None else (self.width,)

    @property
    def dtype(self) -> Any:
        """Type of an action's numbers: int64 or float32."""
        return np.int64 if self.count is not None else np.float32

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        return {**dataclasses.asdict(self), "parts": None if self.parts is None else self.parts.as_list()}

    @classmethod
    def from_dict(cls, values: Any) -> Self:
        """Return what `as_dict` described."""
        parts = None if values["parts"] is None else SpaceParts.from_list(values["parts"])
        return cls(values["count"], tuple(values["low"]), tuple(values["high"]), values["rescaled"], parts)

    def to_env(self, actions: np.ndarray) -> np.ndarray:
        """Return the numbers that the environment takes for a policy's actions: scaled or clipped to the bounds.

        Args:
            actions: int ``[...]`` or float32 ``[..., D]``, of which the first numbers are those of `factors`.
        """
        if self.count is not None or not self.low:
            return actions
        if self.factors:
            first = len(self.factors)
            numbers = dataclasses.replace(self, parts=None).to_env(actions[..., first:])
            return np.concatenate([actions[..., :first], numbers], axis=-1)
        low, high = np.array(self.low, np.float32), np.array(self.high, np.float32)
        if self.rescaled:
            bounded = np.isfinite(low) & np.isfinite(high)
            scaled = low + (np.clip(actions, -1, 1) + 1) * (np.where(bounded, high - low, 0) / 2)
            return np.where(bounded, scaled, actions).astype(np.float32)
        return np.clip(actions, low, high)

    def structured(self, action: Any) -> Any:
        """Return one agent's action as the environment takes it, of its numbers from `to_env`."""
        if self.count is not None:
            return int(action)
        return action if self.parts is None else self.parts.decode(action)


def is_plain(space: gymnasium.Space) -> bool:
    """Whether actions are a number from 0 or a row of real numbers already: Discrete, or a one-dimensional Box."""
    if isinstance(space, gymnasium.spaces.Discrete):
        return bool(space.start == 0)
    return isinstance(space, gymnasium.spaces.Box) and len(space.shape) == 1

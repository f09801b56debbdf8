"""Annealing laws of the entropy coefficient: exponential in time, or driven by the policy's entropy."""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

# Entropies computed in float32 may leave [0, 1] by rounding.
_ROUNDING = 1e-5


class Annealing(ABC):
    """An entropy coefficient that decays with the updates of a policy.

    ``alpha_t = max(alpha_min, alpha_0 exp(-decay S_t))`` with ``S_t = sum_{k<=t} s(H_k)``, where ``H_k`` in
    [0, 1] is the mean normalised entropy of the policy at update ``k`` and the law defines ``s``.

    Attributes:
        alpha_0: coefficient of the first update, finite and >= ``alpha_min``.
        alpha_min: least coefficient, >= 0.
        decay: rate of decay per update (lambda), finite and >= 0.

    Raises:
        ValueError: if a parameter is outside its range.
    """

    law: ClassVar[str]

    def __init__(self, alpha_0: float = 0.1, alpha_min: float = 0.01, decay: float = 5e-4) -> None:
        for name, value in (("alpha_0", alpha_0), ("alpha_min", alpha_min), ("decay", decay)):
            if isinstance(value, bool) or not isinstance(value, int | float):
                raise ValueError(f"{name} must be a number, got {value!r}")
            if not 0.0 <= value < math.inf:
                raise ValueError(f"{name} must be finite and >= 0, got {value}")
        if alpha_min > alpha_0:
            raise ValueError(f"alpha_min must not exceed alpha_0, got {alpha_min} > {alpha_0}")
        self.alpha_0, self.alpha_min, self.decay = float(alpha_0), float(alpha_min), float(decay)
        self._updates = 0
        # The sum, not the product of factors: its rounding error does not compound.
        self._progress = 0.0

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(alpha_0={self.alpha_0}, alpha_min={self.alpha_min}, decay={self.decay})"
        )

    @abstractmethod
    def step_size(self, entropy: float) -> float:
        """The progress ``s(H)`` in [0, 1] of one update at normalised entropy ``H`` in [0, 1]."""

    @property
    def alpha(self) -> float:
        """Coefficient to use for the next update; ``alpha_0`` before the first."""
        return max(self.alpha_min, self.alpha_0 * math.exp(-self.decay * self._progress))

    def update(self, entropy: float) -> float:
        """Record an update of the policy.

        Args:
            entropy: mean normalised entropy of the policy at this update, in [0, 1]; an excess of up to 1e-5,
                as rounding leaves it, is clamped.

        Returns:
            The coefficient to use for the next update.

        Raises:
            ValueError: if ``entropy`` is NaN or outside [0, 1]. The raw entropy, up to ``log A``, belongs
                divided by ``log A``.
        """
        entropy = float(entropy)
        if not -_ROUNDING <= entropy <= 1.0 + _ROUNDING:
            raise ValueError(f"entropy must be normalised, in [0, 1], got {entropy}")
        self._progress += self.step_size(min(max(entropy, 0.0), 1.0))
        self._updates += 1
        return self.alpha

    def get_state(self) -> dict[str, int | float]:
        """The number of updates and the running sum, as a plain dict fit for JSON."""
        return {"updates": self._updates, "progress": self._progress}

    def set_state(self, state: Mapping[str, int | float]) -> None:
        """Continue from a state that `get_state` returned.

        Args:
            state: ``updates``, an integer >= 0, and ``progress``, a number in [0, updates].

        Raises:
            ValueError: if a key is missing or unknown, or if a value is impossible; nothing changes then.
        """
        if set(state) != {"updates", "progress"}:
            raise ValueError(f"state must have the keys updates and progress, got {sorted(state)}")
        updates, progress = state["updates"], state["progress"]
        if isinstance(updates, bool) or not isinstance(updates, int) or updates < 0:
            raise ValueError(f"updates must be an integer >= 0, got {updates!r}")
        if not isinstance(progress, int | float) or not 0.0 <= progress <= updates:
            raise ValueError(f"progress must be in [0, updates] = [0, {updates}], got {progress!r}")
        self._updates, self._progress = updates, float(progress)


class ExponentialAnnealing(Annealing):
    """Decay with the number of updates alone: ``alpha_t = max(alpha_min, alpha_0 exp(-decay t))``."""

    law = "exponential"

    def step_size(self, entropy: float) -> float:
        """One, whatever the entropy."""
        return 1.0


class QuantumAnnealing(Annealing):
    """Decay that is faster the lower the policy's entropy.

    ``alpha_t = max(alpha_min, alpha_0 exp(-decay sum_{k<=t} sqrt(1 - H_k^2)))``: the coefficient is constant
    while the policy is uniform (H = 1) and decays at the exponential law's rate once it is deterministic.
    """

    law = "quantum"

    def step_size(self, entropy: float) -> float:
        """``sqrt(1 - H^2)``."""
        # (1 - H)(1 + H) keeps its digits where H is close to 1.
        return math.sqrt((1.0 - entropy) * (1.0 + entropy))


_LAWS: dict[str, type[Annealing]] = {cls.law: cls for cls in (ExponentialAnnealing, QuantumAnnealing)}
_KEYS = ("law", "alpha_0", "alpha_min", "decay")


def make_annealing(spec: Mapping[str, Any] | None) -> Annealing | None:
    """Build an annealing law from its description.

    Args:
        spec: ``law`` ("quantum" or "exponential"), and optionally ``alpha_0``, ``alpha_min`` and ``decay``;
            None for no annealing.

    Returns:
        The law, before its first update, or None.

    Raises:
        ValueError: if a key or the law is unknown or missing, or if a value is impossible.
    """
    if spec is None:
        return None
    for key in spec:
        if key not in _KEYS:
            raise ValueError(f"unknown annealing key {key!r}{_hint(key, _KEYS)}")
    if "law" not in spec:
        raise ValueError(f"annealing needs a law, one of: {', '.join(_LAWS)}")
    law = spec["law"]
    if not isinstance(law, str) or law not in _LAWS:
        raise ValueError(f"unknown annealing law {law!r}{_hint(law, _LAWS)}")
    return _LAWS[law](**{key: value for key, value in spec.items() if key != "law"})


def _hint(given: object, allowed: Iterable[str]) -> str:
    allowed = list(allowed)
    close = difflib.get_close_matches(str(given), allowed, n=1)
    return (f"; did you mean {close[0]!r}?" if close else ";") + f" allowed: {', '.join(allowed)}"

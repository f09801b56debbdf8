"""Settings of the causal chain."""

from __future__ import annotations

import dataclasses

from qio_envs.api import EnvConfig, setting
from qio_envs.api.random import MAX_NORMAL

X1_TO_X2, A0_TO_X2, X2_TO_X3, X1_TO_X3 = 0.7, 0.5, 0.8, 0.3
"""Coefficients of the structural equations, see `CausalChain`."""
NOISES = (0.5, 0.3, 0.4)
"""Standard deviations of the noises of x1, x2 and x3."""
EFFECT = X2_TO_X3 * A0_TO_X2
"""Effect of a0 on x3, 0.4; that of a1 is 0."""
_SLACK = 1.001  # float32 rounding must not lead out of a space


@dataclasses.dataclass(frozen=True, kw_only=True)
class CausalChainConfig(EnvConfig):
    """Settings of `CausalChain`."""

    rounds: int = setting(10, "rounds of an episode, one a step", low=1, high=1_000_000)

    @property
    def max_values(self) -> tuple[float, float, float]:
        """Bound on the magnitude of x1, x2 and x3."""
        first, second, third = (MAX_NORMAL * noise for noise in NOISES)
        x1 = _SLACK * first
        x2 = _SLACK * (X1_TO_X2 * x1 + A0_TO_X2 + second)
        return x1, x2, _SLACK * (X2_TO_X3 * x2 + X1_TO_X3 * x1 + third)

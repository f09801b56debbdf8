"""Observations in units of their running mean and deviation."""

from __future__ import annotations

import torch
from torch import nn

NORMALIZE_OBSERVATIONS = "normalize_observations"
"""Key of ``model_config``: whether networks take observations, and central values states, through a `RunningScale`."""
LIMIT = 10.0
"""Deviations from the mean to which numbers are clipped."""


class RunningScale(nn.Module):
    """Moves numbers to mean 0 and deviation 1, and clips them to `LIMIT`; what it divides by, a learner sets.

    Both are buffers: they are synced to the runners and kept in checkpoints and policy files, and acting does not
    change them.

    Args:
        size: Numbers in a row.

    Attributes:
        mean: Of each number, float32 ``[size]``; 0 at first.
        deviation: Of each number, at least 1e-4, float32 ``[size]``; 1 at first.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("deviation", torch.ones(size))

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows ``[..., size]`` in the running units."""
        return ((rows - self.mean) / self.deviation).clamp(-LIMIT, LIMIT)

    def put(self, mean: torch.Tensor, deviation: torch.Tensor) -> None:
        """Set mean and deviation, ``[size]`` each."""
        with torch.no_grad():
            self.mean.copy_(mean)
            self.deviation.copy_(deviation.clamp_min(1e-4))

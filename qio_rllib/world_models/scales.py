"""Running means and deviations, by which networks see numbers of size 1."""

from __future__ import annotations

import torch
from torch import nn


class RunningScale(nn.Module):
    """Means and deviations of all rows that were seen (Welford; Chan et al., 1979).

    Args:
        size: Numbers in a row.
        least_deviation: Deviations are at least this, so that a constant number is only shifted.
    """

    count: torch.Tensor
    mean: torch.Tensor
    squares: torch.Tensor

    def __init__(self, size: int, least_deviation: float = 1e-3) -> None:
        super().__init__()
        self.least_deviation = least_deviation
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("squares", torch.zeros(size))

    @property
    def deviation(self) -> torch.Tensor:
        """Deviations ``[size]``; ones before the first row."""
        # Without a branch in Python, which a trace would keep as it was when it was made.
        found = (self.squares / self.count.clamp_min(1.0)).sqrt().clamp_min(self.least_deviation)
        return torch.where(self.count > 0, found, 1.0)

    @torch.no_grad()
    def update(self, rows: torch.Tensor) -> None:
        """Take in rows ``[B, size]``."""
        if not len(rows):
            return
        total = self.count + len(rows)
        mean = rows.mean(0)
        shift = mean - self.mean
        self.squares += ((rows - mean) ** 2).sum(0) + shift**2 * self.count * len(rows) / total
        self.mean += shift * len(rows) / total
        self.count.copy_(total)

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return rows ``[..., size]`` shifted and divided."""
        return (rows - self.mean) / self.deviation

    def inverse(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what `forward` was given."""
        return rows * self.deviation + self.mean

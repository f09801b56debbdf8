"""PopArt: a value network that learns standardised targets (van Hasselt et al., 2016)."""

from __future__ import annotations

import math

import torch


class PopArt:
    """Running mean and deviation of value targets.

    When they move, the network's last layer is rewritten so that its estimates stay what they were (van Hasselt et al.,
    2016, "Learning values across many orders of magnitude"; Yu et al., 2022, for MAPPO).

    Attributes:
        mean: Of the targets; 0 before the first update.
        deviation: Their standard deviation, at least 1e-4; 1 before the first update.
    """

    memory = 0.99  # share of the past in the running moments, by update

    def __init__(self) -> None:
        self._weight = self._first = self._second = 0.0
        self.mean, self.deviation = 0.0, 1.0

    def update(self, mean: float, mean_square: float, *layers: torch.nn.Linear) -> None:
        """Take in the moments of an update's targets, and let the last layers' estimates stay as they are.

        The first time the layers are left alone: what they say of nothing then means the mean.
        """
        started, before, width = self._weight > 0, self.mean, self.deviation
        self._weight = self.memory * self._weight + 1 - self.memory
        self._first = self.memory * self._first + (1 - self.memory) * mean
        self._second = self.memory * self._second + (1 - self.memory) * mean_square
        self.mean = self._first / self._weight
        self.deviation = max(math.sqrt(max(self._second / self._weight - self.mean**2, 0.0)), 1e-4)
        if started:
            with torch.no_grad():
                for layer in layers:
                    layer.weight.mul_(width / self.deviation)
                    layer.bias.mul_(width / self.deviation).add_((before - self.mean) / self.deviation)

    def get_state(self) -> dict[str, float]:
        """Return the moments."""
        return {"weight": self._weight, "first": self._first, "second": self._second} | {
            "mean": self.mean,
            "deviation": self.deviation,
        }

    def set_state(self, state: dict[str, float]) -> None:
        """Take over moments."""
        self._weight, self._first, self._second = state["weight"], state["first"], state["second"]
        self.mean, self.deviation = state["mean"], state["deviation"]

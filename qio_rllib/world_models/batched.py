"""Several networks of equal sizes as batched products."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import nn

from qio_rllib.layers import ACTIVATIONS


class BatchedLinear(nn.Module):
    """``K`` linear layers as one batched product.

    Args:
        count: Layers ``K``.
        inputs: Numbers in a row.
        outputs: Numbers returned.
    """

    def __init__(self, count: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs))
        self.bias = nn.Parameter(torch.empty(count, 1, outputs))
        bound = 1.0 / math.sqrt(inputs)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, rows: torch.Tensor, chosen: torch.Tensor | None = None) -> torch.Tensor:
        """Return ``[K, B, outputs]`` of rows ``[K, B, inputs]``; of the layers that are chosen alone, if some are."""
        if chosen is None:
            return torch.baddbmm(self.bias, rows, self.weight)
        return torch.baddbmm(self.bias[chosen], rows, self.weight[chosen])


class BatchedMLP(nn.Module):
    """``K`` networks of equal sizes as batched products.

    Args:
        count: Networks ``K``.
        sizes: Of the input, the hidden layers and the output.
        activation: A key of `qio_rllib.layers.ACTIVATIONS`.
    """

    def __init__(self, count: int, sizes: Sequence[int], activation: str) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for place in range(len(sizes) - 1):
            layers.append(BatchedLinear(count, sizes[place], sizes[place + 1]))
            if place < len(sizes) - 2:
                layers.append(ACTIVATIONS[activation]())
        self.layers = nn.Sequential(*layers)

    def forward(
        self, rows: torch.Tensor, more: torch.Tensor | None = None, chosen: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return ``[K, B, outputs]`` of rows ``[K, B, inputs]``.

        Args:
            rows: The inputs.
            more: Added to the outputs of the first layer, before its activation, ``[K, B, sizes[1]]``; None for 0.
            chosen: Places of the networks that are asked for, of which ``rows`` then has as many; None for all.
        """
        for place, layer in enumerate(self.layers):
            rows = layer(rows, chosen) if isinstance(layer, BatchedLinear) else layer(rows)
            if place == 0 and more is not None:
                rows = rows + more
        return rows

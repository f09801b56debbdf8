"""Attention over the other agents of a module, by which a world model's predictions of an agent depend on them."""

from __future__ import annotations

import math

import torch
from torch import nn

from qio_rllib.layers import ACTIVATIONS
from qio_rllib.world_models.batched import BatchedLinear


class AttentionOverOthers(nn.Module):
    """What each agent takes from the states and actions of the others: multi-head attention (Vaswani et al., 2017).

    A row (state and action of an agent) is embedded; queries come from an agent's own embedding, keys and values from
    those of the others, never its own; the heads' means, side by side, pass a linear layer without bias, which starts
    at 0. All agents share the parameters, and nothing tells them apart: if agents change places, so do the outputs,
    and the order of the others does not matter.

    Absent agents see nothing and are seen by nobody: their rows have no influence on the outputs of others, whatever
    numbers (NaN included) stand there, and their gradients are exactly 0. An agent without others gets exactly 0.

    Args:
        count: Networks ``K``, which see rows of their own.
        inputs: Numbers in a row ``T``.
        size: Numbers in embeddings, queries, keys and values, those of all heads together.
        heads: Attention heads, a divisor of ``size``.
        outputs: Numbers returned for each agent ``Z``.
        activation: Of the embedding, a key of `qio_rllib.layers.ACTIVATIONS`.

    Raises:
        ValueError: The heads do not divide the size.
    """

    def __init__(self, count: int, inputs: int, size: int, heads: int, outputs: int, activation: str) -> None:
        super().__init__()
        if heads < 1 or size % heads:
            raise ValueError(f"attention_heads: {heads} heads do not divide a size of {size}")
        self.heads = heads
        self.embedding = BatchedLinear(count, inputs, size)
        self.activation = ACTIVATIONS[activation]()
        self.query = BatchedLinear(count, size, size)
        self.key = BatchedLinear(count, size, size)
        self.value = BatchedLinear(count, size, size)
        self.output = nn.Parameter(torch.zeros(count, size, outputs))

    def forward(self, rows: torch.Tensor, present: torch.Tensor) -> torch.Tensor:
        """Return what each agent takes from the others, ``[K, E M, Z]``.

        Args:
            rows: Of ``M`` agents in each of ``E`` environments, an environment's agents one after another,
                ``[K, E M, T]``.
            present: Agents that are there: bool, or numbers above 0, ``[E, M]``, or for each network, ``[K, E, M]``.
        """
        here = present > 0
        rows = torch.where(here.flatten(-2).unsqueeze(-1), rows, 0.0)
        embedded = self.activation(self.embedding(rows))

        def split(layer: BatchedLinear) -> torch.Tensor:
            """Return ``[K, E, heads, M, size / heads]``."""
            found = layer(embedded).unflatten(1, tuple(present.shape[-2:])).unflatten(-1, (self.heads, -1))
            return found.transpose(2, 3)

        query, key, value = split(self.query), split(self.key), split(self.value)
        itself = torch.eye(present.shape[-1], dtype=torch.bool, device=rows.device)
        visible = here.unsqueeze(-1) & here.unsqueeze(-2) & ~itself  # [..., M, M]: who asks, who is asked
        visible = visible.unsqueeze(-3)
        scores = query @ key.transpose(-1, -2) / math.sqrt(query.shape[-1])
        # Finite, so that an agent without others has weights, which are then set to 0, in place of NaN.
        hidden = scores.masked_fill(~visible, torch.finfo(scores.dtype).min / 2)
        weights = torch.softmax(hidden, dim=-1) * visible
        found = (weights @ value).transpose(2, 3).flatten(3).flatten(1, 2)
        return torch.bmm(found, self.output)

"""Stacks of linear layers."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn

from qio_rllib.fused.stack import Stack

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
}
"""By the name that settings give them."""


def hidden_layers(sizes: Sequence[int], activation: str, normalize: bool = False) -> list[nn.Module]:
    """Return a linear layer and an activation for each pair of successive sizes.

    Args:
        sizes: Of the input and of each layer's output.
        activation: A key of `ACTIVATIONS`.
        normalize: Whether layer normalisation stands between the two.
    """
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers.append(nn.Linear(before, after))
        if normalize:
            layers.append(nn.LayerNorm(after))
        layers.append(ACTIVATIONS[activation]())
    return layers


def mlp(sizes: Sequence[int], activation: str, normalize: bool = False) -> Stack:
    """Return a network of these sizes, input and output included, whose last layer is linear."""
    return Stack(*hidden_layers(sizes[:-1], activation, normalize), nn.Linear(sizes[-2], sizes[-1]))

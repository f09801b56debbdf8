"""Fully connected networks."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "linear": nn.Identity,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "swish": nn.SiLU,
    "tanh": nn.Tanh,
}
"""By the name that ``model_config`` gives them."""


def hidden_layers(sizes: Sequence[int], activation: str) -> list[nn.Module]:
    """Return a linear layer and an activation (a key of `ACTIVATIONS`) for each pair of successive sizes."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Linear(before, after), ACTIVATIONS[activation]()]
    return layers


def mlp(sizes: Sequence[int], activation: str) -> nn.Sequential:
    """Return a network of these sizes, input and output included, whose last layer is linear."""
    return nn.Sequential(*hidden_layers(sizes[:-1], activation), nn.Linear(sizes[-2], sizes[-1]))

"""The critic of MAAC: one network over all agents, in which each attends to the others."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

from qio_rllib.layers import ACTIVATIONS, mlp
from qio_rllib.models.joint_critics import CriticSettings, GroupShape, JointView, RememberingCritic


class AttendedValues(NamedTuple):
    """What `ActorAttentionCritic` gives.

    Attributes:
        values: Of each of the agents' actions, ``[B, M, A]`` by module.
        magnitude: Mean squared score before the softmax over the pairs of living agents, a scalar.
    """

    values: list[torch.Tensor]
    magnitude: torch.Tensor


class ActorAttentionCritic(nn.Module):
    """Values of all agents' actions, each given what the others observe and do (Iqbal and Sha, 2019, section 3.2).

    An agent's query comes from what it observes, keys and values from what the others observe and do: it does not
    attend to itself, so that the values of all its actions come from one pass. Query, key and value weights are shared
    by all agents; as published their gradients are divided by the number of agents. Agents of one module share
    encoders and output network, which are told which agent of the module it is (one-hot).

    Args:
        groups: All modules' agents.
        state_size: Numbers in a global state, which joins what the output networks take; 0 without one.
        hiddens: Sizes of the hidden layers of the output networks; the first is that of the embeddings too.
        activation: A key of `qio_rllib.layers.ACTIVATIONS`.
        heads: Number of attention heads, which divides the first hidden size.
    """

    def __init__(
        self,
        groups: Sequence[GroupShape],
        state_size: int,
        hiddens: Sequence[int],
        activation: str,
        heads: int,
    ) -> None:
        super().__init__()
        size = hiddens[0]
        self.heads, self.num_agents = heads, sum(group.agents for group in groups)
        self.activation = ACTIVATIONS[activation]()
        seen = [group.obs + group.inbox + 1 + group.agents for group in groups]
        self.observers = nn.ModuleList(nn.Linear(inputs, size) for inputs in seen)
        self.doers = nn.ModuleList(
            nn.Linear(inputs + group.actions, size) for inputs, group in zip(seen, groups, strict=True)
        )
        self.query = nn.Linear(size, size, bias=False)
        self.key = nn.Linear(size, size, bias=False)
        self.value = nn.Linear(size, size)
        self.outputs = nn.ModuleList(
            mlp([2 * size + state_size, *hiddens, group.actions], activation) for group in groups
        )

    def forward(self, joint: JointView, actions: Sequence[torch.Tensor]) -> AttendedValues:
        """Return the values of the agents' actions while the others do what they did.

        Args:
            joint: What was observed.
            actions: Of all modules' agents, one-hot, each ``[B, M, A]``.
        """
        named = [_named(rows) for rows in joint.features]
        observed = [self.activation(layer(rows)) for layer, rows in zip(self.observers, named, strict=True)]
        done = [
            self.activation(layer(torch.cat([rows, acts], dim=-1)))
            for layer, rows, acts in zip(self.doers, named, joint.executed(actions), strict=True)
        ]
        queries = self._heads(self._shared(self.query, torch.cat(observed, dim=1)))
        tokens = torch.cat(done, dim=1)
        keys = self._heads(self._shared(self.key, tokens))
        values = self._heads(self.activation(self._shared(self.value, tokens)))
        scores = torch.einsum("bmhd,bnhd->bhmn", queries, keys)
        alive = torch.cat(list(joint.alive), dim=1) > 0
        itself = torch.eye(self.num_agents, dtype=torch.bool, device=alive.device)
        others = (alive[:, None, :] & ~itself).unsqueeze(1)  # [B, 1, N, N]
        # Finite, so that an agent without others has weights to be set to 0 instead of none.
        hidden = scores.masked_fill(~others, torch.finfo(scores.dtype).min / 2)
        weights = torch.softmax(hidden / math.sqrt(keys.shape[-1]), dim=-1) * others
        attended = torch.einsum("bhmn,bnhd->bmhd", weights, values).flatten(2)
        found, start = [], 0
        for own, network in zip(observed, self.outputs, strict=True):
            parts = [own, attended[:, start : start + own.shape[1]]]
            if joint.global_state is not None:
                parts.append(joint.global_state.unsqueeze(1).expand(-1, own.shape[1], -1))
            found.append(network(torch.cat(parts, dim=-1)))
            start += own.shape[1]
        counted = others & alive[:, None, :, None]
        pairs = (counted.sum() * self.heads).clamp_min(1)
        return AttendedValues(found, (scores.square() * counted).sum() / pairs)

    def _heads(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.unflatten(-1, (self.heads, -1))

    def _shared(self, layer: nn.Linear, rows: torch.Tensor) -> torch.Tensor:
        """Return what a layer gives; its gradient is divided by the number of agents."""
        weight, bias = (
            None if part is None else part.detach() + (part - part.detach()) / self.num_agents
            for part in (layer.weight, layer.bias)
        )
        assert weight is not None
        return nn.functional.linear(rows, weight, bias)


class ActorAttentionNetwork(RememberingCritic):
    """`ActorAttentionCritic` as a module trains it, with memory where asked for.

    Args:
        groups: All modules' agents.
        state_size: Numbers in a global state; 0 without one.
        settings: Sizes.
        model_config: ``use_lstm``, ``use_gru`` and their sizes, for the memory.
    """

    def __init__(
        self,
        groups: Sequence[GroupShape],
        state_size: int,
        settings: CriticSettings,
        model_config: Mapping[str, Any],
    ) -> None:
        super().__init__(groups, state_size, model_config)
        self.critic = ActorAttentionCritic(
            groups, self.state_size, settings.hiddens, settings.activation, settings.heads
        )


def _named(rows: torch.Tensor) -> torch.Tensor:
    """Return the features of a module's agents, ``[B, M, F]``, with a one-hot of the agent behind."""
    names = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    return torch.cat([rows, names.expand(len(rows), -1, -1)], dim=-1)

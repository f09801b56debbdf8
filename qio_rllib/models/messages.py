"""What agents tell each other: speakers, straight-through bits and gates, and what a receiver makes of what arrived."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import nn

from qio_rllib.layers import mlp

_FIRST_GATE = 2.0  # logit: agents begin by speaking, for who is never heard cannot learn what to say


class Spoken(NamedTuple):
    """What agents say in a step, before it is known whom it reaches; leading axes are those of the observations.

    Attributes:
        messages: Value and signature behind it, ``[..., V + S]``: numbers in [-1, 1], or bits as -1 and 1.
        gates: 1 where the agent speaks, 0 where it keeps silent, ``[...]``; None without gates.
        openness: Probability of a gate of 1 when gates are sampled, ``[...]``; likewise.
        queries: What a receiver compares signatures with, ``[..., S]``; None where messages are not targeted.
    """

    messages: torch.Tensor
    gates: torch.Tensor | None = None
    openness: torch.Tensor | None = None
    queries: torch.Tensor | None = None

    def changed(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Spoken:
        """Return the same with a change made to each part."""
        return Spoken(change(self.messages), *(None if part is None else change(part) for part in self[1:]))


class Speaker(nn.Module):
    """From what an agent sees and remembers to what it says.

    Bits and gates are binary concrete variables with straight-through gradients: forward the sign of logit plus
    logistic noise, backward the sigmoid of it (Jang et al., 2017; Bengio et al., 2013). As the other parts of a message
    have gradients anyway, one loss so trains values, signatures, queries, bits and gates, from rollouts and from a
    replay, without log-probabilities of messages.

    Args:
        inputs: Numbers in what an agent sees and remembers.
        hiddens: Sizes of the hidden layers.
        activation: A key of `ACTIVATIONS`.
        value: Numbers, or bits, in a message's value ``V``.
        signature: Numbers, or bits, in its signature, and in a query, ``S``; 0 where messages are not targeted.
        binary: Whether messages are bits.
        gated: Whether agents decide whether to speak.

    Attributes:
        noise_size: Numbers of noise for an agent's step: one for each bit, one for the gate; 0 where nothing is drawn.
    """

    def __init__(
        self,
        inputs: int,
        hiddens: Sequence[int],
        activation: str,
        value: int,
        signature: int = 0,
        binary: bool = False,
        gated: bool = False,
    ) -> None:
        super().__init__()
        self.size, self.binary, self.gated = value + signature, binary, gated
        self.network = mlp([inputs, *hiddens, self.size + gated], activation)
        if gated:
            with torch.no_grad():
                last = self.network[-1]
                assert isinstance(last, nn.Linear)
                last.bias[-1] += _FIRST_GATE
        self.query = mlp([inputs, *hiddens, signature], activation) if signature else None
        self.noise_size = noise_size(value + signature, binary, gated)

    def forward(self, rows: torch.Tensor, noise: torch.Tensor | None = None) -> Spoken:
        """Return what is said.

        Args:
            rows: ``[..., inputs]``.
            noise: Standard logistic, ``[..., noise_size]``; None for the most probable bits and gates.
        """
        logits = self.network(rows)
        if noise is not None:
            first = 0 if self.binary else self.size
            noisy = torch.cat([logits[..., :first], logits[..., first:] + noise], dim=-1)
        else:
            noisy = logits
        said = noisy[..., : self.size]
        messages = 2 * straight_through(said) - 1 if self.binary else torch.tanh(said)
        gates = openness = None
        if self.gated:
            gates = straight_through(noisy[..., -1])
            openness = torch.sigmoid(logits[..., -1])
        return Spoken(messages, gates, openness, None if self.query is None else self.query(rows))


def noise_size(size: int, binary: bool, gated: bool) -> int:
    """Return the numbers of noise that an agent's step takes, with ``size`` numbers or bits in a message."""
    return size * binary + gated


def straight_through(logits: torch.Tensor) -> torch.Tensor:
    """Return 1 where logits are above 0, else 0, exactly; its gradient is that of their sigmoid."""
    relaxed = torch.sigmoid(logits)
    return (logits > 0).to(logits.dtype) + (relaxed - relaxed.detach())


def weights_of(
    delivered: torch.Tensor,
    gates: torch.Tensor | None = None,
    scores: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return how much of an inbox is whose message: equal parts, or attention (Das et al., 2019).

    Args:
        delivered: Whose message reaches whom if it is sent, bool ``[..., M, N]``: receiver, sender.
        gates: Who sends at all, 1 or 0, ``[..., N]``; None for everybody.
        scores: What the receivers' queries and the senders' signatures have in common, ``[..., M, N]``; the softmax of
            those that arrived is taken. None for equal parts.

    Returns:
        ``[..., M, N]``; 0 for what did not arrive; the sum over senders is 1 where something arrived, else 0. Gradients
        pass to gates and scores.
    """
    weights = delivered.to(torch.float32)
    if gates is not None:
        weights = weights * gates.unsqueeze(-2)
    if scores is None:
        return weights / weights.sum(-1, keepdim=True).clamp_min(1.0)
    arrived = weights.detach() > 0
    least = torch.finfo(scores.dtype).min
    top = scores.detach().masked_fill(~arrived, least).amax(-1, keepdim=True)
    # A closed gate's message may have the highest score: its part, which is 0, shall still have a finite gradient.
    parts = weights * torch.exp((scores.masked_fill(~delivered, least) - top).clamp(max=0.0))
    total = parts.sum(-1, keepdim=True)
    return parts / torch.where(total > 0, total, torch.ones_like(total))


def inboxes_by_group(
    spoken: Sequence[Spoken], delivered: Sequence[torch.Tensor], indices: Sequence[Sequence[int]]
) -> list[torch.Tensor]:
    """Return what the agents of each group hear: the weighted sum of the values that arrived, ``[..., M, V]``.

    Args:
        spoken: By each group's agents, ``[..., M, ...]``.
        delivered: Whose message reaches them if it is sent, bool ``[..., M, N]``, by index of the sender.
        indices: The agents' indices among all, by group.

    Returns:
        By group; 0 where nothing arrived. Gradients pass to messages, gates and queries.
    """
    messages = by_agent([one.messages for one in spoken], indices, axis=-2)
    gates = None
    if spoken[0].gates is not None:
        gates = by_agent([one.gates for one in spoken if one.gates is not None], indices, axis=-1)
    found = []
    for one, reached in zip(spoken, delivered, strict=True):
        values, scores = messages, None
        if one.queries is not None:
            size = one.queries.shape[-1]
            values, signatures = messages[..., :-size], messages[..., -size:]
            scores = one.queries @ signatures.transpose(-1, -2) / size**0.5
        found.append(weights_of(reached, gates, scores) @ values)
    return found


def by_agent(parts: Sequence[torch.Tensor], indices: Sequence[Sequence[int]], axis: int = 1) -> torch.Tensor:
    """Join what the groups' agents have along an axis, in the order of all agents."""
    order = [int(index) for members in indices for index in members]
    joined = parts[0] if len(parts) == 1 else torch.cat(list(parts), dim=axis)
    if order == sorted(order):
        return joined
    return joined.index_select(axis, torch.as_tensor(order, device=joined.device).argsort())

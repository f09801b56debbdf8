"""What agents that talk would say, hear and make of it now, over the links and with the noise that were recorded."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from qio_rllib.models.messages import inboxes_by_group
from qio_rllib.models.policy_network import PolicyNetwork


@dataclasses.dataclass
class Talk:
    """Steps in which agents speak and hear, by group: ``L`` successive steps of ``B`` samples.

    Attributes:
        obs: Flat observations, ``[L, B, M, D]``.
        delivered: Whose message reaches them if it is sent, bool ``[L, B, M, N]``.
        noise: What bits and gates were drawn with, ``[L, B, M, K]``; None for the most probable ones.
        memory: Before the first step, ``[B, M, S]``; None without memory.
        fresh: Agents whose memory is put back to zeros before a step, bool ``[L, B, M]``; not used without memory.
    """

    obs: Sequence[torch.Tensor]
    delivered: Sequence[torch.Tensor]
    noise: Sequence[torch.Tensor] | None
    memory: Sequence[torch.Tensor | None]
    fresh: Sequence[torch.Tensor]


@dataclasses.dataclass
class Answers:
    """What came of it, by group; gradients pass to whoever spoke.

    Attributes:
        features: What heads take, ``[L, B, M, F]``.
        inboxes: What agents heard, ``[L, B, M, V]``.
        openness: Probabilities that gates open, ``[L, B, M]``; empty without gates.
        states: Memory after each step, ``[L, B, M, S]``; None without memory.
    """

    features: list[torch.Tensor]
    inboxes: list[torch.Tensor]
    openness: list[torch.Tensor]
    states: list[torch.Tensor | None]


def converse(
    networks: Sequence[PolicyNetwork], talk: Talk, indices: Sequence[Sequence[int]], burn_in: int = 0
) -> Answers:
    """Let all agents speak and hear in successive steps.

    Agents with memory go through the steps together, for what one says depends on what it has heard before.

    Args:
        networks: Each group's.
        talk: The steps.
        indices: The agents' indices among all, by group.
        burn_in: First steps, of agents with memory, through which no gradient passes.
    """
    if all(network.memory is None for network in networks):
        return _step(networks, talk.obs, talk.delivered, talk.noise, talk.memory, indices)
    states, steps = list(talk.memory), []
    for t in range(len(talk.obs[0])):
        states = [
            None if state is None else state.masked_fill(fresh[t].unsqueeze(-1), 0.0)
            for state, fresh in zip(states, talk.fresh, strict=True)
        ]
        with torch.set_grad_enabled(torch.is_grad_enabled() and t >= burn_in):
            found = _step(
                networks,
                [rows[t] for rows in talk.obs],
                [links[t] for links in talk.delivered],
                None if talk.noise is None else [rows[t] for rows in talk.noise],
                states,
                indices,
            )
        states = found.states
        steps.append(found)
    return Answers(
        _stacked([one.features for one in steps]),
        _stacked([one.inboxes for one in steps]),
        _stacked([one.openness for one in steps]),
        [
            None if state is None else torch.stack([one.states[g] for one in steps])  # type: ignore[misc]
            for g, state in enumerate(states)
        ],
    )


def converse_next(
    networks: Sequence[PolicyNetwork],
    obs: Sequence[torch.Tensor],
    delivered: Sequence[torch.Tensor],
    states: Sequence[torch.Tensor | None],
    indices: Sequence[Sequence[int]],
) -> Answers:
    """Let all agents speak and hear, without noise, in what follows each of some steps; arguments as in `Talk`.

    Args:
        networks: Each group's.
        obs: What follows each step.
        delivered: Over which links.
        states: Memory after each step, ``[L, B, M, S]``.
        indices: As for `converse`.
    """
    return _step(networks, obs, delivered, None, states, indices)


def _step(
    networks: Sequence[PolicyNetwork],
    obs: Sequence[torch.Tensor],
    delivered: Sequence[torch.Tensor],
    noise: Sequence[torch.Tensor] | None,
    states: Sequence[torch.Tensor | None],
    indices: Sequence[Sequence[int]],
) -> Answers:
    spoken = [
        network.speak(rows, state, None if noise is None else noise[g])
        for g, (network, rows, state) in enumerate(zip(networks, obs, states, strict=True))
    ]
    inboxes = inboxes_by_group(spoken, delivered, indices)
    features, after = [], []
    for network, rows, inbox, state in zip(networks, obs, inboxes, states, strict=True):
        shape = rows.shape[:-1]
        seen = network.perceived(torch.cat([rows, inbox], dim=-1).flatten(0, -2))
        found, following = network.features(seen, None if state is None else state.flatten(0, -2))
        features.append(found.unflatten(0, shape))
        after.append(None if following is None else following.unflatten(0, shape))
    openness = [one.openness for one in spoken if one.openness is not None]
    return Answers(features, inboxes, openness, after)


def _stacked(steps: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    """Return what each group has in all steps, steps first."""
    return [torch.stack(found) for found in zip(*steps, strict=True)]

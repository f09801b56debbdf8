"""`Transitions`: joint transitions as tensors, one list entry a module."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from qio_rllib.acting.pooled_actor import LEARNING
from qio_rllib.acting.team import DELIVERED, INBOX, MESSAGE_NOISE
from qio_rllib.fused.means import masked_mean
from qio_rllib.learners.common import as_tensor
from qio_rllib.models.joint_critics import JointView
from qio_rllib.models.joint_module import one_hot
from qio_rllib.models.policy_network import PolicyNetwork
from qio_rllib.sampling.replay import JointTransitions


@dataclasses.dataclass
class Transitions:
    """``R = L x B`` joint transitions: ``L`` successive steps (1 without memory), steps first, of ``B`` samples.

    Attributes:
        modules: Module ids.
        length: ``L``.
        obs: ``[R, M, D]``, and so on for each module.
        next_obs: Likewise.
        actions: ``[R, M, A]``, one-hot where discrete.
        rewards: ``[R, M]``.
        discounts: ``[R, M]``, of the value of what follows.
        acted: 1 for agents that acted in this step, else 0, ``[R, M]``.
        learned: 1 where losses count: the agent acted with the present policy, and the step is none of those that only
            fill memories.
        present_next: 1 for agents whose return goes on, ``[R, M]``.
        legal: bool ``[R, M, A]``, or None.
        next_legal: Likewise.
        inbox: What agents heard, ``[R, M, V]``; None without communication.
        delivered: Whose message reaches them if it is sent, bool ``[R, M, N]``; likewise.
        message_noise: What bits and gates were drawn with, ``[R, M, K]``; None where nothing is drawn.
        global_state: ``[R, S]``, or None.
        next_global_state: Likewise.
        fresh: Agents that begin with a step, bool ``[R, M]``.
        memory: Of the policy before the first step, ``[B, M, S]``, or None.
    """

    modules: Sequence[str]
    length: int
    obs: list[torch.Tensor]
    next_obs: list[torch.Tensor]
    actions: list[torch.Tensor]
    rewards: list[torch.Tensor]
    discounts: list[torch.Tensor]
    acted: list[torch.Tensor]
    learned: list[torch.Tensor]
    present_next: list[torch.Tensor]
    legal: list[torch.Tensor | None]
    next_legal: list[torch.Tensor | None]
    inbox: list[torch.Tensor] | None
    delivered: list[torch.Tensor] | None
    message_noise: list[torch.Tensor] | None
    global_state: torch.Tensor | None
    next_global_state: torch.Tensor | None
    fresh: list[torch.Tensor]
    memory: list[torch.Tensor | None]

    def rows(self, chosen: slice | torch.Tensor) -> Transitions:
        """Return some of the samples, of a slice as views; for single transitions (``L`` is 1)."""

        def part(value: Any) -> Any:
            if isinstance(value, list):
                return [part(item) for item in value]
            return value[chosen] if isinstance(value, torch.Tensor) else value

        fields = dataclasses.fields(self)
        found = {field.name: part(getattr(self, field.name)) for field in fields if field.name != "modules"}
        return Transitions(modules=self.modules, **found)

    def view(self) -> JointView:
        """Return what critics are given of the steps; the same object each time, which keeps what it has joined."""
        return self._view

    @functools.cached_property
    def _view(self) -> JointView:
        return JointView(self.obs, self.acted, self.inbox, self.global_state)

    def next_view(self, inboxes: list[torch.Tensor] | None) -> JointView:
        """Return what critics are given of what follows."""
        return JointView(self.next_obs, self.present_next, inboxes, self.next_global_state)

    @functools.cached_property
    def fresh_environments(self) -> torch.Tensor:
        """The samples in which an episode begins with a step, bool ``[L, B]``."""
        everybody = torch.cat(self.fresh, dim=1).all(dim=1)
        return everybody.reshape(self.length, -1)


def transitions_of(
    batch: JointTransitions,
    joint: Mapping[str, Any],
    burn_in: int,
    device: Any,
) -> Transitions:
    """Return joint transitions, or sequences of them, as tensors.

    Args:
        batch: From the replay.
        joint: All agents, as `describe_agents` gives them.
        burn_in: First steps of a sequence that only fill memories.
        device: Where tensors go.
    """
    parts = [batch.modules[module_id] for module_id in joint["modules"]]
    sequences = parts[0]["rewards"].ndim == 3
    length = parts[0]["rewards"].shape[1] if sequences else 1

    def tensor(array: Any) -> torch.Tensor:
        found = as_tensor(array).to(device)
        return found.transpose(0, 1).flatten(0, 1) if sequences else found

    def tensors(name: str, numbers: bool = False) -> list[torch.Tensor]:
        found = [tensor(part[name]) for part in parts]
        return [array.float() for array in found] if numbers else found

    def optional(name: str) -> list[torch.Tensor | None]:
        return [tensor(part[name]) if name in part else None for part in parts]

    actions = [
        one_hot(chosen, group["actions"]) if chosen.dtype == torch.int64 else chosen
        for chosen, group in zip(tensors("actions"), joint["groups"], strict=True)
    ]
    acted = tensors("acted", numbers=True)
    learned = acted
    if LEARNING in parts[0]:
        learned = [rows * mine for rows, mine in zip(acted, tensors(LEARNING, numbers=True), strict=True)]
    if burn_in:
        counts = (torch.arange(length) >= burn_in).float().repeat_interleave(len(batch)).to(device)
        learned = [rows * counts.unsqueeze(-1) for rows in learned]
    inboxes, delivered, noise = (
        tensors(name) if name in parts[0] else None for name in (INBOX, DELIVERED, MESSAGE_NOISE)
    )
    return Transitions(
        modules=joint["modules"],
        length=length,
        obs=[rows.flatten(2) for rows in tensors("observations")],
        next_obs=[rows.flatten(2) for rows in tensors("next_observations")],
        actions=actions,
        rewards=tensors("rewards"),
        discounts=tensors("discounts"),
        acted=acted,
        learned=learned,
        present_next=tensors("present_next", numbers=True),
        legal=optional("action_mask"),
        next_legal=optional("next_action_mask"),
        inbox=inboxes,
        delivered=delivered,
        message_noise=noise,
        global_state=None if batch.global_states is None else tensor(batch.global_states),
        next_global_state=None if batch.next_global_states is None else tensor(batch.next_global_states),
        fresh=tensors("fresh"),
        memory=[
            as_tensor(part["memory/policy"]).to(device) if "memory/policy" in part else None for part in parts
        ],
    )


def outputs_of(
    network: PolicyNetwork,
    batch: Transitions,
    g: int,
    burn_in: int,
    following: list[torch.Tensor] | None = None,
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return a policy network's outputs ``[R, M, K]`` for a group's observations, and for those that follow.

    No gradient passes through the latter.

    For agents that do not talk; those that do are answered by `converse`.

    Args:
        network: The group's network, or its target.
        batch: The transitions.
        g: Which group.
        burn_in: Steps through which no gradient passes.
        following: Observations that follow each step, by group; None where they are not asked for.
    """
    rows = batch.obs[g]
    after = None if following is None else following[g]
    if network.memory is None:
        return _outputs(network, rows), None if after is None else following_outputs(network, batch, g)
    memory = batch.memory[g]
    assert memory is not None
    agents = rows.shape[1]
    state = memory.flatten(0, 1)  # [B * M, S]
    steps = rows.reshape(batch.length, -1, rows.shape[-1])  # [L, B * M, D]
    fresh = batch.fresh[g].reshape(batch.length, -1)
    encoded = network.encoder(steps)
    features = network.memory.burnt_in(encoded, state, fresh, burn_in)
    found = network.outputs(features).reshape(len(rows), agents, -1)
    if after is None:
        return found, None
    with torch.no_grad():
        states_after = network.memory.unroll_states(encoded, state, fresh).flatten(0, 1)
        features = network.features(after.reshape(-1, after.shape[-1]), states_after)[0]
        return found, network.outputs(features).reshape(len(rows), agents, -1)


def following_outputs(
    network: PolicyNetwork,
    batch: Transitions,
    g: int,
    burn_in: int = 0,
) -> torch.Tensor:
    """Return a policy network's outputs ``[R, M, K]`` for what a group observes after each step alone.

    No gradient passes through them. Arguments as of `outputs_of`, which a network with memory needs: its memory has to
    pass the steps.
    """
    if network.memory is None:
        with torch.no_grad():
            return _outputs(network, batch.next_obs[g])
    _, found = outputs_of(network, batch, g, burn_in, batch.next_obs)
    assert found is not None
    return found


def n_step_targets(
    rewards: torch.Tensor, ahead: torch.Tensor, fresh: torch.Tensor, gamma: float, n_step: int
) -> torch.Tensor:
    """Return the returns of up to ``n_step`` steps within sequences, and the value of what follows them.

    ``sum_k gamma^k r[t + k] + gamma^(m - 1) ahead[t + m - 1]`` with ``m`` steps: ``n_step``, or fewer where an episode
    or the sequence ends (Watkins, 1989).

    Args:
        rewards: ``[L, ...]``.
        ahead: Discounted values of what follows each step, 0 where nothing does, ``[L, ...]``.
        fresh: Where a step begins an episode, bool ``[L, ...]``.
        gamma: Discount.
        n_step: At least 1.

    Returns:
        ``[L, ...]``.
    """
    single = found = rewards + ahead
    goes_on = ~fresh[1:]
    for _ in range(min(n_step, len(rewards)) - 1):
        longer = torch.where(goes_on, rewards[:-1] + gamma * found[1:], single[:-1])
        found = torch.cat([longer, single[-1:]])
    return found


def mean_over(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean of the values where the mask is 1; 0 where it is nowhere."""
    found = masked_mean(values, mask)
    if found is not None:
        return found
    return (values * mask).sum() / mask.sum().clamp_min(1.0)


def mean_error(
    values: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor, huber: bool = False
) -> torch.Tensor:
    """Return the mean squared error of values where the mask is 1; 0 where it is nowhere.

    Args:
        values: ``[...]``, with gradients.
        targets: Likewise, without.
        mask: Likewise.
        huber: Whether an error counts by Huber's function (1964) with the bound 1 instead.
    """
    found = masked_mean(values, mask, targets, "huber" if huber else "square")
    if found is not None:
        return found
    if huber:
        errors = torch.nn.functional.smooth_l1_loss(values, targets, reduction="none")
    else:
        errors = (values - targets) ** 2
    return mean_over(errors, mask)


def mean_square(values: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Return the mean square of rows ``[..., K]`` where the mask ``[...]`` is 1; 0 where it is nowhere."""
    found = masked_mean(values, mask, kind="square")
    return mean_over((values**2).mean(-1), mask) if found is None else found


def _outputs(network: PolicyNetwork, rows: torch.Tensor) -> torch.Tensor:
    """Return the outputs ``[R, M, K]`` of a network without memory; circuits take flat rows only."""
    return network.outputs_of(rows.flatten(0, 1)).unflatten(0, rows.shape[:2])

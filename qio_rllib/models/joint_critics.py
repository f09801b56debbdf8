"""Critics of actions: what each agent's action is worth, given what all agents observe, do and hear."""

from __future__ import annotations

import abc
import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from qio_envs.api import ConfigError, check_keys, did_you_mean
from qio_rllib.fused.critics import joint_values, values_of_own
from qio_rllib.fused.stack import Layers, forget_layers, known_layers
from qio_rllib.fused.use import in_use
from qio_rllib.layers import ACTIVATIONS, hidden_layers, mlp
from qio_rllib.models.memory import Memory

CRITIC_TYPES = ("mlp", "attention", "own")


@dataclasses.dataclass(frozen=True)
class CriticSettings:
    """``training(critic={...})``.

    Attributes:
        type: "mlp" or "attention", over everything that all agents observe, do and hear, and the global state; "own",
            over what the agent itself observes and does.
        hiddens: Sizes of the hidden layers.
        activation: A key of `qio_rllib.layers.ACTIVATIONS`.
        heads: Attention heads of type "attention"; they divide the first hidden size.
    """

    type: str = "mlp"
    hiddens: tuple[int, ...] = (128, 128)
    activation: str = "relu"
    heads: int = 4

    @classmethod
    def of(cls, given: Any) -> CriticSettings:
        """Read a mapping; missing keys take the defaults, None all of them.

        Raises:
            ConfigError: An unknown key, or a value that is not allowed.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        check_keys("critic", {} if given is None else given, names)
        found = {**dataclasses.asdict(cls()), **(given or {})}
        for key, allowed in (("type", CRITIC_TYPES), ("activation", tuple(ACTIVATIONS))):
            if found[key] not in allowed:
                raise ConfigError(
                    f"critic.{key}: expected one of {', '.join(allowed)}, got {found[key]!r}"
                    f"{did_you_mean(str(found[key]), allowed)}"
                )
        sizes, heads = found["hiddens"], found["heads"]
        whole = isinstance(sizes, Sequence) and not isinstance(sizes, str)
        if not whole or not sizes or not all(type(size) is int and size >= 1 for size in sizes):
            raise ConfigError(f"critic.hiddens: expected sizes of at least 1, got {sizes!r}")
        if not isinstance(heads, int) or isinstance(heads, bool) or heads < 1:
            raise ConfigError(f"critic.heads: expected an integer of at least 1, got {heads!r}")
        if found["type"] != "attention" and "heads" in (given or {}):
            raise ConfigError(f"critic.heads: goes with type attention, the type is {found['type']}")
        if found["type"] == "attention" and sizes[0] % heads:
            raise ConfigError(
                f"critic.heads: {heads} heads do not divide the first hidden layer of {sizes[0]}"
            )
        return cls(found["type"], tuple(sizes), found["activation"], heads)


@dataclasses.dataclass(frozen=True)
class GroupShape:
    """The agents of one module, as a joint critic has to know them.

    Attributes:
        agents: Their number ``M``.
        obs: Numbers in an observation ``D``.
        actions: Numbers in an action ``A``: components, or one for each discrete action (one-hot).
        inbox: Numbers in an inbox ``K``; 0 without communication.
    """

    agents: int
    obs: int
    actions: int
    inbox: int = 0


@dataclasses.dataclass(frozen=True)
class JointView:
    """What critics are given of ``B`` joint steps; each list has one entry a module.

    Attributes:
        obs: Observations, ``[B, M, D]``.
        alive: 1 for agents that act in this step, else 0, ``[B, M]``.
        inbox: What reached the agents, ``[B, M, K]``; None without communication.
        global_state: ``[B, S]``, or None.
    """

    obs: Sequence[torch.Tensor]
    alive: Sequence[torch.Tensor]
    inbox: Sequence[torch.Tensor] | None
    global_state: torch.Tensor | None

    @functools.cached_property
    def features(self) -> list[torch.Tensor]:
        """Observation, inbox and whether it lives, of each agent: ``[B, M, D + K + 1]``, 0 for absent agents."""
        found = []
        for g, alive in enumerate(self.alive):
            here = alive.unsqueeze(-1)
            parts = [self.obs[g] * here, here]
            if self.inbox is not None:
                parts.insert(1, self.inbox[g] * here)
            found.append(torch.cat(parts, dim=-1))
        return found

    @functools.cached_property
    def flat(self) -> torch.Tensor:
        """All agents' features and the state in one row, ``[B, F]``."""
        parts = [rows.flatten(1) for rows in self.features]
        return torch.cat(parts if self.global_state is None else [*parts, self.global_state], dim=-1)

    def executed(self, actions: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Return actions with those of absent agents set to 0."""
        return [acts * alive.unsqueeze(-1) for acts, alive in zip(actions, self.alive, strict=True)]


class Critic(nn.Module, abc.ABC):
    """Values the actions of one module's ``M`` agents; centralised, so that it is for training only."""

    @abc.abstractmethod
    def forward(self, joint: JointView, actions: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return the value of what all agents did, one for each agent of the module, ``[B, M]``.

        Args:
            joint: What was observed and received.
            actions: Of all modules' agents, each ``[B, M, A]``.
        """

    @abc.abstractmethod
    def of_own(self, joint: JointView, actions: Sequence[torch.Tensor], own: torch.Tensor) -> torch.Tensor:
        """Return the value to each agent of the module of doing another thing while all others do what they did.

        Args:
            joint: What was observed and received.
            actions: What was done.
            own: The other things, ``[B, M, A]``; the value to agent ``m`` depends on ``own[:, m]`` and on no other.

        Returns:
            ``[B, M]``.
        """


class MLPCritic(Critic):
    """One network over everything with one output for each agent (Lowe et al., 2017, "Multi-Agent Actor-Critic").

    Args:
        groups: All modules' agents.
        own: Index of the module that it values.
        state_size: Numbers in a state; 0 without one.
        hiddens: Sizes of the hidden layers, at least one.
        activation: A key of `qio_rllib.layers.ACTIVATIONS`.
    """

    def __init__(
        self,
        groups: Sequence[GroupShape],
        own: int,
        state_size: int,
        hiddens: Sequence[int],
        activation: str,
    ) -> None:
        super().__init__()
        self.own = own
        inputs = sum(group.agents * (group.obs + group.inbox + 1) for group in groups) + state_size
        sizes = [group.agents * group.actions for group in groups]
        # The first layer in two: what is observed is the same for all the actions that an agent could have taken.
        self.from_obs = nn.Linear(inputs, hiddens[0])
        self.from_actions = nn.Linear(sum(sizes), hiddens[0], bias=False)
        self.body = nn.Sequential(ACTIVATIONS[activation](), *hidden_layers(hiddens, activation))
        self.head = nn.Linear(hiddens[-1], groups[own].agents)
        self._start = sum(sizes[:own])
        self._action_size = groups[own].actions

    def forward(self, joint: JointView, actions: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return ``[B, M]``; see `Critic.forward`."""
        done = torch.cat([acts.flatten(1) for acts in joint.executed(actions)], dim=-1)
        found = joint_values(self._layers(), self.from_actions, joint.flat, done)
        if found is not None:
            return found
        return self.head(self.body(self.from_obs(joint.flat) + self.from_actions(done)))

    def of_own(self, joint: JointView, actions: Sequence[torch.Tensor], own: torch.Tensor) -> torch.Tensor:
        """Return ``[B, M]``; see `Critic.of_own`."""
        executed = joint.executed(actions)
        done = torch.cat([acts.flatten(1) for acts in executed], dim=-1)
        layers, mine = self._layers(), executed[self.own]
        found = values_of_own(layers, self.from_actions, joint.flat, done, mine, own, self._start)
        if found is not None:
            return found
        base = self.from_obs(joint.flat) + self.from_actions(done)
        agents = own.shape[1]
        weights = self.from_actions.weight[:, self._start : self._start + agents * self._action_size]
        # What changes in the first layer when agent m alone acts otherwise: [B, M, H]. One product over rows that
        # are zero but for agent m; the batch of small products that an einsum makes is several times slower.
        alone = torch.eye(agents, dtype=own.dtype, device=own.device).unsqueeze(-1)
        other = ((own - mine).unsqueeze(2) * alone).flatten(2)
        change = nn.functional.linear(other, weights)
        hidden = self.body(base.unsqueeze(1) + change)
        return (hidden * self.head.weight).sum(-1) + self.head.bias

    def _layers(self) -> Layers | None:
        """Return the layers as kernels take them, see `known_layers`; None outside `fused_kernels`."""
        return known_layers(self, (self.from_obs, *self.body, self.head)) if in_use() else None

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Look at the layers again after numbers have become others: another precision, another device."""
        forget_layers(self)
        return super()._apply(*args, **kwargs)


class OwnCritic(Critic):
    """A network over each agent's own observation, inbox and action: decentralised, shared by a module's agents.

    Args:
        groups: All modules' agents.
        own: Index of the module that it values.
        hiddens: Sizes of the hidden layers, at least one.
        activation: A key of `qio_rllib.layers.ACTIVATIONS`.
    """

    def __init__(
        self, groups: Sequence[GroupShape], own: int, hiddens: Sequence[int], activation: str
    ) -> None:
        super().__init__()
        self.own = own
        group = groups[own]
        self.network = mlp([group.obs + group.inbox + 1 + group.actions, *hiddens, 1], activation)

    def forward(self, joint: JointView, actions: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return ``[B, M]``; see `Critic.forward`."""
        return self.of_own(joint, actions, actions[self.own])

    def of_own(self, joint: JointView, actions: Sequence[torch.Tensor], own: torch.Tensor) -> torch.Tensor:
        """Return ``[B, M]``; see `Critic.of_own`."""
        return self.network(torch.cat([joint.features[self.own], own], dim=-1)).squeeze(-1)


class AttentionCritic(Critic):
    """Each agent asks about the others: multi-head attention over all agents' observations and actions.

    The query comes from the agent's own observation and action, keys and values from those of all agents, itself
    included (after Iqbal and Sha, 2019, "Actor-Attention-Critic"). Agents of one module share an encoder; agents
    that are not alive are not attended to.

    Args:
        groups: All modules' agents.
        own: Index of the module that it values.
        state_size: Numbers in a state; 0 without one.
        hiddens: Sizes of the hidden layers of the output network; the first is that of the embeddings too.
        activation: A key of `qio_rllib.layers.ACTIVATIONS`.
        heads: Number of attention heads; the embedding's size is a multiple of it.

    Raises:
        ValueError: It is not.
    """

    def __init__(
        self,
        groups: Sequence[GroupShape],
        own: int,
        state_size: int,
        hiddens: Sequence[int],
        activation: str,
        heads: int = 4,
    ) -> None:
        super().__init__()
        size = hiddens[0]
        if heads < 1 or size % heads:
            raise ValueError(f"attention_heads: {heads} heads do not divide an embedding of {size} numbers")
        self.own, self.heads = own, heads
        self.activation = ACTIVATIONS[activation]()
        self.encoders = nn.ModuleList(
            # The last part tells the agents of a module apart.
            nn.Linear(group.obs + group.inbox + 1 + group.actions + group.agents, size)
            for group in groups
        )
        self.query = nn.Linear(size, size, bias=False)
        self.key = nn.Linear(size, size, bias=False)
        self.value = nn.Linear(size, size)
        self.output = mlp([2 * size + state_size, *hiddens, 1], activation)

    def forward(self, joint: JointView, actions: Sequence[torch.Tensor]) -> torch.Tensor:
        """Return ``[B, M]``; see `Critic.forward`."""
        executed = joint.executed(actions)
        tokens = [self._embed(g, joint, acts) for g, acts in enumerate(executed)]
        own = tokens[self.own]
        keys, values = self._split(self.key, tokens), self._split(self.value, tokens)
        scores = torch.einsum("bmhd,bnhd->bhmn", self._heads(self.query(own)), keys)
        weights = self._weights(joint, scores)
        return self._answer(joint, own, torch.einsum("bhmn,bnhd->bmhd", weights, values))

    def of_own(self, joint: JointView, actions: Sequence[torch.Tensor], own: torch.Tensor) -> torch.Tensor:
        """Return ``[B, M]``; see `Critic.of_own`."""
        executed = joint.executed(actions)
        tokens = [self._embed(g, joint, acts) for g, acts in enumerate(executed)]
        keys, values = self._split(self.key, tokens), self._split(self.value, tokens)
        mine = self._embed(self.own, joint, own)
        query = self._heads(self.query(mine))
        my_key, my_value = self._heads(self.key(mine)), self._heads(self.activation(self.value(mine)))
        scores = torch.einsum("bmhd,bnhd->bhmn", query, keys)
        # In agent m's own view its own token is the other one: column start + m of row m.
        start = sum(acts.shape[1] for acts in executed[: self.own])
        count = own.shape[1]
        itself = torch.zeros(scores.shape[-2:], dtype=torch.bool, device=scores.device)
        itself[torch.arange(count), start + torch.arange(count)] = True
        about_itself = (query * my_key).sum(-1).permute(0, 2, 1)  # [B, h, M]
        scores = torch.where(itself, about_itself.unsqueeze(-1), scores)
        weights = self._weights(joint, scores)
        others = torch.einsum("bhmn,bnhd->bmhd", weights.masked_fill(itself, 0.0), values)
        to_itself = weights[..., itself].permute(0, 2, 1)  # [B, M, h]
        return self._answer(joint, mine, others + to_itself.unsqueeze(-1) * my_value)

    def _embed(self, g: int, joint: JointView, acts: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of a module's agents, ``[B, M, size]``."""
        features = joint.features[g]
        names = torch.eye(features.shape[1], dtype=features.dtype, device=features.device)
        names = names.expand(len(features), -1, -1)
        return self.activation(self.encoders[g](torch.cat([features, acts, names], dim=-1)))

    def _heads(self, rows: torch.Tensor) -> torch.Tensor:
        return rows.unflatten(-1, (self.heads, -1))

    def _split(self, layer: nn.Linear, tokens: Sequence[torch.Tensor]) -> torch.Tensor:
        rows = layer(torch.cat(list(tokens), dim=1))
        return self._heads(self.activation(rows) if layer is self.value else rows)

    def _weights(self, joint: JointView, scores: torch.Tensor) -> torch.Tensor:
        absent = torch.cat(list(joint.alive), dim=1) == 0
        size = self.query.out_features // self.heads
        # Finite, so that a row of absent agents only has weights without a meaning instead of none.
        hidden = scores.masked_fill(absent[:, None, None, :], torch.finfo(scores.dtype).min / 2)
        return torch.softmax(hidden / math.sqrt(size), dim=-1)

    def _answer(self, joint: JointView, own: torch.Tensor, attended: torch.Tensor) -> torch.Tensor:
        parts = [own, attended.flatten(2)]
        if joint.global_state is not None:
            parts.append(joint.global_state.unsqueeze(1).expand(-1, own.shape[1], -1))
        return self.output(torch.cat(parts, dim=-1)).squeeze(-1)


class RememberingCritic(nn.Module):
    """A critic with memory over everything that all agents observe, where it is asked for.

    The memory's output joins the global state. It runs over joint observations only: no runner has to carry it, so that
    a sequence begins with an empty one (Hausknecht and Stone, 2015).

    Args:
        groups: All modules' agents.
        state_size: Numbers in a global state; 0 without one.
        model_config: ``use_lstm``, ``use_gru`` and their sizes; none of them for no memory.

    Attributes:
        state_size: Numbers in a global state that the memory's output has joined.
    """

    def __init__(
        self, groups: Sequence[GroupShape], state_size: int, model_config: Mapping[str, Any]
    ) -> None:
        super().__init__()
        inputs = sum(group.agents * (group.obs + group.inbox + 1) for group in groups) + state_size
        self.memory = Memory.of(model_config, inputs)
        self.state_size = state_size + (0 if self.memory is None else self.memory.size)

    def remembering(
        self,
        joint: JointView,
        length: int,
        fresh: torch.Tensor,
        following: JointView | None = None,
        burn_in: int = 0,
    ) -> tuple[JointView, JointView | None]:
        """Return views whose global state holds the memory's output too.

        Args:
            joint: ``L`` successive steps of ``B`` environments, ``[L * B, ...]``, steps first.
            length: ``L``.
            fresh: Environments that begin an episode with a step, bool ``[L, B]``.
            following: What follows each step.
            burn_in: Steps through which no gradient passes.
        """
        if self.memory is None:
            return joint, following
        rows = joint.flat.unflatten(0, (length, -1))
        start = rows.new_zeros(rows.shape[1], self.memory.state_size)
        if following is None:
            found = self.memory.burnt_in(rows, start, fresh, burn_in).flatten(0, 1)
            return _joined(joint, found), None
        states = self.memory.unroll_states(rows, start, fresh).flatten(0, 1)
        after, _ = self.memory(following.flat, states)
        return _joined(joint, states[:, : self.memory.size]), _joined(following, after)


class CriticNetwork(RememberingCritic):
    """A critic as a module trains it; an agent's own critic has no memory.

    Args:
        groups: All modules' agents.
        own: Index of the module that it values.
        state_size: Numbers in a global state; 0 without one.
        settings: Form and sizes.
        model_config: ``use_lstm``, ``use_gru`` and their sizes, for the memory.
    """

    def __init__(
        self,
        groups: Sequence[GroupShape],
        own: int,
        state_size: int,
        settings: CriticSettings,
        model_config: Mapping[str, Any],
    ) -> None:
        # An agent's own critic must not see the others, whose observations are in the memory.
        super().__init__(groups, state_size, {} if settings.type == "own" else model_config)
        size = self.state_size
        if settings.type == "attention":
            self.critic: Critic = AttentionCritic(
                groups, own, size, settings.hiddens, settings.activation, settings.heads
            )
        elif settings.type == "own":
            self.critic = OwnCritic(groups, own, settings.hiddens, settings.activation)
        else:
            self.critic = MLPCritic(groups, own, size, settings.hiddens, settings.activation)


def _joined(joint: JointView, memory: torch.Tensor) -> JointView:
    parts = [memory] if joint.global_state is None else [joint.global_state, memory]
    return dataclasses.replace(joint, global_state=torch.cat(parts, dim=-1))

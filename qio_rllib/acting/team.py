"""`Team`: the Actors of all agents of an environment, and what they say to each other."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from qio_rllib.acting.actor import Acted, Actor, ActorInputs, Array, State, initial_state
from qio_rllib.models.communication import Communication, logistic
from qio_rllib.models.messages import Spoken, inboxes_by_group, noise_size
from qio_rllib.random_numbers import RandomNumbers

MESSAGES, SENT, DELIVERED = "messages", "sent", "delivered"
"""Columns that a team that talks adds to those of its Actors: what an agent sent, signature included (float32 ``[K]``,
zeros where it kept silent), whether it did (bool), and whose message reaches it if it is sent (bool ``[N]``)."""
INBOX, MESSAGE_NOISE = "inbox", "message_noise"
"""Likewise: what an agent heard (float32 ``[V]``), and of bits and gates the noise that they were drawn with."""
COLUMNS = (MESSAGES, SENT, DELIVERED, INBOX, MESSAGE_NOISE)


@dataclasses.dataclass(frozen=True)
class AgentGroup:
    """The ``M`` agents of one module.

    Attributes:
        module_id: The module that acts for them.
        agents: Their ids.
        index: Their indices among all agents of the environment, int64 ``[M]``.
        actor: How they act.
        agent_id: Whether a one-hot of the index within the group stands behind each observation.
    """

    module_id: str
    agents: tuple[Hashable, ...]
    index: Array
    actor: Actor
    agent_id: bool = False


class GroupInputs(NamedTuple):
    """What a group sees in a step."""

    obs: Array  # float32 [E, M, ...], with the one-hot where the group has one
    action_mask: Array | None  # bool [E, M, A]


class Team:
    """Acts for all ``N`` agents in ``E`` environments.

    Args:
        groups: All groups; together they hold every agent once.
        communication: How messages travel; None where agents do not talk.
        links: Who can hear whom at all, bool ``[N, N]``: receiver, sender; None for all whom ``communication`` links.

    Raises:
        ConfigError: Messages go by agents that the team does not have.
    """

    def __init__(
        self,
        groups: Sequence[AgentGroup],
        communication: Communication | None = None,
        links: Array | None = None,
    ) -> None:
        self.groups = tuple(groups)
        self.communication = communication
        self.num_agents = sum(len(group.index) for group in self.groups)
        if communication is not None:
            self._links = communication.links(self.agents) if links is None else links
            size = communication.size + communication.signature_size
            self._noise_size = noise_size(size, communication.bits > 0, communication.gate is not None)

    @property
    def agents(self) -> list[Hashable]:
        """All agents, in the order of their indices."""
        by_index = {
            int(index): agent
            for group in self.groups
            for index, agent in zip(group.index, group.agents, strict=True)
        }
        return [by_index[index] for index in sorted(by_index)]

    @property
    def draws(self) -> bool:
        """Whether it needs random numbers even where it does not explore."""
        lossy = self.communication is not None and self.communication.drop > 0
        return lossy or any(group.actor.samples_only for group in self.groups)

    def extras(self, group: AgentGroup) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Return (shape of one agent's entry, dtype) of the columns of a group."""
        found: dict[str, tuple[tuple[int, ...], Any]] = dict(group.actor.extras)
        if self.communication is not None:
            size = self.communication.size
            found[MESSAGES] = ((size + self.communication.signature_size,), np.float32)
            found[SENT] = ((), bool)
            found[DELIVERED] = ((self.num_agents,), bool)
            found[INBOX] = ((size,), np.float32)
            if self._noise_size:
                found[MESSAGE_NOISE] = ((self._noise_size,), np.float32)
        return found

    def initial_state(self, num_envs: int) -> list[dict[str, Array]]:
        """Return every group's memory at the start of an episode."""
        return [initial_state(group.actor, num_envs, len(group.index)) for group in self.groups]

    def messages(self, acted: Sequence[Acted]) -> Array | None:
        """Return what agents told each other in what `act` gave, float32 ``[E, N, V]``; None if they do not talk."""
        if self.communication is None:
            return None
        size = self.communication.size
        sent = np.zeros((len(acted[0].actions), self.num_agents, size), np.float32)
        for group, one in zip(self.groups, acted, strict=True):
            sent[:, group.index] = one.extras[MESSAGES][..., :size]
        return sent

    def bits_sent(self, acted: Sequence[Acted]) -> Array | None:
        """Return the bits that each agent sent in what `act` gave, float64 ``[E, N]``; None if they do not talk."""
        if self.communication is None:
            return None
        sent = np.zeros((len(acted[0].actions), self.num_agents))
        for group, one in zip(self.groups, acted, strict=True):
            sent[:, group.index] = one.extras[SENT]
        return sent * self.communication.message_bits

    def act(
        self,
        inputs: Sequence[GroupInputs],
        alive: Array,
        states: Sequence[State],
        rng: RandomNumbers | None,
        explore: bool,
        random_actions: bool = False,
        global_state: Array | None = None,
    ) -> list[Acted]:
        """Choose all agents' actions.

        Args:
            inputs: Of each group.
            alive: Which agents act, bool ``[E, N]``; only they talk and hear.
            states: Memory of each group.
            rng: Source of the draws.
            explore: As in `Actor.act`.
            random_actions: Likewise.
            global_state: float32 ``[E, S]``, for central value networks with memory.

        Returns:
            What each group does. Rows of agents that are not alive mean nothing.
        """
        columns: list[dict[str, Array]] = [{} for _ in self.groups]
        inboxes: list[Array | None] = [None for _ in self.groups]
        if self.communication is not None:
            columns = self._talk(self.communication, inputs, alive, states, rng, explore or random_actions)
            inboxes = [column[INBOX] for column in columns]
        found = []
        for group, seen, state, extra, messages in zip(
            self.groups, inputs, states, columns, inboxes, strict=True
        ):
            acted = group.actor.act(
                ActorInputs(
                    seen.obs, seen.action_mask, messages, global_state, group.index, alive[:, group.index]
                ),
                state,
                rng,
                explore,
                random_actions,
            )
            found.append(acted._replace(extras={**acted.extras, **extra}))
        return found

    def _talk(
        self,
        communication: Communication,
        inputs: Sequence[GroupInputs],
        alive: Array,
        states: Sequence[State],
        rng: RandomNumbers | None,
        sampled: bool,
    ) -> list[dict[str, Array]]:
        """Let all speak and hear; return the columns of each group."""
        noise = np.zeros((*alive.shape, self._noise_size), np.float32)
        if sampled and self._noise_size:
            assert rng is not None
            noise = logistic(rng.random(noise.shape, np.float32))
        spoken: list[Spoken] = [
            group.actor.speak(seen.obs, state, noise[:, group.index] if self._noise_size else None)
            for group, seen, state in zip(self.groups, inputs, states, strict=True)
        ]
        delivered = communication.deliver(alive, self._links, rng)
        reached = [torch.from_numpy(delivered[:, group.index]) for group in self.groups]
        with torch.inference_mode():
            heard = inboxes_by_group(spoken, reached, [group.index.tolist() for group in self.groups])
        found = []
        for group, said, inbox in zip(self.groups, spoken, heard, strict=True):
            sent = alive[:, group.index]
            if said.gates is not None:
                sent = sent & (said.gates.numpy() > 0)
            column = {
                MESSAGES: said.messages.numpy() * sent[..., None],
                SENT: sent,
                DELIVERED: delivered[:, group.index],
                INBOX: inbox.numpy(),
            }
            if self._noise_size:
                column[MESSAGE_NOISE] = noise[:, group.index]
            found.append(column)
        return found


def with_agent_id(obs: Array) -> Array:
    """Return observations ``[E, M, ...]`` as flat rows with a one-hot of the second axis behind: ``[E, M, D + M]``."""
    envs, agents = obs.shape[:2]
    one_hot = np.broadcast_to(np.eye(agents, dtype=np.float32), (envs, agents, agents))
    return np.concatenate([obs.reshape(envs, agents, -1), one_hot], axis=-1)


def put_back(state: State, gone: Array) -> None:
    """Put the memory of agents that do not go on (bool ``[E, M]``) back to that of an episode's start, in place."""
    for memory in state.values():
        memory[gone] = 0.0

"""Learned communication: what agents send each other, over which links, and what of it arrives."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np

from qio_envs.api import ConfigError, check_keys
from qio_rllib.random_numbers import RandomNumbers

Array = np.ndarray

COMMUNICATION = "communication"
"""Key of ``model_config``: what agents may tell each other."""
BROADCAST, TARGETED, HIERARCHICAL = "broadcast", "targeted", "hierarchical"
ROUTINGS = (BROADCAST, TARGETED, HIERARCHICAL)
BITS_PER_NUMBER = 32
"""What a number in a message counts as: it is sent as float32."""
DEFAULT_SIGNATURE = 8


@dataclasses.dataclass(frozen=True)
class Communication:
    """What an agent may tell the others in a step: one message, or with ``gate`` at most one.

    Attributes:
        bandwidth: Numbers in a message, each in [-1, 1]; at least 1, or 0 with ``bits``.
        bits: Bits in a message in place of numbers, at least 1; 0 for numbers. They are drawn when exploring, otherwise
            the most probable ones are sent; a receiver sees -1 and 1.
        drop: Probability that a message does not reach one of its receivers, in [0, 1], for each receiver by itself.
        routing: ``broadcast``: all hear all others, as the mean of what arrived. ``targeted``: a message also carries a
            signature, and a receiver takes the sum of what arrived weighted by the softmax of how its query fits the
            signatures (TarMAC: Das et al., 2019). ``hierarchical``: members hear their leader, leaders their members
            and each other, as the mean.
        signature: Numbers (with ``bits``: bits) in a signature, at least 1, for ``targeted``; None for 8.
        leaders: For ``hierarchical``: lists of agents, each a group with its leader first; together all agents once.
        gate: ``{"cost": 0.0}``: each agent decides in each step whether to speak (IC3Net: Singh et al., 2019), drawn
            when exploring. ``cost`` is what a message costs its sender, at least 0, in units of reward (with
            standardised advantages, of their deviation). None: all speak always.
        teams: Lists of agents between which no message passes; together all agents once. None: with ``self_play`` its
            teams, otherwise all agents are one.

    Raises:
        ConfigError: A value outside its range, or settings that contradict each other.
    """

    bandwidth: int = 0
    bits: int = 0
    drop: float = 0.0
    routing: str = BROADCAST
    signature: int | None = None
    leaders: Sequence[Sequence[Any]] | None = None
    gate: Mapping[str, float] | None = None
    teams: Sequence[Sequence[Any]] | None = None

    def __post_init__(self) -> None:
        for name in ("bandwidth", "bits"):
            value = getattr(self, name)
            if not _is_whole(value) or value < 0:
                raise ConfigError(f"communication.{name}: expected an integer of at least 1, got {value!r}")
        if bool(self.bandwidth) == bool(self.bits):
            raise ConfigError(
                "communication.bandwidth: a message holds numbers (bandwidth) or bits, one of the two at least 1, "
                f"got bandwidth {self.bandwidth} and bits {self.bits}"
            )
        if not _is_real(self.drop) or not 0.0 <= self.drop <= 1.0:
            raise ConfigError(f"communication.drop: expected a number from 0 to 1, got {self.drop!r}")
        if self.routing not in ROUTINGS:
            raise ConfigError(f"communication.routing: expected {', '.join(ROUTINGS)}, got {self.routing!r}")
        if self.signature is not None:
            if self.routing != TARGETED:
                raise ConfigError(
                    f"communication.signature: belongs to routing targeted, got routing {self.routing}"
                )
            if not _is_whole(self.signature) or self.signature < 1:
                raise ConfigError(
                    f"communication.signature: expected an integer of at least 1, got {self.signature!r}"
                )
        if (self.leaders is not None) != (self.routing == HIERARCHICAL):
            raise ConfigError(
                "communication.leaders: routing hierarchical needs them, and no other takes them, got "
                f"{self.leaders!r} with routing {self.routing}"
            )
        _check_lists("leaders", self.leaders, "each with its leader first")
        _check_lists("teams", self.teams, "each a team")
        if self.gate is not None:
            check_keys("communication.gate", self.gate, ["cost"])
            if not _is_real(self.cost) or not 0.0 <= self.cost < float("inf"):
                raise ConfigError(
                    f"communication.gate.cost: expected a number of at least 0, got {self.cost!r}"
                )

    @classmethod
    def of(cls, settings: Any) -> Self | None:
        """Read ``{"bandwidth": 4, "drop": 0.1}``; None, or a bandwidth (or bits) of 0, is no communication.

        Raises:
            ConfigError: An unknown key, or a value outside its range.
        """
        if settings is None:
            return None
        check_keys("communication", settings, [field.name for field in dataclasses.fields(cls)])
        given = {name: settings[name] for name in ("bandwidth", "bits") if name in settings}
        if not given:
            raise ConfigError(
                "communication.bandwidth: missing; how many numbers a message holds (or bits, how many bits)"
            )
        if all(value == 0 and not isinstance(value, bool) for value in given.values()):
            cls(**{**settings, "bandwidth": 1, "bits": 0})
            return None
        return cls(**settings)

    @property
    def size(self) -> int:
        """Numbers in a message's value, and in an inbox, ``V``; bits count as numbers."""
        return self.bits or self.bandwidth

    @property
    def signature_size(self) -> int:
        """Numbers in a message's signature, ``S``; 0 where messages are not targeted."""
        if self.routing != TARGETED:
            return 0
        return DEFAULT_SIGNATURE if self.signature is None else self.signature

    @property
    def cost(self) -> float:
        """What a message costs its sender."""
        return 0.0 if self.gate is None else self.gate.get("cost", 0.0)

    @property
    def message_bits(self) -> int:
        """Bits that a message takes, its signature included."""
        return (self.size + self.signature_size) * (1 if self.bits else BITS_PER_NUMBER)

    def speaker(self) -> dict[str, Any]:
        """Return what a `PolicySpec` is told of messages."""
        return {
            "bandwidth": self.size,
            "signature": self.signature_size,
            "binary_messages": self.bits > 0,
            "gated": self.gate is not None,
        }

    def links(self, agents: Sequence[Any]) -> Array:
        """Return who can hear whom at all.

        Args:
            agents: Ids of all agents, in their order.

        Returns:
            bool ``[N, N]``: receiver, sender. Nobody hears itself.

        Raises:
            ConfigError: ``leaders`` names other agents than these, or ``teams`` lacks one of them.
        """
        count = len(agents)
        place = {agent: index for index, agent in enumerate(agents)}
        allowed = ~np.eye(count, dtype=bool)
        if self.teams is not None:
            team = {agent: number for number, members in enumerate(self.teams) for agent in members}
            number = np.array([team.get(agent, -1) for agent in agents])
            if (number < 0).any():
                raise ConfigError(f"communication.teams: {agents[int(number.argmin())]} is in no team")
            allowed &= number[:, None] == number
        if self.leaders is None:
            return allowed
        named = {*itertools.chain(*self.leaders)}
        for agent in [*named - place.keys(), *place.keys() - named]:
            what = "is no agent of the environment" if agent in named else "is in no group"
            raise ConfigError(
                f"communication.leaders: {agent} {what}; expected each of {', '.join(map(str, agents))} once"
            )
        found = np.zeros((count, count), bool)
        leaders = [place[group[0]] for group in self.leaders]
        found[np.ix_(leaders, leaders)] = True
        for leader, group in zip(leaders, self.leaders, strict=True):
            members = [place[agent] for agent in group[1:]]
            found[leader, members] = found[members, leader] = True
        return found & allowed

    def deliver(self, alive: Array, links: Array, rng: RandomNumbers | None) -> Array:
        """Draw whose message reaches whom if it is sent.

        Args:
            alive: bool ``[E, N]``; only the living send and hear.
            links: As `links` gives them.
            rng: Source of the draws; not used without losses.

        Returns:
            bool ``[E, N, N]``: receiver, sender.
        """
        delivered = alive[:, :, None] & alive[:, None, :] & links
        if self.drop > 0.0:
            assert rng is not None
            delivered &= rng.random(delivered.shape, np.float32) >= self.drop
        return delivered


def _check_lists(key: str, lists: Any, what: str) -> None:
    """Refuse what are no lists of agents, and an agent that stands there twice; None is no lists.

    Raises:
        ConfigError: Naming the key.
    """
    if lists is None:
        return
    are_lists = isinstance(lists, list | tuple) and len(lists) > 0
    if not are_lists or not all(isinstance(group, list | tuple) and group for group in lists):
        raise ConfigError(f"communication.{key}: expected lists of agents, {what}, got {lists!r}")
    agents = [*itertools.chain(*lists)]
    for agent in agents:
        if not isinstance(agent, str | int) or isinstance(agent, bool):
            raise ConfigError(f"communication.{key}: expected agents by their ids, got {agent!r}")
        if agents.count(agent) > 1:
            raise ConfigError(f"communication.{key}: agent {agent} stands there twice")


def logistic(uniform: Array) -> Array:
    """Return standard logistic noise for uniform numbers on [0, 1), float32 of the same shape."""
    inner = uniform.clip(2.0**-25, 1.0 - 2.0**-24).astype(np.float64)
    return np.log(inner / (1.0 - inner)).astype(np.float32)


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_real(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)

"""Entangled coordination: agents that cannot talk measure parts of one shared quantum state.

Before a round the agents share ``n`` qubits in a state that is learned; then each agent, by itself, turns its own
qubits by angles that depend on its own observation only and measures them: the outcome is its action. What they do
can be correlated in ways that no shared random numbers allow (J. Bell, 1964; J. Clauser et al., 1969), yet no agent
learns anything of the others' observations: the probability of its own action does not depend on them (no
signalling).

A policy of this kind is a joint distribution over the actions of all agents. It acts through the team interface of an
environment (``as_team: true``), as one player whose action holds everybody's, and is simulated centrally; separate
agents would need the qubits. Only its samples can be played by separate agents: the most probable joint action, or
the Q operator on the joint distribution, would need to know all observations at once.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import nn

from qio_envs.api import ConfigError
from qio_rllib.models.model_settings import ModelSettings
from qio_rllib.quantum import Circuit, feature, layered_circuit, probabilities

COORDINATION = "coordination"
_MAX_QUBITS = 12
_LEAST_PROBABILITY = 1e-12


@dataclasses.dataclass(frozen=True)
class CoordinationSettings(ModelSettings):
    """What agents share; ``training(coordination={...})``.

    Attributes:
        num_agents: Agents in the team, at least 1.
        resource: "entangled" (a state prepared by any circuit), "separable" (the same circuit without gates between
            agents: nothing but local states), "shared_randomness" (a classical random value that all see, and a
            response of each agent to it and to its observation: every local-hidden-variable strategy), or
            "no_signalling" (that, and a box that no physical system is known to be: what could be shared if nothing
            but signalling were forbidden).
        num_layers: Layers of the circuit that prepares the state, 1 to 20.
        num_values: Values of the shared random number, 1 to 1000.
    """

    key: ClassVar[str] = COORDINATION
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "resource": ("entangled", "separable", "shared_randomness", "no_signalling")
    }
    highest: ClassVar[Mapping[str, int]] = {"num_agents": _MAX_QUBITS, "num_layers": 20, "num_values": 1000}

    num_agents: int = 2
    resource: str = "entangled"
    num_layers: int = 2
    num_values: int = 8

    def network(self, inputs: int, joint_actions: int) -> nn.Module:
        """Return the policy network of a team.

        Args:
            inputs: Numbers in ``num_agents`` observations in one row.
            joint_actions: ``A ** num_agents``, the first agent's action the most significant digit.

        Raises:
            ConfigError: The numbers are not those of so many agents, or too many qubits would be needed.
        """
        agents = self.num_agents
        actions = round(joint_actions ** (1 / agents))
        if actions**agents != joint_actions or actions < 2:
            raise ConfigError(
                f"coordination.num_agents: {joint_actions} actions are not the joint actions of {agents} agents; "
                "set env_config.as_team to true"
            )
        if inputs % agents:
            raise ConfigError(
                f"coordination.num_agents: {inputs} observed numbers are not those of {agents} agents"
            )
        if self.resource == "shared_randomness":
            return SharedRandomness(agents, inputs // agents, actions, self.num_values)
        if self.resource == "no_signalling":
            return NoSignallingBox(agents, inputs // agents, actions, self.num_values)
        return SharedState(agents, inputs // agents, actions, self.num_layers, self.resource == "entangled")


class SharedState(nn.Module):
    """The joint policy of agents that measure a shared pure state.

    Each agent has as many qubits as its actions need, turns each of them by RZ and RY with angles that are linear in
    its observation, and measures; outcomes beyond its actions count modulo their number.

    Args:
        agents: ``N``.
        size: Numbers in an agent's observation, ``D``.
        actions: Of each agent, ``A``.
        layers: Of the circuit that prepares the state: RX, RY, RZ on each qubit, and a ring of CNOTs.
        entangled: Whether the rings go over all qubits or stay within each agent's own.

    Raises:
        ConfigError: More than 12 qubits.
    """

    groups: torch.Tensor

    def __init__(self, agents: int, size: int, actions: int, layers: int, entangled: bool) -> None:
        super().__init__()
        own = max(1, math.ceil(math.log2(actions)))
        qubits = agents * own
        if qubits > _MAX_QUBITS:
            raise ConfigError(
                f"coordination: {agents} agents with {actions} actions need {qubits} qubits; "
                f"at most {_MAX_QUBITS} are allowed"
            )
        self.shape = (agents, size, own)
        self.circuit = Circuit(qubits)
        if entangled:
            self.circuit.extend(layered_circuit(qubits, layers).operations)
        else:
            for operation in layered_circuit(qubits, layers).operations:
                if len({qubit // own for qubit in operation.qubits}) == 1:
                    self.circuit.extend([operation])
        for qubit in range(qubits):
            for place, axis in enumerate("ZY"):
                self.circuit.add(f"R{axis}", qubit, angle=feature(2 * qubit + place))
        # All weights, though those of a last layer without rings could be folded into the measurement.
        self.weights = nn.Parameter(torch.empty(3 * qubits * layers).uniform_(-math.pi, math.pi))
        self.basis = nn.Parameter(torch.randn(agents, size, 2 * own))
        self.offset = nn.Parameter(torch.empty(agents, 2 * own).uniform_(-math.pi, math.pi))
        outcome = torch.arange(2**qubits)
        joint = torch.zeros_like(outcome)
        for agent in range(agents):
            mine = (outcome >> (own * (agents - 1 - agent))) & (2**own - 1)
            joint = joint * actions + mine % actions
        self.register_buffer("groups", nn.functional.one_hot(joint, actions**agents).to(torch.float32))
        with torch.no_grad():  # makes the circuit's constants, which a trace would not keep
            self(torch.zeros(2, agents * size))

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities of joint actions, float32 ``[B, A**N]``, of observations ``[B, N * D]``."""
        agents, size, _ = self.shape
        seen = observations.reshape(-1, agents, size)
        angles = torch.einsum("bnd,ndk->bnk", seen, self.basis) + self.offset
        state = self.circuit.state(self.weights, angles.flatten(1))
        return (probabilities(state) @ self.groups).clamp_min(_LEAST_PROBABILITY).log()


class _Responses(nn.Module):
    """Numbers of each agent, linear in its own observation, for each value of a random number that all share."""

    def __init__(self, agents: int, size: int, values: int, numbers: int) -> None:
        super().__init__()
        self.values = nn.Parameter(torch.zeros(values))
        self.response = nn.Parameter(torch.randn(agents, size, values * numbers))
        self.offset = nn.Parameter(torch.randn(agents, values * numbers))
        self.shape = (agents, size, numbers)

    def numbers(self, observations: torch.Tensor) -> torch.Tensor:
        """Return them, ``[B, N, K, numbers]``, of observations ``[B, N * D]``."""
        agents, size, numbers = self.shape
        seen = observations.reshape(-1, agents, size)
        found = torch.einsum("bnd,ndk->bnk", seen, self.response) + self.offset
        return found.reshape(-1, agents, len(self.values), numbers)


class SharedRandomness(_Responses):
    """The joint policy of agents that share a random number and nothing else.

    ``p(a | o) = sum_k q_k prod_i p_i(a_i | o_i, k)``: with enough values every local-hidden-variable strategy.

    Args:
        agents: ``N``.
        size: Numbers in an agent's observation, ``D``.
        actions: Of each agent, ``A``.
        values: Of the shared number, ``K``.
    """

    def __init__(self, agents: int, size: int, actions: int, values: int) -> None:
        super().__init__(agents, size, values, actions)

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities of joint actions, float32 ``[B, A**N]``, of observations ``[B, N * D]``."""
        responses = torch.log_softmax(self.numbers(observations), dim=-1)  # [B, N, K, A]
        joint = torch.log_softmax(self.values, dim=0)[:, None]
        for agent in range(self.shape[0]):
            mine = responses[:, agent]
            joint = (joint.unsqueeze(-1) + mine.unsqueeze(-2)).flatten(-2)
        return torch.logsumexp(joint, dim=-2)


class NoSignallingBox(_Responses):
    """The joint policy of agents that share a random number and a box of Popescu and Rohrlich (1994).

    Each agent puts a bit ``x_i`` into its end of the box, 1 with probability ``u_i(o_i, k)``, and gets a bit ``b_i``.
    Each ``b_i`` alone is a fair coin, whatever the others put in, but together ``b_1 xor ... xor b_N = x_1 and ... and
    x_N``. Then it acts with ``p_i(a_i | o_i, k, b_i)``. Summed over all bits, with ``m_i`` the mean of ``p_i`` over
    both ``b_i`` and ``d_i`` half their difference,

    ``p(a | o) = sum_k q_k (prod_i m_i(a_i) + (1 - 2 prod_i u_i) prod_i d_i(a_i))``.

    For two agents with two observations and two actions that is every joint distribution without signalling: a mixture
    of 8 such boxes and 16 local strategies (J. Barrett et al., 2005). It wins every round of the CHSH game.

    Args:
        agents: ``N``.
        size: Numbers in an agent's observation, ``D``.
        actions: Of each agent, ``A``.
        values: Of the shared number, ``K``.
    """

    def __init__(self, agents: int, size: int, actions: int, values: int) -> None:
        super().__init__(agents, size, values, 1 + 2 * actions)  # the bit, and the responses to both outcomes
        self.actions = actions

    def forward(self, observations: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities of joint actions, float32 ``[B, A**N]``, of observations ``[B, N * D]``."""
        numbers, actions = self.numbers(observations), self.actions
        all_ones = torch.sigmoid(numbers[..., 0]).prod(1)  # [B, K]
        first = torch.softmax(numbers[..., 1 : 1 + actions], dim=-1)
        second = torch.softmax(numbers[..., 1 + actions :], dim=-1)
        means, halves = 0.5 * (first + second), 0.5 * (first - second)
        alone = torch.ones_like(all_ones).unsqueeze(-1)
        together = (1.0 - 2.0 * all_ones).unsqueeze(-1)
        for agent in range(self.shape[0]):
            alone = (alone.unsqueeze(-1) * means[:, agent].unsqueeze(-2)).flatten(-2)
            together = (together.unsqueeze(-1) * halves[:, agent].unsqueeze(-2)).flatten(-2)
        joint = (torch.softmax(self.values, dim=0).unsqueeze(-1) * (alone + together)).sum(-2)
        return joint.clamp_min(_LEAST_PROBABILITY).log()

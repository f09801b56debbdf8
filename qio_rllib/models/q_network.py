"""The Q-network of DQN: RLlib's own, or a quantum circuit."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.dqn.torch.default_dqn_torch_rl_module import DefaultDQNTorchRLModule
from ray.rllib.core.columns import Columns
from ray.rllib.core.models.base import ENCODER_OUT
from torch import nn

from qio_envs.api import ConfigError
from qio_rllib.models.circuits import CIRCUIT, CircuitSettings, check_circuit_spaces

_QF_PREDS = "qf_preds"


class QNetwork(DefaultDQNTorchRLModule):
    """RLlib's Q-network; with ``model_config["circuit"]`` a circuit or its classical twin (see `CircuitSettings`).

    A circuit has one head of expectations of Pauli strings, with trainable input and output scaling (A. Skolik et al.,
    "Quantum agents in the Gym", Quantum 6, 720, 2022); RLlib keeps its target network, replay and loss.

    Raises:
        ConfigError: A circuit with ``dueling`` or ``num_atoms`` above 1, the Born rule, or spaces that do not fit it.
    """

    def setup(self) -> None:
        """Build the network."""
        settings = CircuitSettings.of(self.model_config.get(CIRCUIT))
        if settings is not None and self.model_config.get("use_lstm"):
            raise ConfigError("use_lstm: a circuit has no memory")
        super().setup()
        if settings is None:
            return
        if self.uses_dueling or self.num_atoms > 1:
            raise ConfigError(
                "dueling, num_atoms: a circuit has one head; set dueling to false, num_atoms to 1"
            )
        if settings.policy != "observables":
            raise ConfigError(
                f"circuit.policy: Q-values are expectations; allowed: observables, got {settings.policy!r}"
            )
        actions, inputs = check_circuit_spaces(self.observation_space, self.action_space)
        self.encoder = _AsItIs()
        self.af = settings.network(inputs, actions)

    def policy_logits(self, observation: torch.Tensor) -> torch.Tensor:
        """Return log-probabilities of the epsilon-greedy policy with the last epsilon of the schedule, ``[B, A]``.

        Args:
            observation: float32 ``[B, ...]``.
        """
        best = self.compute_q_values({Columns.OBS: observation})[_QF_PREDS].argmax(dim=-1)
        actions = int(self.action_space.n)
        epsilon = self.model_config["epsilon"]
        last = float(epsilon if isinstance(epsilon, int | float) else epsilon[-1][1])
        greedy = nn.functional.one_hot(best, actions).to(observation.dtype)
        return (greedy * (1 - last) + max(last, 1e-12) / actions).log()


class _AsItIs(nn.Module):
    """An encoder that hands the observations on."""

    def forward(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        return {ENCODER_OUT: batch[Columns.OBS]}

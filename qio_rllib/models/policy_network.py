"""Other networks than MLPs in an actor-critic: circuits, their twins, and shared states."""

from __future__ import annotations

import math
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.default_model_config import DefaultModelConfig
from torch import nn

from qio_envs.api import ConfigError
from qio_rllib.models.circuits import CIRCUIT, CircuitSettings, check_circuit_spaces
from qio_rllib.models.coordination import COORDINATION, CoordinationSettings
from qio_rllib.models.networks import mlp


class PolicyNetwork:
    """Mixin that puts a network of another kind in the place of an actor-critic's MLPs.

    It stands before `CentralValue` among the bases. ``model_config["circuit"]`` (see `CircuitSettings`) makes policy
    and value network circuits, or their classical twins; ``model_config["coordination"]`` (see
    `CoordinationSettings`) makes the policy one of agents that share a state, with an MLP for the value. A central
    value stays the `CentralCritic` that it is.

    Raises:
        ConfigError: The settings cannot be used or contradict each other, the spaces do not fit them, or the network is
            to be recurrent.
    """

    encoder: Any
    pi: Any
    vf: Any

    def setup(self) -> None:
        """Build the networks."""
        super().setup()  # type: ignore[misc]
        config = self.model_config  # type: ignore[attr-defined]
        circuit = CircuitSettings.of(config.get(CIRCUIT))
        coordination = CoordinationSettings.of(config.get(COORDINATION))
        self.has_own_network = circuit is not None or coordination is not None
        self.samples_only = coordination is not None
        """Whether only samples of the policy mean anything, not its most probable actions."""
        if not self.has_own_network:
            return
        if circuit is not None and coordination is not None:
            raise ConfigError("coordination: takes the place of a circuit; set one of the two")
        if config.get("use_lstm"):
            raise ConfigError(f"use_lstm: a {'circuit' if circuit else 'coordinated policy'} has no memory")
        spaces = (self.observation_space, self.action_space)  # type: ignore[attr-defined]
        self.encoder = nn.Identity()  # the networks take observations as they are
        if circuit is not None:
            actions, inputs = check_circuit_spaces(*spaces)
            self.pi, value = circuit.network(inputs, actions, circuit.policy), circuit.network(inputs, 1)
        else:
            if self.has_action_mask:  # type: ignore[attr-defined]
                raise ConfigError(
                    "coordination: an action mask of the team tells each agent what the others may do; "
                    "take an environment without masks"
                )
            if config.get("amplification") is not None:
                raise ConfigError(
                    "amplification: acts on the joint distribution, which separate agents cannot do; "
                    "set it to null with coordination"
                )
            assert coordination is not None
            self.pi = coordination.network(*spaces)
            stock = DefaultModelConfig()
            hiddens = config.get("fcnet_hiddens", stock.fcnet_hiddens)
            activation = config.get("fcnet_activation", stock.fcnet_activation)
            value = mlp([math.prod(spaces[0].shape), *hiddens, 1], activation)
        if not self.has_central_value:  # type: ignore[attr-defined]
            self.vf = value

    def get_non_inference_attributes(self) -> list[str]:
        """Return the parts that acting does not need."""
        return ["vf"] if self.has_own_network else super().get_non_inference_attributes()  # type: ignore[misc]

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        if not self.has_own_network:
            return super()._forward(batch, **kwargs)  # type: ignore[misc]
        return {Columns.ACTION_DIST_INPUTS: self.pi(batch[Columns.OBS])}

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        if not self.has_own_network:
            return super()._forward_train(batch, **kwargs)  # type: ignore[misc]
        return PolicyNetwork._forward(
            self, batch, **kwargs
        )  # not self._forward, which has the Q operator behind it

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        """Return value estimates, ``[B]``."""
        if not self.has_own_network or self.has_central_value:  # type: ignore[attr-defined]
            return super().compute_values(batch, embeddings)  # type: ignore[misc]
        return self.vf(batch[Columns.OBS]).squeeze(-1)

"""Value networks that see more than the agent does: a central critic for decentralised actors."""

from __future__ import annotations

import math
from typing import Any

import gymnasium
import numpy as np
import torch
from ray.rllib.algorithms.ppo.ppo_catalog import PPOCatalog
from ray.rllib.core.columns import Columns

from qio_envs.api import ConfigError

STATES, STATE_ROWS, SLOTS = "states", "state_rows", "slots"
STATE_SOURCE, STATE_SIZE, NUM_AGENTS = "state_source", "state_size", "num_agents"


class CentralCritic(torch.nn.Module):
    """An MLP over the global state, the agent's own observation, and which agent it is.

    That is the agent-specific global state of Yu et al. (2022), "The Surprising Effectiveness of PPO in Cooperative
    Multi-Agent Games", section 5.2. Agents of one copy and step share a state; the first layer works on each state
    once, whatever the number of agents, and states are never repeated row by row.

    Args:
        state_size: Numbers ``S`` in a state, at least 1.
        observation_size: Numbers ``O`` in an observation, at least 1.
        num_agents: Agents ``N`` of the environment, over all modules.
        action_space: Of the module; RLlib's catalog asks for one.
        model_config: Hidden layers as everywhere: ``fcnet_hiddens``, ``fcnet_activation``, ``head_fcnet_hiddens`` ...
    """

    def __init__(
        self,
        state_size: int,
        observation_size: int,
        num_agents: int,
        action_space: gymnasium.Space,
        model_config: dict[str, Any],
    ) -> None:
        super().__init__()
        self.widths = [state_size, observation_size, num_agents]
        joint = gymnasium.spaces.Box(-np.inf, np.inf, (sum(self.widths),), np.float32)
        catalog = PPOCatalog(joint, action_space, model_config)
        layers = catalog.actor_critic_encoder_config.base_encoder_config.build(framework="torch").net.mlp
        self.first, self.rest = layers[0], layers[1:]
        self.head = catalog.build_vf_head(framework="torch")

    def forward(
        self,
        states: torch.Tensor,
        observations: torch.Tensor,
        state_rows: torch.Tensor,
        slots: torch.Tensor,
    ) -> torch.Tensor:
        """Return value estimates, float32 ``[B]``.

        Args:
            states: float32 ``[U, S]``.
            observations: float32 ``[B, ...]``, ``O`` numbers each.
            state_rows: int64 ``[B]``, in [0, U): which state belongs to an observation.
            slots: int64 ``[B]``, in [0, N): the agent's place among all agents.
        """
        of_state, of_observation, of_agent = self.first.weight.split(self.widths, dim=1)
        shared = torch.nn.functional.linear(states, of_state, self.first.bias)
        own = torch.nn.functional.linear(observations.flatten(1), of_observation)
        hidden = own + shared.index_select(0, state_rows) + of_agent.t().index_select(0, slots)
        return self.head(self.rest(hidden)).squeeze(-1)


class CentralValue:
    """Mixin that gives an actor-critic a `CentralCritic` where ``model_config`` names a ``state_source``.

    It stands before `DefaultPPOTorchRLModule` among the bases. The actor stays as it is, and acting needs no critic.

    ``model_config``: ``state_source`` (as in `qio_rllib.sampling.states.StateSource`; None: nothing changes),
    ``state_size`` (numbers in a state) and ``num_agents`` (of the environment).

    Raises:
        ConfigError: A recurrent network, or ``state_size`` and ``num_agents`` are missing.
    """

    vf: Any

    def setup(self) -> None:
        """Build the actor, and the central critic where acting alone is not all that is asked for."""
        config = self.model_config  # type: ignore[attr-defined]
        self.has_central_value = config.get(STATE_SOURCE) is not None
        if self.has_central_value:
            if config.get("use_lstm"):
                raise ConfigError("use_lstm: a central value network has no memory")
            missing = [key for key in (STATE_SIZE, NUM_AGENTS) if not config.get(key)]
            if missing:
                raise ConfigError(f"model_config: {STATE_SOURCE} also needs {' and '.join(missing)}")
            # An encoder for the actor alone: the critic has an input of its own.
            self.catalog.actor_critic_encoder_config.inference_only = True  # type: ignore[attr-defined]
        super().setup()  # type: ignore[misc]
        if self.has_central_value and not self.inference_only:  # type: ignore[attr-defined]
            self.vf = CentralCritic(
                config[STATE_SIZE],
                math.prod(self.observation_space.shape),  # type: ignore[attr-defined]
                config[NUM_AGENTS],
                self.action_space,  # type: ignore[attr-defined]
                config,
            )

    def get_non_inference_attributes(self) -> list[str]:
        """Return the parts that acting does not need."""
        return ["vf"] if self.has_central_value else super().get_non_inference_attributes()  # type: ignore[misc]

    def _forward_train(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        if self.has_central_value:
            return super()._forward(batch, **kwargs)  # type: ignore[misc]
        return super()._forward_train(batch, **kwargs)  # type: ignore[misc]

    def compute_values(self, batch: dict[str, Any], embeddings: Any = None) -> torch.Tensor:
        """Return value estimates, ``[B]``.

        Args:
            batch: ``obs``, and for a central value ``states``, ``state_rows`` and ``slots`` as `CentralCritic` takes
                them.
            embeddings: Of the observations, if they are there; not used by a central value.

        Raises:
            ConfigError: A central value without states, as in the batches of RLlib's own runners.
        """
        if not self.has_central_value:
            return super().compute_values(batch, embeddings)  # type: ignore[misc]
        if STATES not in batch:
            raise ConfigError(
                "central_value: there are no states in the batch; BatchedEnvRunner records them, RLlib's own runner "
                "does not"
            )
        return self.vf(batch[STATES], batch[Columns.OBS], batch[STATE_ROWS], batch[SLOTS])

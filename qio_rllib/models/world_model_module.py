"""The module of agents that learn a model of their environment."""

from __future__ import annotations

import copy
import dataclasses
import math

import gymnasium
import torch
from torch import nn

from qio_rllib.models.actor_critic import PolicyModule, settings_of
from qio_rllib.models.policy_network import network_keys
from qio_rllib.models.spaces import bare_space, is_masked_space
from qio_rllib.models.world_model_policy import ACTOR, WorldModelPolicy, WorldModelSpec, flat_size
from qio_rllib.world_models.heads import TwoHotHead

WORLD_MODEL, BEHAVIOUR, PLANNER_SETTINGS, DISCOUNT = "world_model", "behaviour", "planner", "gamma"
IS_FACTORED = "is_factored"
"""Keys of ``model_config``: see `WorldModelSpec`."""
HAS_CAUSES = "has_causes"
"""Key of ``model_config``: whether a module keeps the causes that a dense model's loss asks for."""


class WorldModelModule(PolicyModule):
    """A `WorldModelPolicy`, and where it trains an actor a critic over the model's features.

    Attributes:
        policy: Model and behaviour.
        critic: Values of imagined states; only with an actor, and where it trains.
        target_critic: A copy that follows it.
        return_range: Buffer: running range of imagined returns, by which the actor's gradients are divided.
        causes: Buffer: which inputs each target of the model depends on, bool ``[D + 2, D + A]``; all at first. Only
            where the loss asks for it, and where it trains.
    """

    policy: WorldModelPolicy  # type: ignore[assignment]
    critic: TwoHotHead
    target_critic: TwoHotHead
    return_range: torch.Tensor
    causes: torch.Tensor

    def setup(self) -> None:
        """Build the networks."""
        self.settings = settings_of(self.model_config)
        self.has_action_mask = is_masked_space(self.observation_space)
        spec = self.world_model_spec()
        self.policy = WorldModelPolicy(spec)
        if self.inference_only:
            return
        if self.settings.get(HAS_CAUSES):
            shape = (spec.obs_size + 2, spec.obs_size + spec.num_actions)
            self.register_buffer("causes", torch.ones(shape, dtype=torch.bool))
        if spec.behaviour != ACTOR:
            return
        hiddens = tuple(self.settings.get("fcnet_hiddens") or (128, 128))
        self.critic = TwoHotHead(self.policy.model.feature_size, hiddens, "silu")
        self.target_critic = copy.deepcopy(self.critic).requires_grad_(False)
        self.register_buffer("return_range", torch.tensor(0.0))

    def world_model_spec(self) -> WorldModelSpec:
        """Return the specification of model and behaviour."""
        discrete = isinstance(self.action_space, gymnasium.spaces.Discrete)
        actions = int(self.action_space.n) if discrete else math.prod(self.action_space.shape)
        known = {field.name for field in dataclasses.fields(WorldModelSpec)}
        given = {key: value for key, value in self.settings.items() if key in known and value is not None}
        return WorldModelSpec(
            obs_size=flat_size(tuple(bare_space(self.observation_space).shape or ())),
            num_actions=actions,
            is_discrete=discrete,
            network=network_keys(self.settings),
            **given,
        )

    def memory_sizes(self) -> dict[str, int]:
        """Return nothing: `WorldModelActor` carries what it remembers."""
        return {}

    def get_non_inference_attributes(self) -> list[str]:
        """Return what only training needs."""
        own = ["critic", "target_critic", "return_range"] if self.policy.actor is not None else []
        return [*own, "causes"] if self.settings.get(HAS_CAUSES) else own

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return pairs of a target network and the one that it follows."""
        return [(self.target_critic, self.critic)] if self.policy.actor is not None else []

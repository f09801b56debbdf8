"""The modules of algorithms with critics of actions: a decentralised policy, critics and target networks."""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import gymnasium
import torch
from torch import nn

from qio_envs.api import ConfigError
from qio_rllib.fused.choices import relaxed_choice
from qio_rllib.models.actor_attention import ActorAttentionNetwork
from qio_rllib.models.actor_critic import PolicyModule
from qio_rllib.models.counterfactual_critic import CounterfactualCritic
from qio_rllib.models.joint_critics import CriticNetwork, CriticSettings, GroupShape
from qio_rllib.models.mixers import MIXER, Mixer, MixerSettings
from qio_rllib.models.policy_network import (
    CATEGORICAL,
    DETERMINISTIC,
    SQUASHED_GAUSSIAN,
    PolicyNetwork,
    PolicySpec,
)

JOINT, CRITIC = "joint", "critic"
"""Keys of ``model_config``: all agents as critics know them (see `describe_agents`), and the critics' settings."""


class JointModule(PolicyModule):
    """A policy with critics and targets where it trains; base of the modules of MADDPG and MASAC.

    ``model_config``: what `PolicyNetwork` takes, ``communication``, and for training ``joint`` and ``critic``.

    Attributes:
        critics: Networks that value actions.
        target_critics: Copies that follow them.
    """

    num_critics = 1
    has_target_policy = False
    small_outputs = False
    continuous = DETERMINISTIC

    critics: nn.ModuleList
    target_critics: nn.ModuleList
    target_policy: PolicyNetwork

    def setup(self) -> None:
        """Build the networks."""
        super().setup()
        if self.inference_only:
            return
        if self.has_target_policy:
            self.target_policy = self.policy.target()
        self.critics = nn.ModuleList(self.make_critics())
        self.target_critics = copy.deepcopy(self.critics).requires_grad_(False)

    def make_critics(self) -> list[nn.Module]:
        """Return new critics of the module's agents."""
        return [
            CriticNetwork(own=self.settings[JOINT]["own"], **self._shapes()) for _ in range(self.num_critics)
        ]

    def _shapes(self) -> dict[str, Any]:
        """Return what all critics are built from."""
        joint = self.settings[JOINT]
        return {
            "groups": [GroupShape(**group) for group in joint["groups"]],
            "state_size": joint["state_size"],
            "settings": CriticSettings.of(self.settings.get(CRITIC)),
            "model_config": self.settings,
        }

    def policy_spec(self) -> PolicySpec:
        """Return the specification of the policy network."""
        spec = super().policy_spec()
        if len(spec.observation_shape) != 1:
            raise ConfigError(
                f"observations: joint critics take flat ones, got the shape {spec.observation_shape}; flatten them"
            )
        discrete = isinstance(self.action_space, gymnasium.spaces.Discrete)
        return dataclasses.replace(
            spec,
            distribution=CATEGORICAL if discrete else self.continuous,
            small_outputs=self.small_outputs,
        )

    def get_non_inference_attributes(self) -> list[str]:
        """Return what only training needs."""
        return ["critics", "target_critics", *(["target_policy"] if self.has_target_policy else [])]

    def critic_networks(self, target: bool = False) -> list[CriticNetwork]:
        """Return the critics, or their targets."""
        found = self.target_critics if target else self.critics
        return [network for network in found if isinstance(network, CriticNetwork)]

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return pairs of a target network and the one that it follows."""
        pairs: list[tuple[nn.Module, nn.Module]] = [(self.target_critics, self.critics)]
        if self.has_target_policy:
            pairs.append((self.target_policy, self.policy))
        return pairs


class MADDPGModule(JointModule):
    """A deterministic policy with noise, or a discrete one with a share of random actions; one critic.

    The deviation of the noise, or the share, is the buffer ``policy.exploration``.
    """

    has_target_policy = True
    small_outputs = True


class SACModule(JointModule):
    """A squashed Gaussian or categorical policy, two critics and a temperature (Haarnoja et al., 2018)."""

    num_critics = 2
    continuous = SQUASHED_GAUSSIAN

    def setup(self) -> None:
        """Build the networks and the temperature."""
        super().setup()
        if not self.inference_only:
            self.log_alpha = nn.Parameter(torch.tensor(0.0))

    def get_non_inference_attributes(self) -> list[str]:
        """Return what only training needs."""
        return [*super().get_non_inference_attributes(), "log_alpha"]


class MAACModule(SACModule):
    """A categorical policy, its target and a temperature; the critic of all agents lies in the first module."""

    has_target_policy = True

    def make_critics(self) -> list[nn.Module]:
        """Return the critic, in the first module; nothing in the others."""
        return [] if self.settings[JOINT]["own"] else [ActorAttentionNetwork(**self._shapes())]

    def attention(self, target: bool = False) -> ActorAttentionNetwork:
        """Return the critic of all agents, or its target, of the first module."""
        (network,) = self.target_critics if target else self.critics
        assert isinstance(network, ActorAttentionNetwork)
        return network

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return pairs of a target network and the one that it follows."""
        return [pair for pair in super().targets() if any(True for _ in pair[0].parameters())]


class COMAModule(JointModule):
    """A categorical policy with a share of random actions, and a critic of all its actions (Foerster et al., 2018).

    The share is the buffer ``policy.exploration``.
    """

    def make_critics(self) -> list[nn.Module]:
        """Return the critic."""
        shapes = self._shapes()
        settings, own = shapes["settings"], self.settings[JOINT]["own"]
        return [
            CounterfactualCritic(
                shapes["groups"], own, shapes["state_size"], settings.hiddens, settings.activation
            )
        ]

    def critic(self, target: bool = False) -> CounterfactualCritic:
        """Return the critic, or its target."""
        (network,) = self.target_critics if target else self.critics
        assert isinstance(network, CounterfactualCritic)
        return network


class QModule(PolicyModule):
    """Q-values with an epsilon-greedy policy, and a target network (Mnih et al., 2015)."""

    target_policy: PolicyNetwork

    def setup(self) -> None:
        """Build the networks."""
        super().setup()
        if not self.inference_only:
            self.target_policy = self.policy.target()

    def policy_spec(self) -> PolicySpec:
        """Return the specification of the Q-network."""
        if not isinstance(self.action_space, gymnasium.spaces.Discrete):
            raise ConfigError(f"Q-learning needs Discrete actions, got {self.action_space}")
        return dataclasses.replace(
            super().policy_spec(),
            distribution="epsilon_greedy",
            dueling=bool(self.settings.get("dueling", False)),
        )

    def get_non_inference_attributes(self) -> list[str]:
        """Return what only training needs."""
        return ["target_policy"]

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return pairs of a target network and the one that it follows."""
        return [(self.target_policy, self.policy)]


class MixedQModule(QModule):
    """Q-values of a team's agents; the first of its modules holds the mixer, and the mixer's target network.

    ``model_config``: as of `QModule`, and for training ``joint`` and ``mixer``.

    Attributes:
        mixers: The mixer in the first module, nothing in others.
        target_mixers: Copies that follow.
    """

    def setup(self) -> None:
        """Build the networks."""
        super().setup()
        if self.inference_only:
            return
        joint = self.settings[JOINT]
        settings = MixerSettings.of(self.settings[MIXER])
        assert settings is not None
        num_agents = sum(group["agents"] for group in joint["groups"])
        holds = [Mixer.of(settings, num_agents, joint["state_size"])] if joint["own"] == 0 else []
        self.mixers = nn.ModuleList(holds)
        self.target_mixers = copy.deepcopy(self.mixers).requires_grad_(False)

    @property
    def mixer(self) -> Mixer:
        """The team's mixer; of the first module alone."""
        (found,) = self.mixers
        assert isinstance(found, Mixer)
        return found

    @property
    def target_mixer(self) -> Mixer:
        """Its target network."""
        (found,) = self.target_mixers
        assert isinstance(found, Mixer)
        return found

    def get_non_inference_attributes(self) -> list[str]:
        """Return what only training needs."""
        return [*super().get_non_inference_attributes(), "mixers", "target_mixers"]

    def targets(self) -> list[tuple[nn.Module, nn.Module]]:
        """Return pairs of a target network and the one that it follows."""
        pairs = super().targets()
        return [*pairs, (self.target_mixers, self.mixers)] if [*self.mixers.parameters()] else pairs


def one_hot(actions: torch.Tensor, count: int) -> torch.Tensor:
    """Return discrete actions ``[...]`` as float rows ``[..., count]``."""
    return nn.functional.one_hot(actions, count).float()


def sampled_one_hot(logits: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """Draw discrete actions that gradients pass through: straight-through Gumbel-softmax (Jang et al., 2017).

    Args:
        logits: Log-probabilities up to a constant, ``[..., A]``; an illegal action holds the least finite number.
        temperature: Of the relaxation whose gradient is used, above 0.
        generator: Source of the noise.

    Returns:
        One-hot ``[..., A]``; its gradient is that of the relaxed sample.
    """
    uniform = torch.rand(logits.shape, generator=generator)
    drawn = relaxed_choice(logits, uniform, temperature)
    if drawn is not None:
        return drawn
    uniform = uniform.clamp_min(torch.finfo(torch.float32).tiny)
    noise = -torch.log(-torch.log(uniform)).to(logits.device)
    relaxed = torch.softmax((logits + noise) / temperature, dim=-1)
    chosen = nn.functional.one_hot(relaxed.argmax(dim=-1), logits.shape[-1]).to(relaxed.dtype)
    return chosen + relaxed - relaxed.detach()

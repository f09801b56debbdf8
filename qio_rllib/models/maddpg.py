"""The module of MADDPG: a decentralised actor, what it says, and for training a centralised critic and targets."""

from __future__ import annotations

import copy
import math
from typing import Any

import gymnasium
import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical, TorchDiagGaussian
from ray.rllib.core.rl_module.apis.inference_only_api import InferenceOnlyAPI
from ray.rllib.core.rl_module.torch import TorchRLModule
from torch import nn

from qio_envs.api import ConfigError
from qio_rllib.acting.communication import Communication
from qio_rllib.models.amplified import AmplifiedPolicy
from qio_rllib.models.joint_critics import AttentionCritic, Critic, GroupShape, MLPCritic
from qio_rllib.models.networks import mlp

_TRAINING_ONLY = ("critic", "target_critic", "target_actor", "target_speaker")
_LEAST_NOISE = 1e-8  # a Gaussian needs a deviation above 0


class DeterministicActor(TorchRLModule, InferenceOnlyAPI):
    """An actor in the shape that runners sample from, with critic and target networks where it trains.

    Its distribution is a Gaussian about the deterministic action (continuous, in [-1, 1]) with the deviation
    `exploration`, or a categorical one (discrete). ``model_config`` holds ``fcnet_hiddens`` and ``fcnet_activation``,
    ``communication``, and for training ``joint`` (see `MADDPGConfig`) and ``critic``.

    With communication the input of the actor is observation and inbox in one row, `speak` gives the message.
    """

    actor: nn.Sequential
    speaker: Any  # None without communication
    target_speaker: Any

    def setup(self) -> None:
        """Build the networks."""
        space, hiddens = self.observation_space.shape, self.model_config["fcnet_hiddens"]
        activation = self.model_config["fcnet_activation"]
        if len(space) != 1:
            raise ConfigError(f"observations: MADDPG takes flat ones, got the shape {space}; flatten them")
        discrete = isinstance(self.action_space, gymnasium.spaces.Discrete)
        size = int(self.action_space.n) if discrete else math.prod(self.action_space.shape)
        radio = Communication.of(self.model_config.get("communication"))
        self.bandwidth = 0 if radio is None else radio.bandwidth
        self.actor = mlp([space[0] + self.bandwidth, *hiddens, size], activation)
        last: Any = self.actor[-1]
        with torch.no_grad():  # begins near the middle of its range, where tanh and softmax have gradients
            last.weight.mul_(0.1)
            last.bias.zero_()
        self.speaker = (
            nn.Sequential(mlp([space[0], *hiddens, self.bandwidth], activation), nn.Tanh())
            if radio is not None
            else None
        )
        self.register_buffer("exploration", torch.tensor(0.0))
        self.action_dist_cls = TorchCategorical if discrete else TorchDiagGaussian
        if not self.inference_only:
            self.target_actor, self.target_speaker = copy.deepcopy(self.actor), copy.deepcopy(self.speaker)
            self.critic = self._make_critic()
            self.target_critic = copy.deepcopy(self.critic)

    def _make_critic(self) -> Critic:
        joint, settings = self.model_config["joint"], self.model_config["critic"]
        groups = [GroupShape(**group) for group in joint["groups"]]
        arguments = (
            groups,
            joint["own"],
            joint["state_size"],
            settings["hiddens"],
            settings["activation"],
        )
        if settings["type"] == "attention":
            return AttentionCritic(*arguments, heads=settings["heads"])
        return MLPCritic(*arguments)

    def _forward(self, batch: dict[str, Any], **kwargs: Any) -> dict[str, Any]:
        output = self.actor(batch[Columns.OBS])
        if self.action_dist_cls is TorchDiagGaussian:
            deviation = self.exploration.clamp_min(_LEAST_NOISE).log().expand_as(output)
            output = torch.cat([torch.tanh(output), deviation], dim=-1)
        return {Columns.ACTION_DIST_INPUTS: output}

    def speak(self, observations: torch.Tensor) -> torch.Tensor:
        """Return messages in [-1, 1], ``[..., K]``, from observations ``[..., D]``."""
        return self.speaker(observations)

    def get_exploration_action_dist_cls(self) -> type:
        """Return the class of the distribution that is sampled."""
        return self.action_dist_cls

    get_train_action_dist_cls = get_inference_action_dist_cls = get_exploration_action_dist_cls

    def get_non_inference_attributes(self) -> list[str]:
        """Return what only training needs."""
        return list(_TRAINING_ONLY)


class MADDPGModule(AmplifiedPolicy, DeterministicActor):
    """`DeterministicActor` with the Q operator behind discrete actions; see `AmplifiedPolicy`.

    With discrete actions `exploration` is the share of uniformly random ones among the sampled.
    """

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the actor's input: observation and inbox."""
        return (self.observation_space.shape[0] + self.bandwidth,)

    def act(
        self,
        inputs: torch.Tensor,
        legal: torch.Tensor | None,
        temperature: float,
        generator: torch.Generator,
        target: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return actions as critics take them, with gradients, and the network's output before tanh or softmax.

        Args:
            inputs: Observations and inboxes, ``[..., D + K]``.
            legal: Legal actions, bool ``[..., A]``, or None.
            temperature: See `sampled_one_hot`; for discrete actions.
            generator: Likewise.
            target: Whether the target network acts.

        Returns:
            In [-1, 1] ``[..., A]`` without noise (continuous), or one-hot samples (discrete); and ``[..., A]``.
        """
        output = (self.target_actor if target else self.actor)(inputs)
        if self.action_dist_cls is TorchDiagGaussian:
            return torch.tanh(output), output
        return sampled_one_hot(self._operated(output, legal), temperature, generator), output

    def _operated(self, logits: torch.Tensor, legal: torch.Tensor | None) -> torch.Tensor:
        """Return log-probabilities behind mask and operator."""
        key = Columns.ACTION_DIST_INPUTS
        return torch.log_softmax(super()._amplified({key: logits}, legal)[key], dim=-1)

    def _amplified(self, output: dict[str, Any], mask: torch.Tensor | None) -> dict[str, Any]:
        if self.action_dist_cls is TorchDiagGaussian:
            return output
        logp = self._operated(output[Columns.ACTION_DIST_INPUTS], mask)
        if self.exploration > 0:
            count = logp.shape[-1] if mask is None else mask.sum(-1, keepdim=True)
            share = self.exploration.clamp(max=1.0)
            mixed = torch.log(logp.exp() * (1 - share) + share / count)
            logp = mixed if mask is None else torch.where(mask, mixed, torch.finfo(mixed.dtype).min)
        output[Columns.ACTION_DIST_INPUTS] = logp
        return output


def sampled_one_hot(log_probs: torch.Tensor, temperature: float, generator: torch.Generator) -> torch.Tensor:
    """Draw discrete actions that gradients pass through: straight-through Gumbel-softmax (Jang et al., 2017).

    Args:
        log_probs: ``[..., A]``; an illegal action holds the least finite number.
        temperature: Of the relaxation whose gradient is used, above 0.
        generator: Source of the noise.

    Returns:
        One-hot ``[..., A]``; its gradient is that of the relaxed sample.
    """
    uniform = torch.rand(log_probs.shape, generator=generator).clamp_min(torch.finfo(torch.float32).tiny)
    noise = -torch.log(-torch.log(uniform)).to(log_probs.device)
    relaxed = torch.softmax((log_probs + noise) / temperature, dim=-1)
    chosen = nn.functional.one_hot(relaxed.argmax(dim=-1), log_probs.shape[-1]).to(relaxed.dtype)
    return chosen + relaxed - relaxed.detach()

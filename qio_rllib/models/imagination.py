"""Imagination-augmented networks: rollouts that a learned model imagines, and encoders that join them to features.

Racanière et al., "Imagination-augmented agents for deep reinforcement learning", NeurIPS 2017 (I2A). Plain torch.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import nn
from torch.nn import functional

from qio_envs.api import ConfigError
from qio_rllib.layers import hidden_layers, mlp
from qio_rllib.models.model_settings import ModelSettings
from qio_rllib.models.networks import Encoder, NetworkSettings
from qio_rllib.world_models.ensemble import Ensemble, EnsembleSettings
from qio_rllib.world_models.model import Sequences

IMAGINATION = "imagination"
LEARNED, RANDOM, NONE = "learned", "random", "none"
MLP, GRU = "mlp", "gru"
_CONTINUOUS_ROLLOUTS = 5
_LIMIT = 10.0  # deviations at which imagined observations and rewards are cut


@dataclasses.dataclass(frozen=True)
class ImaginationSettings(ModelSettings):
    """What a policy imagines before it acts, and how its model learns; ``training(imagination={...})``.

    Attributes:
        source: Where rollouts come from: "learned", a model that is fitted to what the agents experience; for
            comparisons "random", the model as it was drawn, never fitted, or "none", zeros in place of rollouts, for
            networks with exactly as many parameters that see the observation alone.
        horizon: Steps in a rollout ``H``, 1 to 50.
        rollouts: Rollouts ``R`` of continuous actions, 1 to 1000; none for 5. The first one follows the rollout policy
            from its first step, the others begin with fixed actions, spread over [-1, 1] (a Sobol sequence). Discrete
            actions have one rollout each, which begins with the action: leave it out.
        encoder: "mlp", over all steps of a rollout at once, or "gru", over its steps from the last to the first.
        encoder_hiddens: Sizes of its layers; the last one is the number of imagined features.
        members: Networks in the model's ensemble, whose mean is followed, 1 to 20.
        model_hiddens: Sizes of the hidden layers of each.
        policy_hiddens: Sizes of the hidden layers of the rollout policy.
        model_lr: Learning rate of model and rollout policy, above 0.
        model_batch_size: Steps in a gradient step of the two, at least 1.
        model_epochs: Passes of the two over the steps of an update, 1 to 100.
    """

    key: ClassVar[str] = IMAGINATION
    choices: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "source": (LEARNED, RANDOM, NONE),
        "encoder": (MLP, GRU),
    }
    highest: ClassVar[Mapping[str, int]] = {
        "horizon": 50,
        "members": 20,
        "model_batch_size": 1_000_000,
        "model_epochs": 100,
    }

    source: str = LEARNED
    horizon: int = 5
    rollouts: int | None = None
    encoder: str = MLP
    encoder_hiddens: tuple[int, ...] = (128, 64)
    members: int = 3
    model_hiddens: tuple[int, ...] = (128, 128)
    policy_hiddens: tuple[int, ...] = (64,)
    model_lr: float = 1e-3
    model_batch_size: int = 256
    model_epochs: int = 1

    @classmethod
    def of(cls, given: Any) -> Self | None:
        """Return the settings of a mapping; None for None.

        Raises:
            ConfigError: An unknown key, or a value that is not allowed.
        """
        settings = super().of(given)
        if settings is None:
            return None
        for name in ("encoder_hiddens", "model_hiddens", "policy_hiddens"):
            value = getattr(settings, name)
            is_list = isinstance(value, list | tuple) and bool(value)
            if not is_list or not all(type(size) is int and size >= 1 for size in value):
                raise ConfigError(f"{cls.key}.{name}: expected sizes of at least 1, got {value!r}")
        rollouts, rate = settings.rollouts, settings.model_lr
        if rollouts is not None and (type(rollouts) is not int or not 1 <= rollouts <= 1000):
            raise ConfigError(
                f"{cls.key}.rollouts: expected an integer from 1 to 1000 or none, got {rollouts!r}"
            )
        if isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 < rate < float("inf"):
            raise ConfigError(f"{cls.key}.model_lr: expected a finite number above 0, got {rate!r}")
        return dataclasses.replace(
            settings,
            encoder_hiddens=tuple(settings.encoder_hiddens),
            model_hiddens=tuple(settings.model_hiddens),
            policy_hiddens=tuple(settings.policy_hiddens),
        )

    def num_rollouts(self, num_actions: int, is_discrete: bool) -> int:
        """Return ``R``.

        Raises:
            ConfigError: ``rollouts`` is set for discrete actions.
        """
        if not is_discrete:
            return _CONTINUOUS_ROLLOUTS if self.rollouts is None else self.rollouts
        if self.rollouts is not None:
            raise ConfigError(
                f"{self.key}.rollouts: each of the {num_actions} discrete actions has a rollout; leave it out"
            )
        return num_actions


class Shape(NamedTuple):
    """Of what is imagined for one observation."""

    rollouts: int  # R
    steps: int  # H
    numbers: int  # C = D + A + 2

    @classmethod
    def of(cls, settings: ImaginationSettings, obs_size: int, num_actions: int, is_discrete: bool) -> Shape:
        """Return the shape for observations of ``D`` and actions of ``A`` numbers."""
        return cls(
            settings.num_rollouts(num_actions, is_discrete), settings.horizon, obs_size + num_actions + 2
        )

    @property
    def size(self) -> int:
        """Numbers in all rollouts."""
        return self.rollouts * self.steps * self.numbers


class Experience(NamedTuple):
    """Steps that an `Imagination` learns from; ``[B, ...]``."""

    obs: torch.Tensor  # float32 [B, D]
    actions: torch.Tensor  # as executed, in [-1, 1] or one-hot, float32 [B, A]
    rewards: torch.Tensor  # float32 [B]
    next_obs: torch.Tensor  # what followed, at the end of an episode its last observation, float32 [B, D]
    terminated: torch.Tensor  # 1 where the task ended, float32 [B]
    targets: torch.Tensor  # probabilities of the policy that acted, or its mean actions in [-1, 1], [B, A]

    def select(self, index: torch.Tensor) -> Experience:
        """Return some of the steps."""
        return Experience(*(part.index_select(0, index) for part in self))


class Imagination(nn.Module):
    """A model of the environment and a rollout policy, which imagine what may follow an observation.

    The model is an `Ensemble`, whose mean prediction is followed. After its first action a rollout follows the rollout
    policy, a small network that is distilled from the policy as in the paper (its section 3.2); here it takes its most
    probable action (or mean), so that acting and learning imagine the same and no random numbers are needed. What an
    action mask forbids is imagined like the rest; the mask stands behind the policy's outputs.

    Nothing here has a gradient (``requires_grad`` is off): a policy's loss leaves it as it is, and `learn` is for an
    optimizer of its own, which turns gradients on meanwhile.

    Args:
        shape: Of what is imagined.
        obs_size: Numbers in an observation ``D``.
        num_actions: Discrete actions, or components of a continuous one, ``A``.
        is_discrete: Which of them.
        settings: Sizes.
    """

    first_actions: torch.Tensor

    def __init__(
        self, shape: Shape, obs_size: int, num_actions: int, is_discrete: bool, settings: ImaginationSettings
    ) -> None:
        super().__init__()
        self.settings, self.shape = settings, shape
        self.obs_size, self.num_actions, self.is_discrete = obs_size, num_actions, is_discrete
        self.model = Ensemble(
            obs_size, num_actions, EnsembleSettings(members=settings.members, hiddens=settings.model_hiddens)
        )
        self.rollout_policy = mlp((obs_size, *settings.policy_hiddens, num_actions), "tanh")
        if is_discrete:
            first = torch.eye(num_actions)
        else:
            points = torch.quasirandom.SobolEngine(num_actions, scramble=True, seed=0)
            first = 2.0 * points.draw(shape.rollouts) - 1.0
        self.register_buffer("first_actions", first)
        self.requires_grad_(False)

    @torch.no_grad()
    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return what is imagined for flat observations ``[..., D]``.

        Of each step: the observation that it leads to and the reward, in deviations of those seen in training and cut
        at 10, the action, and the probability that the episode has not ended.

        Returns:
            float32 ``[..., R * H * C]``, of each step ``(observation, action, reward, probability)``.
        """
        if self.settings.source == NONE:
            return rows.new_zeros(*rows.shape[:-1], self.shape.size)
        flat = rows.reshape(-1, self.obs_size)
        count = self.shape.rollouts
        state = flat.unsqueeze(1).expand(-1, count, -1).reshape(-1, self.obs_size)
        action = self._first(flat).reshape(-1, self.num_actions)
        reach = torch.ones_like(state[:, :1])
        scale, rewards = self.model.input_scale, self.model.target_scale
        mean, deviation = scale.mean[: self.obs_size], scale.deviation[: self.obs_size]
        steps = []
        for _ in range(self.shape.steps):
            found = self.model.step(state, action)
            seen = ((found.state - mean) / deviation).clamp(-_LIMIT, _LIMIT)
            reward = ((found.rewards - rewards.mean[-1]) / rewards.deviation[-1]).clamp(-_LIMIT, _LIMIT)
            reach = reach * found.continuation.unsqueeze(-1)
            steps.append(torch.cat([seen, action, reward.unsqueeze(-1), reach], dim=-1))
            state = seen * deviation + mean
            action = self.act(state)
        return torch.stack(steps, dim=1).reshape(*rows.shape[:-1], self.shape.size)

    def act(self, obs: torch.Tensor) -> torch.Tensor:
        """Return the rollout policy's actions ``[B, A]`` for observations ``[B, D]``."""
        outputs = self.rollout_policy(self.model.features(obs))
        if self.is_discrete:
            return functional.one_hot(outputs.argmax(-1), self.num_actions).to(outputs.dtype)
        return outputs.clamp(-1.0, 1.0)

    def _first(self, obs: torch.Tensor) -> torch.Tensor:
        """Return the first actions of the rollouts, ``[B, R, A]``."""
        fixed = self.first_actions.unsqueeze(0).expand(obs.shape[0], -1, -1)
        return fixed if self.is_discrete else torch.cat([self.act(obs).unsqueeze(1), fixed[:, 1:]], dim=1)

    # -- learning -------------------------------------------------------------------------------------------------

    def trained_parameters(self) -> list[nn.Parameter]:
        """Return what `learn` is for: model and rollout policy, the latter alone, or nothing, as the source says."""
        if self.settings.source == NONE:
            return []
        parts = [self.model] if self.settings.source == LEARNED else []
        return [parameter for part in [*parts, self.rollout_policy] for parameter in part.parameters()]

    def take_in(self, batch: Experience) -> None:
        """Take in the scales of observations, actions and rewards; once for each step that was experienced."""
        if self.settings.source == LEARNED:
            self.model.take_in(_sequences(batch))

    def learn(
        self, batch: Experience, generator: torch.Generator
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Return the loss of a batch, and what to report of it.

        The model's loss is `Ensemble.learn`'s. The rollout policy's is the cross-entropy from the policy's
        probabilities, or the mean squared distance to its mean actions.

        Args:
            batch: Steps.
            generator: Source of the members' resamples.
        """
        outputs = self.rollout_policy(self.model.features(batch.obs))
        if self.is_discrete:
            loss = -(batch.targets * torch.log_softmax(outputs, dim=-1)).sum(-1).mean()
        else:
            loss = ((outputs - batch.targets) ** 2).mean()
        stats = {"rollout_policy_loss": loss.detach()}
        if self.settings.source == LEARNED:
            learned = self.model.learn(_sequences(batch), generator)
            loss = loss + learned.loss
            stats |= {"model_loss": learned.loss.detach(), **learned.stats}
        return loss, stats


class RolloutEncoder(nn.Module):
    """From imagined rollouts to features: each rollout by itself, then their mean.

    The rollouts are not told apart by their places, as those of the paper are, but by the actions in them.

    Args:
        shape: Of what is imagined.
        settings: Kind and sizes.
        activation: A key of `qio_rllib.layers.ACTIVATIONS`.

    Attributes:
        size: Numbers in the features.
    """

    def __init__(self, shape: Shape, settings: ImaginationSettings, activation: str) -> None:
        super().__init__()
        self.shape, self.size = shape, settings.encoder_hiddens[-1]
        self.cell: nn.GRUCell | None = None
        if settings.encoder == MLP:
            sizes = [shape.steps * shape.numbers, *settings.encoder_hiddens]
        else:
            sizes = [shape.numbers, *settings.encoder_hiddens[:-1]]
            self.cell = nn.GRUCell(sizes[-1], self.size)
        self.layers = nn.Sequential(*hidden_layers(sizes, activation))

    def forward(self, imagined: torch.Tensor) -> torch.Tensor:
        """Return features ``[..., size]`` of what was imagined, ``[..., R * H * C]``."""
        steps = imagined.reshape(-1, *self.shape)
        if self.cell is None:
            found = self.layers(steps.flatten(2))
        else:
            by_step = self.layers(steps).flatten(0, 1)  # [B R, H, ...]
            state = torch.zeros_like(by_step[:, 0, :1]).expand(-1, self.size)
            for step in reversed(range(self.shape.steps)):
                state = self.cell(by_step[:, step], state)
            found = state.reshape(-1, self.shape.rollouts, self.size)
        return found.mean(1).reshape(*imagined.shape[:-1], self.size)


class ImaginingEncoder(nn.Module):
    """Features of an observation by itself, and of what is imagined for it, side by side.

    Args:
        obs_shape: Of an observation.
        shape: Of what is imagined.
        settings: Of the imagined part.
        network: Layers of the model-free part.

    Attributes:
        size: Numbers in the features.
    """

    def __init__(
        self,
        obs_shape: Sequence[int],
        shape: Shape,
        settings: ImaginationSettings,
        network: NetworkSettings,
    ) -> None:
        super().__init__()
        self.model_free = Encoder(obs_shape, 0, network)
        self.rollouts = RolloutEncoder(shape, settings, network.fcnet_activation)
        self.widths = [math.prod(obs_shape), shape.size]
        self.size = self.model_free.size + self.rollouts.size

    def forward(self, perceived: torch.Tensor) -> torch.Tensor:
        """Return features ``[..., size]`` of observations with what was imagined behind them."""
        obs, imagined = perceived.split(self.widths, dim=-1)
        return torch.cat([self.model_free(obs), self.rollouts(imagined)], dim=-1)


def check_imagination(
    settings: ImaginationSettings, obs_shape: Sequence[int], others: Mapping[str, bool]
) -> None:
    """Refuse images, and what takes the place of the networks that imagined features would join.

    Args:
        settings: Of the imagination.
        obs_shape: Of an observation.
        others: By key of a setting, whether it is set.

    Raises:
        ConfigError: Naming the setting.
    """
    if len(obs_shape) == 3:
        raise ConfigError(
            f"{settings.key}: the model takes flat observations, got images of {tuple(obs_shape)}; set it to null"
        )
    for key, is_set in others.items():
        if is_set:
            raise ConfigError(f"{settings.key}: does not go with {key}; set one of the two to null")


def _sequences(batch: Experience) -> Sequences:
    """Return steps as sequences of one, ``[1, B, ...]``."""
    learned = torch.ones_like(batch.rewards)
    return Sequences(
        batch.obs.unsqueeze(0),
        batch.next_obs.unsqueeze(0),
        batch.actions.unsqueeze(0),
        batch.rewards.unsqueeze(0),
        batch.terminated.unsqueeze(0),
        learned.unsqueeze(0),
        learned.unsqueeze(0) > 0,
    )

"""Opponent modelling: a head on a policy's features that predicts what the other agents are about to do.

The prediction is an auxiliary task beside the policy's loss, and what is predicted enters the policy, as in He et al.,
"Opponent modeling in deep reinforcement learning", ICML 2016, and Hernandez-Leal, Kartal and Taylor, "Agent modeling as
auxiliary task for deep reinforcement learning", AIIDE 2019. Plain torch.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import nn

from qio_envs.api import ConfigError
from qio_rllib.layers import mlp
from qio_rllib.mapping_settings import MappingSettings, is_number

OPPONENT_MODEL = "opponent_model"
OTHER_AGENTS = "other_agents"
"""Key of ``model_config`` under which the environment's part of an opponent model stands, see `OtherAgents`."""


@dataclasses.dataclass(frozen=True)
class OpponentModelSettings(MappingSettings):
    """How agents predict what the others do; ``training(opponent_model={...})``.

    Attributes:
        coefficient: Weight of the prediction's loss, in units of the loss for a nat, above 0.
        hiddens: Sizes of the hidden layers of the predicting head, at least 1 each; an empty list for a linear head.
        feed: Whether what is predicted stands beside the features that the policy's head takes; false for the auxiliary
            loss alone, which shapes the features.
    """

    key: ClassVar[str] = OPPONENT_MODEL

    coefficient: float = 0.5
    hiddens: tuple[int, ...] = (64,)
    feed: bool = True

    def checks(self) -> list[tuple[str, str, bool]]:
        """Return what is checked; see `MappingSettings`."""
        weight, sizes = self.coefficient, self.hiddens
        is_list = isinstance(sizes, list | tuple)
        return [
            (
                "coefficient",
                "a finite number above 0 (null in the place of opponent_model predicts nothing)",
                is_number(weight) and 0 < weight < float("inf"),
            ),
            (
                "hiddens",
                "sizes of at least 1",
                is_list and all(type(size) is int and size >= 1 for size in sizes),
            ),
            ("feed", "true or false", isinstance(self.feed, bool)),
        ]


@dataclasses.dataclass(frozen=True)
class OtherAgents:
    """The agents beside one, as an opponent model knows them: those of an environment in its order, itself left out.

    Attributes:
        count: How many they are, ``K``.
        num_actions: The most discrete actions that one of them has, or components of a continuous action, ``A``.
        is_discrete: Which of the two.
    """

    count: int
    num_actions: int
    is_discrete: bool

    @classmethod
    def of(cls, given: Any) -> Self:
        """Return what `as_dict` described.

        Raises:
            ConfigError: It did not.
        """
        kinds = {"count": int, "num_actions": int, "is_discrete": bool}
        fits = isinstance(given, Mapping) and set(given) == set(kinds)
        if not fits or any(type(given[name]) is not kind or given[name] < 0 for name, kind in kinds.items()):
            raise ConfigError(
                f"{OTHER_AGENTS}: expected {', '.join(kinds)} of the other agents, got {given!r}"
            )
        return cls(**given)

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, fit for JSON."""
        return dataclasses.asdict(self)

    @property
    def size(self) -> int:
        """Numbers in a prediction of all of them."""
        return self.count * self.num_actions


class PredictionErrors(NamedTuple):
    """How far predictions were from what the others did; rows ``B``."""

    nll: (
        torch.Tensor
    )  # negative log-likelihood of each agent's action, in nats, 0 of those that did not act, [B, K]
    hits: (
        torch.Tensor
    )  # where the most probable action was taken; of continuous ones the squared error, [B, K]


class OpponentModel(nn.Module):
    """Predicts the actions that the other agents take in the same step from an agent's features.

    Of discrete actions it gives probabilities, of continuous ones means of a Gaussian of deviation 1, in the units of
    the policies' outputs (``normalize_actions``), between -1 and 1.

    The policy's loss does not reach it: what enters the policy is cut off from the gradient, so that it stays a
    prediction. The loss of the prediction does reach the features, encoder and memory included.

    Args:
        features: Numbers in the features ``F``.
        others: Whose actions.
        settings: Sizes.
        activation: A key of `qio_rllib.layers.ACTIVATIONS`.

    Attributes:
        fed_size: Numbers that enter the policy.
    """

    def __init__(
        self, features: int, others: OtherAgents, settings: OpponentModelSettings, activation: str
    ) -> None:
        super().__init__()
        self.others, self.settings = others, settings
        self.layers = mlp([features, *settings.hiddens, others.size], activation)
        self.fed_size = others.size if settings.feed else 0

    @classmethod
    def of(cls, network: Mapping[str, Any], features: int, activation: str) -> Self | None:
        """Return what the settings of a network ask for; None for nothing.

        Raises:
            ConfigError: Settings that are not allowed, or without the other agents' actions.
        """
        settings = OpponentModelSettings.of(network.get(OPPONENT_MODEL))
        if settings is None:
            return None
        return cls(features, OtherAgents.of(network.get(OTHER_AGENTS)), settings, activation)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits or means for features ``[..., F]``, float32 ``[..., K, A]``."""
        found = self.layers(features)
        return found.reshape(*features.shape[:-1], self.others.count, self.others.num_actions)

    def beside(self, features: torch.Tensor, outputs: torch.Tensor | None = None) -> torch.Tensor:
        """Return features with predictions behind them where those enter the policy, ``[..., F + fed_size]``.

        Args:
            features: ``[..., F]``.
            outputs: What `forward` gives for them, where it is known already.
        """
        if not self.fed_size:
            return features
        outputs = (self(features) if outputs is None else outputs).detach()
        predicted = torch.softmax(outputs, dim=-1) if self.others.is_discrete else outputs
        return torch.cat([features, predicted.flatten(-2)], dim=-1)

    def errors(self, outputs: torch.Tensor, actions: torch.Tensor, acted: torch.Tensor) -> PredictionErrors:
        """Compare predictions with what was done.

        Args:
            outputs: As `forward` gave them, ``[B, K, A]``.
            actions: Numbers of actions, int64 ``[B, K]``, or continuous ones, float32 ``[B, K, A]``.
            acted: Which agents acted, bool ``[B, K]``.
        """
        if self.others.is_discrete:
            logp = torch.log_softmax(outputs, dim=-1)
            nll = -logp.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
            hits = (outputs.argmax(-1) == actions).to(outputs.dtype)
        else:
            squares = (outputs - actions.clamp(-1.0, 1.0)) ** 2
            nll, hits = 0.5 * squares.sum(-1), squares.mean(-1)
        present = acted.to(outputs.dtype)
        return PredictionErrors(nll * present, hits.detach() * present)

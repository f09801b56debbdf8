"""`WorldModel`: what planners, imagination and diagnostics need of a model of an environment."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

ValueFunction = Callable[[torch.Tensor], torch.Tensor]
"""From features ``[..., F]`` to values ``[...]``."""


@dataclasses.dataclass
class Sequences:
    """``L`` successive steps of ``B`` agents, steps first, as a model learns from them.

    Attributes:
        obs: float32 ``[L, B, D]``.
        next_obs: What followed each step, float32 ``[L, B, D]``; at the end of an episode the last observation of it.
        actions: As executed: in [-1, 1], or one-hot; float32 ``[L, B, A]``.
        rewards: float32 ``[L, B]``.
        terminated: 1 where the task ended for the agent with this step, float32 ``[L, B]``.
        learned: 1 for steps that count, float32 ``[L, B]``.
        fresh: Steps that an episode begins with, bool ``[L, B]``; the first of each sequence counts as one anyway.
    """

    obs: torch.Tensor
    next_obs: torch.Tensor
    actions: torch.Tensor
    rewards: torch.Tensor
    terminated: torch.Tensor
    learned: torch.Tensor
    fresh: torch.Tensor


class Predicted(NamedTuple):
    """What a model says of one step."""

    state: torch.Tensor  # that follows, [..., S]
    rewards: torch.Tensor  # [...]
    continuation: torch.Tensor  # probability that the episode goes on, [...]


class Learned(NamedTuple):
    """What a model's loss gives."""

    loss: torch.Tensor  # scalar
    stats: dict[str, torch.Tensor]  # scalars to report
    states: torch.Tensor  # the state in which each step was taken, without gradients, [L, B, S]


class WorldModel(nn.Module, abc.ABC):
    """A learned model of what one agent observes and gets.

    A state is one row of numbers that holds all that the model remembers of an episode: of a model that sees the whole
    state of its environment the observation itself, of a recurrent one its memory and a latent.

    Attributes:
        obs_size: Numbers ``D`` in an observation.
        num_actions: Numbers ``A`` in an action: components, or one for each discrete action.
        state_size: Numbers ``S`` in a state.
        feature_size: Numbers ``F`` in what policies and values see of a state.
    """

    obs_size: int
    num_actions: int
    state_size: int
    feature_size: int

    @abc.abstractmethod
    def observe(
        self,
        state: torch.Tensor,
        action: torch.Tensor,
        obs: torch.Tensor,
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """Return the state after an action and the observation that followed it.

        Args:
            state: Before the action, ``[B, S]``; zeros at the start of an episode.
            action: As executed, ``[B, A]``; zeros at the start of an episode.
            obs: ``[B, D]``.
            generator: Source of draws; None takes the most probable latent.
        """

    @abc.abstractmethod
    def step(
        self, state: torch.Tensor, action: torch.Tensor, generator: torch.Generator | None = None
    ) -> Predicted:
        """Predict one step.

        Args:
            state: ``[B, S]``.
            action: In [-1, 1], or one-hot, ``[B, A]``.
            generator: Source of draws; None predicts means.
        """

    @abc.abstractmethod
    def features(self, state: torch.Tensor) -> torch.Tensor:
        """Return what policies and values see of states ``[..., S]``, ``[..., F]``."""

    @abc.abstractmethod
    def decode(self, state: torch.Tensor) -> torch.Tensor:
        """Return the observations ``[..., D]`` that belong to states ``[..., S]``."""

    def drawn_obs(self, state: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
        """Draw observations ``[..., D]`` of states ``[..., S]``; here those of `decode`, which are exact."""
        return self.decode(state)

    @abc.abstractmethod
    def learn(self, batch: Sequences, generator: torch.Generator) -> Learned:
        """Return the loss of a batch."""

    def take_in(self, batch: Sequences) -> None:
        """Take in what does not go by gradients, the scales of inputs for one; once a batch, before `learn`."""

    def returns(
        self,
        state: torch.Tensor,
        actions: torch.Tensor,
        gamma: float,
        value: ValueFunction | None = None,
    ) -> torch.Tensor:
        """Return what sequences of actions are expected to earn.

        ``sum_h gamma^h prod_{j<h} c_j r_h + gamma^H prod_j c_j V``, with the continuation probabilities ``c``.

        Args:
            state: Where they begin, ``[B, S]``.
            actions: ``[B, N, H, A]``.
            gamma: Discount in [0, 1].
            value: Of the features at the end; None for 0.

        Returns:
            ``[B, N]``.
        """
        rows, candidates, horizon, _ = actions.shape
        present = state.repeat_interleave(candidates, dim=0)
        flat = actions.flatten(0, 1)
        total = flat.new_zeros(len(flat))
        weight = torch.ones_like(total)
        for step in range(horizon):
            present, rewards, goes_on = self.step(present, flat[:, step])
            total = total + weight * rewards
            weight = weight * goes_on * gamma
        if value is not None:
            total = total + weight * value(self.features(present))
        return total.unflatten(0, (rows, candidates))

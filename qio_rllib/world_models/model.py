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
        present: For models that see others: 1 for agents that act in a step, float32 ``[L, E, M]``; the ``M`` agents of
            a sample stand one after another in ``B = E M``. None where every row stands alone.
    """

    obs: torch.Tensor
    next_obs: torch.Tensor
    actions: torch.Tensor
    rewards: torch.Tensor
    terminated: torch.Tensor
    learned: torch.Tensor
    fresh: torch.Tensor
    present: torch.Tensor | None = None


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
        sees_others: Whether predictions depend on the other agents of a module. `attend` then says what an agent takes
            from them; in batches the ``M`` agents of an environment stand one after another, ``B = E M``.
        attended_size: Numbers in what `attend` gives a row that `observe` has to be told of; 0 for nothing.
    """

    obs_size: int
    num_actions: int
    state_size: int
    feature_size: int
    sees_others: bool = False
    attended_size: int = 0

    def attend(self, state: torch.Tensor, action: torch.Tensor, present: torch.Tensor) -> torch.Tensor | None:
        """Return what agents take from the others of their module before actions take effect.

        Args:
            state: ``[E M, S]``.
            action: ``[E M, A]``.
            present: Agents that are there, ``[E, M]``; the others see nothing and are seen by nobody.

        Returns:
            For `step` and `observe`; None of a model in which agents stand alone.
        """
        return None

    @abc.abstractmethod
    def observe(
        self,
        state: torch.Tensor,
        action: torch.Tensor,
        obs: torch.Tensor,
        generator: torch.Generator | None = None,
        others: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the state after an action and the observation that followed it.

        Args:
            state: Before the action, ``[B, S]``; zeros at the start of an episode.
            action: As executed, ``[B, A]``; zeros at the start of an episode.
            obs: ``[B, D]``.
            generator: Source of draws; None takes the most probable latent.
            others: What `attend` gave before the action, ``[B, attended_size]``; None, or zeros at the start of an
                episode, for nothing.
        """

    @abc.abstractmethod
    def step(
        self,
        state: torch.Tensor,
        action: torch.Tensor,
        generator: torch.Generator | None = None,
        others: torch.Tensor | None = None,
    ) -> Predicted:
        """Predict one step.

        Args:
            state: ``[B, S]``.
            action: In [-1, 1], or one-hot, ``[B, A]``.
            generator: Source of draws; None predicts means.
            others: What `attend` gives; None for nothing.
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
        present: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return what sequences of actions are expected to earn.

        ``sum_h gamma^h prod_{j<h} c_j r_h + gamma^H prod_j c_j V``, with the continuation probabilities ``c``.

        Of a model that sees others the candidates of one index are played together: candidate ``n`` of an agent is
        rated while each other agent of its environment follows its own candidate ``n``.

        Args:
            state: Where they begin, ``[B, S]``.
            actions: ``[B, N, H, A]``.
            gamma: Discount in [0, 1].
            value: Of the features at the end; None for 0.
            present: Agents that are there, all through the sequence, ``[E, M]`` with ``B = E M``; None where every row
                stands alone.

        Returns:
            ``[B, N]``.
        """
        candidates, horizon = actions.shape[1:3]
        agents = 1 if present is None else present.shape[1]
        now = by_candidate(state, candidates, agents)
        flat = joint_candidates(actions, agents)
        here = None if present is None else present.repeat_interleave(candidates, dim=0)
        total = flat.new_zeros(len(flat))
        weight = torch.ones_like(total)
        for step in range(horizon):
            taken = flat[:, step]
            others = None if here is None else self.attend(now, taken, here)
            now, rewards, goes_on = self.step(now, taken, others=others)
            total = total + weight * rewards
            weight = weight * goes_on * gamma
        if value is not None:
            total = total + weight * value(self.features(now))
        return by_row(total, candidates, agents)


def by_candidate(rows: torch.Tensor, count: int, agents: int = 1) -> torch.Tensor:
    """Return rows ``[E M, ...]`` ``count`` times, ``[E N M, ...]``: an environment's agents stay together."""
    joint = rows.unflatten(0, (-1, agents)).unsqueeze(1)
    return joint.expand(-1, count, *joint.shape[2:]).flatten(0, 2)


def joint_candidates(actions: torch.Tensor, agents: int = 1) -> torch.Tensor:
    """Return candidates ``[E M, N, ...]`` in the order of `by_candidate`, ``[E N M, ...]``."""
    return actions.unflatten(0, (-1, agents)).transpose(1, 2).flatten(0, 2)


def by_row(values: torch.Tensor, count: int, agents: int = 1) -> torch.Tensor:
    """Return numbers in the order of `by_candidate`, ``[E N M]``, as ``[E M, N]``."""
    return values.unflatten(0, (-1, count, agents)).transpose(1, 2).flatten(0, 1)

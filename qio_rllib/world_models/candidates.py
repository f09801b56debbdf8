"""Distributions over sequences of actions: drawing candidates from them and fitting them to weighted candidates.

A `Sequences` says for one kind of actions what a planner's distribution is. Its parameters are one tensor ``[P, B, H,
A]`` for ``B`` decisions, ``H`` steps and ``A`` numbers in an action; entry 0 of the first axis is the centre of the
distribution. Every row of ``B`` is computed from its own numbers alone, in an order that does not depend on ``B``: sums
run over the last, contiguous axis.
"""

from __future__ import annotations

import abc

import numpy as np
import torch
from torch import Tensor

from qio_rllib.random_numbers import RandomNumbers
from qio_rllib.world_models.planning_settings import PlanningSettings


class RowDraws:
    """Random numbers for ``B = E x M`` rows, of ``M`` agents in each of ``E`` environments.

    Args:
        rng: Their source, which is asked for ``[E, M, ...]``.
        num_envs: ``E``.
        rows: ``B``, a multiple of ``E``; the agents of an environment are successive rows.
        device: Where the numbers shall be.
    """

    def __init__(self, rng: RandomNumbers, num_envs: int, rows: int, device: torch.device) -> None:
        self._rng, self._device = rng, device
        self._leading = (num_envs, rows // num_envs)

    def uniform(self, *shape: int) -> Tensor:
        """Return uniform numbers on [0, 1), float32 ``[B, *shape]``."""
        return self._on_device(self._rng.random((*self._leading, *shape), np.float32))

    def normal(self, *shape: int) -> Tensor:
        """Return standard normal numbers, float32 ``[B, *shape]``."""
        return self._on_device(self._rng.standard_normal((*self._leading, *shape), np.float32))

    def _on_device(self, numbers: np.ndarray) -> Tensor:
        return torch.from_numpy(numbers.reshape(-1, *numbers.shape[2:])).to(self._device)


class Sequences(abc.ABC):
    """A distribution over action sequences; see the module.

    Args:
        settings: Of the planner.
        num_actions: Numbers in an action ``A``.
    """

    def __init__(self, settings: PlanningSettings, num_actions: int) -> None:
        self.settings, self.num_actions = settings, num_actions

    @abc.abstractmethod
    def start(self, center: Tensor, known: Tensor) -> Tensor:
        """Return the parameters of the first iteration.

        Args:
            center: What `shifted` gave for the previous decision, ``[B, H, A]``; not used where ``known`` is false.
            known: Whether there was a previous decision, bool ``[B]``.
        """

    @abc.abstractmethod
    def draw(self, parameters: Tensor, count: int, draws: RowDraws, legal: Tensor | None) -> Tensor:
        """Return ``count`` candidates a row, float32 ``[B, count, H, A]``; ``legal`` is bool ``[B, A]``."""

    @abc.abstractmethod
    def fit(self, candidates: Tensor, weights: Tensor) -> Tensor:
        """Return the parameters that weighted candidates ``[B, N, H, A]`` have; weights ``[B, N]`` add up to 1."""

    @abc.abstractmethod
    def central(self, center: Tensor, legal: Tensor | None) -> Tensor:
        """Return the sequence at the centre of a distribution, as a candidate ``[B, H, A]``."""

    @abc.abstractmethod
    def shifted(self, center: Tensor) -> Tensor:
        """Return a centre as it starts the next decision, one step later."""

    @abc.abstractmethod
    def taken(self, sequence: Tensor, draws: RowDraws | None, legal: Tensor | None) -> Tensor:
        """Return the first action of a sequence ``[B, H, A]``, with exploration noise where there are draws."""

    @abc.abstractmethod
    def readable(self, sequence: Tensor) -> Tensor:
        """Return candidates ``[B, H, A]`` as an environment takes actions."""


class ContinuousSequences(Sequences):
    """Independent Gaussian actions in [-1, 1]: means and standard deviations, ``[2, B, H, A]``.

    Candidates beyond the bounds are clipped to them, not drawn again: optima at the bounds are common.
    """

    def __init__(self, settings: PlanningSettings, num_actions: int) -> None:
        super().__init__(settings, num_actions)
        exponent = settings.noise_exponent if settings.method == "icem" else 0.0
        self._filter = noise_filter(settings.horizon, exponent) if exponent else None

    def start(self, center: Tensor, known: Tensor) -> Tensor:
        """Return the previous means, or 0, with the initial deviation; see `Sequences.start`."""
        mean = torch.where(known[:, None, None], center, 0.0)
        return torch.stack([mean, torch.full_like(mean, self.settings.initial_deviation)])

    def draw(self, parameters: Tensor, count: int, draws: RowDraws, legal: Tensor | None) -> Tensor:
        """Return Gaussian candidates, clipped to [-1, 1]; see `Sequences.draw`."""
        noise = draws.normal(count, self.settings.horizon, self.num_actions)
        if self._filter is not None:
            by_action = noise.transpose(-1, -2).contiguous().unsqueeze(-2)  # [B, N, A, 1, H]
            noise = (by_action * self._filter.to(noise.device)).sum(-1).transpose(-1, -2)
        mean, deviation = parameters.unsqueeze(2)
        return (mean + deviation * noise).clamp(-1.0, 1.0).contiguous()

    def fit(self, candidates: Tensor, weights: Tensor) -> Tensor:
        """Return weighted means and standard deviations, at least the least one; see `Sequences.fit`."""
        values, shares = _candidates_last(candidates), weights[:, None, None]
        mean = (values * shares).sum(-1)
        deviation = ((values - mean.unsqueeze(-1)).square() * shares).sum(-1).sqrt()
        return torch.stack([mean, deviation.clamp_min(self.settings.least_deviation)])

    def central(self, center: Tensor, legal: Tensor | None) -> Tensor:
        """Return the means, which rounding does not take out of [-1, 1]; see `Sequences.central`."""
        return center.clamp(-1.0, 1.0)

    def shifted(self, center: Tensor) -> Tensor:
        """Return the means of later steps, the last one twice; see `Sequences.shifted`."""
        return later(center, dim=1)

    def taken(self, sequence: Tensor, draws: RowDraws | None, legal: Tensor | None) -> Tensor:
        """Return the first action, with clipped Gaussian noise where there are draws; see `Sequences.taken`."""
        first = sequence[:, 0]
        if draws is None:
            return first.clone()
        return (first + self.settings.exploration * draws.normal(self.num_actions)).clamp(-1.0, 1.0)

    def readable(self, sequence: Tensor) -> Tensor:
        """Return the sequence itself, float32 ``[B, H, A]``."""
        return sequence


class DiscreteSequences(Sequences):
    """Independent categorical actions: probabilities of each action at each step, ``[1, B, H, A]``.

    What is legal is known for the first step only; a row without legal actions, which an absent agent has, is taken as
    one where all are.
    """

    def start(self, center: Tensor, known: Tensor) -> Tensor:
        """Return uniform probabilities, or their mean with the previous ones; see `Sequences.start`.

        Half of the distribution starts anew at each decision, as the deviation of continuous actions does.
        """
        uniform = torch.full_like(center, 1.0 / self.num_actions)
        return torch.where(known[:, None, None], 0.5 * (center + uniform), uniform).unsqueeze(0)

    def draw(self, parameters: Tensor, count: int, draws: RowDraws, legal: Tensor | None) -> Tensor:
        """Return one-hot candidates whose first action is legal; see `Sequences.draw`."""
        share = self.settings.uniform_share
        probabilities = (1.0 - share) * parameters[0] + share / self.num_actions
        chances = draws.uniform(count, self.settings.horizon).transpose(1, 2).contiguous()  # [B, H, N]
        indices = _inverse_cdf(_masked_first(probabilities, legal), chances)
        return self._one_hot(indices.transpose(1, 2))

    def fit(self, candidates: Tensor, weights: Tensor) -> Tensor:
        """Return weighted frequencies; see `Sequences.fit`."""
        return (_candidates_last(candidates) * weights[:, None, None]).sum(-1).unsqueeze(0)

    def central(self, center: Tensor, legal: Tensor | None) -> Tensor:
        """Return the most probable action of each step, of equal ones the first; see `Sequences.central`."""
        return self._one_hot(_masked_first(center, legal).argmax(-1))

    def shifted(self, center: Tensor) -> Tensor:
        """Return the probabilities of later steps, then uniform ones; see `Sequences.shifted`."""
        uniform = torch.full_like(center[:, :1], 1.0 / self.num_actions)
        return torch.cat([center[:, 1:], uniform], dim=1)

    def taken(self, sequence: Tensor, draws: RowDraws | None, legal: Tensor | None) -> Tensor:
        """Return the first action, int64 ``[B]``, or with some probability a uniform one; see `Sequences.taken`."""
        first = sequence[:, 0].argmax(-1)
        if draws is None:
            return first
        whether, which = draws.uniform(2).unbind(-1)
        uniform = _masked_first(torch.ones_like(sequence[:, :1]), legal)
        other = _inverse_cdf(uniform, which[:, None, None].contiguous())[:, 0, 0]
        return torch.where(whether < self.settings.exploration, other, first)

    def readable(self, sequence: Tensor) -> Tensor:
        """Return indices of actions, int64 ``[B, H]``."""
        return sequence.argmax(-1)

    def _one_hot(self, indices: Tensor) -> Tensor:
        return torch.nn.functional.one_hot(indices, self.num_actions).to(torch.float32)


def noise_filter(horizon: int, exponent: float) -> Tensor:
    """Return the matrix ``C`` that turns white noise ``z`` over the steps of a plan into coloured noise ``C z``.

    The power spectrum over the frequencies ``f = 0, 1 / H, ..., 1 / 2`` is proportional to ``1 / f^exponent``, where
    0 counts as ``1 / H`` (Timmer & König 1995, as Pinneri et al. 2020 use it); the variance of each step stays 1.
    The noise is periodic in the horizon.

    Args:
        horizon: ``H``, at least 1.
        exponent: At least 0; 0 leaves the noise white.

    Returns:
        float32 ``[H, H]``.
    """
    frequencies = np.fft.rfftfreq(horizon)
    frequencies[0] = 1.0 / horizon
    response = np.fft.irfft(frequencies ** (-exponent / 2), horizon)
    response /= np.sqrt(np.square(response).sum())
    steps = np.arange(horizon)
    return torch.from_numpy(response[(steps[:, None] - steps) % horizon].astype(np.float32))


def later(steps: Tensor, dim: int) -> Tensor:
    """Return a sequence without its first step and with its last step twice."""
    length = steps.shape[dim]
    return torch.cat([steps.narrow(dim, 1, length - 1), steps.narrow(dim, length - 1, 1)], dim=dim)


def _candidates_last(candidates: Tensor) -> Tensor:
    """Return ``[B, N, H, A]`` as contiguous ``[B, H, A, N]``."""
    return candidates.permute(0, 2, 3, 1).contiguous()


def _masked_first(probabilities: Tensor, legal: Tensor | None) -> Tensor:
    """Return probabilities ``[B, H, A]``, up to a factor a step, without what is illegal at the first step.

    Legal actions have some probability there: no distribution is fitted to candidates that begin otherwise, and what
    starts a decision is at least half uniform.
    """
    if legal is None:
        return probabilities
    allowed = (legal | ~legal.any(-1, keepdim=True)).to(probabilities.dtype)
    first = probabilities[:, 0] * allowed
    return torch.cat([first.unsqueeze(1), probabilities[:, 1:]], dim=1)


def _inverse_cdf(probabilities: Tensor, chances: Tensor) -> Tensor:
    """Return indices ``[B, H, N]`` drawn from probabilities ``[B, H, A]``, up to a factor, by uniform numbers."""
    cumulative = probabilities.cumsum(-1)
    # Divided by the last value, which makes that 1: an action of probability 0 is never hit, whatever the rounding.
    return torch.searchsorted((cumulative / cumulative[..., -1:]).contiguous(), chances, right=True)

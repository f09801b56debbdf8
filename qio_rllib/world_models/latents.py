"""Stochastic latents of world models: diagonal Gaussians and groups of categorical variables."""

from __future__ import annotations

import abc
from typing import NamedTuple

import torch
from torch.nn import functional


class Statistics(NamedTuple):
    """Parameters of a batch of latent distributions.

    Attributes:
        first: Means ``[..., size]`` (Gaussian), or probabilities ``[..., variables, classes]`` (categorical).
        second: Deviations ``[..., size]`` (Gaussian), or the probabilities' logarithms (categorical).
    """

    first: torch.Tensor
    second: torch.Tensor

    def detach(self) -> Statistics:
        """Return the same numbers without their history."""
        return Statistics(self.first.detach(), self.second.detach())

    def __getitem__(self, rows: object) -> Statistics:  # type: ignore[override]
        """Return some of the distributions."""
        return Statistics(self.first[rows], self.second[rows])  # type: ignore[index]


class Latent(abc.ABC):
    """A family of latent distributions.

    Attributes:
        size: Numbers in a sample.
        num_outputs: Numbers that a network gives for one distribution.
    """

    size: int
    num_outputs: int

    @abc.abstractmethod
    def statistics(self, outputs: torch.Tensor) -> Statistics:
        """Return the distributions of a network's outputs ``[..., num_outputs]``."""

    @abc.abstractmethod
    def sample(self, statistics: Statistics, generator: torch.Generator) -> torch.Tensor:
        """Draw samples through which gradients pass, ``[..., size]``."""

    @abc.abstractmethod
    def mode(self, statistics: Statistics) -> torch.Tensor:
        """Return the most probable values, ``[..., size]``."""

    @abc.abstractmethod
    def divergence(self, posterior: Statistics, prior: Statistics) -> torch.Tensor:
        """Return the Kullback-Leibler divergence KL(posterior || prior) in nats, ``[...]``; never negative."""


class GaussianLatent(Latent):
    """Independent normal variables (Hafner et al., "Learning latent dynamics for planning from pixels", 2019).

    Args:
        size: Number of variables.
        least_deviation: Added to every deviation, above 0.
    """

    def __init__(self, size: int, least_deviation: float = 0.1) -> None:
        self.size, self.num_outputs = size, 2 * size
        self.least_deviation = least_deviation

    def statistics(self, outputs: torch.Tensor) -> Statistics:
        """Return means and deviations; the latter are ``softplus(outputs) + least_deviation``."""
        mean, raw = outputs.chunk(2, dim=-1)
        return Statistics(mean, functional.softplus(raw) + self.least_deviation)

    def sample(self, statistics: Statistics, generator: torch.Generator) -> torch.Tensor:
        """Draw reparametrised samples."""
        mean, deviation = statistics
        return mean + deviation * torch.randn(mean.shape, generator=generator).to(mean.device)

    def mode(self, statistics: Statistics) -> torch.Tensor:
        """Return the means."""
        return statistics.first

    def divergence(self, posterior: Statistics, prior: Statistics) -> torch.Tensor:
        """Return ``sum log(p/q) + (q^2 + (mu_q - mu_p)^2) / (2 p^2) - 1/2``."""
        shift = (posterior.first - prior.first) / prior.second
        ratio = posterior.second / prior.second
        # x - 1 - log x >= 0 for x = ratio^2, also after rounding, where it is written as one expression of log ratio.
        return (0.5 * (torch.expm1(2.0 * ratio.log()) + shift * shift) - ratio.log()).clamp_min(0.0).sum(-1)


class CategoricalLatent(Latent):
    """Groups of one-hot variables (Hafner et al., "Mastering Atari with discrete world models", 2021).

    Args:
        variables: Number of variables.
        classes: Values that each can take.
        uniform: Share of the uniform distribution that is mixed in, in [0, 1): no probability is 0 (DreamerV3, 2023).
    """

    def __init__(self, variables: int, classes: int, uniform: float = 0.01) -> None:
        self.variables, self.classes, self.uniform = variables, classes, uniform
        self.size = self.num_outputs = variables * classes

    def statistics(self, outputs: torch.Tensor) -> Statistics:
        """Return probabilities and their logarithms."""
        logits = outputs.unflatten(-1, (self.variables, self.classes))
        probs = (1.0 - self.uniform) * torch.softmax(logits, dim=-1) + self.uniform / self.classes
        return Statistics(probs, probs.log())

    def sample(self, statistics: Statistics, generator: torch.Generator) -> torch.Tensor:
        """Draw one-hot samples; the gradient is that of the probabilities (straight-through)."""
        probs = statistics.first
        drawn = torch.rand(probs.shape, generator=generator).to(probs.device)
        gumbel = -torch.log(-torch.log(drawn.clamp(1e-20, 1.0 - 1e-7)))
        return self._one_hot(statistics.second + gumbel, probs)

    def mode(self, statistics: Statistics) -> torch.Tensor:
        """Return the most probable classes, one-hot."""
        return self._one_hot(statistics.second, statistics.first)

    def divergence(self, posterior: Statistics, prior: Statistics) -> torch.Tensor:
        """Return the sum over the variables."""
        each = (posterior.first * (posterior.second - prior.second)).sum(-1)
        return each.clamp_min(0.0).sum(-1)

    def _one_hot(self, scores: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
        chosen = functional.one_hot(scores.argmax(dim=-1), self.classes).to(probs.dtype)
        return (chosen + probs - probs.detach()).flatten(-2)


def balanced_divergence(
    latent: Latent,
    posterior: Statistics,
    prior: Statistics,
    dynamics: float = 0.5,
    representation: float = 0.1,
    free_nats: float = 1.0,
) -> torch.Tensor:
    """Return ``dynamics max(free, KL(sg q || p)) + representation max(free, KL(q || sg p))`` (DreamerV3, eq. 5).

    Args:
        latent: The family.
        posterior: q, from an observation.
        prior: p, from the dynamics alone.
        dynamics: Weight of the term that trains the prior, at least 0.
        representation: Weight of the term that trains the posterior, at least 0.
        free_nats: Divergences below this many nats are not lowered further, at least 0.

    Returns:
        ``[...]``.
    """
    to_prior = latent.divergence(posterior.detach(), prior).clamp_min(free_nats)
    to_posterior = latent.divergence(posterior, prior.detach()).clamp_min(free_nats)
    return dynamics * to_prior + representation * to_posterior

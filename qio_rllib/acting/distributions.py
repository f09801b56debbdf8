"""Action distributions over arrays: sampling, log-probability, entropy and divergence without objects."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
import torch

from qio_rllib.acting.actions import ActionSpec
from qio_rllib.fused.choices import drawn
from qio_rllib.random_numbers import RandomNumbers

Array = np.ndarray
_LOG_TWO_PI = float(np.log(2 * np.pi))


def sample(
    inputs: Array, discrete: bool, squashed: bool, noise: Array | None, factors: Sequence[int] = ()
) -> tuple[Array, Array]:
    """Return actions and their log-probabilities.

    Args:
        inputs: Log-probabilities up to a constant ``[..., A]``, or means and log deviations ``[..., 2 D]``; float32. Of
            a product, those of each factor and then those of its ``D`` real numbers, ``[..., A_1 + ... + A_F + 2 D]``.
        discrete: Which of the first two.
        squashed: Whether continuous actions pass through tanh.
        noise: Uniform on [0, 1) ``[...]`` (discrete) or standard normal ``[..., D]``, float32; of a product ``F`` of
            the former and ``D`` of the latter, ``[..., F + D]``. None takes the most probable action, which of a
            squashed Gaussian is the tanh of its mean.
        factors: ``A_1, ..., A_F`` of a product: how many values each discrete number of an action takes.

    Returns:
        int64 ``[...]`` or float32 ``[..., D]`` (of a product ``[..., F + D]``), and float32 ``[...]``.
    """
    if factors:
        return _sampled_product(inputs, noise, factors)
    if not discrete:
        mean, log_deviation = np.split(inputs, 2, axis=-1)
        noise = np.zeros_like(mean) if noise is None else noise
        logp = -0.5 * (noise * noise + _LOG_TWO_PI).sum(-1) - log_deviation.sum(-1)
        actions = mean + np.exp(log_deviation) * noise
        if squashed:
            logp = logp - log_tanh_slope(torch.from_numpy(actions)).sum(-1).numpy()
            actions = np.tanh(actions)
        return actions, logp.astype(np.float32)
    found = None if noise is None else drawn(inputs, noise)
    if found is not None:
        return found
    rows = inputs.reshape(-1, inputs.shape[-1])
    shifted = rows - rows.max(axis=-1, keepdims=True)
    cumulative = np.exp(shifted).cumsum(axis=-1)
    total = cumulative[:, -1:]
    if noise is None:
        chosen = rows.argmax(axis=-1)
    else:
        # Inverse of the distribution function; scaled by the last value, an action of probability 0 is never hit.
        chosen = (noise.reshape(-1, 1) * total >= cumulative).sum(axis=-1)
    logp = shifted[np.arange(len(rows)), chosen] - np.log(total[:, 0])
    return chosen.reshape(inputs.shape[:-1]), logp.reshape(inputs.shape[:-1])


def _sampled_product(inputs: Array, noise: Array | None, factors: Sequence[int]) -> tuple[Array, Array]:
    """Return independent draws of all factors side by side, and the sum of their log-probabilities."""
    columns, total, place = [], np.zeros(inputs.shape[:-1], np.float32), 0
    for number, size in enumerate(factors):
        own = None if noise is None else np.ascontiguousarray(noise[..., number])
        chosen, logp = sample(inputs[..., place : place + size], True, False, own)
        columns.append(chosen[..., None].astype(np.float32))
        total = total + logp
        place += size
    if place < inputs.shape[-1]:
        rest = None if noise is None else noise[..., len(factors) :]
        real, logp = sample(inputs[..., place:], False, False, rest)
        columns.append(real)
        total = total + logp
    return np.concatenate(columns, axis=-1), total


def noise_of(rng: RandomNumbers, shape: tuple[int, ...], action: ActionSpec) -> Array:
    """Return the noise that `sample` takes for actions of some kind.

    Args:
        rng: Source of the draws.
        shape: Of the actions' leading axes.
        action: Their kind.
    """
    if action.count is not None:
        return rng.random(shape, np.float32)
    normal = rng.standard_normal((*shape, len(action.low)), np.float32)
    if not action.factors:
        return normal
    return np.concatenate([rng.random((*shape, len(action.factors)), np.float32), normal], axis=-1)


def uniform_inputs(inputs: Array, mask: Array | None) -> Array:
    """Return the parameters of uniform play over the legal actions, or of standard normal actions.

    Args:
        inputs: Parameters of as many rows, ``[..., K]``.
        mask: Legal actions, bool ``[..., A]``; None for all.

    Returns:
        float32, the shape of ``inputs``.
    """
    uniform = np.zeros_like(inputs)
    if mask is not None:
        uniform[~mask] = np.finfo(np.float32).min
    return uniform


def log_tanh_slope(x: torch.Tensor) -> torch.Tensor:
    """Return the logarithm of the derivative of tanh, ``log(1 - tanh(x)^2)``, without cancellation."""
    return 2.0 * (math.log(2.0) - x - torch.nn.functional.softplus(-2.0 * x))


class Distributions:
    """The distributions of a batch as the loss needs them, from parameters with gradients.

    Args:
        inputs: Logits ``[B, A]`` or means and log deviations ``[B, 2 D]``; of a product as `sample` takes them.
        discrete: Which of the first two.
        factors: Of a product, as `sample` takes them: log-probabilities, entropies and divergences are the sums over
            its independent factors.

    Attributes:
        inputs: As given.
        num_outcomes: How many actions there are; None with real numbers.
        entropies: The entropies without gradients, and their mean, where a kernel has found them; None otherwise.
    """

    def __init__(self, inputs: torch.Tensor, discrete: bool, factors: Sequence[int] = ()) -> None:
        self.inputs = inputs
        self.discrete = discrete
        self.factors = tuple(factors)
        self.parts: list[Distributions] = []
        self.num_outcomes: int | None = inputs.shape[-1] if discrete else None
        self.entropies: tuple[torch.Tensor, float] | None = None
        self._entropy: torch.Tensor | None = None
        if self.factors:
            real = inputs.shape[-1] - sum(self.factors)
            pieces = inputs.split([*self.factors, real], dim=-1)
            self.parts = [Distributions(piece, discrete=True) for piece in pieces[:-1]]
            if real:
                self.parts.append(Distributions(pieces[-1], discrete=False))
            else:
                self.num_outcomes = math.prod(self.factors)
        elif not discrete:
            self.mean, self.log_deviation = inputs.chunk(2, dim=-1)

    @functools.cached_property
    def log_probs(self) -> torch.Tensor:
        """Log-probabilities of discrete actions, ``[B, A]``."""
        # An illegal action holds the least finite number: its probability is 0, and 0 times it is 0.
        return torch.log_softmax(self.inputs, -1).clamp_min(torch.finfo(self.inputs.dtype).min)

    @functools.cached_property
    def probs(self) -> torch.Tensor:
        """Probabilities of discrete actions, ``[B, A]``."""
        return self.log_probs.exp()

    def like(self, inputs: torch.Tensor) -> Distributions:
        """Return distributions of this kind from other parameters."""
        return Distributions(inputs, self.discrete, self.factors)

    def logp(self, actions: torch.Tensor) -> torch.Tensor:
        """Return the log-probability of actions (int64 ``[B]`` or float ``[B, D]``), ``[B]``."""
        if self.factors:
            count = len(self.factors)
            columns: list[torch.Tensor] = [*actions[:, :count].long().unbind(-1), actions[:, count:]]
            return _sum([part.logp(column) for part, column in zip(self.parts, columns, strict=False)])
        if self.discrete:
            return self.log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        scaled = (actions - self.mean) * torch.exp(-self.log_deviation)
        return (-0.5 * (scaled * scaled + _LOG_TWO_PI) - self.log_deviation).sum(-1)

    def entropy(self) -> torch.Tensor:
        """Return the entropy in nats, ``[B]``."""
        if self._entropy is None:
            if self.factors:
                self._entropy = _sum([part.entropy() for part in self.parts])
            elif self.discrete:
                self._entropy = -(self.probs * self.log_probs).sum(-1)
            else:
                self._entropy = (self.log_deviation + 0.5 * (1.0 + _LOG_TWO_PI)).sum(-1)
        return self._entropy

    def entropy_values(self) -> torch.Tensor:
        """Return the entropy without gradients, ``[B]``."""
        return self.entropy().detach() if self.entropies is None else self.entropies[0]

    def divergence(self, other: Distributions) -> torch.Tensor:
        """Return the Kullback-Leibler divergence of the other from this one, KL(this || other), ``[B]``."""
        if self.factors:
            pairs = zip(self.parts, other.parts, strict=True)
            return _sum([own.divergence(theirs) for own, theirs in pairs])
        if self.discrete:
            return (self.probs * (self.log_probs - other.log_probs)).sum(-1)
        ratio = torch.exp(2 * (self.log_deviation - other.log_deviation))
        shift = (self.mean - other.mean) * torch.exp(-other.log_deviation)
        return (0.5 * (ratio + shift * shift - 1.0) - (self.log_deviation - other.log_deviation)).sum(-1)


def _sum(terms: Sequence[torch.Tensor]) -> torch.Tensor:
    return torch.stack([*terms]).sum(0)

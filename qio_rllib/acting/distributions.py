"""Action distributions over arrays: sampling, log-probability, entropy and divergence without objects."""

from __future__ import annotations

import math

import numpy as np
import torch

Array = np.ndarray
_LOG_TWO_PI = float(np.log(2 * np.pi))


def sample(inputs: Array, discrete: bool, squashed: bool, noise: Array | None) -> tuple[Array, Array]:
    """Return actions and their log-probabilities.

    Args:
        inputs: Log-probabilities up to a constant ``[..., A]``, or means and log deviations ``[..., 2 D]``; float32.
        discrete: Which of them.
        squashed: Whether continuous actions pass through tanh.
        noise: Uniform on [0, 1) ``[...]`` (discrete) or standard normal ``[..., D]``, float32; None takes the most
            probable action, which of a squashed Gaussian is the tanh of its mean.

    Returns:
        int64 ``[...]`` or float32 ``[..., D]``, and float32 ``[...]``.
    """
    if not discrete:
        mean, log_deviation = np.split(inputs, 2, axis=-1)
        noise = np.zeros_like(mean) if noise is None else noise
        logp = -0.5 * (noise * noise + _LOG_TWO_PI).sum(-1) - log_deviation.sum(-1)
        actions = mean + np.exp(log_deviation) * noise
        if squashed:
            logp = logp - log_tanh_slope(torch.from_numpy(actions)).sum(-1).numpy()
            actions = np.tanh(actions)
        return actions, logp.astype(np.float32)
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
        inputs: Logits ``[B, A]`` or means and log deviations ``[B, 2 D]``.
        discrete: Which of them.
    """

    def __init__(self, inputs: torch.Tensor, discrete: bool) -> None:
        self.discrete = discrete
        self._entropy: torch.Tensor | None = None
        if discrete:
            # An illegal action holds the least finite number: its probability is 0, and 0 times it is 0.
            self.log_probs = torch.log_softmax(inputs, -1).clamp_min(torch.finfo(inputs.dtype).min)
            self.probs = self.log_probs.exp()
        else:
            self.mean, self.log_deviation = inputs.chunk(2, dim=-1)

    def logp(self, actions: torch.Tensor) -> torch.Tensor:
        """Return the log-probability of actions (int64 ``[B]`` or float ``[B, D]``), ``[B]``."""
        if self.discrete:
            return self.log_probs.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        scaled = (actions - self.mean) * torch.exp(-self.log_deviation)
        return (-0.5 * (scaled * scaled + _LOG_TWO_PI) - self.log_deviation).sum(-1)

    def entropy(self) -> torch.Tensor:
        """Return the entropy in nats, ``[B]``."""
        if self._entropy is None:
            if self.discrete:
                self._entropy = -(self.probs * self.log_probs).sum(-1)
            else:
                self._entropy = (self.log_deviation + 0.5 * (1.0 + _LOG_TWO_PI)).sum(-1)
        return self._entropy

    def divergence(self, other: Distributions) -> torch.Tensor:
        """Return the Kullback-Leibler divergence of the other from this one, KL(this || other), ``[B]``."""
        if self.discrete:
            return (self.probs * (self.log_probs - other.log_probs)).sum(-1)
        ratio = torch.exp(2 * (self.log_deviation - other.log_deviation))
        shift = (self.mean - other.mean) * torch.exp(-other.log_deviation)
        return (0.5 * (ratio + shift * shift - 1.0) - (self.log_deviation - other.log_deviation)).sum(-1)

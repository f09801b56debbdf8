"""Action distributions over arrays: sampling, log-probability, entropy and divergence without objects."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import torch
from ray.rllib.core.distribution.torch.torch_distribution import TorchCategorical, TorchDiagGaussian

from qio_envs.api import ConfigError

Array = np.ndarray
_LOG_TWO_PI = float(np.log(2 * np.pi))


def check_distribution(module: Any, space: gymnasium.Space) -> None:
    """Refuse modules whose distribution is neither RLlib's categorical nor its diagonal Gaussian.

    Args:
        module: An RLModule.
        space: Its action space; Discrete ones need the former, others the latter.

    Raises:
        ConfigError: Another distribution; a subclass of those two is one, for it was made to differ.
    """
    expected = TorchCategorical if isinstance(space, gymnasium.spaces.Discrete) else TorchDiagGaussian
    for found in (module.get_exploration_action_dist_cls(), module.get_train_action_dist_cls()):
        if found is not expected:
            raise ConfigError(
                f"rl_module: actions in {space} need {expected.__name__}, the module has "
                f"{getattr(found, '__name__', found)}"
            )


class Sampler:
    """Draws actions of one module in NumPy: categorical for Discrete spaces, Gaussian for Box spaces.

    Args:
        module: An RLModule.
        space: Its action space.

    Raises:
        ConfigError: The module's distribution is another.
    """

    def __init__(self, module: Any, space: gymnasium.Space) -> None:
        check_distribution(module, space)
        self.discrete = isinstance(space, gymnasium.spaces.Discrete)

    def sample(self, inputs: Array, rng: np.random.Generator | None) -> tuple[Array, Array]:
        """Draw an action for each row, or take the most probable one.

        Args:
            inputs: Logits ``[B, A]``, or means and log deviations ``[B, 2 D]``; float32.
            rng: Source of the draws; None takes the most probable actions.

        Returns:
            Actions (int64 ``[B]`` or float32 ``[B, D]``) and their log-probabilities (float32 ``[B]``).
        """
        if not self.discrete:
            mean, log_deviation = np.split(inputs, 2, axis=-1)
            noise = np.zeros_like(mean) if rng is None else rng.standard_normal(mean.shape, np.float32)
            logp = -0.5 * (noise * noise + _LOG_TWO_PI).sum(-1) - log_deviation.sum(-1)
            return mean + np.exp(log_deviation) * noise, logp.astype(np.float32)
        shifted = inputs - inputs.max(axis=-1, keepdims=True)
        cumulative = np.exp(shifted).cumsum(axis=-1)
        total = cumulative[:, -1:]
        if rng is None:
            actions = inputs.argmax(axis=-1)
        else:
            # Inverse of the distribution function; scaled by the last value, an action of probability 0 is never hit.
            actions = (rng.random((len(inputs), 1), np.float32) * total >= cumulative).sum(axis=-1)
        return actions, shifted[np.arange(len(inputs)), actions] - np.log(total[:, 0])

    def uniform_inputs(self, inputs: Array, mask: Array | None) -> Array:
        """Return the parameters of uniform play over the legal actions, or of standard normal actions.

        Args:
            inputs: Parameters of as many rows, ``[B, K]``.
            mask: Legal actions, bool, ``[..., A]`` of ``B`` rows; None for all.

        Returns:
            float32 ``[B, K]``.
        """
        uniform = np.zeros_like(inputs)
        if mask is not None:
            uniform[~mask.reshape(inputs.shape)] = np.finfo(np.float32).min
        return uniform


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

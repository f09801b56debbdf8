"""What world models predict beside observations: rewards, by two-hot classes or a normal distribution, and ends."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from qio_rllib.layers import mlp
from qio_rllib.world_models.scales import RunningScale

_LEAST_DEVIATION = 2e-3  # of a predicted normal distribution, in deviations of the data


def symlog(values: torch.Tensor) -> torch.Tensor:
    """Return ``sign(x) log(1 + |x|)``, which makes rewards of any scale alike (DreamerV3, eq. 9)."""
    return torch.sign(values) * torch.log1p(values.abs())


def symexp(values: torch.Tensor) -> torch.Tensor:
    """Return the inverse of `symlog`."""
    return torch.sign(values) * torch.expm1(values.abs())


class TwoHotHead(nn.Module):
    """A network that predicts a number by a distribution over bins of its `symlog` (DreamerV3, eq. 10 and 11).

    Args:
        inputs: Numbers in the features.
        hiddens: Sizes of the hidden layers.
        activation: A key of `qio_rllib.layers.ACTIVATIONS`.
        num_bins: Bins, odd and at least 3, so that one of them is 0.
        limit: The outermost bins lie at ``-limit`` and ``limit`` of the symlog, above 0.

    Attributes:
        bins: Places of the bins in symlog, ``[num_bins]``.
    """

    bins: torch.Tensor

    def __init__(
        self, inputs: int, hiddens: tuple[int, ...], activation: str, num_bins: int = 41, limit: float = 10.0
    ) -> None:
        super().__init__()
        self.layers = mlp((inputs, *hiddens, num_bins), activation, normalize=True)
        last = self.layers[-1]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)  # every bin alike: the first prediction is 0
        nn.init.zeros_(last.bias)
        self.register_buffer("bins", torch.linspace(-limit, limit, num_bins))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return logits ``[..., num_bins]``."""
        return self.layers(features)

    def mean(self, features: torch.Tensor) -> torch.Tensor:
        """Return the predicted numbers ``[...]``: the symexp of the mean bin."""
        probs = torch.softmax(self(features), dim=-1)
        return symexp((probs * self.bins).sum(-1))

    def loss(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of two-hot targets, ``[...]``."""
        return -(self.two_hot(targets) * torch.log_softmax(self(features), dim=-1)).sum(-1)

    def two_hot(self, targets: torch.Tensor) -> torch.Tensor:
        """Return weights on the two bins next to a number ``[..., num_bins]``; their mean is its symlog, clipped."""
        places = symlog(targets).clamp(self.bins[0], self.bins[-1])
        step = self.bins[1] - self.bins[0]
        position = (places - self.bins[0]) / step
        below = position.floor().long().clamp(0, len(self.bins) - 2)
        share = (position - below).unsqueeze(-1)
        low = functional.one_hot(below, len(self.bins)).to(share.dtype)
        high = functional.one_hot(below + 1, len(self.bins)).to(share.dtype)
        return low * (1.0 - share) + high * share


class GaussianHead(nn.Module):
    """Predicts a number by the mean and the deviation of a normal distribution (D. A. Nix and A. S. Weigend, 1994).

    The mean is a network and a quadratic form, which many rewards of control are. An error counts in deviations that
    are predicted, so that small numbers are learned beside large ones, and its likelihood is weighted by the deviation
    (M. Seitzer et al., 2022, beta = 0.5): else what is predicted almost exactly would outweigh all that learns with it.

    Args:
        inputs: Numbers in the features.
        hiddens: Sizes of the hidden layers of the networks of mean and deviation.
        activation: A key of `qio_rllib.layers.ACTIVATIONS`.

    Attributes:
        scale: Of the predicted numbers; who learns updates it.
        pairs: Places of the two factors of each product, ``[2, inputs (inputs + 1) / 2]``.
    """

    pairs: torch.Tensor

    def __init__(self, inputs: int, hiddens: tuple[int, ...], activation: str) -> None:
        super().__init__()
        self.scale = RunningScale(1)
        self.register_buffer("pairs", torch.triu_indices(inputs, inputs))
        self.layers = mlp((inputs, *hiddens, 1), activation)
        self.form = nn.Linear(self.pairs.shape[1], 1, bias=False)
        nn.init.zeros_(self.form.weight)
        self.spread = mlp((inputs, *hiddens, 1), activation)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return means in deviations of the data, ``[..., 1]``."""
        first, second = self.pairs
        return self.layers(features) + self.form(features[..., first] * features[..., second])

    def mean(self, features: torch.Tensor) -> torch.Tensor:
        """Return the predicted numbers ``[...]``."""
        return self.scale.inverse(self(features)).squeeze(-1)

    def loss(self, features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the weighted negative log-likelihood of targets, in deviations of the data, ``[...]``."""
        deviation = functional.softplus(self.spread(features)) + _LEAST_DEVIATION
        error = (self.scale(targets.unsqueeze(-1)) - self(features)) / deviation
        return ((0.5 * error**2 + deviation.log()) * deviation.detach()).squeeze(-1)


class ContinuationHead(nn.Module):
    """A network that predicts the probability that an episode goes on.

    Args:
        inputs: Numbers in the features.
        hiddens: Sizes of the hidden layers.
        activation: A key of `qio_rllib.layers.ACTIVATIONS`.
    """

    def __init__(self, inputs: int, hiddens: tuple[int, ...], activation: str) -> None:
        super().__init__()
        self.layers = mlp((inputs, *hiddens, 1), activation, normalize=True)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return probabilities in (0, 1), ``[...]``."""
        return torch.sigmoid(self.layers(features).squeeze(-1))

    def loss(self, features: torch.Tensor, goes_on: torch.Tensor) -> torch.Tensor:
        """Return the cross-entropy of what happened (1 = went on), ``[...]``."""
        logits = self.layers(features).squeeze(-1)
        return functional.binary_cross_entropy_with_logits(logits, goes_on, reduction="none")

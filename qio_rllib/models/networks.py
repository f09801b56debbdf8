"""Networks without memory, built from the settings that RLlib's ``model_config`` has for them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from qio_envs.api import ConfigError
from qio_rllib.fused.stack import Stack, chained
from qio_rllib.layers import ACTIVATIONS, hidden_layers

_LARGE_IMAGE = ((32, 8, 4), (64, 4, 2), (64, 3, 1))  # Mnih et al. (2015)
_SMALL_IMAGE = ((16, 3, 2), (32, 3, 2))
_BOARD = ((32, 3, 1),)


@dataclasses.dataclass(frozen=True)
class NetworkSettings:
    """The part of ``model_config`` that shapes encoders and heads; keys, meanings and defaults are RLlib's.

    Attributes:
        fcnet_hiddens: Sizes of the encoder's hidden layers; it ends with an activation.
        fcnet_activation: A key of `ACTIVATIONS`.
        fcnet_use_layernorm: Whether each hidden layer is normalised.
        fcnet_kernel_initializer: Name of a function of ``torch.nn.init`` (``orthogonal_``); None for torch's default.
        fcnet_kernel_initializer_kwargs: Its arguments.
        fcnet_bias_initializer: Likewise for biases.
        fcnet_bias_initializer_kwargs: Likewise.
        conv_filters: ``[[channels, kernel, stride], ...]`` for images ``[height, width, channels]``; None for three
            layers (sides of 42 and more), two (of 7 and more), one (of 3 and more), or none.
        conv_activation: A key of `ACTIVATIONS`.
        head_fcnet_hiddens: Sizes of the hidden layers of each head.
        head_fcnet_activation: A key of `ACTIVATIONS`.
        free_log_std: Whether the log deviations of a Gaussian policy are parameters, not outputs.
        log_std_clip_param: Bound on their size.
    """

    fcnet_hiddens: tuple[int, ...] = (256, 256)
    fcnet_activation: str = "tanh"
    fcnet_use_layernorm: bool = False
    fcnet_kernel_initializer: str | None = None
    fcnet_kernel_initializer_kwargs: Mapping[str, Any] | None = None
    fcnet_bias_initializer: str | None = None
    fcnet_bias_initializer_kwargs: Mapping[str, Any] | None = None
    conv_filters: tuple[tuple[int, int, int], ...] | None = None
    conv_activation: str = "relu"
    head_fcnet_hiddens: tuple[int, ...] = ()
    head_fcnet_activation: str = "relu"
    free_log_std: bool = False
    log_std_clip_param: float = 20.0

    @classmethod
    def of(cls, model_config: Mapping[str, Any]) -> NetworkSettings:
        """Read what ``model_config`` says; other keys are left alone."""
        names = {field.name for field in dataclasses.fields(cls)}
        given = {key: value for key, value in model_config.items() if key in names}
        return cls(**{key: _frozen(value) for key, value in given.items()})

    def as_dict(self) -> dict[str, Any]:
        """Return what `of` takes, fit for JSON."""
        return dataclasses.asdict(self)


def encoder_layers(sizes: Sequence[int], settings: NetworkSettings) -> list[nn.Module]:
    """Return the hidden layers of an encoder: linear, normalised where asked for, and an activation, for each pair."""
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers.append(_initialized(nn.Linear(before, after), settings))
        if settings.fcnet_use_layernorm:
            layers.append(nn.LayerNorm(after))
        layers.append(ACTIVATIONS[settings.fcnet_activation]())
    return layers


class Encoder(nn.Module):
    """From flat rows to features: an MLP, or for images convolutions whose features further numbers join.

    Args:
        shape: Of an observation. Three axes are an image ``[height, width, channels]``; all else is taken flat.
        extra: Numbers that stand behind the observation in a row (an inbox).
        settings: Layers.

    Attributes:
        size: Numbers in the features.

    Raises:
        ConfigError: An image that the convolutions reduce to nothing.
    """

    def __init__(self, shape: Sequence[int], extra: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.shape = tuple(shape)
        self.extra = extra
        self.convolutions: nn.Sequential | None = None
        inputs = math.prod(self.shape)
        if len(self.shape) == 3 and (min(self.shape[:2]) >= 3 or settings.conv_filters):
            self.convolutions, inputs = _convolutions(self.shape, settings)
        sizes = [inputs + extra, *settings.fcnet_hiddens]
        self.layers = Stack(*encoder_layers(sizes, settings))
        self.size = sizes[-1]

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return features ``[..., size]`` of rows ``[..., prod(shape) + extra]``."""
        if self.convolutions is None:
            return self.layers(rows)
        pixels = math.prod(self.shape)
        images = rows[..., :pixels].reshape(-1, *self.shape).permute(0, 3, 1, 2)
        features = self.convolutions(images).reshape(*rows.shape[:-1], -1)
        return self.layers(torch.cat([features, rows[..., pixels:]], dim=-1) if self.extra else features)


class Head(nn.Module):
    """From features to ``outputs`` numbers; with ``free_log_std`` to means, beside log deviations of its own.

    Args:
        inputs: Numbers in the features.
        outputs: Numbers returned.
        settings: Layers.
        gaussian: Whether of the outputs behind ``logits`` the second half are log deviations, which are clipped.
        logits: Outputs in front that belong to no Gaussian.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        settings: NetworkSettings,
        gaussian: bool = False,
        logits: int = 0,
    ) -> None:
        super().__init__()
        self.limit = settings.log_std_clip_param if gaussian else None
        self.logits = logits
        numbers = (outputs - logits) // 2
        self.log_std = nn.Parameter(torch.zeros(numbers)) if gaussian and settings.free_log_std else None
        sizes = [inputs, *settings.head_fcnet_hiddens]
        own = outputs if self.log_std is None else outputs - numbers
        self.layers = Stack(*hidden_layers(sizes, settings.head_fcnet_activation), nn.Linear(sizes[-1], own))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Return ``[..., outputs]`` of features ``[..., inputs]``."""
        return self.shaped(self.layers(features))

    def behind(self, encoder: nn.Module, rows: torch.Tensor) -> torch.Tensor:
        """Return ``[..., outputs]`` of what an encoder gives for rows."""
        if isinstance(encoder, Encoder) and encoder.convolutions is None:
            return self.shaped(chained(encoder.layers, self.layers, rows))
        return self(encoder(rows))

    def shaped(self, found: torch.Tensor) -> torch.Tensor:
        """Return ``[..., outputs]`` of what the layers give: log deviations clipped, or its own put behind."""
        if self.limit is None:
            return found
        logits, numbers = found[..., : self.logits], found[..., self.logits :]
        if self.log_std is not None:
            mean, log_std = numbers, self.log_std.expand_as(numbers)
        else:
            mean, log_std = numbers.chunk(2, dim=-1)
        gaussian = torch.cat([mean, log_std.clamp(-self.limit, self.limit)], dim=-1)
        return torch.cat([logits, gaussian], dim=-1) if self.logits else gaussian


def _convolutions(shape: Sequence[int], settings: NetworkSettings) -> tuple[nn.Sequential, int]:
    side = min(shape[:2])
    default = _LARGE_IMAGE if side >= 42 else _SMALL_IMAGE if side >= 7 else _BOARD
    filters = settings.conv_filters or default
    layers: list[nn.Module] = []
    channels = shape[2]
    for filters_out, kernel, stride in filters:
        layers += [nn.Conv2d(channels, filters_out, kernel, stride), ACTIVATIONS[settings.conv_activation]()]
        channels = filters_out
    stack = nn.Sequential(*layers)
    try:
        with torch.no_grad():
            size = stack(torch.zeros(1, shape[2], *shape[:2])).numel()
    except RuntimeError as error:
        raise ConfigError(
            f"model_config.conv_filters: {[list(layer) for layer in filters]} do not fit images of {tuple(shape)}"
        ) from error
    return stack, size


def _initialized(layer: nn.Linear, settings: NetworkSettings) -> nn.Linear:
    for parameter, name, kwargs in (
        (layer.weight, settings.fcnet_kernel_initializer, settings.fcnet_kernel_initializer_kwargs),
        (layer.bias, settings.fcnet_bias_initializer, settings.fcnet_bias_initializer_kwargs),
    ):
        if name is not None:
            function = vars(nn.init).get(name if name.endswith("_") else f"{name}_")
            if function is None:
                raise ConfigError(f"model_config.fcnet_kernel_initializer: torch.nn.init has no '{name}'")
            function(parameter, **(kwargs or {}))
    return layer


def _frozen(value: Any) -> Any:
    """Return lists as tuples, to any depth."""
    return tuple(map(_frozen, value)) if isinstance(value, list | tuple) else value

"""`ParameterLayout`: the trainable parameters of a module as one vector, in an order that everybody agrees on."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping
from typing import Self

import numpy as np
import torch
from torch import nn

from qio_envs.api import ConfigError, did_you_mean
from qio_rllib.federated.secure.primitives import digest


@dataclasses.dataclass(frozen=True)
class ParameterLayout:
    """Names and shapes of parameters, in the order in which they lie in a vector.

    Attributes:
        shapes: By name, sorted by name.
    """

    shapes: tuple[tuple[str, tuple[int, ...]], ...]

    @classmethod
    def of(cls, module: nn.Module, personal: Iterable[str] = ()) -> Self:
        """Return the layout of a module's trainable parameters; buffers and frozen parameters are left out.

        Args:
            module: Whose.
            personal: Beginnings of the names of parameters that stay with their client.

        Raises:
            ConfigError: A beginning that no parameter has, or nothing is left.
        """
        found = {
            name: tuple(one.shape) for name, one in sorted(module.named_parameters()) if one.requires_grad
        }
        prefixes = tuple(personal)
        for prefix in prefixes:
            if not any(name.startswith(prefix) for name in found):
                raise ConfigError(
                    f"personal: no parameter begins with '{prefix}'{did_you_mean(prefix, found)}; there are: "
                    f"{', '.join(found)}"
                )
        kept = tuple((name, shape) for name, shape in found.items() if not name.startswith(prefixes))
        if not kept:
            raise ConfigError("personal: no parameter is left to be shared")
        return cls(kept)

    @functools.cached_property
    def size(self) -> int:
        """Numbers ``d`` in a vector."""
        return sum(math.prod(shape) for _, shape in self.shapes)

    @functools.cached_property
    def hash(self) -> bytes:
        """What tells layouts apart, 32 bytes."""
        return digest(*(f"{name}:{shape}".encode() for name, shape in self.shapes))

    def read(self, module: nn.Module) -> np.ndarray:
        """Return the parameters of a module, float32 ``[d]``.

        Raises:
            ConfigError: The module has other parameters.
        """
        parts = [parameter.detach().reshape(-1).cpu() for parameter in self.parameters(module)]
        return torch.cat([part.to(torch.float32) for part in parts]).numpy()

    def write(self, module: nn.Module, vector: np.ndarray) -> None:
        """Put a vector into the parameters of a module.

        Raises:
            ConfigError: The module has other parameters.
            ValueError: A vector of another size, or numbers that are not finite.
        """
        if vector.shape != (self.size,) or not np.isfinite(vector).all():
            raise ValueError(f"vector: expected {self.size} finite numbers, got shape {vector.shape}")
        whole, start = torch.from_numpy(np.array(vector, np.float32)), 0
        with torch.no_grad():
            for parameter in self.parameters(module):
                end = start + parameter.numel()
                parameter.copy_(whole[start:end].reshape(parameter.shape))
                start = end

    def arrays(self, vector: np.ndarray) -> dict[str, np.ndarray]:
        """Return the parts of a vector by parameter name, as views."""
        found, start = {}, 0
        for name, shape in self.shapes:
            end = start + math.prod(shape)
            found[name] = vector[start:end].reshape(shape)
            start = end
        return found

    def parameters(self, module: nn.Module) -> list[nn.Parameter]:
        """Return the parameters of a module in the order of a vector.

        Raises:
            ConfigError: The module has other parameters.
        """
        have: Mapping[str, nn.Parameter] = dict(module.named_parameters())
        for name, shape in self.shapes:
            if name not in have or tuple(have[name].shape) != shape:
                found = tuple(have[name].shape) if name in have else "none"
                raise ConfigError(f"parameters: {name} is expected to have the shape {shape}, found {found}")
        return [have[name] for name, _ in self.shapes]

"""`Stack`: linear layers and activations in a row, which Learners compute by the kernels of this package."""

from __future__ import annotations

import weakref
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn
from torch.autograd.function import once_differentiable

from qio_rllib.fused.codes import LINEAR, RELU, SILU, TANH, WIDTH
from qio_rllib.fused.use import in_use, is_plain, kernels

_ACTIVATIONS: dict[type[nn.Module], int] = {
    nn.Identity: LINEAR,
    nn.ReLU: RELU,
    nn.SiLU: SILU,
    nn.Tanh: TANH,
}


class Layer(NamedTuple):
    """A linear layer and the activation behind it."""

    linear: nn.Linear
    activation: int


class Stack(nn.Sequential):
    """A ``torch.nn.Sequential`` that inside `fused_kernels` runs as one kernel, forward and backward.

    That it does for linear layers with biases, each with at most one of ReLU, SiLU and tanh behind it, on float32
    numbers in this machine's memory. The numbers are torch's up to rounding, and those of a row do not depend on how
    many rows there are. Second derivatives are torch's alone.
    """

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        """Return outputs ``[..., F]`` of rows ``[..., D]``."""
        layers = self.layers() if in_use() else None
        if layers is not None and self.takes(rows):
            return run(layers, rows)
        return super().forward(rows)

    def takes(self, rows: torch.Tensor) -> bool:
        """Return whether a kernel of its layers can take such rows."""
        layers = self.layers()
        return (
            layers is not None
            and rows.dtype == torch.float32
            and rows.device.type == "cpu"
            and rows.shape[-1] == layers[0].linear.in_features
            and rows.numel() > 0
        )

    def layers(self) -> list[Layer] | None:
        """Return the layers; None where there is something that the kernels do not know."""
        parts = tuple(self._modules.values())
        known = _known.get(self)
        if known is None or known[0] != parts:
            known = _known[self] = parts, self._look()
        return known[1]

    def _look(self) -> list[Layer] | None:
        found: list[Layer] = []
        for part in self:
            activation = _ACTIVATIONS.get(type(part))
            if activation is not None and found and found[-1].activation == LINEAR:
                found[-1] = Layer(found[-1].linear, activation)
            elif type(part) is nn.Linear and _fits(part):
                found.append(Layer(part, LINEAR))
            else:
                return None
        return found or None

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Look again after numbers have become others: another precision, another device."""
        _known.pop(self, None)
        return super()._apply(*args, **kwargs)


# What was found of each stack, and in which parts; beside the modules, for what copies, traces or saves them.
_known: weakref.WeakKeyDictionary[Stack, tuple[tuple[Any, ...], list[Layer] | None]] = (
    weakref.WeakKeyDictionary()
)


def unknown_stacks(module: nn.Module) -> list[str]:
    """Return the names of a module's stacks that hold something that the kernels do not know."""
    return [
        name
        for name, part in module.named_modules()
        if isinstance(part, Stack) and len(part) and part.layers() is None
    ]


def chained(first: Stack, second: Stack, rows: torch.Tensor) -> torch.Tensor:
    """Return ``second(first(rows))``, inside `fused_kernels` as one kernel where both are known to it."""
    if in_use():
        one, two = first.layers(), second.layers()
        if one is not None and two is not None and first.takes(rows):
            return run([*one, *two], rows)
    return second(first(rows))


def run(layers: list[Layer], rows: torch.Tensor) -> torch.Tensor:
    """Return the outputs of layers, float32 ``[..., F]``, by the kernels."""
    parameters = [each for layer in layers for each in (layer.linear.weight, layer.linear.bias)]
    activations = tuple(layer.activation for layer in layers)
    flat = rows.reshape(-1, rows.shape[-1])
    if torch.is_grad_enabled():
        found = _Run.apply(flat, activations, *parameters)
    else:
        found = _forward(flat.contiguous(), activations, parameters)[0]
    return found if rows.dim() == 2 else found.reshape(*rows.shape[:-1], -1)


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, activations: tuple[int, ...], *parameters: torch.Tensor
    ) -> torch.Tensor:
        rows = rows.contiguous()
        outputs, kept = _forward(rows, activations, parameters)
        ctx.activations = activations
        ctx.save_for_backward(rows, outputs, kept, *parameters)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, outputs, kept, *parameters = ctx.saved_tensors
        wants_rows, _, *wanted = ctx.needs_input_grad
        gradient = gradient.contiguous()
        slopes = [
            torch.empty_like(each) if wants else None for each, wants in zip(parameters, wanted, strict=True)
        ]
        of_rows = torch.empty_like(rows) if wants_rows else None
        kernels().backward(
            _table(ctx.activations, parameters, slopes),
            rows.data_ptr(),
            len(rows),
            outputs.data_ptr(),
            kept.data_ptr(),
            gradient.data_ptr(),
            0 if of_rows is None else of_rows.data_ptr(),
        )
        return of_rows, None, *slopes


def _forward(
    rows: torch.Tensor, activations: tuple[int, ...], parameters: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return outputs ``[B, F]``, and what the kernel `backward` needs beside them."""
    table = _table(activations, parameters)
    outputs = rows.new_empty(len(rows), parameters[-1].shape[0])
    size = sum(
        -(-parameters[2 * layer].shape[0] // WIDTH) * WIDTH
        * ((layer < len(activations) - 1) + (activation == SILU))
        for layer, activation in enumerate(activations)
    )  # fmt: skip
    kept = rows.new_empty(size * len(rows))
    kernels().forward(table, rows.data_ptr(), len(rows), outputs.data_ptr(), kept.data_ptr())
    return outputs, kept


def _table(
    activations: tuple[int, ...], parameters: Any, slopes: list[torch.Tensor | None] | None = None
) -> np.ndarray:
    """Return the layers as the kernels take them."""
    lines = []
    for layer, activation in enumerate(activations):
        weight, bias = parameters[2 * layer : 2 * layer + 2]
        after, before = weight.shape
        line = [weight.data_ptr(), bias.data_ptr(), before, after, activation]
        for slope in slopes[2 * layer : 2 * layer + 2] if slopes else (None, None):
            line.append(0 if slope is None else slope.data_ptr())
        lines.append(line)
    return np.array(lines, np.int64)


def _fits(linear: nn.Linear) -> bool:
    return linear.bias is not None and is_plain(linear.weight) and is_plain(linear.bias)

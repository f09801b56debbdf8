"""`Stack`: linear layers and activations in a row, which Learners compute by the kernels of this package."""

from __future__ import annotations

import functools
import weakref
from collections.abc import Iterable, Sequence
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


class Layers(tuple[Layer, ...]):
    """Layers in a row, as the kernels take them."""

    @functools.cached_property
    def activations(self) -> tuple[int, ...]:
        """Their activations."""
        return tuple(layer.activation for layer in self)

    def parameters(self) -> list[torch.Tensor]:
        """Return weights and biases in turn, as `forward` and `backward` take them."""
        # what a module's attribute is, without the cost of asking for it
        return [each for layer in self for each in layer.linear._parameters.values()]  # type: ignore[misc]


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
            and rows.is_cpu
            and rows.shape[-1] == layers[0].linear.in_features
            and rows.numel() > 0
        )

    def layers(self) -> Layers | None:
        """Return the layers; None where there is something that the kernels do not know."""
        return known_layers(self, tuple(self._modules.values()))

    def _apply(self, *args: Any, **kwargs: Any) -> Any:
        """Look again after numbers have become others: another precision, another device."""
        forget_layers(self)
        return super()._apply(*args, **kwargs)


# What was found of each module, and in which parts; beside the modules, for what copies, traces or saves them.
_known: weakref.WeakKeyDictionary[nn.Module, tuple[tuple[Any, ...], Layers | None]] = (
    weakref.WeakKeyDictionary()
)


def known_layers(module: nn.Module, parts: tuple[nn.Module, ...]) -> Layers | None:
    """Return `layers_of` the parts of a module, which are looked at again when they have become others.

    Its ``_apply`` calls `forget_layers`: numbers of another precision or device are in the same parts.
    """
    known = _known.get(module)
    if known is None or known[0] != parts:
        known = _known[module] = parts, layers_of(parts)
    return known[1]


def forget_layers(module: nn.Module) -> None:
    """Look at a module's parts again when `known_layers` is asked for them."""
    _known.pop(module, None)


def unknown_stacks(module: nn.Module) -> list[str]:
    """Return the names of a module's stacks that hold something that the kernels do not know."""
    return [
        name
        for name, part in module.named_modules()
        if isinstance(part, Stack) and len(part) and part.layers() is None
    ]


def layers_of(parts: Iterable[nn.Module]) -> Layers | None:
    """Return modules that follow each other as layers; None where there is something that the kernels do not know."""
    found: list[Layer] = []
    for part in parts:
        activation = _ACTIVATIONS.get(type(part))
        if activation is not None and found and found[-1].activation == LINEAR:
            found[-1] = Layer(found[-1].linear, activation)
        elif type(part) is nn.Linear and _fits(part):
            found.append(Layer(part, LINEAR))
        else:
            return None
    return Layers(found) if found else None


def chained(first: Stack, second: Stack, rows: torch.Tensor) -> torch.Tensor:
    """Return ``second(first(rows))``, inside `fused_kernels` as one kernel where both are known to it."""
    if in_use():
        one, two = first.layers(), second.layers()
        if one is not None and two is not None and first.takes(rows):
            return run(Layers([*one, *two]), rows)
    return second(first(rows))


def run(layers: Layers, rows: torch.Tensor) -> torch.Tensor:
    """Return the outputs of layers, float32 ``[..., F]``, by the kernels."""
    parameters, activations = layers.parameters(), layers.activations
    flat = rows if rows.dim() == 2 else rows.reshape(-1, rows.shape[-1])
    if torch.is_grad_enabled():
        found = _Run.apply(flat, activations, *parameters)
    else:
        found = forward(flat.contiguous(), activations, parameters, keep=False)[0]
    return found if rows.dim() == 2 else found.reshape(*rows.shape[:-1], -1)


class _Run(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, rows: torch.Tensor, activations: tuple[int, ...], *parameters: torch.Tensor
    ) -> torch.Tensor:
        rows = rows.contiguous()
        outputs, kept = forward(rows, activations, parameters, keep=any(ctx.needs_input_grad))
        ctx.activations = activations
        ctx.save_for_backward(rows, outputs, kept, *parameters)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        rows, outputs, kept, *parameters = ctx.saved_tensors
        wants_rows, _, *wanted = ctx.needs_input_grad
        of_rows, slopes = backward(
            ctx.activations, parameters, rows, outputs, kept, gradient, wanted, wants_rows
        )
        return of_rows, None, *slopes


def forward(
    rows: torch.Tensor, activations: tuple[int, ...], parameters: Sequence[torch.Tensor], keep: bool
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Run layers without autograd.

    Args:
        rows: Contiguous float32 ``[B, D]``.
        activations: Of the layers.
        parameters: Their weights and biases in turn.
        keep: Whether `backward` is to come.

    Returns:
        Outputs ``[B, F]``, and what `backward` needs beside them; None where it is not to come.
    """
    count = rows.shape[0]
    outputs = torch.empty((count, parameters[-1].shape[0]))
    kept = None
    if keep:
        kept = torch.empty(kept_size(activations, parameters) * count)
    kernels().forward(
        table_of(activations, parameters),
        rows.data_ptr(),
        count,
        outputs.data_ptr(),
        0 if kept is None else kept.data_ptr(),
    )
    return outputs, kept


def kept_size(activations: tuple[int, ...], parameters: Sequence[torch.Tensor]) -> int:
    """Return how many numbers `forward` keeps of a row, at least 1: what is empty has no address."""
    total = 0
    for layer, activation in enumerate(activations):
        places = (layer < len(activations) - 1) + (activation == SILU)
        total += -(-parameters[2 * layer].shape[0] // WIDTH) * WIDTH * places
    return max(1, total)


def backward(
    activations: tuple[int, ...],
    parameters: Sequence[torch.Tensor],
    rows: torch.Tensor,
    outputs: torch.Tensor,
    kept: torch.Tensor,
    gradient: torch.Tensor,
    wanted: Sequence[bool],
    wants_rows: bool,
) -> tuple[torch.Tensor | None, list[torch.Tensor | None]]:
    """Differentiate what `forward` did.

    Args:
        activations: As for `forward`, as the next two.
        parameters: Likewise.
        rows: Likewise.
        outputs: What it gave.
        kept: Likewise.
        gradient: Of the loss in the outputs, ``[B, F]``.
        wanted: Of which parameters gradients are asked for.
        wants_rows: Whether that of the rows is.

    Returns:
        The gradients of rows and of parameters, None for those that are not asked for.
    """
    gradient = gradient.contiguous()
    slopes = [
        torch.empty_like(each) if wants else None for each, wants in zip(parameters, wanted, strict=True)
    ]
    of_rows = torch.empty_like(rows) if wants_rows else None
    kernels().backward(
        table_of(activations, parameters, slopes),
        rows.data_ptr(),
        rows.shape[0],
        outputs.data_ptr(),
        kept.data_ptr(),
        gradient.data_ptr(),
        0 if of_rows is None else of_rows.data_ptr(),
    )
    return of_rows, slopes


def table_of(
    activations: tuple[int, ...],
    parameters: Sequence[torch.Tensor],
    slopes: Sequence[torch.Tensor | None] | None = None,
) -> np.ndarray:
    """Return layers as the kernels take them.

    Args:
        activations: Of the layers.
        parameters: Their weights and biases in turn.
        slopes: Where gradients of these go; None for none.
    """
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

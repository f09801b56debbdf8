"""The extended Kalman filter over whole sequences as one operation, with its gradient: numba kernels."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numba import njit

from qio_rllib.world_models.kalman import LARGEST, Moves

Array = np.ndarray

_FAST = {"reassoc", "contract", "arcp", "nsz"}  # sums in any order; numbers that are not finite stay so


class Filtered(NamedTuple):
    """What a filter gives for ``L`` successive steps of ``B`` sequences."""

    means: torch.Tensor  # of the state after each step's observation, [L, B, n]
    errors: torch.Tensor  # of each component of the observations, given those before it, [L, B, D]
    variances: torch.Tensor  # that were expected of them, [L, B, D]
    means_before: torch.Tensor  # before each step, without gradients, [L, B, n]
    covariances_before: torch.Tensor  # [L, B, n, n]


def filtered(
    moves: Moves,
    means: torch.Tensor,
    covariances: torch.Tensor,
    fresh: torch.Tensor,
    actions: torch.Tensor,
    observed: torch.Tensor,
) -> Filtered:
    """Filter sequences.

    Each step moves the belief by its action (the covariance by the Jacobian at the mean) and conditions it on what is
    observed then, one component after another.

    Args:
        moves: Parameters of the dynamics and the noises.
        means: Beliefs to begin with, ``[L, B, n]``; only those of fresh steps are read.
        covariances: Likewise, ``[L, B, n, n]``.
        fresh: Steps that begin with these beliefs, bool ``[L, B]``; the others go on from the step before. The first
            step of each sequence must be fresh.
        actions: ``[L, B, A]``, without gradients.
        observed: After each step, the first ``D`` components of the state with noise, ``[L, B, D]``, likewise.

    Returns:
        Beliefs, with gradients to ``moves``, ``means`` and ``covariances``. The arithmetic is that of the CPU, in the
        arguments' precision.
    """
    return Filtered(*_Filter.apply(*moves, means, covariances, fresh, actions, observed))


class _Filter(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *given: torch.Tensor) -> tuple[torch.Tensor, ...]:
        arrays = [tensor.detach().cpu().contiguous().numpy() for tensor in given]
        weight, bias, first, offset, last, motion, sensor, means, covariances, fresh, actions, observed = (
            arrays
        )
        steps, rows, size = means.shape
        slope, by_unit = _slopes(weight, first, last, size)
        seen = len(sensor)
        kind = means.dtype
        kept = (
            np.empty((steps, rows, size), kind),  # before the step
            np.empty((steps, rows, size, size), kind),
            np.empty((steps, rows, len(offset)), kind),  # units
            np.empty((steps, rows, size), kind),  # moved, not yet clamped
            np.empty((steps, rows, size, size), kind),  # moved, not yet scaled
        )
        after = np.empty((steps, rows, size), kind)
        errors, variances = np.empty((steps, rows, seen), kind), np.empty((steps, rows, seen), kind)
        _forward(
            weight, bias, first, offset, last, motion, sensor, slope, by_unit, means, covariances, fresh, actions,
            observed, *kept, after, errors, variances,
        )  # fmt: skip
        ctx.arrays, ctx.kept, ctx.device = arrays, (slope, by_unit, *kept), given[0].device
        found = [torch.from_numpy(array).to(ctx.device) for array in (after, errors, variances, *kept[:2])]
        ctx.mark_non_differentiable(*found[3:])
        return tuple(found)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        weight, _, first, offset, last, motion, sensor, means, covariances, fresh, actions, observed = (
            ctx.arrays
        )
        slope, by_unit, *kept = ctx.kept
        size, kind = means.shape[-1], means.dtype
        of_after, of_errors, of_variances = (
            gradient.detach().cpu().contiguous().numpy() for gradient in gradients[:3]
        )
        found = {
            "weight": np.zeros_like(weight),
            "bias": np.zeros(size, kind),
            "first": np.zeros_like(first),
            "offset": np.zeros_like(offset),
            "last": np.zeros_like(last),
            "motion": np.zeros_like(motion),
            "sensor": np.zeros_like(sensor),
            "means": np.zeros_like(means),
            "covariances": np.zeros_like(covariances),
        }
        of_slope, of_by_unit = np.zeros_like(slope), np.zeros_like(by_unit)
        _backward(
            weight, first, last, sensor, slope, by_unit, fresh, actions, observed, *kept,
            of_after, of_errors, of_variances, *found.values(), of_slope, of_by_unit,
        )  # fmt: skip
        # by_unit[k, i, j] = last[i, k] first[k, j]; slope = 1 + weight[:, :n]
        of_by_unit = of_by_unit.reshape(-1, size, size)
        found["weight"][:, :size] += of_slope.reshape(size, size)
        found["last"] += np.einsum("kij,kj->ik", of_by_unit, first[:, :size])
        found["first"][:, :size] += np.einsum("kij,ik->kj", of_by_unit, last)
        return (*(torch.from_numpy(array).to(ctx.device) for array in found.values()), None, None, None)


def _slopes(weight: Array, first: Array, last: Array, size: int) -> tuple[Array, Array]:
    """Return the constant part of the Jacobian, ``[n * n]``, and what the slope of each unit adds, ``[U, n * n]``."""
    slope = np.eye(size, dtype=weight.dtype) + weight[:, :size]
    by_unit = last.T[:, :, None] * first[:, None, :size]
    return slope.reshape(-1), by_unit.reshape(len(first), -1)


@njit(cache=True, fastmath=_FAST)
def _jacobian(slope: Array, by_unit: Array, slopes: Array, out: Array) -> None:
    """Write ``slope + sum_k slopes_k by_unit_k``; matrices are flat, ``[n * n]``."""
    out[:] = slope
    for k in range(len(slopes)):
        for place in range(len(out)):
            out[place] += slopes[k] * by_unit[k, place]


@njit(cache=True, fastmath=_FAST)
def _product(left: Array, right: Array, out: Array) -> None:
    """Write ``left @ right``; much faster than BLAS for a few numbers."""
    size = len(out)
    for i in range(size):
        for j in range(size):
            out[i, j] = left[i, 0] * right[0, j]
        for k in range(1, size):
            for j in range(size):
                out[i, j] += left[i, k] * right[k, j]


@njit(cache=True, fastmath=_FAST)
def _forward(
    weight: Array,
    bias: Array,
    first: Array,
    offset: Array,
    last: Array,
    motion: Array,
    sensor: Array,
    slope: Array,
    by_unit: Array,
    means: Array,
    covariances: Array,
    fresh: Array,
    actions: Array,
    observed: Array,
    mean_before: Array,
    covariance_before: Array,
    units: Array,
    moved: Array,
    spread: Array,
    after: Array,
    errors: Array,
    variances: Array,
) -> None:
    steps, rows, size = means.shape
    zero, half, one = means.dtype.type(0.0), means.dtype.type(0.5), means.dtype.type(1.0)
    largest = means.dtype.type(LARGEST)
    inputs, slopes = np.empty(weight.shape[1], means.dtype), np.empty(len(offset), means.dtype)
    mean, covariance = np.empty(size, means.dtype), np.empty((size, size), means.dtype)
    jacobian, product = np.empty((size, size), means.dtype), np.empty((size, size), means.dtype)
    row = np.empty(size, means.dtype)
    for b in range(rows):
        for t in range(steps):
            if fresh[t, b]:
                mean[:] = means[t, b]
                covariance[:] = covariances[t, b]
            mean_before[t, b] = mean
            covariance_before[t, b] = covariance
            inputs[:size] = mean
            inputs[size:] = actions[t, b]
            unit = units[t, b]
            for k in range(len(offset)):
                total = offset[k]
                for j in range(len(inputs)):
                    total += first[k, j] * inputs[j]
                unit[k] = np.tanh(total)
                slopes[k] = one - unit[k] * unit[k]
            for i in range(size):
                total = mean[i] + bias[i]
                for j in range(len(inputs)):
                    total += weight[i, j] * inputs[j]
                for k in range(len(unit)):
                    total += last[i, k] * unit[k]
                moved[t, b, i] = total
            for i in range(size):
                mean[i] = min(max(moved[t, b, i], -largest), largest)
            _jacobian(slope, by_unit, slopes, jacobian.reshape(-1))
            _product(jacobian, covariance, product)
            whole = spread[t, b]
            _product(product, jacobian.T, whole)
            variance = zero
            for i in range(size):
                whole[i, i] += motion[i]
                variance += whole[i, i]
            scale = min(largest * size / variance, one)
            for i in range(size):
                for j in range(size):
                    covariance[i, j] = half * scale * (whole[i, j] + whole[j, i])
            for c in range(len(sensor)):
                row[:] = covariance[c]
                expected = max(row[c], zero) + sensor[c]
                error = observed[t, b, c] - mean[c]
                errors[t, b, c], variances[t, b, c] = error, expected
                for i in range(size):
                    gain = row[i] / expected
                    mean[i] += gain * error
                    for j in range(size):
                        covariance[i, j] -= gain * row[j]
            after[t, b] = mean


@njit(cache=True, fastmath=_FAST)
def _backward(
    weight: Array,
    first: Array,
    last: Array,
    sensor: Array,
    slope: Array,
    by_unit: Array,
    fresh: Array,
    actions: Array,
    observed: Array,
    mean_before: Array,
    covariance_before: Array,
    units: Array,
    moved: Array,
    spread: Array,
    of_after: Array,
    of_errors: Array,
    of_variances: Array,
    of_weight: Array,
    of_bias: Array,
    of_first: Array,
    of_offset: Array,
    of_last: Array,
    of_motion: Array,
    of_sensor: Array,
    of_means: Array,
    of_covariances: Array,
    of_slope: Array,
    of_by_unit: Array,
) -> None:
    steps, rows, size = moved.shape
    seen, kind = len(sensor), moved.dtype
    zero, half, one, two = kind.type(0.0), kind.type(0.5), kind.type(1.0), kind.type(2.0)
    largest = kind.type(LARGEST)
    inputs, slopes = np.empty(weight.shape[1], kind), np.empty(units.shape[2], kind)
    # What the conditioning starts from, before each component.
    mean, covariance = np.empty((seen + 1, size), kind), np.empty((seen + 1, size, size), kind)
    of_mean, of_covariance = np.empty(size, kind), np.empty((size, size), kind)
    jacobian, product = np.empty((size, size), kind), np.empty((size, size), kind)
    of_jacobian, symmetric = np.empty(size * size, kind), np.empty((size, size), kind)
    gain, of_gain, of_row = np.empty(size, kind), np.empty(size, kind), np.empty(size, kind)
    for b in range(rows):
        of_mean[:] = 0.0
        of_covariance[:] = 0.0
        for t in range(steps - 1, -1, -1):
            whole = spread[t, b]
            variance = zero
            for i in range(size):
                variance += whole[i, i]
                mean[0, i] = min(max(moved[t, b, i], -largest), largest)
            scale = min(largest * size / variance, one)
            for i in range(size):
                for j in range(size):
                    covariance[0, i, j] = half * scale * (whole[i, j] + whole[j, i])
            for c in range(seen):
                expected = max(covariance[c, c, c], zero) + sensor[c]
                error = observed[t, b, c] - mean[c, c]
                for i in range(size):
                    portion = covariance[c, c, i] / expected
                    mean[c + 1, i] = mean[c, i] + portion * error
                    for j in range(size):
                        covariance[c + 1, i, j] = covariance[c, i, j] - portion * covariance[c, c, j]

            for i in range(size):
                of_mean[i] += of_after[t, b, i]
            for c in range(seen - 1, -1, -1):
                row = covariance[c, c]
                expected = max(row[c], zero) + sensor[c]
                error = observed[t, b, c] - mean[c, c]
                of_expected, of_error = of_variances[t, b, c], of_errors[t, b, c]
                for i in range(size):
                    gain[i] = row[i] / expected
                    of_gain[i] = of_mean[i] * error
                    of_error += of_mean[i] * gain[i]
                    of_row[i] = zero
                for i in range(size):
                    for j in range(size):
                        of_gain[i] -= of_covariance[i, j] * row[j]
                        of_row[j] -= of_covariance[i, j] * gain[i]
                for i in range(size):
                    of_row[i] += of_gain[i] / expected
                    of_expected -= of_gain[i] * gain[i] / expected
                of_mean[c] -= of_error
                of_sensor[c] += of_expected
                if row[c] > zero:
                    of_row[c] += of_expected
                for i in range(size):
                    of_covariance[c, i] += of_row[i]

            inward = zero
            for i in range(size):
                if abs(moved[t, b, i]) > largest:
                    of_mean[i] = zero
                for j in range(size):
                    symmetric[i, j] = half * (of_covariance[i, j] + of_covariance[j, i])
                    inward += symmetric[i, j] * whole[i, j]
            for i in range(size):
                for j in range(size):
                    symmetric[i, j] *= scale
                if scale < one:
                    symmetric[i, i] -= scale * inward / variance
                of_motion[i] += symmetric[i, i]

            unit = units[t, b]
            before = covariance_before[t, b]
            for k in range(len(unit)):
                slopes[k] = one - unit[k] * unit[k]
            _jacobian(slope, by_unit, slopes, jacobian.reshape(-1))
            # C = J P J' with a symmetric gradient S: of_J = S J (P + P'), of_P = J' S J.
            _product(symmetric, jacobian, product)
            for i in range(size):
                for j in range(size):
                    total = zero
                    for k in range(size):
                        total += product[i, k] * (before[k, j] + before[j, k])
                    of_jacobian[i * size + j] = total
                    of_slope[i * size + j] += total
            _product(jacobian.T, product, of_covariance)

            inputs[:size] = mean_before[t, b]
            inputs[size:] = actions[t, b]
            for i in range(size):
                of_bias[i] += of_mean[i]
                gain[i] = of_mean[i]  # of what was moved to
                for j in range(len(inputs)):
                    of_weight[i, j] += of_mean[i] * inputs[j]
            for j in range(size):
                for i in range(size):
                    of_mean[j] += weight[i, j] * gain[i]
            for k in range(len(unit)):
                through = zero
                for place in range(len(of_jacobian)):
                    through += of_jacobian[place] * by_unit[k, place]
                    of_by_unit[k, place] += slopes[k] * of_jacobian[place]
                of_unit = -two * unit[k] * through
                for i in range(size):
                    of_unit += gain[i] * last[i, k]
                    of_last[i, k] += gain[i] * unit[k]
                of_sum = of_unit * slopes[k]
                of_offset[k] += of_sum
                for j in range(len(inputs)):
                    of_first[k, j] += of_sum * inputs[j]
                for j in range(size):
                    of_mean[j] += of_sum * first[k, j]

            if fresh[t, b]:
                of_means[t, b] = of_mean
                of_covariances[t, b] = of_covariance
                of_mean[:] = 0.0
                of_covariance[:] = 0.0

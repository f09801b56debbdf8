"""Losses of actor-critics row by row, with their gradients; tensors are given by their addresses.

The table holds those of the policy's parameters, values, the parameters of the policy that sampled, actions,
log-probabilities when they were sampled, advantages, value targets; and of what is written: entropies and the loss's
gradients in the first two. A weight below 0 stands for a term that there is not.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numba import njit

from qio_rllib.fused.codes import CLIP, DIVERGENCE, ENTROPY, ERROR, ERROR_UNCLIPPED, GAIN, VALUE, VALUE_CLIP
from qio_rllib.fused.tiles import pointer, pointer_to_integers

Array = np.ndarray
_LOWEST = np.float32(np.finfo(np.float32).min)
_LOG_TWO_PI = np.float32(math.log(2 * math.pi))
_HALF, _ONE, _TWO = np.float32(0.5), np.float32(1), np.float32(2)


@njit(inline="always")
def policy_term(logp: Any, logp_before: Any, advantage: Any, clip: Any) -> Any:
    """Return what is increased of a row, and its derivative in the log-probability."""
    if clip < 0:
        return logp * advantage, advantage
    ratio = math.exp(logp - logp_before)
    clipped = min(max(ratio, _ONE - clip), _ONE + clip)
    gain, bound = advantage * ratio, advantage * clipped
    if bound < gain:
        return bound, np.float32(0)
    return gain, gain


@njit(inline="always")
def value_term(value: Any, target: Any, weights: Array, means: Array, share: Any) -> Any:
    """Take in a row's error; return the derivative of the loss in its value."""
    if weights[VALUE] < 0:
        return np.float32(0)
    error = value - target
    square = error * error
    means[ERROR_UNCLIPPED] += square
    if square > weights[VALUE_CLIP]:
        means[ERROR] += weights[VALUE_CLIP]
        return np.float32(0)
    means[ERROR] += square
    return weights[VALUE] * _TWO * error * share


@njit(inline="always")
def total_of(weights: Array, means: Array, rows: Any) -> float:
    """Divide sums by rows; return the loss."""
    for i in range(len(means)):
        means[i] /= rows
    loss = -means[GAIN] - weights[ENTROPY] * means[ENTROPY]
    if weights[VALUE] >= 0:
        loss += weights[VALUE] * means[ERROR]
    if weights[DIVERGENCE] >= 0:
        loss += weights[DIVERGENCE] * means[DIVERGENCE]
    return loss


@njit(inline="always")
def log_softmax(logits: Array, logs: Array, probs: Array) -> None:
    """Write log-probabilities, at least float32's lowest number, and probabilities of a row."""
    highest = logits[0]
    for i in range(1, len(logits)):
        highest = max(highest, logits[i])
    total = np.float32(0)
    for i in range(len(logits)):
        total += math.exp(logits[i] - highest)
    normalizer = highest + math.log(total)
    for i in range(len(logits)):
        log = logits[i] - normalizer
        logs[i] = _LOWEST if log < _LOWEST else log
        probs[i] = math.exp(logs[i])


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def categorical(table: Array, weights: Array, rows: int, count: int, means: Array) -> float:
    """Return the loss of categorical policies; write gradients and entropies, and means in nats.

    Args:
        table: Addresses, int64 ``[10]``.
        weights: Of the terms, float32 ``[5]``.
        rows: How many.
        count: Numbers that a row's distribution is given by.
        means: Zeros, float64 ``[5]``.
    """
    inputs = numba.carray(pointer(table[0]), (rows, count))
    values = numba.carray(pointer(table[1]), rows)
    inputs_before = numba.carray(pointer(table[2]), (rows, count))
    actions = numba.carray(pointer_to_integers(table[3]), rows)
    logp_before = numba.carray(pointer(table[4]), rows)
    advantages = numba.carray(pointer(table[5]), rows)
    targets = numba.carray(pointer(table[6]), rows)
    entropies = numba.carray(pointer(table[7]), rows)
    slopes = numba.carray(pointer(table[8]), (rows, count))
    value_slopes = numba.carray(pointer(table[9]), rows)
    share = np.float32(1.0 / rows)
    logs, probs = np.empty(count, np.float32), np.empty(count, np.float32)
    logs_before, probs_before = np.empty(count, np.float32), np.empty(count, np.float32)
    for row in range(rows):
        log_softmax(inputs[row], logs, probs)
        entropy = np.float32(0)
        for i in range(count):
            entropy -= probs[i] * logs[i]
        entropies[row] = entropy
        means[ENTROPY] += entropy
        action = actions[row]
        if action < 0 or action >= count:  # nothing outside the arrays is read or written
            means[:] = np.nan
            return np.nan
        gain, slope = policy_term(logs[action], logp_before[row], advantages[row], weights[CLIP])
        means[GAIN] += gain
        # The gradient of log p(action) is one-hot - p, that of the entropy -p (log p + H).
        for i in range(count):
            slopes[row, i] = share * probs[i] * (slope + weights[ENTROPY] * (logs[i] + entropy))
        slopes[row, action] -= share * slope
        if weights[DIVERGENCE] >= 0:
            log_softmax(inputs_before[row], logs_before, probs_before)
            for i in range(count):
                means[DIVERGENCE] += probs_before[i] * (logs_before[i] - logs[i])
                slopes[row, i] += share * weights[DIVERGENCE] * (probs[i] - probs_before[i])
        value_slopes[row] = value_term(values[row], targets[row], weights, means, share)
    return total_of(weights, means, rows)


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def gaussian(table: Array, weights: Array, rows: int, count: int, means: Array) -> float:
    """Return the loss of Gaussian policies; write gradients and entropies, and means in nats.

    Args:
        table: Addresses, int64 ``[10]``.
        weights: Of the terms, float32 ``[5]``.
        rows: How many.
        count: Numbers that a row's distribution is given by.
        means: Zeros, float64 ``[5]``.
    """
    size = count // 2
    inputs = numba.carray(pointer(table[0]), (rows, count))
    values = numba.carray(pointer(table[1]), rows)
    inputs_before = numba.carray(pointer(table[2]), (rows, count))
    actions = numba.carray(pointer(table[3]), (rows, size))
    logp_before = numba.carray(pointer(table[4]), rows)
    advantages = numba.carray(pointer(table[5]), rows)
    targets = numba.carray(pointer(table[6]), rows)
    entropies = numba.carray(pointer(table[7]), rows)
    slopes = numba.carray(pointer(table[8]), (rows, count))
    value_slopes = numba.carray(pointer(table[9]), rows)
    share = np.float32(1.0 / rows)
    for row in range(rows):
        logp = entropy = np.float32(0)
        for i in range(size):
            log_deviation = inputs[row, size + i]
            scaled = (actions[row, i] - inputs[row, i]) * math.exp(-log_deviation)
            logp += -_HALF * (scaled * scaled + _LOG_TWO_PI) - log_deviation
            entropy += log_deviation + _HALF * (_ONE + _LOG_TWO_PI)
        entropies[row] = entropy
        means[ENTROPY] += entropy
        gain, slope = policy_term(logp, logp_before[row], advantages[row], weights[CLIP])
        means[GAIN] += gain
        for i in range(size):
            mean, log_deviation = inputs[row, i], inputs[row, size + i]
            inverse = math.exp(-log_deviation)
            scaled = (actions[row, i] - mean) * inverse
            slopes[row, i] = -share * slope * scaled * inverse
            slopes[row, size + i] = -share * (slope * (scaled * scaled - _ONE) + weights[ENTROPY])
            if weights[DIVERGENCE] >= 0:
                apart = inputs_before[row, size + i] - log_deviation
                ratio = math.exp(_TWO * apart)
                shift = (inputs_before[row, i] - mean) * inverse
                means[DIVERGENCE] += _HALF * (ratio + shift * shift - _ONE) - apart
                weight = share * weights[DIVERGENCE]
                slopes[row, i] -= weight * shift * inverse
                slopes[row, size + i] += weight * (_ONE - ratio - shift * shift)
        value_slopes[row] = value_term(values[row], targets[row], weights, means, share)
    return total_of(weights, means, rows)

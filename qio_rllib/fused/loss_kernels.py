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
_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)


@njit(inline="always")
def policy_term(logp: Any, logp_before: Any, advantage: Any, clip: Any) -> Any:
    """Return what is increased of a row, and its derivative in the log-probability."""
    if clip < 0:
        return logp * advantage, advantage
    ratio = math.exp(logp - logp_before)
    clipped = min(max(ratio, _ONE - clip), _ONE + clip)
    gain, bound = advantage * ratio, advantage * clipped
    if bound < gain:
        return bound, _ZERO
    return gain, gain


@njit(inline="always")
def value_term(value: Any, target: Any, weights: Array, means: Array, share: Any) -> Any:
    """Take in a row's error; return the derivative of the loss in its value."""
    if weights[VALUE] < 0:
        return _ZERO
    error = value - target
    square = error * error
    means[ERROR_UNCLIPPED] += square
    if square > weights[VALUE_CLIP]:
        means[ERROR] += weights[VALUE_CLIP]
        return _ZERO
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
    total = _ZERO
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
        entropy = _ZERO
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
def factored(factors: Array, table: Array, weights: Array, rows: int, count: int, means: Array) -> float:
    """Return the loss of policies of ``F`` categorical and ``D`` Gaussian factors; write as `categorical` does.

    Args:
        factors: How many values each categorical factor takes, int64 ``[F]``; none of a Gaussian policy.
        table: Addresses, int64 ``[10]``; actions are float32, ``[rows, F + D]``.
        weights: Of the terms, float32 ``[5]``.
        rows: How many.
        count: Numbers that a row's distribution is given by: logits of each factor, ``D`` means, ``D`` log deviations.
        means: Zeros, float64 ``[5]``.
    """
    digits, logits = len(factors), factors.sum()
    size = (count - logits) // 2
    inputs = numba.carray(pointer(table[0]), (rows, count))
    values = numba.carray(pointer(table[1]), rows)
    inputs_before = numba.carray(pointer(table[2]), (rows, count))
    actions = numba.carray(pointer(table[3]), (rows, digits + size))
    logp_before = numba.carray(pointer(table[4]), rows)
    advantages = numba.carray(pointer(table[5]), rows)
    targets = numba.carray(pointer(table[6]), rows)
    entropies = numba.carray(pointer(table[7]), rows)
    slopes = numba.carray(pointer(table[8]), (rows, count))
    value_slopes = numba.carray(pointer(table[9]), rows)
    share = np.float32(1.0 / rows)
    logs, probs = np.empty(logits, np.float32), np.empty(logits, np.float32)
    logs_before, probs_before = np.empty(logits, np.float32), np.empty(logits, np.float32)
    parts = np.empty(digits, np.float32)  # each factor's entropy
    chosen = np.empty(digits, np.int64)  # where in the row each factor's action stands
    for row in range(rows):
        logp = entropy = _ZERO
        place = 0
        for factor in range(digits):
            end, digit = place + factors[factor], actions[row, factor]
            if not (digit >= 0 and digit < factors[factor]):  # nothing outside the arrays is read or written
                means[:] = np.nan
                return np.nan
            log_softmax(inputs[row, place:end], logs[place:end], probs[place:end])
            parts[factor] = _ZERO
            for i in range(place, end):
                parts[factor] -= probs[i] * logs[i]
            entropy += parts[factor]
            chosen[factor] = place + np.int64(digit)
            logp += logs[chosen[factor]]
            place = end
        for i in range(size):
            log_deviation = inputs[row, logits + size + i]
            scaled = (actions[row, digits + i] - inputs[row, logits + i]) * math.exp(-log_deviation)
            logp += -_HALF * (scaled * scaled + _LOG_TWO_PI) - log_deviation
            entropy += log_deviation + _HALF * (_ONE + _LOG_TWO_PI)
        entropies[row] = entropy
        means[ENTROPY] += entropy
        gain, slope = policy_term(logp, logp_before[row], advantages[row], weights[CLIP])
        means[GAIN] += gain
        place = 0
        for factor in range(digits):
            end = place + factors[factor]
            for i in range(place, end):
                slopes[row, i] = share * probs[i] * (slope + weights[ENTROPY] * (logs[i] + parts[factor]))
            slopes[row, chosen[factor]] -= share * slope
            if weights[DIVERGENCE] >= 0:
                log_softmax(inputs_before[row, place:end], logs_before[place:end], probs_before[place:end])
                for i in range(place, end):
                    means[DIVERGENCE] += probs_before[i] * (logs_before[i] - logs[i])
                    slopes[row, i] += share * weights[DIVERGENCE] * (probs[i] - probs_before[i])
            place = end
        for i in range(size):
            at, deviation_at = logits + i, logits + size + i
            mean, log_deviation = inputs[row, at], inputs[row, deviation_at]
            inverse = math.exp(-log_deviation)
            scaled = (actions[row, digits + i] - mean) * inverse
            slopes[row, at] = -share * slope * scaled * inverse
            slopes[row, deviation_at] = -share * (slope * (scaled * scaled - _ONE) + weights[ENTROPY])
            if weights[DIVERGENCE] >= 0:
                apart = inputs_before[row, deviation_at] - log_deviation
                ratio = math.exp(_TWO * apart)
                shift = (inputs_before[row, at] - mean) * inverse
                means[DIVERGENCE] += _HALF * (ratio + shift * shift - _ONE) - apart
                weight = share * weights[DIVERGENCE]
                slopes[row, at] -= weight * shift * inverse
                slopes[row, deviation_at] += weight * (_ONE - ratio - shift * shift)
        value_slopes[row] = value_term(values[row], targets[row], weights, means, share)
    return total_of(weights, means, rows)

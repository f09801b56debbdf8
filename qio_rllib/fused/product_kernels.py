"""The losses of `loss_kernels` for actions of several numbers: categorical factors, and Gaussian ones behind them."""

from __future__ import annotations

import math

import numba
import numpy as np
from numba import njit

from qio_rllib.fused.codes import CLIP, DIVERGENCE, ENTROPY, GAIN
from qio_rllib.fused.loss_kernels import log_softmax, policy_term, total_of, value_term
from qio_rllib.fused.tiles import pointer

Array = np.ndarray
_LOG_TWO_PI = np.float32(math.log(2 * math.pi))
_ZERO, _HALF, _ONE, _TWO = np.float32(0), np.float32(0.5), np.float32(1), np.float32(2)


@njit(cache=True, error_model="numpy", fastmath={"contract"})
def factored(table: Array, weights: Array, factors: Array, rows: int, count: int, means: Array) -> float:
    """Return the loss of products of distributions; write gradients and entropies, and means in nats.

    Args:
        table: Addresses as in `loss_kernels`, int64 ``[10]``; actions are float32, ``[rows, F + D]``.
        weights: Of the terms, float32 ``[5]``.
        factors: How many values each categorical factor takes, int64 ``[F]``.
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

"""Focal cross-entropy (Lin et al., ICCV 2017): the cross-entropy of a sample, less the better its class is known.

The factor is ``(1 - p)^gamma``, p the probability of what is true. Formulas and defaults are Keras 3's.
"""

import math

import numpy as np

from .elementary import exp_negative, expm1_negative, log, sigmoid
from .errors import binary_crossentropy, binary_crossentropy_on_probs, mean_by_share, of_outputs
from .jit import jit
from .rows import loss
from .softmax import row_exp_sum, row_max, row_sum
from .supervised import EPSILON
from .vectors import CHUNK, keep, lanes, load, splat, stay_apart, store, total, where_le

_BINARY = "label_smoothing", "gamma", "alpha", "apply_class_balancing"
_CATEGORICAL = "label_smoothing", "gamma", "alpha"


@jit(inline=True)
def _power(x, exponent):
    """x^exponent for x >= 0 and exponent >= 0; 0^0 is 1."""
    return where_le(exponent, 0.0, 1.0, exp_negative(log(x) * exponent))


@jit(inline=True)
def _over(a, b):
    """a / b, 0 where b is 0 (a is, too)."""
    return a / where_le(b, 0.0, 1.0, b)


@jit(inline=True)
def _class_weight(y, alpha, balancing):
    """alpha of ones, 1 - alpha of zeros, with class balancing; else 1."""
    return where_le(balancing, 0.0, 1.0, y * alpha + (1.0 - y) * (1.0 - alpha))


@of_outputs(mean_by_share, *_BINARY)
def binary_focal_crossentropy(z, y, settings):
    """w m^gamma c, c the cross-entropy, m = y (1 - o) + (1 - y) o, o = sigmoid(z).

    Gradient: w [m^gamma dc + gamma m^(gamma - 1) (1 - 2 y) o (1 - o) c].
    """
    smoothing, gamma, alpha, balancing = settings
    y = y * (1.0 - smoothing) + 0.5 * smoothing
    value, slope = binary_crossentropy(z, y, 0.0)
    o, rest = sigmoid(z), sigmoid(0.0 - z)
    miss = y * rest + (1.0 - y) * o
    weight = _class_weight(y, alpha, balancing) * _power(miss, gamma)
    return weight * value, weight * (slope + _over(o * rest, miss) * (1.0 - y - y) * value * gamma)


@of_outputs(mean_by_share, *_BINARY)
def binary_focal_crossentropy_on_probs(o, y, settings):
    """The same of probabilities: c clips them to [1e-7, 1 - 1e-7], m does not."""
    smoothing, gamma, alpha, balancing = settings
    y = y * (1.0 - smoothing) + 0.5 * smoothing
    value, slope = binary_crossentropy_on_probs(o, y, 0.0)
    miss = y * (1.0 - o) + (1.0 - y) * o
    miss = where_le(miss, 0.0, 0.0, miss)  # outputs that are no probabilities
    weight, factor = _class_weight(y, alpha, balancing), _power(miss, gamma)
    return weight * factor * value, weight * (
        factor * slope + _over(factor, miss) * (1.0 - y - y) * value * gamma
    )


@loss("CATEGORICAL_FOCAL_CROSSENTROPY", settings=_CATEGORICAL)
def categorical_focal_crossentropy(row, hyper):
    """-alpha sum_i y_i m_i^gamma log q_i, m = 1 - q, q = softmax(z).

    With the slope by log q_i, s_i = -alpha y_i m_i^gamma (1 - gamma q_i log q_i / m_i), the gradient is
    s_j - q_j sum_i s_i.
    """
    stay_apart()
    logits, at, count = row.logits, row.at, row.count
    spread, share, gamma = 1.0 - hyper[0], hyper[0] / count, hyper[1]
    peak = row_max(logits, at, count)
    log_sum = log(row_exp_sum(row.dlogits, logits, at, count, np.int64(0), peak, 1.0))
    value, slopes = 0.0, 0.0
    for first in range(0, count, CHUNK):
        value_part = slope_part = splat(logits, 0.0)
        for j in range(first, min(first + CHUNK, count), lanes(logits)):
            log_q = _log_softmax(logits, at + j, count - j, peak, log_sum)
            y = load(row.targets, at + j, count - j, 0.0) * spread + share
            miss = 0.0 - expm1_negative(log_q)
            weight = keep(y * _power(miss, gamma), count - j)
            slope = weight * _over(exp_negative(log_q) * log_q, miss) * gamma - weight
            value_part = value_part + keep(weight * log_q, count - j)
            slope_part = slope_part + keep(slope, count - j)
            store(row.dlogits, at + j, row.written - j, slope)
        value += np.float64(total(value_part))
        slopes += np.float64(total(slope_part))
    step = row.scale * hyper[2]
    for j in range(0, row.written, lanes(logits)):
        log_q = _log_softmax(logits, at + j, count - j, peak, log_sum)
        d = load(row.dlogits, at + j, count - j, 0.0) - exp_negative(log_q) * slopes
        store(row.dlogits, at + j, count - j, d * step)
    return 0.0 - hyper[2] * value


@jit(inline=True)
def _log_softmax(logits, at, count, peak, log_sum):
    log_q = load(logits, at, count, peak) - peak - log_sum
    return where_le(log_q, 0.0, log_q, log_q * 0.0)  # rounded above 0


@loss("CATEGORICAL_FOCAL_CROSSENTROPY_ON_PROBS", settings=_CATEGORICAL)
def categorical_focal_crossentropy_on_probs(row, hyper):
    """The same of o = probs / sum(probs) clipped to [1e-7, 1 - 1e-7]; the gradient is 0 where it is."""
    stay_apart()
    at, count, gamma = row.at, row.count, hyper[1]
    spread, share, step = 1.0 - hyper[0], hyper[0] / count, row.scale * hyper[2]
    low, high = EPSILON, 1.0 - EPSILON
    mass = row_sum(row.logits, at, count)
    value, inner = 0.0, 0.0
    for j in range(at, at + count):
        y, o = np.float64(row.targets[j]) * spread + share, np.float64(row.logits[j]) / mass
        clipped = low if o < low else (high if o > high else o)
        factor, log_o = math.pow(1.0 - clipped, gamma), math.log(clipped)
        value -= y * factor * log_o
        slope = y * factor * (gamma * log_o / (1.0 - clipped) - 1.0 / clipped)
        slope = 0.0 if o < low or o > high else slope
        inner += slope * o
        if row.written > 0:
            row.dlogits[j] = slope
    for j in range(at, at + row.written):
        row.dlogits[j] = (row.dlogits[j] - inner) * (step / mass)
    return hyper[2] * value

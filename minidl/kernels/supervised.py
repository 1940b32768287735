"""Supervised losses, one function of a row each (`rows.Row`): it gives the value and writes the gradient.

A loss that is a sum over the outputs of some function of the error alone is one formula, made a function of a row
by `of_error`.
"""

from __future__ import annotations

import math

import numpy as np

from .crossentropy import crossentropy_row
from .elementary import exp_negative, log, log1p_unit, sigmoid
from .jit import jit
from .rows import NO_LABEL, ROW_OF_TARGETS, clear_gradient
from .softmax import row_sum
from .vectors import CHUNK, absolute, get, keep, lanes, load, put, splat, stay_apart, store, total, where_le

EPSILON = 1e-7
"""Keras's epsilon: probabilities are clipped to [EPSILON, 1 - EPSILON] under a logarithm."""

# ---- losses of the error e = prediction - y: (value, slope) of a vector of errors, 0 at e = 0; ``setting`` is the
# ---- first entry of hyper


@jit(inline=True)
def squared_error(e, setting):
    return e * e, e + e


@jit(inline=True)
def half_squared_error(e, setting):
    return e * 0.5 * e, e


@jit(inline=True)
def absolute_error(e, setting):
    size = absolute(e)
    return size, where_le(size, 0.0, e, _sign(e))


@jit(inline=True)
def huber(e, delta):
    """e^2 / 2 where |e| <= delta, else delta |e| - delta^2 / 2"""
    size, half = absolute(e), e * 0.5
    value = where_le(size, delta, half * e, size * delta + -0.5 * delta * delta)
    return value, where_le(size, delta, half + half, _sign(e) * delta)


@jit(inline=True)
def _sign(e):
    return where_le(e, 0.0, -1.0, 1.0) + (e - e)  # NaN for NaN and inf


def of_error(formula, mean=True):
    """The function of a row whose loss is the mean, or the sum, of ``formula`` over the outputs."""

    def error_row(row, hyper):
        stay_apart()
        at, count = row.at, row.count
        share = 1.0 / count if mean else 1.0
        step, setting = row.scale * share, get(hyper, 0)
        value = 0.0
        for first in range(0, count, CHUNK):
            part = splat(row.logits, 0.0)
            for j in range(first, min(first + CHUNK, count), lanes(row.logits)):
                e = load(row.logits, at + j, count - j, 0.0) - load(row.targets, at + j, count - j, 0.0)
                loss, slope = formula(e, setting)
                part = part + loss
                store(row.dlogits, at + j, row.written - j, slope * step)
            value += np.float64(total(part))
        return value * share

    return error_row


# ---- on logits


def crossentropy(row, hyper):
    smoothing = get(hyper, 0)
    return crossentropy_row(row, row.scale, smoothing, np.int64(0))


def binary_crossentropy(row, hyper):
    """mean_i [max(z, 0) - z y + log(1 + exp(-|z|))], gradient (sigmoid(z) - y) / C."""
    stay_apart()
    at, count, smoothing = row.at, row.count, get(hyper, 0)
    spread, share, step = 1.0 - smoothing, 0.5 * smoothing, row.scale / count
    value = 0.0
    for first in range(0, count, CHUNK):
        part = splat(row.logits, 0.0)
        for j in range(first, min(first + CHUNK, count), lanes(row.logits)):
            z = load(row.logits, at + j, count - j, 0.0)
            y = load(row.targets, at + j, count - j, 0.0) * spread + share
            loss = where_le(z, 0.0, 0.0, z) - z * y + log1p_unit(exp_negative(0.0 - absolute(z)))
            part = part + keep(loss, count - j)
            store(row.dlogits, at + j, row.written - j, (sigmoid(z) - y) * step)
        value += np.float64(total(part))
    return value / count


# ---- on probabilities, which stand in place of the row's logits


def kl_divergence(row, hyper):
    """sum_i y log(y / q), both clipped to [1e-7, 1]; the gradient is 0 where q is clipped."""
    stay_apart()
    at, count, low = row.at, row.count, EPSILON
    value = 0.0
    for first in range(0, count, CHUNK):
        part = splat(row.logits, 0.0)
        for j in range(first, min(first + CHUNK, count), lanes(row.logits)):
            q = load(row.logits, at + j, count - j, 1.0)
            y = load(row.targets, at + j, count - j, 1.0)
            y = where_le(y, low, low, where_le(1.0, y, 1.0, y))
            clipped = where_le(q, low, low, where_le(1.0, q, 1.0, q))
            ratio = y / clipped
            part = part + keep(y * log(ratio), count - j)
            slope = where_le(q, 1.0, where_le(low, q, 0.0 - ratio, 0.0 * y), q - q)
            store(row.dlogits, at + j, row.written - j, slope * row.scale)
        value += np.float64(total(part))
    return value


def binary_crossentropy_on_probs(row, hyper):
    """-mean_i [y log o + (1 - y) log(1 - o)], o clipped to [1e-7, 1 - 1e-7]; the gradient is 0 where it is."""
    stay_apart()
    at, count, smoothing = row.at, row.count, get(hyper, 0)
    low, high = EPSILON, 1.0 - EPSILON
    spread, share, step = 1.0 - smoothing, 0.5 * smoothing, row.scale / count
    value = 0.0
    for first in range(0, count, CHUNK):
        part = splat(row.logits, 0.0)
        for j in range(first, min(first + CHUNK, count), lanes(row.logits)):
            o = load(row.logits, at + j, count - j, low)
            y = load(row.targets, at + j, count - j, 0.0) * spread + share
            clipped = where_le(o, low, low, where_le(high, o, high, o))
            rest = 1.0 - clipped
            loss = 0.0 - y * log(clipped) - (1.0 - y) * log(rest)
            part = part + keep(loss, count - j)
            slope = (clipped - y) / (clipped * rest)
            slope = where_le(o, high, where_le(low, o, slope, 0.0 * y), o - o)
            store(row.dlogits, at + j, row.written - j, slope * step)
        value += np.float64(total(part))
    return value / count


def crossentropy_on_probs(row, hyper):
    """-sum_i y_i log o_i, o = probs / sum(probs) clipped to [1e-7, 1 - 1e-7]; the gradient is 0 where it is."""
    stay_apart()
    if row.label == NO_LABEL:
        clear_gradient(row)
        return 0.0
    at, count, smoothing = row.at, row.count, get(hyper, 0)
    low, high = EPSILON, 1.0 - EPSILON
    mass = row_sum(row.logits, at, count)
    spread, share = 1.0 - smoothing, smoothing / count
    value, inner = 0.0, 0.0
    for j in range(count):
        if row.label == ROW_OF_TARGETS:
            y = get(row.targets, at + j) * spread + share
        else:
            y = 1.0 if j == row.label else 0.0
        o = get(row.logits, at + j) / mass
        clipped = low if o < low else (high if o > high else o)
        if y != 0 or o != o:  # a NaN shows even where y is 0
            value -= np.float64(y) * math.log(np.float64(clipped))
        slope = 0.0 if o < low or o > high else -y / clipped
        inner += np.float64(slope) * np.float64(o)
        if row.written > 0:
            put(row.dlogits, at + j, slope)
    if row.written > 0:
        for j in range(at, at + count):
            put(row.dlogits, j, (get(row.dlogits, j) - inner) * (row.scale / mass))
    return value

"""Losses that learn from labels: most are a sum over the outputs of one formula, under a decorator that names it.

The formula gives (value, slope) of vectors of outputs o and of targets y; ``setting`` is the first entry of hyper.
"""

import numpy as np

from .crossentropy import EPSILON
from .elementary import exp_negative, log, log1p_unit, sigmoid
from .jit import jit
from .rows import loss
from .vectors import CHUNK, absolute, get, keep, lanes, load, splat, stay_apart, store, total, where_le


def plain(x, count):
    return x


def mean(x, count):
    return x / count


def mean_by_share(x, count):  # rounded apart from `mean`
    return x * (1.0 / count)


def of_outputs(reduction, *settings):
    """The decorator for a formula: the loss of a row is ``reduction`` of its sum over the outputs."""
    reduction = jit(reduction, inline=True)

    def register(function):
        formula = jit(function, inline=True)

        @loss(function.__name__.upper(), settings=settings)
        def output_row(row, hyper):
            stay_apart()
            at, count = row.at, row.count
            step, setting = reduction(row.scale, count), get(hyper, 0)
            value = 0.0
            for first in range(0, count, CHUNK):
                part = splat(row.logits, 0.0)
                for j in range(first, min(first + CHUNK, count), lanes(row.logits)):
                    o, y = load(row.logits, at + j, count - j, 0.0), load(row.targets, at + j, count - j, 0.0)
                    value_part, slope = formula(o, y, setting)
                    part = part + keep(value_part, count - j)
                    store(row.dlogits, at + j, row.written - j, slope * step)
                value += np.float64(total(part))
            return reduction(value, count)

        return function

    return register


@of_outputs(mean, "label_smoothing")
def binary_crossentropy(z, y, smoothing):
    """max(z, 0) - z y + log(1 + exp(-|z|)), gradient sigmoid(z) - y."""
    y = y * (1.0 - smoothing) + 0.5 * smoothing
    return where_le(z, 0.0, 0.0, z) - z * y + log1p_unit(exp_negative(0.0 - absolute(z))), sigmoid(z) - y


@of_outputs(mean, "label_smoothing")
def binary_crossentropy_on_probs(o, y, smoothing):
    """-[y log o + (1 - y) log(1 - o)], o clipped to [1e-7, 1 - 1e-7]; the gradient is 0 where it is."""
    low, high = EPSILON, 1.0 - EPSILON
    y = y * (1.0 - smoothing) + 0.5 * smoothing
    clipped = where_le(o, low, low, where_le(high, o, high, o))
    rest = 1.0 - clipped
    slope = (clipped - y) / (clipped * rest)
    slope = where_le(o, high, where_le(low, o, slope, 0.0 * y), o - o)
    return 0.0 - y * log(clipped) - (1.0 - y) * log(rest), slope


@of_outputs(plain)
def kl_divergence(q, y, setting):
    """y log(y / q), both clipped to [1e-7, 1]; the gradient is 0 where q is clipped."""
    low = EPSILON
    y = where_le(y, low, low, where_le(1.0, y, 1.0, y))
    ratio = y / where_le(q, low, low, where_le(1.0, q, 1.0, q))
    return y * log(ratio), where_le(q, 1.0, where_le(low, q, 0.0 - ratio, 0.0 * y), q - q)


@of_outputs(mean_by_share)
def mean_squared_error(o, y, setting):
    e = o - y
    return e * e, e + e


@of_outputs(plain)
def half_mean_squared_error(o, y, setting):
    e = o - y
    return e * 0.5 * e, e


@of_outputs(mean_by_share)
def mean_absolute_error(o, y, setting):
    size = absolute(o - y)
    return size, where_le(size, 0.0, o - y, _sign(o - y))


@of_outputs(mean_by_share, "delta")
def huber(o, y, delta):
    """e^2 / 2 where |e| <= delta, else delta |e| - delta^2 / 2"""
    e = o - y
    size, half = absolute(e), e * 0.5
    value = where_le(size, delta, half * e, size * delta + -0.5 * delta * delta)
    return value, where_le(size, delta, half + half, _sign(e) * delta)


@jit(inline=True)
def _sign(e):
    return where_le(e, 0.0, -1.0, 1.0) + (e - e)  # NaN for NaN and inf

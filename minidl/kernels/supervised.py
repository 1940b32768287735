"""Losses that learn from labels: cross-entropy, which is distillation's hard term too, and sums over the outputs.

Of a sum the formula gives (value, slope) of vectors of outputs o and of targets y, under a decorator that names it;
``setting`` is the first entry of hyper.
"""

import math

import numpy as np

from .elementary import exp_negative, log, log1p_unit, sigmoid
from .jit import jit
from .rows import NO_LABEL, ROW_OF_TARGETS, clear_gradient, in_lane, loss
from .softmax import row_exp_sum, row_max, row_sum
from .vectors import (
    CHUNK,
    absolute,
    keep,
    lanes,
    largest,
    load,
    rounded,
    splat,
    stay_apart,
    store,
    total,
    where_le,
)

EPSILON = 1e-7
"""Keras's epsilon: probabilities are clipped to [EPSILON, 1 - EPSILON] under a logarithm."""


@loss("CATEGORICAL_CROSSENTROPY", "SPARSE_CATEGORICAL_CROSSENTROPY", settings=("label_smoothing",))
def crossentropy(row, hyper):
    if row.count <= lanes(row.logits) and row.label != NO_LABEL:
        return _crossentropy_in_registers(row, row.scale, hyper[0])
    return crossentropy_row(row, row.scale, hyper[0], np.int64(0))


@jit
def crossentropy_row(row, scale, smoothing, adds):
    """-sum_i y_i log q_i with gradient scale (q sum(y) - y); ``adds`` 1 adds that to dlogits, 0 overwrites them.

    y is the one-hot label, or the row of targets smoothed as in Keras. A row without a label has loss 0.
    """
    stay_apart()
    if row.label == NO_LABEL:
        if adds == 0:
            clear_gradient(row)
        return 0.0
    if row.count <= lanes(row.logits) and adds == 0:
        return _crossentropy_in_registers(row, scale, smoothing)
    logits, at, count = row.logits, row.at, row.count
    peak = row_max(logits, at, count)
    exp_sum = row_exp_sum(row.dlogits, logits, at, count, np.int64(0), peak, 1.0)
    mass, inner = target_sums(row, peak, smoothing)
    if row.written > 0:
        norm = scale * mass / exp_sum
        for j in range(0, count, lanes(logits)):
            d = exp_negative(load(logits, at + j, count - j, peak) - peak) * norm
            if adds != 0:
                d = d + load(row.dlogits, at + j, count - j, 0.0)
            store(row.dlogits, at + j, count - j, d)
        subtract_target(row, scale, smoothing)
    return mass * log(exp_sum) - inner


@jit(inline=True)
def _crossentropy_in_registers(row, scale, smoothing):
    """The same for a row that fits one vector. Inlined into the loop over the rows, several of them overlap."""
    logits, at, count = row.logits, row.at, row.count
    z = load(logits, at, count, -np.inf)
    peak = largest(z)
    z = keep(z - peak, count)
    e = keep(exp_negative(z), count)
    exp_sum = np.float64(total(e))
    if row.label == ROW_OF_TARGETS:
        y = keep(load(row.targets, at, count, 0.0) * (1.0 - smoothing) + smoothing / count, count)
        mass, inner, target = np.float64(total(y)), np.float64(total(y * z)), y * rounded(logits, scale)
    else:
        inner, target = np.float64(logits[at + row.label] - peak), in_lane(logits, row.label, scale)
        mass = 1.0
    store(row.dlogits, at, row.written, e * rounded(logits, scale * mass / exp_sum) - target)
    return mass * log(exp_sum) - inner


@jit
def target_sums(row, peak, smoothing):
    """sum_i y_i and sum_i y_i (z_i - peak), y the one-hot label or the smoothed row of targets."""
    stay_apart()
    logits, at, count = row.logits, row.at, row.count
    if row.label != ROW_OF_TARGETS:
        return 1.0, np.float64(logits[at + row.label] - peak)
    spread, share = 1.0 - smoothing, smoothing / count
    mass, inner = 0.0, 0.0
    for first in range(0, count, CHUNK):
        mass_part = inner_part = splat(logits, 0.0)
        for j in range(first, min(first + CHUNK, count), lanes(logits)):
            y = keep(load(row.targets, at + j, count - j, 0.0) * spread + share, count - j)
            mass_part = mass_part + y
            inner_part = inner_part + y * (load(logits, at + j, count - j, peak) - peak)
        mass += np.float64(total(mass_part))
        inner += np.float64(total(inner_part))
    return mass, inner


@jit
def subtract_target(row, step, smoothing):
    """dlogits -= step y, y as in `target_sums`."""
    stay_apart()
    dlogits, at, count = row.dlogits, row.at, row.count
    if row.label != ROW_OF_TARGETS:
        dlogits[at + row.label] -= rounded(dlogits, step)
        return
    spread, share = 1.0 - smoothing, smoothing / count
    for j in range(0, count, lanes(dlogits)):
        y = load(row.targets, at + j, count - j, 0.0) * spread + share
        store(dlogits, at + j, count - j, load(dlogits, at + j, count - j, 0.0) - y * step)


@loss(
    "CATEGORICAL_CROSSENTROPY_ON_PROBS",
    "SPARSE_CATEGORICAL_CROSSENTROPY_ON_PROBS",
    settings=("label_smoothing",),
)
def crossentropy_on_probs(row, hyper):
    """-sum_i y_i log o_i, o = probs / sum(probs) clipped to [1e-7, 1 - 1e-7]; the gradient is 0 where it is."""
    stay_apart()
    if row.label == NO_LABEL:
        clear_gradient(row)
        return 0.0
    at, count, smoothing = row.at, row.count, hyper[0]
    low, high = EPSILON, 1.0 - EPSILON
    mass = row_sum(row.logits, at, count)
    spread, share = 1.0 - smoothing, smoothing / count
    value, inner = 0.0, 0.0
    for j in range(count):
        if row.label == ROW_OF_TARGETS:
            y = row.targets[at + j] * spread + share
        else:
            y = 1.0 if j == row.label else 0.0
        o = row.logits[at + j] / mass
        clipped = low if o < low else (high if o > high else o)
        if y != 0 or o != o:  # a NaN shows even where y is 0
            value -= np.float64(y) * math.log(np.float64(clipped))
        slope = 0.0 if o < low or o > high else -y / clipped
        inner += np.float64(slope) * np.float64(o)
        if row.written > 0:
            row.dlogits[at + j] = slope
    if row.written > 0:
        for j in range(at, at + count):
            row.dlogits[j] = (row.dlogits[j] - inner) * (row.scale / mass)
    return value


# ---- sums over the outputs


def plain(x, count):
    return x


def mean(x, count):
    return x / count


def mean_by_share(x, count):  # rounded apart from `mean`
    return x * (1.0 / count)


def of_outputs(reduction, *settings):
    """The decorator for a formula: the loss of a row is ``reduction`` of its sum over the outputs.

    The name stays that of the formula, which others may use.
    """
    reduction = jit(reduction, inline=True)

    def register(function):
        formula = jit(function, inline=True)

        @loss(function.__name__.upper(), settings=settings)
        def output_row(row, hyper):
            stay_apart()
            at, count = row.at, row.count
            step, setting = reduction(row.scale, count), hyper[0]
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

        return formula

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

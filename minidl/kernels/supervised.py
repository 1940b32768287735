"""One row of each supervised loss: its value, and its gradient times ``scale`` in dlogits.

Arrays come as pointers, and ``x[at : at + count]`` is a row. ``written`` is count where the gradient
is wanted, else 0 and nothing is written. ``label`` is a class, UNLABELLED, or DENSE: then the row
of targets counts.
"""

from __future__ import annotations

import math

import numpy as np

from .elementary import exp_negative, log, log1p_unit, sigmoid
from .jit import jit
from .softmax import row_exp_sum, row_max, row_sum
from .vectors import (
    CHUNK,
    absolute,
    get,
    keep,
    lanes,
    largest,
    load,
    put,
    rounded,
    splat,
    stay_apart,
    store,
    total,
    where_le,
)

(
    CATEGORICAL_CROSSENTROPY,
    SPARSE_CATEGORICAL_CROSSENTROPY,
    BINARY_CROSSENTROPY,
    MEAN_SQUARED_ERROR,
    HALF_MEAN_SQUARED_ERROR,
    MEAN_ABSOLUTE_ERROR,
    HUBER,
    KL_DIVERGENCE,
    CATEGORICAL_CROSSENTROPY_ON_PROBS,
    SPARSE_CATEGORICAL_CROSSENTROPY_ON_PROBS,
    BINARY_CROSSENTROPY_ON_PROBS,
    KNOWLEDGE_DISTILLATION,
    DECOUPLED_KD,
    NORMALIZED_KD,
    LOGIT_MATCHING,
    DIST,
) = range(16)

# Entries of ``hyper``. SOFT_WEIGHT is also DecoupledKD's target weight and DIST's beta;
# SECOND_WEIGHT is DecoupledKD's non-target weight, and the gamma of NormalizedKD and DIST.
TEMPERATURE, HARD_WEIGHT, SOFT_WEIGHT, SECOND_WEIGHT, STANDARDIZE, LABEL_SMOOTHING, DELTA, UNUSED = range(8)

UNLABELLED, DENSE = -1, -2

EPSILON = 1e-7
"""Keras's epsilon: probabilities are clipped to [EPSILON, 1 - EPSILON] under a logarithm."""


@jit(inline=True)
def in_lane(like, lane, value):
    """A vector of ``like``'s elements with ``value`` in one lane and 0 in the others."""
    everywhere = splat(like, value)
    return keep(everywhere, lane + 1) - keep(everywhere, lane)


@jit
def clear_row(dlogits, at, written):
    for j in range(0, written, lanes(dlogits)):
        store(dlogits, at + j, written - j, splat(dlogits, 0.0))


@jit
def target_sums(logits, targets, at, count, label, peak, smoothing):
    """sum_i y_i and sum_i y_i (z_i - peak), y the one-hot label or the smoothed row of targets."""
    stay_apart()
    if label != DENSE:
        return 1.0, np.float64(get(logits, at + label) - peak)
    width = lanes(logits)
    spread, share = 1.0 - smoothing, smoothing / count
    mass, inner = 0.0, 0.0
    for first in range(0, count, CHUNK):
        mass_part = splat(logits, 0.0)
        inner_part = splat(logits, 0.0)
        for j in range(first, min(first + CHUNK, count), width):
            y = keep(load(targets, at + j, count - j, 0.0) * spread + share, count - j)
            mass_part = mass_part + y
            inner_part = inner_part + y * (load(logits, at + j, count - j, peak) - peak)
        mass += np.float64(total(mass_part))
        inner += np.float64(total(inner_part))
    return mass, inner


@jit
def subtract_target(dlogits, targets, at, count, label, step, smoothing):
    """dlogits -= step y, y as in `target_sums`."""
    stay_apart()
    if label != DENSE:
        put(dlogits, at + label, get(dlogits, at + label) - rounded(dlogits, step))
        return
    width = lanes(dlogits)
    spread, share = 1.0 - smoothing, smoothing / count
    for j in range(0, count, width):
        y = load(targets, at + j, count - j, 0.0) * spread + share
        store(dlogits, at + j, count - j, load(dlogits, at + j, count - j, 0.0) - y * step)


@jit
def crossentropy_row(dlogits, logits, targets, at, count, written, label, scale, smoothing, add):
    """-sum_i y_i log q_i with gradient q sum(y) - y; ``add`` 1 adds to dlogits, 0 overwrites.

    y is the one-hot label, or the row of targets smoothed as in Keras; unlabelled, the loss is 0.
    """
    stay_apart()
    if label == UNLABELLED:
        if add == 0:
            clear_row(dlogits, at, written)
        return 0.0
    width = lanes(logits)
    if count <= width and add == 0:  # all of it stays in registers
        z = load(logits, at, count, -np.inf)
        peak = largest(z)
        z = keep(z - peak, count)
        e = keep(exp_negative(z), count)
        exp_sum = np.float64(total(e))
        if label == DENSE:
            y = keep(load(targets, at, count, 0.0) * (1.0 - smoothing) + smoothing / count, count)
            mass, inner, target = np.float64(total(y)), np.float64(total(y * z)), y * rounded(logits, scale)
        else:
            mass, inner, target = 1.0, np.float64(get(logits, at + label) - peak), in_lane(logits, label, scale)
        store(dlogits, at, written, e * rounded(logits, scale * mass / exp_sum) - target)
        return mass * log(exp_sum) - inner
    peak = row_max(logits, at, count)
    exp_sum = row_exp_sum(dlogits, logits, at, count, np.int64(0), peak, 1.0)
    mass, inner = target_sums(logits, targets, at, count, label, peak, smoothing)
    if written > 0:
        norm = scale * mass / exp_sum
        for j in range(0, count, width):
            d = exp_negative(load(logits, at + j, count - j, peak) - peak) * norm
            if add != 0:
                d = d + load(dlogits, at + j, count - j, 0.0)
            store(dlogits, at + j, count - j, d)
        subtract_target(dlogits, targets, at, count, label, scale, smoothing)
    return mass * log(exp_sum) - inner


@jit
def binary_row(dlogits, logits, targets, at, count, written, scale, smoothing):
    """mean_i [max(z, 0) - z y + log(1 + exp(-|z|))], gradient (sigmoid(z) - y) / C."""
    stay_apart()
    width = lanes(logits)
    spread, share, step = 1.0 - smoothing, 0.5 * smoothing, scale / count
    value = 0.0
    for first in range(0, count, CHUNK):
        part = splat(logits, 0.0)
        for j in range(first, min(first + CHUNK, count), width):
            z = load(logits, at + j, count - j, 0.0)
            y = load(targets, at + j, count - j, 0.0) * spread + share
            loss = where_le(z, 0.0, 0.0, z) - z * y + log1p_unit(exp_negative(0.0 - absolute(z)))
            part = part + keep(loss, count - j)
            store(dlogits, at + j, written - j, (sigmoid(z) - y) * step)
        value += np.float64(total(part))
    return value / count


@jit
def regression_row(kind, dlogits, logits, targets, at, count, written, scale, delta):
    """With e = prediction - y: the mean of e^2, of |e|, or Huber's; or half the sum of e^2.

    All are quadratic e^2 up to |e| = limit and linear |e| + offset beyond it.
    """
    stay_apart()
    width = lanes(logits)
    mean = 1.0 / count
    if kind == MEAN_SQUARED_ERROR:
        share, limit, quadratic, linear = mean, np.inf, 1.0, 0.0
    elif kind == HALF_MEAN_SQUARED_ERROR:
        share, limit, quadratic, linear = 1.0, np.inf, 0.5, 0.0
    elif kind == MEAN_ABSOLUTE_ERROR:
        share, limit, quadratic, linear = mean, 0.0, 0.0, 1.0
    else:
        share, limit, quadratic, linear = mean, delta, 0.5, delta
    offset = -quadratic * limit * limit if linear > 0 else 0.0
    step = scale * share
    value = 0.0
    for first in range(0, count, CHUNK):
        part = splat(logits, 0.0)
        for j in range(first, min(first + CHUNK, count), width):
            e = load(logits, at + j, count - j, 0.0) - load(targets, at + j, count - j, 0.0)
            size = absolute(e)
            half_slope = e * quadratic
            sign = where_le(e, 0.0, -1.0, 1.0) + (e - e)  # NaN and inf have no sign
            part = part + where_le(size, limit, half_slope * e, size * linear + offset)
            slope = where_le(size, limit, half_slope + half_slope, sign * linear)
            store(dlogits, at + j, written - j, slope * step)
        value += np.float64(total(part))
    return value * share


@jit
def kl_divergence_row(dlogits, probs, targets, at, count, written, scale):
    """sum_i y log(y / q), both clipped to [1e-7, 1]; the gradient is 0 where q is clipped."""
    stay_apart()
    width = lanes(probs)
    low = EPSILON
    value = 0.0
    for first in range(0, count, CHUNK):
        part = splat(probs, 0.0)
        for j in range(first, min(first + CHUNK, count), width):
            q = load(probs, at + j, count - j, 1.0)
            y = load(targets, at + j, count - j, 1.0)
            y = where_le(y, low, low, where_le(1.0, y, 1.0, y))
            clipped = where_le(q, low, low, where_le(1.0, q, 1.0, q))
            ratio = y / clipped
            part = part + keep(y * log(ratio), count - j)
            slope = where_le(q, 1.0, where_le(low, q, 0.0 - ratio, 0.0 * y), q - q)
            store(dlogits, at + j, written - j, slope * scale)
        value += np.float64(total(part))
    return value


@jit
def binary_on_probs_row(dlogits, probs, targets, at, count, written, scale, smoothing):
    """-mean_i [y log o + (1 - y) log(1 - o)], o = probs clipped to [1e-7, 1 - 1e-7]; no gradient beyond."""
    stay_apart()
    width = lanes(probs)
    low, high = EPSILON, 1.0 - EPSILON
    spread, share, step = 1.0 - smoothing, 0.5 * smoothing, scale / count
    value = 0.0
    for first in range(0, count, CHUNK):
        part = splat(probs, 0.0)
        for j in range(first, min(first + CHUNK, count), width):
            o = load(probs, at + j, count - j, low)
            y = load(targets, at + j, count - j, 0.0) * spread + share
            clipped = where_le(o, low, low, where_le(high, o, high, o))
            rest = 1.0 - clipped
            loss = 0.0 - y * log(clipped) - (1.0 - y) * log(rest)
            part = part + keep(loss, count - j)
            slope = (clipped - y) / (clipped * rest)
            slope = where_le(o, high, where_le(low, o, slope, 0.0 * y), o - o)
            store(dlogits, at + j, written - j, slope * step)
        value += np.float64(total(part))
    return value / count


@jit
def crossentropy_on_probs_row(dlogits, probs, targets, at, count, written, label, scale, smoothing):
    """-sum_i y_i log o_i, o = probs / sum(probs) clipped to [1e-7, 1 - 1e-7]; no gradient beyond."""
    stay_apart()
    if label == UNLABELLED:
        clear_row(dlogits, at, written)
        return 0.0
    low, high = EPSILON, 1.0 - EPSILON
    mass = row_sum(probs, at, count)
    spread, share = 1.0 - smoothing, smoothing / count
    value, inner = 0.0, 0.0
    for j in range(count):
        if label == DENSE:
            y = get(targets, at + j) * spread + share
        else:
            y = 1.0 if j == label else 0.0
        o = get(probs, at + j) / mass
        clipped = low if o < low else (high if o > high else o)
        if y != 0 or o != o:  # a NaN shows even where y is 0
            value -= np.float64(y) * math.log(np.float64(clipped))
        slope = 0.0 if o < low or o > high else -y / clipped
        inner += np.float64(slope) * np.float64(o)
        if written > 0:
            put(dlogits, at + j, slope)
    if written > 0:
        for j in range(at, at + count):
            put(dlogits, j, (get(dlogits, j) - inner) * (scale / mass))
    return value

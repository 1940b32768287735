"""Losses that learn from labels: each is one formula, or one function of a row (`rows.Row`), and one row of `LOSSES`.

Most are a sum over the outputs of one formula, made a function of a row by `of_outputs`, or by `of_error` if the
formula needs the error alone.
"""

import numpy as np

from .crossentropy import EPSILON, crossentropy, crossentropy_on_probs
from .elementary import exp_negative, log, log1p_unit, sigmoid
from .jit import jit
from .vectors import CHUNK, absolute, get, keep, lanes, load, splat, stay_apart, store, total, where_le

# ---- sums over the outputs: the formula gives (value, slope) of vectors of outputs o and of targets y; ``setting`` is
# ---- the first entry of hyper


def plain(x, count):
    return x


def mean(x, count):
    return x / count


def mean_by_share(x, count):  # rounded apart from `mean`
    return x * (1.0 / count)


def of_outputs(formula, reduction):
    """The function of a row whose loss is ``reduction`` of the sum of ``formula`` over the outputs."""
    formula, reduction = jit(formula, inline=True), jit(reduction, inline=True)

    def output_row(row, hyper):
        stay_apart()
        at, count = row.at, row.count
        step, setting = reduction(row.scale, count), get(hyper, 0)
        value = 0.0
        for first in range(0, count, CHUNK):
            part = splat(row.logits, 0.0)
            for j in range(first, min(first + CHUNK, count), lanes(row.logits)):
                o, y = load(row.logits, at + j, count - j, 0.0), load(row.targets, at + j, count - j, 0.0)
                loss, slope = formula(o, y, setting)
                part = part + keep(loss, count - j)
                store(row.dlogits, at + j, row.written - j, slope * step)
            value += np.float64(total(part))
        return reduction(value, count)

    return output_row


def binary_crossentropy(z, y, smoothing):
    """max(z, 0) - z y + log(1 + exp(-|z|)), gradient sigmoid(z) - y."""
    y = y * (1.0 - smoothing) + 0.5 * smoothing
    return where_le(z, 0.0, 0.0, z) - z * y + log1p_unit(exp_negative(0.0 - absolute(z))), sigmoid(z) - y


def binary_crossentropy_on_probs(o, y, smoothing):
    """-[y log o + (1 - y) log(1 - o)], o clipped to [1e-7, 1 - 1e-7]; the gradient is 0 where it is."""
    low, high = EPSILON, 1.0 - EPSILON
    y = y * (1.0 - smoothing) + 0.5 * smoothing
    clipped = where_le(o, low, low, where_le(high, o, high, o))
    rest = 1.0 - clipped
    slope = (clipped - y) / (clipped * rest)
    slope = where_le(o, high, where_le(low, o, slope, 0.0 * y), o - o)
    return 0.0 - y * log(clipped) - (1.0 - y) * log(rest), slope


def kl_divergence(q, y, setting):
    """y log(y / q), both clipped to [1e-7, 1]; the gradient is 0 where q is clipped."""
    low = EPSILON
    y = where_le(y, low, low, where_le(1.0, y, 1.0, y))
    ratio = y / where_le(q, low, low, where_le(1.0, q, 1.0, q))
    return y * log(ratio), where_le(q, 1.0, where_le(low, q, 0.0 - ratio, 0.0 * y), q - q)


# ---- functions of the error e = o - y


def of_error(formula, reduction=mean_by_share):
    formula = jit(formula, inline=True)
    return of_outputs(lambda o, y, setting: formula(o - y, setting), reduction)


def absolute_error(e, setting):
    size = absolute(e)
    return size, where_le(size, 0.0, e, _sign(e))


def huber(e, delta):
    """e^2 / 2 where |e| <= delta, else delta |e| - delta^2 / 2"""
    size, half = absolute(e), e * 0.5
    value = where_le(size, delta, half * e, size * delta + -0.5 * delta * delta)
    return value, where_le(size, delta, half + half, _sign(e) * delta)


@jit(inline=True)
def _sign(e):
    return where_le(e, 0.0, -1.0, 1.0) + (e - e)  # NaN for NaN and inf


_SMOOTHING = ("label_smoothing",)

# Each with the names of its entries in hyper, place by place.
LOSSES = {
    "CATEGORICAL_CROSSENTROPY": (crossentropy, _SMOOTHING),
    "SPARSE_CATEGORICAL_CROSSENTROPY": (crossentropy, _SMOOTHING),
    "BINARY_CROSSENTROPY": (of_outputs(binary_crossentropy, mean), _SMOOTHING),
    "MEAN_SQUARED_ERROR": (of_error(lambda e, setting: (e * e, e + e)), ()),
    "HALF_MEAN_SQUARED_ERROR": (of_error(lambda e, setting: (e * 0.5 * e, e), plain), ()),
    "MEAN_ABSOLUTE_ERROR": (of_error(absolute_error), ()),
    "HUBER": (of_error(huber), ("delta",)),
    "KL_DIVERGENCE": (of_outputs(kl_divergence, plain), ()),
    "CATEGORICAL_CROSSENTROPY_ON_PROBS": (crossentropy_on_probs, _SMOOTHING),
    "SPARSE_CATEGORICAL_CROSSENTROPY_ON_PROBS": (crossentropy_on_probs, _SMOOTHING),
    "BINARY_CROSSENTROPY_ON_PROBS": (of_outputs(binary_crossentropy_on_probs, mean), _SMOOTHING),
}

"""Losses that are sums over the outputs: errors, margins, and cross-entropy of each output by itself.

The formula gives (value, slope) of vectors of outputs o and of targets y, under a decorator that names it. ``setting``
is the first entry of hyper, or the first four for a formula of several settings. Below them stand two losses that
look at a row's outputs together.
"""

import math

import numpy as np

from .elementary import exp_negative, expm1_negative, log, log1p_unit, sigmoid, tanh
from .jit import jit
from .rows import clear_gradient, loss
from .supervised import EPSILON
from .vectors import CHUNK, absolute, keep, lanes, load, splat, stay_apart, store, total, where_le


def plain(x, count):
    return x


def mean(x, count):
    return x / count


def mean_by_share(x, count):  # rounded apart from `mean`
    return x * (1.0 / count)


@jit(inline=True)
def _first(hyper):
    return hyper[0]


@jit(inline=True)
def _first_four(hyper):
    return hyper[0], hyper[1], hyper[2], hyper[3]


def of_outputs(reduction, *settings):
    """The decorator for a formula: the loss of a row is ``reduction`` of its sum over the outputs.

    What it returns is the formula itself, compiled, for the formulas of other losses to call.
    """
    reduction = jit(reduction, inline=True)
    read = _first_four if len(settings) > 1 else _first

    def register(function):
        formula = jit(function, inline=True)

        @loss(function.__name__.upper(), settings=settings)
        def output_row(row, hyper):
            stay_apart()
            at, count = row.at, row.count
            step, setting = reduction(row.scale, count), read(hyper)
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


@of_outputs(mean_by_share)
def log_cosh(o, y, setting):
    size = absolute(o - y)
    part = expm1_negative(0.0 - size)  # cosh(e) - 1 = part^2 / (2 (1 + part)) cancels nothing near 0
    near = log1p_unit(part * part / (part + 1.0) * 0.5)
    far = size + log1p_unit(exp_negative(size * -2.0)) - math.log(2.0)
    return where_le(size, 1.0, near, far), tanh(o - y)


@of_outputs(mean_by_share)
def mean_absolute_percentage_error(o, y, setting):
    """100 |y - o| / max(|y|, 1e-7)"""
    size, low = absolute(o - y), EPSILON
    percent = 100.0 / where_le(absolute(y), low, low, absolute(y))
    return size * percent, where_le(size, 0.0, o - y, _sign(o - y)) * percent


@of_outputs(mean_by_share)
def mean_squared_logarithmic_error(o, y, setting):
    """[log(1 + o) - log(1 + y)]^2, both at least 1e-7; the gradient is 0 where o is not above that.

    The difference is log(1 + |o - y| / (1 + the smaller)), which cancels nothing where o is near y.
    """
    low = EPSILON
    a, b = where_le(o, low, low, o), where_le(y, low, low, y)
    excess = absolute(a - b) / (where_le(a, b, a, b) + 1.0)
    size = where_le(excess, 1.0, log1p_unit(excess), log(excess + 1.0))
    e = where_le(a, b, 0.0 - size, size)
    return e * e, where_le(o, low, o - o, (e + e) / (a + 1.0))


@of_outputs(mean_by_share)
def poisson(o, y, setting):
    """o - y log(o + 1e-7), NaN where o < -1e-7."""
    rate = o + EPSILON
    return o - y * log(rate), 1.0 - y / rate


@jit(inline=True)
def _margin(o, y):
    """(max(1 - y o, 0), y), where y of 0 means -1."""
    y = where_le(absolute(y), 0.0, -1.0, y)
    margin = 1.0 - y * o
    return where_le(margin, 0.0, 0.0, margin), y


@of_outputs(mean_by_share)
def hinge(o, y, setting):
    margin, y = _margin(o, y)
    return margin, where_le(margin, 0.0, o - o, o - o - y)


@of_outputs(mean_by_share)
def squared_hinge(o, y, setting):
    margin, y = _margin(o, y)
    return margin * margin, margin * y * -2.0


# ---- of a row's outputs together


@loss("CATEGORICAL_HINGE")
def categorical_hinge(row, hyper):
    """max(max_j (1 - y_j) o_j - sum_j y_j o_j + 1, 0); of equal largest the first has the gradient."""
    stay_apart()
    at, count = row.at, row.count
    right, wrong, worst = 0.0, -np.inf, at
    for j in range(at, at + count):
        o, y = np.float64(row.logits[j]), np.float64(row.targets[j])
        right += y * o
        if (1.0 - y) * o > wrong:
            wrong, worst = (1.0 - y) * o, j
    margin = wrong - right + 1.0
    if margin <= 0.0:
        clear_gradient(row)
        return 0.0
    lost = margin - margin  # NaN for NaN and inf
    for j in range(at, at + row.written):
        y = np.float64(row.targets[j])
        row.dlogits[j] = row.scale * ((1.0 - y if j == worst else 0.0) - y + lost)
    return margin


@loss("COSINE_SIMILARITY")
def cosine_similarity(row, hyper):
    """-sum(o y) / (|o| |y|), each norm at least 1e-7."""
    stay_apart()
    at, count = row.at, row.count
    inner = square = y_square = 0.0
    for j in range(at, at + count):
        o, y = np.float64(row.logits[j]), np.float64(row.targets[j])
        inner += o * y
        square += o * o
        y_square += y * y
    is_small = square <= EPSILON * EPSILON
    share = 1.0 / ((EPSILON if is_small else math.sqrt(square)) * max(math.sqrt(y_square), EPSILON))
    along = 0.0 if is_small else inner * share / square
    for j in range(at, at + row.written):
        o, y = np.float64(row.logits[j]), np.float64(row.targets[j])
        row.dlogits[j] = row.scale * (o * along - y * share)
    return 0.0 - inner * share

"""Cross-entropy over classes, which is distillation's hard term too."""

import math

import numpy as np

from .elementary import exp_negative, log
from .jit import jit
from .rows import NO_LABEL, ROW_OF_TARGETS, clear_gradient, in_lane, loss
from .softmax import row_exp_sum, row_max, row_sum
from .vectors import CHUNK, keep, lanes, largest, load, rounded, splat, stay_apart, store, total

EPSILON = 1e-7
"""Keras's epsilon: probabilities are clipped to [EPSILON, 1 - EPSILON] under a logarithm."""


@loss("CATEGORICAL_CROSSENTROPY", "SPARSE_CATEGORICAL_CROSSENTROPY", settings=("label_smoothing", "ignored"))
def crossentropy(row, hyper):
    if row.label == hyper[1]:
        clear_gradient(row)
        return 0.0
    if row.count <= lanes(row.logits) and row.label != NO_LABEL:
        return _crossentropy_in_registers(row, row.scale, hyper[0])
    return _crossentropy_by_vectors(row, row.scale, hyper[0], np.int64(0))


@jit
def crossentropy_row(row, scale, smoothing, adds):
    """-sum_i y_i log q_i with gradient scale (q sum(y) - y); ``adds`` 1 adds that to dlogits, 0 overwrites them.

    y is the one-hot label, or the row of targets smoothed as in Keras. A row without a label has loss 0.
    """
    stay_apart()
    if row.count <= lanes(row.logits) and row.label != NO_LABEL and adds == 0:
        return _crossentropy_in_registers(row, scale, smoothing)
    return _crossentropy_by_vectors(row, scale, smoothing, adds)


@jit
def _crossentropy_by_vectors(row, scale, smoothing, adds):
    """The same for a row of any length, one vector after the other."""
    stay_apart()
    if row.label == NO_LABEL:
        if adds == 0:
            clear_gradient(row)
        return 0.0
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
    settings=("label_smoothing", "ignored"),
)
def crossentropy_on_probs(row, hyper):
    """-sum_i y_i log o_i, o = probs / sum(probs) clipped to [1e-7, 1 - 1e-7]; the gradient is 0 where it is."""
    stay_apart()
    if row.label == NO_LABEL or row.label == hyper[1]:
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

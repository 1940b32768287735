"""Softmax at a temperature, its logarithm, and the gradient: rows of any length, 2 or 32,000 classes.

    softmax(z)_i = exp(z_i / T) / sum_j exp(z_j / T)

The row maximum is subtracted first: the largest exponential is then 1, so nothing overflows and
the sum is at least 1. Outputs may be the inputs' own memory.
"""

import numpy as np

from .elementary import exp_negative, log
from .jit import jit
from .vectors import CHUNK, keep, lanes, largest, load, maximum, pointer, splat, stay_apart, store, total


@jit
def row_max(x, at, count):
    """The largest of x[at : at + count], -inf of none. x, here and below, is a pointer."""
    stay_apart()
    best = splat(x, -np.inf)
    for j in range(0, count, lanes(x)):
        best = maximum(best, load(x, at + j, count - j, -np.inf))
    return np.float64(largest(best))


@jit
def row_sum(x, at, count):
    """The sum of x[at : at + count], in float64 over chunks."""
    stay_apart()
    result = 0.0
    for first in range(0, count, CHUNK):
        part = splat(x, 0.0)
        for j in range(first, min(first + CHUNK, count), lanes(x)):
            part = part + load(x, at + j, count - j, 0.0)
        result += np.float64(total(part))
    return result


@jit
def row_product(x, y, x_center, y_center, at, count):
    """The sum of (x - x_center) (y - y_center) over the same range of both."""
    stay_apart()
    result = 0.0
    for first in range(0, count, CHUNK):
        part = splat(x, 0.0)
        for j in range(first, min(first + CHUNK, count), lanes(x)):
            a, b = load(x, at + j, count - j, x_center), load(y, at + j, count - j, y_center)
            part = part + (a - x_center) * (b - y_center)
        result += np.float64(total(part))
    return result


@jit
def row_exp_sum(out, x, at, count, written, peak, inverse):
    """The sum of exp((x - peak) * inverse) over x[at : at + count]; the first ``written`` terms go to out."""
    stay_apart()
    result = 0.0
    for first in range(0, count, CHUNK):
        part = splat(x, 0.0)
        for j in range(first, min(first + CHUNK, count), lanes(x)):
            e = exp_negative((load(x, at + j, count - j, peak) - peak) * inverse)
            store(out, at + j, written - j, e)
            part = part + keep(e, count - j)
        result += np.float64(total(part))
    return result


@jit
def softmax_forward(out, logits, temperature):
    """out = softmax(logits / temperature), row by row. out, logits (B, C); temperature float64."""
    rows, count = logits.shape
    q, z = pointer(out), pointer(logits)
    width = lanes(z)
    for i in range(rows):
        at = i * count
        if count <= width:  # all of it stays in registers
            row = load(z, at, count, -np.inf)
            e = keep(exp_negative((row - largest(row)) * (1.0 / temperature)), count)
            store(q, at, count, e * (1.0 / np.float64(total(e))))
            continue
        peak = row_max(z, at, count)
        scale = 1.0 / row_exp_sum(q, z, at, count, count, peak, 1.0 / temperature)
        for j in range(0, count, width):
            store(q, at + j, count - j, load(q, at + j, count - j, 0.0) * scale)


@jit
def softmax_backward(dx, dout, out, temperature):
    """dx = out * (dout - sum_j dout_j out_j) / temperature: the true Jacobian of softmax_forward."""
    rows, count = out.shape
    inverse = 1.0 / temperature
    for i in range(rows):
        at = i * count
        inner = row_product(pointer(dout), pointer(out), 0.0, 0.0, at, count)
        for j in range(0, count, lanes(out)):
            d = load(dout, at + j, count - j, 0.0) - inner
            store(dx, at + j, count - j, load(out, at + j, count - j, 0.0) * d * inverse)


@jit
def log_softmax_forward(out, logits, temperature):
    """out = logits / temperature - log(sum_j exp(logits_j / temperature)), exact where softmax is 0."""
    rows, count = logits.shape
    z = pointer(logits)
    inverse = 1.0 / temperature
    for i in range(rows):
        at = i * count
        peak = row_max(z, at, count)
        log_sum = log(row_exp_sum(z, z, at, count, np.int64(0), peak, inverse))
        for j in range(0, count, lanes(z)):
            shifted = (load(z, at + j, count - j, peak) - peak) * inverse
            store(out, at + j, count - j, shifted - log_sum)

"""Softmax at a temperature, its logarithm, and the gradient: rows of any length, 2 or 32,000 classes.

    softmax(z)_i = exp(z_i / T) / sum_j exp(z_j / T)

The row maximum is subtracted first: the largest exponential is then 1, so nothing overflows and
the sum is at least 1. Outputs may be the inputs' own memory.
"""

from __future__ import annotations

import math

import numpy as np

from .elementary import exp_negative
from .jit import jit
from .vectors import CHUNK, keep, lanes, largest, load, maximum, splat, store, total


@jit
def row_max(x, at, count):
    """The largest of x[at : at + count] (x as flat memory), -inf of none."""
    real = x.dtype.type
    width = lanes(x)
    lowest = real(-np.inf)
    best = splat(x, lowest)
    for j in range(0, count, width):
        best = maximum(best, load(x, at + j, count - j, lowest))
    return largest(best)


@jit
def row_sum(x, at, count):
    """The sum of x[at : at + count], in float64 over chunks."""
    real = x.dtype.type
    width = lanes(x)
    zero = real(0)
    result = 0.0
    for first in range(0, count, CHUNK):
        part = splat(x, zero)
        for j in range(first, min(first + CHUNK, count), width):
            part = part + load(x, at + j, count - j, zero)
        result += np.float64(total(part))
    return result


@jit
def row_exp_sum(x, at, count, peak, inverse):
    """The sum of exp((x - peak) * inverse) over x[at : at + count]."""
    real = x.dtype.type
    width = lanes(x)
    result = 0.0
    for first in range(0, count, CHUNK):
        part = splat(x, real(0))
        for j in range(first, min(first + CHUNK, count), width):
            part = part + keep(exp_negative((load(x, at + j, count - j, peak) - peak) * inverse), count - j)
        result += np.float64(total(part))
    return result


@jit
def row_exp(out, x, at, count, peak, inverse):
    """As row_exp_sum, and leaves the exponentials in ``out``."""
    real = x.dtype.type
    width = lanes(x)
    result = 0.0
    for first in range(0, count, CHUNK):
        part = splat(x, real(0))
        for j in range(first, min(first + CHUNK, count), width):
            e = exp_negative((load(x, at + j, count - j, peak) - peak) * inverse)
            store(out, at + j, count - j, e)
            part = part + keep(e, count - j)
        result += np.float64(total(part))
    return result


@jit
def softmax_forward(out, logits, temperature):
    """out = softmax(logits / temperature), row by row. out, logits (B, C); temperature float64."""
    real = logits.dtype.type
    rows, count = logits.shape
    width = lanes(logits)
    inverse = real(1.0 / temperature)
    for i in range(rows):
        at = i * count
        scale = real(1.0 / row_exp(out, logits, at, count, row_max(logits, at, count), inverse))
        for j in range(0, count, width):
            store(out, at + j, count - j, load(out, at + j, count - j, scale) * scale)


@jit
def softmax_backward(dx, dout, out, temperature):
    """dx = out * (dout - sum_j dout_j out_j) / temperature: the true Jacobian of softmax_forward."""
    real = out.dtype.type
    rows, count = out.shape
    width = lanes(out)
    zero = real(0)
    inverse = real(1.0 / temperature)
    for i in range(rows):
        at = i * count
        inner = 0.0
        for first in range(0, count, CHUNK):
            part = splat(out, zero)
            for j in range(first, min(first + CHUNK, count), width):
                part = part + load(dout, at + j, count - j, zero) * load(out, at + j, count - j, zero)
            inner += np.float64(total(part))
        center = real(inner)
        for j in range(0, count, width):
            d = load(dout, at + j, count - j, zero) - center
            store(dx, at + j, count - j, load(out, at + j, count - j, zero) * d * inverse)


@jit
def log_softmax_forward(out, logits, temperature):
    """out = logits / temperature - log(sum_j exp(logits_j / temperature)), exact where softmax is 0."""
    real = logits.dtype.type
    rows, count = logits.shape
    width = lanes(logits)
    inverse = real(1.0 / temperature)
    for i in range(rows):
        at = i * count
        peak = row_max(logits, at, count)
        log_sum = real(math.log(row_exp_sum(logits, at, count, peak, inverse)))
        for j in range(0, count, width):
            shifted = (load(logits, at + j, count - j, peak) - peak) * inverse
            store(out, at + j, count - j, shifted - log_sum)

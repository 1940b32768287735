"""What surrounds an optimizer's step: the sums over a vector, penalties, clipping, and constraints."""

from __future__ import annotations

import numpy as np

from .jit import jit
from .vectors import fma

# ---- sums over a vector

_LANES = 256
"""Partial sums side by side: a single sum would be one long chain of additions, each waiting for the one before."""


@jit
def _add_up(lanes):
    """The sum of ``lanes`` (_LANES,), pairwise and always in the same order; lanes is overwritten."""
    half = _LANES // 2
    while half > 0:
        for k in range(half):
            lanes[k] += lanes[k + half]
        half //= 2
    return lanes[0]


@jit(allocates=True)
def sum_of_squares(x):
    """sum(x*x) of a vector, in float64."""
    lanes = np.zeros(_LANES)
    for start in range(0, x.size, _LANES):
        block = x[start : start + _LANES]
        for k in range(block.size):
            value = np.float64(block[k])
            lanes[k] += value * value
    return _add_up(lanes)


@jit(allocates=True)
def add_regularizer(grads, params, segments, coefficients):
    """Add each segment's L1 and L2 penalty gradient to ``grads``; return the penalty (float64).

    Penalty of a segment (row of ``segments``: offset, size; of ``coefficients``: l1, l2):
    l1*sum|w| + l2*sum(w*w), gradient l1*sign(w) + 2*l2*w. With ``grads`` of size 0 only the value.
    """
    real = params.dtype.type
    total = 0.0
    for s in range(segments.shape[0]):
        l1, l2 = coefficients[s, 0], coefficients[s, 1]
        if l1 == 0.0 and l2 == 0.0:
            continue
        weight = params[segments[s, 0] : segments[s, 0] + segments[s, 1]]
        lanes = np.zeros(_LANES)
        for start in range(0, weight.size, _LANES):
            block = weight[start : start + _LANES]
            for k in range(block.size):
                value = np.float64(block[k])
                lanes[k] += l1 * abs(value) + l2 * (value * value)
        total += _add_up(lanes)
        if grads.size > 0:
            slope = grads[segments[s, 0] : segments[s, 0] + segments[s, 1]]
            step, slant = real(l1), real(2.0 * l2)
            for i in range(weight.size):
                w = weight[i]
                sign = real(1.0) if w > real(0.0) else (real(-1.0) if w < real(0.0) else w)  # of NaN, NaN
                slope[i] += fma(slant, w, step * sign)
    return total


# ---- clipping, in place


@jit
def clip_by_value(grads, limit):
    """Every entry into [-limit, limit]; NaN stays."""
    high = grads.dtype.type(limit)
    for i in range(grads.size):
        g = grads[i]
        grads[i] = high if g > high else (-high if g < -high else g)


@jit
def _scale(x, factor):
    factor = x.dtype.type(factor)
    for i in range(x.size):
        x[i] *= factor


@jit
def clip_by_norm(grads, segments, limit):
    """g *= limit / |g| for each segment (offset, size) whose norm exceeds ``limit``."""
    for s in range(segments.shape[0]):
        part = grads[segments[s, 0] : segments[s, 0] + segments[s, 1]]
        norm = np.sqrt(sum_of_squares(part))
        if not norm <= limit:  # also for a norm of NaN, which makes the whole segment NaN
            _scale(part, limit / norm)


@jit
def clip_by_global_norm(grads, limit):
    """g *= limit / |g| if the norm of the whole vector exceeds ``limit``; all NaN if it is not finite."""
    norm = np.sqrt(sum_of_squares(grads))
    if not norm <= limit:
        _scale(grads, limit / norm if norm < np.inf else np.nan)


# ---- constraints

_NORM_EPSILON = 1e-7


@jit(allocates=True)
def max_norm(params, segments, limits):
    """Bound the norm of each column of each matrix (row of ``segments``: offset, rows, columns).

    w *= min(norm, limit) / (1e-7 + norm), as Keras writes it: a column within the limit is
    multiplied by norm/(1e-7 + norm), which is not exactly 1.
    """
    real = params.dtype.type
    for s in range(segments.shape[0]):
        offset, rows, columns = segments[s, 0], segments[s, 1], segments[s, 2]
        norms = np.zeros(columns)
        for r in range(rows):
            row = params[offset + r * columns : offset + (r + 1) * columns]
            for c in range(columns):
                value = np.float64(row[c])
                norms[c] += value * value
        factors = np.empty(columns, params.dtype)
        for c in range(columns):
            norm = np.sqrt(norms[c])
            factors[c] = real(min(norm, limits[s]) / (_NORM_EPSILON + norm))
        for r in range(rows):
            row = params[offset + r * columns : offset + (r + 1) * columns]
            for c in range(columns):
                row[c] *= factors[c]

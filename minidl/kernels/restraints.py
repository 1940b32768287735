"""What needs whole gradients or whole weights: penalties, accumulation, clipping, averages, constraints.

The formulas are Keras 3's.
"""

import numpy as np
from numba.core import types

from .jit import jit
from .units import Units, array
from .updates import PENALTY
from .vectors import fma

# ---- sums over a vector

_LANES = 256
"""Partial sums side by side: a single sum would be one long chain of additions, each waiting for the one before."""


@jit(allocates=True)
def sum_of_powers(x, l1, l2):
    """sum(l1*|x| + l2*x*x) of a vector, in float64: lane by lane, then pairwise, always in the same order."""
    lanes = np.zeros(_LANES)
    for start in range(0, x.size, _LANES):
        block = x[start : start + _LANES]
        for k in range(block.size):
            value = np.float64(block[k])
            if l1 == 0.0:  # else an infinite entry would give 0 * inf
                lanes[k] += l2 * (value * value)
            else:
                lanes[k] += l1 * abs(value) + l2 * (value * value)
    half = _LANES // 2
    while half > 0:
        for k in range(half):
            lanes[k] += lanes[k + half]
        half //= 2
    return lanes[0]


@jit(allocates=True)
def add_regularizer(grads, params, segments, coefficients, factor=1.0):
    """Add each segment's L1 and L2 penalty gradient to ``grads``, times ``factor``; return the penalty (float64).

    Penalty of a segment (row of ``segments``: offset, size; of ``coefficients``: l1, l2):
    l1*sum|w| + l2*sum(w*w), gradient l1*sign(w) + 2*l2*w. With ``grads`` of size 0 only the value.
    """
    real = params.dtype.type
    total = 0.0
    for s in range(segments.shape[0]):
        l1, l2 = coefficients[s, 0] * factor, coefficients[s, 1] * factor
        if l1 == 0.0 and l2 == 0.0:
            continue
        weight = params[segments[s, 0] : segments[s, 0] + segments[s, 1]]
        total += sum_of_powers(weight, l1, l2)
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
        norm = np.sqrt(sum_of_powers(part, 0.0, 1.0))
        if not norm <= limit:  # also for a norm of NaN, which makes the whole segment NaN
            _scale(part, limit / norm)


@jit
def clip_by_global_norm(grads, limit):
    """g *= limit / |g| if the norm of the whole vector exceeds ``limit``; all NaN if it is not finite."""
    norm = np.sqrt(sum_of_powers(grads, 0.0, 1.0))
    if not norm <= limit:
        _scale(grads, limit / norm if norm < np.inf else np.nan)


# ---- gradients of several batches, averages of parameters


@jit
def accumulate(grads, accumulated, segments, steps):
    """Add a batch's gradients to ``accumulated``, segment by segment (offset, size).

    With the last of ``steps`` batches ``grads`` becomes the mean over all of them, and ``accumulated`` 0 again; before
    it ``steps`` is 0.
    """
    count = grads.dtype.type(max(steps, 1))
    for s in range(segments.shape[0]):
        for i in range(segments[s, 0], segments[s, 0] + segments[s, 1]):
            total = grads[i] + accumulated[i]
            if steps > 0:
                grads[i], accumulated[i] = total / count, 0
            else:
                accumulated[i] = total


@jit
def move_average(average, params, averaging, updates):
    """average = momentum * average + (1 - momentum) * params, after each batch; at every n-th update params = average.

    ``averaging`` (float64, 2) is momentum and n (0: never), ``updates`` how many updates were finished before this
    batch. Before the first is, the average is the parameters.
    """
    real = params.dtype.type
    kept = real(averaging[0] if updates > 0 else 0.0)
    fresh = real(1) - kept
    overwrites = averaging[1] > 0 and (updates + 1) % max(int(averaging[1]), 1) == 0
    for i in range(params.size):
        average[i] = kept * average[i] + fresh * params[i]
        if overwrites:
            params[i] = average[i]


# ---- constraints

NORMS, NOT_NEGATIVE = range(2)
"""The kinds of constraints: each column's norm is moved into an interval; a negative number becomes 0."""


@jit(allocates=True)
def constrain(params, places, numbers):
    """Make weights, matrices or vectors in ``params``, fulfil their constraints, in place.

    A row of ``places`` (n, 4) is kind, offset, rows, columns; a row of ``numbers`` (n, 3) has the lowest norm, the
    highest, and the rate of `_move_norms`.
    """
    for c in range(places.shape[0]):
        offset, rows, columns = places[c, 1], places[c, 2], places[c, 3]
        weight = params[offset : offset + rows * columns]
        if places[c, 0] == NORMS:
            _move_norms(weight.reshape(rows, columns), numbers[c, 0], numbers[c, 1], numbers[c, 2])
        else:
            for i in range(weight.size):
                if weight[i] < 0:
                    weight[i] = 0


@jit(allocates=True)
def _move_norms(weight, low, high, rate):
    """w *= (rate * clip(norm, low, high) + (1 - rate) * norm) / (1e-7 + norm) for each column, as Keras writes it.

    A column within the limits is multiplied by norm/(1e-7 + norm), which is not exactly 1.
    """
    real = weight.dtype.type
    rows, columns = weight.shape
    norms = np.zeros(columns)
    for r in range(rows):
        for c in range(columns):
            value = np.float64(weight[r, c])
            norms[c] += value * value
    factors = np.empty(columns, weight.dtype)
    for c in range(columns):
        norm = np.sqrt(norms[c])
        wanted = low if norm < low else (high if norm > high else norm)  # a NaN is kept
        if rate != 1.0:  # else an infinite norm would give 0 * inf
            wanted = rate * wanted + (1.0 - rate) * norm
        factors[c] = real(wanted / (1e-7 + norm))
    for r in range(rows):
        for c in range(columns):
            weight[r, c] *= factors[c]


# ---- what the compiled loop calls for all of this


def penalize_and_clip(grads, params, segments, penalties, accumulated, steps, clips, scalars):
    """Add the regularizers' gradients, `accumulate`, then clip by ``clips``: value, norm, global norm; 0 for none.

    ``accumulated`` is of size 0 where each batch has an update. scalars[PENALTY] is the factor on the penalties before
    the call, and the penalty after it.
    """
    scalars[PENALTY] = add_regularizer(grads, params, segments, penalties, scalars[PENALTY])
    if accumulated.size > 0:
        accumulate(grads, accumulated, segments, steps)
    if steps == 0:
        return
    if clips[1] > 0.0:
        clip_by_norm(grads, segments, clips[1])
    if clips[2] > 0.0:
        clip_by_global_norm(grads, clips[2])
    if clips[0] > 0.0:
        clip_by_value(grads, clips[0])


def _penalize_arguments(real):
    vector, table = array(real), array(types.int64, 2)
    numbers = array(types.float64)
    return vector, vector, table, array(types.float64, 2), vector, types.int64, numbers, numbers


PENALIZE = Units("restrain", {"penalize_and_clip": penalize_and_clip}, _penalize_arguments)
CONSTRAIN = Units(
    "restrain",
    {"constrain": constrain},
    lambda real: (array(real), array(types.int64, 2), array(types.float64, 2)),
)
AVERAGE = Units(
    "restrain",
    {"move_average": move_average},
    lambda real: (array(real), array(real), array(types.float64), types.int64),
)
call_penalize, call_average, call_constrain = PENALIZE.caller, AVERAGE.caller, CONSTRAIN.caller

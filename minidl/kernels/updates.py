"""One optimizer step over flat vectors, and what surrounds it: clipping, penalties, constraints.

``update`` is elementwise, so any cut of the vector into ranges gives the same bits: the compiled
loop calls it on the few hundred parameters whose gradient it has just finished (still in the first
cache level), ``optimizer.step`` once on the whole vector.

The formulas are Keras 3's. With g the gradient, lr the learning rate, t the step counted from 1,
first the decoupled decay ``w -= w * weight_decay * lr`` and then

    SGD          w -= lr*g
    MOMENTUM     u = momentum*u - lr*g;            w += u
    NESTEROV     u = momentum*u - lr*g;            w += momentum*u - lr*g
    ADAM         m += (g - m)*(1 - beta_1);        v += (g*g - v)*(1 - beta_2)
                 w -= m * lr*sqrt(1 - beta_2**t)/(1 - beta_1**t) / (sqrt(v) + epsilon)
    AMSGRAD      as ADAM with max(v, every earlier v) under the root
    RMSPROP      v = rho*v + (1 - rho)*g*g;        w -= lr*g / sqrt(v + epsilon)
    ..._CENTERED a = rho*a + (1 - rho)*g, and max(v - a*a, 0) in place of v under the root
                 (Keras leaves the maximum out: rounding then gives NaN under a steady large gradient)
    ..._MOMENTUM u = momentum*u + lr*g / sqrt(...);  w -= u
"""

from __future__ import annotations

import numpy as np

from .jit import jit
from .simd import fma

SGD, ADAM, RMSPROP = 0, 1, 2
MOMENTUM, NESTEROV, AMSGRAD = 3, 4, 5
RMSPROP_MOMENTUM, RMSPROP_CENTERED, RMSPROP_CENTERED_MOMENTUM = 6, 7, 8

KEEPS = {
    SGD: (),
    MOMENTUM: (0,),
    NESTEROV: (0,),
    ADAM: (0, 1),
    AMSGRAD: (0, 1, 2),
    RMSPROP: (0,),
    RMSPROP_MOMENTUM: (0, 1),
    RMSPROP_CENTERED: (0, 2),
    RMSPROP_CENTERED_MOMENTUM: (0, 1, 2),
}
"""Which of the three slots each kind keeps; the others have size 0."""

# hyper (float64, 8), the same for every step: momentum and rho share their places with the betas.
BETA_1, BETA_2, EPSILON, WEIGHT_DECAY = 0, 1, 2, 3
# scalars (float64, 8), what one step needs of them.
RATE, DECAY, FIRST, SECOND, ADDED = 0, 1, 2, 3, 4


@jit
def step_scalars(scalars, kind, hyper, learning_rate, step):
    """Fill ``scalars`` (8,) for one step of ``kind``; ``step`` counts from 1.

    All in float64: in float32 1 - beta_2**t would lose five digits at the first steps.
    """
    scalars[:] = 0.0
    scalars[RATE] = learning_rate
    scalars[DECAY] = hyper[WEIGHT_DECAY] * learning_rate
    scalars[FIRST] = hyper[BETA_1]
    scalars[SECOND] = hyper[BETA_2]
    scalars[ADDED] = hyper[EPSILON]
    if kind == ADAM or kind == AMSGRAD:
        t = float(step)
        correction = np.sqrt(1.0 - hyper[BETA_2] ** t) / (1.0 - hyper[BETA_1] ** t)
        scalars[RATE] = learning_rate * correction
        scalars[FIRST] = 1.0 - hyper[BETA_1]
        scalars[SECOND] = 1.0 - hyper[BETA_2]


@jit
def update(kind, params, slot0, slot1, slot2, grads, scalars):
    """One step, in place, over equal-length ranges of the flat vectors.

    ``slot0, slot1, slot2`` hold what the kind remembers between steps (``KEEPS``), size 0 where
    it keeps nothing; ``scalars`` comes from ``step_scalars``.
    """
    # All rules in one function: each function of its own would be compiled twice, alone and in here.
    real = params.dtype.type
    rate, decay, epsilon = real(scalars[RATE]), real(scalars[DECAY]), real(scalars[ADDED])
    first, second = real(scalars[FIRST]), real(scalars[SECOND])

    if kind == SGD:
        for i in range(params.size):
            params[i] = fma(params[i], -decay, params[i]) - rate * grads[i]

    elif kind == MOMENTUM:
        for i in range(params.size):
            u = first * slot0[i] - rate * grads[i]
            slot0[i] = u
            params[i] = fma(params[i], -decay, params[i]) + u

    elif kind == NESTEROV:
        for i in range(params.size):
            slope = rate * grads[i]
            u = first * slot0[i] - slope
            slot0[i] = u
            params[i] = fma(params[i], -decay, params[i]) + (first * u - slope)

    elif kind == ADAM:
        for i in range(params.size):
            g = grads[i]
            m = fma(g - slot0[i], first, slot0[i])
            v = fma(fma(g, g, -slot1[i]), second, slot1[i])
            slot0[i] = m
            slot1[i] = v
            params[i] = fma(params[i], -decay, params[i]) - m * rate / (np.sqrt(v) + epsilon)

    elif kind == AMSGRAD:
        for i in range(params.size):
            g = grads[i]
            m = fma(g - slot0[i], first, slot0[i])
            v = fma(fma(g, g, -slot1[i]), second, slot1[i])
            top = slot2[i] if v <= slot2[i] else v  # a NaN in v is kept
            slot0[i] = m
            slot1[i] = v
            slot2[i] = top
            params[i] = fma(params[i], -decay, params[i]) - m * rate / (np.sqrt(top) + epsilon)

    else:  # RMSprop and its relatives
        rho, fresh, momentum = first, real(1.0 - scalars[FIRST]), second
        if kind == RMSPROP:
            for i in range(params.size):
                g = grads[i]
                v = rho * slot0[i] + fresh * (g * g)
                slot0[i] = v
                params[i] = fma(params[i], -decay, params[i]) - rate * g / np.sqrt(v + epsilon)

        elif kind == RMSPROP_MOMENTUM:
            for i in range(params.size):
                g = grads[i]
                v = rho * slot0[i] + fresh * (g * g)
                u = momentum * slot1[i] + rate * g / np.sqrt(v + epsilon)
                slot0[i] = v
                slot1[i] = u
                params[i] = fma(params[i], -decay, params[i]) - u

        elif kind == RMSPROP_CENTERED:
            for i in range(params.size):
                g = grads[i]
                v = rho * slot0[i] + fresh * (g * g)
                a = rho * slot2[i] + fresh * g
                variance = v - a * a
                variance = real(0.0) if variance < real(0.0) else variance
                slot0[i] = v
                slot2[i] = a
                params[i] = fma(params[i], -decay, params[i]) - rate * g / np.sqrt(variance + epsilon)

        elif kind == RMSPROP_CENTERED_MOMENTUM:
            for i in range(params.size):
                g = grads[i]
                v = rho * slot0[i] + fresh * (g * g)
                a = rho * slot2[i] + fresh * g
                variance = v - a * a
                variance = real(0.0) if variance < real(0.0) else variance
                u = momentum * slot1[i] + rate * g / np.sqrt(variance + epsilon)
                slot0[i] = v
                slot1[i] = u
                slot2[i] = a
                params[i] = fma(params[i], -decay, params[i]) - u


# ---- sums over a vector: a strict sum is one long chain of additions, so these keep _LANES of them

_LANES = 256


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
        if not norm <= limit:  # a NaN norm scales by NaN
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

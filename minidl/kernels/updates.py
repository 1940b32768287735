"""How gradients change the parameters: penalties, clipping, the update rule, constraints.

Each rule is one formula under a decorator that names it. ``update`` is elementwise, so any cut of the vector into
ranges gives the same bits. The compiled loop calls it on the block of parameters whose gradient it has just computed
(still in a near cache), layer by layer it is called once on the whole vector. The formulas are Keras 3's.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba.core import types

from .jit import jit
from .units import Code, Units, array
from .vectors import fma

WEIGHT_DECAY = 3
"""The index of the decoupled weight decay in ``hyper`` (float64, 8). A rule's settings, at most three, come before."""

# ---- what a rule needs of a step: ``numbers`` (float64, 5), the rate first


def rate_and_settings(numbers, hyper, learning_rate, step):
    numbers[0], numbers[1], numbers[2], numbers[3] = learning_rate, hyper[0], hyper[1], hyper[2]


def adam_numbers(numbers, hyper, learning_rate, step):
    """lr * sqrt(1 - beta_2**t) / (1 - beta_1**t), 1 - beta_1, 1 - beta_2, epsilon."""
    beta_1, beta_2, epsilon = hyper[0], hyper[1], hyper[2]
    t = float(step)
    numbers[0] = learning_rate * (np.sqrt(1.0 - beta_2**t) / (1.0 - beta_1**t))
    numbers[1], numbers[2], numbers[3] = 1.0 - beta_1, 1.0 - beta_2, epsilon


def rmsprop_numbers(numbers, hyper, learning_rate, step):
    """lr, rho, 1 - rho, momentum, epsilon."""
    rho, momentum, epsilon = hyper[0], hyper[1], hyper[2]
    numbers[0], numbers[1], numbers[2] = learning_rate, rho, 1.0 - rho
    numbers[3], numbers[4] = momentum, epsilon


# ---- the rules


class Row(NamedTuple):
    """An update rule: its formula, its settings, and the slots (0, 1, 2) that hold what it remembers."""

    formula: Callable
    settings: tuple[str, ...]
    """The optimizer's attributes that fill the first places of ``hyper``, in this order."""
    keeps: tuple[int, ...]
    """Saved optimizers hold slots by place, so places stay."""
    numbers: Callable


RULES: dict[str, Row] = {}


def rule(*settings, numbers=rate_and_settings, **names):
    """The decorator that enters a formula in the table, under each name with the slots that it keeps.

    The formula is that of one parameter. From its gradient g, its entries in the three slots, the five numbers of this
    step and ``kept``, which tells of each slot whether it is kept, it gives the new entries and what to subtract from
    the parameter.
    """
    return lambda formula: RULES.update(
        (name, Row(formula, settings, keeps, numbers)) for name, keeps in names.items()
    )


@rule(SGD=())
def sgd(g, a, b, c, numbers, kept):
    """w -= lr*g"""
    return a, b, c, numbers[0] * g


@rule("momentum", MOMENTUM=(0,))
def momentum(g, u, b, c, numbers, kept):
    """u = momentum*u - lr*g; w += u"""
    u = numbers[1] * u - numbers[0] * g
    return u, b, c, -u


@rule("momentum", NESTEROV=(0,))
def nesterov(g, u, b, c, numbers, kept):
    """u = momentum*u - lr*g; w += momentum*u - lr*g"""
    step = numbers[0] * g
    u = numbers[1] * u - step
    return u, b, c, -(numbers[1] * u - step)


@rule("beta_1", "beta_2", "epsilon", numbers=adam_numbers, ADAM=(0, 1), AMSGRAD=(0, 1, 2))
def adam(g, m, v, top, numbers, kept):
    """m += (g - m)*(1 - beta_1); v += (g*g - v)*(1 - beta_2)
    w -= m * lr*sqrt(1 - beta_2**t)/(1 - beta_1**t) / (sqrt(v) + epsilon); amsgrad: the largest v so far"""
    rate, fresh_1, fresh_2, epsilon, _ = numbers
    m = fma(g - m, fresh_1, m)
    v = fma(fma(g, g, -v), fresh_2, v)
    top = top if kept[2] and v <= top else v  # a NaN in v is kept
    return m, v, top, m * rate / (np.sqrt(top) + epsilon)


@rule(
    "rho",
    "momentum",
    "epsilon",
    numbers=rmsprop_numbers,
    RMSPROP=(0,),
    RMSPROP_MOMENTUM=(0, 1),
    RMSPROP_CENTERED=(0, 2),
    RMSPROP_CENTERED_MOMENTUM=(0, 1, 2),
)
def rmsprop(g, v, u, a, numbers, kept):
    """v = rho*v + (1 - rho)*g*g; w -= lr*g / sqrt(v + epsilon)
    momentum: u = momentum*u + lr*g / sqrt(v + epsilon); w -= u
    centered: a = rho*a + (1 - rho)*g, and max(v - a*a, 0) in place of v under the root

    Keras leaves the maximum out: rounding then gives NaN under a steady large gradient."""
    rate, rho, fresh, momentum, epsilon = numbers
    v = rho * v + fresh * (g * g)
    variance = v
    if kept[2]:
        a = rho * a + fresh * g
        variance, zero = v - a * a, rate - rate  # zero in the precision of rate
        variance = zero if variance < zero else variance  # a NaN is kept
    step = rate * g / np.sqrt(variance + epsilon)
    if kept[1]:
        step = momentum * u + step
    return v, step, a, step


_DECAY, PENALTY = 5, 6
"""The places of weight_decay * learning_rate and of the penalty in ``scalars``, after the five numbers of the rule."""


def _loop_of(row):
    """The function that applies the rule to a range of parameters."""
    formula = jit(row.formula, inline=True)
    kept = keeps_a, keeps_b, keeps_c = tuple(slot in row.keeps for slot in range(3))

    def loop(params, a, b, c, grads, scalars):
        real = params.dtype.type
        numbers = real(scalars[0]), real(scalars[1]), real(scalars[2]), real(scalars[3]), real(scalars[4])
        decay, nothing = real(scalars[_DECAY]), real(0)
        for i in range(params.size):
            u = a[i] if keeps_a else nothing
            v = b[i] if keeps_b else nothing
            w = c[i] if keeps_c else nothing
            u, v, w, change = formula(grads[i], u, v, w, numbers, kept)
            if keeps_a:
                a[i] = u
            if keeps_b:
                b[i] = v
            if keeps_c:
                c[i] = w
            params[i] = fma(params[i], -decay, params[i]) - change

    return loop


Rule = Code("Rule", list(RULES), start=0)
globals().update(Rule.constants())

SETTINGS = {Rule[name]: row.settings for name, row in RULES.items()}
"""What stands in the first places of ``hyper``."""
KEEPS = {Rule[name]: row.keeps for name, row in RULES.items()}
"""Which of the three slots each rule keeps; the others have size 0."""


def _filler_of(row):
    """The function that fills ``scalars`` for a step of the rule."""
    numbers = jit(row.numbers, inline=True)

    def fill(scalars, hyper, learning_rate, step):
        scalars[:] = 0.0
        numbers(scalars[:_DECAY], hyper, learning_rate, step)
        scalars[_DECAY] = hyper[WEIGHT_DECAY] * learning_rate

    return fill


def _filler_arguments(real):
    return array(types.float64), array(types.float64), types.float64, types.int64


def _loop_arguments(real):
    return (array(real),) * 5 + (array(types.float64),)


SCALARS = Units("scalars", {Rule[name]: _filler_of(row) for name, row in RULES.items()}, _filler_arguments)
UPDATES = Units("update", {Rule[name]: _loop_of(row) for name, row in RULES.items()}, _loop_arguments)
call_scalars, call_update = SCALARS.caller, UPDATES.caller


def step_scalars(scalars, kind, hyper, learning_rate, step):
    """Fill ``scalars`` (float64, 8) for one step of ``kind``; ``step`` counts from 1.

    All of it is float64: in float32 1 - beta_2**t would lose five digits at the first steps.
    """
    SCALARS[kind](scalars, hyper, learning_rate, step)


def update(kind, params, slot0, slot1, slot2, grads, scalars):
    """One step, in place, over equal-length ranges of the flat vectors: w -= w * weight_decay * lr, then the rule.

    A slot that the rule does not keep has size 0; ``scalars`` comes from ``step_scalars``.
    """
    UPDATES[kind](params, slot0, slot1, slot2, grads, scalars)


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


# ---- constraints


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
            factors[c] = real(min(norm, limits[s]) / (1e-7 + norm))
        for r in range(rows):
            row = params[offset + r * columns : offset + (r + 1) * columns]
            for c in range(columns):
                row[c] *= factors[c]


# ---- what the compiled loop calls for all of this


def penalize_and_clip(grads, params, segments, penalties, clips, scalars):
    """Add the regularizers' gradients, then clip by ``clips``: value, norm, global norm; 0 for none.

    Leaves the penalty at scalars[PENALTY].
    """
    scalars[PENALTY] = add_regularizer(grads, params, segments, penalties)
    if clips[1] > 0.0:
        clip_by_norm(grads, segments, clips[1])
    if clips[2] > 0.0:
        clip_by_global_norm(grads, clips[2])
    if clips[0] > 0.0:
        clip_by_value(grads, clips[0])


def _penalize_arguments(real):
    vector, table = array(real), array(types.int64, 2)
    return vector, vector, table, array(types.float64, 2), array(types.float64), array(types.float64)


PENALIZE = Units("restrain", {"penalize_and_clip": penalize_and_clip}, _penalize_arguments)
BOUND = Units(
    "restrain",
    {"max_norm": max_norm},
    lambda real: (array(real), array(types.int64, 2), array(types.float64)),
)
call_penalize, call_bound = PENALIZE.caller, BOUND.caller

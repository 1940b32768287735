"""Optimizers: each update rule is one formula and one row of the table `RULES`.

``update`` is elementwise, so any cut of the vector into ranges gives the same bits. The compiled loop calls it on
the few hundred parameters whose gradient it has just computed (still in the first-level cache), ``optimizer.step``
once on the whole vector.

The formulas are Keras 3's. To add a rule, write its formula (and what it needs of a step, if that is more than its
settings) and name it in the table.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from .choose import Code, choose
from .jit import jit
from .penalties import (
    add_regularizer,
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
    max_norm,
    sum_of_squares,
)
from .vectors import fma, stay_apart

__all__ = [
    "KEEPS",
    "RULES",
    "WEIGHT_DECAY",
    "Rule",
    "add_regularizer",
    "clip_by_global_norm",
    "clip_by_norm",
    "clip_by_value",
    "max_norm",
    "step_scalars",
    "sum_of_squares",
    "update",
]

WEIGHT_DECAY = 3
"""Its place in ``hyper`` (float64, 8), after the settings of the rule's own: at most three, as its row names them."""

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
    numbers[0], numbers[1], numbers[2], numbers[3], numbers[4] = (
        learning_rate,
        rho,
        1.0 - rho,
        momentum,
        epsilon,
    )


# ---- rules, on one parameter: from its gradient g, what the rule remembers, and the five numbers of this step, they
# ---- give the new memory and what to subtract from the parameter


@jit(inline=True)
def sgd(g, numbers):
    """w -= lr*g"""
    return numbers[0] * g


@jit(inline=True)
def momentum(g, u, numbers):
    """u = momentum*u - lr*g; w += u"""
    rate, kept = numbers[0], numbers[1]
    u = kept * u - rate * g
    return u, -u


@jit(inline=True)
def nesterov(g, u, numbers):
    """u = momentum*u - lr*g; w += momentum*u - lr*g"""
    rate, kept = numbers[0], numbers[1]
    step = rate * g
    u = kept * u - step
    return u, -(kept * u - step)


@jit(inline=True)
def adam(g, m, v, numbers):
    """m += (g - m)*(1 - beta_1); v += (g*g - v)*(1 - beta_2)
    w -= m * lr*sqrt(1 - beta_2**t)/(1 - beta_1**t) / (sqrt(v) + epsilon)"""
    rate, fresh_1, fresh_2, epsilon, _ = numbers
    m = fma(g - m, fresh_1, m)
    v = fma(fma(g, g, -v), fresh_2, v)
    return m, v, m * rate / (np.sqrt(v) + epsilon)


@jit(inline=True)
def amsgrad(g, m, v, top, numbers):
    """adam with max(v, every earlier v) under the root"""
    rate, fresh_1, fresh_2, epsilon, _ = numbers
    m = fma(g - m, fresh_1, m)
    v = fma(fma(g, g, -v), fresh_2, v)
    top = top if v <= top else v  # a NaN in v is kept
    return m, v, top, m * rate / (np.sqrt(top) + epsilon)


@jit(inline=True)
def rmsprop(g, v, numbers):
    """v = rho*v + (1 - rho)*g*g; w -= lr*g / sqrt(v + epsilon)"""
    rate, rho, fresh, _, epsilon = numbers
    v = rho * v + fresh * (g * g)
    return v, rate * g / np.sqrt(v + epsilon)


@jit(inline=True)
def rmsprop_momentum(g, v, u, numbers):
    """v as in rmsprop; u = momentum*u + lr*g / sqrt(v + epsilon); w -= u"""
    rate, rho, fresh, kept, epsilon = numbers
    v = rho * v + fresh * (g * g)
    u = kept * u + rate * g / np.sqrt(v + epsilon)
    return v, u, u


@jit(inline=True)
def _not_negative(x, zero):
    return zero if x < zero else x  # ``zero`` in the precision of x; a NaN is kept


@jit(inline=True)
def rmsprop_centered(g, v, a, numbers):
    """v as in rmsprop; a = rho*a + (1 - rho)*g; w -= lr*g / sqrt(max(v - a*a, 0) + epsilon)

    Keras leaves the maximum out: rounding then gives NaN under a steady large gradient."""
    rate, rho, fresh, _, epsilon = numbers
    v = rho * v + fresh * (g * g)
    a = rho * a + fresh * g
    variance = _not_negative(v - a * a, rate - rate)
    return v, a, rate * g / np.sqrt(variance + epsilon)


@jit(inline=True)
def rmsprop_centered_momentum(g, v, u, a, numbers):
    """v and a as in rmsprop_centered; u = momentum*u + lr*g / sqrt(max(v - a*a, 0) + epsilon); w -= u"""
    rate, rho, fresh, kept, epsilon = numbers
    v = rho * v + fresh * (g * g)
    a = rho * a + fresh * g
    variance = _not_negative(v - a * a, rate - rate)
    u = kept * u + rate * g / np.sqrt(variance + epsilon)
    return v, u, a, u


# ---- loops over a range of parameters, by the number of slots that a rule keeps


def _without_slots(formula):
    def loop(params, slots, grads, numbers, decay):
        stay_apart()
        for i in range(params.size):
            params[i] = fma(params[i], -decay, params[i]) - formula(grads[i], numbers)

    return loop


def _with_one_slot(formula, first):
    def loop(params, slots, grads, numbers, decay):
        stay_apart()
        a = slots[first]
        for i in range(params.size):
            a[i], change = formula(grads[i], a[i], numbers)
            params[i] = fma(params[i], -decay, params[i]) - change

    return loop


def _with_two_slots(formula, first, second):
    def loop(params, slots, grads, numbers, decay):
        stay_apart()
        a, b = slots[first], slots[second]
        for i in range(params.size):
            a[i], b[i], change = formula(grads[i], a[i], b[i], numbers)
            params[i] = fma(params[i], -decay, params[i]) - change

    return loop


def _with_three_slots(formula, first, second, third):
    def loop(params, slots, grads, numbers, decay):
        stay_apart()
        a, b, c = slots[first], slots[second], slots[third]
        for i in range(params.size):
            a[i], b[i], c[i], change = formula(grads[i], a[i], b[i], c[i], numbers)
            params[i] = fma(params[i], -decay, params[i]) - change

    return loop


_DECAY = 5
"""The place of weight_decay * learning_rate in ``scalars``, after the five numbers of the rule."""

_LOOPS = _without_slots, _with_one_slot, _with_two_slots, _with_three_slots


# ---- the table


class Row(NamedTuple):
    """An update rule: its formula, its settings, and the slots (0, 1, 2) that hold what it remembers."""

    formula: Callable
    settings: tuple[str, ...] = ()
    """The optimizer's attributes that fill the first places of ``hyper``, in this order."""
    keeps: tuple[int, ...] = ()
    """In the order in which the formula takes them. Saved optimizers hold slots by place, so places stay."""
    numbers: Callable = rate_and_settings


_ADAM = ("beta_1", "beta_2", "epsilon")
_RMSPROP = ("rho", "momentum", "epsilon")

RULES = (
    Row(sgd),
    Row(adam, _ADAM, (0, 1), adam_numbers),
    Row(rmsprop, _RMSPROP, (0,), rmsprop_numbers),
    Row(momentum, ("momentum",), (0,)),
    Row(nesterov, ("momentum",), (0,)),
    Row(amsgrad, _ADAM, (0, 1, 2), adam_numbers),
    Row(rmsprop_momentum, _RMSPROP, (0, 1), rmsprop_numbers),
    Row(rmsprop_centered, _RMSPROP, (0, 2), rmsprop_numbers),
    Row(rmsprop_centered_momentum, _RMSPROP, (0, 1, 2), rmsprop_numbers),
)

Rule = Code("Rule", [row.formula.__name__.upper() for row in RULES], start=0)
globals().update(Rule.__members__)

KEEPS = {rule: row.keeps for rule, row in zip(Rule, RULES, strict=True)}
"""Which of the three slots each rule keeps; the others have size 0."""

_fill_numbers = choose({rule: row.numbers for rule, row in zip(Rule, RULES, strict=True)})
_loop = choose(
    {rule: _LOOPS[len(row.keeps)](row.formula, *row.keeps) for rule, row in zip(Rule, RULES, strict=True)}
)


@jit
def step_scalars(scalars, kind, hyper, learning_rate, step):
    """Fill ``scalars`` (float64, 8) for one step of ``kind``; ``step`` counts from 1.

    ``hyper`` (float64, 8) holds the rule's settings and, at WEIGHT_DECAY, the decoupled decay. All of it is float64:
    in float32 1 - beta_2**t would lose five digits at the first steps.
    """
    scalars[:] = 0.0
    _fill_numbers(kind, scalars[:_DECAY], hyper, learning_rate, step)
    scalars[_DECAY] = hyper[WEIGHT_DECAY] * learning_rate


@jit
def update(kind, params, slot0, slot1, slot2, grads, scalars):
    """One step, in place, over equal-length ranges of the flat vectors: decay, then the rule.

    The decoupled decay is ``w -= w * weight_decay * learning_rate``. ``slot0, slot1, slot2`` hold what the rule
    remembers between steps (``KEEPS``), size 0 where it keeps nothing; ``scalars`` comes from ``step_scalars``.
    """
    real = params.dtype.type
    numbers = real(scalars[0]), real(scalars[1]), real(scalars[2]), real(scalars[3]), real(scalars[4])
    _loop(kind, params, (slot0, slot1, slot2), grads, numbers, real(scalars[_DECAY]))

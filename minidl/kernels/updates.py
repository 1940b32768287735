"""How gradients change the parameters: the update rules.

Each rule is one formula under a decorator that names it. ``update`` is elementwise, so any cut of the vector into
ranges gives the same bits. The compiled loop calls it on the block of parameters whose gradient it has just computed
(still in a near cache), layer by layer it is called once on the whole vector. The formulas are Keras 3's. What is done
to whole gradients before, and to whole weights after, is in ``restraints.py``.
"""

import itertools
import operator
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba.core import types

from .jit import jit
from .simd import part_of
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


_FIRST_MOMENTA = 1000
"""1 - 0.5 * 0.96**i is 1 in float64 for i > 900."""
_MOMENTA = np.array(
    list(itertools.accumulate((1 - 0.5 * 0.96**i for i in range(1, _FIRST_MOMENTA + 1)), operator.mul))
)
"""At place t - 1 the product of 1 - 0.5 * 0.96**i for i = 1 ... t."""


def nadam_numbers(numbers, hyper, learning_rate, step):
    """What m, and what g, is multiplied by; 1 - beta_1, 1 - beta_2; epsilon.

    With the momenta u_t = beta_1*(1 - 0.5*0.96**t) and their product p = u_1*...*u_t these are
    lr*u_(t+1)/(1 - p*u_(t+1)) and lr*(1 - u_t)/(1 - p); they, and epsilon, times sqrt(1 - beta_2**t).
    """
    beta_1, beta_2, epsilon = hyper[0], hyper[1], hyper[2]
    t = float(step)
    momentum, following = beta_1 * (1.0 - 0.5 * 0.96**t), beta_1 * (1.0 - 0.5 * 0.96 ** (t + 1.0))
    product, root = beta_1**t * _MOMENTA[min(step, _FIRST_MOMENTA) - 1], np.sqrt(1.0 - beta_2**t)
    numbers[0] = learning_rate * root * following / (1.0 - product * following)
    numbers[1] = learning_rate * root * (1.0 - momentum) / (1.0 - product)
    numbers[2], numbers[3], numbers[4] = 1.0 - beta_1, 1.0 - beta_2, epsilon * root


def adamax_numbers(numbers, hyper, learning_rate, step):
    """lr / (1 - beta_1**t), 1 - beta_1, beta_2, epsilon."""
    numbers[0], numbers[1] = learning_rate / (1.0 - hyper[0] ** float(step)), 1.0 - hyper[0]
    numbers[2], numbers[3] = hyper[1], hyper[2]


# ---- the rules


class Row(NamedTuple):
    """An update rule: its formula, its settings, and the slots (0, 1, 2) that hold what it remembers."""

    formula: Callable
    settings: tuple[str, ...]
    """The optimizer's attributes that fill the first places of ``hyper``, in this order."""
    keeps: tuple[int, ...]
    """Saved optimizers hold slots by place, so places stay."""
    numbers: Callable
    begins: str
    """The optimizer's attribute that its slots begin with; "": they begin with 0."""


RULES: dict[str, Row] = {}


def rule(*settings, numbers=rate_and_settings, begins="", **names):
    """The decorator that enters a formula in the table, under each name with the slots that it keeps.

    The formula is that of one parameter. From its gradient g, its entries in the three slots, the five numbers of this
    step and ``kept``, which tells of each slot whether it is kept, it gives the new entries and what to subtract from
    the parameter.
    """
    return lambda formula: RULES.update(
        (name, Row(formula, settings, keeps, numbers, begins)) for name, keeps in names.items()
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


@rule("beta_1", "beta_2", "epsilon", numbers=nadam_numbers, NADAM=(0, 1))
def nadam(g, m, v, c, numbers, kept):
    """Adam's m and v; w -= lr*(u_(t+1)*m/(1 - p*u_(t+1)) + (1 - u_t)*g/(1 - p)) / (sqrt(v/(1 - beta_2**t)) + epsilon)
    with u and p of `nadam_numbers`"""
    of_m, of_g, fresh_1, fresh_2, epsilon = numbers
    m = fma(g - m, fresh_1, m)
    v = fma(fma(g, g, -v), fresh_2, v)
    return m, v, c, (of_m * m + of_g * g) / (np.sqrt(v) + epsilon)


@rule("beta_1", "beta_2", "epsilon", numbers=adamax_numbers, ADAMAX=(0, 1))
def adamax(g, m, u, c, numbers, kept):
    """m += (g - m)*(1 - beta_1); u = max(beta_2*u, |g|); w -= lr/(1 - beta_1**t) * m / (u + epsilon)"""
    rate, fresh, beta_2, epsilon, _ = numbers
    m = fma(g - m, fresh, m)
    faded, size = beta_2 * u, abs(g)
    u = faded if faded >= size else size  # a NaN in g stays in m
    return m, u, c, rate * m / (u + epsilon)


@rule("epsilon", begins="initial_accumulator_value", ADAGRAD=(0,))
def adagrad(g, a, b, c, numbers, kept):
    """a += g*g; w -= lr*g / sqrt(a + epsilon)"""
    a = fma(g, g, a)
    return a, b, c, numbers[0] * g / np.sqrt(a + numbers[1])


@rule("beta_1", "beta_2", LION=(0,))
def lion(g, m, b, c, numbers, kept):
    """w -= lr*sign(beta_1*m + (1 - beta_1)*g); m = beta_2*m + (1 - beta_2)*g"""
    rate, beta_1, beta_2, _, _ = numbers  # in the parameters' precision; a bare 1 - beta_1 would leave it
    return g + beta_2 * (m - g), b, c, rate * np.sign(g + beta_1 * (m - g))


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


BEGINS = {Rule[name]: row.begins for name, row in RULES.items() if row.begins}
"""The optimizer's attribute that a rule's slots begin with, where that is not 0."""


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


@jit
def update_range(program, state, at, size, grads, scalars):
    """One optimizer step for the parameters at..at+size, whose gradients are ``grads``."""
    # a slot that the rule does not keep is empty, and nothing of it is read
    call_update(
        state.update,
        part_of(program.params, at, size),
        part_of(state.slot0, at, size),
        part_of(state.slot1, at, size),
        part_of(state.slot2, at, size),
        grads,
        scalars,
    )


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

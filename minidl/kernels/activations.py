"""Activations: each is one entry of the table `ACTIVATIONS`, its formula and the derivative below it.

The formulas are Keras 3's. To add one, write its entry; the code, the kernels and the parametrized tests follow.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from numba.core import types

from .elementary import exp_negative, expm1_negative, normal_cdf, sigmoid, softplus, tanh
from .jit import jit
from .softmax import softmax_backward, softmax_forward
from .units import Code, Units, array
from .vectors import lanes, load, stay_apart, store, where_le


class Row(NamedTuple):
    """One activation. ``forward(out, x, slope)`` and ``backward(dx, dout, y, slope)`` work on whole arrays (B, D)."""

    forward: Callable
    backward: Callable
    needs_input: bool = False
    """Whether the derivative follows from the input alone, which must then be kept; else y is the output."""
    slope: float = 0.0
    """The slope that the bare name stands for."""
    aliases: tuple[str, ...] = ()


def elementwise(formula: Callable, derivative: Callable, **settings) -> Row:
    """The row of an activation that treats each element alone."""
    formula, derivative = jit(formula, inline=True), jit(derivative, inline=True)

    def forward(out, x, slope):
        stay_apart()
        slope = x.dtype.type(slope)
        for i in range(0, x.size, lanes(x)):
            store(out, i, x.size - i, formula(load(x, i, x.size - i, 0.0), slope))

    def backward(dx, dout, y, slope):
        stay_apart()
        slope = y.dtype.type(slope)
        for i in range(0, y.size, lanes(y)):
            d, v = load(dout, i, y.size - i, 0.0), load(y, i, y.size - i, 0.0)
            store(dx, i, y.size - i, derivative(d, v, slope))

    return Row(forward, backward, **settings)


_NORMAL_DENSITY = 1 / math.sqrt(2 * math.pi)
_GELU_SLOPE = 2 * math.sqrt(2 / math.pi)
_GELU_CUBE = 0.044715 * _GELU_SLOPE


def gelu_tanh_gradient(dout, x, slope):
    """s + x s (1 - s) u' with u = _GELU_SLOPE x + _GELU_CUBE x^3, s = sigmoid(u)."""
    s = sigmoid(x * (_GELU_SLOPE + _GELU_CUBE * x * x))
    near = where_le(x, -20.0, -20.0, where_le(x, 20.0, x, 20.0))  # beyond, s is 0 or 1, and x^3 may overflow
    return dout * (s + near * s * (1.0 - s) * (_GELU_SLOPE + 3 * _GELU_CUBE * near * near))


# Formulas on vectors: out = f(x, slope), and dx = df(dout, y, slope), where y is the output, or the input if the entry
# says so. ``slope`` is leaky_relu's negative_slope and elu's alpha. At a kink the derivative is the left one.
ACTIVATIONS = {
    "linear": elementwise(
        lambda x, slope: x,
        lambda dout, out, slope: dout,
    ),
    "relu": elementwise(
        lambda x, slope: where_le(x, 0.0, 0.0, x),  # a NaN compares as false, so it passes
        lambda dout, out, slope: where_le(out, 0.0, 0.0, dout),
    ),
    "leaky_relu": elementwise(
        lambda x, slope: where_le(x, 0.0, x * slope, x),
        lambda dout, out, slope: where_le(out, 0.0, dout * slope, dout),
        slope=0.2,
    ),
    "sigmoid": elementwise(
        lambda x, slope: sigmoid(x),
        lambda dout, out, slope: dout * out * (1.0 - out),
    ),
    "tanh": elementwise(
        lambda x, slope: tanh(x),
        lambda dout, out, slope: dout * (1.0 - out * out),
    ),
    "softmax": Row(
        lambda out, x, slope: softmax_forward(out, x, 1.0),
        lambda dx, dout, out, slope: softmax_backward(dx, dout, out, 1.0),
    ),
    "gelu": elementwise(
        lambda x, slope: x * normal_cdf(x),  # the exact form, by the error function
        lambda dout, x, slope: dout * (normal_cdf(x) + x * _NORMAL_DENSITY * exp_negative(x * x * -0.5)),
        needs_input=True,
    ),
    "silu": elementwise(
        lambda x, slope: x * sigmoid(x),
        lambda dout, x, slope: dout * (sigmoid(x) + x * sigmoid(x) * (1.0 - sigmoid(x))),
        needs_input=True,
        aliases=("swish",),
    ),
    "softplus": elementwise(
        lambda x, slope: softplus(x),
        lambda dout, out, slope: (
            dout * (0.0 - expm1_negative(0.0 - out))
        ),  # sigmoid(x) = 1 - exp(-softplus(x))
    ),
    "elu": elementwise(
        lambda x, slope: where_le(x, 0.0, expm1_negative(x) * slope, x),
        lambda dout, out, slope: (
            dout * where_le(out, 0.0, out + slope, 1.0)
        ),  # slope exp(x) = out + slope below 0
        slope=1.0,
    ),
    "gelu_tanh": elementwise(
        # 0.5 (1 + tanh(u / 2)) = sigmoid(u), and does not cancel below 0
        lambda x, slope: x * sigmoid(x * (_GELU_SLOPE + _GELU_CUBE * x * x)),
        gelu_tanh_gradient,
        needs_input=True,
    ),
}

Activation = Code("Activation", [name.upper() for name in ACTIVATIONS], start=0)
LINEAR = int(Activation.LINEAR)
CODES = {name: int(Activation[name.upper()]) for name in ACTIVATIONS}
NEEDS_INPUT = tuple(CODES[name] for name, row in ACTIVATIONS.items() if row.needs_input)

FORWARD = Units(
    "forward",
    {Activation[name.upper()]: row.forward for name, row in ACTIVATIONS.items()},
    lambda real: (array(real, 2), array(real, 2), types.float64),
)
BACKWARD = Units(
    "backward",
    {Activation[name.upper()]: row.backward for name, row in ACTIVATIONS.items()},
    lambda real: (array(real, 2), array(real, 2), array(real, 2), types.float64),
)
call_forward, call_backward = FORWARD.caller, BACKWARD.caller


def activation_forward(out, x, code, slope):
    """out = f(x) for arrays (B, D). ``out`` may be ``x``."""
    FORWARD[code](out, x, float(slope))


def activation_backward(dx, dout, out, x, code, slope):
    """dx = dout * f'(x). ``x`` is read only if the code is in NEEDS_INPUT, else ``out``. ``dx`` may be ``dout``."""
    BACKWARD[code](dx, dout, x if code in NEEDS_INPUT else out, float(slope))

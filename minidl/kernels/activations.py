"""Activations: each is one formula, its derivative directly below it, and one row of the table `ACTIVATIONS`.

The formulas are Keras 3's. To add one, write the two functions and name them in the table; the code, the
kernels and the parametrized tests follow from it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from .choose import Code, choose
from .elementary import exp_negative, expm1_negative, normal_cdf, sigmoid, softplus, tanh
from .jit import jit
from .softmax import softmax_backward, softmax_forward
from .vectors import lanes, load, stay_apart, store, where_le

__all__ = [
    "ACTIVATIONS",
    "CODES",
    "LINEAR",
    "NEEDS_INPUT",
    "Activation",
    "activation_backward",
    "activation_forward",
]


# ---- formulas, on vectors
#
# out = f(x, slope), and dx = df(dout, y, slope), where y is the output, or the input if the row says so. ``slope``
# is leaky_relu's negative_slope and elu's alpha. At a kink the derivative is the left one.


@jit(inline=True)
def linear(x, slope):
    return x


@jit(inline=True)
def linear_gradient(dout, out, slope):
    return dout


@jit(inline=True)
def relu(x, slope):
    return where_le(x, 0.0, 0.0, x)  # a NaN compares as false, so it passes


@jit(inline=True)
def relu_gradient(dout, out, slope):
    return where_le(out, 0.0, 0.0, dout)


@jit(inline=True)
def leaky_relu(x, slope):
    return where_le(x, 0.0, x * slope, x)


@jit(inline=True)
def leaky_relu_gradient(dout, out, slope):
    return where_le(out, 0.0, dout * slope, dout)


@jit(inline=True)
def logistic(x, slope):
    return sigmoid(x)


@jit(inline=True)
def logistic_gradient(dout, out, slope):
    return dout * out * (1.0 - out)


@jit(inline=True)
def hyperbolic_tangent(x, slope):
    return tanh(x)


@jit(inline=True)
def hyperbolic_tangent_gradient(dout, out, slope):
    return dout * (1.0 - out * out)


@jit(inline=True)
def gelu(x, slope):  # x Phi(x): the exact form, by the error function
    return x * normal_cdf(x)


@jit(inline=True)
def gelu_gradient(dout, x, slope):  # Phi(x) + x phi(x)
    return dout * (normal_cdf(x) + x * _NORMAL_DENSITY * exp_negative(x * x * -0.5))


@jit(inline=True)
def silu(x, slope):
    return x * sigmoid(x)


@jit(inline=True)
def silu_gradient(dout, x, slope):  # s + x s (1 - s) with s = sigmoid(x)
    s = sigmoid(x)
    return dout * (s + x * s * (1.0 - s))


@jit(inline=True)
def log_one_plus_exp(x, slope):
    return softplus(x)


@jit(inline=True)
def log_one_plus_exp_gradient(dout, out, slope):  # sigmoid(x) = 1 - exp(-softplus(x))
    return dout * (0.0 - expm1_negative(0.0 - out))


@jit(inline=True)
def elu(x, slope):
    return where_le(x, 0.0, expm1_negative(x) * slope, x)


@jit(inline=True)
def elu_gradient(dout, out, slope):  # slope exp(x) = out + slope below 0
    return dout * where_le(out, 0.0, out + slope, 1.0)


_NORMAL_DENSITY = 1 / math.sqrt(2 * math.pi)


# ---- the table


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


def softmax(out, x, slope):
    softmax_forward(out, x, 1.0)


def softmax_gradient(dx, dout, out, slope):
    softmax_backward(dx, dout, out, 1.0)


ACTIVATIONS = {
    "linear": elementwise(linear, linear_gradient),
    "relu": elementwise(relu, relu_gradient),
    "leaky_relu": elementwise(leaky_relu, leaky_relu_gradient, slope=0.2),
    "sigmoid": elementwise(logistic, logistic_gradient),
    "tanh": elementwise(hyperbolic_tangent, hyperbolic_tangent_gradient),
    "softmax": Row(softmax, softmax_gradient),
    "gelu": elementwise(gelu, gelu_gradient, needs_input=True),
    "silu": elementwise(silu, silu_gradient, needs_input=True, aliases=("swish",)),
    "softplus": elementwise(log_one_plus_exp, log_one_plus_exp_gradient),
    "elu": elementwise(elu, elu_gradient, slope=1.0),
}

Activation = Code("Activation", [name.upper() for name in ACTIVATIONS], start=0)
LINEAR = int(Activation.LINEAR)
CODES = {name: int(Activation[name.upper()]) for name in ACTIVATIONS}
NEEDS_INPUT = tuple(CODES[name] for name, row in ACTIVATIONS.items() if row.needs_input)

_forward = choose({CODES[name]: row.forward for name, row in ACTIVATIONS.items()})
_backward = choose({CODES[name]: row.backward for name, row in ACTIVATIONS.items()})


@jit
def activation_forward(out, x, code, slope):
    """out = f(x) for arrays (B, D); ``slope`` is float64. ``out`` may be ``x``."""
    _forward(code, out, x, slope)


@jit
def activation_backward(dx, dout, out, x, code, slope):
    """dx = dout * f'(x). ``x`` is read only if the code is in NEEDS_INPUT, else ``out``. ``dx`` may be ``dout``."""
    _backward(code, dx, dout, x if code in NEEDS_INPUT else out, slope)

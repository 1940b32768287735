"""Activations by number, forward and backward adjacent; the formulas are Keras 3's.

`forward` may write over its input, `backward` over ``dout``. All but gelu and silu differentiate
from their output alone (see NEEDS_INPUT), so the input need not be kept.
"""

from __future__ import annotations

import math

from .elementary import (
    exp,
    exp_negative,
    expm1_negative,
    log,
    log1p_unit,
    normal_cdf,
    sigmoid,
    softplus,
    tanh,
)
from .jit import jit
from .softmax import softmax_backward, softmax_forward
from .vectors import lanes, load, store, where_le

__all__ = [
    "CODES",
    "NEEDS_INPUT",
    "activation_backward",
    "activation_forward",
    "exp",
    "exp_negative",
    "expm1_negative",
    "log",
    "log1p_unit",
    "normal_cdf",
    "sigmoid",
    "softplus",
    "tanh",
]

LINEAR, RELU, LEAKY_RELU, SIGMOID, TANH, SOFTMAX, GELU, SILU, SOFTPLUS, ELU = range(10)

CODES = {
    "linear": LINEAR,
    "relu": RELU,
    "leaky_relu": LEAKY_RELU,
    "sigmoid": SIGMOID,
    "tanh": TANH,
    "softmax": SOFTMAX,
    "gelu": GELU,
    "silu": SILU,
    "softplus": SOFTPLUS,
    "elu": ELU,
}

NEEDS_INPUT = (GELU, SILU)

_NORMAL_DENSITY = 1 / math.sqrt(2 * math.pi)


@jit
def activation_forward(out, x, code, slope):
    """out = f(x) for arrays (B, D).

    linear x; relu max(x, 0); leaky_relu x or slope*x; sigmoid 1/(1+exp(-x)); tanh; softmax over each
    row; gelu x*Phi(x) (the exact, erf form); silu x*sigmoid(x); softplus log(1+exp(x)); elu x or
    slope*(exp(x)-1). ``slope`` (float64) is leaky_relu's negative_slope and elu's alpha.
    """
    real = x.dtype.type
    size = x.size
    width = lanes(x)
    zero = real(0)
    slope = real(slope)
    if code == SOFTMAX:
        softmax_forward(out, x, 1.0)
    elif code == RELU:
        for i in range(0, size, width):
            v = load(x, i, size - i, zero)
            store(out, i, size - i, where_le(v, zero, zero, v))  # a NaN compares false: it passes
    elif code == LEAKY_RELU:
        for i in range(0, size, width):
            v = load(x, i, size - i, zero)
            store(out, i, size - i, where_le(v, zero, v * slope, v))
    elif code == SIGMOID:
        for i in range(0, size, width):
            store(out, i, size - i, sigmoid(load(x, i, size - i, zero)))
    elif code == TANH:
        for i in range(0, size, width):
            store(out, i, size - i, tanh(load(x, i, size - i, zero)))
    elif code == GELU:
        for i in range(0, size, width):
            v = load(x, i, size - i, zero)
            store(out, i, size - i, v * normal_cdf(v))
    elif code == SILU:
        for i in range(0, size, width):
            v = load(x, i, size - i, zero)
            store(out, i, size - i, v * sigmoid(v))
    elif code == SOFTPLUS:
        for i in range(0, size, width):
            store(out, i, size - i, softplus(load(x, i, size - i, zero)))
    elif code == ELU:
        for i in range(0, size, width):
            v = load(x, i, size - i, zero)
            store(out, i, size - i, where_le(v, zero, expm1_negative(v) * slope, v))
    else:
        for i in range(0, size, width):
            store(out, i, size - i, load(x, i, size - i, zero))


@jit
def activation_backward(dx, dout, out, x, code, slope):
    """dx = dout * f'(x), from ``out`` alone unless the code is in NEEDS_INPUT; at a kink, the left slope."""
    real = out.dtype.type
    size = out.size
    width = lanes(out)
    zero = real(0)
    one = real(1)
    slope = real(slope)
    if code == SOFTMAX:
        softmax_backward(dx, dout, out, 1.0)
    elif code == RELU:
        for i in range(0, size, width):
            d, y = load(dout, i, size - i, zero), load(out, i, size - i, zero)
            store(dx, i, size - i, where_le(y, zero, zero, d))
    elif code == LEAKY_RELU:
        for i in range(0, size, width):
            d, y = load(dout, i, size - i, zero), load(out, i, size - i, zero)
            store(dx, i, size - i, where_le(y, zero, d * slope, d))
    elif code == SIGMOID:
        for i in range(0, size, width):
            d, y = load(dout, i, size - i, zero), load(out, i, size - i, zero)
            store(dx, i, size - i, d * y * (one - y))
    elif code == TANH:
        for i in range(0, size, width):
            d, y = load(dout, i, size - i, zero), load(out, i, size - i, zero)
            store(dx, i, size - i, d * (one - y * y))
    elif code == GELU:  # Phi(x) + x phi(x)
        density = real(_NORMAL_DENSITY)
        half = real(-0.5)
        for i in range(0, size, width):
            d, v = load(dout, i, size - i, zero), load(x, i, size - i, zero)
            slopes = normal_cdf(v) + v * density * exp_negative(v * v * half)
            store(dx, i, size - i, d * slopes)
    elif code == SILU:  # s + x s (1 - s)
        for i in range(0, size, width):
            d, v = load(dout, i, size - i, zero), load(x, i, size - i, zero)
            s = sigmoid(v)
            store(dx, i, size - i, d * (s + v * s * (one - s)))
    elif code == SOFTPLUS:  # sigmoid(x) = 1 - exp(-softplus(x))
        for i in range(0, size, width):
            d, y = load(dout, i, size - i, zero), load(out, i, size - i, zero)
            store(dx, i, size - i, d * (zero - expm1_negative(zero - y)))
    elif code == ELU:  # slope exp(x) = out + slope below 0
        for i in range(0, size, width):
            d, y = load(dout, i, size - i, zero), load(out, i, size - i, zero)
            store(dx, i, size - i, d * where_le(y, zero, y + slope, one))
    else:
        for i in range(0, size, width):
            store(dx, i, size - i, load(dout, i, size - i, zero))

"""exp, log and their relatives as polynomials, for scalars and vectors of float32 and float64.

Numba's scalar ``exp`` calls the C library once an element. These are branch-free, so a vector
takes hardly longer than a scalar. Polynomials interpolate at Chebyshev nodes (computed with 60
digits), which is within a hair of the best of their degree.

Largest relative error, in machine epsilons (tested): exp and expm1 1; log, log1p, sigmoid, tanh and
softplus 2. normal_cdf: 2.5 absolutely. Scalar and vector give the same bits. A NaN gives NaN.
"""

import math
from typing import NamedTuple

import numpy as np

from .vectors import Term, elementwise


class _Constants(NamedTuple):
    mantissa_bits: int
    exponent_bias: int
    ln2_high: float  # few enough bits that a product with an exponent is exact
    ln2_low: float
    exp_low: float  # exp is 0 at and below this: the result would leave the normal numbers
    exp_high: float  # and inf above this
    sqrt_half_bits: int
    exp_poly: tuple  # (exp(r) - 1 - r) / r^2 for |r| <= ln(2)/2
    log_poly: tuple  # (2 atanh(s) - 2 s) / s^3 as a polynomial in s^2, for 0 <= s <= 1/3
    erfc_step: float  # t = 1 / (1 + step z)
    erfc_poly: tuple  # exp(z^2) erfc(z) / t as a polynomial in t, z >= 0


_SINGLE = _Constants(
    mantissa_bits=23,
    exponent_bias=127,
    ln2_high=0.693359375,
    ln2_low=-2.12194440054690583e-4,
    exp_low=-86.9,
    exp_high=88.72283172607422,
    sqrt_half_bits=0x3F3504F3,
    exp_poly=(
        0.5, 0.166665768459939763, 0.0416665544376859389, 0.00836320297157585495, 0.0013926213466332443,
    ),
    log_poly=(
        0.666666673205274125, 0.399997063319297174, 0.285923579943028377, 0.217065758008803726,
        0.232243292240233488,
    ),
    erfc_step=0.375,
    erfc_poly=(
        0.211626084067673388, 0.210398614602648975, 0.207447599401709584, 0.111333019691009692,
        0.303717069826397751, -0.286244382493403778, 0.501745278171869133, -0.339993561756258882,
        0.084176164858825633, -0.00420588142537891438,
    ),
)  # fmt: skip

_DOUBLE = _Constants(
    mantissa_bits=52,
    exponent_bias=1023,
    ln2_high=6.93147180369123816490e-01,
    ln2_low=1.90821492927058770002e-10,
    exp_low=-708.0,
    exp_high=709.782712893384,
    sqrt_half_bits=0x3FE6A09E667F3BCD,
    exp_poly=(
        0.5, 0.16666666666666671, 0.0416666666666666698, 0.00833333333332611205, 0.00138888888888837318,
        0.000198412698749012592, 0.0000248015873256053228, 2.75572552979696444e-6, 2.75572735701021397e-7,
        2.51052595384484934e-8, 2.0914717341716376e-9,
    ),
    log_poly=(
        0.666666666666666669, 0.399999999999995225, 0.285714285716000993, 0.222222221982367706,
        0.181818198979627144, 0.153845439648605493, 0.133351786314492558, 0.117342790613031975,
        0.108451783948800148, 0.074921437955507673, 0.156305778009228504,
    ),
    erfc_step=0.25,
    erfc_poly=(
        0.141047395874537097, 0.141047396664459531, 0.136639642138672603, 0.127824608978908335,
        0.115009178313311602, 0.0990825024471988245, 0.080741375591579765, 0.0642684462438067312,
        0.0370568636734324372, 0.0559926441839688534, -0.058732106435106395, 0.176902033082843619,
        -0.301784191361045277, 0.422784457797054574, -0.442580237114844513, 0.300969314074280856,
        -0.0677675675368205126, -0.122386532055148326, 0.173132322213244823, -0.114968265946665135,
        0.0444334344742936346, -0.00962393045140169577, 0.000911215149438569247,
    ),
)  # fmt: skip


def _constants(x: Term) -> _Constants:
    return _DOUBLE if x.is_double else _SINGLE


def _reduce(x: Term):
    """x = n ln 2 + r: exp(r) - 1, and the bits of n as they stand in the exponent field."""
    c = _constants(x)
    rounder = 1.5 * 2.0**c.mantissa_bits  # adding it leaves the nearest integer in the low bits of the sum
    shifted = x.fma(1 / math.log(2), rounder)
    n = shifted - rounder
    r = n.fma(-c.ln2_low, n.fma(-c.ln2_high, x))
    exp_minus_1 = (r * r).fma(r.polynomial(c.exp_poly), r)
    return exp_minus_1, x.builder.shl(shifted.bits, x._whole(c.mantissa_bits))


def _power_of_two(x: Term, exponent, offset=0) -> Term:
    c = _constants(x)
    bias = x._whole((c.exponent_bias + offset) << c.mantissa_bits)
    return x.from_bits(x.builder.add(exponent, bias))


def _exp(x: Term) -> Term:
    c = _constants(x)
    exp_minus_1, exponent = _reduce(x)
    half = _power_of_two(x, exponent, -1)  # 2^n itself overflows for the largest results
    result = exp_minus_1.fma(half, half)
    result = x.where(">", c.exp_high, math.inf, result + result)
    return x.where("<=", c.exp_low, 0.0, result)


def _exp_negative(x: Term) -> Term:
    exp_minus_1, exponent = _reduce(x)
    scale = _power_of_two(x, exponent)
    return x.where("<=", _constants(x).exp_low, 0.0, exp_minus_1.fma(scale, scale))


def _expm1_negative(x: Term) -> Term:
    x = x.where("<=", -40.0, -40.0, x)  # already -1 to the last bit
    exp_minus_1, exponent = _reduce(x)
    scale = _power_of_two(x, exponent)
    return exp_minus_1.fma(scale, scale - 1.0)


def _exp_remainder(x: Term) -> Term:
    return x * x * x.polynomial(_constants(x).exp_poly)


def _twice_atanh(s: Term) -> Term:
    square = s * s
    return (s * square).fma(square.polynomial(_constants(s).log_poly), s + s)


def _log1p_remainder(x: Term) -> Term:
    s = x / (x + 2.0)
    square = s * s
    return x * s - s * square * square.polynomial(_constants(x).log_poly)


def _plain_log1p_remainder(x):
    s = x / (x + 2)
    return x * s - s**3 * np.polyval(_DOUBLE.log_poly[::-1], s * s)


def _log(x: Term) -> Term:
    c, build = _constants(x), x.builder
    # x = 2^k m with m in [sqrt(1/2), sqrt(2)): then log m = 2 atanh((m - 1) / (m + 1)).
    k = build.ashr(build.sub(x.bits, x._whole(c.sqrt_half_bits)), x._whole(c.mantissa_bits))
    m = x.from_bits(build.sub(x.bits, build.shl(k, x._whole(c.mantissa_bits))))
    exponent = Term(build, build.sitofp(k, x.value.type))
    fraction = _twice_atanh((m - 1.0) / (m + 1.0))
    result = exponent.fma(c.ln2_high, exponent.fma(c.ln2_low, fraction))
    result = x.where(">", np.finfo(np.float64 if x.is_double else np.float32).max, math.inf, result)
    return x.where(">", 0.0, result, x.where("==", 0.0, -math.inf, math.nan))


def _tanh(x: Term) -> Term:
    e = _expm1_negative(x.abs() * -2.0)
    magnitude = e / (e + 2.0)  # -|tanh(x)|
    return x.where("<=", 0.0, magnitude, -magnitude)


def _softplus(x: Term) -> Term:
    # max(x, 0) + log(1 + exp(-|x|)), written so that a NaN stays one.
    e = _exp_negative(-x.abs())
    return x.where("<=", 0.0, 0.0, x) + _twice_atanh(e / (e + 2.0))


def _normal_cdf(x: Term) -> Term:
    c = _constants(x)
    z = x.abs() * math.sqrt(0.5)
    t = 1.0 / z.fma(c.erfc_step, 1.0)
    tail = t * t.polynomial(c.erfc_poly) * _exp_negative(-(z * z)) * 0.5
    return x.where("<=", 0.0, tail, 1.0 - tail)


def _plain_normal_cdf(x):
    flat = [0.5 * math.erfc(-float(v) * math.sqrt(0.5)) for v in np.ravel(x)]
    return np.asarray(flat, np.asarray(x).dtype).reshape(np.shape(x))[()]


_quiet = np.errstate(all="ignore")  # NumPy's own functions warn where inf or NaN is the right answer

exp = elementwise(_exp, _quiet(np.exp))
"""0 for results under the normal numbers (x <= -86.9 in float32, -708 in float64), inf above their range."""

exp_negative = elementwise(_exp_negative, _quiet(np.exp))
"""exp for x <= 0: without the test for overflow."""

expm1_negative = elementwise(_expm1_negative, _quiet(np.expm1))
"""exp(x) - 1 for x <= 0, accurate near 0."""

exp_remainder = elementwise(_exp_remainder, lambda x: x * x * np.polyval(_DOUBLE.exp_poly[::-1], x))
"""exp(x) - 1 - x for |x| <= ln(2) / 2, accurate near 0."""

log = elementwise(_log, _quiet(np.log))
"""For normal numbers, 0 (-inf), inf and NaN; NaN below 0."""

log1p_unit = elementwise(lambda x: _twice_atanh(x / (x + 2.0)), _quiet(np.log1p))
"""log(1 + x) for 0 <= x <= 1."""

log1p_remainder = elementwise(_log1p_remainder, _plain_log1p_remainder)
"""x - log(1 + x) for -1/2 <= x <= 1, accurate near 0."""

sigmoid = elementwise(lambda x: 1.0 / (_exp(-x) + 1.0), _quiet(lambda x: 1 / (1 + np.exp(-x))))
tanh = elementwise(_tanh, _quiet(np.tanh))
softplus = elementwise(_softplus, _quiet(lambda x: np.logaddexp(x, np.zeros_like(x))))
normal_cdf = elementwise(_normal_cdf, _quiet(_plain_normal_cdf))
"""(1 + erf(x / sqrt(2))) / 2."""

"""Polynomial exp and relatives against exact arithmetic; activations against naive formulas."""

import decimal
import math

import numba
import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from minidl.kernels import elementary
from minidl.kernels.activations import (
    ACTIVATIONS,
    CODES,
    NEEDS_INPUT,
    activation_backward,
    activation_forward,
)
from minidl.kernels.jit import JIT_DISABLED
from minidl.kernels.vectors import lanes, load, store

DTYPES = [np.float32, np.float64]
DIGITS = decimal.Context(prec=70)


def exact_exp(x):
    return DIGITS.exp(x)


def exact_log1p(x):
    return DIGITS.ln(DIGITS.add(1, x))


def exact_sigmoid(x):
    return DIGITS.divide(1, DIGITS.add(1, exact_exp(-x)))


def exact_tanh(x):
    e = exact_exp(2 * x)
    return DIGITS.divide(DIGITS.subtract(e, 1), DIGITS.add(e, 1))


# name: exact value, range in float32, range in float64, bound in machine epsilons
FUNCTIONS = {
    "exp": (exact_exp, (-86.8, 88.7), (-707.9, 709.7), 1),
    "exp_negative": (exact_exp, (-86.8, 0), (-707.9, 0), 1),
    "expm1_negative": (lambda x: DIGITS.subtract(exact_exp(x), 1), (-86, 0), (-700, 0), 1),
    "log": (DIGITS.ln, (1e-30, 100), (1e-300, 100), 2),
    "log1p_unit": (exact_log1p, (0, 1), (0, 1), 2),
    "sigmoid": (exact_sigmoid, (-86, 40), (-700, 40), 2),
    "tanh": (exact_tanh, (-20, 20), (-30, 30), 2),
    "softplus": (lambda x: exact_log1p(exact_exp(x)), (-86, 40), (-80, 40), 2),
}


def compiled(function):
    """The elementwise function as kernels use it: on vectors, and on scalars in a loop."""

    @numba.njit(error_model="numpy")
    def on_vectors(out, x):
        for i in range(0, x.size, lanes(x)):
            store(out, i, x.size - i, function(load(x, i, x.size - i, x[0])))

    @numba.njit(error_model="numpy")
    def on_scalars(out, x):
        for i in range(x.size):
            out[i] = function(x[i])

    return on_vectors, on_scalars


def points(low, high, dtype, count=400):
    rng = np.random.default_rng(5)
    near = np.geomspace(1e-6, 0.4, 60)
    wide, narrow = rng.uniform(low, high, count), rng.uniform(max(low, -2), min(high, 2), count)
    x = np.concatenate([wide, narrow, near, -near])
    return x[(x >= low) & (x <= high)].astype(dtype)


def error_in_epsilons(got, x, exact):
    """The largest relative error."""
    worst = 0.0
    for value, point in zip(got, x, strict=True):
        right = exact(decimal.Decimal(float(point)))
        if right != 0:
            worst = max(worst, float(abs((decimal.Decimal(float(value)) - right) / right)))
    return worst / np.finfo(got.dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_error_bounds(name, dtype):
    exact, *ranges, bound = FUNCTIONS[name]
    x = points(*ranges[DTYPES.index(dtype)], dtype)
    on_vectors, on_scalars = compiled(getattr(elementary, name))
    got, scalar = np.empty_like(x), np.empty_like(x)
    on_vectors(got, x)
    on_scalars(scalar, x)
    if not JIT_DISABLED:  # NumPy's own functions have their own bounds
        assert np.array_equal(got, scalar)
        assert error_in_epsilons(got, x, exact) <= bound
    # and the measure notices an error of one unit in the fourth place
    assert error_in_epsilons(got * got.dtype.type(1.0001), x, exact) > 4


@pytest.mark.parametrize("dtype", DTYPES)
def test_normal_cdf_is_within_two_and_a_half_epsilons(dtype):
    x = points(-9, 9, dtype)
    got = np.empty_like(x)
    compiled(elementary.normal_cdf)[0](got, x)
    right = [0.5 * math.erfc(-float(v) / math.sqrt(2)) for v in x]
    assert np.max(np.abs(got - right)) <= 2.5 * np.finfo(dtype).eps


@pytest.mark.parametrize("dtype", DTYPES)
def test_values_at_the_ends(dtype):
    x = np.array([np.nan, np.inf, -np.inf, 0.0, 1e30, -1e30], dtype)
    expected = {
        "exp": [np.nan, np.inf, 0, 1, np.inf, 0],
        "sigmoid": [np.nan, 1, 0, 0.5, 1, 0],
        "tanh": [np.nan, 1, -1, 0, 1, -1],
        "softplus": [np.nan, np.inf, 0, math.log(2), 1e30, 0],
        "normal_cdf": [np.nan, 1, 0, 0.5, 1, 0],
        "log": [np.nan, np.inf, np.nan, -np.inf, math.log(1e30), np.nan],
    }
    for name, values in expected.items():
        out = np.empty_like(x)
        compiled(getattr(elementary, name))[0](out, x)
        np.testing.assert_allclose(out, np.array(values, dtype), rtol=1e-6, err_msg=name)


def forward(name, x, slope=0.2):
    out = np.full_like(x, 7)
    activation_forward(out, x, CODES[name], slope)
    return out


KNOWN_TO_THE_ORACLE = [name for name in CODES if name in reference.ACTIVATIONS]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KNOWN_TO_THE_ORACLE)
@given(rows=st.integers(1, 4), width=st.integers(1, 70), seed=st.integers(0, 99))
def test_forward(name, dtype, rows, width, seed):
    x = np.random.default_rng(seed).normal(0, 3, (rows, width)).astype(dtype)
    slope = ACTIVATIONS[name].slope
    expected = reference.activation(name, x)
    tolerance = 8 * np.finfo(dtype).eps
    out = forward(name, x, slope)
    np.testing.assert_allclose(out, expected, rtol=tolerance, atol=tolerance)
    activation_forward(x, x, CODES[name], slope)
    assert np.array_equal(x, out), "in place"


def check_single_precision(got, expected, size):
    """An error of some units in the last place of the value, or of ``size``."""
    limit = 16 * np.finfo(np.float32).eps * (abs(expected) + size)
    assert (abs(got - expected) <= limit).all()


@pytest.mark.parametrize("name", CODES)
def test_float32_is_accurate_at_all_magnitudes(name):
    """Against the same formula in float64, from 1e-8 to 1e8: where a formula cancels or overflows, they differ."""
    size = np.geomspace(1e-8, 1e8, 401)
    x = np.concatenate([size, -size]).astype(np.float32).reshape(-1, 2)
    dout, slope = np.ones_like(x), ACTIVATIONS[name].slope
    results = []
    for dtype in DTYPES:
        at, out = x.astype(dtype), forward(name, x.astype(dtype), slope)
        dx = np.empty_like(at)
        activation_backward(dx, dout.astype(dtype), out, at, CODES[name], slope)
        results.append((out, dx))
    (out, dx), (expected, dexpected) = results
    check_single_precision(out, expected, abs(x))
    check_single_precision(dx, dexpected, 1)
    with pytest.raises(AssertionError):
        check_single_precision(out + np.float32(1e-4) * x, expected, abs(x))


def test_the_check_of_accuracy_sees_a_formula_that_cancels():
    """log(1 + exp(-|x|)) loses all digits of a small exponential."""
    x = np.geomspace(1e-8, 1e8, 401).astype(np.float32)
    careless, right = np.log(np.float32(1) + np.exp(-x)), np.log1p(np.exp(-x.astype(np.float64)))
    with pytest.raises(AssertionError):
        check_single_precision(careless, right, 0)


@pytest.mark.parametrize("name", CODES)
@given(seed=st.integers(0, 99))
def test_backward_is_the_derivative(name, seed):
    rng = np.random.default_rng(seed)
    x, dout = rng.normal(0, 2, (3, 11)), rng.normal(size=(3, 11))
    x += 1e-3 * np.sign(x)  # off the kink
    slope = ACTIVATIONS[name].slope
    out = forward(name, x, slope)
    seen = x if CODES[name] in NEEDS_INPUT else np.full_like(x, np.nan)  # reading it would show
    dx = np.empty_like(x)
    activation_backward(dx, dout, out, seen, CODES[name], slope)
    expected = reference.differences(lambda at: float((forward(name, at, slope) * dout).sum()), x)
    np.testing.assert_allclose(dx, expected, rtol=1e-6, atol=1e-8)
    activation_backward(dout, dout, out, seen, CODES[name], slope)
    assert np.array_equal(dout, dx), "in place"
    if name != "linear":  # the check would notice a derivative that is off by 1 %
        with pytest.raises(AssertionError):
            np.testing.assert_allclose(1.01 * dx, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", CODES)
def test_nan_passes(name, dtype):
    x = np.zeros((1, 20), dtype)
    x[0, 17] = np.nan
    out = forward(name, x)
    assert np.isnan(out[0, 17])
    assert name == "softmax" or np.isfinite(np.delete(out[0], 17)).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nothing_beyond_the_array_is_written(dtype):
    for width in range(1, 40):
        memory = np.full(width + 32, 9, dtype)
        out = memory[16 : 16 + width].reshape(1, width)
        for code in CODES.values():
            activation_forward(out, np.ones((1, width), dtype), code, 0.2)
            activation_backward(out, out, out, np.ones((1, width), dtype), code, 0.2)
        assert (memory[:16] == 9).all() and (memory[16 + width :] == 9).all()

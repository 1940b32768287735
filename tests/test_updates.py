"""Optimizer kernels against the naive forms in reference.py; how a vector is cut up changes no bit."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from minidl import constraints
from minidl.constraints import MaxNorm, MinMaxNorm, NonNeg, UnitNorm
from minidl.kernels import restraints
from minidl.kernels import updates as kernel

# rule: (the oracle, its options); a rule it does not know is tested without
ORACLE = {
    kernel.SGD: (reference.sgd, {}),
    kernel.MOMENTUM: (reference.sgd, {"momentum": 0.9}),
    kernel.NESTEROV: (reference.sgd, {"momentum": 0.8, "nesterov": True}),
    kernel.ADAM: (reference.adam, {"beta_1": 0.8, "beta_2": 0.99, "epsilon": 1e-3}),
    kernel.AMSGRAD: (reference.adam, {"beta_2": 0.5, "amsgrad": True}),
    kernel.RMSPROP: (reference.rmsprop, {"rho": 0.7, "epsilon": 1e-3}),
    kernel.RMSPROP_MOMENTUM: (reference.rmsprop, {"momentum": 0.6, "epsilon": 1e-4}),
    kernel.RMSPROP_CENTERED: (reference.rmsprop, {"centered": True, "epsilon": 1e-2}),
    kernel.RMSPROP_CENTERED_MOMENTUM: (
        reference.rmsprop, {"centered": True, "momentum": 0.5, "epsilon": 1e-2},
    ),
}  # fmt: skip
DEFAULTS = {"beta_1": 0.9, "beta_2": 0.999, "rho": 0.9, "epsilon": 1e-7, "momentum": 0.0}
TOLERANCE = {np.dtype(np.float32): 2e-5, np.dtype(np.float64): 1e-12}
dtypes = st.sampled_from([np.float32, np.float64])


def hyper_of(kind, weight_decay=0.0):
    settings, options = kernel.SETTINGS[kind], ORACLE.get(kind, (None, {}))[1]
    hyper = np.zeros(8)
    hyper[: len(settings)] = [options.get(name, DEFAULTS.get(name, 0.5)) for name in settings]
    hyper[kernel.WEIGHT_DECAY] = weight_decay
    return hyper


def run(kind, params, gradients, hyper, cuts=(), rate=0.01):
    """Every step on a copy of params, each over the ranges between ``cuts``."""
    params = params.copy()
    slots = [np.zeros(params.size if i in kernel.KEEPS[kind] else 0, params.dtype) for i in range(3)]
    scalars, edges = np.zeros(8), [0, *cuts, params.size]
    for t, grads in enumerate(gradients, 1):
        kernel.step_scalars(scalars, kind, hyper, rate, t)
        for a, b in zip(edges[:-1], edges[1:], strict=True):
            kernel.update(kind, params[a:b], *(slot[a:b] for slot in slots), grads[a:b], scalars)
    return params


def naive(kind, params, gradients, rate=0.01, weight_decay=0.0):
    function, options = ORACLE[kind]
    w, state = params.astype(np.float64), {}
    for grads in gradients:
        w = w - w * weight_decay * rate
        w = function(w, grads.astype(np.float64), state, rate, **options)
    return w


@st.composite
def problems(draw, steps=5):
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    size, dtype = draw(st.integers(1, 150)), draw(dtypes)
    params = rng.standard_normal(size).astype(dtype)
    gradients = (rng.standard_normal((steps, size)) + rng.standard_normal(size)).astype(dtype)
    gradients[:, rng.random(size) < 0.1] = 0  # dead units: never a gradient
    return params, gradients, rng


@pytest.mark.parametrize("kind", kernel.Rule, ids=lambda kind: kind.name)
@given(problem=problems())
def test_cutting_the_vector_changes_no_bit(kind, problem):
    params, gradients, rng = problem
    hyper = hyper_of(kind, weight_decay=0.1)
    whole = run(kind, params, gradients, hyper)
    assert abs(whole - params).max() > 0
    cuts = sorted(rng.integers(0, params.size + 1, 3))
    np.testing.assert_array_equal(run(kind, params, gradients, hyper, cuts), whole)


def check_single_precision(got, expected, params):
    limit = 64 * np.finfo(np.float32).eps * (abs(params) + abs(expected - params))
    assert (abs(got - expected) <= limit).all()


@pytest.mark.parametrize("kind", kernel.Rule, ids=lambda kind: kind.name)
def test_float32_is_accurate_at_all_magnitudes(kind):
    """Against the same rule in float64, for gradients from 1e-8 to 1e8 and parameters of their size."""
    size = np.geomspace(1e-8, 1e8, 401)
    params, hyper = np.concatenate([size, -size]).astype(np.float32), hyper_of(kind)
    gradients = np.stack([params, params * np.float32(0.75), params * np.float32(1.5)])
    expected = run(kind, params.astype(np.float64), gradients.astype(np.float64), hyper)
    got = run(kind, params, gradients, hyper)
    check_single_precision(got, expected, params)
    with pytest.raises(AssertionError):
        check_single_precision(
            got + np.float32(1e-4) * (got - params) + got * np.float32(1e-4), expected, params
        )


@pytest.mark.parametrize("kind", ORACLE, ids=lambda kind: kernel.Rule(kind).name)
@given(problem=problems(), weight_decay=st.sampled_from([0.0, 0.1]))
def test_steps_against_the_textbook(kind, problem, weight_decay):
    params, gradients, _ = problem
    expected = naive(kind, params, gradients, weight_decay=weight_decay)
    hyper = hyper_of(kind, weight_decay)
    whole = run(kind, params, gradients, hyper)
    limit = TOLERANCE[params.dtype]
    np.testing.assert_allclose(whole, expected, rtol=limit, atol=limit)


@pytest.mark.parametrize("kind", ORACLE, ids=lambda kind: kernel.Rule(kind).name)
def test_a_changed_formula_would_be_seen(kind):
    rng = np.random.default_rng(0)
    params, gradients = rng.standard_normal(20), rng.standard_normal((4, 20))
    expected = naive(kind, params, gradients)
    assert abs(params - expected).max() > 1e-3  # nothing done
    for place, name in enumerate(kernel.SETTINGS[kind]):
        hyper = hyper_of(kind)
        if hyper[place] != 0:
            hyper[place] *= 0.5 if name != "epsilon" else 1e4
            assert abs(run(kind, params, gradients, hyper) - expected).max() > 1e-6, name
    decayed = run(kind, params, gradients, hyper_of(kind, weight_decay=0.1))
    assert abs(decayed - expected).max() > 1e-4


@pytest.mark.parametrize("kind", kernel.Rule, ids=lambda kind: kind.name)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_nan_stays_and_spreads_to_no_neighbour(kind, dtype):
    params, gradients = np.ones(40, dtype), np.ones((3, 40), dtype)
    gradients[0, 17] = np.nan
    result = run(kind, params, gradients, hyper_of(kind))
    np.testing.assert_array_equal(np.isnan(result), np.arange(40) == 17)


def test_epsilon_stands_outside_the_corrected_root():
    """One Adam step, by hand: m = 0.1*g, v = 0.001*g*g, w -= lr*sqrt(0.001)/0.1 * m/(sqrt(v) + epsilon)."""
    g, epsilon = 2e-4, 1e-3
    params = np.zeros(1)
    kernel_scalars = np.zeros(8)
    hyper = np.array([0.9, 0.999, epsilon, 0, 0, 0, 0, 0])
    kernel.step_scalars(kernel_scalars, kernel.ADAM, hyper, 1.0, 1)
    empty = np.empty(0)
    kernel.update(kernel.ADAM, params, np.zeros(1), np.zeros(1), empty, np.array([g]), kernel_scalars)
    root = np.sqrt(0.001)
    assert params[0] == pytest.approx(-(root / 0.1) * (0.1 * g) / (root * g + epsilon), rel=1e-12)
    assert params[0] != pytest.approx(-g / (g + epsilon), rel=1e-2)  # epsilon inside, as PyTorch has it


def test_steady_gradient_never_makes_the_centred_root_nan():
    gradients = np.full((300, 5), 1234.567, np.float32)
    assert np.isfinite(
        run(kernel.RMSPROP_CENTERED, np.zeros(5, np.float32), gradients, hyper_of(kernel.RMSPROP_CENTERED))
    ).all()


# ---- sums, clipping, penalties, constraints


@given(st.integers(0, 1200), dtypes, st.integers(0, 100))
def test_sum_of_powers(size, dtype, seed):
    x = np.random.default_rng(seed).standard_normal(size).astype(dtype)
    assert restraints.sum_of_powers(x, 0.0, 1.0) == pytest.approx(
        np.sum(x.astype(np.float64) ** 2), rel=1e-13
    )


def segments_of(sizes):
    return np.array([(sum(sizes[:i]), size) for i, size in enumerate(sizes)])


@given(st.lists(st.integers(1, 300), min_size=1, max_size=4), dtypes, st.floats(0.1, 30), st.integers(0, 99))
def test_clipping(sizes, dtype, limit, seed):
    segments, limit = segments_of(sizes), float(dtype(limit))
    grads = np.random.default_rng(seed).standard_normal(sum(sizes)).astype(dtype)
    rtol = 1e-6 if dtype == np.float32 else 1e-14

    each = grads.copy()
    restraints.clip_by_norm(each, segments, limit)
    for offset, size in segments:
        before, after = grads[offset : offset + size].astype(float), each[offset : offset + size]
        np.testing.assert_allclose(after, before * min(1, limit / np.linalg.norm(before)), rtol=rtol)

    whole = grads.copy()
    restraints.clip_by_global_norm(whole, limit)
    scale = min(1, limit / np.linalg.norm(grads.astype(float)))
    np.testing.assert_allclose(whole, grads * scale, rtol=rtol)
    if scale == 1:
        np.testing.assert_array_equal(whole, grads)

    values = grads.copy()
    restraints.clip_by_value(values, limit)
    np.testing.assert_array_equal(values, np.clip(grads, -limit, limit))


def test_clipping_hides_no_nan():
    bad = np.array([1.0, np.nan, -9.0])
    values, each, whole = bad.copy(), np.concatenate([bad, bad[:1]]), bad.copy()
    restraints.clip_by_value(values, 2.0)
    np.testing.assert_array_equal(values, [1.0, np.nan, -2.0])
    restraints.clip_by_norm(each, np.array([[0, 3], [3, 1]]), 2.0)
    np.testing.assert_array_equal(np.isnan(each), [True, True, True, False])
    restraints.clip_by_global_norm(whole, 2.0)
    assert np.isnan(whole).all()
    infinite = np.array([1.0, np.inf])
    restraints.clip_by_global_norm(infinite, 2.0)
    assert np.isnan(infinite).all()  # as in Keras: the whole step is lost, and seen to be


@given(st.lists(st.integers(1, 600), min_size=1, max_size=3), dtypes, st.integers(0, 99))
def test_regularizer(sizes, dtype, seed):
    rng = np.random.default_rng(seed)
    params, grads = rng.standard_normal((2, sum(sizes))).astype(dtype)
    params[rng.random(params.size) < 0.1] = 0
    segments = segments_of(sizes)
    coefficients = rng.random((len(sizes), 2)) * rng.integers(0, 2, (len(sizes), 2))
    expected, total = grads.astype(np.float64), 0.0
    for (offset, size), (l1, l2) in zip(segments, coefficients, strict=True):
        w = params[offset : offset + size].astype(np.float64)
        expected[offset : offset + size] += l1 * np.sign(w) + 2 * l2 * w
        total += l1 * abs(w).sum() + l2 * (w**2).sum()
    assert restraints.add_regularizer(grads[:0], params, segments, coefficients) == pytest.approx(total)
    assert restraints.add_regularizer(grads, params, segments, coefficients) == pytest.approx(total)
    np.testing.assert_allclose(grads, expected, atol=1e-6 if dtype == np.float32 else 1e-14)


def test_regularizer_gradient_is_that_of_its_value():
    rng = np.random.default_rng(0)
    params, segments, coefficients = rng.standard_normal(20), np.array([[3, 15]]), np.array([[0.3, 0.7]])
    grads = np.zeros(20)
    restraints.add_regularizer(grads, params, segments, coefficients)
    difference = np.empty(20)
    for i in range(20):
        value = []
        for shift in (1e-5, -1e-5):
            moved = params.copy()
            moved[i] += shift
            value.append(restraints.add_regularizer(grads[:0], moved, segments, coefficients))
        difference[i] = (value[0] - value[1]) / 2e-5
    np.testing.assert_allclose(grads, difference, atol=1e-8)
    assert not np.allclose(0.5 * grads, difference, atol=1e-8)  # half a gradient is seen


def test_penalty_of_nan_is_nan():
    grads = np.zeros(2)
    params, coefficients = np.array([1.0, np.nan]), np.array([[0.1, 0.0]])
    assert np.isnan(restraints.add_regularizer(grads, params, np.array([[0, 2]]), coefficients))
    np.testing.assert_array_equal(grads, [0.1, np.nan])


@given(st.integers(1, 40), st.integers(1, 40), dtypes, st.floats(0.1, 5), st.integers(0, 99))
def test_max_norm(rows, columns, dtype, limit, seed):
    params = np.random.default_rng(seed).standard_normal(rows * columns + 3).astype(dtype)
    matrix = params[2:-1].reshape(rows, columns).astype(np.float64)
    ends = params[[0, 1, -1]].copy()
    restraints.constrain(params, np.array([[restraints.NORMS, 2, rows, columns]]), np.array([[0, limit, 1]]))
    np.testing.assert_array_equal(params[[0, 1, -1]], ends)
    got = params[2:-1].reshape(rows, columns)
    np.testing.assert_allclose(
        got, reference.max_norm(matrix, limit), rtol=1e-6 if dtype == np.float32 else 1e-13
    )
    assert np.linalg.norm(got.astype(np.float64), axis=0).max() <= limit * (1 + 1e-6)


CONSTRAINTS = [
    (MaxNorm(1.5), lambda w: reference.max_norm(w, 1.5)),
    (UnitNorm(), reference.unit_norm),
    (MinMaxNorm(1.0, 2.0), lambda w: reference.min_max_norm(w, 1.0, 2.0, 1.0)),
    (MinMaxNorm(1.0, 2.0, 0.3), lambda w: reference.min_max_norm(w, 1.0, 2.0, 0.3)),
    (NonNeg(), lambda w: np.maximum(w, 0)),
]


@given(st.integers(1, 40), st.integers(1, 40), dtypes, st.integers(0, 99))
def test_a_table_of_constraints(rows, columns, dtype, seed):
    """All in one table, each on a weight of its own, with a number between two that none may touch."""
    weights = np.random.default_rng(seed).standard_normal((len(CONSTRAINTS), rows, columns)).astype(dtype)
    weights[:, :, 0] = 0  # a unit without weights
    params = np.full((len(CONSTRAINTS), rows * columns + 1), 7.0, dtype)
    params[:, :-1] = weights.reshape(len(CONSTRAINTS), -1)
    each = rows * columns + 1
    table = constraints.table((c, i * each, (rows, columns)) for i, (c, _) in enumerate(CONSTRAINTS))
    assert len(table[0]) == len(CONSTRAINTS)
    restraints.constrain(params.ravel(), *table)
    np.testing.assert_array_equal(params[:, -1], 7.0)
    for (constraint, expected), found, weight in zip(CONSTRAINTS, params, weights, strict=True):
        found = found[:-1].reshape(rows, columns)
        rtol = 2e-6 if dtype == np.float32 else 1e-13
        np.testing.assert_allclose(found, expected(weight.astype(np.float64)), rtol=rtol)
        np.testing.assert_array_equal(constraint(weight), found)


def test_a_changed_constraint_would_be_seen():
    weight = np.random.default_rng(0).standard_normal((6, 5)) * np.array([0.1, 0.5, 1, 2, 4])
    for constraint, expected in CONSTRAINTS:
        for other, _ in CONSTRAINTS:
            if other is not constraint:
                assert abs(other(weight) - expected(weight)).max() > 1e-3


def test_constraints_hide_no_nan():
    for constraint, _ in CONSTRAINTS:
        weight = np.array([[1.0, 2.0], [np.nan, 0.5]])
        found = constraint(weight)
        assert np.isnan(found[1, 0]) and np.isfinite(found[:, 1]).all(), constraint

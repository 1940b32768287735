"""Supervised losses: values against the oracle and by hand, gradients entry by entry, refusals."""

import inspect
import json
import math
import pickle

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from minidl import losses, metrics
from minidl.kernels import losses as kernels
from minidl.losses.base import LOSSES
from minidl.losses.supervised import CLASS_OF

DTYPES = [np.float32, np.float64]
NO_LABELS = np.empty(0, np.int64)
WIDTHS = st.one_of(st.integers(1, 40), st.sampled_from([1023, 1024, 1025, 2500]))


def one_hot(labels, classes):
    return np.eye(classes)[labels]


def loss_rows(kind, z, labels=NO_LABELS, targets=None, teacher=None, scale=None, gradient=True, **settings):
    """(row_loss, dlogits) of the kernel; settings by their names in hyper."""
    hyper = np.zeros(8)
    settings = {"ignored": -1, **settings} if "ignored" in kernels.SETTINGS.get(kind, ()) else settings
    for name, value in settings.items():
        hyper[kernels.SETTINGS[kind].index(name)] = value
    empty = np.empty((0, 0), z.dtype)
    row_loss = np.full(len(z), np.nan)
    dlogits = np.full_like(z, np.nan) if gradient else empty
    scale = np.ones(len(z)) if scale is None else scale
    arrays = [empty if a is None else np.ascontiguousarray(a, z.dtype) for a in (targets, teacher)]
    kernels.loss_batch(kind, row_loss, dlogits, kernels.Batch(z, labels, *arrays, scale), hyper)
    return row_loss, dlogits


def smoothed(y, amount):
    return y * (1 - amount) + amount / y.shape[-1]


def soft_targets(rng, rows, width):
    return rng.dirichlet(np.ones(width), rows)


def probabilities(rng, rows, width):
    """Away from 0 and 1, where the clipping is."""
    return 0.05 + 0.9 * rng.uniform(size=(rows, width))


# kind: (what z is, what y is, settings, the oracle of (y, z))
KINDS = {
    "CATEGORICAL_CROSSENTROPY": ("logits", "soft", {}, reference.crossentropy),
    "CATEGORICAL_CROSSENTROPY smoothed": (
        "logits", "soft", {"label_smoothing": 0.2},
        lambda y, z: reference.crossentropy(smoothed(y, 0.2), z),
    ),
    "SPARSE_CATEGORICAL_CROSSENTROPY": ("logits", "labels", {}, reference.crossentropy),
    "BINARY_CROSSENTROPY": ("logits", "bits", {}, reference.binary_crossentropy),
    "BINARY_CROSSENTROPY smoothed": (
        "logits", "bits", {"label_smoothing": 0.2},
        lambda y, z: reference.binary_crossentropy(0.8 * y + 0.1, z),
    ),
    "MEAN_SQUARED_ERROR": ("logits", "real", {}, reference.squared_error),
    "HALF_MEAN_SQUARED_ERROR": ("logits", "real", {}, lambda y, z: 0.5 * ((y - z) ** 2).sum(axis=-1)),
    "MEAN_ABSOLUTE_ERROR": ("logits", "real", {}, reference.absolute_error),
    "HUBER": ("logits", "real", {"delta": 1.3}, lambda y, z: reference.huber(y, z, 1.3)),
    "LOG_COSH": ("logits", "real", {}, reference.log_cosh),
    "MEAN_ABSOLUTE_PERCENTAGE_ERROR": ("logits", "real", {}, reference.percentage_error),
    "MEAN_SQUARED_LOGARITHMIC_ERROR": ("probs", "bits", {}, reference.logarithmic_error),
    "POISSON": ("probs", "bits", {}, reference.poisson),
    "HINGE": ("logits", "real", {}, reference.hinge),
    "SQUARED_HINGE": ("logits", "real", {}, lambda y, z: reference.hinge(y, z, power=2)),
    "CATEGORICAL_HINGE": ("logits", "soft", {}, reference.categorical_hinge),
    "COSINE_SIMILARITY": ("logits", "real", {}, reference.cosine_similarity),
    "BINARY_FOCAL_CROSSENTROPY": (
        "logits", "bits", {"gamma": 2.0}, lambda y, z: reference.binary_focal(y, z, 2.0),
    ),
    "BINARY_FOCAL_CROSSENTROPY balanced": (
        "logits", "bits", {"label_smoothing": 0.2, "gamma": 1.5, "alpha": 0.3, "apply_class_balancing": 1.0},
        lambda y, z: reference.binary_focal(0.8 * y + 0.1, z, 1.5, 0.3),
    ),
    "BINARY_FOCAL_CROSSENTROPY_ON_PROBS": (
        "probs", "bits", {"gamma": 0.5, "alpha": 0.3, "apply_class_balancing": 1.0},
        lambda y, p: reference.binary_focal(y, p, 0.5, 0.3, on_probs=True),
    ),
    "CATEGORICAL_FOCAL_CROSSENTROPY": (
        "logits", "soft", {"gamma": 2.0, "alpha": 0.25},
        lambda y, z: reference.categorical_focal(y, z, 2.0, 0.25),
    ),
    "CATEGORICAL_FOCAL_CROSSENTROPY smoothed": (
        "logits", "soft", {"label_smoothing": 0.2, "gamma": 1.5, "alpha": 0.6},
        lambda y, z: reference.categorical_focal(smoothed(y, 0.2), z, 1.5, 0.6),
    ),
    "CATEGORICAL_FOCAL_CROSSENTROPY_ON_PROBS": (
        "probs", "soft", {"gamma": 0.5, "alpha": 0.6},
        lambda y, p: reference.categorical_focal(y, p, 0.5, 0.6, on_probs=True),
    ),
    "KL_DIVERGENCE": ("probs", "soft", {}, reference.kl_divergence),
    "CATEGORICAL_CROSSENTROPY_ON_PROBS": ("probs", "soft", {}, reference.crossentropy_on_probs),
    "SPARSE_CATEGORICAL_CROSSENTROPY_ON_PROBS": ("probs", "labels", {}, reference.crossentropy_on_probs),
    "BINARY_CROSSENTROPY_ON_PROBS": ("probs", "bits", {}, reference.binary_crossentropy_on_probs),
}  # fmt: skip


def example(name, rows, width, seed, dtype=np.float64):
    """(kernel arguments, dense y, oracle)."""
    z_is, y_is, settings, oracle = KINDS[name]
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 2, (rows, width)) if z_is == "logits" else probabilities(rng, rows, width)
    labels, targets = NO_LABELS, None
    if y_is == "labels":
        labels = rng.integers(0, width, rows)
        y = one_hot(labels, width)
    elif y_is == "real":
        y = targets = rng.normal(0, 2, (rows, width))
    else:
        y = targets = soft_targets(rng, rows, width) if y_is == "soft" else rng.uniform(size=(rows, width))
    arguments = dict(z=z.astype(dtype), labels=labels, targets=targets, **settings)
    return getattr(kernels, name.split()[0]), arguments, y, oracle


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KINDS)
@given(rows=st.integers(1, 3), width=WIDTHS, seed=st.integers(0, 99))
def test_value(name, dtype, rows, width, seed):
    kind, arguments, y, oracle = example(name, rows, width, seed, dtype)
    value, _ = loss_rows(kind, **arguments)
    y, z = y.astype(dtype).astype(np.float64), arguments["z"].astype(np.float64)
    tolerance = 300 * np.finfo(dtype).eps
    np.testing.assert_allclose(value, oracle(y, z), rtol=tolerance, atol=tolerance)
    alone, _ = loss_rows(kind, **arguments, gradient=False)
    assert np.array_equal(alone, value), "the value does not depend on whether the gradient is wanted"


def check_gradient(dlogits, expected):
    np.testing.assert_allclose(dlogits, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", KINDS)
@given(width=st.integers(1, 20), seed=st.integers(0, 99))
def test_gradient(name, width, seed):
    kind, arguments, y, oracle = example(name, 3, width, seed)
    if name in ("MEAN_ABSOLUTE_ERROR", "HUBER", "MEAN_ABSOLUTE_PERCENTAGE_ERROR"):
        e = arguments["z"] - y
        e = np.where(np.abs(e) < 1e-3, 0.1, e)  # off the kinks
        arguments["z"] = y + np.where(np.abs(np.abs(e) - 1.3) < 1e-3, 1.1 * e, e)
    scale = np.array([1.0, 0.5, 0.0])
    value, dlogits = loss_rows(kind, **arguments, scale=scale)
    expected = reference.differences(lambda z: float(oracle(y, z) @ scale), arguments["z"])
    check_gradient(dlogits, expected)
    assert np.all(dlogits[2] == 0) and value[2] == 0
    if np.abs(expected).max() > 0.01:
        for wrong in (np.zeros_like(dlogits), 1.01 * dlogits):  # the check can fail
            with pytest.raises(AssertionError):
                check_gradient(wrong, expected)


# ---- every loss of the kernels' table, also one that the oracle does not know

DISTILLING = [kind for kind in kernels.Loss if "hard_weight" in kernels.SETTINGS[kind]]
ON_PROBS = [
    kind
    for kind in kernels.Loss
    if kind.name.endswith("_ON_PROBS") or kind.name in ("KL_DIVERGENCE", "POISSON")
]
OF_TARGETS = [kind for kind in DISTILLING if kind.name.startswith(("BINARY_", "REGRESSION_", "TEACHER_"))]
SETTINGS = {
    "temperature": 3.0, "hard_weight": 0.4, "delta": 1.3, "label_smoothing": 0.0, "standardize": 0.0,
    "ignored": -1.0,
}  # fmt: skip


def any_loss(kind, z, labels, targets, teacher=None, gradient=True):
    sparse = kind.name.startswith("SPARSE_") or (kind in DISTILLING and kind not in OF_TARGETS)
    settings = {name: SETTINGS.get(name, 0.7) for name in kernels.SETTINGS[kind]}
    y = dict(labels=labels) if sparse else dict(targets=targets)
    return loss_rows(
        kind, z, **y, teacher=teacher if kind in DISTILLING else None, gradient=gradient, **settings
    )


@pytest.mark.parametrize("classes", [2, 5, 40])
@pytest.mark.parametrize("kind", kernels.Loss, ids=lambda kind: kind.name)
def test_gradient_is_that_of_the_value(kind, classes):
    rng = np.random.default_rng(classes)
    z, teacher = rng.normal(0, 1, (2, 4, classes))
    if kind in ON_PROBS:
        z = probabilities(rng, 4, classes)
    labels, targets = rng.integers(0, classes, 4), soft_targets(rng, 4, classes)
    _, dlogits = any_loss(kind, z, labels, targets, teacher)
    expected = reference.differences(
        lambda at: float(any_loss(kind, at, labels, targets, teacher, gradient=False)[0].sum()), z
    )
    check_gradient(dlogits, expected)
    with pytest.raises(AssertionError):
        check_gradient(1.01 * dlogits, expected)


def check_single_precision(got, expected, size):
    limit = 64 * np.finfo(np.float32).eps * (abs(expected) + size)
    assert (abs(got - expected) <= limit).all()


@pytest.mark.parametrize(
    "kind", [kind for kind in kernels.Loss if kind not in DISTILLING], ids=lambda kind: kind.name
)
def test_float32_is_accurate_at_all_magnitudes(kind):
    """Against the same formula in float64, from 1e-8 to 1e8: relatively, where no error means a loss of 0."""
    size = np.geomspace(1.1e-8, 0.6 if kind in ON_PROBS else 1.1e8, 321)
    z = np.stack([size, -0.3 * size, 0.5 * size], axis=1).astype(np.float32)
    if kind in ON_PROBS:
        z[:, 1:] = 0.4, 0.5
    labels = np.arange(len(z)) % 3
    for targets in (np.zeros(z.shape), one_hot(labels, 3)):
        at_zero = (
            any_loss(kind, np.zeros((1, 3)), labels[:1], targets[:1])[0][0] if kind not in ON_PROBS else 1.0
        )
        slack = np.zeros(len(z)) if at_zero == 0 else 1.0 + abs(z).max(axis=1) * (kind not in ON_PROBS)
        expected, dexpected = any_loss(kind, z.astype(np.float64), labels, targets)
        value, dlogits = any_loss(kind, z, labels, targets)
        check_single_precision(value, expected, slack)
        check_single_precision(dlogits, dexpected, float(at_zero != 0))


TEMPERATURES = np.geomspace(1e-8, 1e8, 17)


def near_and_far(classes):
    """Logits of a student far from its teacher and of one close to it, each with the teacher's."""
    rng = np.random.default_rng(classes)
    z, v = rng.normal(0, 3, (2, 6, classes))
    return [(a.astype(np.float32), v.astype(np.float32)) for a in (z, v + 1e-3 * z)]


def check_to_a_part_in(limit, got, expected, slack=1e-28):
    assert (abs(got - expected) <= limit * abs(expected).max() + slack).all()


@pytest.mark.parametrize("kind", DISTILLING, ids=lambda kind: kind.name)
def test_float32_is_accurate_at_all_temperatures(kind):
    """Value and gradient against float64, where the student is near the teacher, too, and where T makes it so."""
    settings = {name: SETTINGS.get(name, 0.7) for name in kernels.SETTINGS[kind]} | {"hard_weight": 0.0}
    for classes in (2, 5, 40):
        labels = np.arange(6) % classes
        for z, v in near_and_far(classes):
            for temperature in TEMPERATURES if "temperature" in settings else [1.0]:  # LogitMatching has none
                if "temperature" in settings:
                    settings["temperature"] = temperature
                value, dlogits = loss_rows(kind, z, labels, teacher=v, **settings)
                z64, v64 = z.astype(np.float64), v.astype(np.float64)
                expected, dexpected = loss_rows(kind, z64, labels, teacher=v64, **settings)
                assert (expected >= 0).all()
                for row in range(len(z)):
                    check_to_a_part_in(3e-5, value[row], expected[row])
                    # where both are one-hot to 14 digits, what is left of the gradient matters little
                    check_to_a_part_in(
                        3e-5, dlogits[row], dexpected[row], slack=1e-14 * min(temperature, 1.0)
                    )


def test_the_divergence_is_right_at_all_temperatures():
    """T^2 KL(p || q) in float64 against extended precision, and the check sees the textbook's p (log p - log q)."""
    kind = kernels.Loss.KNOWLEDGE_DISTILLATION
    settings = {"hard_weight": 0.0, "soft_weight": 1.0, "standardize": 0.0}
    for z, v in near_and_far(20):
        z, v = z.astype(np.longdouble), v.astype(np.longdouble)
        for temperature in TEMPERATURES[TEMPERATURES >= 1]:
            log_q, log_p = (
                a / temperature - np.logaddexp.reduce(a / temperature, -1, keepdims=True) for a in (z, v)
            )
            p, d = np.exp(log_p), log_q - log_p
            small = abs(d) < 1e-4
            excess = np.where(small, d * d * (0.5 + d * (1 / 6 + d / 24)), np.expm1(d) - d)
            expected, gradient = temperature**2 * (p * excess).sum(-1), temperature * p * np.expm1(d)
            given = z.astype(np.float64), np.zeros(len(z), np.int64)
            value, dlogits = loss_rows(
                kind, *given, teacher=v.astype(float), temperature=temperature, **settings
            )
            check_to_a_part_in(1e-6, value, expected)
            check_to_a_part_in(1e-6, dlogits, gradient)
    single_p, single_d = p.astype(np.float32), (log_p - log_q).astype(np.float32)
    with pytest.raises(AssertionError):
        check_to_a_part_in(1e-4, temperature**2 * (single_p * single_d).sum(-1), expected)


def test_the_check_of_accuracy_sees_a_formula_that_cancels():
    """The textbook's log(cosh(e)) is 17 % off at e = 1e-3 in float32."""
    e = np.geomspace(1e-3, 10, 50).astype(np.float32)
    careless = abs(e) + np.log1p(np.exp(-2 * abs(e))) - np.log(np.float32(2))
    right = np.log1p(2 * np.sinh(e.astype(np.float64) / 2) ** 2)
    with pytest.raises(AssertionError):
        check_single_precision(careless, right, 0.0)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", KINDS)
def test_rows_are_independent(name, dtype):
    kind, arguments, _, _ = example(name, 5, 19, 0, dtype)
    _, whole = loss_rows(kind, **arguments)
    part = {
        key: value[2:4] if isinstance(value, np.ndarray) and value.size else value
        for key, value in arguments.items()
    }
    assert np.array_equal(loss_rows(kind, **part)[1], whole[2:4])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width", [1, 2, 5, 16, 17, 40])
def test_sparse_is_categorical_on_one_hot_rows_to_the_bit(width, dtype):
    rng = np.random.default_rng(width)
    z, labels = rng.normal(size=(6, width)).astype(dtype), rng.integers(0, width, 6)
    sparse = loss_rows(kernels.SPARSE_CATEGORICAL_CROSSENTROPY, z, labels)
    dense = loss_rows(kernels.CATEGORICAL_CROSSENTROPY, z, targets=one_hot(labels, width))
    assert np.array_equal(sparse[1], dense[1])
    np.testing.assert_allclose(sparse[0], dense[0], rtol=1e-6, atol=1e-7)


def test_an_unlabelled_row_adds_nothing():
    z = np.random.default_rng(0).normal(size=(2, 4))
    value, dlogits = loss_rows(kernels.SPARSE_CATEGORICAL_CROSSENTROPY, z, np.array([-1, 2]))
    assert value[0] == 0 and value[1] > 0 and np.all(dlogits[0] == 0) and np.all(dlogits[1] != 0)


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="kind must be a member of Loss, got 99"):
        loss_rows(99, np.zeros((2, 3)))


@pytest.mark.parametrize("dtype", DTYPES)
def test_exact_at_extreme_logits(dtype):
    z = np.array([[1e4, 0, -1e4], [-1e4, 0, 1e4]], dtype)
    value, dlogits = loss_rows(kernels.SPARSE_CATEGORICAL_CROSSENTROPY, z, np.array([0, 0]))
    assert np.array_equal(value, [0, 2e4]) and np.array_equal(dlogits, [[0, 0, 0], [-1, 0, 1]])
    value, dlogits = loss_rows(kernels.BINARY_CROSSENTROPY, z, targets=np.array([[1, 1, 0], [1, 1, 0]]))
    np.testing.assert_allclose(value, [math.log(2) / 3, (2e4 + math.log(2)) / 3], rtol=1e-6)
    np.testing.assert_allclose(dlogits, np.array([[0, -0.5, 0], [-1, -0.5, 1]]) / 3, rtol=1e-6)


@pytest.mark.parametrize("name", KINDS)
def test_nan_is_seen(name):
    kind, arguments, _, _ = example(name, 2, 18, 0)
    arguments["z"][1, 17] = np.nan
    value, dlogits = loss_rows(kind, **arguments)
    assert np.isfinite(value[0]) and np.isnan(value[1]) and np.isnan(dlogits[1, 17])


def test_clipped_probabilities_have_no_gradient():
    """Keras clips to [1e-7, 1 - 1e-7]; beyond, the loss is constant."""
    z = np.array([[1.0, 0.0, 0.5]])
    _, dlogits = loss_rows(kernels.BINARY_CROSSENTROPY_ON_PROBS, z, targets=np.array([[0.0, 1, 1]]))
    # -(1/3) / 0.5 for the last
    np.testing.assert_allclose(dlogits, [[0, 0, -2 / 3]], rtol=1e-12)


# ---- the public classes ----


def test_values_worked_by_hand():
    y, probs = [[0.0, 1, 0], [0, 0, 1]], [[0.05, 0.95, 0], [0.1, 0.8, 0.1]]
    # -ln 0.95 = 0.0512933, -ln 0.1 = 2.3025851: the mean is 1.1769392 (the example of Keras's page)
    assert losses.CategoricalCrossentropy()(y, probs) == pytest.approx(1.1769392, rel=1e-6)
    assert losses.SparseCategoricalCrossentropy()([1, 2], probs) == pytest.approx(1.1769392, rel=1e-6)
    np.testing.assert_allclose(losses.categorical_crossentropy(y, probs), [0.0512933, 2.3025851], rtol=1e-6)
    # y 1 -> z: ln(1 + e^-z), y 0 -> ln(1 + e^z): ln(1 + e^18.6) = 18.6, ln(1 + e^-0.51) = 0.470313,
    # ln(1 + e^2.94) = 2.991516, ln(1 + e^12.8) = 12.800003; their mean 8.715458
    binary = losses.BinaryCrossentropy(from_logits=True)
    assert binary([[0.0, 1], [0, 0]], [[18.6, 0.51], [2.94, 12.8]]) == pytest.approx(8.715458, rel=1e-6)
    y, pred = [[0.0, 1], [0, 0]], [[1.0, 1], [1, 0]]
    assert losses.MeanSquaredError()(y, pred) == 0.5  # (1 + 0)/2 and (1 + 0)/2
    assert losses.HalfMeanSquaredError()(y, pred) == 0.5  # 1/(2*2) (1 + 1)
    assert losses.MeanAbsoluteError()(y, [[3.0, 1], [1, 0]]) == 1.0  # 3/2 and 1/2
    # 1 * 3 - 1/2 = 2.5 beyond delta, 0.5^2/2 = 0.125 within: means 1.25 and 0.0625
    assert losses.Huber()(y, [[3.0, 1], [0.5, 0]]) == pytest.approx((1.25 + 0.0625) / 2)
    # 0.5 ln(0.5/0.25) + 0.5 ln(0.5/0.75) = 0.346574 - 0.202733
    assert losses.KLDivergence()([[0.5, 0.5]], [[0.25, 0.75]]) == pytest.approx(0.143841, rel=1e-5)
    # sample_weight: (2 * 0.5 + 0 * 0.5) / 2
    assert losses.MeanSquaredError()([[0.0, 1], [0, 0]], pred, sample_weight=[2, 0]) == 0.5


def test_value_and_grad_by_hand():
    # softmax((0, ln 3)) = (1/4, 3/4); label 1: loss ln(4/3), gradient (1/4, -1/4); label 0: ln 4, (-3/4, 3/4)
    z = np.array([[0.0, math.log(3)], [0.0, math.log(3)]])
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    value, dlogits = loss.value_and_grad(z, [1, 0])
    assert value == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)
    np.testing.assert_allclose(dlogits, [[1 / 8, -1 / 8], [-3 / 8, 3 / 8]], rtol=1e-14)
    value, dlogits = loss.value_and_grad(z, [1, 0], sample_weight=[1, 0])
    assert value == pytest.approx(math.log(4 / 3) / 2)
    np.testing.assert_allclose(dlogits, [[1 / 8, -1 / 8], [0, 0]], rtol=1e-14, atol=0)
    value, dlogits = losses.HalfMeanSquaredError().value_and_grad([[3.0], [1.0]], [[1.0], [1.0]])
    assert value == 1.0 and np.array_equal(dlogits, [[1.0], [0.0]])  # 1/(2B) sum, (yhat - y)/B


@pytest.mark.parametrize("dtype", DTYPES)
def test_dtypes(dtype):
    z = np.zeros((2, 3), dtype)
    _, dlogits = losses.CategoricalCrossentropy().value_and_grad(z, np.eye(3, dtype=np.int8)[:2])
    assert dlogits.dtype == dtype and dlogits.flags.c_contiguous
    assert losses.mean_squared_error(z, z + 1).dtype == dtype
    _, dlogits = losses.MeanSquaredError().value_and_grad(np.zeros((2, 3), np.uint8), np.zeros((2, 3)))
    assert dlogits.dtype == np.float64
    strided = np.arange(12.0).reshape(3, 4).T[::2]
    value, _ = losses.MeanSquaredError().value_and_grad(strided, np.zeros((2, 3)))
    assert value == pytest.approx(np.mean(strided**2))


def test_functions_keep_leading_axes():
    rng = np.random.default_rng(0)
    z, labels = rng.normal(size=(2, 3, 4)), rng.integers(0, 4, (2, 3))
    got = losses.sparse_categorical_crossentropy(labels, z, from_logits=True)
    np.testing.assert_allclose(got, reference.crossentropy(one_hot(labels, 4), z), rtol=1e-12)
    assert losses.half_mean_squared_error([1.0, 2.0], [1.0, 4.0]) == 2.0


@pytest.mark.parametrize("function, cls", CLASS_OF.items(), ids=lambda thing: thing.__name__)
def test_functions_are_made_from_their_classes(function, cls):
    assert getattr(losses, function.__name__) is function and type(losses.get(function)) is cls
    assert function.__name__ in losses.__all__ and cls.__name__ in losses.__all__
    assert type(losses.get(function.__name__)) is cls
    assert pickle.loads(pickle.dumps(function)) is function
    assert inspect.cleandoc(cls.__doc__) in function.__doc__ and f"`{cls.__name__}`" in function.__doc__
    own = [name for name in inspect.signature(cls).parameters if name not in ("reduction", "name")]
    assert list(inspect.signature(function).parameters) == ["y_true", "y_pred", *own]
    y, pred = ([1], [[0.25, 0.75]]) if cls.sparse else ([[0.0, 1.0]], [[0.25, 0.75]])
    assert function(y, pred)[0] == pytest.approx(cls()(y, pred)) == function(y_pred=pred, y_true=y)[0]
    for bad in (dict(gama=1.0), dict(reduction="mean"), dict(name="mine")):
        with pytest.raises(
            TypeError, match=rf"{function.__name__}\(\) got an unexpected keyword .*{[*bad][0]}"
        ):
            function(y, pred, **bad)
    with pytest.raises(TypeError, match=rf"{function.__name__}\(\) missing a required argument: 'y_pred'"):
        function(y)
    with pytest.raises(TypeError, match=rf"{function.__name__}\(\) too many positional arguments"):
        function(y, pred, *(0.5 for _ in own), "mean")


def test_every_supervised_loss_has_its_function():
    assert set(CLASS_OF.values()) == {cls for cls in LOSSES.classes.values() if not cls.distills}
    assert "delta" in inspect.signature(losses.huber).parameters
    assert "delta" not in inspect.signature(losses.mean_squared_error).parameters


ALIASES = {
    "mse": losses.MeanSquaredError, "MSE": losses.MeanSquaredError, "mae": losses.MeanAbsoluteError,
    "bce": losses.BinaryCrossentropy, "kld": losses.KLDivergence, "huber": losses.Huber,
    "categorical_crossentropy": losses.CategoricalCrossentropy, "KLDivergence": losses.KLDivergence,
    "sparse_categorical_crossentropy": losses.SparseCategoricalCrossentropy,
    "half_mean_squared_error": losses.HalfMeanSquaredError, "kl_divergence": losses.KLDivergence,
    "knowledge_distillation": losses.KnowledgeDistillation, "DIST": losses.DIST,
    "mape": losses.MeanAbsolutePercentageError, "MSLE": losses.MeanSquaredLogarithmicError,
    "log_cosh": losses.LogCosh, "poisson": losses.Poisson, "hinge": losses.Hinge,
    "squared_hinge": losses.SquaredHinge, "categorical_hinge": losses.CategoricalHinge,
    "cosine_similarity": losses.CosineSimilarity,
    "binary_focal_crossentropy": losses.BinaryFocalCrossentropy,
    "categorical_focal_crossentropy": losses.CategoricalFocalCrossentropy,
}  # fmt: skip


def test_get():
    for name, cls in ALIASES.items():
        assert type(losses.get(name)) is cls
    loss = losses.Huber(2.0)
    assert losses.get(loss) is loss and losses.get(None) is None
    assert type(losses.get(losses.Huber)) is losses.Huber and type(losses.get(losses.huber)) is losses.Huber
    for loss in (losses.Huber(2.0), losses.CategoricalCrossentropy(True, 0.1), losses.BinaryCrossentropy()):
        config = json.loads(json.dumps(losses.serialize(loss)))
        again = losses.deserialize(config)
        assert type(again) is type(loss) and again.get_config() == loss.get_config()
    with pytest.raises(ValueError, match="'categorical_crosentropy': did you mean 'categorical_cross"):
        losses.get("categorical_crosentropy")
    with pytest.raises(TypeError, match="loss must be a name, a config or a Loss"):
        losses.get(metrics.Accuracy())
    with pytest.raises(TypeError, match="loss must be .* got 3"):
        losses.get(3)


Z = np.zeros((2, 3))
MSE = losses.MeanSquaredError().value_and_grad
SPARSE = losses.SparseCategoricalCrossentropy().value_and_grad
CATEGORICAL = losses.CategoricalCrossentropy().value_and_grad


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: losses.Huber(delta=0), "delta must be > 0, got 0"),
        (lambda: losses.CategoricalCrossentropy(label_smoothing=1.5), "must be <= 1, got 1.5"),
        (lambda: losses.CategoricalCrossentropy(from_logits="yes"), "from_logits must be True or False"),
        (lambda: losses.MeanSquaredError(reduction="max"), "reduction must be one of 'sum_over_batch_size'"),
        (lambda: losses.MeanSquaredError(None).value_and_grad(Z, Z), "reduction of loss .* is None"),
        (lambda: losses.CosineSimilarity(axis=0), "axis must be one of -1, 1, got 0"),
        (lambda: losses.cosine_similarity(Z[None], Z[None], axis=1), "axis must be -1 or 2, the last of y_pred"),
        (lambda: losses.Hinge()([[0.0, 1], [1, -1]], Z[:, :2]), "y_true must hold -1 and 1, or .*, got zeros and -1"),
        (lambda: losses.BinaryFocalCrossentropy(gamma=-1), "gamma must be >= 0, got -1"),
        (lambda: losses.BinaryFocalCrossentropy(alpha=2), "alpha must be <= 1, got 2"),
        (lambda: losses.CategoricalFocalCrossentropy(alpha=[0.5, 1]), "alpha must be a number"),
        (lambda: losses.SparseCategoricalCrossentropy(ignore_class=0.5), "ignore_class must be an integer"),
        (lambda: losses.SparseCategoricalCrossentropy(True, 7)([7, 8], Z), "in 0..2 .* or the ignored 7, got 8"),
        (lambda: MSE(Z, Z[:1]), "y must have one row per sample"),
        (lambda: MSE(Z, Z[:, :2]), r"y must have shape \(N, 3\), got \(2, 2\)"),
        (lambda: MSE(Z[0], Z), r"logits must have shape \(B, C\), got \(3,\)"),
        (lambda: MSE(Z + np.inf, Z), r"logits must be finite, got inf at"),
        (lambda: MSE(Z, None), "y must be given, got None: mean_squared_error learns from labels"),
        (lambda: SPARSE(Z, [0, 3]), "whole numbers in 0..2 .* got 3 at index 1"),
        (lambda: SPARSE(Z, [0, -1]), "whole numbers in 0..2 .* got -1 at index 1"),
        (lambda: CATEGORICAL(Z, [0, 1]), "sparse_categorical_crossentropy"),
        (lambda: CATEGORICAL(Z, Z + 2), r"y must be in \[0, 1\] .* got 2"),
        (lambda: losses.BinaryCrossentropy()(Z, Z + 5), "y_pred must be in .*from_logits=True"),
        (lambda: MSE(Z, Z, [1, -1]), "sample_weight must be >= 0, got -1 at index 1"),
        (lambda: MSE(Z, Z, [1]), "sample_weight must have one row per sample"),
        (lambda: losses.mean_squared_error(Z, Z[:, :2]), r"the shape of y_pred \(2, 2\), got \(2, 3\)"),
        (lambda: losses.sparse_categorical_crossentropy([0], Z), r"y_true must have shape \(2,\) for y_pred"),
    ],
)  # fmt: skip
def test_refusals(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.mark.parametrize(
    "name, expected",  # Keras 3's
    [
        ("MeanSquaredError", 0.06597222),
        ("MeanAbsoluteError", 0.20833333),
        ("Huber", 0.03298611),
        ("BinaryCrossentropy", 0.50022984),
        ("CategoricalCrossentropy", 2.3905737),
        ("KLDivergence", -0.07852347),
        ("HalfMeanSquaredError", 0.03298611),  # not in Keras: a half of the mean of squares
    ],
)
def test_two_vectors(name, expected):
    """They are one sample, as in Keras. Weights of their entries would mean nothing there: they are refused."""
    y, pred = np.array([0, 1, 2, 3]) / 3, np.array([0.5, 1.5, 1, 2]) / 2
    loss = getattr(losses, name)()
    assert loss(y, pred) == loss(list(y), list(pred)) == pytest.approx(expected, rel=1e-6)
    if name != "HalfMeanSquaredError":
        assert loss(y, pred) == pytest.approx(loss(y[None], pred[None]))
        with pytest.raises(ValueError, match=r"sample_weight needs y_pred of shape \(B, C\), got \(4,\)"):
            loss(y, pred, sample_weight=[1, 2, 0, 0.5])

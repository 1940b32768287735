"""Distillation losses of sigmoids and of regression: values by an oracle and by hand, gradients, identities, refusals.

z are the student's outputs (of sigmoids the logits), v the teacher's, y the targets.
"""

import json
import math

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from minidl import losses
from minidl.gradcheck import check_gradients
from minidl.kernels.elementary import log1p_remainder
from minidl.kernels.jit import jit
from minidl.layers import Dense
from minidl.losses import (
    BinaryCrossentropy,
    BinaryKnowledgeDistillation,
    KnowledgeDistillation,
    MeanSquaredError,
    Ramp,
    RegressionDistillation,
    TeacherBoundedRegression,
)
from minidl.models import Sequential

WIDTHS = st.one_of(st.integers(1, 20), st.sampled_from([1023, 1025]))
TEMPERATURES = [1e-3, 0.1, 1.0, 4.0, 100.0, 1e6]


def draw(seed, rows=4, outputs=3, spread=2.0):
    rng = np.random.default_rng(seed)
    z, v = rng.normal(0, spread, (2, rows, outputs))
    return z, v, rng.integers(0, 2, (rows, outputs)).astype(float)


def summed_crossentropy(y, z):
    return y.shape[1] * reference.binary_crossentropy(y, z)


# name -> (loss, per-sample oracle of (z, v, y))
LOSSES = {
    "sigmoids": (
        BinaryKnowledgeDistillation(4.0, 0.1, 0.9),
        lambda z, v, y: 0.1 * summed_crossentropy(y, z) + 0.9 * 16 * reference.sigmoid_kl(v, z, 4.0),
    ),
    "sigmoids at T 1": (
        BinaryKnowledgeDistillation(1.0, 0.5, 2.0),
        lambda z, v, y: 0.5 * summed_crossentropy(y, z) + 2.0 * reference.sigmoid_kl(v, z, 1.0),
    ),
    "regression": (
        RegressionDistillation(0.3, 0.6),
        lambda z, v, y: 0.3 * reference.squared_error(y, z) + 0.6 * reference.squared_error(v, z),
    ),
    "bounded": (
        TeacherBoundedRegression(0.0, 1.0, 0.5),
        lambda z, v, y: reference.squared_error(y, z) + 0.5 * reference.bounded_error(y, z, v, 0.0),
    ),
    "bounded by a margin": (
        TeacherBoundedRegression(3.0, 0.4, 2.0),
        lambda z, v, y: 0.4 * reference.squared_error(y, z) + 2.0 * reference.bounded_error(y, z, v, 3.0),
    ),
}


def check(got, expected, rtol=1e-9, atol=1e-10):
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 999), rows=st.integers(1, 4), outputs=st.integers(1, 20))
def test_value_and_gradient(name, seed, rows, outputs):
    loss, oracle = LOSSES[name]
    z, v, y = draw(seed, rows, outputs)
    weight = np.linspace(0.0, 2.0, rows)
    value, dlogits = loss.value_and_grad(z, y, v)
    check(value, oracle(z, v, y).mean())
    assert loss(y, z, v) == value
    expected = reference.differences(lambda at: oracle(at, v, y).mean(), z)
    check(dlogits, expected, rtol=2e-5, atol=1e-7)
    value, weighted = loss.value_and_grad(z, y, v, sample_weight=weight)
    check(value, (weight * oracle(z, v, y)).sum() / rows)
    check(weighted, dlogits * weight[:, None])
    for wrong in (np.zeros_like(dlogits), dlogits * 1.01):  # the check can fail
        with pytest.raises(AssertionError):
            check(wrong, expected, rtol=2e-5, atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("outputs", [1, 5, 16, 33, 1500])
def test_float32_follows_float64(name, outputs):
    loss, _ = LOSSES[name]
    z, v, y = (a.astype(np.float32) for a in draw(outputs, 5, outputs))
    value, dlogits = loss.value_and_grad(z, y, v)
    exact, dexact = loss.value_and_grad(z.astype(float), y.astype(float), v.astype(float))
    assert dlogits.dtype == np.float32
    check(value, exact, rtol=2e-5)
    check(dlogits, dexact, rtol=1e-4, atol=1e-6)


def test_the_gradients_of_the_docstrings():
    z, v, y = draw(1)
    o = 1 / (1 + np.exp(-z))
    q, p = 1 / (1 + np.exp(-z / 3)), 1 / (1 + np.exp(-v / 3))
    _, dlogits = BinaryKnowledgeDistillation(3.0, 0.2, 0.7).value_and_grad(z, y, v)
    check(dlogits, (0.2 * (o - y) + 0.7 * 3 * (q - p)) / 4)
    _, dlogits = RegressionDistillation(0.2, 0.7).value_and_grad(z, y, v)
    check(dlogits, 2 / 3 * (0.2 * (z - y) + 0.7 * (z - v)) / 4)


# ---- numbers worked by hand ----


def test_by_hand():
    # T = 2, z = 2 ln 3: q = 3/4, and o = 9/10; v = 0: p = 1/2. KL = 1/2 ln(1/2 / 3/4) + 1/2 ln(1/2 / 1/4)
    z, v = np.array([[2 * math.log(3)]]), np.array([[0.0]])
    value, dlogits = BinaryKnowledgeDistillation(2.0, 0.1, 0.9).value_and_grad(z, [1.0], v)
    assert value == pytest.approx(0.1 * math.log(10 / 9) + 3.6 * (math.log(2) - 0.5 * math.log(3)), rel=1e-13)
    # 0.1 (9/10 - 1) + 0.9 * 2 * (3/4 - 1/2)
    check(dlogits, [[0.44]])
    # y = 1, o = 3, v = 2, of two outputs; the other is right: e(o) = 4/2, e(v) = 1/2, (v - o)^2 = 1/2
    z, v, y = np.array([[3.0, 5.0]]), np.array([[2.0, 5.0]]), [[1.0, 5.0]]
    value, dlogits = RegressionDistillation(0.25, 0.5).value_and_grad(z, y, v)
    assert value == 0.25 * 2 + 0.5 * 0.5
    check(dlogits, [[0.25 * 2 + 0.5 * 1, 0.0]])
    assert TeacherBoundedRegression().value_and_grad(z, y, v)[0] == 2 + 0.5 * 2
    # the other way round the student is better than its teacher, unless by less than the margin
    for margin, expected in ((0.0, 0.5), (1.0, 0.5), (1.5, 0.5), (1.6, 0.75)):
        assert TeacherBoundedRegression(margin).value_and_grad(v, y, z)[0] == expected


# ---- the identities ----


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_an_output_is_two_classes(temperature, dtype):
    """One sigmoid is the softmax of (z, 0): value and gradient of both terms; several are a sum of such."""
    z, v, y = (a.astype(dtype) for a in draw(3, 6, 4))
    tolerance = 100 * float(np.finfo(dtype).eps)
    value, dlogits = BinaryKnowledgeDistillation(temperature, 0.3, 0.7).value_and_grad(z, y, v)
    total, of_classes = 0.0, KnowledgeDistillation(temperature, 0.3, 0.7)
    for column in range(4):
        pair, taught = (np.stack([a[:, column], 0 * a[:, column]], axis=1) for a in (z, v))
        one, done = of_classes.value_and_grad(pair, (1 - y[:, column]).astype(int), taught)
        total += one
        check(dlogits[:, column], done[:, 0], rtol=tolerance, atol=tolerance * np.abs(dlogits).max())
    check(value, total, rtol=tolerance)
    assert abs(value - total / 4) > 0.1 * total  # a mean over the outputs is something else


@given(seed=st.integers(0, 999), outputs=WIDTHS)
def test_without_a_soft_term_it_is_the_plain_loss(seed, outputs):
    """To the bit for one output and for regression; of several sigmoids the sum is meant, not Keras's mean."""
    z, v, y = draw(seed, 3, outputs)
    for loss in (RegressionDistillation(1.0, 0.0), TeacherBoundedRegression(0.5, 1.0, 0.0)):
        plain, dplain = MeanSquaredError().value_and_grad(z, y)
        value, dlogits = loss.value_and_grad(z, y, v)
        assert value == plain and np.array_equal(dlogits, dplain)
    value, dlogits = BinaryKnowledgeDistillation(4.0, 1.0, 0.0).value_and_grad(z, y, v)
    plain, dplain = BinaryCrossentropy(from_logits=True).value_and_grad(z, y)
    check(value, outputs * plain)
    check(dlogits, outputs * dplain)
    value, dlogits = BinaryKnowledgeDistillation(4.0, 1.0, 0.0).value_and_grad(z[:, :1], y[:, 0], v[:, :1])
    plain, dplain = BinaryCrossentropy(from_logits=True).value_and_grad(z[:, :1], y[:, 0])
    assert value == plain and np.array_equal(dlogits, dplain)


@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_a_student_that_is_its_teacher_has_nothing_to_learn(temperature):
    _, v, _ = draw(0, 4, 40)
    for loss in (BinaryKnowledgeDistillation(temperature, 0.0, 1.0), RegressionDistillation(0.0, 1.0)):
        value, dlogits = loss.value_and_grad(v, None, v)
        assert value == 0 and np.all(dlogits == 0)
        value, dlogits = loss.value_and_grad(v + 0.5, None, v)  # and only there
        assert value > 0 and np.abs(dlogits).max() > 0


def test_at_a_high_temperature_it_matches_logits():
    """T^2 KL tends to (z - v)^2 / 8 of each output, its gradient to (z - v) / 4."""
    z, v, _ = draw(0)
    value, dlogits = BinaryKnowledgeDistillation(1e4, 0.0, 1.0).value_and_grad(z, None, v)
    check(value, ((z - v) ** 2).sum(axis=1).mean() / 8, rtol=1e-6)
    check(dlogits, (z - v) / 4 / 4, rtol=1e-3)
    assert abs(BinaryKnowledgeDistillation(1.0, 0.0, 1.0).value_and_grad(z, None, v)[0] - value) > 0.1 * value


def test_a_uniform_teacher_smooths_labels():
    """Keras smooths by (1 - s) y + s / 2; KL from 1/2 is that cross-entropy less ln 2."""
    z, _, y = draw(0, 5, 1)
    plain, dplain = BinaryCrossentropy(from_logits=True, label_smoothing=0.2).value_and_grad(z, y)
    value, dlogits = BinaryKnowledgeDistillation(1.0, 0.8, 0.2).value_and_grad(z, y, 0 * z)
    check(value + 0.2 * math.log(2), plain)
    check(dlogits, dplain)


# ---- at any logits and temperatures ----


def exact_divergence(z, v, temperature):
    """T^2 KL and T (q - p) of each entry in extended precision, without cancellation."""
    a, b = v.astype(np.longdouble) / temperature, z.astype(np.longdouble) / temperature
    a, d, sign = -abs(a), np.where(a <= 0, b - a, a - b), np.where(a <= 0, 1, -1)
    p = np.exp(a) / (1 + np.exp(a))
    small = abs(d) < 1e-5
    remainder = np.where(small, d * d * (0.5 + d / 6), np.expm1(d) - d)
    u = p * np.expm1(d)
    with np.errstate(invalid="ignore"):
        less = np.where(abs(u) < 1e-5, u * u * (0.5 - u / 3), u - np.log1p(u))
    divergence = np.where(
        abs(d) < 0.5, p * remainder - less, np.logaddexp(0, a + d) - np.logaddexp(0, a) - p * d
    )
    return temperature**2 * divergence, temperature * sign * u * (1 - p) / (1 + u)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("distance", [1e-6, 1e-3, 0.3, 1.0, 10.0])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_the_divergence_is_right_near_and_far(temperature, distance, dtype):
    """To 2e-5 in float32, entry by entry, where the textbook's p (log p - log q) would cancel."""
    rng = np.random.default_rng(0)
    v = (rng.normal(0, 3, (60, 1)) * min(temperature, 1.0)).astype(dtype)
    z = (v + distance * rng.normal(size=v.shape) * min(temperature, 1.0)).astype(dtype)
    expected, dexpected = exact_divergence(z, v, temperature)
    loss = BinaryKnowledgeDistillation(temperature, 0.0, 1.0)
    got = [loss.value_and_grad(z[i : i + 1], None, v[i : i + 1]) for i in range(60)]
    tolerance = 2e-5 if dtype == np.float32 else 1e-10
    check([value for value, _ in got], expected[:, 0].astype(float), rtol=tolerance, atol=1e-37)
    check([d[0, 0] for _, d in got], dexpected[:, 0].astype(float), rtol=tolerance, atol=1e-37)


def test_the_check_of_the_divergence_sees_a_formula_that_cancels():
    v = np.random.default_rng(0).normal(0, 3, (60, 1)).astype(np.float32)
    z = v + np.float32(1e-3)
    p, q = (1 / (1 + np.exp(-a)) for a in (v, z))
    textbook = p * np.log(p / q) + (1 - p) * np.log((1 - p) / (1 - q))
    with pytest.raises(AssertionError):
        check(textbook, exact_divergence(z, v, 1.0)[0].astype(float), rtol=2e-5)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("temperature", TEMPERATURES)
def test_saturated_logits_stay_finite(temperature, dtype):
    z, v = (
        a.reshape(-1, 1).astype(dtype) for a in np.meshgrid([-1e4, -90, 0, 90, 1e4], [-1e4, -90, 0, 90, 1e4])
    )
    y = np.arange(25) % 2
    value, dlogits = BinaryKnowledgeDistillation(temperature, 0.5, 0.5).value_and_grad(z, y, v)
    assert np.isfinite(value) and np.isfinite(dlogits).all()
    assert np.all(
        np.sign((v - z)[y * 0 == 0]) * dlogits <= 0.5 / 25
    )  # towards the teacher, but for the label


def test_log1p_remainder():
    x = np.array([-0.5, -1e-3, -1e-8, 0.0, 1e-8, 1e-3, 0.2, 1.0])
    exact = x.astype(np.longdouble)
    expected = np.where(abs(x) < 1e-2, exact**2 * (0.5 - exact * (1 / 3 - exact * (0.25 - exact / 5))), 0)
    expected = np.where(abs(x) < 1e-2, expected, exact - np.log1p(exact)).astype(float)
    for dtype in (np.float32, np.float64):
        got = [jit(lambda x: log1p_remainder(x), name="log1p_remainder_of_one")(dtype(each)) for each in x]
        check(got, expected, rtol=8 * np.finfo(dtype).eps if dtype == np.float32 else 1e-9, atol=0)


# ---- labels that are missing, schedules, configs ----


def test_rows_without_a_label_have_the_soft_term_alone():
    z, v, y = draw(0)
    y[1:3] = -1
    loss, soft = BinaryKnowledgeDistillation(4.0, 0.5, 0.5), BinaryKnowledgeDistillation(4.0, 0.0, 0.5)
    value, dlogits = loss.value_and_grad(z, y, v)
    soft_value, dsoft = soft.value_and_grad(z, None, v)
    check(value, soft_value + 0.5 * summed_crossentropy(y, z)[[0, 3]].sum() / 4)
    assert np.array_equal(dlogits[1:3], dsoft[1:3]) and np.abs(dlogits - dsoft)[[0, 3]].min() > 1e-3
    labels, targets = loss.check_y(y, (3,), 4, np.float64)
    assert labels.tolist() == [0, -1, -1, 0] and np.array_equal(targets, y)
    assert (
        RegressionDistillation().check_y(-y, (3,), 4, np.float64)[0].size == 0
    )  # -1 is a number like others


@pytest.mark.parametrize("name", LOSSES)
def test_config(name):
    loss, _ = LOSSES[name]
    config = json.loads(json.dumps(losses.serialize(loss)))
    again = losses.deserialize(config)
    assert again.get_config() == loss.get_config() and np.array_equal(again.hyper, loss.hyper)
    assert loss.distills and loss.sparse is False


def test_defaults_and_schedules():
    defaults = {
        BinaryKnowledgeDistillation: dict(temperature=2.0, hard_weight=0.5, soft_weight=0.5),
        RegressionDistillation: dict(hard_weight=0.5, soft_weight=0.5),
        TeacherBoundedRegression: dict(margin=0.0, hard_weight=1.0, soft_weight=0.5),
    }
    for cls, expected in defaults.items():
        config = cls().get_config()
        config.pop("name")
        assert config == expected
    loss = BinaryKnowledgeDistillation(Ramp(8.0, 2.0, 3), soft_weight=lambda epoch: 0.1 * epoch)
    loss.set_epoch(1)
    assert loss.temperature == 6.0 and loss.soft_weight == pytest.approx(0.1)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_through_a_network(name):
    loss, _ = LOSSES[name]
    model = Sequential(
        [Dense(4, "tanh", input_shape=(3,)), Dense(3, loss.fused_activation)], "float64", seed=1
    )
    rng = np.random.default_rng(0)
    x, (_, v, y) = rng.normal(size=(5, 3)), draw(0, 5, 3)
    assert check_gradients(model, x, y, loss, teacher_logits=v) < 1e-6


# ---- misuse ----

Z, V, Y = draw(3)
BKD = BinaryKnowledgeDistillation()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: BinaryKnowledgeDistillation(temperature=0), "temperature must be > 0, got 0"),
        (lambda: BinaryKnowledgeDistillation(soft_weight=-1), "soft_weight must be >= 0, got -1"),
        (lambda: RegressionDistillation(temperature=2.0), "unexpected keyword argument 'temperature'"),
        (lambda: TeacherBoundedRegression(margin=-1), "margin must be >= 0, got -1"),
        (lambda: BKD.value_and_grad(Z, None, V), "y must be given, got None: .*hard_weight is 0.5.*=0.0"),
        (
            lambda: TeacherBoundedRegression(hard_weight=0.0).value_and_grad(Z, None, V),
            "y must be given, got None: .*RegressionDistillation",
        ),
        (lambda: RegressionDistillation(0.0, 0.0).check_trainable(), "must not all be 0"),
        (lambda: BKD.value_and_grad(Z, Y, None), "teacher_logits must be given"),
        (lambda: BKD.value_and_grad(Z, Y, V[:2]), r"shape of logits \(4, 3\), got \(2, 3\)"),
        (lambda: BKD.value_and_grad(Z, [0, 1, 1, 0], V), r"y must have shape \(N, 3\), got \(4,\)"),
        (lambda: BKD.value_and_grad(Z, 2 * Y, V), r"y must be in \[-1, 1\] \(probabilities\), got 2"),
        (lambda: BKD.value_and_grad(Z, Y - 0.5, V), "of -1 alone for a sample without a label, got -0.5"),
        (lambda: BKD.value_and_grad(Z, np.where(Z > 0, Y, -1), V), "without a label, got -1.0 at index"),
    ],
)
def test_misuse_is_refused(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", LOSSES)
def test_nan_and_inf_are_refused_with_their_index(name, bad):
    loss, _ = LOSSES[name]
    spoilt = Z.copy()
    spoilt[2, 1] = bad
    for arguments, argument in (
        ((spoilt, Y, V), "logits"),
        ((Z, spoilt, V), "y"),
        ((Z, Y, spoilt), "teacher_logits"),
    ):
        with pytest.raises(ValueError, match=rf"^{argument} must be finite, got {bad} at index \(2, 1\)"):
            loss.value_and_grad(*arguments)

"""Distillation losses: the identities they obey, numbers worked by hand, gradients entry by entry, refusals.

z are the student's logits, v the teacher's; q and p their softmax at temperature T.
"""

import json
import math

import numpy as np
import pytest
import reference
from hypothesis import assume, given
from hypothesis import strategies as st
from reference import soft_kl, softmax

import minidl
from minidl import losses
from minidl.kernels import losses as kernels
from minidl.kernels import threads
from minidl.losses import (
    DIST,
    DecoupledKD,
    KnowledgeDistillation,
    LogitMatching,
    NormalizedKD,
    Ramp,
    SparseCategoricalCrossentropy,
    check_logits,
)

TEMPERATURES = st.sampled_from([0.5, 1.0, 2.0, 3.0, 4.0, 8.0, 20.0])
CLASSES = st.one_of(st.integers(2, 40), st.sampled_from([1000, 1025]))
WEIGHTS = st.sampled_from([0.0, 0.1, 0.9, 2.5])


def draw(seed, rows, classes, spread=2.0):
    rng = np.random.default_rng(seed)
    z, v = rng.normal(0, spread, (2, rows, classes))
    return z, v, rng.integers(0, classes, rows)


def one_hot(labels, classes):
    return np.eye(classes)[labels]


def crossentropy(labels, z):
    return reference.crossentropy(one_hot(labels, z.shape[1]), z)


# name -> (loss, per-sample oracle of (z, v, labels)); DIST's rows depend on each other
LOSSES = {
    "KD": (
        KnowledgeDistillation(4.0, 0.1, 0.9),
        lambda z, v, y: 0.1 * crossentropy(y, z) + 0.9 * 16 * soft_kl(v, z, 4.0),
    ),
    "KD at T 3": (
        KnowledgeDistillation(3.0, 0.5, 0.7),
        lambda z, v, y: 0.5 * crossentropy(y, z) + 0.7 * 9 * soft_kl(v, z, 3.0),
    ),
    "KD standardized": (
        KnowledgeDistillation(2.0, 0.1, 9.0, standardize=True),
        lambda z, v, y: (
            0.1 * crossentropy(y, z)
            + 9 * 4 * soft_kl(reference.standardize(v), reference.standardize(z), 2.0)
        ),
    ),
    "DKD": (
        DecoupledKD(),
        lambda z, v, y: crossentropy(y, z) + reference.decoupled(z, v, y, 4.0, 1.0, 8.0),
    ),
    "NKD": (
        NormalizedKD(temperature=2.0, gamma=1.5),
        lambda z, v, y: crossentropy(y, z) + reference.normalized(z, v, y, 2.0, 1.5, 1.0),
    ),
    "LogitMatching": (
        LogitMatching(hard_weight=0.3, soft_weight=0.7),
        lambda z, v, y: 0.3 * crossentropy(y, z) + 0.7 * reference.logit_matching(z, v),
    ),
    "DIST": (
        DIST(temperature=2.0, beta=1.0, gamma=0.5),
        lambda z, v, y: crossentropy(y, z) + reference.dist(z, v, 2.0, 1.0, 0.5),
    ),
}


def check(got, expected, rtol=1e-9, atol=1e-10):
    np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)


def differs(got, other, rtol=1e-6, atol=1e-9):
    """A negative control: what the identity would be if it were slightly wrong is told apart."""
    assert not np.allclose(got, other, rtol, atol)


# ---- value and gradient ----


@pytest.mark.parametrize("name", LOSSES)
@given(seed=st.integers(0, 999), rows=st.integers(1, 4), classes=st.integers(3, 40))
def test_value_and_gradient(name, seed, rows, classes):
    loss, oracle = LOSSES[name]
    z, v, labels = draw(seed, rows, classes)
    if name == "DIST" and rows > 1:  # a column nearly constant is a kink, too sharp for differences
        assume(np.ptp(reference.log_softmax(z, 2.0), axis=0).min() > 1e-3)
    value, dlogits = loss.value_and_grad(z, labels, v)
    check(value, oracle(z, v, labels).mean(), rtol=1e-8)
    assert loss(labels, z, v) == value
    expected = reference.differences(lambda at: oracle(at, v, labels).mean(), z)
    check(dlogits, expected, rtol=2e-5, atol=1e-7)
    dense = loss.value_and_grad(z, one_hot(labels, classes), v)
    check(dense[0], value)
    check(dense[1], dlogits)
    # the checks above fail where they should
    for wrong in (np.zeros_like(dlogits), dlogits / 2, dlogits * 4):
        with pytest.raises(AssertionError):
            check(wrong, expected, rtol=2e-5, atol=1e-7)
    with pytest.raises(AssertionError):
        check(value * (1 + 1e-6), oracle(z, v, labels).mean(), rtol=1e-8)


@pytest.mark.parametrize("name", [name for name in LOSSES if name != "DIST"])
@given(seed=st.integers(0, 999))
def test_sample_weight(name, seed):
    loss, oracle = LOSSES[name]
    z, v, labels = draw(seed, 4, 7)
    weight = np.array([1.0, 0.0, 2.5, 0.5])
    value, dlogits = loss.value_and_grad(z, labels, v, sample_weight=weight)
    check(value, (weight * oracle(z, v, labels)).sum() / 4, rtol=1e-8)
    expected = reference.differences(lambda at: (weight * oracle(at, v, labels)).sum() / 4, z)
    check(dlogits, expected, rtol=2e-5, atol=1e-7)


def test_sample_weight_of_dist():
    """A sample of weight 2 counts as the sample twice, one of weight 0 not at all."""
    loss = DIST(temperature=2.0, beta=1.0, gamma=0.5)
    z, v, labels = draw(0, 4, 7)
    weight = np.array([1.0, 0.0, 2.0, 1.0])
    rows = [0, 2, 2, 3]
    value, dlogits = loss.value_and_grad(z, labels, v, sample_weight=weight)
    repeated, drepeated = loss.value_and_grad(z[rows], labels[rows], v[rows])
    check(value, repeated)
    check(dlogits, [drepeated[0], 0 * drepeated[0], drepeated[1] + drepeated[2], drepeated[3]])
    expected = reference.differences(lambda at: loss.value_and_grad(at, labels, v, weight)[0], z)
    check(dlogits, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("classes", [2, 10, 16, 17, 33, 1500])
def test_float32_follows_float64(name, classes):
    loss, _ = LOSSES[name]
    z, v, labels = draw(classes, 5, classes)
    z, v = z.astype(np.float32), v.astype(np.float32)
    value, dlogits = loss.value_and_grad(z, labels, v)
    exact, dexact = loss.value_and_grad(z.astype(float), labels, v.astype(float))
    assert dlogits.dtype == np.float32
    check(value, exact, rtol=2e-5, atol=2e-5)
    check(dlogits, dexact, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("classes", [2, 3, 20])
def test_saturated_logits_stay_finite(name, dtype, classes):
    loss, _ = LOSSES[name]
    z, v = np.full((4, classes), -1e4, dtype), np.full((4, classes), -1e4, dtype)
    z[[0, 1], [0, 1]], v[[0, 1], [0, 0]] = 1e4, 1e4  # agreeing, opposed; then two uniform rows
    value, dlogits = loss.value_and_grad(z, [0, 0, 1, 1], v)
    assert np.isfinite(value) and np.isfinite(dlogits).all()
    assert np.abs(dlogits[0]).max() < 1e-12


@pytest.mark.parametrize("name", LOSSES)
def test_a_single_class_has_nothing_to_teach(name):
    loss, _ = LOSSES[name]
    value, dlogits = loss.value_and_grad(np.array([[3.0], [1.0]]), [0, 0], np.array([[-2.0], [5.0]]))
    assert np.isfinite(value) and np.array_equal(dlogits, np.zeros((2, 1)))


@pytest.mark.parametrize("name", LOSSES)
def test_nan_is_seen_by_the_kernel(name):
    loss, _ = LOSSES[name]
    z, v, labels = draw(0, 3, 18)
    z[1, 17] = np.nan
    row_loss, dlogits = np.zeros(3), np.zeros_like(z)
    empty = np.empty((0, 0))
    batch = kernels.Batch(z, labels, empty, v, np.ones(3))
    kernels.loss_batch(loss.kind(True), row_loss, dlogits, batch, loss.hyper)
    assert np.isnan(row_loss[1]) and np.isnan(dlogits[1, 17])


# ---- numbers worked by hand ----

# Two classes, T = 2. z = (0, 2 ln 3): q = (1/4, 3/4), and at T = 1 softmax(z) = (1/10, 9/10).
# v = (0, 0): p = (1/2, 1/2). KL(p || q) = 1/2 ln(1/2 / 1/4) + 1/2 ln(1/2 / 3/4) = ln 2 - 1/2 ln 3.
Z2, V2 = np.array([[0.0, 2 * math.log(3)]]), np.zeros((1, 2))
KL2 = math.log(2) - 0.5 * math.log(3)


def test_knowledge_distillation_by_hand():
    # label 1: CE = ln(10/9). 0.1 CE + 0.9 * 4 * KL
    value, dlogits = KnowledgeDistillation(2.0, 0.1, 0.9).value_and_grad(Z2, [1], V2)
    assert value == pytest.approx(0.1 * math.log(10 / 9) + 3.6 * KL2, rel=1e-13)
    # 0.1 (1/10, -1/10) + 0.9 * 2 * (1/4 - 1/2, 3/4 - 1/2) = (0.01 - 0.45, -0.01 + 0.45)
    np.testing.assert_allclose(dlogits, [[-0.44, 0.44]], rtol=1e-13)
    # each of these mistakes gives another number
    for factor in (0.9, 1.8):  # no T^2; a mean over the classes
        assert abs(value - 0.1 * math.log(10 / 9) - factor * KL2) > 0.1
    reversed_kl = 0.25 * math.log(1 / 2) + 0.75 * math.log(3 / 2)
    assert abs(value - 0.1 * math.log(10 / 9) - 3.6 * reversed_kl) > 0.03


def test_standardized_by_hand():
    # z = (0, 2 ln 3): mean ln 3, std with ddof 1 sqrt(2) ln 3, standardized -+ 1/sqrt(2); v = (3, 1) likewise
    # +- 1/sqrt(2). With T = sqrt(2): +- 1/2, so p = (s, 1 - s), q = (1 - s, s), s = sigmoid(1)
    s = 1 / (1 + math.exp(-1))
    kl = (2 * s - 1) * math.log(s / (1 - s))
    loss = KnowledgeDistillation(math.sqrt(2), 0.0, 1.0, standardize=True)
    value, dlogits = loss.value_and_grad(Z2, None, np.array([[3.0, 1.0]]))
    assert value == pytest.approx(2 * kl, rel=1e-6)
    # two standardized logits are always -+ 1/sqrt(2): nothing is left to learn
    np.testing.assert_allclose(dlogits, 0, atol=1e-6)


# Three classes, T = 1, label 0. z = (0, 0, ln 2): exponentials 1, 1, 2, so q = (1, 1, 2)/4, q^ = (1/3, 2/3).
# v = (ln 2, 0, 0): exponentials 2, 1, 1: p = (1/2, 1/4, 1/4), p^ = (1/2, 1/2).
Z3, V3 = np.array([[0.0, 0.0, math.log(2)]]), np.array([[math.log(2), 0.0, 0.0]])


def test_decoupled_by_hand():
    # target: 1/2 ln(1/2 / 1/4) + 1/2 ln(1/2 / 3/4) = 1/2 ln 2 + 1/2 ln(2/3) = 1/2 ln(4/3)
    # others: 1/2 ln(1/2 / 1/3) + 1/2 ln(1/2 / 2/3) = 1/2 ln(3/2) + 1/2 ln(3/4) = 1/2 ln(9/8)
    loss = DecoupledKD(temperature=1.0, target_weight=1.0, nontarget_weight=8.0, hard_weight=0.0)
    value, dlogits = loss.value_and_grad(Z3, [0], V3)
    assert value == pytest.approx(0.5 * math.log(4 / 3) + 4 * math.log(9 / 8), rel=1e-13)
    # target: (q_t - p_t) (1, -1/3, -2/3) = -1/4 (1, -1/3, -2/3) = (-1/4, 1/12, 1/6)
    # others: 8 (0, 1/3 - 1/2, 2/3 - 1/2) = (0, -4/3, 4/3)
    np.testing.assert_allclose(dlogits, [[-1 / 4, 1 / 12 - 4 / 3, 1 / 6 + 4 / 3]], rtol=1e-13)


def test_normalized_by_hand():
    # target: -p_t ln q_t = 1/2 ln 4 = ln 2; others: -(1/2 ln(1/3) + 1/2 ln(2/3)) = 1/2 ln(9/2), times 1.5
    value, dlogits = NormalizedKD(hard_weight=0.0).value_and_grad(Z3, [0], V3)
    assert value == pytest.approx(math.log(2) + 0.75 * math.log(4.5), rel=1e-13)
    # p_t (q - y) = 1/2 (-3/4, 1/4, 1/2); others 1.5 (0, 1/3 - 1/2, 2/3 - 1/2) = (0, -1/4, 1/4)
    np.testing.assert_allclose(dlogits, [[-3 / 8, 1 / 8 - 1 / 4, 1 / 4 + 1 / 4]], rtol=1e-13)


def test_dist_by_hand():
    # One row: columns of one entry are constant, rho' = 0, so gamma (1 - 0). Row: q - 1/3 = (-1, -1, 2)/12,
    # p - 1/3 = (2, -1, -1)/12: rho = (-2 + 1 - 2) / sqrt(6 * 6) = -1/2. beta 1.5 + gamma 1
    value, _ = DIST(hard_weight=0.0, beta=2.0, gamma=0.25).value_and_grad(Z3, None, V3)
    assert value == pytest.approx(2 * 1.5 + 0.25, rel=1e-6)
    # Rows that agree up to an affine map of probabilities have no loss along the rows
    value, _ = DIST(hard_weight=0.0, gamma=0.0).value_and_grad(V3, None, V3)
    assert value == pytest.approx(0, abs=1e-6)


def test_logit_matching_by_hand():
    # z - v = (1, 2, 6), mean 3, centred (-2, -1, 3): (4 + 1 + 9)/3; gradient 2/3 of the centred
    value, dlogits = LogitMatching().value_and_grad([[1.0, 2.0, 6.0]], None, [[0.0, 0.0, 0.0]])
    assert value == pytest.approx(14 / 3)
    np.testing.assert_allclose(dlogits, [[-4 / 3, -2 / 3, 2]], rtol=1e-14)


# ---- the identities ----


@given(st.integers(0, 999), st.integers(1, 4), CLASSES, TEMPERATURES, WEIGHTS, WEIGHTS)
def test_1_gradient_formula(seed, rows, classes, temperature, hard, soft):
    """[h (softmax(z) - y) + s T (q - p)] / B; rows sum to 0; the soft part has L1 norm <= 2 T s / B."""
    z, v, labels = draw(seed, rows, classes)
    _, dlogits = KnowledgeDistillation(temperature, hard, soft).value_and_grad(z, labels, v)
    hard_part = hard * (softmax(z) - one_hot(labels, classes))
    soft_part = soft * temperature * (softmax(z, temperature) - softmax(v, temperature))
    check(dlogits, (hard_part + soft_part) / rows, atol=1e-13)
    check(dlogits.sum(axis=1), 0, atol=1e-12)
    _, only_soft = KnowledgeDistillation(temperature, 0.0, soft).value_and_grad(z, None, v)
    assert np.all(np.abs(only_soft).sum(axis=1) <= 2 * temperature * soft / rows * (1 + 1e-12))
    _, at_teacher = KnowledgeDistillation(temperature, 0.0, soft).value_and_grad(v + 3.0, None, v)
    check(at_teacher, 0, atol=1e-13)
    if soft > 0:  # and it is zero only there
        assert np.abs(only_soft).max() > 1e-9
        if temperature != 1:  # T left out, or put in twice
            differs(only_soft, soft_part / temperature / rows, atol=1e-12)
            differs(only_soft, soft_part * temperature / rows, atol=1e-12)
    if hard + soft > 0:
        wrong = hard_part + soft_part if rows > 1 else 2 * (hard_part + soft_part)
        differs(dlogits, wrong, atol=1e-12)
        differs((dlogits + 1e-6).sum(axis=1), np.zeros(rows))


def test_1_the_bound_is_attained():
    """By a student and a teacher sure of different classes: a gradient 1 % too large would break it."""
    z, v = np.array([[400.0, 0, 0]]), np.array([[0, 400.0, 0]])
    _, dlogits = KnowledgeDistillation(4.0, 0.0, 0.9).value_and_grad(z, None, v)
    assert np.abs(dlogits).sum() <= 2 * 4 * 0.9 < 1.01 * np.abs(dlogits).sum()


@given(st.integers(0, 999), st.integers(3, 40), TEMPERATURES)
def test_the_gradients_of_the_docstrings(seed, classes, temperature):
    """Of DecoupledKD, NormalizedKD, LogitMatching and DIST, written out."""
    z, v, labels = draw(seed, 3, classes)
    y, rows = one_hot(labels, classes), np.arange(3)
    q, p = softmax(z, temperature), softmax(v, temperature)
    q_t, p_t = q[rows, labels][:, None], p[rows, labels][:, None]
    q_hat, p_hat = ((1 - y) * x / ((1 - y) * x).sum(axis=1, keepdims=True) for x in (q, p))
    own, others = (q_t - p_t) * (y - q_hat), q_hat - p_hat
    loss = DecoupledKD(temperature, 0.7, 2.0, hard_weight=0.0)
    expected = temperature * (0.7 * own + 2.0 * others) / 3
    check(loss.value_and_grad(z, labels, v)[1], expected, atol=1e-12)
    differs(temperature * (0.7 * own * 1.01 + 2.0 * others) / 3, expected)
    loss = NormalizedKD(temperature, 0.8, 0.6, hard_weight=0.0)
    soft_target = softmax(v)[rows, labels][:, None] * (softmax(z) - y)
    expected = (0.6 * soft_target + 0.8 * temperature * others) / 3
    check(loss.value_and_grad(z, labels, v)[1], expected, atol=1e-12)
    d = (z - v) - (z - v).mean(axis=1, keepdims=True)
    check(LogitMatching().value_and_grad(z, None, v)[1], 2 / classes * d / 3, atol=1e-12)

    def along(a, b, epsilon=1e-8):  # the gradient of the mean of 1 - rho
        a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
        length, other = (np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
        a, b, k = a / length, b / other, length * other / (length * other + epsilon)
        return k * (k * (a * b).sum(axis=1, keepdims=True) * a - b) / length / len(a)

    def dist(gamma, epsilon=1e-8):
        dq = temperature**2 * (along(q, p, epsilon) + gamma * along(q.T, p.T, epsilon).T)
        return q * (dq - (dq * q).sum(axis=1, keepdims=True)) / temperature

    got = DIST(temperature, 1.0, 0.5, hard_weight=0.0).value_and_grad(z, None, v)[1]
    tolerance = 1e-9 * np.abs(got).max()
    check(got, dist(0.5), rtol=0, atol=tolerance)
    differs(got, dist(0.501), 0, tolerance)
    differs(got, dist(0.5, epsilon=1e-7), 0, tolerance)


@given(st.integers(0, 999), CLASSES, TEMPERATURES, st.floats(-50, 50), st.floats(0.1, 10))
def test_2_shifts_and_scales(seed, classes, temperature, shift, factor):
    z, v, _ = draw(seed, 3, classes)
    loss = KnowledgeDistillation(temperature, 0.0, 1.0)
    value, dlogits = loss.value_and_grad(z, None, v)
    moved, dmoved = loss.value_and_grad(z + shift, None, v - 2 * shift)
    check(moved, value, atol=1e-10 * temperature**2)
    check(dmoved, dlogits, atol=1e-11)
    assert value >= 0 and loss(None, v, v) == 0
    scaled = KnowledgeDistillation(factor * temperature, 0.0, 1.0)(None, factor * z, factor * v)
    check(scaled / (factor * temperature) ** 2, value / temperature**2, atol=1e-12)
    one_entry = one_hot(z.argmax(axis=1), classes)
    differs(loss.value_and_grad(z + one_entry, None, v)[1], dlogits)
    if abs(factor - 1) > 0.01:  # the temperature must be scaled with the logits
        differs(loss.value_and_grad(factor * z, None, factor * v)[1], dlogits)


@given(st.integers(0, 999), st.integers(2, 20))
def test_3_the_limit_of_high_temperature_is_logit_matching(seed, classes):
    z, v, _ = draw(seed, 3, classes, spread=1.0)
    d = (z - z.mean(axis=1, keepdims=True)) - (v - v.mean(axis=1, keepdims=True))
    errors = []
    for temperature in (1e3, 1e4):
        value, dlogits = KnowledgeDistillation(temperature, 0.0, 1.0).value_and_grad(z, None, v)
        check(value, (d**2).sum(axis=1).mean() / (2 * classes), rtol=20 / temperature, atol=1e-6)
        check(dlogits, d / classes / 3, rtol=0, atol=20 / temperature)
        errors.append(np.abs(dlogits - d / classes / 3).max())
    assert errors[1] < errors[0] / 5  # O(1/T)
    differs(value, (d**2).sum(axis=1).mean() / classes, 20 / temperature, 1e-6)
    if np.abs((z - v).mean(axis=1)).max() > 0.05:  # the limit is of centred logits
        differs(dlogits, (z - v) / classes / 3, 0, 20 / temperature / classes)
    matching, dmatching = LogitMatching().value_and_grad(z, None, v)
    check(matching / 2, (d**2).sum(axis=1).mean() / (2 * classes))
    check(dmatching / 2, d / classes / 3)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@given(st.integers(0, 999), CLASSES, TEMPERATURES, WEIGHTS, WEIGHTS)
def test_4_weights(dtype, seed, classes, temperature, hard, soft):
    z, v, labels = draw(seed, 3, classes)
    z, v = z.astype(dtype), v.astype(dtype)
    plain, dplain = SparseCategoricalCrossentropy(from_logits=True).value_and_grad(z, labels)
    only_hard, dhard = KnowledgeDistillation(temperature, 1.0, 0.0).value_and_grad(z, labels, v)
    assert only_hard == plain and np.array_equal(dhard, dplain), "to the bit"
    only_soft, dsoft = KnowledgeDistillation(temperature, 0.0, 1.0).value_and_grad(z, None, v)
    value, dlogits = KnowledgeDistillation(temperature, hard, soft).value_and_grad(z, labels, v)
    tolerance = 100 * np.finfo(dtype).eps * max(1, temperature)
    check(value, hard * only_hard + soft * only_soft, rtol=tolerance, atol=tolerance)
    check(dlogits, hard * dhard + soft * dsoft, rtol=tolerance, atol=tolerance)
    _, barely = KnowledgeDistillation(temperature, 1.0, 0.01).value_and_grad(z, labels, v)
    assert not np.array_equal(barely, dplain), "the bits would tell"
    differs(dlogits + dhard + dsoft, (hard + 1.01) * dhard + (soft + 1.01) * dsoft, tolerance, 1e-6)


@given(st.integers(0, 999), st.integers(2, 40), TEMPERATURES)
def test_5_kd_is_its_target_part_and_the_others_weighted(seed, classes, temperature):
    """KL = KL_bin(p_t, q_t) + (1 - p_t) KL(p^, q^), values and gradients."""
    z, v, labels = draw(seed, 1, classes)
    p_t = softmax(v, temperature)[0, labels[0]]
    value, dlogits = KnowledgeDistillation(temperature, 0.0, 1.0).value_and_grad(z, None, v)
    loss = DecoupledKD(temperature, 1.0, 1.0 - p_t, hard_weight=0.0)
    decoupled, ddecoupled = loss.value_and_grad(z, labels, v)
    check(decoupled, value, atol=1e-12 * temperature**2)
    check(ddecoupled, dlogits, atol=1e-12)
    others, dothers = DecoupledKD(temperature, 0.0, 1.0, hard_weight=0.0).value_and_grad(z, labels, v)
    if classes == 2:
        assert others == 0 and np.all(dothers == 0)
    else:
        assert others > 0
        # of weight 1 the others are too much, by just this
        unweighted = DecoupledKD(temperature, 1.0, 1.0, hard_weight=0.0).value_and_grad(z, labels, v)
        check(unweighted[0] - value, p_t * others, atol=1e-12 * temperature**2)
        check(unweighted[1] - dlogits, p_t * dothers, atol=1e-12)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_5_a_sure_teacher(dtype):
    """p_t rounds to 1: log(1 - q_t) must come from the other logits."""
    z, v = np.array([[0.0, 60, 0]], dtype), np.array([[300.0, 1, 2]], dtype)
    value, dlogits = DecoupledKD(1.0, 1.0, 0.0, hard_weight=0.0).value_and_grad(z, [0], v)
    assert value == pytest.approx(60, rel=1e-6)  # -ln q_t = ln(1 + e^60 + 1)
    np.testing.assert_allclose(dlogits, [[-1, 1, 0]], atol=1e-6)


@given(st.integers(0, 999), st.integers(3, 40), TEMPERATURES, st.floats(0.1, 10), st.floats(-50, 50))
def test_6_standardized_logits_and_correlations_are_affine_invariant(seed, classes, temperature, a, b):
    z, v, labels = draw(seed, 3, classes)
    loss = KnowledgeDistillation(temperature, 0.0, 1.0, standardize=True)
    value, dlogits = loss.value_and_grad(z, None, v)
    check(loss.value_and_grad(a * z + b, None, v)[0], value, rtol=1e-5, atol=1e-7 * temperature**2)
    check(dlogits.sum(axis=1), 0, atol=1e-11)
    check((z * dlogits).sum(axis=1), 0, atol=1e-6)
    assert np.abs(dlogits).max() > 1e-4
    plain = KnowledgeDistillation(temperature, 0.0, 1.0)
    differs(plain.value_and_grad(2 * z, None, v)[1], plain.value_and_grad(z, None, v)[1])
    differs((z * plain.value_and_grad(z, None, v)[1]).sum(axis=1), np.zeros(3), 0, 1e-6)
    # Pearson: a student whose probabilities are an affine map of the teacher's has no loss along the rows
    p = softmax(v)
    mixed = np.log(0.3 * p + 0.7 / classes)
    along_rows = DIST(hard_weight=0.0, gamma=0.0)
    lengths = 0.3 * ((p - 1 / classes) ** 2).sum(axis=1)  # their product; 1e-8 is added to it
    check(along_rows(None, mixed, v), (1e-8 / (lengths + 1e-8)).mean(), rtol=0, atol=1e-12)
    assert along_rows(None, z, v) > 1e-3


@given(st.integers(0, 999), st.integers(2, 20), TEMPERATURES)
def test_7_several_teachers(seed, classes, temperature):
    """sum_m w_m KL(p_m, q) = KL(mean p, q) + constant; the mean of logits is the geometric mean."""
    rng = np.random.default_rng(seed)
    z, w, v1, v2 = rng.normal(0, 2, (4, 3, classes))
    loss = KnowledgeDistillation(temperature, 0.0, 1.0)
    mean = 0.3 * softmax(v1, temperature) + 0.7 * softmax(v2, temperature)

    def gap(logits):
        separate = 0.3 * loss(None, logits, v1) + 0.7 * loss(None, logits, v2)
        return separate - loss(None, logits, temperature * np.log(mean))

    check(gap(z), gap(w), rtol=1e-8, atol=1e-10 * temperature**2)
    dseparate = 0.3 * loss.value_and_grad(z, None, v1)[1] + 0.7 * loss.value_and_grad(z, None, v2)[1]
    check(dseparate, loss.value_and_grad(z, None, temperature * np.log(mean))[1], atol=1e-12)
    geometric = softmax(v1, temperature) ** 0.3 * softmax(v2, temperature) ** 0.7
    geometric /= geometric.sum(axis=1, keepdims=True)
    check(softmax(0.3 * v1 + 0.7 * v2, temperature), geometric)

    # the two means differ, at T = 1 enough to be told apart whatever is drawn
    loss = KnowledgeDistillation(1.0, 0.0, 1.0)

    def gap_to_geometric(logits):
        separate = 0.3 * loss(None, logits, v1) + 0.7 * loss(None, logits, v2)
        return separate - loss(None, logits, 0.3 * v1 + 0.7 * v2)

    differs(gap_to_geometric(z), gap_to_geometric(w), 1e-8, 1e-10)
    differs(softmax(0.3 * v1 + 0.7 * v2), 0.3 * softmax(v1) + 0.7 * softmax(v2), 1e-8, 1e-10)


@given(st.integers(0, 999), st.integers(2, 20), st.floats(0.01, 0.9))
def test_8_label_smoothing_is_a_uniform_teacher(seed, classes, smoothing):
    """Smoothed CE is (1 - s) CE + s CE(uniform, q), and CE(uniform, q) = KL(uniform || q) + ln C."""
    z, _, labels = draw(seed, 3, classes)
    smooth = losses.CategoricalCrossentropy(from_logits=True, label_smoothing=smoothing)
    value, dlogits = smooth.value_and_grad(z, one_hot(labels, classes))
    uniform = KnowledgeDistillation(1.0, 1.0 - smoothing, smoothing)
    taught, dtaught = uniform.value_and_grad(z, labels, np.zeros_like(z))
    check(value, taught + smoothing * math.log(classes))
    check(dlogits, dtaught, atol=1e-13)
    differs(
        dlogits, KnowledgeDistillation(2.0, 1.0 - smoothing, smoothing).value_and_grad(z, labels, 0 * z)[1]
    )
    differs(dlogits, uniform.value_and_grad(z, labels, z)[1])


# ---- rows without a label, schedules, configs ----


def test_rows_without_a_label():
    z, v, _ = draw(0, 3, 5)
    labels = np.array([2, -1, -1])
    value, dlogits = KnowledgeDistillation(4.0, 0.5, 0.5).value_and_grad(z, labels, v)
    soft, dsoft = KnowledgeDistillation(4.0, 0.0, 0.5).value_and_grad(z, None, v)
    check(value, soft + 0.5 * crossentropy(labels[:1], z[:1])[0] / 3)
    check(dlogits[1:], dsoft[1:], atol=0)
    assert np.abs(dlogits[0] - dsoft[0]).max() > 1e-3
    for loss in (DecoupledKD(), NormalizedKD()):  # they look at the label: nothing to say of such a row
        _, dlogits = loss.value_and_grad(z, labels, v)
        assert np.all(dlogits[1:] == 0) and np.all(dlogits[0] != 0)


def test_schedules():
    loss = KnowledgeDistillation(temperature=Ramp(8.0, 2.0, 3), hard_weight=lambda epoch: 0.1 * epoch)
    z, v, labels = draw(0, 3, 5)
    for epoch, (temperature, hard) in enumerate([(8.0, 0.0), (6.0, 0.1), (4.0, 0.2), (2.0, 0.3), (2.0, 0.4)]):
        loss.set_epoch(epoch)
        assert loss.temperature == pytest.approx(temperature) and loss.hard_weight == pytest.approx(hard)
        expected = KnowledgeDistillation(temperature, hard).value_and_grad(z, labels, v)
        check(loss.value_and_grad(z, labels, v)[0], expected[0])
    with pytest.raises(ValueError, match="y must be given"):  # a weight that grows needs labels at once
        KnowledgeDistillation(hard_weight=lambda epoch: 0.1 * epoch).value_and_grad(z, None, v)
    with pytest.raises(ValueError, match="temperature must be > 0, got -1"):
        KnowledgeDistillation(temperature=lambda epoch: 3 - epoch).set_epoch(4)


def test_it_is_known_what_is_scheduled():
    loss = KnowledgeDistillation(temperature=Ramp(8.0, 2.0, 3), hard_weight=lambda epoch: 0.1 * epoch)
    assert loss.is_scheduled("temperature") and loss.is_scheduled("hard_weight")
    assert not loss.is_scheduled("soft_weight") and not loss.is_scheduled("standardize")
    assert not LogitMatching().is_scheduled("temperature")
    assert not SparseCategoricalCrossentropy().is_scheduled("temperature")


def test_t_squared_keeps_the_soft_gradient_for_small_logits_and_only_roughly_for_large_ones():
    """The reason given in minidl/losses/distillation.py: 1/T is the chain rule, another needs small logits."""

    def norms(spread, power):
        z, v, _ = draw(0, 50, 10, spread)
        found = []
        for temperature in (1.0, 4.0, 20.0):
            weight = temperature ** (power - 2)  # the loss multiplies by T squared
            _, dz = KnowledgeDistillation(temperature, 0.0, weight).value_and_grad(z, None, v)
            found.append(float(np.linalg.norm(dz)))
        return np.array(found) / found[0]

    np.testing.assert_allclose(norms(0.01, 2), 1, rtol=0.01)
    np.testing.assert_allclose(norms(0.01, 0), [1, 1 / 16, 1 / 400], rtol=0.01)
    at_large_logits = norms(8.0, 2)
    assert at_large_logits.max() > 1.5  # so not "the same at any T"
    assert norms(8.0, 0)[2] < 0.1 * at_large_logits[2]  # and far from it without T squared


def test_decoupled_warms_up():
    z, v, labels = draw(0, 3, 5)
    loss = DecoupledKD(hard_weight=0.0, warmup_epochs=4)
    full = loss.value_and_grad(z, labels, v)[0]
    for epoch, factor in enumerate([0.25, 0.5, 0.75, 1.0, 1.0]):
        loss.set_epoch(epoch)
        assert loss.value_and_grad(z, labels, v)[0] == pytest.approx(factor * full)


@pytest.mark.parametrize("name", LOSSES)
def test_config(name):
    loss, _ = LOSSES[name]
    config = json.loads(json.dumps(losses.serialize(loss)))
    again = losses.deserialize(config)
    assert again.get_config() == loss.get_config() and np.array_equal(again.hyper, loss.hyper)
    assert loss.distills and loss.fused_activation == "softmax" and loss.sparse is None


def test_a_ramp_is_saved_whole_and_a_function_as_its_value():
    loss = KnowledgeDistillation(temperature=Ramp(8.0, 2.0, 3))
    again = losses.deserialize(json.loads(json.dumps(losses.serialize(loss))))
    again.set_epoch(1)
    assert again.temperature == 6.0
    loss = KnowledgeDistillation(temperature=lambda epoch: 8.0 - epoch)
    loss.set_epoch(2)
    with pytest.warns(UserWarning, match="temperature of knowledge_distillation is a function.* 6.0"):
        assert losses.serialize(loss)["config"]["temperature"] == 6.0


def test_defaults_are_the_authors():
    defaults = {
        KnowledgeDistillation: dict(temperature=2.0, hard_weight=0.5, soft_weight=0.5, standardize=False),
        DecoupledKD: dict(
            temperature=4.0, target_weight=1.0, nontarget_weight=8.0, hard_weight=1.0, warmup_epochs=20
        ),
        NormalizedKD: dict(temperature=1.0, gamma=1.5, target_weight=1.0, hard_weight=1.0),
        DIST: dict(temperature=1.0, beta=1.0, gamma=1.0, hard_weight=1.0),
        LogitMatching: dict(hard_weight=0.0, soft_weight=1.0),
    }
    for cls, expected in defaults.items():
        config = cls().get_config()
        config.pop("name")
        assert config == expected


# ---- misuse ----

Z, V, Y = draw(3, 4, 3)
KD = KnowledgeDistillation()


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: KnowledgeDistillation(temperature=0), "temperature must be > 0, got 0"),
        (lambda: KnowledgeDistillation(temperature=-2.0), "temperature must be > 0, got -2"),
        (lambda: KnowledgeDistillation(temperature=math.inf), "temperature must be finite, got inf"),
        (lambda: KnowledgeDistillation(hard_weight=-0.1), "hard_weight must be >= 0, got -0.1"),
        (lambda: KnowledgeDistillation(soft_weight="much"), "soft_weight must be a number, got 'much'"),
        (lambda: KnowledgeDistillation(standardize=1), "standardize must be True or False, got 1"),
        (lambda: DecoupledKD(nontarget_weight=-1), "nontarget_weight must be >= 0, got -1"),
        (lambda: DecoupledKD(warmup_epochs=1.5), "warmup_epochs must be an integer, got 1.5"),
        (lambda: NormalizedKD(gamma=-1), "gamma must be >= 0, got -1"),
        (lambda: DIST(beta=math.nan), "beta must be finite, got nan"),
        (lambda: Ramp(1.0, 2.0, 0), "epochs must be >= 1, got 0"),
        (lambda: KD.value_and_grad(Z, Y, softmax(V)), "teacher_logits must be logits, .* probabilities"),
        (lambda: KD.value_and_grad(Z, Y, None), "teacher_logits must be given"),
        (lambda: KD.value_and_grad(Z, Y, V[:2]), r"shape of logits \(4, 3\), got \(2, 3\)"),
        (lambda: KD.value_and_grad(Z, Y, V[:, :2]), r"shape of logits \(4, 3\), got \(4, 2\)"),
        (lambda: KD.value_and_grad(Z, Y, V[0]), r"teacher_logits must have 2 axes, got shape \(3,\)"),
        (lambda: KD.value_and_grad(Z, None, V), "y must be given, got None: .*hard_weight is 0.5.*=0.0"),
        (lambda: DecoupledKD(hard_weight=0.0).value_and_grad(Z, None, V), "y must be given, got None"),
        (lambda: NormalizedKD(hard_weight=0.0).value_and_grad(Z, None, V), "y must be given, got None"),
        (lambda: KD.value_and_grad(Z, [0, 1, 2, 3], V), r"-1..2 \(3 classes\), got 3 at index 3"),
        (lambda: KD.value_and_grad(Z, [0, 1], V), "y must have one row per sample"),
        (lambda: KD(Y, Z), "teacher_logits must be given"),
        (lambda: losses.get("decoupled_k"), "did you mean 'decoupled_kd'"),
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
    for arguments, argument in (((spoilt, Y, V), "logits"), ((Z, Y, spoilt), "teacher_logits")):
        with pytest.raises(ValueError, match=rf"^{argument} must be finite, got {bad} at index \(2, 1\)"):
            loss.value_and_grad(*arguments)


def test_check_logits():
    probs = softmax(V)
    np.testing.assert_allclose(softmax(check_logits("teacher", probs, from_probs=True)), probs, rtol=1e-12)
    assert np.isfinite(check_logits("teacher", np.eye(3), from_probs=True)).all()  # certain, and not infinite
    with pytest.raises(ValueError, match="teacher must be logits, got rows in .* from_probs=True"):
        check_logits("teacher", probs)
    with pytest.raises(ValueError, match=r"teacher must be in \[0, 1\] \(probabilities\), got"):
        check_logits("teacher", V, from_probs=True)
    assert check_logits("teacher", V) is not None and check_logits("teacher", probs + 0.01) is not None


# ---- arrays that need no conversion are taken unseen ----

PLAIN = [name for name in LOSSES if isinstance(LOSSES[name][0], (KnowledgeDistillation, LogitMatching))]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", PLAIN)
@given(seed=st.integers(0, 999), rows=st.integers(1, 5), classes=st.integers(1, 40), data=st.data())
def test_plain_arrays_give_the_same_bits_and_the_same_errors(name, dtype, seed, rows, classes, data):
    loss, _ = LOSSES[name]
    z, v, y = draw(seed, rows, classes)
    z, v, y = z.astype(dtype), v.astype(dtype), y.astype(np.int64)
    y[0] = -1
    value, gradient = loss.value_and_grad(z, y, v)
    for others in ((z, y.tolist(), v), (np.asfortranarray(z), y, v), (z, y.astype(np.int8), v)):
        other_value, other_gradient = loss.value_and_grad(*others)
        assert (value, gradient.tobytes()) == (other_value, other_gradient.tobytes())

    row, column = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, classes - 1))
    bad = data.draw(st.sampled_from([np.nan, np.inf, -np.inf]))
    for spoilt, argument in ((z, "logits"), (v, "teacher_logits")):
        kept, spoilt[row, column] = spoilt[row, column], bad
        with pytest.raises(
            ValueError, match=rf"^{argument} must be finite, got .* at index \({row}, {column}\)"
        ):
            loss.value_and_grad(z, y, v)
        spoilt[row, column] = kept
    for label in (-2, classes, 2**62):
        wrong = y.copy()
        wrong[row] = label
        with pytest.raises(ValueError, match=rf"got {label} at index {row}"):
            loss.value_and_grad(z, wrong, v)


def test_big_batches_have_the_same_bits_on_several_threads(monkeypatch):
    z, v, y = (a.astype(t) for a, t in zip(draw(5, 301, 40), (np.float32, np.float32, np.int64), strict=True))
    results = {}
    for n in (1, 2, 3):
        monkeypatch.setattr(threads, "count_for", lambda flops, n=n: n)
        minidl.set_num_threads(3)
        for name, (loss, _) in LOSSES.items():
            value, gradient = loss.value_and_grad(z, y, v)
            assert results.setdefault(name, (value, gradient.tobytes())) == (value, gradient.tobytes())

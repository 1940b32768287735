"""Metrics that are functions of several sums, of a loss or of a plain function: against naive forms, and bad input."""

import copy
import pickle

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from minidl import losses, metrics
from minidl.metrics import METRICS
from minidl.metrics.base import OfSums


@st.composite
def scored(draw, outputs=None):
    """(y, predictions) in float64, many of them equal, and some at thresholds."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    shape = draw(st.integers(1, 60)), outputs or draw(st.integers(1, 4))
    steps = draw(st.sampled_from([2, 4, 10, 199, 1000]))
    return rng.integers(0, 2, shape).astype(float), rng.integers(0, steps + 1, shape) / steps


@given(scored(), st.floats(0, 1))
def test_precision_and_recall(data, threshold):
    y, pred = data
    true, false, missed, _ = reference.decisions(y, np.float32(pred), np.float32(threshold))
    assert metrics.Precision(threshold)(y, pred) == pytest.approx(true / max(true + false, 1))
    assert metrics.Recall(threshold)(y, pred) == pytest.approx(true / max(true + missed, 1))
    several = metrics.Precision([threshold, 0.5])(y, pred)
    assert several[0] == metrics.Precision(threshold)(y, pred) and several[1] == metrics.Precision()(y, pred)


@given(scored(outputs=3), st.integers(0, 2), st.integers(1, 3))
def test_of_one_class_among_the_largest(data, class_id, k):
    y, pred = data
    among = reference.top_k(np.full(len(y), class_id), pred, k) if k < 3 else np.ones(len(y))
    places = np.argsort(-pred, axis=1, kind="stable")[:, :k]
    among = (places == class_id).any(axis=1)
    true = np.sum(among & (y[:, class_id] != 0))
    assert metrics.Precision(top_k=k, class_id=class_id)(y, pred) == pytest.approx(true / max(among.sum(), 1))
    assert metrics.Recall(top_k=k, class_id=class_id)(y, pred) == pytest.approx(
        true / max(y[:, class_id].sum(), 1)
    )


@given(scored(outputs=1))
def test_the_area_is_exact_where_each_score_has_its_own_threshold(data):
    y, pred = data
    area = metrics.AUC(thresholds=np.unique(pred))(y, pred)
    exact = reference.ranked_area(y, pred) if 0 < y.sum() < len(y) else 0.0
    assert area == pytest.approx(exact, abs=1e-12)
    low, high = (metrics.AUC(summation_method=way)(y, pred) for way in ("minoring", "majoring"))
    assert low - 1e-12 <= metrics.AUC()(y, pred) <= high + 1e-12


@given(scored(outputs=3), st.sampled_from([0.5, 1.0, 2.0]))
def test_f_scores(data, beta):
    y, pred = data
    each = [reference.f_score(y[:, j], np.float32(pred[:, j]) > np.float32(0.5), beta) for j in range(3)]
    found = metrics.FBetaScore(beta=beta, threshold=0.5)(y, pred)
    np.testing.assert_allclose(found, each, atol=1e-6)
    assert metrics.FBetaScore("macro", beta, 0.5)(y, pred) == pytest.approx(np.mean(each), abs=1e-6)
    together = reference.f_score(y.ravel(), np.float32(pred.ravel()) > np.float32(0.5), beta)
    assert metrics.FBetaScore("micro", beta, 0.5)(y, pred) == pytest.approx(together, abs=1e-6)
    if beta == 1:
        np.testing.assert_array_equal(metrics.F1Score(threshold=0.5)(y, pred), found)


def test_r2_and_errors():
    rng = np.random.default_rng(0)
    y = rng.normal(size=(50, 3))
    pred = y + rng.normal(size=y.shape)
    each = reference.r2(y, pred)
    np.testing.assert_allclose(metrics.R2Score(None)(y, pred), each, rtol=1e-10)
    assert metrics.R2Score()(y, pred) == pytest.approx(each.mean())
    weighted = np.average(each, weights=y.var(axis=0))
    assert metrics.R2Score("variance_weighted_average")(y, pred) == pytest.approx(weighted)
    adjusted = 1 - (1 - each.mean()) * 149 / 145
    assert metrics.R2Score(num_regressors=4)(y, pred) == pytest.approx(adjusted)
    with pytest.warns(UserWarning, match="r2_score is not adjusted: num_regressors=4 must be < 2"):
        assert metrics.R2Score(num_regressors=4)(y[:1], pred[:1]) == 0.0
    assert metrics.RootMeanSquaredError()(y, pred) == pytest.approx(np.sqrt(((y - pred) ** 2).mean()))
    assert metrics.get("mape")(y, pred) == pytest.approx(100 * np.mean(abs((y - pred) / y)))
    cosine = np.sum(y * pred, 1) / np.linalg.norm(y, axis=1) / np.linalg.norm(pred, axis=1)
    assert metrics.CosineSimilarity()(y, pred) == pytest.approx(cosine.mean())
    assert metrics.CosineSimilarity()(np.zeros((2, 3)), pred[:2]) == 0.0


@pytest.mark.parametrize("name", ["binary", "categorical", "kl"])
def test_crossentropies_are_those_of_the_losses(name):
    rng = np.random.default_rng(1)
    pred, y = rng.dirichlet(np.ones(4), 20).astype("f4"), rng.dirichlet(np.ones(4), 20)
    function = getattr(losses, {"kl": "kl_divergence"}.get(name, f"{name}_crossentropy"))
    metric = metrics.get(function.__name__)
    np.testing.assert_allclose(metric.rows(y, pred), function(y, pred), rtol=1e-6)
    assert getattr(metrics, function.__name__) is function and type(metrics.get(function)) is type(metric)
    labels = rng.integers(0, 4, 20)
    sparse = metrics.SparseCategoricalCrossentropy()(labels, pred)
    assert sparse == pytest.approx(metrics.CategoricalCrossentropy()(np.eye(4)[labels], pred), rel=1e-6)
    with_ignored = metrics.SparseCategoricalCrossentropy(ignore_class=-1)
    some = np.where(np.arange(20) < 5, -1, labels)
    rows = np.where(some < 0, 0.0, metrics.SparseCategoricalCrossentropy().rows(labels, pred))
    assert with_ignored(some, pred) == pytest.approx(rows.mean())
    assert with_ignored(some, pred, sample_weight=np.ones(20)) == pytest.approx(rows[5:].mean())
    logits = np.log(pred)
    assert metrics.SparseCategoricalCrossentropy(from_logits=True)(labels, logits) == pytest.approx(
        sparse, rel=1e-5
    )


@pytest.mark.parametrize("name", METRICS.classes)
def test_state_adds_up_as_in_keras(name):
    """Batch by batch as all at once; a call leaves it alone; weights of 2 count a sample twice."""
    metric, rng = METRICS.classes[name](), np.random.default_rng(5)
    pred, labels = rng.dirichlet(np.ones(3), 30), rng.integers(0, 3, 30)
    y = labels if metric.wants_labels or name == "Accuracy" or "Sparse" in name else np.eye(3)[labels]
    whole = metric(y, pred)
    for part in (slice(0, 7), slice(7, 30)):
        metric.update_state(y[part], pred[part])
    np.testing.assert_allclose(metric.result(), whole, rtol=1e-12)
    metric(y[:3], pred[:3])
    np.testing.assert_allclose(metric.result(), whole, rtol=1e-12)
    metric.reset_state()
    assert metric.result() == 0.0
    metric.update_state(y, pred, sample_weight=1 + (labels == 1))
    twice = np.concatenate([np.arange(30), np.flatnonzero(labels == 1)])
    np.testing.assert_allclose(metric.result(), metric(y[twice], pred[twice]), rtol=1e-12)
    for other in (copy.deepcopy(metric), pickle.loads(pickle.dumps(metric)), copy.copy(metric)):
        np.testing.assert_array_equal(other.result(), metric.result())


def test_nan_is_no_positive():
    y, pred = np.array([1.0, 1.0, 0.0, 0.0]), np.array([np.nan, 0.9, np.nan, 0.1])
    assert metrics.Precision()(y, pred) == 1.0 and metrics.Recall()(y, pred) == 0.5
    assert metrics.AUC(thresholds=[0.3])(y, pred) == 0.75 and metrics.AUC()(y, pred) == 0.625  # as the lowest
    assert np.isnan(metrics.R2Score()(y, pred)) and np.isnan(metrics.get("bce")(y, pred))


def test_a_function_is_a_metric():
    def gap(y_true, y_pred):
        assert y_true.shape == (4, 1) and y_pred.shape == (4, 1)
        return np.abs(y_true - y_pred)

    metric = metrics.get(gap)
    y, pred = np.array([0.0, 1, 1, 0]), np.array([0.5, 1, 0, 0])
    assert (metric.name, metric.direction, metric(y, pred)) == ("gap", None, 0.375)
    assert metric(y, pred, sample_weight=[0, 0, 1, 1]) == 0.5
    saved = metrics.serialize(metrics.FunctionMetric(gap, name="g"))
    assert saved["config"] == {"function": {"class_name": "gap", "config": {}}, "name": "g"}
    saved["config"]["function"] = gap
    assert metrics.deserialize(saved).name == "g" and metrics.deserialize(saved).function is gap
    assert metrics.FunctionMetric.from_config(metric.get_config()).function is gap
    assert metrics.get(losses.huber).direction == "down"
    worst = metrics.get(lambda y, p: abs(y - p).max())  # one number: each batch counts the same
    worst.update_state([0.0, 0.0, 0.0], [0.1, 0.2, 0.3])
    worst.update_state([0.0], [0.5])
    assert worst.result() == pytest.approx(0.4)


@pytest.mark.parametrize(
    ("returned", "message"),
    [
        (None, "got None"),
        ("x", "got 'x'"),
        (np.zeros(3), r"got an array of shape \(3,\) for 2 samples"),
        (np.zeros((0, 2)), r"got an array of shape \(0, 2\) for 2 samples"),
        ([[1], [2, 3]], "cannot be made an array"),
        (1j, r"got 1j"),
        ({"a": 1}, "got {'a': 1}"),
    ],
)
def test_what_a_function_returns_is_checked(returned, message):
    def mine(y_true, y_pred):
        return returned

    with pytest.raises((TypeError, ValueError), match=f"metric 'mine' must return .*{message}"):
        metrics.get(mine)([0, 1], [0.5, 0.5])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: metrics.AUC(1), "num_thresholds must be >= 2, got 1"),
        (lambda: metrics.AUC(curve="RUC"), "curve must be one of 'ROC', 'PR', 'PRGAIN', .*, got 'RUC'"),
        (lambda: metrics.AUC(summation_method="mean"), "summation_method must be one of"),
        (lambda: metrics.AUC(thresholds=[0.5, 2]), "each of thresholds must be <= 1, got 2"),
        (lambda: metrics.AUC(thresholds=0.5), "thresholds must be a list of numbers, got 0.5"),
        (lambda: metrics.AUC(num_labels=3), "num_labels goes with multi_label=True alone"),
        (lambda: metrics.AUC(label_weights=[1, 2]), "label_weights must be None"),
        (lambda: metrics.AUC(multi_label=1), "multi_label must be True or False"),
        (lambda: metrics.Precision("high"), "thresholds must be a number or a list of numbers, got 'high'"),
        (lambda: metrics.Precision([]), "thresholds must not be empty"),
        (lambda: metrics.Recall(-0.1), "thresholds must be >= 0, got -0.1"),
        (lambda: metrics.Recall(top_k=0), "top_k must be >= 1, got 0"),
        (lambda: metrics.Recall(class_id=-1), "class_id must be >= 0, got -1"),
        (lambda: metrics.F1Score("mean"), "average must be one of None, 'micro', 'macro', 'weighted', got 'mean'"),
        (lambda: metrics.F1Score(threshold=0), "threshold must be > 0, got 0"),
        (lambda: metrics.F1Score(threshold=1.5), "threshold must be <= 1, got 1.5"),
        (lambda: metrics.FBetaScore(beta=0), "beta must be > 0, got 0"),
        (lambda: metrics.R2Score("mean"), "class_aggregation must be one of"),
        (lambda: metrics.R2Score(num_regressors=-1), "num_regressors must be >= 0"),
        (lambda: metrics.CosineSimilarity(axis=0), "axis must be one of -1, 1, got 0"),
        (lambda: metrics.BinaryCrossentropy(label_smoothing=2), "label_smoothing must be <= 1, got 2"),
        (lambda: metrics.FunctionMetric(3), "function must be a function of .*, got 3"),
        (lambda: metrics.AUC()([0, 1], [[0.5, 0.5], [0.5, 0.5]]), "'auc' needs targets shaped as the output"),
        (lambda: metrics.AUC()(np.zeros((2, 3, 4)), np.zeros((2, 3, 4))), "y_pred must have shape"),
        (lambda: metrics.Precision(class_id=2)([[0, 1]], [[0.5, 0.5]]), "class_id of metric 'precision' must be < 2"),
        (lambda: metrics.Precision(top_k=3)([[0, 1]], [[0.5, 0.5]]), "top_k of metric 'precision' must be <= 2"),
        (lambda: metrics.AUC(multi_label=True, num_labels=3)([[0, 1]], [[1, 1]]), "num_labels .* must be 2, got 3"),
        (lambda: metrics.SparseCategoricalCrossentropy()([[0, 1]], [[0.5, 0.5]]), "needs class indices"),
        (lambda: metrics.get("sparse_categorical_crossentropy")([-1], [[0.5, 0.5]]), "whole numbers in 0..1"),
        (lambda: metrics.Precision().rows([1], [1]), "precision is no mean over the samples"),
        (lambda: metrics.deserialize(metrics.serialize(metrics.get(abs))), "metric abs is a function of your own"),
    ],
)  # fmt: skip
def test_bad_input(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_another_number_of_outputs_needs_a_reset():
    metric = metrics.F1Score()
    metric.update_state([[0, 1]], [[0.5, 0.6]])
    with pytest.raises(ValueError, match="'f1_score' has seen another number of outputs .*reset_state"):
        metric.update_state([[0, 1, 0]], [[0.5, 0.6, 0.1]])
    metric.reset_state()
    metric.update_state([[0, 1, 0]], [[0.5, 0.6, 0.1]])


def test_a_setting_that_is_changed_counts():
    metric = metrics.Precision()
    metric.thresholds = 0.9
    assert metric([1, 0], [0.95, 0.8]) == 1.0
    with pytest.raises(ValueError, match="thresholds must be <= 1"):
        metric.thresholds = 3.0
    with pytest.raises(AttributeError, match="F1Score has no setting 'beta'"):
        metrics.F1Score().beta = 2.0


def test_ones_own_may_change_the_result_of_sums():
    class Gini(metrics.AUC):
        def result_of(self, sums):
            return 2 * super().result_of(sums) - 1

    assert Gini()([0, 1], [0.1, 0.9]) == 1.0 and issubclass(Gini, OfSums)
    late = type("Late", (metrics.AUC,), {"update_state": lambda self, *arguments: None})
    with pytest.raises(TypeError, match="Late overrides update_state, which training does not call"):
        metrics.get(late())

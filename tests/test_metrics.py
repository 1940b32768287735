"""Metrics against the naive forms in reference.py, their names, and bad input."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from minidl import Input, Layer, Sequential, metrics
from minidl.metrics import METRICS
from minidl.metrics.base import OfSums


@st.composite
def scores(draw):
    """(pred, labels, one-hot) with many ties, so that their order is tested."""
    rows, columns = draw(st.integers(1, 20)), draw(st.integers(2, 40))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    pred = rng.integers(0, draw(st.integers(2, 60)), (rows, columns)).astype(dtype) / 60
    labels = rng.integers(0, columns, rows)
    return pred, labels, np.eye(columns, dtype=dtype)[labels]


@given(scores(), st.integers(1, 6))
def test_accuracies(data, k):
    pred, labels, onehot = data
    right = reference.sparse_accuracy(labels, pred)
    np.testing.assert_array_equal(metrics.sparse_categorical_accuracy(labels, pred), right)
    np.testing.assert_array_equal(metrics.categorical_accuracy(onehot, pred), right)
    top = reference.top_k(labels, pred, k)
    np.testing.assert_array_equal(metrics.sparse_top_k_categorical_accuracy(labels, pred, k), top)
    np.testing.assert_array_equal(metrics.top_k_categorical_accuracy(onehot, pred, k), top)
    np.testing.assert_array_equal(
        metrics.binary_accuracy(onehot, pred), ((pred > 0.5) == (onehot == 1)).mean(axis=1)
    )


@given(scores())
def test_errors(data):
    pred, _, target = data
    difference = np.float64(pred) - np.float64(target)
    np.testing.assert_allclose(metrics.get("mse").rows(target, pred), (difference**2).mean(1), rtol=1e-12)
    np.testing.assert_allclose(metrics.get("mae").rows(target, pred), abs(difference).mean(1), rtol=1e-12)


def test_the_comparison_would_see_a_wrong_tie_rule():
    pred, labels = np.array([[1.0, 1.0]]), np.array([1])
    assert reference.sparse_accuracy(labels, pred)[0] == 0.0  # the last of equals would give 1
    assert reference.top_k(labels, pred, 1)[0] == 1.0


def test_keras_examples():
    targets, pred = [[0, 0, 1], [0, 1, 0]], [[0.1, 0.9, 0.8], [0.05, 0.95, 0]]
    assert metrics.CategoricalAccuracy()(targets, pred) == 0.5
    assert metrics.CategoricalAccuracy()(targets, pred, sample_weight=[0.7, 0.3]) == pytest.approx(0.3)
    assert metrics.SparseCategoricalAccuracy()([2, 1], pred) == 0.5
    assert metrics.TopKCategoricalAccuracy(k=1)(targets, pred) == 0.5
    assert metrics.TopKCategoricalAccuracy(k=2)(targets, pred) == 1.0
    assert metrics.BinaryAccuracy()([[1], [1], [0], [0]], [[0.98], [1], [0], [0.6]]) == 0.75


def test_accuracy_picks_its_form():
    pred = np.array([[0.2, 0.8], [0.9, 0.1]])
    assert metrics.Accuracy()([1, 0], pred) == 1.0
    assert metrics.Accuracy()([[0, 1], [0, 1]], pred) == 0.5
    assert metrics.Accuracy()([1, 0, 0], [[0.7], [0.2], [0.9]]) == pytest.approx(2 / 3)


def test_nan_is_never_right():
    pred = np.array([[np.nan, 0.0], [0.0, np.nan], [np.nan, np.nan]])
    labels = np.array([0, 0, 1])
    for values in (
        metrics.sparse_categorical_accuracy(labels, pred),
        metrics.sparse_top_k_categorical_accuracy(labels, pred, 1),
        metrics.categorical_accuracy(np.eye(2)[labels], pred),
    ):
        np.testing.assert_array_equal(values, 0.0)
    assert metrics.binary_accuracy([[0.0]], [[np.nan]])[0] == 0.0
    assert np.isnan(metrics.get("mse").rows([[0.0]], [[np.nan]])[0])


def test_unlabelled_rows_are_not_right():
    for metric, right in (
        ("sparse_categorical_accuracy", [[0.0, 1.0]] * 2),
        ("binary_accuracy", [[0.9]] * 2),
    ):
        with pytest.warns(
            UserWarning, match=f"{metric}: y_true is below 0 for 1 of 2 samples, which count as misses"
        ):
            np.testing.assert_array_equal(getattr(metrics, metric)([-1, 1], right), [0, 1])
        assert np.array_equal(getattr(metrics, metric)([1, 1], right), [1, 1])  # without a warning
    assert metrics.CategoricalAccuracy()([[-1, 1]], [[0.1, 0.9]]) == 1.0
    assert metrics.MeanSquaredError()([[-1.0]], [[-1.0]]) == 0.0


def test_running_mean():
    metric = metrics.get("acc")
    metric.update_state([0, 1], [[1.0, 0.0], [1.0, 0.0]])
    metric.update_state([0], [[1.0, 0.0]], sample_weight=[2.0])
    assert metric.result() == 0.75
    metric.reset_state()
    assert metric.result() == 0.0


@pytest.mark.parametrize(
    "name", ["accuracy", "acc", "mse", "MAE", "top_k_categorical_accuracy", "CategoricalAccuracy"]
)
def test_names_are_the_keys(name):
    assert metrics.get(name).name == name


def test_get():
    assert metrics.get("TopKCategoricalAccuracy").k == 5
    assert isinstance(metrics.get(metrics.MeanSquaredError), metrics.MeanSquaredError)
    metric = metrics.TopKCategoricalAccuracy(k=3, name="top3")
    assert metrics.get(metric) is metric
    copy = metrics.TopKCategoricalAccuracy.from_config(metric.get_config())
    assert (copy.k, copy.name, repr(copy)) == (3, "top3", "TopKCategoricalAccuracy(k=3, name='top3')")
    assert metrics.get_all(None) == []
    assert [m.name for m in metrics.get_all(["accuracy", "mse"])] == ["accuracy", "mse"]
    assert [m.name for m in metrics.get_all("accuracy")] == ["accuracy"]


def test_bad_input():
    with pytest.raises(ValueError, match="unknown metric 'acuracy': did you mean 'accuracy'"):
        metrics.get("acuracy")
    with pytest.raises(TypeError, match="metric must be a name, a config or Metric, got 3"):
        metrics.get(3)
    with pytest.raises(ValueError, match="k must be >= 1, got 0"):
        metrics.TopKCategoricalAccuracy(k=0)
    with pytest.raises(TypeError, match="name must be a non-empty string"):
        metrics.MeanSquaredError(name=1)
    with pytest.raises(ValueError, match="distinct names"):
        metrics.get_all(["accuracy", "accuracy"])
    with pytest.raises(ValueError, match="needs targets shaped as the output"):
        metrics.get("mse")([1, 0], [[0.5, 0.5], [0.5, 0.5]])
    with pytest.raises(ValueError, match="needs class indices"):
        metrics.SparseCategoricalAccuracy()([[0, 1]], [[0.5, 0.5]])
    with pytest.raises(ValueError, match="y_true must have one row per sample of y_pred: expected 2, got 1"):
        metrics.get("acc")([1], [[0.5, 0.5], [0.5, 0.5]])
    with pytest.raises(ValueError, match="got 7 at index 1"):
        metrics.get("acc")([0, 7], [[0.5, 0.5], [0.5, 0.5]])


@pytest.mark.parametrize(
    "name", [name for name, cls in METRICS.classes.items() if not issubclass(cls, OfSums)]
)
def test_further_axes_are_averaged_over(name):
    """As Keras: the largest is looked for along the last axis, not among all of a sample's numbers."""
    metric, rng = METRICS.classes[name](), np.random.default_rng(0)
    pred, labels = rng.uniform(size=(5, 4, 7)), rng.integers(0, 7, (5, 4))
    targets = rng.dirichlet(np.ones(7), (5, 4)) if name.startswith("Mean") else np.eye(7)[labels]
    wants_labels = name == "Accuracy" or name.startswith("Sparse")
    for y in [labels, labels[..., None]] if wants_labels else [targets]:
        each = [metric.rows(y[:, t], pred[:, t]) for t in range(4)]
        np.testing.assert_allclose(metric.rows(y, pred), np.mean(each, axis=0), rtol=1e-12)
        assert metric(y, pred) == pytest.approx(metric.result_of((np.sum(each), np.size(each))), rel=1e-12)
    with pytest.raises(ValueError, match="y_true"):
        metric.rows(labels[:, :3] if wants_labels else targets[:, :3], pred)


def test_training_refuses_to_look_for_the_largest_of_several_axes():
    class Rows(Layer):
        def forward(self, x, training=False):
            return x

        def backward(self, dout):
            return dout

    x, y = np.zeros((6, 4, 3)), np.zeros((6, 4, 3))
    model = Sequential([Input((4, 3)), Rows()])
    model.compile("sgd", "mse", ["categorical_accuracy"])
    with pytest.raises(
        ValueError, match=r"metric categorical_accuracy needs outputs of shape \(B, C\), got \(B, .*Flatten"
    ):
        model.evaluate(x, y, verbose=0)

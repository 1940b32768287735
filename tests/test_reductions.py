"""What becomes of the rows' losses: ``reduction`` and ``ignore_class``, called, in fit and in evaluate."""

import numpy as np
import pytest

from minidl import Dense, Dropout, Input, Sequential, losses, optimizers
from minidl.models import load_model

REDUCTIONS = ["sum_over_batch_size", "mean", "sum", "mean_with_sample_weight"]
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(43, 5)).astype("f4"), RNG.integers(0, 3, 43)
WEIGHT = RNG.choice([0.0, 0.5, 1.0, 3.0], 43)
WITH_IGNORED = np.where(np.arange(43) % 5 == 0, 255, Y)


def reduced(rows, reduction, weight=None, counts=None):
    """By hand, as Keras's pages say it. ``counts``: the rows that are not ignored."""
    weight = np.ones(len(rows)) if weight is None else weight
    counts = np.ones(len(rows), bool) if counts is None else counts
    total = (rows * weight * counts).sum()
    if reduction == "sum":
        return total
    divisor = (weight * counts).sum() if reduction == "mean_with_sample_weight" else counts.sum()
    return total / divisor if divisor else 0.0


@pytest.mark.parametrize("weight", [None, WEIGHT, np.zeros(43)], ids=["plain", "weighted", "without weight"])
@pytest.mark.parametrize("reduction", REDUCTIONS)
def test_called(reduction, weight):
    y, pred = RNG.normal(size=(2, 43, 4))
    rows = ((y - pred) ** 2).mean(axis=1)
    loss = losses.MeanSquaredError(reduction)
    assert loss(y, pred, weight) == pytest.approx(reduced(rows, reduction, weight), rel=1e-12)
    value, gradient = loss.value_and_grad(pred, y, weight)
    assert value == loss(y, pred, weight)
    unit = [reduced(row, reduction, weight) for row in np.eye(43)]  # what a row's loss is multiplied by
    np.testing.assert_allclose(gradient, np.array(unit)[:, None] * (pred - y) / 2, rtol=1e-12)


@pytest.mark.parametrize("reduction", ["none", None])
def test_called_without_a_reduction(reduction):
    y, pred = RNG.normal(size=(2, 43, 4)).astype("f4")
    rows = losses.MeanSquaredError(reduction)(y, pred)
    assert rows.shape == (43,) and rows.dtype == np.float32
    np.testing.assert_allclose(rows, losses.mean_squared_error(y, pred), rtol=1e-6)
    weighted = losses.MeanSquaredError(reduction)(y, pred, WEIGHT)
    np.testing.assert_allclose(weighted, rows * WEIGHT, rtol=1e-6)
    model = Sequential([Dense(4, input_shape=(5,))])
    with pytest.raises(ValueError, match=f"reduction of loss mean_squared_error is {reduction!r}"):
        model.compile("sgd", losses.MeanSquaredError(reduction))
    assert model.optimizer is None and model.loss is None
    with pytest.raises(ValueError, match="training needs a single number"):
        model.loss = losses.MeanSquaredError(reduction)


def test_a_mean_where_nothing_else_would_be_right():
    class Own(losses.MeanSquaredError):
        def value_and_grad(self, logits, y, sample_weight=None):
            return super().value_and_grad(logits, y, sample_weight)

    with pytest.raises(ValueError, match="has a value_and_grad of its own, must be 'mean', got 'sum'"):
        Own("sum")
    assert Own("mean").reduction == "mean"


@pytest.mark.parametrize("ignored", [255, -1, -100, 1])
@pytest.mark.parametrize("reduction", REDUCTIONS)
@pytest.mark.parametrize("from_logits", [True, False])
def test_ignored_rows(from_logits, reduction, ignored):
    z = RNG.normal(size=(43, 3))
    pred = z if from_logits else losses.softmax(z)
    labels = np.where(np.arange(43) % 5 == 0, ignored, 2 * (Y > 0))  # 0 or 2
    counts = labels != ignored
    rows = losses.sparse_categorical_crossentropy(np.where(counts, labels, 0), pred, from_logits)
    loss = losses.SparseCategoricalCrossentropy(from_logits, ignored, reduction)
    for weight in (None, WEIGHT):
        expected = reduced(rows, reduction, weight, counts)
        assert loss(labels, pred, weight) == pytest.approx(expected, rel=1e-12)
    each = losses.sparse_categorical_crossentropy(labels, pred, from_logits, ignored)
    np.testing.assert_array_equal(each, rows * counts)
    if from_logits:
        value, gradient = loss.value_and_grad(z, labels, WEIGHT)
        assert value == loss(labels, z, WEIGHT) and (gradient[~counts] == 0).all() and gradient[counts].any()
    assert loss(np.full(43, ignored), pred) == 0


def network(loss, dtype="float32"):
    model = Sequential(
        [Input((5,)), Dense(8, "tanh"), Dropout(0.2), Dense(3, "softmax")], seed=4, dtype=dtype
    )
    model.compile(optimizers.Adam(0.01), loss, metrics=["accuracy"])
    return model


CASES = {
    **{
        name: (lambda name=name: losses.SparseCategoricalCrossentropy(reduction=name), Y)
        for name in REDUCTIONS
    },
    **{
        f"{name}, ignored": (
            lambda name=name: losses.SparseCategoricalCrossentropy(False, 255, name),
            WITH_IGNORED,
        )
        for name in REDUCTIONS
    },
}


@pytest.mark.parametrize("weight", [None, WEIGHT], ids=["plain", "weighted"])
@pytest.mark.parametrize("name", CASES)
def test_fit_compiled_is_fit_layer_by_layer_to_the_bit(name, weight):
    make, y = CASES[name]
    compiled, layered = network(make()), network(make())
    options = dict(epochs=3, batch_size=8, verbose=0, sample_weight=weight)
    first = compiled.fit(X, y, **options).history
    layered.ops = lambda training=False, logits=False: None  # as for a model with a layer of the user's own
    second = layered.fit(X, y, **options).history
    assert np.array_equal(compiled.params, layered.params) and first == second
    if weight is not None and name.startswith(("sum, ", "mean_with")):  # the check can fail
        mean = network(losses.SparseCategoricalCrossentropy(False, 255))
        assert mean.fit(X, y, **options).history["loss"] != first["loss"]


@pytest.mark.parametrize("name", CASES)
def test_the_history_is_keras_s_mean_of_batches(name):
    """An epoch's loss is the mean of its batches', each weighted by its size; an evaluation is no other."""
    make, y = CASES[name]
    model = network(make(), "float64")
    pred = model.predict(X)
    counts = y != 255
    rows = -np.log(pred[np.arange(43), np.where(counts, y, 0)])
    batches = [slice(first, first + 8) for first in range(0, 43, 8)]
    reduction = name.split(",")[0]
    values = [reduced(rows[b], reduction, WEIGHT[b], counts[b]) for b in batches]
    expected = sum(value * len(rows[b]) for value, b in zip(values, batches, strict=True)) / 43
    loss, accuracy = model.evaluate(X, y, batch_size=8, sample_weight=WEIGHT, verbose=0)
    assert loss == pytest.approx(expected, rel=1e-10)
    assert accuracy == (pred.argmax(axis=1) == y).mean(), "metrics see ignored rows, as in Keras"
    model.compile(optimizers.SGD(0.0), make())
    model.layers[1].rate = 0.0
    options = dict(batch_size=8, sample_weight=WEIGHT, shuffle=False, verbose=0)
    history = model.fit(X, y, validation_data=(X, y, WEIGHT), validation_batch_size=8, **options).history
    assert history["loss"] == pytest.approx([expected], rel=1e-10)
    assert history["val_loss"] == pytest.approx([expected], rel=1e-10)
    part = slice(0, 8)
    value = model.train_on_batch(X[part], y[part], sample_weight=WEIGHT[part])
    assert value == pytest.approx(values[0], rel=1e-10)


def test_a_sum_trains_b_times_as_fast():
    fast, slow = (Sequential([Dense(3, input_shape=(5,))], seed=1, dtype="float64") for _ in range(2))
    y = np.eye(3)[Y]
    fast.compile(optimizers.SGD(0.01), losses.MeanSquaredError("sum"))
    slow.compile(optimizers.SGD(0.43), losses.MeanSquaredError())
    for model in (fast, slow):
        model.fit(X, y, batch_size=43, epochs=3, verbose=0)
    np.testing.assert_allclose(fast.params, slow.params, rtol=1e-10)


def test_saved_and_loaded(tmp_path):
    model = network(losses.SparseCategoricalCrossentropy(False, 255, "sum"))
    model.fit(X, WITH_IGNORED, verbose=0)
    model.save(tmp_path / "model.npz")
    again = load_model(tmp_path / "model.npz")
    assert again.loss.get_config() == model.loss.get_config() and again.loss.reduction == "sum"
    for one in (model, again):
        one.fit(X, WITH_IGNORED, epochs=2, initial_epoch=1, verbose=0)
    assert np.array_equal(model.params, again.params)
    assert losses.deserialize(losses.serialize(losses.Huber(reduction=None))).reduction is None


def test_ignored_labels_are_no_classes():
    model = network(losses.SparseCategoricalCrossentropy(ignore_class=255))
    with pytest.raises(ValueError, match=r"whole numbers in 0..2 \(3 classes\) or the ignored 255, got 3"):
        model.fit(X, np.full(43, 3), verbose=0)
    model.fit(X, WITH_IGNORED, class_weight={0: 2.0, 1: 0.5}, verbose=0)
    minus_one = network(losses.SparseCategoricalCrossentropy(ignore_class=-1))
    minus_one.fit(X, np.where(WITH_IGNORED == 255, -1, Y), validation_split=0.2, verbose=0)
    minus_one.train_on_batch(X[:5], [-1, 0, -1, -1, 0])

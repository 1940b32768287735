"""Layers that bring inputs into a range: Rescaling by vectors and Normalization, and ELU, a layer like LeakyReLU."""

from __future__ import annotations

import copy
import json
import pickle
import tracemalloc

import numpy as np
import pytest
from test_layers import assert_gradients, ready, sample
from test_memory_safety import DTYPES, Fences, every_shape, numbers

import minidl
from minidl import Sequential, check_gradients, clone_model, load_model
from minidl.kernels import rowwise
from minidl.layers import (
    ELU,
    Dense,
    Flatten,
    GaussianNoise,
    Input,
    Layer,
    Normalization,
    RandomTranslation,
    Rescaling,
)

X = np.array([[0, 7, -400], [2, 9, 600], [0, 7.5, 1000], [5, -1, -7]], np.float32)
IMAGES = np.arange(24, dtype=np.float32).reshape(2, 2, 3, 2) ** 2


def output(layer, x=X):
    return Sequential([Input(x.shape[1:]), layer], seed=0)(x)


def adapted(x=X, **settings):
    layer = Normalization(**settings)
    layer.adapt(x)
    return layer


# -- values: Keras 3.15's, by its torch backend -----------------------------------------------------------


@pytest.mark.parametrize(
    "layer, x, expected",
    [
        (
            adapted(), X,
            [[-0.85518599, 0.35300681, -1.29425633], [0.1221694, 0.86647117, 0.5593152],
             [-0.85518599, 0.48137289, 1.30074382], [1.58820271, -1.70085096, -0.56580269]],
        ),
        (adapted(axis=None), X[:2], [[-0.2987161, -0.27819079, -1.47158921], [-0.29285181, -0.2723265, 1.46059346]]),
        (adapted(invert=True), np.array([[1, -1, 0.5]]), [[3.79633832, 1.72989082, 567.99951172]]),
        (Normalization(mean=[1, 2, 3], variance=[4, 0, 0.25]), X[:2], [[-0.5, 5e7, -806], [0.5, 7e7, 1194]]),
        (Normalization(mean=3.0, variance=2), X[:1], [[-2.12132049, 2.82842708, -284.96405029]]),
        (Rescaling([1.0, 0.5, 0.001], [0, -1, 2]), X[:2], [[0, 2.5, 1.6], [2, 3.5, 2.6]]),
        (Rescaling(2.0, np.array([0, -1, 2])), X[:1], [[0, 13, -798]]),
        (ELU(), np.array([[-2, -0.5, 0, 0.5]]), [[-0.86466467, -0.3934693, 0, 0.5]]),
        (ELU(0.3), np.array([[-2, -0.5, 0, 0.5]]), [[-0.25939941, -0.1180408, 0, 0.5]]),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Layer) else "",
)  # fmt: skip
def test_values_of_keras(layer, x, expected):
    np.testing.assert_allclose(output(copy.deepcopy(layer), x), expected, rtol=1e-6, atol=1e-6)


def test_axes():
    expected = [
        -1.01228201,
        -1.04417229,
        -0.9728424,
        -0.97377867,
        -0.85452378,
        -0.83299142,
        -1.13380945,
        -1.14437938,
    ]
    layer = adapted(IMAGES, axis=(1, 3))
    assert layer.mean.shape == layer.variance.shape == (2, 2)
    np.testing.assert_allclose(output(layer, IMAGES).ravel()[:8], expected, rtol=1e-5)
    given = Normalization(axis=(1, -1), mean=[1, 2], variance=[4, 9])  # the last axis has them
    expected = [-0.5, -0.33333334, 1.5, 2.33333325, 7.5, 7.66666651, 17.5, 15.66666698]
    np.testing.assert_allclose(output(given, IMAGES).ravel()[:8], expected, rtol=1e-5)
    every = adapted(IMAGES, axis=None)
    assert every.mean == pytest.approx(IMAGES.astype(float).mean()) and every.variance == pytest.approx(
        IMAGES.astype(float).var()
    )


def test_an_adapted_layer_gives_mean_0_and_variance_1_and_inverts():
    x = np.random.default_rng(3).normal(1e4, [0.1, 10, 1e3], (500, 3))
    found = Sequential([Input((3,)), adapted(x)], dtype="float64")(x)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-9)
    np.testing.assert_allclose(found.std(axis=0), 1, rtol=1e-9)
    back = Sequential([Input((3,)), adapted(x, invert=True)], dtype="float64")(found)
    np.testing.assert_allclose(back, x, rtol=1e-12)
    assert np.abs(Sequential([Input((3,)), adapted(x + 1)], dtype="float64")(x).mean(axis=0)).max() > 1e-4


# -- adapt ------------------------------------------------------------------------------------------------


class Batches:
    """Batches by number, without an iterator: it never raises an IndexError."""

    def __init__(self, x, size):
        self.x, self.size = x, size

    def __len__(self):
        return -(-len(self.x) // self.size)

    def __getitem__(self, number):
        return self.x[number * self.size : (number + 1) * self.size], None


def test_adapt_reads_arrays_memory_maps_and_batches_in_float64(tmp_path):
    x = np.random.default_rng(4).normal(1e5, 3, (70_000, 5)).astype(np.float32)
    mean, variance = x.astype(float).mean(axis=0), x.astype(float).var(axis=0)
    np.save(tmp_path / "x.npy", x)
    forms = [
        x, np.load(tmp_path / "x.npy", mmap_mode="r"), np.asfortranarray(x), x[::-1],
        [x[:10], x[10:]], (x[i : i + 999] for i in range(0, len(x), 999)), Batches(x, 1000),
        ((x[i : i + 5000], None) for i in range(0, len(x), 5000)),
    ]  # fmt: skip
    for form in forms:
        layer = adapted(form)
        np.testing.assert_allclose(layer.mean, mean, rtol=1e-12)
        np.testing.assert_allclose(layer.variance, variance, rtol=1e-9)
    # what sums of squares in float32 would give
    naive = (x**2).mean(axis=0) - x.mean(axis=0) ** 2
    assert np.abs(naive / variance - 1).max() > 1e-2
    np.testing.assert_array_equal(adapted(X.tolist()).mean, adapted(X).mean)
    assert adapted(np.arange(5)).mean == [2]


def test_adapt_takes_the_memory_of_one_block():
    x = np.random.default_rng(5).integers(0, 256, (60_000, 784), dtype=np.uint8)
    tracemalloc.start()
    layer = adapted(x)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < x.nbytes  # as float64 it were eight times as much
    np.testing.assert_allclose(layer.mean, x.mean(axis=0), rtol=1e-9)


def test_adapt_after_build_and_after_training_is_followed():
    x, y = np.random.default_rng(6).normal(5, 3, (60, 4)), np.arange(60) % 3
    model = Sequential([Input((4,)), Normalization(), Dense(3, "softmax")], seed=1)
    model.compile("adam", "sparse_categorical_crossentropy")
    model.layers[0].adapt(x)
    model.fit(x, y, verbose=0)
    before, one = model.predict(x), model.predict(x[:1])
    assert np.array_equal(before, model.forward(x)) and np.array_equal(one, before[:1])
    model.layers[0].adapt(2 * x)
    after = model.predict(x)
    assert np.array_equal(after, model.forward(x)) and not np.allclose(before, after)
    assert np.array_equal(model.predict(x[:1]), after[:1])
    assert np.array_equal(model.predict_logits(x), model.forward(x, logits=True))


def test_adapt_in_a_callback_is_followed_by_the_next_epoch():
    x, y = np.random.default_rng(6).normal(5, 3, (60, 4)), np.arange(60) % 3

    def train(layerwise):
        model = Sequential([Input((4,)), adapted(x), Dense(3, "softmax")], seed=1)
        model.compile("sgd", "sparse_categorical_crossentropy")
        if layerwise:
            model.ops = lambda training=False, logits=False: None
        again = minidl.callbacks.LambdaCallback(on_epoch_end=lambda *_: model.layers[0].adapt(x * 2))
        model.fit(x, y, epochs=2, verbose=0, callbacks=[again])
        return model.params

    assert np.array_equal(train(False), train(True))


# -- gradients, both ways to run, kernels -----------------------------------------------------------------


@pytest.mark.parametrize("layer, shape", [
    (Rescaling([0.3, -2.0], 1.0), (3, 2)), (Rescaling(0.5, [[1.0], [2.0], [3.0]]), (3, 2)),
    (Normalization(mean=[1, 2], variance=[4, 0.25]), (3, 2)),
    (Normalization(mean=[1, 2], variance=[4, 0.25], invert=True), (3, 2)),
    (ELU(0.4), (5,)), (ELU(3.0), (5,)), (ELU(0.0), (5,)),
])  # fmt: skip
def test_gradients(layer, shape):
    assert_gradients(ready(layer, shape), sample((4, *shape), seed=8))


def test_a_wrong_gradient_is_caught():
    layer = ready(Normalization(mean=[1, 2], variance=[4, 0.25]), (2,))
    layer._columns[1] += 1e-3
    right = layer.forward
    layer.__dict__["forward"] = lambda x, training=False: right(x) * 1.01
    with pytest.raises(AssertionError):
        assert_gradients(layer, sample((4, 2)))


def stack(x):
    return [
        Input((6, 5)), RandomTranslation(0.2, 0.2), adapted(x), Flatten(), GaussianNoise(0.1),
        Dense(17), ELU(0.6), Rescaling(np.linspace(0.5, 2, 17), np.linspace(-1, 1, 17)), Dense(4, "softmax"),
    ]  # fmt: skip


def train(dtype="float32", layerwise=False, threads=None, x_dtype=np.uint8):
    rng = np.random.default_rng(9)
    x, y = rng.integers(0, 256, (90, 6, 5)).astype(x_dtype), rng.integers(0, 4, 90)
    model = Sequential(stack(x), dtype=dtype, seed=2)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    if layerwise:
        model.ops = lambda training=False, logits=False: None
    before = minidl.get_num_threads()
    try:
        minidl.set_num_threads(threads or before)
        model.fit(x, y, batch_size=16, epochs=2, verbose=0)
    finally:
        minidl.set_num_threads(before)
    return model, x


@pytest.mark.parametrize("x_dtype", [np.uint8, np.float32, np.int16])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_compiled_and_layerwise_end_with_the_same_bits(dtype, x_dtype):
    compiled, x = train(dtype, x_dtype=x_dtype)
    assert compiled.ops(training=True) is not None
    layerwise, _ = train(dtype, layerwise=True, x_dtype=x_dtype)
    assert np.array_equal(compiled.params, layerwise.params) and np.isfinite(compiled.params).all()
    assert np.array_equal(compiled.predict(x), layerwise.predict(x))
    for threads in (1, 2, 3):
        assert np.array_equal(train(dtype, threads=threads, x_dtype=x_dtype)[0].params, compiled.params)


def test_other_numbers_give_other_bits():
    model, x = train()
    layers = stack(x)
    layers[2] = adapted(x + 1)
    other = Sequential(layers, seed=2)
    other.compile("adam", "sparse_categorical_crossentropy")
    other.fit(x, np.random.default_rng(9).integers(0, 4, 90), batch_size=16, epochs=2, verbose=0)
    assert not np.array_equal(other.params, model.params)


def test_gradients_of_a_model():
    model, x = train("float64", x_dtype=np.float64)
    check_gradients(model, x[:3], np.array([0, 1, 3]), training=False)


@every_shape
@pytest.mark.parametrize("dtype", DTYPES)
def test_kernels_stay_inside(dtype, shapes):
    fences = Fences()
    for shape in shapes:
        x, out = numbers(shape, dtype), np.full(shape, np.nan, dtype)
        center, scale, offset = np.random.default_rng(1).normal(size=(3, shape[1]))
        fences(rowwise.rescale_columns, out, x, center, scale, offset)
        fences(lambda both, *columns: rowwise.rescale_columns(both, both, *columns), x, center, scale, offset)
        fences(rowwise.rescale_columns_backward, out, x, scale)


# -- with the model ---------------------------------------------------------------------------------------


def test_numbers_are_saved_copied_and_in_the_config(tmp_path):
    model, x = train()
    expected = model.predict(x)
    model.save(tmp_path / "model.npz")
    loaded = load_model(tmp_path / "model.npz")
    for copied in (loaded, copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert np.array_equal(copied.predict(x), expected)
    loaded.layers[1].adapt(x + 1)
    assert not np.array_equal(loaded.predict(x), expected)
    clone = clone_model(model)
    assert np.array_equal(clone.layers[1].mean, model.layers[1].mean) and clone.layers[1].mean.dtype == float
    config = json.loads(json.dumps(model.get_config()))
    assert Sequential.from_config(config).get_config() == model.get_config()
    assert len(model.get_weights()) == 4  # the numbers are settings, not weights


def test_what_was_built_with_numbers_keeps_them():
    model, _ = train()
    for layer, setting in ((model.layers[1], "mean"), (model.layers[6], "scale"), (model.layers[5], "alpha")):
        with pytest.raises(AttributeError, match=rf"(?s){setting} is .* since the layer was built"):
            setattr(layer, setting, 2.0)


def test_a_layer_that_augments_comes_first():
    x, y = np.random.default_rng(0).random((20, 4, 4)), np.arange(20) % 3
    teacher = Sequential([Input((4, 4)), Flatten(), Dense(3)], seed=1)
    student = Sequential(
        [Input((4, 4)), adapted(x), RandomTranslation(0.3, 0.3), Flatten(), Dense(3)], seed=1
    )
    student.compile("adam", minidl.KnowledgeDistillation())
    with pytest.raises(ValueError, match="augments what 'normalization.*' has made of x"):
        student.fit(x, y, target_model=teacher, verbose=0)


# -- refused ----------------------------------------------------------------------------------------------


def test_a_layer_that_was_not_adapted_is_refused_by_name():
    model = Sequential([Normalization(name="scaler"), Dense(3, "softmax")], seed=1)
    model.compile("adam", "sparse_categorical_crossentropy")
    y = np.array([0, 1, 2, 0])
    for use in (
        lambda: model.fit(X, y, verbose=0),
        lambda: model.predict(X),
        lambda: model.train_on_batch(X, y),
    ):
        with pytest.raises(ValueError, match="layer scaler has no mean and variance yet: call its adapt"):
            use()
    assert not model.built and model.epoch == 0
    model.layers[0].adapt(X)
    model.fit(X, y, verbose=0)


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: Normalization(mean=1.0), ValueError, "mean and variance, or neither.*: got mean without variance"),
        (lambda: Normalization(variance=1.0), ValueError, "got variance without mean"),
        (lambda: Normalization(mean=[1, 2], variance=[1]), ValueError, r"same shape, got \(2,\) and \(1,\)"),
        (lambda: Normalization(mean=[[1]], variance=[[1]]), ValueError, r"at most 1 axes.* got shape \(1, 1\)"),
        (lambda: Normalization(mean=[1, 2], variance=[1, -1]), ValueError, "variance must be >= 0, got -1"),
        (lambda: Normalization(axis="last"), TypeError, "axis must be an integer"),
        (lambda: Normalization(invert=1), TypeError, "invert must be True or False"),
        (lambda: adapted(axis=0), ValueError, "0 is the batch, got 0"),
        (lambda: adapted(axis=(1, -1)), ValueError, "each axis once"),
        (lambda: adapted(axis=2), ValueError, "batch with 2 axes"),
        (lambda: ready(Normalization(axis=2), (3,)), ValueError, "batch with 2 axes"),
        (lambda: ready(Normalization(mean=[1, 2], variance=[1, 1]), (3,)), ValueError, r"mean of layer .* \(3,\)"),
        (lambda: ready(Rescaling([1, 2]), (3,)), ValueError, r"scale of layer .* must fit samples of shape \(3,\)"),
        (lambda: ready(Rescaling(1, [1, 2]), (3,)), ValueError, "offset of layer .* must fit samples"),
        (lambda: Rescaling([1, np.nan]), ValueError, "scale must be finite, got nan at index 1"),
        (lambda: Rescaling(["a"]), TypeError, "scale must hold real numbers"),
        (lambda: ELU(-1), ValueError, "alpha must be >= 0, got -1"),
        (lambda: adapted([[1.0, np.inf]]), ValueError, r"data must be finite, got inf at index \(0, 1\)"),
        (lambda: adapted(iter([X, X[:, :2]])), ValueError, r"batch 1 of data must be shaped as the first, \(4, 3\)"),
        (lambda: adapted(iter([])), ValueError, "data must hold samples"),
        (lambda: adapted("x_train"), TypeError, "data must hold real numbers"),
        (lambda: adapted(None), ValueError, "data must be an array, got None"),
        (lambda: ready(Normalization(), (3,)).adapt(X[:, :2]), ValueError, r"input, \(None, 3\), got \(4, 2\)"),
    ],
)  # fmt: skip
def test_bad_arguments(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_a_refused_adapt_leaves_the_layer_as_it_was():
    layer = ready(adapted(), (3,))
    before, expected = layer.get_config(), layer.forward(X)
    with pytest.raises(ValueError, match="batch 1 of data must be finite"):
        layer.adapt(iter([X + 1, X * np.nan]))
    assert layer.get_config() == before and np.array_equal(layer.forward(X), expected)

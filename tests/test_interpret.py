"""Attributions are the derivatives they say, sum to what they explain, and leave the model alone."""

from __future__ import annotations

import numpy as np
import pytest
from own_layers import Scale

import minidl
from minidl import integrated_gradients, saliency
from minidl.differences import difference
from minidl.layers import (
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    GaussianNoise,
    Input,
    LayerNormalization,
    RandomTranslation,
    Rescaling,
    Softmax,
)
from minidl.models import Sequential

rng = np.random.default_rng(7)

MODELS = {
    "softmax": ((5,), lambda: [Dense(7, "gelu"), Dense(4, "softmax")]),
    "softmax, a layer": ((5,), lambda: [Dense(7, "tanh"), Dense(3), Softmax()]),
    "sigmoid, several": ((5,), lambda: [Dense(7, "relu"), Dense(3, "sigmoid")]),
    "yes or no": ((5,), lambda: [Dense(6, "silu"), Dense(1, "sigmoid")]),
    "regression": ((5,), lambda: [Dense(6, "softplus"), Dense(2)]),
    "images": (
        (4, 3, 2),
        lambda: [
            RandomTranslation(0.5, 0.5),
            Rescaling(0.5, 1),
            Flatten(),
            Dense(5, "elu"),
            Dense(3, "softmax"),
        ],
    ),
    "batch normalisation": ((5,), lambda: [Dense(6), BatchNormalization(), Dense(3, "softmax")]),
    "layer normalisation": ((5,), lambda: [LayerNormalization(), Dense(6, "tanh"), Dense(3, "softmax")]),
    "dropout, noise": (
        (5,),
        lambda: [GaussianNoise(0.5), Dense(6, "tanh"), Dropout(0.5), Dense(3, "softmax")],
    ),
    "own layer": ((5,), lambda: [Dense(6, "tanh"), Scale(), Dense(3, "softmax")]),
    "own layer first and last": ((5,), lambda: [Scale(), Dense(3, "tanh"), Scale()]),
}


def made(name, dtype="float64", rows=6):
    """A model whose parameters and moving averages are at random, and samples for it."""
    shape, layers = MODELS[name]
    model = Sequential([Input(shape), *layers()], dtype=dtype, seed=1)
    generator = np.random.default_rng(2)
    model.params[...] = generator.normal(0, 0.6, model.params.size)
    for layer in model.layers:
        if isinstance(layer, BatchNormalization):
            layer.moving_variance[...] = generator.uniform(0.5, 2, layer.moving_variance.shape)
    return model, generator.normal(0, 1, (rows, *shape))


def worst_error(model, x, classes, gradients):
    """The largest excess over what `difference` allows, of all entries."""
    worst = -np.inf
    for index in np.ndindex(x.shape):
        row = index[0]

        def value(row=row):
            return float(model.predict_logits(x[row : row + 1])[0, classes[row]])

        _, error, allowed = difference(value, value(), x, index, gradients[index], (1e-5, 1e-6, 1e-8))
        worst = max(worst, error - allowed)
    return worst


@pytest.mark.parametrize("name", MODELS)
def test_saliency_is_the_derivative_entry_by_entry(name):
    model, x = made(name)
    classes = rng.integers(0, model.output_shape[0], len(x))
    got = saliency(model, x, classes)
    assert got.shape == x.shape and got.dtype == np.float64 and np.abs(got).max() > 0
    assert worst_error(model, x, classes, got) <= 0
    got[2][(0,) * (x.ndim - 1)] += 1e-4
    assert worst_error(model, x, classes, got) > 0, "control: one wrong entry is seen"


@pytest.mark.parametrize("name", MODELS)
def test_integrated_gradients_are_complete(name):
    model, x = made(name)
    baseline = np.random.default_rng(5).normal(0, 1, x.shape)
    for classes, base in ((0, None), (np.arange(len(x)) % model.output_shape[0], baseline)):
        got = integrated_gradients(model, x, classes, base, steps=100)
        ends = [model.predict_logits(each) for each in (x, np.zeros_like(x) if base is None else base)]
        rows = np.arange(len(x))
        wanted = (ends[0] - ends[1])[rows, classes]
        flat = got.reshape(len(x), -1)
        assert (np.abs(flat.sum(axis=1) - wanted) <= 0.01 * np.abs(flat).sum(axis=1) + 1e-12).all()


def test_gradient_times_input_is_not_complete():
    """Control: it is what stands nearest, and the check of completeness sees the difference."""
    model, x = made("softmax")
    wanted = (model.predict_logits(x) - model.predict_logits(np.zeros_like(x)))[:, 0]
    times_input = saliency(model, x, 0) * x
    assert (np.abs(times_input.sum(axis=1) - wanted) > 0.05 * np.abs(times_input).sum(axis=1)).any()


def test_smooth_nets_are_complete_to_rounding():
    """Gauss-Legendre converges faster than any power of 1/steps."""
    model, x = made("softmax")
    wanted = (model.predict_logits(x) - model.predict_logits(np.zeros_like(x)))[:, 1]
    errors = [
        np.abs(integrated_gradients(model, x, 1, steps=n, tolerance=1.0).sum(axis=1) - wanted).max()
        for n in (2, 8, 32)
    ]
    assert errors[0] > 1e-4 > errors[1] > errors[2] and errors[2] < 1e-12


def test_a_linear_model_by_hand():
    """f = x W + b: the gradient is W's column, and each input adds its difference times its weight."""
    model = Sequential([Dense(2, input_dim=3)], dtype="float64")
    model.layers[0].weight[...] = [[1, -2], [3, 0], [-5, 4]]
    model.layers[0].bias[...] = [7, 8]
    x = np.array([[1.0, 2, 3], [0, -1, 2]])
    np.testing.assert_array_equal(saliency(model, x, [0, 1]), [[1, 3, -5], [-2, 0, 4]])
    np.testing.assert_allclose(integrated_gradients(model, x, 0, steps=1), [[1, 6, -15], [0, -3, -10]])
    np.testing.assert_allclose(
        integrated_gradients(model, x, 0, baseline=[1, 1, 1], steps=3),
        [[0, 3, -10], [-1, -6, -5]],
        atol=1e-12,
    )
    # of no class: that of the larger output, (-1, 18) and (-6, 16)
    np.testing.assert_array_equal(saliency(model, x), [[-2, 0, 4], [-2, 0, 4]])


def test_integrated_gradients_of_a_square_by_hand():
    """f = x1^2 + 3 x2^2 through layers of the user's own: from 0 each input adds what stands there."""

    class Square(minidl.Layer):
        def forward(self, x, training=False):
            self.x = x
            return x * x

        def backward(self, dout):
            return 2 * self.x * dout

    model = Sequential([Input((2,)), Square(), Dense(1)], dtype="float64")
    model.layers[1].weight[...] = [[1], [3]]
    np.testing.assert_allclose(integrated_gradients(model, [[2.0, 5]], steps=1), [[4, 75]])
    np.testing.assert_allclose(saliency(model, [[2.0, 5]]), [[4, 30]])


def rough(model, x, class_index):
    """Integrated gradients in a few steps."""
    return integrated_gradients(model, x, class_index, steps=6, tolerance=100.0)


@pytest.mark.parametrize("explain", [saliency, rough])
@pytest.mark.parametrize("name", MODELS)
def test_float32_and_batches(explain, name):
    """One sample, several chunks, and samples of any dtype: the same numbers, to float32's rounding."""
    model, x = made(name, "float32", rows=260)
    exact, _ = made(name)
    x = x.astype(np.float32)
    got = explain(model, x, 0)
    assert got.dtype == np.float32 and got.shape == x.shape
    few = explain(exact, x[:40], 0)
    np.testing.assert_allclose(got[:40], few, atol=2e-5 * np.abs(few).max(), rtol=1e-4)
    alone = explain(model, x[258:259], 0)
    np.testing.assert_allclose(got[258:259], alone, atol=1e-5 * np.abs(few).max(), rtol=1e-4)


def test_bytes_are_taken():
    model, x = made("images", "float32")
    images = np.abs(x * 20).astype(np.uint8)
    np.testing.assert_array_equal(saliency(model, images, 1), saliency(model, images.astype(np.float32), 1))


@pytest.mark.parametrize("explain", [saliency, rough])
@pytest.mark.parametrize("name", MODELS)
def test_the_model_stays_as_it_was(explain, name):
    model, x = made(name)
    dout = np.ones((len(x), *model.output_shape))
    model.forward(x, training=True)
    expected = model.backward(dout).copy()  # with what this forward keeps, dropout included
    params, grads = model.params.copy(), model.grads.copy()
    averages = [average.copy() for average in model.averages]
    explain(model, x[:2], 0)
    np.testing.assert_array_equal(model.params, params)
    np.testing.assert_array_equal(model.grads, grads)
    for average, before in zip(model.averages, averages, strict=True):
        np.testing.assert_array_equal(average, before)
    np.testing.assert_array_equal(model.backward(dout), expected)
    model.forward(x[:2])
    assert not np.array_equal(np.shape(model.backward(dout[:2])), expected.shape), (
        "control: a forward is felt"
    )


def test_a_model_in_training_can_be_asked():
    """From a callback; training ends with the same bits."""
    ends = []
    for asks in (False, True):
        model, x = made("dropout, noise", "float32")
        model.compile("adam", "sparse_categorical_crossentropy")
        ask = minidl.LambdaCallback(on_epoch_end=lambda epoch, logs, m=model, a=asks: a and saliency(m, x))  # noqa: B023
        model.fit(x, np.arange(len(x)) % 3, batch_size=2, epochs=3, verbose=0, callbacks=[ask])
        ends.append(model.params.copy())
    np.testing.assert_array_equal(*ends)


MODEL, X = made("softmax")
REFUSED = {
    "class_index must be <= 3, got 4": lambda: saliency(MODEL, X, 4),
    "class_index must be >= 0, got -1": lambda: saliency(MODEL, X, -1),
    "class_index must be an integer, got 1.0": lambda: saliency(MODEL, X, 1.0),
    "class_index must be in 0..3, got 9 at index 2": lambda: saliency(MODEL, X, [0, 1, 9, 0, 0, 0]),
    r"class_index must be an integer or 6 of them.* shape \(2,\)": lambda: saliency(MODEL, X, [0, 1]),
    r"class_index must be an integer or 6 of them.*float64": lambda: saliency(MODEL, X, np.zeros(6)),
    "model must be a Sequential, got None": lambda: saliency(None, X),
    "model must be built": lambda: saliency(Sequential([Dense(2)]), X),
    r"model must have outputs of shape \(N, C\), got \(N, 5, 3\)": lambda: saliency(
        Sequential([Scale(input_shape=(5, 3))]), np.zeros((1, 5, 3))
    ),
    r"x must have shape \(N, 5\), got \(5,\); one sample is x\[None\]": lambda: saliency(MODEL, X[0]),
    "x must be finite, got nan at index": lambda: saliency(MODEL, X * np.nan),
    r"baseline must have shape \(5,\), or \(6, 5\) as x, got \(4,\)": lambda: integrated_gradients(
        MODEL, X, baseline=np.zeros(4)
    ),
    "baseline must have at least one axis": lambda: integrated_gradients(MODEL, X, baseline=0.5),
    "baseline must be finite": lambda: integrated_gradients(MODEL, X, baseline=np.full(5, np.inf)),
    "steps must be >= 1, got 0": lambda: integrated_gradients(MODEL, X, steps=0),
    "steps must be <= 1000, got 1001": lambda: integrated_gradients(MODEL, X, steps=1001),
    "tolerance must be > 0, got 0": lambda: integrated_gradients(MODEL, X, tolerance=0),
    r"steps must be larger, got 1: the attributions of sample \d sum to .*, f\(x\) - f\(baseline\) is": lambda: (
        integrated_gradients(MODEL, X, steps=1)
    ),
}


@pytest.mark.parametrize("message", REFUSED)
def test_what_does_not_fit_is_refused(message):
    with pytest.raises((ValueError, TypeError), match=message):
        REFUSED[message]()


def test_a_sparse_matrix_is_refused():
    scipy_sparse = pytest.importorskip("scipy.sparse")
    with pytest.raises(TypeError, match=r"x must be a dense array, .*write x.toarray\(\)"):
        saliency(MODEL, scipy_sparse.csr_matrix(X))


def test_a_wrong_backward_is_seen_as_incomplete():
    class Wrong(Scale):
        def backward(self, dout):
            return 2 * super().backward(dout)

    model = Sequential([Input((3,)), Wrong(), Dense(2)], dtype="float64", seed=0)
    with pytest.raises(ValueError, match="steps must be larger"):
        integrated_gradients(model, np.ones((2, 3)))


def test_a_backward_of_another_shape_is_named():
    class Narrow(Scale):
        def backward(self, dout):
            return super().backward(dout)[:, :1]

    model = Sequential([Input((3,)), Narrow(), Dense(2)])
    with pytest.raises(ValueError, match=r"backward of the first layer must return dx of shape \(2, 3\)"):
        saliency(model, np.ones((2, 3)))

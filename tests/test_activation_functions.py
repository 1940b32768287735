"""Activations as functions, and in the place of their names."""

import copy
import pickle

import numpy as np
import pytest
import reference

import minidl
from minidl import Activation, Dense, Input, Sequential, activations, load_model

X = np.random.default_rng(0).standard_normal((3, 4, 5)) * 3


@pytest.mark.parametrize("name", activations.NAMES)
def test_the_function_of_each_name(name):
    function = getattr(activations, name)
    assert function.__name__ == name and activations.get(name) is function
    assert activations.serialize(function) == name and activations.deserialize(name) is function
    expected = reference.ACTIVATIONS[name](X)
    found = function(X)
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-14)
    assert found.flags.owndata or found.base is not X
    assert not np.allclose(found + 1e-3, expected)
    single = function(X.astype(np.float32))
    assert single.dtype == np.float32 and single.shape == X.shape
    np.testing.assert_allclose(single, expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(function(np.asfortranarray(X)[:, ::2]), function(X[:, ::2].copy()))
    assert function([[1, 2]]).dtype == np.float64 and function(np.ones((0, 3))).shape == (0, 3)
    if name != "softmax":
        assert function(0.5) == function([0.5])[0] and np.ndim(function(-2)) == 0


def test_arguments_as_keras_has_them():
    x = np.array([-2.0, -0.5, 0.0, 0.5, 8.0])
    np.testing.assert_array_equal(activations.relu(x, negative_slope=0.5), [-1, -0.25, 0, 0.5, 8])
    np.testing.assert_array_equal(activations.relu(x, 0.5, 6.0, 1.0), [-1.5, -0.75, -0.5, -0.25, 6])
    np.testing.assert_array_equal(activations.leaky_relu(x), np.where(x > 0, x, 0.2 * x))
    np.testing.assert_array_equal(activations.leaky_relu(x, 0.1), np.where(x > 0, x, 0.1 * x))
    np.testing.assert_allclose(
        activations.elu(x, alpha=0.5), np.where(x > 0, x, 0.5 * np.expm1(x)), rtol=1e-14
    )
    approximate = [-0.045402, -0.154286, 0.0, 0.345714, 8.0]  # as Keras 3.15 gives it
    np.testing.assert_allclose(activations.gelu(x, approximate=True), approximate, atol=1e-6)
    assert abs(activations.gelu(x, approximate=True) - activations.gelu(x)).max() > 1e-5
    columns = activations.softmax(X, axis=0)
    np.testing.assert_allclose(columns.sum(axis=0), 1, rtol=1e-14)
    np.testing.assert_allclose(
        np.moveaxis(columns, 0, -1), activations.softmax(np.moveaxis(X, 0, -1)), rtol=1e-14
    )
    assert activations.swish is activations.silu and activations.get("swish") is activations.silu
    assert activations.get(None) is activations.linear


@pytest.mark.parametrize("name", activations.NAMES)
def test_a_function_stands_for_its_name(name, tmp_path):
    x, y = X.reshape(-1, 5), np.arange(12) % 2

    def trained(hidden, last):
        model = Sequential(
            [Input((5,)), Dense(4, activation=hidden), Activation(last), Dense(2, "softmax")], seed=1
        )
        model.compile("adam", "sparse_categorical_crossentropy")
        model.fit(x, y, epochs=2, verbose=0)
        return model

    function = getattr(activations, name)
    one, two = trained(name, name), trained(function, function)
    assert one.ops(training=True) == two.ops(training=True)
    np.testing.assert_array_equal(one.params, two.params)
    assert two.layers[0].activation == name == two.layers[0].get_config()["activation"]
    two.save(tmp_path / "model.npz")
    again = load_model(tmp_path / "model.npz")
    assert again.layers[0].activation == again.layers[1].activation == name
    for other in (
        again,
        copy.copy(two),
        pickle.loads(pickle.dumps(two)),
        Sequential.from_config(two.get_config()),
    ):
        assert other.ops(training=True) == two.ops(training=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Dense(2, lambda x: x), "function '<lambda>', whose derivative is not known: write a Layer"),
        (
            lambda: Activation(np.tanh),
            "whose derivative is not known: write a Layer with its forward and backward",
        ),
        (
            lambda: Dense(2, 3),
            "activation must be a name .str., a function of minidl.activations or None, got 3",
        ),
        (
            lambda: Dense(2, minidl.layers.ReLU),
            "activation must be a name .str., a function of minidl.activations",
        ),
        (lambda: activations.get("gleu"), "unknown activation 'gleu': did you mean"),
        (lambda: activations.serialize(np.tanh), "whose derivative is not known"),
        (lambda: activations.relu("abc"), "x must hold real numbers"),
        (lambda: activations.relu(None), "x must be an array, got None"),
        (lambda: activations.relu(X, threshold=-1), "threshold must be >= 0, got -1"),
        (lambda: activations.gelu(X, approximate="yes"), "approximate must be True or False"),
        (lambda: activations.softmax(X, axis=3), "axis must be <= 2, got 3"),
        (lambda: activations.softmax(X, axis=-4), "axis must be >= -3, got -4"),
    ],
)
def test_bad_input(make, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make()


def test_nan_stays():
    for name in activations.NAMES:
        assert np.isnan(getattr(activations, name)(np.array([np.nan, 1.0]))[0]), name

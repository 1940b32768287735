"""How users of Keras write initializers, schedules, activations, constraints and optimizers."""

import numpy as np

X = np.random.default_rng(0).standard_normal((96, 8)).astype("float32")
Y = (X[:, 0] * X[:, 1] > 0).astype("int64")


def run(listing: str) -> dict:
    names = {"x": X, "y": Y, "np": np}
    exec(compile(listing.replace("keras", "minidl"), "listing", "exec"), names)
    return names


def test_initializers():
    names = run("""
import keras
from keras import layers
from keras.initializers import Identity, Orthogonal

keras.utils.set_random_seed(3)
model = keras.Sequential([
    keras.Input((8,)),
    layers.Dense(8, "relu", kernel_initializer=Identity(gain=0.5)),
    layers.Dense(16, "relu", kernel_initializer=Orthogonal(seed=2)),
    layers.Dense(2, "softmax", kernel_initializer="orthogonal"),
])
""")
    first, _, second, _, third, _ = names["model"].get_weights()
    np.testing.assert_array_equal(first, 0.5 * np.eye(8))
    np.testing.assert_allclose(second @ second.T, np.eye(8), atol=1e-6)
    np.testing.assert_allclose(third.T @ third, np.eye(2), atol=1e-6)


def test_schedules():
    names = run("""
import keras
from keras.optimizers.schedules import CosineDecayRestarts, InverseTimeDecay, PolynomialDecay

model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1, "sigmoid")])
rate = PolynomialDecay(0.1, decay_steps=6, end_learning_rate=0.01, power=2.0)
model.compile(keras.optimizers.SGD(rate), "binary_crossentropy")
model.fit(x, y, epochs=2, batch_size=32, verbose=0)
print(model.optimizer.learning_rate)
others = [InverseTimeDecay(0.1, 10, 0.5), CosineDecayRestarts(0.1, first_decay_steps=10, t_mul=1.5)]
""")
    assert names["model"].optimizer.learning_rate == 0.01
    assert [schedule(10) for schedule in names["others"]] == [0.1 / 1.5, 0.1]


def test_activations():
    names = run("""
import keras
from keras import activations, layers

model = keras.Sequential([
    keras.Input((8,)),
    layers.Dense(16, activation=keras.activations.relu),
    layers.Dense(16),
    layers.Activation(activations.gelu),
    layers.Dense(2, activation=activations.get("softmax")),
])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x, y, epochs=1, verbose=0)
z = activations.softmax(model.predict_logits(x))
squashed = activations.tanh([-1.0, 0.0, 1.0])
""")
    np.testing.assert_allclose(names["z"], names["model"].predict(X), atol=1e-6)
    np.testing.assert_allclose(names["squashed"], np.tanh([-1, 0, 1]), rtol=1e-14)


def test_constraints():
    names = run("""
import keras
from keras import constraints, layers

model = keras.Sequential([
    keras.Input((8,)),
    layers.Dense(16, "relu", kernel_constraint=constraints.MinMaxNorm(min_value=0.5, max_value=1.0)),
    layers.Dense(16, "relu", kernel_constraint=constraints.UnitNorm(axis=0)),
    layers.Dense(2, "softmax", kernel_constraint="non_neg", bias_constraint=constraints.NonNeg()),
])
model.compile("adam", "sparse_categorical_crossentropy")
model.fit(x, y, epochs=2, verbose=0)
first, _, second, _, last, bias = model.get_weights()
norms = [np.linalg.norm(weight, axis=0) for weight in (first, second)]
""")
    assert names["norms"][0].min() > 0.499 and names["norms"][0].max() < 1.001
    np.testing.assert_allclose(names["norms"][1], 1, rtol=1e-5)
    assert names["last"].min() >= 0 and names["bias"].min() >= 0

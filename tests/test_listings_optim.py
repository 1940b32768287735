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

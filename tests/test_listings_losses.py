"""Keras listings of losses that run as they stand but for their imports, and a loss that is a function."""

import re

import numpy as np
import pytest

import minidl

BY_NAME = """
import keras
import numpy as np

rng = np.random.default_rng(0)
x = rng.normal(size=(256, 8)).astype("float32")
counts = rng.poisson(np.exp(0.5 * x[:, :1])).astype("float32")
histories = {}
by_class = [keras.losses.LogCosh(), keras.losses.Poisson()]
for loss in ("log_cosh", "poisson", "mape", "msle", "cosine_similarity", *by_class):
    model = keras.models.Sequential()
    model.add(keras.layers.Input((8,)))
    model.add(keras.layers.Dense(16, activation="relu"))
    model.add(keras.layers.Dense(1, activation="softplus"))
    model.compile(optimizer="adam", loss=loss)
    histories[str(loss)] = model.fit(x, counts, epochs=3, batch_size=32, verbose=0).history["loss"]
"""

IMBALANCED = """
import keras
import numpy as np

rng = np.random.default_rng(0)
x = rng.normal(size=(2000, 2))
fraud = (x.sum(axis=1) > 3).astype("float32")

model = keras.Sequential([keras.layers.Input((2,)), keras.layers.Dense(1, activation="sigmoid")])
model.compile(
    optimizer=keras.optimizers.Adam(learning_rate=0.05),
    loss=keras.losses.BinaryFocalCrossentropy(apply_class_balancing=True, alpha=0.9, gamma=2.0),
    metrics=["accuracy"],
)
history = model.fit(x, fraud, epochs=5, verbose=0).history
caught = (model.predict(x)[:, 0] > 0.5)[fraud == 1].mean()
"""

MARGINS = """
import keras
import numpy as np

rng = np.random.default_rng(0)
x = rng.normal(size=(300, 4))
side = np.sign(x @ [1.0, -2.0, 0.5, 1.0])

svm = keras.Sequential()
svm.add(keras.layers.Input((4,)))
svm.add(keras.layers.Dense(1, kernel_regularizer=keras.regularizers.L2(1e-3)))
svm.compile(optimizer=keras.optimizers.SGD(learning_rate=0.1), loss="squared_hinge")
svm.fit(x, side, epochs=20, verbose=0)
right = (np.sign(svm.predict(x)[:, 0]) == side).mean()
"""

CALLED = """
import keras

y_true = [[0.0, 1.0], [0.0, 0.0]]
y_pred = [[1.0, 1.0], [1.0, 0.0]]
mean = keras.losses.MeanSquaredError()(y_true, y_pred)
total = keras.losses.MeanSquaredError(reduction="sum")(y_true, y_pred)
each = keras.losses.MeanSquaredError(reduction=None)(y_true, y_pred)
labels, probs = [1, 255, 0], [[0.1, 0.9], [0.5, 0.5], [0.8, 0.2]]
masked = keras.losses.SparseCategoricalCrossentropy(ignore_class=255)(labels, probs)
"""


def run(listing: str) -> dict:
    names: dict = {}
    exec(compile(re.sub(r"\bkeras\b", "minidl", listing), "listing", "exec"), names)
    return names


def test_losses_by_name():
    histories = run(BY_NAME)["histories"]
    assert len(histories) == 7
    for name, losses in histories.items():
        assert np.isfinite(losses).all() and (losses[-1] < losses[0] or name == "cosine_similarity")


def test_an_imbalanced_set():
    found = run(IMBALANCED)
    assert found["history"]["loss"][-1] < found["history"]["loss"][0] and found["caught"] > 0.9


def test_a_support_vector_machine():
    assert run(MARGINS)["right"] > 0.97


def test_losses_that_are_called():
    found = run(CALLED)
    assert found["mean"] == 0.5 and found["total"] == 1.0 and found["each"].tolist() == [0.5, 0.5]
    assert found["masked"] == pytest.approx(-(np.log(0.9) + np.log(0.8)) / 2)


def test_a_loss_of_ones_own():
    """The 90 % quantile of what is spread between 0 and 1."""

    def quantile_90(y_true, y_pred):
        e = y_true - y_pred
        return np.maximum(0.9 * e, -0.1 * e).mean(), np.where(e > 0, -0.9, 0.1) / e.size

    y = np.random.default_rng(0).uniform(size=2000)
    model = minidl.Sequential([minidl.Dense(1, input_shape=(1,))], seed=0)
    model.compile(optimizer=minidl.optimizers.Adam(0.02), loss=quantile_90)
    model.fit(np.ones(2000), y, epochs=6, verbose=0)
    assert model.predict(np.ones(1))[0, 0] == pytest.approx(0.9, abs=0.03)

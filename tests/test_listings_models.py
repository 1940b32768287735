"""Idioms of models and of input layers as the documentation of their kind shows them: they run as they stand."""

from __future__ import annotations

import numpy as np
import pytest
from test_listings import run

import minidl

LISTINGS = {
    "a functional chain": """
import keras
from keras import layers

inputs = keras.Input(shape=(20,), name="features")
hidden = layers.Dense(32, activation="relu")(inputs)
hidden = layers.Dropout(0.1)(hidden)
outputs = layers.Dense(3, activation="softmax")(hidden)
model = keras.Model(inputs=inputs, outputs=outputs, name="chain")
model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"], jit_compile=False)
model.fit([x], y, epochs=25, verbose=0)
assert model.inputs[0].shape == (None, 20) and model.output.shape == (None, 3)
assert dict(zip(model.metrics_names, model.evaluate(x, y, verbose=0)))["accuracy"] > 0.8
""",
    "normalization": """
import keras

normalize = keras.layers.Normalization(axis=-1)
normalize.adapt(x)
hidden = [keras.layers.Dense(24), keras.layers.ELU(alpha=0.5)]
model = keras.Sequential([normalize, *hidden, keras.layers.Dense(3, "softmax")])
model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
model.fit(x, y, epochs=25, verbose=0)
assert model.evaluate(x, y, verbose=0, return_dict=True)["accuracy"] > 0.8
""",
    "rescaling by features": """
import keras

mean, deviation = x.mean(axis=0), x.std(axis=0)
model = keras.Sequential([keras.Input((20,)), keras.layers.Rescaling(1 / deviation, -mean / deviation)])
assert abs(model.predict(x).mean(axis=0)).max() < 1e-4
""",
    "batches by hand": """
import keras

model = keras.models.Sequential([keras.Input((20,)), keras.layers.Dense(3, "softmax")])
model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"])
for epoch in range(3):
    for first in range(0, len(x), 50):
        loss, accuracy = model.train_on_batch(x[first : first + 50], y[first : first + 50])
loss, accuracy = model.test_on_batch(x, y)
assert model.predict_on_batch(x[:7]).shape == (7, 3)
""",
    "the architecture as text": """
import keras

model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(3, "softmax")])
again = keras.models.model_from_json(model.to_json())
again.set_weights(model.get_weights())
assert (again.predict(x) == model.predict(x)).all()
""",
}


def data():
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 300)
    x = rng.normal(size=(3, 20))[y] + 0.7 * rng.normal(size=(300, 20))
    return {"x": (x * rng.uniform(0.5, 2, 20)).astype("float32"), "y": y}


@pytest.mark.parametrize("name", LISTINGS)
def test_a_listing_runs(name):
    minidl.utils.set_random_seed(1)
    run(LISTINGS[name], **data())


def test_a_listing_can_fail():
    wrong = data()
    wrong["y"] = np.random.default_rng(1).permutation(wrong["y"])
    with pytest.raises(AssertionError):
        run(LISTINGS["normalization"].replace("epochs=25", "epochs=1"), **wrong)

"""Idioms of Keras with normalisation, in our own words, that run as they stand but for their imports."""

import numpy as np
import pytest
from test_listings import digits, run

__all__ = ["digits"]  # the fixture

NORMALISED = """
from keras.models import Sequential
from keras.layers import Activation, BatchNormalization, Dense, Dropout, Input

model = Sequential([Input((784,))])
for units in (64, 32):
    model.add(Dense(units, use_bias=False))   # beta does what a bias would
    model.add(BatchNormalization())
    model.add(Activation('relu'))
    model.add(Dropout(0.1))
model.add(Dense(10, activation='softmax'))
model.compile(optimizer='adam', loss='categorical_crossentropy', metrics=['accuracy'])
model.fit(x_train, y_train, epochs=3, batch_size=64, validation_data=(x_test, y_test))
loss, accuracy = model.evaluate(x_test, y_test, verbose=0)
"""

FINE_TUNED = """
from keras.models import Sequential
from keras.layers import BatchNormalization, Dense

body = model.layers[:-1]
for layer in body:
    if isinstance(layer, BatchNormalization):
        layer.trainable = False     # by its moving averages from now on
model.compile(optimizer='adam', loss='categorical_crossentropy', metrics=['accuracy'])
before = [layer.get_weights() for layer in body if isinstance(layer, BatchNormalization)]
model.fit(x_train[:500], y_train[:500], epochs=1, verbose=0)
after = [layer.get_weights() for layer in body if isinstance(layer, BatchNormalization)]
"""

OTHERS = """
from keras.models import Sequential
from keras.layers import Dense, Input, LayerNormalization, PReLU

other = Sequential([
    Input((784,)),
    Dense(48), LayerNormalization(epsilon=1e-6), PReLU(alpha_initializer='zeros'),
    Dense(24), PReLU(),
    Dense(10, activation='softmax'),
])
other.compile('adam', 'categorical_crossentropy', metrics=['accuracy'])
other.fit(x_train, y_train, epochs=3, verbose=0)
score = other.evaluate(x_test, y_test, verbose=0)
"""


@pytest.fixture(scope="module")
def trained(digits):  # noqa: F811
    return run(NORMALISED, **digits)


def test_batch_normalization_between_dense_layers(trained, capsys):
    assert trained["accuracy"] > 0.9
    names = [parameter.name for parameter in trained["model"].layers[1].parameters]
    assert names == ["gamma", "beta", "moving_mean", "moving_variance"]


def test_frozen_normalisation_in_fine_tuning(trained, digits):  # noqa: F811
    found = run(FINE_TUNED, **trained)
    for before, after in zip(found["before"], found["after"], strict=True):
        assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))


def test_layer_normalization_and_prelu(digits):  # noqa: F811
    found = run(OTHERS, **digits)
    assert found["score"][1] > 0.85
    assert found["other"].layers[2].get_weights()[0].any()  # alpha has learned

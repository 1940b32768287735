"""A Keras model teaches a minidl student. Needs keras and one of its backends.

    KERAS_BACKEND=jax python examples/keras_teacher.py

A Keras classifier usually ends in softmax and gives probabilities. They can teach with ``from_probs=True``,
which takes their logarithm. Without it they are refused, because softened once more they would be nearly
uniform. A model cut off before its softmax gives logits and needs no such argument. `from_keras` makes it a
minidl model, which can be saved, and teaches without Keras.
"""

from __future__ import annotations

try:
    import keras
except ImportError as error:
    raise ImportError("this example needs keras and a backend: pip install keras jax") from error

import minidl
from minidl.datasets import mnist
from minidl.interop.keras import from_keras, keras_teacher
from minidl.layers import Dense, Input
from minidl.models import Sequential


def main(digits=6000, epochs=20, verbose=0):
    (x, y), (x_test, y_test) = mnist.load_subset()
    x, x_test = (images.reshape(-1, 784).astype("float32") / 255 for images in (x[:digits], x_test))
    y = y[:digits]

    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.layers.Input((784,)),
            keras.layers.Dense(256, activation="relu"),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(10, name="logits"),
            keras.layers.Activation("softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=epochs, batch_size=64, verbose=0)

    logits = keras.Model(model.inputs, model.get_layer("logits").output)
    student = Sequential(
        [Input((784,)), Dense(32, activation="relu"), Dense(10, activation="softmax")], seed=0
    )
    settings = dict(epochs=epochs, test_data=(x_test, y_test), verbose=verbose)
    report = minidl.distill(keras_teacher(logits), student, x, y, **settings)
    print(report)

    again = Sequential.from_config(student.get_config())
    minidl.distill(keras_teacher(model, from_probs=True), again, x, y, **settings)
    agreed = (again.predict(x_test).argmax(axis=1) == student.predict(x_test).argmax(axis=1)).mean()
    print(f"a student taught by the probabilities agrees with this one on {agreed:.1%} of the test digits")
    apart = abs(from_keras(model).predict(x_test) - model.predict(x_test, verbose=0)).max()
    print(f"as a minidl model, the teacher gives the same probabilities to {apart:.0e}")
    return report


if __name__ == "__main__":
    main()

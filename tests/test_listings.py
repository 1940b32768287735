"""Keras listings that run as they stand but for their imports, and the textbook's formulas reached by name."""

import importlib.util
import math
import re
from pathlib import Path

import numpy as np
import pytest

import minidl
from minidl.datasets import mnist
from minidl.utils import to_categorical

TEACHER = """
from keras.models import Sequential
from keras.layers import Dense

model = Sequential()
model.add(Dense(64, input_dim=784, activation='relu'))
model.add(Dense(64, activation='relu'))
model.add(Dense(10, activation='softmax'))
model.compile(loss='categorical_crossentropy', optimizer='adam', metrics=['accuracy'])
model.fit(x_train, y_train, epochs=10, batch_size=32)
score = model.evaluate(x_test, y_test, verbose=0)
print('Test loss:', score[0])
print('Test accuracy:', score[1])
"""

STUDENT = """
from keras.models import Sequential
from keras.layers import Dense

student_model = Sequential()
student_model.add(Dense(32, input_dim=784, activation='relu'))
student_model.add(Dense(10, activation='softmax'))
student_model.compile(loss='categorical_crossentropy', optimizer='adam', metrics=['accuracy'])
student_model.fit(x_train, y_train, epochs=10, batch_size=32, target_model=teacher_model, temperature=1.0)
score = student_model.evaluate(x_test, y_test, verbose=0)
print('Test loss:', score[0])
print('Test accuracy:', score[1])
"""


@pytest.fixture(scope="module")
def digits():
    (x_train, y_train), (x_test, y_test) = mnist.load_subset()
    x_train, x_test = (x.reshape(-1, 784).astype("float32") / 255 for x in (x_train, x_test))
    return {
        "x_train": x_train, "y_train": to_categorical(y_train, 10),
        "x_test": x_test, "y_test": to_categorical(y_test, 10),
    }  # fmt: skip


def run(listing: str, **names) -> dict:
    exec(compile(re.sub(r"\bkeras\b", "minidl", listing), "listing", "exec"), names)
    return names


def test_both_listings(digits, capsys):
    minidl.utils.set_random_seed(1)
    teacher = run(TEACHER, **digits)
    model, score = teacher["model"], teacher["score"]
    assert model.count_params() == 784 * 64 + 64 + 64 * 64 + 64 + 64 * 10 + 10
    assert [type(value) for value in score] == [float, float]
    assert 0 < score[0] < 0.5 and score[1] > 0.9
    probabilities = model.predict(digits["x_test"])
    truth = digits["y_test"].argmax(axis=1)
    assert score[1] == pytest.approx((probabilities.argmax(axis=1) == truth).mean(), abs=1e-9)
    assert score[0] == pytest.approx(-np.log(probabilities[np.arange(len(truth)), truth]).mean(), rel=1e-4)

    before = model.params.copy()
    student = run(STUDENT, teacher_model=model, **digits)
    assert np.array_equal(model.params, before)
    assert student["score"][1] > 0.88
    history = student["student_model"].history
    assert len(history.history["loss"]) == 10 and history.history["loss"][-1] < history.history["loss"][0]
    assert capsys.readouterr().out.count("Test accuracy:") == 2


def test_without_labels_a_listing_learns_nothing(digits):
    """The bar above is not one that any run would clear."""
    wrong = dict(digits, y_train=np.roll(digits["y_train"], 1, axis=1))
    assert run(TEACHER.replace("epochs=10", "epochs=1"), **wrong)["score"][1] < 0.2


def one_layer(activation: str, **compiled):
    model = minidl.Sequential([minidl.layers.Dense(2, activation, input_dim=3)], dtype="float64", seed=1)
    model.compile(**compiled)
    return model


X = np.array([[0.5, -1.0, 2.0], [1.5, 0.25, -0.75]])
Y = np.array([[0.2, 0.7], [0.9, 0.1]])


def test_sigmoid():
    """sigma(x) = 1/(1 + exp(-x))."""
    model = one_layer("sigmoid", optimizer="sgd", loss="mse")
    weight, bias = model.get_weights()
    expected = [[1 / (1 + math.exp(-value)) for value in row] for row in X @ weight + bias]
    np.testing.assert_allclose(model.predict(X), expected, rtol=1e-12)


@pytest.mark.parametrize("loss", ["half_mean_squared_error", minidl.losses.HalfMeanSquaredError()])
def test_half_squared_error(loss):
    """C = 1/(2n) sum over x of |y(x) - a|^2."""
    model = one_layer("sigmoid", optimizer="sgd", loss=loss)
    expected = sum(np.sum((y - a) ** 2) for y, a in zip(Y, model.predict(X), strict=True)) / (2 * len(X))
    assert model.evaluate(X, Y, verbose=0) == pytest.approx(expected, rel=1e-12)
    value, gradient = minidl.losses.get(loss).value_and_grad(X[:, :2], Y)
    assert value == pytest.approx(np.sum((Y - X[:, :2]) ** 2) / (2 * len(X)), rel=1e-12)
    np.testing.assert_allclose(gradient, (X[:, :2] - Y) / len(X), rtol=1e-12)


def test_gradient_descent():
    """w -> w - eta dC/dw, here of a sigmoid layer under the squared error: delta = (a - y) a (1 - a)."""
    rate = 3.0
    model = one_layer(
        "sigmoid", optimizer=minidl.optimizers.SGD(learning_rate=rate), loss="half_mean_squared_error"
    )
    weight, bias = model.get_weights()
    a = 1 / (1 + np.exp(-(X @ weight + bias)))
    delta = (a - Y) * a * (1 - a)
    model.fit(X, Y, batch_size=2, epochs=1, shuffle=False, verbose=0)
    found_weight, found_bias = model.get_weights()
    np.testing.assert_allclose(found_weight, weight - rate * X.T @ delta / 2, rtol=1e-10)
    np.testing.assert_allclose(found_bias, bias - rate * delta.mean(axis=0), rtol=1e-10)
    assert not np.allclose(found_weight, weight - rate * X.T @ delta, rtol=1e-3)  # the sum is not the mean


def test_cross_entropy():
    """H(p, q) = -sum_i p_i log q_i, as a function, a loss object and a loss by name."""
    p, q = np.array([[0.1, 0.6, 0.3]]), np.array([[0.2, 0.5, 0.3]])
    expected = -sum(a * math.log(b) for a, b in zip(p[0], q[0], strict=True))
    assert minidl.losses.categorical_crossentropy(p, q)[0] == pytest.approx(expected, rel=1e-9)
    assert minidl.losses.CategoricalCrossentropy()(p, q) == pytest.approx(expected, rel=1e-9)
    assert minidl.losses.get("categorical_crossentropy")(p, q) == pytest.approx(expected, rel=1e-9)
    assert minidl.losses.categorical_crossentropy(q, p)[0] != pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("beta", [0.25, 1.0, 4.0])
def test_boltzmann_form(beta):
    """p_i = exp(-beta s_i)/Z with T = 1/beta; with s = -z it is the softmax of the logits z at T."""
    energies = np.array([[0.0, 1.0, 2.5, -1.0]])
    factors = [math.exp(-beta * s) for s in energies[0]]
    expected = np.array([[factor / sum(factors) for factor in factors]])
    np.testing.assert_allclose(minidl.boltzmann(energies, temperature=1 / beta), expected, rtol=1e-12)
    np.testing.assert_allclose(minidl.softmax(-energies, temperature=1 / beta), expected, rtol=1e-12)
    np.testing.assert_allclose(minidl.log_softmax(-energies, 1 / beta), np.log(expected), rtol=1e-10)
    # the ratio of two states hangs on the difference of their energies alone
    ratio = expected[0, 0] / expected[0, 1]
    assert ratio == pytest.approx(math.exp(beta * (energies[0, 1] - energies[0, 0])), rel=1e-12)


YOURS = {"module": "torch", "path": "onnxruntime", "forest": "sklearn", "plotting": "matplotlib"}
"""Names that a reader of docs/methods.md brings along, or whose package may be absent."""


def test_the_ways_to_distil_run_as_they_are_pasted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    page = (Path(__file__).parents[1] / "docs" / "methods.md").read_text(encoding="utf-8")
    (listing,) = re.findall(r"```python\n(.*?)```", page, re.S)
    rows = re.findall(r"^\| .*? \| (.*) \|$", page.split("```")[2], re.M)
    lines = [line for row in rows for line in re.findall(r"`(.*?)`", row) if line != "write"]
    assert len(lines) > 18
    names: dict = {}
    exec(compile(listing.replace("4000", "400"), "methods.md", "exec"), names)
    names["more"] = names["more"][:50]
    for line in lines:
        words = set(re.findall(r"\w+", line))
        packages = words & set(YOURS.values()) | {YOURS[name] for name in words & YOURS.keys()}
        if (words & YOURS.keys()) - names.keys() or not all(map(importlib.util.find_spec, packages)):
            compile(line, line, "exec")
            continue
        few = line.replace("x, y)", "x, y, epochs=1)").replace(", processes=1", ", processes=1, epochs=1")
        exec(compile(few, line, "exec"), names)
    assert names["result"].rows and (tmp_path / "logits.npz").exists()

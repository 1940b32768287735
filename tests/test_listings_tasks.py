"""Distillation of yes-or-no answers and of numbers as users write it: short programs that run as they stand."""

import numpy as np
import pytest

DATA = """
import numpy as np
from minidl import Sequential, distill
from minidl.layers import Dense, Input

rng = np.random.default_rng(0)
x = rng.normal(size=(600, 8)).astype("float32")
hidden = np.tanh(x @ rng.normal(size=(8, 3)))
x_train, x_test = x[:400], x[400:]
"""

FRAUD = """
y = (hidden[:, 0] > 0.8).astype(int)
teacher = Sequential([Input((8,)), Dense(64, "relu"), Dense(1, "sigmoid")], seed=0)
teacher.compile("adam", "binary_crossentropy")
teacher.fit(x_train, y[:400], epochs=30, verbose=0)

student = Sequential([Input((8,)), Dense(4, "relu"), Dense(1, "sigmoid")], seed=1)
report = distill(teacher, student, x_train, y[:400], epochs=30, test_data=(x_test, y[400:]), verbose=0)
print(report)
probability_of_fraud = student.predict(x_test)
"""

TAGS = """
tags = (hidden > 0).astype("float32")                      # three tags, any number of them at once
scores = 4 * hidden[:400]                                  # a teacher's logits
student = Sequential([Input((8,)), Dense(8, "relu"), Dense(3, "sigmoid")], seed=1)
student.compile("adam", "binary_crossentropy", metrics=["binary_accuracy"])
student.fit(x_train, tags[:400], epochs=20, target_model=scores, temperature=2.0, hard_weight=0.5, soft_weight=0.5,
            verbose=0)
loss, accuracy = student.evaluate(x_test, tags[400:], verbose=0)
"""

PRICES = """
price = 100 + 30 * hidden[:, 0] + rng.normal(size=600)
mean, spread = price[:400].mean(), price[:400].std()
y = (price - mean) / spread
knows = np.linalg.lstsq(x_train, np.arctanh(hidden[:400, 0]), rcond=None)[0]
expert = lambda x: (100 + 30 * np.tanh(x @ knows) - mean) / spread           # any function of x

student = Sequential([Input((8,)), Dense(16, "relu"), Dense(1)], seed=1)
student.compile("adam", "mse")
report = distill(expert, student, x_train, y[:400], epochs=40, test_data=(x_test, y[400:]), verbose=0)
print(f"RMSE {report.student.rmse * spread:.1f}, R2 {report.student.r2:.2f}")
"""

FEWER_FEATURES = """
y = (hidden[:, 0] > 0).astype(int)
teacher = Sequential([Input((8,)), Dense(64, "relu"), Dense(1, "sigmoid")], seed=0)
teacher.compile("adam", "binary_crossentropy")
teacher.fit(x_train, y[:400], epochs=30, verbose=0)

cheap = x[:, :5]                                           # what will be known when the student is asked
student = Sequential([Input((5,)), Dense(8, "relu"), Dense(1, "sigmoid")], seed=1)
report = distill(teacher, student, cheap[:400], y[:400], epochs=10, verbose=0, test_data=(cheap[400:], y[400:]),
                 teacher_inputs=x_train, test_teacher_inputs=x_test)
"""

PROBABILITIES = """
y = (hidden[:, 0] > 0).astype(int)
p = 1 / (1 + np.exp(-4 * hidden[:, 0]))                    # from any tool, predict_proba(x)[:, 1] for one
student = Sequential([Input((8,)), Dense(8, "relu"), Dense(1, "sigmoid")], seed=1)
report = distill(p[:400], student, x_train, y[:400], epochs=20, from_probs=True, verbose=0,
                 test_data=(x_test, y[400:]), test_teacher=p[400:])
"""


def run(listing: str) -> dict:
    names: dict = {}
    exec(compile(DATA + listing, "listing", "exec"), names)
    return names


def test_one_answer(capsys):
    names = run(FRAUD)
    report = names["report"]
    assert names["probability_of_fraud"].shape == (200, 1) and report.student.auc > 0.8 < report.teacher.auc
    assert "AUC" in capsys.readouterr().out


def test_tags():
    assert run(TAGS)["accuracy"] > 0.75


def test_prices(capsys):
    names = run(PRICES)
    assert names["report"].student.r2 > 0.7 and names["report"].teacher.r2 > 0.99
    assert capsys.readouterr().out.startswith("RMSE")


def test_fewer_features():
    report = run(FEWER_FEATURES)["report"]
    assert report.teacher.auc > report.student.auc > 0.6


def test_probabilities():
    report = run(PROBABILITIES)["report"]
    assert report.teacher.auc == 1.0 and report.student.auc > 0.85


def test_the_bars_are_not_cleared_by_any_run():
    """A teacher and labels of other samples."""
    wrong = PROBABILITIES.replace("p = 1", "y, hidden = y[::-1], hidden[::-1]\np = 1")
    with pytest.raises(AssertionError):
        assert run(wrong)["report"].student.auc > 0.85
    assert np.isfinite(run(wrong)["report"].student.loss)

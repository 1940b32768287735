"""Temperature and weights that choose themselves, as users write it: short programs that run as they stand."""

import numpy as np
import pytest

DATA = """
import numpy as np
from minidl import Sequential, distill
from minidl.layers import Dense, Input

rng = np.random.default_rng(0)
centres = rng.normal(size=(3, 8))
y = rng.integers(0, 3, 900)
x = (centres[y] + 0.9 * rng.normal(size=(900, 8))).astype("float32")
x_train, y_train, x_test, y_test = x[:300], y[:300], x[300:], y[300:]

teacher = Sequential([Input((8,)), Dense(64, "relu"), Dense(3, "softmax")], seed=0)
teacher.compile("adam", "sparse_categorical_crossentropy")
teacher.fit(x_train, y_train, epochs=20, verbose=0)
student = Sequential([Input((8,)), Dense(4, "relu"), Dense(3, "softmax")], seed=1)
"""

DISTILL = """
report = distill(teacher, student, x_train, y_train, epochs=20, test_data=(x_test, y_test), plain_student=True,
                 verbose=0)
print(report)                                   # what was tried, what it cost, what was chosen
chosen = student.loss                           # go on with the same numbers
"""

NUMBERS = """
report = distill(teacher, student, x_train, y_train, temperature=4.0, hard_weight=0.1, soft_weight=0.9, epochs=20,
                 verbose=0)
chosen = student.loss
"""

FIT = """
student.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
history = student.fit(x_train, y_train, epochs=20, target_model=teacher, temperature="auto", verbose=0)
for trial in history.tuning.trials:
    print(trial.setting, trial.errors, "of", history.tuning.held_out)
chosen = history.tuning.loss
"""


@pytest.mark.parametrize("listing", [DISTILL, NUMBERS, FIT], ids=["distill", "numbers", "fit"])
def test_listing(listing, capsys):
    names: dict = {}
    exec(DATA + listing, names)
    assert (names["student"].predict(names["x_test"]).argmax(axis=1) == names["y_test"]).mean() > 0.5
    assert names["chosen"].distills and np.isfinite(names["student"].params).all()
    text = capsys.readouterr().out
    if listing is DISTILL:
        assert names["report"].tuning.chosen in text and "times the student's" in text
    if listing is NUMBERS:
        assert names["report"].tuning is None and names["chosen"].temperature == 4.0
    if listing is FIT:
        assert text.count(" of 90") == 3

"""Keras listings with metrics, as people write them: they run as they stand but for their imports."""

import re

import numpy as np
import pytest

import minidl

DECISION = """
import numpy as np
from keras import Sequential
from keras.layers import Input, Dense
from keras.metrics import AUC, Precision, Recall
from keras.callbacks import EarlyStopping

model = Sequential([Input((x.shape[1],)), Dense(16, activation='relu'), Dense(1, activation='sigmoid')])
model.compile(
    optimizer='adam',
    loss='binary_crossentropy',
    metrics=['accuracy', AUC(name='auc'), AUC(name='prc', curve='PR'),
             Precision(name='precision'), Recall(name='recall')],
)
stop = EarlyStopping(monitor='val_prc', patience=3, mode='max', restore_best_weights=True)
history = model.fit(x, y, epochs=30, batch_size=32, validation_split=0.25, callbacks=[stop], verbose=0)
results = dict(zip(['loss', 'accuracy', 'auc', 'prc', 'precision', 'recall'], model.evaluate(x, y, verbose=0)))
"""

REGRESSION = """
import keras
from keras import layers

def within_half(y_true, y_pred):
    return abs(y_true - y_pred) < 0.5

model = keras.Sequential([layers.Dense(16, activation='relu'), layers.Dense(1)])
model.compile(
    loss='mean_squared_error',
    optimizer=keras.optimizers.Adam(0.01),
    metrics=[keras.metrics.RootMeanSquaredError(), 'mae', 'mape', keras.metrics.R2Score(), within_half],
)
model.fit(x, y, epochs=6, validation_data=(x, y), verbose=0,
          callbacks=[keras.callbacks.ReduceLROnPlateau(monitor='val_root_mean_squared_error', patience=2)])
results = model.evaluate(x, y, verbose=0, return_dict=True)
"""

TAGS = """
import keras
from keras.metrics import F1Score

model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(12, 'relu'), keras.layers.Dense(3, 'sigmoid')])
model.compile('adam', 'binary_crossentropy', metrics=[
    F1Score(average='macro', threshold=0.5), keras.metrics.AUC(multi_label=True, num_labels=3),
])
model.fit(x, y, epochs=3, verbose=0)
results = model.evaluate(x, y, verbose=0, return_dict=True)
"""

ALONE = """
import keras

metric = keras.metrics.AUC(num_thresholds=3)
metric.update_state([0, 0, 1, 1], [0, 0.5, 0.3, 0.9])
results = {'at first': metric.result()}
metric.reset_state()
metric.update_state([0, 0, 1, 1], [0, 0.5, 0.3, 0.9], sample_weight=[1, 0, 0, 1])
results['weighted'] = metric.result()
results['called'] = keras.metrics.Precision(thresholds=0.25)([0, 1, 1], [0.3, 0.6, 0.9])
results['rows'] = keras.metrics.mean_absolute_percentage_error([[2.0], [4.0]], [[1.0], [5.0]]).tolist()
"""


def run(listing: str, **given) -> dict:
    # a script imports ``from keras import Sequential``; here everything comes from minidl
    code = re.sub(r"\bimport keras\b", "import minidl as keras", listing)
    code = re.sub(r"from keras(\S*) import", r"from minidl\1 import", code)
    names = {**given}
    exec(compile(code, "listing", "exec"), names)
    return names


@pytest.fixture(scope="module")
def features():
    minidl.set_random_seed(1)
    return np.random.default_rng(0).normal(size=(400, 6)).astype("float32")


def test_decisions(features):
    y = (features[:, 0] + features[:, 1] > 1).astype("float32")
    found = run(DECISION, x=features, y=y)
    results, history = found["results"], found["history"].history
    assert results["auc"] > 0.85 and results["prc"] > 0.5 and found["stop"].best == max(history["val_prc"])
    assert {"precision", "recall", "val_auc"} <= set(history)


def test_a_number(features):
    y = features[:, 0] * 2 + 10
    results = run(REGRESSION, x=features, y=y)["results"]
    assert results["root_mean_squared_error"] == pytest.approx(results["loss"] ** 0.5, rel=1e-5)
    assert list(results)[1:] == ["root_mean_squared_error", "mae", "mape", "r2_score", "within_half"]


def test_several_tags(features):
    y = (features[:, :3] > 0).astype("float32")
    results = run(TAGS, x=features, y=y)["results"]
    assert 0.5 < results["auc"] <= 1 and 0 < results["f1_score"] <= 1


def test_a_metric_by_itself():
    results = run(ALONE)["results"]
    assert results == {
        "at first": 0.75,
        "weighted": 1.0,
        "called": pytest.approx(2 / 3),
        "rows": [50.0, 25.0],
    }

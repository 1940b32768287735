"""Listings with data as people have it: data frames, sparse matrices, lists, words."""

import re

import numpy as np
import pandas as pd
import pytest
import scipy.sparse

import minidl
from minidl.__main__ import main


def run(listing: str, **names) -> dict:
    exec(compile(re.sub(r"\bkeras\b", "minidl", listing), "listing", "exec"), names)
    return names


@pytest.fixture
def passengers():
    rng = np.random.default_rng(2)
    age, fare = rng.integers(1, 80, 400), rng.exponential(30, 400)
    sex, deck = rng.choice(["female", "male"], 400), rng.choice(["A", "B", "C"], 400)
    score = (sex == "female") * 3 + (deck == "A") * 2 - age / 20 + rng.normal(size=400) * 0.3
    columns = dict(age=age, fare=fare, sex=sex, deck=deck, survived=pd.array(score > 1.5, dtype="boolean"))
    frame = pd.DataFrame(columns).sample(frac=1, random_state=0)  # its index has the order of before
    return frame


FRAME = """
import keras
import pandas as pd
from keras import layers

features = pd.get_dummies(passengers.drop(columns='survived'), columns=['sex', 'deck'])
labels = passengers['survived']
numbers = ['age', 'fare']
features[numbers] = (features[numbers] - features[numbers].mean()) / features[numbers].std()

model = keras.Sequential([
    layers.Input(shape=(features.shape[1],)),
    layers.Dense(16, activation='relu'),
    layers.Dense(1, activation='sigmoid'),
])
model.compile(optimizer='adam', loss='binary_crossentropy', metrics=['accuracy'])
model.fit(features, labels, epochs=60, batch_size=16, validation_split=0.2, class_weight='balanced', verbose=0)
loss, accuracy = model.evaluate(features, labels, verbose=0)
chances = pd.Series(model.predict(features)[:, 0], index=features.index)
"""


def test_a_data_frame_with_words_and_booleans(passengers):
    names = run(FRAME, passengers=passengers)
    assert names["accuracy"] > 0.88
    best = names["chances"].idxmax()  # by the frame's own index
    assert passengers.loc[best, "sex"] == "female" and names["chances"][best] > 0.9
    with pytest.raises(TypeError, match="column 'sex': make numbers of its words, pandas.get_dummies"):
        names["model"].predict(passengers.drop(columns="survived"))


SPARSE = """
import keras
from keras import layers

model = keras.Sequential([layers.Dense(16, activation='relu'), layers.Dense(2, activation='softmax')])
model.compile('adam', 'sparse_categorical_crossentropy', ['accuracy'])
model.fit(counts, labels, epochs=10, verbose=0)
score = model.evaluate(counts, labels, verbose=0)
"""


def test_counts_of_words_as_a_csr_matrix():
    rng = np.random.default_rng(0)
    labels = np.arange(300) % 2
    places = rng.integers(0, 500, (300, 20)) + 400 * labels[:, None]  # each kind of text has words of its own
    counts = scipy.sparse.csr_matrix(
        (np.ones(6000), (np.repeat(np.arange(300), 20), places.ravel())), (300, 900)
    )
    names = run(SPARSE, counts=counts, labels=labels)
    assert names["score"][1] > 0.95 and names["model"].input_shape == (900,)
    student = minidl.Sequential([minidl.layers.Dense(2, "softmax", input_dim=900)])
    report = minidl.distill(names["model"], student, counts, labels, epochs=3, verbose=0)
    assert report.student.accuracy > 0.9


LISTS = """
import keras

model = keras.Sequential([keras.layers.Dense(1)])
model.compile(optimizer=keras.optimizers.SGD(learning_rate=0.1), loss='mse')
model.fit([[-1.0], [0.0], [1.0], [2.0]], [-3.0, -1.0, 1.0, 3.0], epochs=200, verbose=0)
answer = model.predict([[10.0]])
"""


def test_plain_lists():
    assert run(LISTS)["answer"][0, 0] == pytest.approx(19, abs=0.01)


def test_a_frame_written_to_csv_is_learnt_from_in_one_command(passengers, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    passengers.to_csv("passengers.csv", index=False)
    quick = "--teacher 32 --student 8 --teacher-steps 200 --steps 200 --seeds 1 --learning-rate 0.01".split()
    assert main(["distill", "passengers.csv", "--target", "survived", *quick]) == 0
    text = capsys.readouterr().out
    assert "task: binary of 2 classes" in text and "column 'sex': 2 words" in text
    listing = "\n".join(re.findall(r"^    (.*)$", text, re.M)).replace("new.csv", "passengers.csv")
    answers = run(listing)["answers"]
    assert set(answers) == {"True", "False"}
    assert np.mean(np.array(answers) == passengers["survived"].astype(str).to_numpy()) > 0.85

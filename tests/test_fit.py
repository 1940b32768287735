"""What fit, evaluate and predict do around the steps: validation, weights, hooks, what is shown and returned."""

import numpy as np
import pytest

from minidl import Dense, Sequential
from minidl.callbacks import Callback, EarlyStopping
from minidl.optimizers import SGD

rng = np.random.default_rng(5)
X = rng.standard_normal((100, 4)).astype(np.float32)
Y = rng.integers(0, 3, 100)


def classifier(**compiled) -> Sequential:
    model = Sequential([Dense(6, "tanh", input_dim=4), Dense(3, "softmax")], seed=2)
    model.compile(
        "adam", "sparse_categorical_crossentropy", **({"metrics": ["accuracy"]} if not compiled else compiled)
    )
    return model


class Recorder(Callback):
    def __init__(self, stop_at: int | None = None):
        super().__init__()
        self.seen, self.stop_at = [], stop_at

    def on_epoch_begin(self, epoch, logs=None):
        self.seen.append("epoch begins")

    def on_train_batch_end(self, batch, logs=None):
        if batch == self.stop_at:
            self.model.stop_training = True

    def on_test_begin(self, logs=None):
        self.seen.append("test begins")

    def on_test_end(self, logs=None):
        self.seen.append(("test ends", sorted(logs)))

    def on_epoch_end(self, epoch, logs=None):
        self.seen.append(("epoch ends", sorted(logs)))


@pytest.mark.parametrize("stop_at", [None, 0])
def test_hooks_around_validation(stop_at):
    """As in Keras, and an epoch that a batch ends is validated too: EarlyStopping finds its val_loss."""
    recorder = Recorder(stop_at)
    classifier().fit(
        X, Y, verbose=0, validation_split=0.2, callbacks=[recorder, EarlyStopping(restore_best_weights=True)]
    )
    names = ["accuracy", "loss"]
    assert recorder.seen == [
        "epoch begins",
        "test begins",
        ("test ends", names),
        ("epoch ends", [*names, "val_accuracy", "val_loss"]),
    ]


def test_class_weight_is_for_training():
    """Validation samples keep their own weight, whichever way they are given."""
    model = classifier()
    history = model.fit(X, Y, verbose=0, validation_split=0.3, class_weight={0: 5.0, 1: 5.0, 2: 5.0})
    assert history.history["val_loss"][0] == pytest.approx(
        model.evaluate(X[70:], Y[70:], verbose=0)[0], rel=1e-6
    )
    plain = classifier().fit(X, Y, verbose=0, validation_split=0.3)
    assert history.history["loss"][0] > 3 * plain.history["loss"][0]


def test_sample_weight_is_split_with_the_samples():
    weight = rng.random(100)
    model = classifier()
    history = model.fit(X, Y, verbose=0, validation_split=0.3, sample_weight=weight, class_weight={0: 9.0})
    expected = model.evaluate(X[70:], Y[70:], sample_weight=weight[70:], verbose=0)[0]
    assert history.history["val_loss"][0] == pytest.approx(expected, rel=1e-6)
    assert expected != pytest.approx(model.evaluate(X[70:], Y[70:], verbose=0)[0], rel=1e-2)


def test_what_evaluate_returns():
    values = classifier().evaluate(X, Y, verbose=0)
    assert [type(value) for value in values] == [float, float]
    alone = classifier(metrics=None).evaluate(X, Y, verbose=0)
    assert type(alone) is float and alone == values[0]
    named = classifier().evaluate(X, Y, verbose=0, return_dict=True)
    assert named == {"loss": values[0], "accuracy": values[1]}
    assert {type(value) for value in named.values()} == {float}
    history = classifier().fit(X, Y, verbose=0, validation_split=0.2).history
    assert {type(value) for values in history.values() for value in values} == {float}


def test_evaluate_counts_batches(capsys):
    classifier().evaluate(X, Y, batch_size=30, verbose=1)
    assert "4/4 " in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (dict(validation_data=5), ValueError, r"validation_data must be \(x, y\) or .* got 5 \(int\)"),
        (dict(validation_data=(X,)), ValueError, r"validation_data must be \(x, y\) or"),
        (
            dict(validation_data=(X, Y, np.ones(3))),
            ValueError,
            "validation sample_weight must have one row per sample of validation x: expected 100, got 3",
        ),
        (dict(validation_batch_size=0), ValueError, "validation_batch_size must be >= 1, got 0"),
        (dict(class_weight={3: 1.0}), ValueError, "class_weight key must be <= 2, got 3"),
    ],
)
def test_refused_and_unchanged(arguments, error, message):
    model = classifier()
    model.fit(X, Y, verbose=0)
    before = model.params.copy(), model.epoch, model.optimizer.iterations
    with pytest.raises(error, match=message):
        model.fit(X, Y, verbose=0, **arguments)
    assert np.array_equal(model.params, before[0])
    assert (model.epoch, model.optimizer.iterations) == before[1:]


def test_batch_size_of_evaluate():
    with pytest.raises(ValueError, match="batch_size must be >= 1, got 0"):
        classifier().evaluate(X, Y, batch_size=0, verbose=0)


@pytest.mark.parametrize("own", [False, True], ids=["compiled", "layer by layer"])
def test_accuracy_of_one_sigmoid(own):
    """Probabilities, not logits, are held against the threshold: in fit, its validation, and evaluate."""

    class Own(Dense):
        """A Dense the compiled loop does not know."""

    first = (Own if own else Dense)(6, "tanh", input_dim=4)
    model = Sequential([first, Dense(1, "sigmoid")], seed=3)
    model.compile(SGD(1e-30), "binary_crossentropy", metrics=["accuracy"])
    y = (model.predict(X)[:, 0] > 0.5).astype(int)  # by the model's own lights, so all are right
    on_logits = (model.predict_logits(X)[:, 0] > 0.5) == y
    assert not on_logits[:70].all() and not on_logits[70:].all()
    history = model.fit(X, y, verbose=0, validation_split=0.3).history
    assert history["accuracy"] == history["val_accuracy"] == [1.0]
    assert model.evaluate(X, y, verbose=0)[1] == 1.0
    assert model.train_on_batch(X, y)[1] == 1.0

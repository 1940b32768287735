"""What `fit` offers to those who stand above it: epochs at once beside a callback, a given order, shared penalties."""

import importlib

import numpy as np
import pytest

from minidl.callbacks import Callback, CallbackList, History
from minidl.kernels import reductions
from minidl.layers import Dense, Input
from minidl.losses import HalfMeanSquaredError
from minidl.models import Sequential
from minidl.regularizers import L2
from minidl.training.layerwise import LayerwiseSteps
from minidl.training.options import FitOptions

training_fit = importlib.import_module("minidl.training.fit")  # the function of that name hides it
rng = np.random.default_rng(0)
X, Y = rng.normal(size=(50, 4)), rng.normal(size=(50, 2))
WEIGHT = rng.uniform(0.5, 2, 50)


class Patient(Callback):
    """Lets seven epochs run at once, and keeps how far the model was when it was told of each."""

    wants_every_batch = False

    def __init__(self, stop_after=None, at_once=7):
        super().__init__()
        self.stop_after, self.at_once, self.told = stop_after, at_once, []

    @property
    def epochs_at_once(self):
        return self.at_once

    def on_epoch_end(self, epoch, logs=None):
        self.told.append((epoch, self.model.epoch, logs["loss"]))
        self.model.stop_training = epoch == self.stop_after


def model_of(optimizer="adam", penalty=0.1):
    layers = [Input((4,)), Dense(6, "tanh", kernel_regularizer=L2(penalty)), Dense(2)]
    model = Sequential(layers, dtype="float64", seed=0)
    model.compile(optimizer, HalfMeanSquaredError())
    return model


def train(callback=None, order=None, epochs=20, **options):
    model = model_of()
    model.prepare_optimizer()
    callbacks = [] if callback is None else [callback]
    options = FitOptions(X, Y, 16, epochs, verbose=0, callbacks=callbacks, **options)
    history = training_fit.fit(model, options, order=order)
    return model.params.copy(), history.history["loss"]


def test_epochs_run_at_once_beside_a_callback_that_allows_it(monkeypatch):
    monkeypatch.setattr("minidl.training.compiled.CALL_SECONDS", 600.0)  # a slow machine ends no slice
    params, losses = train()
    callback = Patient()
    found, found_losses = train(callback)
    np.testing.assert_array_equal(found, params)
    assert [epoch for epoch, _, _ in callback.told] == list(range(20))
    assert [loss for _, _, loss in callback.told] == losses == found_losses
    ahead = [model - epoch for epoch, model, _ in callback.told]
    assert max(ahead) == 7 and min(ahead) == 1
    one_by_one = Patient(at_once=1)
    np.testing.assert_array_equal(train(one_by_one)[0], params)
    assert {model - epoch for epoch, model, _ in one_by_one.told} == {1}


def test_training_ends_where_the_callback_says_it():
    found, losses = train(Patient(stop_after=6))
    np.testing.assert_array_equal(found, train(epochs=7)[0])
    assert len(losses) == 7


def test_the_most_hurried_callback_decides():
    class Watching(History):
        pass

    class Foreign:
        pass

    assert CallbackList([History(), Patient()]).epochs_at_once == 7
    assert CallbackList([Patient(), Callback()]).epochs_at_once == 1
    assert Watching().epochs_at_once == 1  # it may have a hook of its own
    callbacks = CallbackList([Patient()])
    callbacks.callbacks.append(Foreign())
    assert callbacks.epochs_at_once == 1


def test_a_given_order_takes_the_place_of_the_drawn_one():
    orders = [np.random.default_rng(epoch).permutation(50) for epoch in range(5)]
    params, _ = train(order=lambda epoch: orders[epoch], epochs=5)
    model = model_of()
    for order in orders:
        model.fit(X[order], Y[order], batch_size=16, shuffle=False, verbose=0)
    np.testing.assert_array_equal(params, model.params)
    assert not np.array_equal(train(epochs=5)[0], params)


class Shared(HalfMeanSquaredError):
    """A loss whose penalty is meant for 16 rows."""

    penalty_rows = 16.0
    divided_by = reductions.ROWS

    @property
    def divisor(self):
        return self.divided_by


class SharedByWeight(Shared):
    divided_by = reductions.WEIGHTS


@pytest.mark.parametrize("loss, weight", [(Shared, None), (Shared, WEIGHT), (SharedByWeight, WEIGHT)])
def test_a_penalty_is_divided_as_the_losses_are(loss, weight, monkeypatch):
    """One epoch of plain descent, worked out by hand; compiled and layer by layer give the same bits."""
    found = []
    for layerwise in (False, True):
        with monkeypatch.context() as patch:
            if layerwise:
                patch.setattr(
                    training_fit, "choose_stepper", lambda model, data, *rest: LayerwiseSteps(model, data)
                )
            model = model_of("sgd")
            model.compile("sgd", loss())
            start = [array.copy() for array in model.weights]
            logged = model.fit(X, Y, batch_size=16, shuffle=False, sample_weight=weight, verbose=0).history[
                "loss"
            ]
        found.append((model.params.tobytes(), logged))
    assert found[0] == found[1]
    w, b, v, c = start
    total = 0.0
    for first in range(0, 50, 16):
        x, y = X[first : first + 16], Y[first : first + 16]
        row_weight = np.ones(len(x)) if weight is None else weight[first : first + 16]
        divisor = row_weight.sum() if loss is SharedByWeight else len(x)
        hidden = np.tanh(x @ w + b)
        error = (hidden @ v + c - y) * row_weight[:, None]
        value = 0.5 * (error**2 / row_weight[:, None]).sum() / divisor + 0.1 * (w**2).sum() * 16 / divisor
        total += value * len(x)
        slope = (error @ v.T) * (1 - hidden**2)
        w, b, v, c = (
            w - 0.01 * (x.T @ slope / divisor + 0.2 * w * 16 / divisor),
            b - 0.01 * slope.sum(axis=0) / divisor,
            v - 0.01 * hidden.T @ error / divisor,
            c - 0.01 * error.sum(axis=0) / divisor,
        )
    np.testing.assert_allclose(model.weights[0], w, atol=1e-14)
    np.testing.assert_allclose(model.weights[2], v, atol=1e-14)
    assert logged == pytest.approx([total / 50], rel=1e-12)
    plain = model_of("sgd")
    plain.fit(X, Y, batch_size=16, shuffle=False, sample_weight=weight, verbose=0)
    assert not np.allclose(plain.weights[0], w, atol=1e-6)

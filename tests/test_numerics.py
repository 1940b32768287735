"""Numbers at the edge: extreme ones come out right, and those that are none are found."""

import math
import warnings

import numpy as np
import pytest
from small_run import CLASSES, FEATURES, STEPS, fit, new_model

from minidl.callbacks import Callback, TerminateOnNaN
from minidl.layers import Dense, Layer
from minidl.models import Sequential
from minidl.optimizers import SGD
from minidl.optimizers.schedules import PiecewiseConstantDecay

# -- numbers that are none -------------------------------------------------------------------------


class Recorder(Callback):
    """Looks at every step, which ``fit`` must therefore run one at a time."""

    def __init__(self):
        super().__init__()
        self.states, self.bad = [], []

    def on_train_begin(self, logs=None):
        self.states.append(self.model.params.copy())

    def on_train_batch_end(self, batch, logs=None):
        self.states.append(self.model.params.copy())
        finite = math.isfinite(logs["loss"]) and np.isfinite(self.model.params).all()
        self.bad.append(not finite)


def exploding(after, rate, make=SGD):
    """A model whose learning rate becomes ``rate`` after so many steps."""
    return new_model(optimizer=make(PiecewiseConstantDecay([after - 1], [0.01, rate])))


@pytest.mark.parametrize("layerwise", [False, True])
@pytest.mark.parametrize("stepwise", [False, True])
@pytest.mark.parametrize("after, rate", [(1, 3e38), (STEPS, 1e30), (40, 3e38), (61, 1e25)])
def test_the_first_step_that_is_not_finite_is_found(after, rate, stepwise, layerwise, capsys):
    recorder = Recorder()
    with pytest.warns(RuntimeWarning):
        fit(exploding(after, rate), epochs=4, callbacks=[recorder])
    first_bad = recorder.bad.index(True)
    assert first_bad >= after

    model, terminator = exploding(after, rate), TerminateOnNaN()
    if layerwise:
        model.ops = lambda training=False, logits=False: None
    fit(model, epochs=4, callbacks=[terminator] + [Recorder()] * stepwise)
    epoch, step = divmod(first_bad, STEPS)
    assert terminator.found.startswith(f"epoch {epoch + 1} of 4, step {step + 1} of {STEPS}: ")
    assert any(f"'{layer.name}'" in terminator.found for layer in model.layers)
    assert terminator.found in capsys.readouterr().out
    assert np.array_equal(model.params, recorder.states[first_bad]) and np.isfinite(model.params).all()
    assert model.optimizer.iterations == first_bad
    assert model.epoch == epoch and model.history.epoch == list(range(epoch + 1))


def test_without_restore_the_model_stops_behind_the_step():
    recorder = Recorder()
    with pytest.warns(RuntimeWarning):
        fit(exploding(40, 3e38), epochs=4, callbacks=[recorder])
    first_bad = recorder.bad.index(True)
    model = exploding(40, 3e38)
    fit(model, epochs=4, callbacks=[TerminateOnNaN(restore=False)])
    assert np.array_equal(model.params, recorder.states[first_bad + 1], equal_nan=True)
    assert model.optimizer.iterations == first_bad + 1 and not np.isfinite(model.params).all()


def test_without_the_callback_a_warning_names_the_step():
    with pytest.warns(
        RuntimeWarning, match=rf"epoch 2 of 3, step \d+ of {STEPS}: the loss is (nan|inf)"
    ) as seen:
        model = exploding(30, 3e38)
        fit(model, epochs=3)
    assert len([w for w in seen if w.category is RuntimeWarning]) == 1
    assert seen[0].filename.endswith("small_run.py")  # where fit was called
    assert not np.isfinite(model.params).all()  # the control: that is what restoring prevents


def test_looking_for_nan_changes_nothing():
    plain, watched = new_model(), new_model()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        first = fit(plain, epochs=3)
        second = fit(watched, epochs=3, callbacks=[TerminateOnNaN(raise_error=True)])
    assert np.array_equal(plain.params, watched.params) and first.history == second.history


def test_the_layer_is_named():
    class Breaks(Layer):
        calls = 0

        def forward(self, x, training=False):
            self.calls += 1
            return x * np.float32(np.nan if self.calls > 7 else 1)

        def backward(self, dout):
            return dout

    model = Sequential([Dense(3, input_shape=(FEATURES,)), Breaks(name="culprit"), Dense(CLASSES, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(RuntimeError, match=r"epoch 1 of 1, step 8 of 25: the output of layer 'culprit'"):
        fit(model, callbacks=[TerminateOnNaN(raise_error=True)])
    assert model.optimizer.iterations == 7 and np.isfinite(model.params).all()

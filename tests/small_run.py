"""A small training that several tests interrupt, kill, repeat and compare."""

from __future__ import annotations

import gc
import math
import os
import time
import traceback
import warnings

import numpy as np

import minidl
from minidl.callbacks import Callback, TerminateOnNaN
from minidl.layers import Dense, Dropout
from minidl.models import Sequential
from minidl.optimizers import Adam

SAMPLES, FEATURES, CLASSES, BATCH = 400, 12, 4, 16
STEPS = -(-SAMPLES // BATCH)
FOREVER = 10**7


def fractions(*shape, scale=97):
    """Numbers in [-1, 1) that come from integers alone, the same on every machine."""
    count = math.prod(shape)
    numbers = (np.arange(count, dtype=np.int64) * 7919 + 13) % (2 * scale)
    return (numbers / scale - 1).astype("f4").reshape(shape)


X = fractions(SAMPLES, FEATURES)
Y = (np.arange(SAMPLES) * 31 // 7) % CLASSES
TEACHER = 3 * fractions(SAMPLES, CLASSES, scale=41)


def new_model(seed=5, optimizer=None, dtype="float32", units=24):
    layers = [
        Dense(units, "relu", input_shape=(FEATURES,)),
        Dropout(0.2),
        Dense(units, "gelu"),
        Dense(CLASSES, "softmax"),
    ]
    model = Sequential(layers, seed=seed, dtype=dtype)
    model.compile(optimizer or Adam(0.003), "sparse_categorical_crossentropy", ["accuracy"])
    return model


def fit(model, **arguments):
    return model.fit(X, Y, **{"batch_size": BATCH, "verbose": 0, **arguments})


def distil(model, **arguments):
    numbers = dict(temperature=4.0, hard_weight=0.1, soft_weight=0.9)
    arguments = {"batch_size": BATCH, "verbose": 0, **numbers, **arguments}
    return minidl.distill(TEACHER, model, X, Y, **arguments).history


def layerwise(model, **arguments):
    model.ops = lambda training=False, logits=False: None
    return fit(model, **arguments)


def online(model, **arguments):
    return fit(model, target_model=lambda x: x[:, :CLASSES] * 3, **arguments)


def watched(model, callbacks=(), **arguments):
    return fit(model, callbacks=[*callbacks, TerminateOnNaN()], **arguments)


class StopAt(Callback):
    """Ends ``fit`` after so many steps in all."""

    def __init__(self, iterations):
        super().__init__()
        self.iterations = iterations

    def on_train_batch_end(self, batch, logs=None):
        if self.model.optimizer.iterations == self.iterations:
            self.model.stop_training = True


def at_step(iterations, run):
    """A fresh model after exactly so many steps of ``run(model, **fit_arguments)``."""
    model, epochs = new_model(), iterations // STEPS
    model.prepare_optimizer()
    if epochs:
        run(model, epochs=epochs)
    if iterations % STEPS:
        run(model, epochs=epochs + 1, initial_epoch=epochs, callbacks=[StopAt(iterations)])
    assert model.optimizer.iterations == iterations
    return model


def same_state(model, other):
    """Whether two models have the same parameters and optimizer state, bit for bit."""
    arrays = zip((model.params, *model.optimizer.slots), (other.params, *other.optimizer.slots), strict=True)
    return model.optimizer.iterations == other.optimizer.iterations and all(
        np.array_equal(a, b) for a, b in arrays
    )


def is_whole(model, run):
    """Whether the model is what it was after its last finished step."""
    model.prepare_optimizer()  # an interrupt may have come before fit did
    return same_state(model, at_step(model.optimizer.iterations, run))


def forked(work):
    """The id of a child that runs ``work``: everything imported and compiled is there already."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 on: helper threads are not copied
        child = os.fork()
    if child == 0:
        code = 1
        gc.callbacks.clear()  # Python ignores an interrupt that comes in one, and hypothesis has one
        try:
            work()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return child


def exit_code(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def wait_for(happened, child):
    """Until ``happened()``, however slow the machine; an AssertionError if the process ``child`` ends before."""
    while not happened():
        assert os.waitpid(child, os.WNOHANG) == (0, 0), "the process has ended"
        time.sleep(5e-4)

"""Ctrl-C: whatever it interrupts can be gone on with."""

import importlib
import os
import random
import signal
import threading
from contextlib import nullcontext

import numpy as np
import pytest
from small_run import (
    CLASSES,
    FEATURES,
    FOREVER,
    STEPS,
    X,
    Y,
    distil,
    exit_code,
    fit,
    forked,
    is_whole,
    new_model,
    same_state,
    wait_for,
)

import minidl
from minidl.callbacks import Callback, ModelCheckpoint
from minidl.kernels import network, threads
from minidl.layers import Dense, Layer
from minidl.models import Sequential, load_model
from minidl.training import compiled as compiled_steps

epochs = importlib.import_module("minidl.training.fit")  # minidl.training.fit is the function
warmup = importlib.import_module("minidl.warmup")  # minidl.warmup is the function

LARGE = np.random.default_rng(0).random((400, 400), dtype=np.float32)


def interrupted(run, seconds, model=None):
    """A model whose training was interrupted after about so long; None if nothing was raised."""
    model = model or new_model()
    timer = threading.Timer(seconds, signal.pthread_kill, (threading.main_thread().ident, signal.SIGINT))
    try:
        timer.start()  # on a busy machine the interrupt may come before this line is over
        run(model, epochs=FOREVER)
    except KeyboardInterrupt:
        return model
    finally:
        timer.cancel()


def long_step(model, **arguments):
    """One step on 300 rows, which come in parts."""
    x, y = np.tile(X, (-(-300 // len(X)), 1))[:300], np.tile(Y, -(-300 // len(Y)))[:300]
    return model.fit(x, y, batch_size=300, verbose=0, **arguments)


@pytest.mark.parametrize("callbacks", [None, [minidl.callbacks.TerminateOnNaN()]])
def test_a_long_step_is_given_up(monkeypatch, callbacks):
    """An interrupt in the middle of it leaves everything as before the step; parts change no bit."""
    whole = new_model()
    long_step(whole, epochs=3)
    monkeypatch.setattr(compiled_steps, "_PART_FLOPS", 1.0)
    model, calls, run = new_model(), [], threads.run

    def interrupting(kernel, *args, **kwargs):
        used = run(kernel, *args, **kwargs)
        if kernel is network.train:
            calls.append(tuple(args[-1]))
            if len(calls) == 7:  # the second part of the second step
                os.kill(os.getpid(), signal.SIGINT)
        return used

    monkeypatch.setattr(threads, "run", interrupting)
    with pytest.raises(KeyboardInterrupt):
        long_step(model, epochs=3, callbacks=callbacks)
    parts = [(first, first + 64, first == 256) for first in range(0, 300, 64)]
    assert calls == parts + parts[:2]
    assert model.optimizer.iterations == model.epoch == 1
    long_step(model, epochs=3, initial_epoch=1)
    assert np.array_equal(model.params, whole.params) and model.optimizer.iterations == 3


@pytest.mark.parametrize("run", [fit, distil])
def test_an_interrupt_does_not_wait_for_the_compiler(monkeypatch, run):
    """The compiler goes on by itself, once, and the next call finds what it has made."""
    begun, finish, compiled = threading.Event(), threading.Event(), []

    def compile_all(dtype):
        begun.set()
        assert finish.wait(60)
        compiled.append(dtype)

    monkeypatch.setattr(warmup, "JIT_DISABLED", False)
    monkeypatch.setattr(warmup, "_compiled", set())
    monkeypatch.setattr(warmup, "_is_compiled", lambda dtype: False)
    monkeypatch.setattr(warmup, "_compile_all", compile_all)
    model = new_model()
    before = model.params.copy()
    for _ in range(2):
        assert interrupted(run, 0.2, model) is model
        assert begun.is_set() and not compiled
    assert np.array_equal(model.params, before) and model.optimizer.iterations == 0
    finish.set()
    run(model, epochs=1)
    assert compiled == ["float32"] and model.epoch == 1
    monkeypatch.setattr(warmup, "_compiled", set())

    def fail(dtype):
        raise OSError("no space")

    monkeypatch.setattr(warmup, "_compile_all", fail)
    with pytest.raises(OSError, match="no space"):
        run(new_model(), epochs=1)


@pytest.mark.parametrize("run", [fit, distil])
def test_an_interrupt_leaves_the_last_finished_step(run):
    rng = random.Random(1)
    for _ in range(4):
        model = interrupted(run, rng.uniform(0.02, 0.2))
        assert is_whole(model, run)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
        assert np.float32(1e-40) * np.ones(1, "f4") != 0  # denormals are numbers again
        assert model.epoch == model.optimizer.iterations // STEPS
        epochs = model.history.epoch if model.history else []
        assert epochs in (
            list(range(model.epoch)),
            list(range(model.epoch - 1)),
        )  # its logs come after its steps
        assert not epochs or {len(values) for values in model.history.history.values()} == {len(epochs)}
        before = model.params.copy()
        run(model, epochs=1)
        assert np.isfinite(model.params).all() and not np.array_equal(before, model.params)


def test_an_unguarded_interrupt_would_be_noticed(monkeypatch):
    monkeypatch.setattr(epochs, "uninterrupted", lambda: nullcontext(()))
    monkeypatch.setattr(compiled_steps, "_MOST_IN_PANELS", 0)  # panels are copied back after a whole slice
    found = [is_whole(interrupted(fit, 0.15), fit) for _ in range(3)]
    assert not all(found)


def test_an_interrupt_from_within():
    """As Jupyter, an IDE's stop button or a library may do it."""

    class Interrupts(Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                signal.raise_signal(signal.SIGINT)

    model = new_model()
    with pytest.raises(KeyboardInterrupt):
        fit(model, epochs=5, callbacks=[Interrupts()])
    assert model.epoch == 3 and is_whole(model, fit)


def test_a_second_interrupt_does_not_wait():
    class Hangs(Layer):
        def forward(self, x, training=False):
            for _ in range(3):  # a user who loses patience
                signal.raise_signal(signal.SIGINT)
            raise AssertionError("never reached")

    model = Sequential([Dense(3, input_shape=(FEATURES,)), Hangs(), Dense(CLASSES, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(KeyboardInterrupt):
        fit(model)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_in_another_thread_leaves_signals_alone():
    models = []
    thread = threading.Thread(target=lambda: models.append(fit(new_model())))
    thread.start()
    thread.join()
    assert len(models) == 1


def batches(model):
    model.train_on_batch(X, Y)


@pytest.mark.parametrize(
    "call",
    [
        lambda model: model.predict(X),
        lambda model: model.evaluate(X, Y, verbose=0),
        lambda model: minidl.matmul(LARGE, LARGE),
        batches,
    ],
    ids=["predict", "evaluate", "matmul", "train_on_batch"],
)
def test_any_call_may_be_interrupted(call):
    model, rng = new_model(units=150), random.Random(1)
    fit(model)
    iterations, expected = model.optimizer.iterations, call(model)

    def without_end(model, epochs):
        while True:
            call(model)

    for _ in range(8):
        assert interrupted(without_end, rng.uniform(0.001, 0.05), model) is model
    assert np.float32(1e-40) * np.ones(1, "f4") != 0
    if call is batches:  # as many whole steps as were counted
        same = new_model(units=150)
        fit(same)
        for _ in range(model.optimizer.iterations - iterations):
            batches(same)
        assert same_state(model, same) and model.optimizer.iterations > iterations
    else:
        assert np.array_equal(call(model), expected)
    fit(model)


def test_a_real_ctrl_c(tmp_path):
    def work():
        model = new_model()
        try:
            fit(model, epochs=FOREVER, callbacks=[ModelCheckpoint(tmp_path / "running.npz")])
        except KeyboardInterrupt:
            model.save(tmp_path / "interrupted.npz")

    child = forked(work)
    wait_for((tmp_path / "running.npz").exists, child)
    os.kill(child, signal.SIGINT)
    assert exit_code(child) == 0
    assert is_whole(load_model(tmp_path / "interrupted.npz"), fit)

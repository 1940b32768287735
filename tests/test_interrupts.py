"""Ctrl-C: whatever it interrupts can be gone on with."""

import copy
import importlib
import math
import os
import pickle
import random
import signal
import sys
import threading
import time
import zipfile

import numpy as np
import pytest
from small_run import (
    BATCH,
    CLASSES,
    FEATURES,
    FOREVER,
    STEPS,
    StopAt,
    X,
    Y,
    distil,
    exit_code,
    fit,
    forked,
    is_whole,
    layerwise,
    new_model,
    online,
    same_state,
    wait_for,
    watched,
)

import minidl
from minidl.callbacks import Callback, ModelCheckpoint
from minidl.kernels import network, threads
from minidl.kernels.processor import denormals_mode, restore_denormals
from minidl.layers import Dense, Layer
from minidl.models import Sequential, load_model
from minidl.training import compiled as compiled_steps
from minidl.training import interrupts

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

    def compile_all(jobs, new, dtype):
        begun.set()
        assert finish.wait(600)  # the first call compiles what comes before, on a machine that may be busy
        compiled.append(dtype)

    monkeypatch.setattr(warmup, "JIT_DISABLED", False)
    monkeypatch.setattr(compiled_steps, "_kept", {})  # as in a new process: what is kept was compiled
    monkeypatch.setattr(warmup, "_ready", {})
    monkeypatch.setattr(warmup, "_is_on_disk", lambda *job: bool(compiled))
    monkeypatch.setattr(warmup, "_compile_in_two_processes", compile_all)
    model = new_model()
    before = model.params.copy()
    for _ in range(2):
        assert interrupted(run, 0.2, model) is model
        assert begun.is_set() and not compiled
    assert np.array_equal(model.params, before) and model.optimizer.iterations == 0
    finish.set()
    run(model, epochs=1)
    assert compiled == ["float32"] and model.epoch == 1
    monkeypatch.setattr(compiled_steps, "_kept", {})
    monkeypatch.setattr(warmup, "_ready", {})
    compiled.clear()

    def fail(jobs, new, dtype):
        raise OSError("no space")

    monkeypatch.setattr(warmup, "_compile_in_two_processes", fail)
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
    fit(new_model())  # compiled: LLVM does not bear an interrupt
    monkeypatch.setattr(interrupts, "_uninterrupted_code", set())
    monkeypatch.setattr(compiled_steps, "_MOST_IN_PANELS", 0)  # panels are copied back after a whole slice
    mode = denormals_mode()
    try:
        assert not all(is_whole(interrupted(fit, 0.15), fit) for _ in range(10))
    finally:
        restore_denormals(mode)  # which an interrupt may have prevented


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


@pytest.mark.parametrize("patience, error", [(0.0, KeyboardInterrupt), (math.inf, AssertionError)])
def test_a_later_interrupt_does_not_wait_for_code_that_hangs(monkeypatch, patience, error):
    monkeypatch.setattr(interrupts, "_PATIENCE", patience)

    class Hangs(Layer):
        def forward(self, x, training=False):
            for _ in range(3):  # a user who loses patience
                signal.raise_signal(signal.SIGINT)
                time.sleep(0.01)
            raise AssertionError("reached")

    model = Sequential([Dense(3, input_shape=(FEATURES,)), Hangs(), Dense(CLASSES, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    before = model.params.copy()
    with pytest.raises(KeyboardInterrupt) as caught:
        fit(model)
    assert np.array_equal(model.params, before) and model.optimizer.iterations == 0
    seen = [caught.value]
    while seen[-1].__context__ is not None:
        seen.append(seen[-1].__context__)
    assert error in map(type, seen[1:] if patience else seen)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_training_in_another_thread_leaves_signals_alone():
    models = []
    thread = threading.Thread(target=lambda: models.append(fit(new_model())))
    thread.start()
    thread.join()
    assert len(models) == 1


# -- any signal, at any bytecode -------------------------------------------------------------------


class Preempted(Exception):
    pass


def bytecodes(run, model, at=0):
    """Run ``run(model, epochs=2)``, with SIGUSR1 at bytecode number ``at`` of minidl and contextlib.

    How many there were.
    """
    count = 0

    def trace(frame, event, argument):
        nonlocal count
        if not any(part in frame.f_code.co_filename for part in ("minidl", "contextlib")):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            count += 1
            if count == at:
                sys.settrace(None)
                signal.raise_signal(signal.SIGUSR1)
        return trace

    compiled_steps._kept.clear()  # an interrupted fit leaves none, and each run shall have as many bytecodes
    sys.settrace(trace)
    try:
        run(model, epochs=2)
    finally:
        sys.settrace(None)
    return count


@pytest.fixture
def on_signal():
    """Sets what SIGUSR1 does."""
    before = signal.getsignal(signal.SIGUSR1)
    yield lambda handler: signal.signal(signal.SIGUSR1, handler)
    signal.signal(signal.SIGUSR1, before)


def preempt(number, frame):
    raise Preempted


def torn_by_a_signal(run, on_signal, moments):
    """For each of so many random bytecodes, whether a handler that raises there leaves something of different steps, or
    does not return.
    """
    on_signal(preempt)
    bytecodes(run, new_model())  # compiled, imported
    count, kept = bytecodes(run, new_model()), []
    for at in random.Random(3).sample(range(1, count), moments):
        model = new_model()
        try:
            bytecodes(run, model, at)
        except Preempted as error:
            kept.append(error)  # and with it all frames, as a notebook does
        done = model.optimizer.iterations
        place = model.epoch, model.unfinished.step if model.unfinished else 0
        try:
            torn = (
                not is_whole(model, run)
                or place != divmod(done, STEPS)
                or model.draw_epoch != model.epoch
                or model.turns.trained
                or model.turns._lock._is_owned()
            )
        except Preempted:  # the handler was called after the training it should have ended
            torn = True
        assert signal.getsignal(signal.SIGUSR1) is preempt
        yield torn


@pytest.mark.parametrize("moments", [20, pytest.param(500, marks=pytest.mark.long)])
@pytest.mark.parametrize("run", [fit, layerwise, online, watched, distil])
def test_a_handler_may_raise_at_any_bytecode(run, moments, on_signal):
    assert not any(torn_by_a_signal(run, on_signal, moments))


@pytest.mark.parametrize("run", [fit, layerwise])
def test_a_handler_that_does_not_wait_would_be_noticed(monkeypatch, run, on_signal):
    monkeypatch.setattr(interrupts, "_uninterrupted_code", set())
    monkeypatch.setattr(compiled_steps, "_MOST_IN_PANELS", 0)
    mode = denormals_mode()
    try:
        assert any(torn_by_a_signal(run, on_signal, 300))
    finally:
        restore_denormals(mode)  # which such a handler may have prevented


@pytest.mark.parametrize("run", [fit, online, distil])
def test_a_handler_reads_one_and_the_same_step(tmp_path, run, on_signal):
    """Saved, copied, pickled; all go on to the same bits, and so does the training that was looked at."""
    whole, found = new_model(), []
    run(whole, epochs=2)

    def read(number, frame):
        model.save(tmp_path / "m.npz")
        copies = [load_model(tmp_path / "m.npz"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        assert all(map(np.array_equal, model.get_weights(), copies[0].get_weights()))
        assert np.array_equal(model.predict(X), copies[0].predict(X))
        found.extend(copies)

    on_signal(preempt)
    count = bytecodes(run, new_model())
    on_signal(read)
    for at in random.Random(4).sample(range(count // 20, count), 20):  # built before
        model = new_model()
        bytecodes(run, model, at)
        assert same_state(model, whole)
    for resumed in found:
        assert is_whole(resumed, run)
        run(resumed, epochs=2, initial_epoch=resumed.epoch)
        assert same_state(resumed, whole)
    assert len(found) > 30


def test_a_handler_set_by_a_callback_waits_too(on_signal):
    class Sets(Callback):
        def on_epoch_begin(self, epoch, logs=None):
            on_signal(preempt)

    class Signals(Layer):
        def forward(self, x, training=False):
            signal.raise_signal(signal.SIGUSR1)
            return x

        def backward(self, dout):
            return dout

    model = Sequential([Dense(3, input_shape=(FEATURES,)), Signals(), Dense(CLASSES, "softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy")
    with pytest.raises(Preempted):
        fit(model, callbacks=[Sets()])
    assert model.optimizer.iterations == 1 and model.unfinished.step == 1  # the step is finished
    assert signal.getsignal(signal.SIGUSR1) is preempt


def test_another_thread_reads_whole_steps(tmp_path):
    model, found = new_model(), []
    training = threading.Thread(target=fit, args=(model,), kwargs={"epochs": FOREVER})
    training.start()
    while model.optimizer.iterations == 0:
        time.sleep(0.001)
    for _ in range(3):
        model.save(tmp_path / "m.npz")
        found += [load_model(tmp_path / "m.npz"), copy.deepcopy(model), pickle.loads(pickle.dumps(model))]
        assert np.isfinite(model.predict(X)).all() and model.evaluate(X, Y, verbose=0)
    model.stop_training = True
    training.join()
    assert len({copied.optimizer.iterations for copied in found}) > 1
    assert all(is_whole(copied, fit) for copied in found)


MEDDLING = {
    "fit": lambda model: fit(model),
    "train_on_batch": lambda model: model.train_on_batch(X[:BATCH], Y[:BATCH]),
    "compile": lambda model: model.compile("sgd", "sparse_categorical_crossentropy"),
    "add": lambda model: model.add(Dense(CLASSES)),
    "pop": lambda model: model.pop(),
    "distill": distil,
}


@pytest.mark.parametrize("run", [fit, layerwise])
@pytest.mark.parametrize("what", MEDDLING)
def test_what_a_training_does_not_bear_is_refused(run, what, on_signal):
    """From a callback, a signal's handler and another thread; the training goes on as if nobody had called."""
    whole, model, told = new_model(), new_model(), []
    run(whole, epochs=2)

    def meddle(*_):
        with pytest.raises(
            RuntimeError, match=r"^\w+ has to wait until the fit that trains this model is over"
        ) as error:
            MEDDLING[what](model)
        told.append(str(error.value).split()[0])

    class Meddles(Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 7:
                meddle()
                signal.raise_signal(signal.SIGUSR1)
                thread = threading.Thread(target=meddle)
                thread.start()
                thread.join()

    on_signal(meddle)
    run(model, epochs=2, callbacks=[Meddles()])
    assert told == 6 * [{"distill": "compile"}.get(what, what)]
    assert same_state(model, whole) and model.epoch == 2
    MEDDLING[what](model)  # now it may


def test_two_threads_fit_one_model():
    """One of them trains, the other is refused; single steps take turns."""
    model, refused = new_model(), []

    def train():
        try:
            fit(model, epochs=20)
        except RuntimeError as error:
            refused.append(error)

    def in_two_threads(work):
        both = [threading.Thread(target=work) for _ in range(2)]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()

    in_two_threads(train)
    assert model.optimizer.iterations == (2 - len(refused)) * 20 * STEPS and model.epoch == 20
    before = model.optimizer.iterations
    in_two_threads(lambda: [model.train_on_batch(X[:BATCH], Y[:BATCH]) for _ in range(30)])
    assert model.optimizer.iterations == before + 60


def test_weights_that_a_callback_sets_are_part_of_the_training(tmp_path):
    """In the middle of an epoch, too: the run is the same as one that is saved there and goes on."""

    class Sets(Callback):
        def on_train_batch_end(self, batch, logs=None):
            if batch == 7:
                self.model.set_weights([weight / 2 for weight in self.model.get_weights()])

    whole, stopped = new_model(), new_model()
    fit(whole, epochs=2, callbacks=[Sets()])
    fit(stopped, epochs=2, callbacks=[Sets(), StopAt(STEPS + 11)])
    stopped.save(tmp_path / "m.npz")
    resumed = load_model(tmp_path / "m.npz")
    fit(resumed, epochs=2, initial_epoch=1)
    assert whole.draw_epoch == 2 and same_state(resumed, whole)


def test_preempted_saved_resumed(tmp_path):
    """As the README says: SIGTERM, save, exit; another process goes on to the same bits."""
    path = tmp_path / "run.npz"

    def work():
        signal.signal(signal.SIGTERM, lambda number, frame: sys.exit("preempted"))
        model = load_model(path) if path.exists() else new_model()
        try:
            fit(model, epochs=FOREVER, initial_epoch=model.epoch)
        except SystemExit:
            model.save(path)

    fit(new_model())
    iterations = []
    for _ in range(3):
        child = forked(work)
        time.sleep(0.2)
        os.kill(child, signal.SIGTERM)
        assert exit_code(child) in (0, -signal.SIGTERM)  # the latter before the handler was there
        if path.exists():
            iterations.append(load_model(path).optimizer.iterations)
            assert is_whole(load_model(path), fit)
    assert iterations == sorted(iterations) and iterations[-1] > 0


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


def test_an_interrupt_within_a_destructor_of_a_save_is_not_lost(tmp_path, monkeypatch):
    """Python ignores what is raised there; the training would go on."""
    destructor, sent = zipfile.ZipFile.__del__, []

    def interrupting(file):
        if file.mode == "w" and not sent:
            sent.append(file)
            signal.raise_signal(signal.SIGINT)
        destructor(file)

    monkeypatch.setattr(zipfile.ZipFile, "__del__", interrupting)
    model = new_model()
    with pytest.raises(KeyboardInterrupt):
        fit(model, epochs=20, callbacks=[ModelCheckpoint(tmp_path / "running.npz")])
    assert sent and model.epoch == 1 and is_whole(load_model(tmp_path / "running.npz"), fit)


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

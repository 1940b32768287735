"""Threads and processes: together or one after the other, the same bits."""

import functools
import hashlib
import multiprocessing
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from own_layers import Scale
from small_run import X, exit_code, fit, forked, new_model

import minidl
from minidl.layers import Dense, Dropout

# -- processes -------------------------------------------------------------------------------------


def test_a_forked_child_trains_to_the_same_bits():
    minidl.matmul(np.ones((300, 300)), np.ones((300, 300)))  # the workers have started
    whole = new_model()
    fit(whole, epochs=2)
    half = new_model()
    fit(half, epochs=1)
    expected = half.predict(X)

    def work():
        assert np.array_equal(half.predict(X), expected)
        fit(half, epochs=2, initial_epoch=1)
        assert np.array_equal(half.params, whole.params)

    assert exit_code(forked(work)) == 0


def train_elsewhere(queue, model):
    queue.put(model.predict(X))
    fit(model, epochs=2, initial_epoch=1)
    queue.put(model.params)


def test_a_spawned_process_trains_to_the_same_bits():
    model = new_model()
    fit(model, epochs=1)
    context = multiprocessing.get_context("spawn")
    queue = context.Queue()
    process = context.Process(target=train_elsewhere, args=(queue, model))
    process.start()
    predicted, params = queue.get(timeout=300), queue.get(timeout=300)
    process.join()
    assert process.exitcode == 0 and np.array_equal(predicted, model.predict(X))
    fit(model, epochs=2, initial_epoch=1)
    assert np.array_equal(params, model.params)


def trained(seed):
    model = new_model(seed)
    fit(model, epochs=2)
    return model.params


def test_joblibs_workers_train_and_predict_to_the_same_bits():
    joblib = pytest.importorskip("joblib")
    minidl.matmul(np.ones((300, 300)), np.ones((300, 300)))
    model = new_model()
    fit(model)
    parallel = joblib.Parallel(n_jobs=2, backend="loky")
    for found, seed in zip(
        parallel(joblib.delayed(trained)(seed) for seed in (1, 2, 3)), (1, 2, 3), strict=True
    ):
        assert np.array_equal(found, trained(seed))
    for found in parallel(joblib.delayed(model.predict)(X[first:]) for first in (0, 3)):
        assert np.array_equal(found, model.predict(X[-len(found) :]))


def test_numbas_own_threads_are_not_used():
    """So that an install with the workqueue layer alone, which is not threadsafe, is as good as any."""
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import hashlib, threading, numba\n"
        "from test_concurrency import trained, in_threads\n"
        "params = in_threads(*[lambda: trained(1)] * 3)\n"
        "try:\n    numba.threading_layer(); sys.exit('a threading layer was launched')\n"
        "except ValueError:\n    pass\n"
        "print(*[hashlib.sha256(p.tobytes()).hexdigest() for p in params])"
    )
    environment = {**os.environ, "NUMBA_THREADING_LAYER": "workqueue"}
    command = [sys.executable, "-c", code, os.path.dirname(__file__)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert set(done.stdout.split()) == {hashlib.sha256(trained(1).tobytes()).hexdigest()}


# -- threads ---------------------------------------------------------------------------------------


def in_threads(*work):
    errors, results = [], [None] * len(work)
    together = threading.Barrier(len(work))

    def run(index):
        try:
            together.wait()
            results[index] = work[index]()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(index,)) for index in range(len(work))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    return results


def test_eight_threads_predict_at_once():
    model = new_model(units=150)
    fit(model, epochs=2)
    inputs = [X, X[:1], X[:97], X.astype("f8"), np.asfortranarray(X), X[::2], X[::-1], X[5:300]]
    expected = [(model.predict(x), model.predict_logits(x)) for x in inputs]
    model.predictors.clear()  # so that they race for these too

    def work(x):
        return lambda: [(model.predict(x), model.predict_logits(x)) for _ in range(10)]

    for found, right in zip(in_threads(*map(work, inputs)), expected, strict=True):
        for pair in found:
            assert np.array_equal(pair[0], right[0]) and np.array_equal(pair[1], right[1])


def test_models_train_at_once():
    def trained_as(seed, dtype):
        model = new_model(seed, dtype=dtype, units=60)
        history = fit(model, epochs=4)
        return model.params, history.history

    kinds = [(1, "float32"), (2, "float32"), (1, "float64")]
    expected = [trained_as(*kind) for kind in kinds]
    found = in_threads(*(lambda kind=kind: trained_as(*kind) for kind in kinds))
    for (params, history), (right, right_history) in zip(found, expected, strict=True):
        assert np.array_equal(params, right) and history == right_history
    assert not np.array_equal(expected[0][0], expected[1][0])


def test_training_while_another_thread_predicts():
    teacher, student = new_model(1), new_model(2)
    fit(teacher)
    expected = teacher.predict(X)
    alone = new_model(2)
    fit(alone, epochs=4)
    _, predictions = in_threads(
        lambda: fit(student, epochs=4), lambda: [teacher.predict(X) for _ in range(20)]
    )
    assert np.array_equal(student.params, alone.params)
    assert all(np.array_equal(found, expected) for found in predictions)


def test_calls_from_other_threads_leave_training_as_it_is():
    def trained(*work):
        model = minidl.Sequential(
            [Dense(16, "relu", input_dim=X.shape[1]), Scale(), Dropout(0.3), Dense(10, "softmax")], seed=3
        )
        model.compile("adam", "sparse_categorical_crossentropy")
        ended = threading.Event()

        def train():
            model.fit(X[:200], np.arange(200) % 10, batch_size=8, epochs=20, verbose=0)
            ended.set()

        in_threads(train, *(functools.partial(one, model, ended) for one in work))
        return model.params

    def call(model, ended):
        while not ended.is_set():
            drawn.append(model(X[:4], training=True).tobytes())

    drawn = []
    assert np.array_equal(trained(call, call), trained())
    assert len(set(drawn)) == len(drawn)  # nor does a call draw what another did

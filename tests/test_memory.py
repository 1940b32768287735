"""What training needs of memory: nothing anew for a step, and no copy of the data."""

import tracemalloc

import numpy as np
from numba.core.runtime import _nrt_python, rtsys

from minidl import Dense, Dropout, Input, Sequential
from minidl.kernels import network, threads


def small_net(inputs: int) -> Sequential:
    layers = [Input((inputs,)), Dropout(0.1), Dense(8, "relu"), Dense(3, "softmax")]
    model = Sequential(layers, seed=0)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model


def test_steps_allocate_nothing(monkeypatch):
    """A call of the compiled loop allocates as often for one step as for many."""
    _nrt_python.memsys_enable_stats()
    taken, run = {}, threads.run

    def counted(kernel, *args, **kwargs):
        before = rtsys.get_allocation_stats().alloc
        run(kernel, *args, **kwargs)
        if kernel is network.train:
            steps = args[4].learning_rates.size
            taken.setdefault(steps, set()).add(rtsys.get_allocation_stats().alloc - before)

    monkeypatch.setattr(threads, "run", counted)
    monkeypatch.setattr(threads, "_num_threads", 1)  # each thread allocates its own
    x, y = np.random.default_rng(0).random((64, 20), dtype=np.float32), np.arange(64) % 3
    for steps in (1, 8):  # the first slice of a fit is one step, what it grows to is at most 8 times that
        small_net(20).fit(x[: 4 * steps], y[: 4 * steps], batch_size=4, verbose=0, epochs=3)
    teacher = np.zeros((64, 3), np.float32)
    small_net(20).fit(x, y, batch_size=4, verbose=0, epochs=3, target_model=teacher)
    assert 1 in taken and max(taken) > 1
    assert len(set.union(*taken.values())) == 1 <= min(set.union(*taken.values()))  # counted, and all the same


def test_the_data_are_not_copied(tmp_path):
    """100 MB of bytes on disk are trained on, evaluated and predicted with a few MB of memory."""
    x = np.memmap(tmp_path / "x", np.uint8, "w+", shape=(128_000, 784))
    y = np.arange(len(x)) % 3
    model = small_net(784)

    def peak(work) -> float:
        tracemalloc.start()
        work()
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most / x.nbytes

    model.fit(x[:512], y[:512], verbose=0)
    assert peak(lambda: model.fit(x, y, batch_size=512, verbose=0)) < 0.2
    assert peak(lambda: model.evaluate(x, y, verbose=0)) < 0.2
    assert peak(lambda: model.predict(x)) < 0.2
    assert peak(lambda: x.astype(np.float32)) > 3.9  # a copy would be seen

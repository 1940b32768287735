"""What training needs of memory: nothing anew for a step, and no copy of the data."""

import tracemalloc

import numpy as np
from numba.core.runtime import _nrt_python, rtsys

from minidl import Dense, Dropout, Input, Sequential, matmul
from minidl.kernels import network, threads


def small_net(inputs: int) -> Sequential:
    layers = [Input((inputs,)), Dropout(0.1), Dense(8, "relu"), Dense(3, "softmax")]
    model = Sequential(layers, seed=0)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model


def test_steps_allocate_nothing(monkeypatch):
    """The compiled loop allocates nothing, for one step or for many."""
    _nrt_python.memsys_enable_stats()
    taken, run = {}, threads.run

    def allocations() -> int:
        return rtsys.get_allocation_stats().alloc

    def counted(kernel, *args, **kwargs):
        before = allocations()
        used = run(kernel, *args, **kwargs)
        if kernel is network.train:
            steps = args[4].learning_rates.size
            taken.setdefault(steps, set()).add(allocations() - before)
        return used

    monkeypatch.setattr(threads, "run", counted)
    x, y = np.random.default_rng(0).random((64, 20), dtype=np.float32), np.arange(64) % 3
    for steps, epochs in ((1, 1), (1, 3), (8, 3)):  # short epochs run in one call
        small_net(20).fit(x[: 4 * steps], y[: 4 * steps], batch_size=4, verbose=0, epochs=epochs)
    teacher = np.zeros((64, 3), np.float32)
    small_net(20).fit(x, y, batch_size=4, verbose=0, epochs=3, target_model=teacher)
    assert 1 in taken and max(taken) > 1
    assert set.union(*taken.values()) == {0}
    before = allocations()
    matmul(x, x, transpose_b=True)
    assert allocations() > before  # one that does is counted


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

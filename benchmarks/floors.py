"""Where the time of one training step goes on the three floors of chapter 6: NumPy, layers, the compiled loop.

    python -m benchmarks.floors

One thread, 784-64-64-10, 64 rows, Adam. In Python the calls of a part are timed as they run. In the compiled loop a
part is left out, and its time is what the loop saves. Each figure is the least of fifty epochs of 100 steps.
"""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before NumPy is imported: its products take one thread

import functools
import sys
import time
import warnings
from collections.abc import Callable

import numpy as np

import minidl
from minidl import tiny
from minidl.kernels import network, updates
from minidl.kernels.batch import step_arguments
from minidl.kernels.units import Units
from minidl.layers import dense
from minidl.report import format_table
from minidl.training.samples import Samples

SIZES, ROWS, STEPS, EPOCHS, ROUNDS = (784, 64, 64, 10), 64, 100, 10, 5
PARTS = ("dense products and biases", "Adam", "batch drawn from the data", "all else")


class Same(minidl.layers.Layer):
    """A layer of one's own: with it a model trains layer by layer."""

    def forward(self, x, training=False):
        return x

    def backward(self, dout):
        return dout


def times_by_call(run: Callable, *parts: tuple) -> tuple[float, list[float]]:
    """Seconds of the quickest ``run()``, and of it in the calls of each part, a list of (owner, name of a function)."""
    spent = [0.0] * len(parts)

    def timed(function, part):
        @functools.wraps(function)
        def call(*arguments, **options):
            began = time.perf_counter()
            result = function(*arguments, **options)
            spent[part] += time.perf_counter() - began
            return result

        return call

    before = [(owner, name, getattr(owner, name)) for part in parts for owner, name in part]
    for part, functions in enumerate(parts):
        for owner, name in functions:
            setattr(owner, name, timed(getattr(owner, name), part))
    try:
        found = []
        for _ in range(EPOCHS + 1):  # the first compiles
            spent[:] = [0.0] * len(parts)
            began = time.perf_counter()
            run()
            found.append((time.perf_counter() - began, list(spent)))
    finally:
        for owner, name, function in before:
            setattr(owner, name, function)
    return min(found[1:])


def nothing(run, mine):
    """In the place of a part of the compiled step."""


def no_update(params, grads, a, b, c, numbers):
    """In the place of an update rule."""


def quickest(run: Callable) -> float:
    return times_by_call(run)[0]


def without(table: Units, codes: tuple, instead: Units, run: Callable) -> float:
    """Seconds of ``run()`` where these units of a table are replaced by one that does nothing."""
    address = table.address
    table.address = lambda code, dtype: instead.address(0, dtype) if code in codes else address(code, dtype)
    try:
        return quickest(run)
    finally:
        del table.address


def numpy_floor(x, labels) -> tuple[float, list[float]]:
    y = np.eye(10, dtype=x.dtype)[labels]
    params, rng = tiny.make_params(SIZES, np.random.default_rng(0)), np.random.default_rng(0)
    adam = tiny.adam(params)
    holder = type("Holder", (), {"update": staticmethod(adam)})
    whole, (products, update, steps) = times_by_call(
        lambda: tiny.train(params, lambda grads: holder.update(grads), 1, rng, x, y),
        [(tiny, "dense_forward"), (tiny, "dense_backward")],
        [(holder, "update")],
        [(tiny, "loss_and_grads")],
    )
    return whole, [products, update, whole - steps - update]


def model_of(*extra):
    hidden = [minidl.Dense(units, "relu") for units in SIZES[1:-1]]
    model = minidl.Sequential(
        [minidl.Input(SIZES[:1]), *extra, *hidden, minidl.Dense(SIZES[-1], "softmax")], seed=0
    )
    model.compile("adam", "sparse_categorical_crossentropy")
    return model


def layers_floor(x, labels) -> tuple[float, list[float]]:
    model = model_of(Same())
    return times_by_call(
        lambda: model.fit(x, labels, epochs=1, batch_size=ROWS, verbose=0),
        [(dense, "dense_forward"), (dense, "dense_backward")],
        [(type(model.optimizer), "update")],
        [(Samples, "take")],
    )


def compiled_floor(x, labels) -> tuple[float, list[float]]:
    model = model_of()
    no_part = Units("no part", {0: nothing}, step_arguments)
    no_rule = Units("no rule", {0: no_update}, updates._loop_arguments)

    def run():
        model.fit(x, labels, epochs=1, batch_size=ROWS, verbose=0)

    rounds = [
        (
            quickest(run),
            without(updates.UPDATES, (model.optimizer.kind,), no_rule, run),
            without(network.PARTS, ("gather",), no_part, run),
            without(network.PARTS, ("forward", "backward", "learn"), no_part, run),
        )
        for _ in range(ROUNDS)
    ]
    whole, unchanged, no_gather, no_passes = np.min(rounds, axis=0)
    update = whole - unchanged
    return whole, [whole - no_passes - update, update, whole - no_gather]


def main() -> int:
    minidl.set_num_threads(1)
    warnings.simplefilter("ignore")  # what is left out may leave infinities
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(ROWS * STEPS, SIZES[0])).astype("f"), rng.integers(0, 10, ROWS * STEPS)
    tiny.BATCH_SIZE = ROWS
    rows = []
    for name, floor in (
        ("tiny.train", numpy_floor),
        ("layer by layer", layers_floor),
        ("compiled", compiled_floor),
    ):
        whole, parts = floor(x, labels)
        rows.append(
            [name, *(f"{seconds / STEPS * 1e6:.0f}" for seconds in (whole, *parts, whole - sum(parts)))]
        )
    print(format_table(["us a step", "whole", *PARTS], rows))
    return 0


if __name__ == "__main__":
    sys.exit(main())

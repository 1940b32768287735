"""How long after Ctrl-C a call comes back: training, distilling, predicting, compiling.

    python -m benchmarks.interrupts

A second thread sends SIGINT to the process at random moments; the time is from there to the
KeyboardInterrupt. After each the same call is made again on the same model, so a model or a pool of threads that an
interrupt has broken shows as an error. Cold cases run in processes of their own with an empty cache.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

from . import report
from .harness import ROOT

PROMISE = 0.25  # seconds
FOREVER = 10**6


def net(widths, dropout=False, noise=False):
    import minidl
    from minidl.layers import Dense, Dropout, GaussianNoise, Input

    layers = [Input((widths[0],)), *([GaussianNoise(0.1)] if noise else [])]
    for width in widths[1:-1]:
        layers += [Dense(width, activation="relu"), *([Dropout(0.5)] if dropout else [])]
    model = minidl.Sequential([*layers, Dense(widths[-1], activation="softmax")], seed=1)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model


def data(rows):
    rng = np.random.default_rng(0)
    return rng.random((rows, 784), dtype=np.float32), rng.integers(0, 10, rows)


SMALL, LARGE = (784, 64, 64, 10), (784, 1200, 1200, 10)


def training(widths, rows=6000, **settings):
    x, y = data(rows)
    model = net(widths)
    return lambda: model.fit(x, y, epochs=FOREVER, verbose=0, **settings)


def validating():
    (x, y), held_out = data(600), data(60_000)
    model = net(SMALL)
    return lambda: model.fit(x, y, epochs=FOREVER, verbose=0, validation_data=held_out)


def distilling(online):
    import minidl

    x, y = data(60_000 if online is None else 6000)
    teacher, student = net(LARGE), net(SMALL, noise=bool(online))
    teacher.fit(x[:64], y[:64], verbose=0)

    def call():
        if online is None:  # the teacher's answers are worked out, then kept, before the first step
            return minidl.distill(teacher, student, x, y, epochs=1, verbose=0)
        return student.fit(x, y, epochs=FOREVER, verbose=0, target_model=teacher)

    return call


def again_and_again(call):
    def run():
        while True:
            call()

    return run


def predicting(widths, rows):
    x, _ = data(rows)
    model = net(widths)
    return again_and_again(lambda: model.predict(x))


def single_steps():
    x, y = data(128)
    model = net(LARGE)
    return again_and_again(lambda: model.train_on_batch(x, y))


def multiplying(size):
    import minidl

    a = np.random.default_rng(0).random((size, size), dtype=np.float32)
    return again_and_again(lambda: minidl.matmul(a, a))


def evaluating():
    x, y = data(60_000)
    model = net(LARGE)
    return again_and_again(lambda: model.evaluate(x, y, verbose=0))


CASES = {
    "fit 784-64-64-10": lambda: training(SMALL),
    "fit 784-1200-1200-10": lambda: training(LARGE),
    "fit 784-1200-1200-10, batches of 4,096": lambda: training(LARGE, batch_size=4096),
    "fit with 60,000 validation samples": validating,
    "distil, teacher's answers kept": lambda: distilling(online=False),
    "distil, teacher asked every step": lambda: distilling(online=True),
    "distil, while the teacher answers 60,000": lambda: distilling(online=None),
    "train_on_batch 784-1200-1200-10": single_steps,
    "predict 60,000, 784-1200-1200-10": lambda: predicting(LARGE, 60_000),
    "predict one row": lambda: predicting(SMALL, 1),
    "evaluate 60,000, 784-1200-1200-10": evaluating,
    "matmul 1,000": lambda: multiplying(1000),
    "matmul 4,000": lambda: multiplying(4000),
}


def latency(call, seconds: float) -> float:
    """Seconds from a SIGINT, sent ``seconds`` after ``call`` began, to its KeyboardInterrupt."""
    sent = []

    def send():
        sent.append(time.perf_counter())
        os.kill(os.getpid(), signal.SIGINT)

    timer = threading.Timer(seconds, send)
    timer.start()
    try:
        call()
        time.sleep(seconds + 1)  # the call was over: the interrupt comes here, and counts as nothing
    except KeyboardInterrupt:
        return time.perf_counter() - sent[0]
    raise AssertionError("no interrupt was raised")


def measure(make, count: int, rng: random.Random) -> list[float]:
    import minidl

    minidl.warmup(verbose=False)
    call = make()
    latency(call, 1.0)  # what is made once is made
    return sorted(latency(call, rng.uniform(0.1, 0.6)) for _ in range(count))


def measure_cold(count: int, rng: random.Random) -> list[float]:
    """The same for a first ``fit`` on a machine that has compiled nothing, interrupted while it compiles."""
    code = (
        "from benchmarks import interrupts; import sys\n"
        "call = interrupts.training(interrupts.SMALL)\n"
        "print(interrupts.latency(call, float(sys.argv[1])), flush=True)"
    )
    found = []
    for _ in range(count):
        with tempfile.TemporaryDirectory() as cache:
            done = subprocess.run(
                [sys.executable, "-c", code, str(rng.uniform(0.5, 15))],
                env={**os.environ, "NUMBA_CACHE_DIR": cache}, cwd=ROOT, capture_output=True, text=True,
            )  # fmt: skip
        found.append(float(done.stdout.split()[-1]))
    return sorted(found)


def markdown(results: dict) -> str:
    rows = "\n".join(
        f"| {name} | {len(times)} | {times[len(times) // 2] * 1e3:,.0f} | {times[-1] * 1e3:,.0f} |"
        for name, times in results["latency"].items()
    )
    return (
        f"# Ctrl-C\n\nMilliseconds from SIGINT to the KeyboardInterrupt (promised: {PROMISE * 1e3:.0f}). "
        f"{results['machine']['processor']}, {results['machine']['date']}, load "
        f"{results['machine'].get('load_before')} when it began.\n\n"
        f"| interrupted | times | median | longest |\n| --- | ---: | ---: | ---: |\n{rows}\n"
    )


def main(arguments: list[str] | None = None) -> int:
    command = argparse.ArgumentParser(prog="python -m benchmarks.interrupts", description=__doc__)
    command.add_argument("--count", type=int, default=20, help="interrupts a case")
    command.add_argument("--cold", type=int, default=6, help="interrupts of a first compilation")
    command.add_argument("--only", default="", help="cases whose name holds this")
    command.add_argument("--quick", action="store_true", help="3 a case; no result file is replaced")
    command.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    options = command.parse_args(arguments)
    count, rng = 3 if options.quick else options.count, random.Random(0)
    results = {"suite": "interrupts", "machine": report.machine(), "latency": {}}
    for name, make in CASES.items():
        if options.only in name:
            results["latency"][name] = measure(make, count, rng)
            print(name, [round(1e3 * t) for t in results["latency"][name]], flush=True)
    if options.cold and options.only in "a first fit, compiling":
        times = measure_cold(1 if options.quick else options.cold, rng)
        results["latency"]["a first fit, compiling"] = times
    print(markdown(results))
    kept = not options.quick and not options.only
    for path in report.write_files("interrupts", results, markdown(results), None, options.output, kept):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

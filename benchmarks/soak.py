"""Hours of use in little: short fits, predicts, saves and loads, over and over, for ``--minutes``.

    python -m benchmarks.soak --minutes 120

Every round does the same work from the same seed, so every round must end in the same bits; the memory of the
process must stop growing once the first rounds have filled caches and pools. Exit code 1 if either fails. A run
shorter than the default replaces no result file.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from . import report
from .harness import ROOT

SETTLING = 0.2  # share of the rounds after which memory is expected to be flat
ALLOWED_GROWTH = 16.0  # MiB from then to the end
MINUTES = 9.0


def resident() -> float:
    """MiB of memory this process holds now."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
    except OSError:
        import resource  # no current figure elsewhere: the peak, which is flat just the same

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def one_round(folder: Path) -> str:
    """Train, distil, predict, evaluate, save, load and train on; a digest of every result."""
    import minidl

    rng = np.random.default_rng(0)
    x, y = rng.random((640, 64), dtype=np.float32), rng.integers(0, 10, 640)
    digest = hashlib.sha256()

    def net(units: int, seed: int):
        layers = minidl.layers
        model = minidl.Sequential(
            [
                layers.Input((64,)),
                layers.Dense(units, activation="relu"),
                layers.Dropout(0.2),
                layers.Dense(10, activation="softmax"),
            ],
            seed=seed,
        )
        model.compile(optimizer="adam", loss="sparse_categorical_crossentropy", metrics=["accuracy"])
        return model

    teacher, student = net(96, 1), net(32, 2)
    teacher.fit(x, y, epochs=2, verbose=0, validation_split=0.1)
    student.fit(x, y, epochs=2, verbose=0, target_model=teacher, temperature=4.0)
    path = folder / "student.npz"
    student.save(path)
    student = minidl.models.load_model(path)
    student.fit(x, y, epochs=student.epoch + 1, initial_epoch=student.epoch, verbose=0)
    digest.update(student.params.tobytes())
    digest.update(teacher.params.tobytes())
    for rows in (1, 33, 640):
        digest.update(student.predict(x[:rows]).tobytes())
    digest.update(np.array(student.evaluate(x, y, verbose=0)).tobytes())
    return digest.hexdigest()


def soak(seconds: float, work=one_round) -> dict:
    """Rounds of ``work(folder)`` until the time is over: memory after each, whether results are all one."""
    memory, digests, at = [], {}, []
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        while not at or time.perf_counter() - began < seconds:
            digests[work(Path(folder))] = None  # each once: what is kept of a round would count as growth
            memory.append(resident())
            at.append(time.perf_counter() - began)
    settled = memory[min(int(len(memory) * SETTLING), len(memory) - 1)]
    kept = np.unique(np.linspace(0, len(at) - 1, 200).astype(int))
    return {
        "rounds": len(at),
        "seconds": round(at[-1], 1),
        "constant": len(digests) == 1,
        "digest": next(iter(digests)),
        "growth_mib": round(memory[-1] - settled, 1),
        "flat": memory[-1] - settled <= ALLOWED_GROWTH,
        "memory": [[round(at[i], 1), round(memory[i], 1)] for i in kept],
    }


def markdown(results: dict) -> str:
    samples = results["memory"][:: max(1, len(results["memory"]) // 12)]
    rows = "\n".join(f"| {seconds:,.0f} | {size:,.1f} |" for seconds, size in samples)
    results_are = "the same bits every time" if results["constant"] else "NOT the same every time"
    return (
        f"# Soak\n\n{results['rounds']} rounds of training, distilling, saving, loading, predicting in "
        f"{results['seconds'] / 60:.1f} minutes: {results_are}; after the first fifth of the rounds memory "
        f"grew by {results['growth_mib']} MiB (allowed: {ALLOWED_GROWTH:.0f}).\n\n"
        f"{results['machine']['processor']}, {results['machine']['date']}.\n\n"
        f"| seconds | resident MiB |\n| ---: | ---: |\n{rows}\n"
    )


def main(arguments: list[str] | None = None) -> int:
    command = argparse.ArgumentParser(prog="python -m benchmarks.soak")
    command.add_argument("--minutes", type=float, default=MINUTES, help="fewer: no result file is replaced")
    command.add_argument("--quick", action="store_true", help="a third of a minute")
    command.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    options = command.parse_args(arguments)
    results = {"suite": "soak", "machine": report.machine()}
    minutes = 1 / 3 if options.quick else options.minutes
    results |= soak(60.0 * minutes)
    print(markdown(results))
    whole = minutes >= MINUTES
    for path in report.write_files("soak", results, markdown(results), None, options.output, whole):
        print(f"wrote {path}")
    return 0 if results["constant"] and results["flat"] else 1


if __name__ == "__main__":
    sys.exit(main())

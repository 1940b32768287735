"""What a training step costs on a busy machine, and how soon threads end there.

    python -m benchmarks.busy [--quick]

Beside 0, 1 and 2 processes that do nothing but compute, and beside a second training of the same library: minidl with
its default threads and with one, PyTorch, JAX and Keras. Then 8 threads on a machine that has fewer processors; and how
long `set_num_threads` and leaving the process take beside 4 and 12 such processes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from . import report, train_step
from .harness import OURS, ROOT, Refused, Worker
from .trainers import TRAINERS, MinidlTrainer


class Default(MinidlTrainer):
    """With as many threads as it takes by itself."""

    def load(self) -> None:
        import minidl

        self.minidl = minidl


class OneThread(MinidlTrainer):
    threads_wanted = 1

    def load(self) -> None:
        super().load()
        self.minidl.set_num_threads(self.threads_wanted)


class TwoThreads(OneThread):
    threads_wanted = 2


class EightThreads(OneThread):
    threads_wanted = 8


ONE = "minidl, 1 thread"
RIVALS = ("torch-fused", "jax-scan", "keras-jax", "keras-torch")
PEERS = {
    OURS: Default,
    ONE: OneThread,
    "minidl, 2 threads": TwoThreads,
    "minidl, 8 threads": EightThreads,
    **{name: TRAINERS[name] for name in RIVALS},
}
# `train_step.verify` finds a case by its name, so ours are called otherwise and stand there, too
CASES = [
    train_step.case(
        f"784-{width}-{width}-10, batches of {batch}", (784, width, width, 10), batch, "busy", steps=steps
    )
    for width, batch, steps in ((64, 32, 300), (256, 64, 100), (512, 64, 30))
]
LOADS = ("0 busy processes", "1 busy process", "2 busy processes", "2 trainings")
WANTED = {LOADS[1]: 1.1, LOADS[2]: 1.3, LOADS[3]: 1.3}
"""Time of the default threads to that of one, at most."""
CROWDS = (0, 4, 12)

LEAVING = """
import atexit, time
atexit.register(lambda: print(time.perf_counter() - began))  # after all that was registered later
import numpy as np, minidl
from benchmarks.interrupts import SMALL, data, net
minidl.warmup(verbose=False)
minidl.set_num_threads(2)
x, y = data(3200)
model = net(SMALL)
model.fit(x, y, epochs=3, verbose=0)
began = time.perf_counter()
minidl.set_num_threads(3)
print(time.perf_counter() - began)
model.fit(x, y, verbose=0)

def leave():
    global began
    began = time.perf_counter()

atexit.register(leave)
"""


@contextlib.contextmanager
def busy(count: int):
    """So many processes that compute until the block is left."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        time.sleep(0.5 if count else 0.0)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


class Contender:
    """Two processes of a peer, ready to train; the second is stopped unless two trainings are timed."""

    def __init__(self, name: str, case, seconds: float):
        self._workers, self._steps = [], case.units
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self._pool = ThreadPoolExecutor(2)
        try:
            for _ in range(2):
                self._workers.append(Worker("benchmarks.busy", name, processors))
                self._workers[-1].call("load")
                self._workers[-1].call("prepare", case.params)
                train_step.verify(case, PEERS[name], self._workers[-1].call("outputs")[0])
                self._workers[-1].call("run", 1, stop=False)
                took = self._workers[-1].call("run", 2)[1]
            self._epochs = max(1, round(2 * seconds / took))
        except Refused:
            self.stop()
            raise

    def sample(self, together: bool) -> float:
        """Seconds a step; of two trainings at once, those of the slower."""
        workers = self._workers[: 1 + together]
        results = self._pool.map(lambda worker: worker.call("run", self._epochs), workers)
        return max(wall for _, wall, _ in results) / (self._epochs * self._steps)

    def stop(self) -> None:
        self._pool.shutdown()
        for worker in self._workers:
            worker.close()


def compare(case, names, loads, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """The median step of each peer under each load; peers and loads are taken in turn."""
    train_step.CASES.append(case)
    contenders, samples = {}, {}
    try:
        for name in names:
            try:
                contenders[name] = Contender(name, case, seconds)
            except Refused as error:
                print(f"{case.name}: {name} is left out: {str(error).splitlines()[-1]}", flush=True)
        for _ in range(rounds):
            for load in loads:
                together = load == LOADS[3]
                with busy(0 if together else int(load[0])):
                    for name, contender in contenders.items():
                        samples.setdefault((load, name), []).append(contender.sample(together))
    finally:
        train_step.CASES.remove(case)
        for contender in contenders.values():
            contender.stop()
    found = {
        load: {name: statistics.median(samples[load, name]) for name in contenders if (load, name) in samples}
        for load in loads
    }
    for load in loads:
        print(case.name, load, {name: report.duration(t) for name, t in found[load].items()}, flush=True)
    return found


def leave(crowd: int, rounds: int) -> dict[str, float]:
    """Longest seconds of `set_num_threads` and of leaving, beside ``crowd`` busy processes."""
    times = []
    with busy(crowd):
        for _ in range(rounds):
            done = subprocess.run(
                [sys.executable, "-c", LEAVING], cwd=ROOT, capture_output=True, text=True, check=True
            )
            times.append([float(line) for line in done.stdout.split()])
    changing, leaving = (max(column) for column in zip(*times, strict=True))
    print(
        f"beside {crowd}: set_num_threads {changing * 1e3:.1f} ms, leaving {leaving * 1e3:.1f} ms", flush=True
    )
    return {"set_num_threads": changing, "leaving": leaving}


def markdown(results: dict) -> str:
    machine = results["machine"]
    lines = [
        "# A busy machine\n",
        f"Median time of a training step (Adam), and that of minidl's default threads to one thread of its own. "
        f"{machine['processor']}, {machine['date']}.\n",
    ]
    for case, loads in results["steps"].items():
        names = list(dict.fromkeys(name for times in loads.values() for name in times))
        lines += [
            "| ".join(["", case, *names, "ratio", "wanted |"]),
            "| --- " + "| ---: " * (len(names) + 2) + "|",
        ]
        for load, times in loads.items():
            ratio = f"{times[OURS] / times[ONE]:.2f}" if {OURS, ONE} <= times.keys() else ""
            cells = [report.duration(times[name]) if name in times else "" for name in names]
            lines.append("| ".join(["", load, *cells, ratio, f"{WANTED.get(load, '')} |"]))
        lines.append("")
    lines += ["| busy processes | `set_num_threads`, longest | leaving, longest |", "| ---: | ---: | ---: |"]
    for crowd, times in results["ending"].items():
        lines.append(
            f"| {crowd} | {times['set_num_threads'] * 1e3:.1f} ms | {times['leaving'] * 1e3:.1f} ms |"
        )
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    command = argparse.ArgumentParser(prog="python -m benchmarks.busy", description=__doc__)
    command.add_argument(
        "--quick", action="store_true", help="minidl alone, briefly; no result file is replaced"
    )
    command.add_argument("--only", default="", help="cases whose name holds this")
    command.add_argument("--ours", action="store_true", help="minidl alone")
    command.add_argument("--load", default="", help="loads whose name holds this")
    command.add_argument("--seconds", type=float, default=2.0, help="of a quiet machine, a sample")
    command.add_argument("--rounds", type=int, default=5)
    command.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    options = command.parse_args(arguments)
    rounds, seconds = (2, 0.5) if options.quick else (options.rounds, options.seconds)
    names = (OURS, ONE) if options.quick or options.ours else (OURS, ONE, *RIVALS)
    loads = [load for load in LOADS if options.load in load]
    results = {"suite": "busy", "machine": report.machine(), "steps": {}, "ending": {}}
    for case in CASES:
        if options.only in case.name:
            results["steps"][case.name] = compare(case, names, loads, rounds, seconds)
    if options.only in "8 threads":
        many = ("minidl, 2 threads", "minidl, 8 threads")
        results["steps"]["8 threads, " + CASES[0].name] = compare(CASES[0], many, LOADS[:1], rounds, seconds)
    if options.only in "leaving":
        results["ending"] = {crowd: leave(crowd, rounds) for crowd in CROWDS}
    print(markdown(results))
    kept = not (options.quick or options.ours or options.only or options.load)
    for path in report.write_files("busy", results, markdown(results), None, options.output, kept):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

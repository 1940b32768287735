"""What a training step costs on a busy machine, and how soon threads end there.

    python -m benchmarks.busy [--quick]

The whole takes about ten minutes of a quiet machine, and says on the way what it is at.

Beside 0, 1 and 2 processes that do nothing but compute, and beside a second training of the same library: minidl with
its default threads and with one, PyTorch, JAX and Keras. Then 8 threads on a machine that has fewer processors; and how
long `set_num_threads` and leaving the process take beside 4 and 12 such processes.

Every peer has imported, compiled and been verified before the first busy process starts. A sample is then one call of
about ``--seconds`` under the load it measures, whatever the peer makes of that load: where an epoch takes far longer
(PyTorch's threads wait for one another, a slice of the scheduler each time), epochs of a few steps are timed.
"""

from __future__ import annotations

import argparse
import contextlib
import math
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

FEW = 8  # steps


class Short:
    """A trainer that can also run epochs of a few steps."""

    def few(self, count: int) -> None:
        rows = slice(FEW * self.batch)
        self.fit(count, self.x[rows], self.y[rows], None, True)


class Default(Short, MinidlTrainer):
    """With as many threads as it takes by itself."""

    def load(self) -> None:
        import minidl

        self.minidl = minidl


class OneThread(Short, MinidlTrainer):
    threads_wanted = 1

    def load(self) -> None:
        super().load()
        self.minidl.set_num_threads(self.threads_wanted)


class TwoThreads(OneThread):
    threads_wanted = 2


class EightThreads(OneThread):
    threads_wanted = 8


ONE = "minidl, 1 thread"
RIVALS = ("torch-fused", "jax-scan", "keras-jax")
PEERS = {
    OURS: Default,
    ONE: OneThread,
    "minidl, 2 threads": TwoThreads,
    "minidl, 8 threads": EightThreads,
    **{name: type(name, (Short, TRAINERS[name]), {}) for name in RIVALS},
}
# `train_step.verify` finds a case by its name: ours are called otherwise
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
ROUNDS, SECONDS, LEAVINGS = 5, 0.8, 3

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


def say(*words: str, end: str = "\n") -> None:
    """What it is at; the results go to stdout."""
    print(*words, end=end, file=sys.stderr, flush=True)


class Contender:
    """Processes of one peer, kept for all cases; all but the first are stopped unless two trainings are timed."""

    PATIENCE = 90.0  # seconds without an answer, after which a peer is given up

    def __init__(self, name: str, processes: int):
        self.name = name
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        self._workers = [
            Worker("benchmarks.busy", name, processors, timeout=self.PATIENCE) for _ in range(processes)
        ]
        self._pool = ThreadPoolExecutor(processes)

    def start(self, case) -> None:
        """Import, compile, verify; raises Refused."""
        self._steps = case.units
        for outputs in self._all(self._prepare, case):
            train_step.verify(case, PEERS[self.name], outputs)

    def _prepare(self, worker: Worker, case):
        worker.call("load", stop=False)
        worker.call("prepare", case.params, stop=False)
        outputs = worker.call("outputs", stop=False)[0]
        worker.call("few", 1, stop=False)  # this may compile, and what follows does not
        if worker.call("few", 1)[1] * self._steps / FEW < self.PATIENCE / 10:
            worker.call("run", 1)
        return outputs

    def sample(self, together: bool, seconds: float) -> float:
        """Seconds a step, over about so many seconds; of two trainings at once, those of the slower."""
        workers = self._workers[: 1 + together]
        method, steps = "few", FEW
        epoch = self._time(workers, method, 1)
        if epoch * self._steps / steps < 4 * seconds:
            method, steps = "run", self._steps
            epoch = self._time(workers, method, 1)
        count = max(1, math.ceil(seconds / epoch))
        return self._time(workers, method, count) / (count * steps)

    def _time(self, workers: list[Worker], method: str, count: int) -> float:
        """Seconds of the slowest."""
        return max(self._all(lambda worker, times: worker.call(method, times)[1], count, workers))

    def _all(self, work, argument, workers=None) -> list:
        return list(self._pool.map(lambda worker: work(worker, argument), workers or self._workers))

    def stop(self) -> None:
        self._pool.shutdown()
        for worker in self._workers:
            worker.close()


class Field:
    """The contenders of a run, those that were left out and why."""

    def __init__(self, names, processes: int):
        self.refused: dict[str, str] = {}
        self._ready: dict[str, Contender] = {}
        self._names, self._processes = names, processes

    def __enter__(self) -> Field:
        return self

    def __exit__(self, *raised) -> None:
        for contender in self._ready.values():
            contender.stop()

    def start(self, case) -> None:
        """Make every contender ready for a case, one after the other."""
        for name in self._names:
            if name in self.refused:
                continue
            began = time.perf_counter()
            say(f"{case.name}: {name}", end=" ")
            if name not in self._ready:
                self._ready[name] = Contender(name, self._processes)
            try:
                self._ready[name].start(case)
                say(f"verified in {time.perf_counter() - began:.1f} s")
            except Refused as error:
                self._leave_out(case, name, error)
        time.sleep(0.1)  # a BLAS that helped to verify has threads that keep a core busy for some 30 ms more

    def times(self, case, load: str, seconds: float, backwards: bool) -> dict[str, float]:
        """Seconds a step of every contender under a load, in turn."""
        found, together = {}, load == LOADS[3]
        names = [name for name in self._names if name in self._ready]
        with busy(0 if together else int(load[0])):
            for name in reversed(names) if backwards else names:
                say(f"{name},", end=" ")
                try:
                    found[name] = self._ready[name].sample(together, seconds)
                    say(f"{report.duration(found[name])};", end=" ")
                except Refused as error:
                    self._leave_out(case, name, error)
        say("")
        return found

    def _leave_out(self, case, name: str, error: Refused) -> None:
        self.refused[name] = f"{case.name}: {str(error).splitlines()[-1]}"
        say("is left out")
        print(f"{name} is left out: {self.refused[name]}", flush=True)
        self._ready.pop(name).stop()


def compare(field: Field, case, loads, rounds: int, seconds: float) -> dict[str, dict[str, float]]:
    """The median step of each peer under each load; peers and loads are taken in turn."""
    samples: dict[str, dict[str, list[float]]] = {load: {} for load in loads}
    train_step.CASES.append(case)  # its verification finds a case by its name
    try:
        field.start(case)
    finally:
        train_step.CASES.remove(case)
    for index in range(rounds):
        for load in loads:
            say(f"{case.name}: round {index + 1} of {rounds}, {load}:", end=" ")
            for name, seconds_a_step in field.times(case, load, seconds, index % 2 == 1).items():
                samples[load].setdefault(name, []).append(seconds_a_step)
    found = {
        load: {name: statistics.median(taken) for name, taken in by_name.items()}
        for load, by_name in samples.items()
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
        *(f"Left out: {name} ({why})\n" for name, why in results["refused"].items()),
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
    command.add_argument("--seconds", type=float, default=SECONDS, help="a sample, under its load")
    command.add_argument("--rounds", type=int, default=ROUNDS)
    command.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results")
    options = command.parse_args(arguments)
    rounds, seconds = (2, 0.5) if options.quick else (options.rounds, options.seconds)
    names = (OURS, ONE) if options.quick or options.ours else (OURS, ONE, *RIVALS)
    loads = [load for load in LOADS if options.load in load]
    results = {"suite": "busy", "machine": report.machine(), "steps": {}, "ending": {}, "refused": {}}
    began = time.perf_counter()
    with Field(names, 2 if LOADS[3] in loads else 1) as field:
        for case in CASES:
            if options.only in case.name:
                results["steps"][case.name] = compare(field, case, loads, rounds, seconds)
        results["refused"] = field.refused
    if options.only in "8 threads":
        with Field(("minidl, 2 threads", "minidl, 8 threads"), 1) as field:
            steps = compare(field, CASES[0], LOADS[:1], rounds, seconds)
        results["steps"]["8 threads, " + CASES[0].name] = steps
    if options.only in "leaving":
        results["ending"] = {crowd: leave(crowd, min(rounds, LEAVINGS)) for crowd in CROWDS}
    results["seconds"] = round(time.perf_counter() - began, 1)
    print(markdown(results))
    part = options.quick or options.ours or options.only or options.load or results["refused"]
    whole = not part and rounds >= ROUNDS and seconds >= SECONDS
    for path in report.write_files("busy", results, markdown(results), None, options.output, whole):
        print(f"wrote {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

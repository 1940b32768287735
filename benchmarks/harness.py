"""Time many libraries on the same work, fairly: the machinery every benchmark script shares.

A script is a table of cases and one small class per library (a ``Peer``). The harness

- runs each peer in a process of its own, once per thread count, because torch and OpenBLAS read their
  thread counts at import and spin their own pools; a process that is not being timed is stopped;
- verifies each peer's result before its first timing and refuses to time a wrong one;
- takes the peers in turn, round after round, so that a slow minute of the machine hits them all, and
  reports medians;
- measures the machine's limit (multiply-adds, memory traffic) in the same rounds;
- hands everything to ``report.py``; an incomplete run never replaces a result file.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import math
import os
import pickle
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from . import pictures, report

ROOT = Path(__file__).resolve().parent.parent
OURS = "minidl"
LIMITS = ("limit-fma", "limit-memory")


class Refused(Exception):
    """This peer cannot be timed on this case; the message says why."""


class Missing(Refused):
    """Its package is not installed."""


class Wrong(Refused):
    """Its result is wrong, so its time means nothing."""


class Peer:
    """One library doing one kind of work; an instance lives in a process of its own.

    ``load`` imports the library, ``prepare`` builds one case, ``outputs`` returns what is verified,
    ``run(count)`` does the work ``count`` times and returns when it is really done.
    """

    threads_supported: tuple[int, ...] | None = None  # None: any
    threads = 1
    share = 1.0  # of the work, where run(1) does only a part; times are scaled up

    def load(self) -> None: ...

    def prepare(self, case: dict) -> None:
        raise NotImplementedError

    def outputs(self) -> Any:
        raise NotImplementedError

    def before(self) -> None:
        """Untimed, before every timed run."""

    def run(self, count: int) -> None:
        raise NotImplementedError

    def peak_memory(self) -> float:
        """Largest resident size of this process so far, in MiB."""
        try:  # not ru_maxrss: on Linux it starts from the size of the process that forked this one
            status = Path("/proc/self/status").read_text()
            return int(status.split("VmHWM:")[1].split()[0]) / 2**10
        except (OSError, IndexError):
            pass
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (
            2**20 if sys.platform == "darwin" else 2**10
        )


@dataclass(frozen=True)
class Case:
    """One row of a benchmark: ``params`` is what peers see; ``run(1)`` does ``units`` units of work."""

    name: str
    params: dict
    peers: tuple[str, ...]
    flops: float = 0.0  # per unit
    bytes: float = 0.0  # per unit, the least traffic any implementation needs
    units: int = 1
    group: str = ""
    fresh: bool = False  # new processes for this case, so that their peak memory is this case's


@dataclass(frozen=True)
class Target:
    """``time of peer <= bound * time of the best of against`` on a case; threads None: its best count."""

    text: str
    case: str
    against: tuple[str, ...]
    bound: float
    peer: str = OURS
    threads: int | None = None
    against_threads: int | None = None
    against_case: str | None = None


@dataclass
class Suite:
    """A benchmark script as data."""

    name: str
    title: str
    unit: str
    module: str
    peers: dict[str, type]
    cases: list[Case]
    verify: Callable[[Case, type, Any], None]  # raises Wrong
    quick: tuple[str, ...]
    targets: list[Target] = field(default_factory=list)
    rounds: int = 7
    slice_seconds: float = 0.2
    budget_seconds: float = 4.0  # per contender and case; least_rounds are run whatever they cost
    least_rounds: int = 3
    contender: Callable[..., Any] | None = None  # default: Resident
    notes: str = ""
    sections: Callable[[dict], list[str]] | None = None  # more Markdown, from the results


# ---------------------------------------------------------------- the process of one peer


def thread_environment(threads: int) -> dict[str, str]:
    """Environment variables that fix every library's thread count; they count only before the import."""
    names = ("OMP", "OPENBLAS", "MKL", "NUMBA", "NUMEXPR", "VECLIB_MAXIMUM")
    multi = "true" if threads > 1 else "false"
    return {
        **{f"{name}_NUM_THREADS": str(threads) for name in names},
        "XLA_FLAGS": f"--xla_cpu_multi_thread_eigen={multi} intra_op_parallelism_threads={threads}",
        "JAX_PLATFORMS": "cpu",
        "CUDA_VISIBLE_DEVICES": "",
    }


def worker(module: str, peer_name: str, threads: int) -> None:
    """The child: answer ``(method, arguments)`` with ``(kind, result, wall seconds, CPU seconds)``."""
    if hasattr(
        os, "sched_setaffinity"
    ):  # one thread means one core, for those who do not ask the environment
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, cores[-threads:])
    if sys.platform == "linux":  # a stopped child would outlive a parent that is killed
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    requests, replies = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a library prints goes to stderr, not into the replies
    peer = None
    while True:
        try:
            method, arguments = pickle.load(requests)
        except EOFError:
            return
        wall, cpu = time.perf_counter(), time.process_time()
        try:
            if peer is None:
                peer = importlib.import_module(module).PEERS[peer_name]()
                peer.threads = threads
            kind, result = "ok", getattr(peer, method)(*arguments)
        except ImportError as error:
            kind, result = "missing", f"{type(error).__name__}: {error}"
        except Missing as error:
            kind, result = "missing", str(error)
        except Refused as error:
            kind, result = "refused", str(error)
        except Exception:
            kind, result = "error", traceback.format_exc()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        pickle.dump((kind, result, wall, cpu), replies, protocol=pickle.HIGHEST_PROTOCOL)
        replies.flush()


class Worker:
    """The parent's end of one peer's process. The process is stopped whenever it is not answering."""

    def __init__(
        self,
        module: str,
        peer: str,
        threads: int,
        environment: dict[str, str] | None = None,
        timeout: float = 300.0,
    ):
        self.peer, self.threads, self.timeout = peer, threads, timeout
        self._started = time.perf_counter()
        self._log = tempfile.TemporaryFile()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.harness", module, peer, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            cwd=ROOT,
            env={**os.environ, **thread_environment(threads), **(environment or {})},
        )
        self._stopped = False

    def call(self, method: str, *arguments, stop: bool = True) -> tuple[Any, float, float]:
        """Call a method of the peer: (result, wall seconds, CPU seconds). Raises Refused."""
        self._signal("SIGCONT")
        timer = threading.Timer(self.timeout, self._process.kill)
        timer.start()
        try:
            pickle.dump((method, arguments), self._process.stdin, protocol=pickle.HIGHEST_PROTOCOL)
            self._process.stdin.flush()
            kind, result, wall, cpu = pickle.load(self._process.stdout)
        except (EOFError, OSError, pickle.UnpicklingError) as error:
            waited = "" if timer.is_alive() else f" (no answer within {self.timeout:.0f} s)"
            raise Refused(f"its process died in {method}{waited}: {self._last_words()}") from error
        finally:
            timer.cancel()
        if stop:
            self._signal("SIGSTOP")
        if kind == "missing":
            raise Missing(result)
        if kind != "ok":
            raise Refused(result)
        return result, wall, cpu

    def age(self) -> float:
        """Seconds since the process was asked for."""
        return time.perf_counter() - self._started

    def close(self) -> None:
        self._signal("SIGCONT")
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._log.close()

    def _signal(self, name: str) -> None:
        if hasattr(signal, name) and self._process.poll() is None:
            self._process.send_signal(getattr(signal, name))

    def _last_words(self) -> str:
        self._log.seek(0)
        return self._log.read()[-500:].decode(errors="replace").strip() or "no message"


# ---------------------------------------------------------------- contenders: a peer at a thread count


class Resident:
    """A peer whose process stays alive; a sample is a slice of work in it."""

    def __init__(self, suite: Suite, peer: str, threads: int):
        self.suite, self.peer, self.threads = suite, peer, threads
        self._worker: Worker | None = None
        self.memory: dict[str, float] = {}
        self.details: dict[str, float] = {}  # more to say about the times, for the JSON

    def start(self, case: Case) -> None:
        """Prepare and verify; raises Refused and then is not timed on this case."""
        if case.fresh:
            self.stop()
        limit = self.peer in LIMITS
        if self._worker is None:
            module = "benchmarks.limits" if limit else self.suite.module
            self._worker = Worker(module, self.peer, self.threads)
        try:
            self._worker.call("load")
            loaded = self._worker.call("peak_memory")[0]
            self._worker.call("prepare", case.params)
            outputs = self._worker.call("outputs")[0]
        except Refused:
            self.stop()
            raise
        if limit:
            if not outputs:
                raise Wrong("the multiply-adds or sums that measure the limit came out wrong")
            self._units = outputs
        else:
            self.suite.verify(case, self.suite.peers[self.peer], outputs)
            time.sleep(
                0.1
            )  # a BLAS that helped to verify has threads that keep a core busy for some 30 ms more
            self._units = case.units * self.suite.peers[self.peer].share
        self._calibrate()
        self.memory = {"loaded": loaded, "peak": self._worker.call("peak_memory")[0]}

    def _calibrate(self) -> None:
        """Choose how often to run so that a slice is long against the clock and the wake-up.

        What took long enough must do so twice: the first time it may have loaded a library or started a thread.
        """
        self._worker.call("before")
        self._worker.call("run", 1, stop=False)
        self._count, long_enough = 1, 0
        while long_enough < 2:
            self._worker.call("before", stop=False)
            seconds = self._worker.call("run", self._count)[1]
            if seconds >= 0.25 * self.suite.slice_seconds or self._count >= 1 << 20:
                long_enough += 1
            else:
                self._count, long_enough = 4 * self._count, 0
        self._count = max(1, math.ceil(self._count * self.suite.slice_seconds / seconds))

    def sample(self) -> tuple[float, float]:
        """(seconds per unit, cores in use)."""
        self._worker.call("before", stop=False)
        if self._count > 1:  # caches and clocks back from the peers that ran meanwhile
            self._worker.call("run", max(1, self._count // 8), stop=False)
        _, wall, cpu = self._worker.call("run", self._count)
        return wall / (self._count * self._units), cpu / wall

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None


def run_suite(suite: Suite, cases: list[Case], peers: list[str], threads: list[int], rounds: int) -> dict:
    """Verify and time every case; the results as plain data. A refused peer is reported and left out."""
    make = suite.contender or Resident
    contenders: dict[tuple[str, int], Any] = {}
    results: dict[str, Any] = {
        "suite": suite.name,
        "title": suite.title,
        "unit": suite.unit,
        "notes": suite.notes,
        "machine": report.machine(),
        "cases": [],
    }
    missing: set[str] = set()
    try:
        for case in cases:
            record = {
                "name": case.name,
                "group": case.group,
                "flops": case.flops,
                "bytes": case.bytes,
                "times": {},
                "refused": {},
                "limits": {},
                "memory": {},
            }
            results["cases"].append(record)
            ready = _start_all(
                suite, case, _lineup(suite, case, peers, threads), contenders, make, missing, record
            )
            samples = _interleave(ready, rounds, suite, record)
            for key, taken in samples.items():
                _record(record, case, contenders[key], taken)
            print(report.case_line(record, suite.unit), flush=True)
    finally:
        for contender in contenders.values():
            contender.stop()
    run_cases = {case.name for case in cases}
    results["targets"] = [
        report.judge(target, results) for target in suite.targets if target.case in run_cases
    ]
    results["sections"] = suite.sections(results) if suite.sections else []
    return results


def _lineup(suite: Suite, case: Case, peers: list[str], threads: list[int]) -> list[tuple[str, int]]:
    keys = []
    for name in case.peers:
        supported = suite.peers[name].threads_supported
        keys += [(name, t) for t in threads if name in peers and (supported is None or t in supported)]
    if case.flops:
        keys += [("limit-fma", t) for t in threads]
    if case.bytes:
        keys += [("limit-memory", t) for t in threads]
    return keys


def _start_all(suite, case, keys, contenders, make, missing, record) -> list[tuple[tuple[str, int], Any]]:
    ready = []
    for key in keys:
        name, threads = key
        if name in missing:
            record["refused"][report.label(key)] = "not installed"
            continue
        contender = contenders.setdefault(key, make(suite, name, threads))
        began = time.perf_counter()
        try:
            contender.start(case)
        except Refused as error:
            if isinstance(error, Missing):
                missing.add(name)
            _refuse(record, key, error)
        else:
            ready.append((key, contender))
            took = time.perf_counter() - began
            print(f"  {case.name}: {report.label(key)} verified in {took:.1f} s", file=sys.stderr, flush=True)
    return ready


def _refuse(record: dict, key: tuple[str, int], error: Refused) -> None:
    kind = {Missing: "not installed", Wrong: "wrong result"}.get(type(error), "failed")
    record["refused"][report.label(key)] = f"{kind}: {error}"
    print(f"{record['name']}: {report.label(key)} is not timed: {kind}: {error}", flush=True)


def _interleave(ready, rounds: int, suite: Suite, record: dict) -> dict[tuple[str, int], list]:
    """(seconds per unit, cores) of every contender, taken in turn; one that dies on the way is refused."""
    samples: dict[tuple[str, int], list[tuple[float, float]]] = {key: [] for key, _ in ready}
    spent = dict.fromkeys(samples, 0.0)
    for index in range(rounds):
        for key, contender in ready if index % 2 == 0 else reversed(ready):
            if key not in samples or (index >= suite.least_rounds and spent[key] > suite.budget_seconds):
                continue
            began = time.perf_counter()
            try:
                samples[key].append(contender.sample())
            except Refused as error:
                _refuse(record, key, error)
                contender.stop()
                del samples[key]
            spent[key] += time.perf_counter() - began
    return samples


def _record(record: dict, case: Case, contender, taken: list[tuple[float, float]]) -> None:
    seconds = sorted(s for s, _ in taken)
    median = statistics.median(seconds)
    key = (contender.peer, contender.threads)
    if contender.peer in LIMITS:
        # one unit of a limit is one FLOP or one byte
        work = case.flops if contender.peer == "limit-fma" else case.bytes
        entry = record["limits"].setdefault(str(contender.threads), {"seconds": 0.0})
        kind = contender.peer.removeprefix("limit-")
        entry[kind] = 1.0 / median
        entry[f"{kind}_seconds"] = work * median
        entry["seconds"] = max(entry["seconds"], work * median)
        return
    record["times"][report.label(key)] = {
        "median": median,
        "fastest": seconds[0],
        "slowest": seconds[-1],
        "rounds": len(seconds),
        "cores": round(statistics.median(c for _, c in taken), 2),
        **contender.details,
    }
    if case.fresh and contender.memory:
        record["memory"][report.label(key)] = contender.memory


# ---------------------------------------------------------------- verification


def relative_error(got, expected) -> float:
    """Largest of the arrays' ``|got - expected| / |expected|``, 2-norms; inf for NaN or a wrong shape."""
    worst = 0.0
    if len(got) != len(expected):
        return math.inf
    for g, e in zip(got, expected, strict=True):
        g, e = np.asarray(g, np.float64), np.asarray(e, np.float64)
        if g.shape != e.shape or not np.isfinite(g).all():
            return math.inf
        scale = float(np.linalg.norm(e))
        worst = max(worst, float(np.linalg.norm(g - e)) / scale if scale else float(np.linalg.norm(g)))
    return worst


def require_close(got, expected, tolerance: float, what: str) -> None:
    """Raise Wrong unless ``relative_error(got, expected) <= tolerance``."""
    error = relative_error(got, expected)
    if not error <= tolerance:
        raise Wrong(
            f"{what} differ from the float64 reference by {error:.2e} of their size, allowed {tolerance:.0e}"
        )


# ---------------------------------------------------------------- the command line of every script


def parser(suite_name: str) -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{suite_name}")
    made.add_argument(
        "--quick", action="store_true", help="few cases, few rounds; no result file is replaced"
    )
    made.add_argument("--peers", help="only these, separated by commas (minidl is always there)")
    made.add_argument("--cases", nargs="+", help="only the cases whose name contains one of these")
    made.add_argument(
        "--threads", type=int, nargs="+", help="thread counts (default: 1 and 2, as far as there are cores)"
    )
    made.add_argument(
        "--output", type=Path, default=ROOT / "benchmarks" / "results", help="folder for the results"
    )
    return made


def main(
    suite: Suite,
    arguments: list[str] | None = None,
    options: argparse.Namespace | None = None,
    threads: list[int] | None = None,
) -> int:
    """Run a suite from its command line. Returns 0, or 1 if anything of ours was refused."""
    options = options or parser(suite.name).parse_args(arguments)
    peers = list(suite.peers)
    if options.peers:
        peers = [name for name in peers if name == OURS or name in options.peers.split(",")]
    cases = suite.cases
    if options.cases:
        cases = [c for c in cases if any(part in c.name for part in options.cases)]
    elif options.quick:
        cases = [c for c in cases if c.name in suite.quick]
    available = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = options.threads or [t for t in threads or (1, 2) if t <= available] or [1]
    began = time.perf_counter()
    if options.quick:
        suite.slice_seconds, suite.budget_seconds = 0.05, 0.5
    results = run_suite(suite, cases, peers, threads, 2 if options.quick else suite.rounds)
    results["seconds"] = round(time.perf_counter() - began, 1)
    whole = not options.quick and len(cases) == len(suite.cases) and peers == list(suite.peers)
    whole = whole and not options.threads and not any(c["refused"] for c in results["cases"])
    text, drawn = report.markdown(results), pictures.draw(results)
    print("\n" + text)
    for path in report.write_files(suite.name, results, text, drawn, options.output, complete=whole):
        print(f"wrote {path}")
    ours = [key for c in results["cases"] for key in c["refused"] if key.split("@")[0] == OURS]
    return 1 if ours else 0


if __name__ == "__main__":
    # by its name, not as __main__: what a peer raises is of the classes that peers import
    importlib.import_module("benchmarks.harness").worker(sys.argv[1], sys.argv[2], int(sys.argv[3]))

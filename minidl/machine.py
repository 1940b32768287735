"""The machine under the library: the processor's name and caches, and what it can do at most, measured.

Linux tells the names and the caches. Elsewhere the name is what Python knows, and no caches are listed.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .kernels import limits
from .kernels.target import aligned_zeros

_ROOT = Path("/")


def processor(root: Path = _ROOT) -> str:
    """The processor's name, with its family and model where the system tells them."""
    try:
        lines = (root / "proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    pairs = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    name = pairs.get("model name") or platform.processor() or platform.machine() or "unknown"
    numbers = [f"{key.split()[-1]} {pairs[key]}" for key in ("cpu family", "model") if key in pairs]
    return ", ".join([name, *numbers])


class Cache(NamedTuple):
    """One level of the caches that hold data."""

    level: int
    size: int  # bytes
    line: int  # bytes
    sets: int

    @property
    def ways(self) -> int:
        return self.size // (self.line * self.sets)


def caches(root: Path = _ROOT) -> list[Cache]:
    """The data caches of a processor that this process may run on, the nearest first; none where nobody tells."""
    number = min(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 0
    found = []
    for folder in (root / f"sys/devices/system/cpu/cpu{number}/cache").glob("index*"):
        try:
            names = ("type", "level", "size", "coherency_line_size", "number_of_sets")
            kind, level, size, line, sets = ((folder / name).read_text().strip() for name in names)
            if kind in ("Data", "Unified"):
                unit = {"K": 2**10, "M": 2**20, "G": 2**30}[size[-1]]
                found.append(Cache(int(level), int(size[:-1]) * unit, int(line), int(sets)))
        except (OSError, ValueError, KeyError):  # a virtual machine may leave some out
            continue
    return sorted(found)


def shares_cores(root: Path = _ROOT) -> bool:
    """Whether two of the processors that this process may use share one core's units (hyper-threads)."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = []
    for number in allowed:
        place = root / f"sys/devices/system/cpu/cpu{number}/topology"
        try:
            cores.append([(place / name).read_text() for name in ("physical_package_id", "core_id")])
        except OSError:
            return False
    return any(cores.count(core) > 1 for core in cores)


_THREADS = [f"{name}_NUM_THREADS" for name in ("NUMBA", "OMP", "OPENBLAS", "MKL")] + [
    "VECLIB_MAXIMUM_THREADS"
]
"""Environment variables that say how many threads minidl uses, and NumPy's product."""


def thread_environment(threads: int) -> dict[str, str]:
    """The environment of a process in which minidl and NumPy's product use so many threads."""
    return os.environ | dict.fromkeys(_THREADS, str(threads))


def blas_name() -> str:
    """The BLAS that NumPy was built with, and its version."""
    try:
        found = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
        return f"{found['name']} {found['version']}"
    except (AttributeError, KeyError, TypeError):
        return "a BLAS that it does not name"


# ---------------------------------------------------------------- what is timed


class Together:
    """Calls of one function on several threads at once; it knows how much of their processors they got."""

    def __init__(self, threads: int):
        # at the top of the file it would keep minidl from being imported while Python ends
        from concurrent.futures import ThreadPoolExecutor

        self.threads, self._pool = threads, ThreadPoolExecutor(threads)
        self._wall = self._own = 0.0

    def run(self, work: Callable[[int], None]) -> float:
        """``work(thread)`` on every thread; returns the seconds until all have finished."""
        began = time.perf_counter()
        if self.threads == 1:  # a pool would add what it takes to wake its thread
            used = [_clocked(work, 0)]
        else:
            used = list(self._pool.map(partial(_clocked, work), range(self.threads)))
        seconds = time.perf_counter() - began
        self._wall += sum(wall for wall, _ in used)
        self._own += sum(own for _, own in used)
        return seconds

    @property
    def share(self) -> float:
        """The part of their time in which the threads ran. Below 1, other processes had their processors meanwhile."""
        return min(1.0, self._own / self._wall) if self._wall else 1.0


def _clocked(work: Callable[[int], None], thread: int) -> tuple[float, float]:
    """Seconds that ``work(thread)`` takes, and those of them that this thread ran."""
    began, own = time.perf_counter(), time.thread_time()
    work(thread)
    return time.perf_counter() - began, time.thread_time() - own


class MultiplyAdds:
    """Multiply-adds in registers on every thread: ``run(rounds)`` does ``rounds * units`` operations of float32, two to
    a multiply-add."""

    rounds_to_check = 64
    """So many in one call bring the sums to what `is_right` wants."""

    def __init__(self, threads: int = 1):
        self.together, self.units = Together(threads), 2.0 * limits.CHAINS * limits.LANES * threads
        self._out = [aligned_zeros(limits.CHAINS * limits.LANES, np.float32) for _ in range(threads)]

    def run(self, rounds: int) -> float:
        return self.together.run(lambda thread: limits.multiply_adds(self._out[thread], rounds))

    def is_right(self) -> bool:
        """Whether s = s/2 + 1 has come to its fixed point."""
        return all((out == 2.0).all() for out in self._out)


class Triad:
    """a = b + 3c on arrays of ``size`` bytes in all, shared among threads: ``run(rounds)`` moves ``rounds * units``
    bytes, 12 an element as STREAM counts them."""

    rounds_to_check = 1

    def __init__(self, size: int, threads: int = 1):
        count = max(1, size // (12 * threads))
        self.together, self.units = Together(threads), 12.0 * count * threads
        self._parts = [[aligned_zeros(count, np.float32) for _ in "abc"] for _ in range(threads)]
        for _, b, c in self._parts:
            b[:], c[:] = 1, 2

    def run(self, rounds: int) -> float:
        return self.together.run(lambda thread: limits.triad(*self._parts[thread], rounds))

    def is_right(self) -> bool:
        return all((a == 7.0).all() for a, _, _ in self._parts)


# Where it is fine enough, the time that this thread ran: what other processes take of its processor does not count.
_own_time = time.thread_time if time.get_clock_info("thread_time").resolution < 1e-6 else time.perf_counter


_LEAST_CALLS = 3


def least_seconds(run: Callable[[int], object], seconds: float, threads: int = 1) -> float:
    """The least time of one round, over calls ``run(rounds)`` that take about ``seconds`` in all.

    On one thread it is the time that this thread ran. Calls are long beside what Python takes to make them, and short
    beside a slice of the scheduler: after a switch to another process the caches are empty.
    """
    # several threads do not begin at the same moment
    now, call_seconds = (_own_time, 3e-4) if threads == 1 else (time.perf_counter, 5e-3)
    run(1)  # compiles, or loads from disk
    rounds, taken, end = 1, [], time.perf_counter() + seconds
    while True:
        began = now()
        run(rounds)
        took = now() - began
        if took < call_seconds:
            rounds *= 2
            continue
        taken.append(took / rounds)
        # a first call may be long only because others had the processor meanwhile
        if time.perf_counter() >= end and (len(taken) >= _LEAST_CALLS or took > seconds):
            return min(taken)


def rate(work: MultiplyAdds | Triad, seconds: float = 0.1) -> float:
    """Operations or bytes a second; RuntimeError if the arithmetic came out wrong."""
    best = least_seconds(work.run, seconds, work.together.threads)
    work.run(work.rounds_to_check)
    if not work.is_right():
        raise RuntimeError(f"{type(work).__name__} gave wrong numbers as it was timed")
    return work.units / best


def latency(seconds: float = 0.05) -> float:
    """Seconds until the result of a multiply-add can be used by the next."""
    out = aligned_zeros(limits.LANES, np.float32)
    return least_seconds(lambda rounds: limits.dependent_multiply_adds(out, rounds), seconds)


def clock(seconds: float = 0.05) -> float:
    """Cycles a second, or somewhat less: the rate of integer additions each of which needs the one before."""
    return limits.ADDITIONS / least_seconds(lambda rounds: limits.additions(rounds, 1), seconds)


def memory_size(found: list[Cache]) -> int:
    """Bytes of arrays that no cache holds: four times the largest, but from 144 to 600 MB."""
    return min(max(144_000_000, 4 * max((cache.size for cache in found), default=0)), 600_000_000)


# ---------------------------------------------------------------- words


def _digits(number: float) -> str:
    """Three digits that count, or a whole number."""
    return f"{number:.3g}" if number < 999.5 else f"{number:,.0f}"


def size_text(count: float) -> str:
    """Bytes, with the unit that suits."""
    for unit, name in ((2**20, "MB"), (2**10, "KB")):
        if count >= unit:
            return f"{_digits(count / unit)} {name}"
    return f"{count:.0f} bytes"


def rate_text(rate: float) -> str:
    """Operations a second in GFLOP/s, or bytes a second in GB/s."""
    return _digits(rate / 1e9)


def time_text(seconds: float) -> str:
    return f"{_digits(1e9 * seconds)} ns"

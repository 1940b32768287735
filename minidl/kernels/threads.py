"""Our own threads: one kernel is run by several at once, in one call that does not hold the GIL.

A thread pool that is started for every parallel loop costs microseconds each time, and a training step of a small
net has a dozen such loops. Here a whole slice of training is one call: every thread runs the same kernel, works on
its part of the rows or columns, and meets the others at barriers, which cost a fraction of a microsecond (`barrier`).
It needs no OpenMP and survives a fork.

A worker without a job waits for the next in compiled code: it spins briefly, then parks. A job is the kernel's address
and its arguments. A worker that Python had to start would begin microseconds later, or wait for the GIL. And an
interrupt, which Python raises between two of its own instructions, cannot leave a worker half started.
"""

import atexit
import contextlib
import math
import os
import threading
import time
import types
from _thread import start_new_thread  # as it was at the import: gevent's starts a greenlet
from queue import Empty, SimpleQueue

import numpy as np

from . import barrier
from .cpu_count import default_threads, usable_processors
from .jit import JIT_DISABLED
from .thread_choice import choice_for

_PATIENCE = 5.0
"""Seconds until a worker has come, or has ended. It takes microseconds, or what a busy machine takes."""


def _run_worker(thread: int, sync: np.ndarray, ended: SimpleQueue) -> None:
    barrier.work(thread, sync)
    ended.put(thread)


class _Pool:
    """Workers, and the memory through which jobs reach them. ``threads``: the caller, and the workers that have come.

    Where the system gives no thread, or only a greenlet that would run when its caller waits in Python, there are none.
    """

    def __init__(self, threads: int):
        self.sync, self.jobs = np.zeros(barrier.SYNC_SIZE, np.int64), 0
        self.wanted, self.threads = threads, 1
        self._ended = SimpleQueue()
        barrier.prepare(self.sync)
        ended = np.zeros(barrier.SYNC_SIZE, np.int64)
        barrier.release(ended, barrier.JOB_UNIT)
        barrier.work(0, ended)  # compile or load it here, where nobody waits for it
        started = 0
        with contextlib.suppress(RuntimeError):
            while started < threads - 1 and isinstance(start_new_thread, types.BuiltinFunctionType):
                start_new_thread(_run_worker, (started + 1, self.sync, self._ended))
                started += 1
        if barrier.all_ready(self.sync, started, _PATIENCE):
            self.threads += started
        else:
            self.end()

    def end(self) -> None:
        """Let the workers end, and wait until they have: the interpreter may be about to."""
        barrier.release(self.sync, (self.jobs + 1) * barrier.JOB_UNIT)
        with contextlib.suppress(Empty):
            for _ in range(1, self.threads):
                self._ended.get(timeout=_PATIENCE)

    def run(self, kernel, threads: int, args: tuple) -> None:
        self.jobs += 1
        self.sync[barrier.NEXT_JOB] = self.jobs * barrier.JOB_UNIT + threads
        kernel(barrier.Team(0, threads, self.sync), *args)
        if self.sync[barrier.GENERATION] == barrier.BROKEN:
            raise RuntimeError(f"{kernel.__name__} failed on one of {threads} threads")


_num_threads = 1 if JIT_DISABLED else min(default_threads(), barrier.MOST_THREADS)
_busy = threading.Lock()
_pool: _Pool | None = None


def set_num_threads(n: int) -> None:
    """Let a call use ``n`` threads. Results do not depend on it, and no more are used than there are processors.

    The default is NUMBA_NUM_THREADS, else OMP_NUM_THREADS (joblib sets both in its processes), else the processors that
    affinity and the cgroup's quota leave to this process. ``threadpoolctl`` does not reach minidl.

    Raises:
        TypeError: ``n`` is not an integer.
        ValueError: ``n`` is not in 1..256.
    """
    global _num_threads
    if isinstance(n, (bool, np.timedelta64)) or not isinstance(n, (int, np.integer)):
        raise TypeError(f"n must be an integer, got {n!r}")
    if not 1 <= n <= barrier.MOST_THREADS:
        raise ValueError(f"n must be in 1..{barrier.MOST_THREADS}, got {n}")
    _num_threads = 1 if JIT_DISABLED else int(n)  # first: a training in another thread goes on with it
    with _busy:
        _end_workers()


def _end_workers() -> None:
    global _pool
    pool, _pool = _pool, None  # first, so that nobody calls for a worker that has ended
    if pool is not None:
        pool.end()


atexit.register(set_num_threads, 1)  # a training in a daemon thread goes on alone


def get_num_threads() -> int:
    """The number of threads a call may use."""
    return _num_threads


def most_threads() -> int:
    """The number of threads worth using: with more than there are processors, some wait at every barrier."""
    return min(_num_threads, usable_processors())


SHORT_FLOPS, _LONG_FLOPS = 1.5e6, 1e8
"""Work that is finished before a second thread has begun, and work that is worth unparking one for."""
_LONGEST_FLOPS = 4e9
"""Work of a call whose number of threads is still chosen. A longer one loses nothing on a busy machine, where it waits
for others but once, and its trial on one thread would be felt."""
_SECONDS_BETWEEN_CALLS = 5e-4
"""A call that comes within this time after another finds the workers still spinning, or should."""
_last_call = 0.0


def count_for(flops: float) -> int:
    """How many threads a call of that much work should use."""
    global _last_call
    if flops < SHORT_FLOPS or _num_threads == 1:  # the system is asked for processors only where it matters
        return 1
    before, _last_call = _last_call, time.perf_counter()
    return most_threads() if flops >= _LONG_FLOPS or _last_call - before < _SECONDS_BETWEEN_CALLS else 1


def _after_fork() -> None:
    """A forked child has none of its parent's threads, and perhaps a lock that one of them held."""
    global _busy, _pool
    _busy, _pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def run(kernel, *args, threads: int | None = None) -> int:
    """``kernel(team, *args)`` on so many threads (None: all), or on this one alone while another call has the workers.

    Returns how many there were. The kernel begins with `start_together` and ends with `meet`.
    """
    global _pool
    if threads != 1 and not _busy.locked():
        # `with` and no acquire: an interrupt after that would leave it locked, and `set_num_threads` waiting for ever
        with _busy:
            # read under the lock: another thread may have changed the number, and a kernel waits for all its threads
            threads = _num_threads if threads is None else min(threads, _num_threads)
            if threads > 1 and (_pool is None or _pool.wanted < threads):
                _end_workers()
                _pool = _Pool(threads)
            if threads > 1 and _pool.threads > 1:
                threads = min(threads, _pool.threads)
                try:
                    _pool.run(kernel, threads, args)
                except BaseException:
                    _end_workers()  # they may wait at a barrier, or not; the next call has new ones
                    raise
                return threads
    kernel(barrier.ALONE, *args)
    return 1


def run_measured(kernel, *args, threads: int, flops: float) -> int:
    """`run` on at most so many threads, on fewer where they were faster in calls as large: the machine is busy."""
    if threads == 1 or flops > _LONGEST_FLOPS:
        return run(kernel, *args, threads=threads)
    choice = choice_for(kernel, math.frexp(flops)[1])
    count, _ = choice.next(threads)
    began = time.perf_counter()
    used = run(kernel, *args, threads=count)
    choice.record(used, flops, time.perf_counter() - began)
    return used

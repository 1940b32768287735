"""Our own threads: one kernel is run by several at once, in one call that does not hold the GIL.

A thread pool that is started for every parallel loop costs microseconds each time, and a training step of a small
net has a dozen such loops. Here a whole slice of training is one call: every thread runs the same kernel, works on
its part of the rows or columns, and meets the others at barriers, which cost a fraction of a microsecond (`barrier`).
It needs no OpenMP and survives a fork.

A finished worker spins briefly for the next job, because waking a sleeping thread takes ten times as long as a small
product; then it parks. A job is the kernel's address and its arguments: over Python, a worker would begin microseconds
later, and later still where it had to wait for the GIL.
"""

import atexit
import os
import threading
import time
from queue import SimpleQueue

import numba
import numpy as np

from .barrier import ALONE, JOB, JOB_UNIT, MOST_THREADS, NEXT_JOB, SYNC_SIZE, Team, work
from .jit import JIT_DISABLED

_SPINS_BEFORE_PARK = 4_200
"""Spins of a worker without a job: about two milliseconds, most of them in `yield_cpu`."""


class _Worker:
    """A thread other than the caller's. An interrupt may come between any two lines of the caller's, and leaves nobody
    waiting: there is no lock here that it could leave locked, as it does even inside `threading.Condition`."""

    def __init__(self, thread: int, sync: np.ndarray):
        self._thread, self._sync = thread, sync
        self._expected_job, self.is_parked, self.has_ended = 0, False, False
        self.calls = SimpleQueue()
        self.loop = threading.Thread(target=self._work, name=f"minidl-{thread}", daemon=True)
        self.loop.start()

    def expect(self, job: int) -> None:
        """Be ready for ``job``, unparked if need be; 0: expect none."""
        self._expected_job = job
        if self.is_parked:
            self.calls.put(None)

    def _work(self) -> None:
        last_job = 0
        while not self.has_ended:
            while last_job < self._expected_job:
                last_job = work(self._thread, self._sync, last_job, _SPINS_BEFORE_PARK)
            self.is_parked = True
            if last_job >= self._expected_job:  # a job that was expected before it parked was not called for
                self.calls.get()
            self.is_parked = False


class _Pool:
    """The workers, and the memory through which jobs reach them."""

    def __init__(self, threads: int):
        self.sync = np.zeros(SYNC_SIZE, np.int64)
        self.jobs = 0
        work(0, self.sync, 0, 0)  # compile or load it here, where nobody waits for it
        self.workers = [_Worker(thread, self.sync) for thread in range(1, threads)]

    def end(self) -> None:
        """Wait until no worker is left. On a busy machine one that spins would otherwise take seconds to notice."""
        for worker in self.workers:
            worker.has_ended = True
        self.sync[JOB] = (self.jobs + 1) * JOB_UNIT  # a job for no thread
        for worker in self.workers:
            worker.calls.put(None)
            worker.loop.join()

    def run(self, kernel, threads: int, args: tuple) -> None:
        self.jobs += 1
        job = self.jobs * JOB_UNIT + threads
        self.sync[NEXT_JOB] = job
        workers = self.workers[: threads - 1]
        try:
            for worker in workers:
                worker.expect(job)
            kernel(Team(0, threads, self.sync), *args)
        finally:
            if self.sync[JOB] != job:  # the kernel did not get as far as publishing it
                for worker in workers:
                    worker.expect(0)


_num_threads = 1 if JIT_DISABLED else numba.config.NUMBA_NUM_THREADS
_busy = threading.Lock()
_pool: _Pool | None = None


def set_num_threads(n: int) -> None:
    """Let a call use ``n`` threads (default: the processors this process may run on). Results do not depend on it.

    Raises:
        TypeError: ``n`` is not an integer.
        ValueError: ``n`` is not in 1..256.
    """
    global _num_threads
    if isinstance(n, (bool, np.timedelta64)) or not isinstance(n, (int, np.integer)):
        raise TypeError(f"n must be an integer, got {n!r}")
    if not 1 <= n <= MOST_THREADS:
        raise ValueError(f"n must be in 1..{MOST_THREADS}, got {n}")
    with _busy:
        _end_workers()
        _num_threads = 1 if JIT_DISABLED else int(n)


@atexit.register
def _end_workers() -> None:
    global _pool
    pool, _pool = _pool, None  # first, so that nobody calls for a worker that has ended
    if pool is not None:
        pool.end()


def get_num_threads() -> int:
    """The number of threads a call may use."""
    return _num_threads


_SHORT_FLOPS, _LONG_FLOPS = 1.5e6, 1e8
"""Work that is finished before a second thread has begun, and work that is worth unparking one for."""
_SECONDS_BETWEEN_CALLS = 2e-3
"""A call that comes within this time after another finds the workers still spinning, or should."""
_last_call = 0.0


def count_for(flops: float) -> int:
    """How many threads a call of that much work should use."""
    global _last_call
    if flops < _SHORT_FLOPS:
        return 1
    before, _last_call = _last_call, time.perf_counter()
    return _num_threads if flops >= _LONG_FLOPS or _last_call - before < _SECONDS_BETWEEN_CALLS else 1


def _after_fork() -> None:
    """A forked child has none of its parent's threads, and perhaps a lock that one of them held."""
    global _busy, _pool
    _busy, _pool = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def run(kernel, *args, threads: int | None = None) -> None:
    """``kernel(team, *args)`` on every thread, or on this one alone while another call has the workers.

    The kernel begins with `start_together` and ends with `meet`.
    """
    global _pool
    if threads != 1 and not _busy.locked():
        # `with` and no acquire: an interrupt after that would leave it locked, and `set_num_threads` waiting for ever
        with _busy:
            # read under the lock: another thread may have changed the number, and a kernel waits for all its threads
            threads = _num_threads if threads is None else min(threads, _num_threads)
            if threads > 1:
                _pool = _pool or _Pool(_num_threads)
                _pool.run(kernel, threads, args)
                return
    kernel(ALONE, *args)

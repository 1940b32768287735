"""How several threads run one kernel: a job is published to the workers, work is partitioned, barriers keep step.

A kernel for several threads has a `Team` as its first argument. The kernel begins with `start_together`, which
publishes the call to the workers. It takes its part of the rows or columns with `share`. It calls `meet`, a barrier,
wherever one thread reads what another wrote, and at its end.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from . import emit, processor
from .emit import intrinsic, smaller
from .jit import jit
from .processor import atomic_add, atomic_load, atomic_store, clock, lock, unlock

# Places in ``sync``, two cache lines apart, so that threads that spin on one do not slow down those that write another.
_ARRIVED, GENERATION, JOB, NEXT_JOB, _READY = range(0, 80, 16)
# On the cache line of GENERATION or JOB: how many threads are parked until it changes.
PARKED = 4
# On that of JOB, too, so that a waiting worker fetches all at once: the function of the job.
_FUNCTION = JOB + 1
_LOCK, _CONDITION, _ARGUMENTS, SYNC_SIZE = 80, 96, 144, 1024
"""The condition that is woken when ``sync[index]`` changes is at _CONDITION + index."""
MOST_THREADS = 256
JOB_UNIT = 2 * MOST_THREADS
"""A job is published as its number times this, plus the number of threads it is for."""
BROKEN = -1
"""The generation of a barrier at which nobody waits any more, because one of the threads has failed."""
_YIELD_AFTER, _PARK_AFTER = 5_000, 500_000
"""A waiting thread spins for so many nanoseconds, and parks after so many. Where two threads share a processor, each
wait costs the first. Waking a parked thread takes ten times as long as a small product."""


class Team(NamedTuple):
    """The threads that run one kernel, as one of them sees it. ``thread`` must stay the first field:
    `_publish_call` hands each worker the caller's arguments with its own number in the place of the first."""

    thread: int  # this one: 0 is the caller, the others are workers
    threads: int
    sync: np.ndarray  # int64 (SYNC_SIZE,), shared by all


ALONE = Team(0, 1, np.zeros(SYNC_SIZE, np.int64))
"""The team of a single thread."""


@jit
def share(total, team, unit):
    """This thread's part low..high of ``total`` items, cut at multiples of ``unit``."""
    if team.threads == 1:
        return 0, total  # a tiny net would notice the divisions
    units = (total + unit - 1) // unit
    low = units * team.thread // team.threads * unit
    high = units * (team.thread + 1) // team.threads * unit
    return smaller(low, total), smaller(high, total)


@jit
def _wait_while(sync, index, value):
    """Return when ``sync[index]`` is no longer ``value``.

    A clock decides how long to spin, to let others run, and to park: on a busy machine each `yield_cpu` may last for
    milliseconds.
    """
    began = clock()
    while atomic_load(sync, index) == value:
        waited = clock() - began
        if waited > _PARK_AFTER:
            lock(sync, _LOCK)
            atomic_add(sync, index + PARKED, 1)
            while atomic_load(sync, index) == value:
                processor.sleep_until_woken(sync, _CONDITION + index, _LOCK)
            atomic_add(sync, index + PARKED, -1)
            unlock(sync, _LOCK)
        elif waited > _YIELD_AFTER:
            processor.yield_cpu()
        else:
            processor.pause()


@jit
def _change(sync, index, value):
    """sync[index] = value, and wake the threads that are parked until it changes.

    Nobody is missed: a thread counts itself in before it looks at the value a last time, and here the count is read
    after the value is stored.
    """
    atomic_store(sync, index, value)
    if atomic_load(sync, index + PARKED):
        lock(sync, _LOCK)
        processor.wake_all(sync, _CONDITION + index)
        unlock(sync, _LOCK)


@jit
def meet(team):
    """A barrier: it returns when all threads have called it. Each then sees all that the others wrote before."""
    sync = team.sync
    if team.threads == 1:
        return
    generation = atomic_load(sync, GENERATION)
    if generation == BROKEN:
        return
    if atomic_add(sync, _ARRIVED, 1) == team.threads - 1:  # the last to arrive releases the others
        atomic_store(sync, _ARRIVED, 0)
        _change(sync, GENERATION, generation + 1)
    else:
        _wait_while(sync, np.int64(GENERATION), generation)


_JOB_TYPE = ir.FunctionType(emit.INT32, [emit.INT.as_pointer(), emit.INT])


def _words(kind) -> int:
    """How many 64-bit words hold an LLVM type at most."""
    if isinstance(kind, ir.ArrayType):
        return kind.count * _words(kind.element)
    return sum(map(_words, kind.elements)) if isinstance(kind, ir.BaseStructType) else 1


@intrinsic(types.void)
def _publish_call(builder, sync):
    """Store in ``sync`` how a worker repeats this call of the kernel: a function, and a copy of the arguments."""
    kernel = builder.function
    results, given = kernel.args[:2], kernel.args[2:]
    kind = ir.LiteralStructType([value.type for value in given])
    if _words(kind) > SYNC_SIZE - _ARGUMENTS:
        raise ValueError(f"{kernel.name} has more arguments than SYNC_SIZE leaves room for")
    kept = builder.bitcast(sync.address(emit.constant(_ARGUMENTS)), kind.as_pointer())
    for i, value in enumerate(given):
        builder.store(value, cgutils.gep_inbounds(builder, kept, 0, i))

    job = ir.Function(builder.module, _JOB_TYPE, f"{kernel.name}.worker")
    job.linkage = "internal"
    inner = ir.IRBuilder(job.append_basic_block("entry"))
    arguments, thread = job.args
    source = inner.bitcast(arguments, kind.as_pointer())
    taken = [inner.load(cgutils.gep_inbounds(inner, source, 0, i)) for i in range(len(given))]
    taken[0] = thread
    # where the kernel puts its result and an exception, which nobody reads
    unused = [inner.bitcast(inner.alloca(ir.ArrayType(emit.INT, 8)), result.type) for result in results]
    inner.ret(inner.call(kernel, [*unused, *taken]))
    builder.store(builder.ptrtoint(job, emit.INT), sync.address(emit.constant(_FUNCTION)))


@intrinsic(types.int64)
def _run_call(builder, sync, thread):
    """Run what `_publish_call` stored in ``sync``; not 0 if it failed."""
    function = builder.load(sync.address(emit.constant(_FUNCTION)), typ=emit.INT)
    function = builder.inttoptr(function, _JOB_TYPE.as_pointer())
    status = builder.call(function, [sync.address(emit.constant(_ARGUMENTS)), thread])
    return builder.sext(status, emit.INT)


@jit(inline=True)
def start_together(team):
    """The first line of a kernel for several threads: the caller publishes its call, and the workers join."""
    if team.threads > 1 and team.thread == 0:
        _publish_call(team.sync)
        _change(team.sync, JOB, atomic_load(team.sync, NEXT_JOB))


@jit
def work(thread, sync):
    """Run each job that is published for this worker, until there is one for no thread.

    If a kernel fails here, the barrier is broken: the others go on to the kernel's end, and its caller is told.
    """
    atomic_add(sync, _READY, 1)
    job = np.int64(0)
    while True:
        _wait_while(sync, np.int64(JOB), job)
        job = atomic_load(sync, JOB)
        if job % JOB_UNIT == 0:
            return
        if thread < job % JOB_UNIT and _run_call(sync, thread):
            _change(sync, GENERATION, BROKEN)


@jit
def prepare(sync):
    """Make the conditions that threads park on."""
    for index in (GENERATION, JOB):
        processor.make_waiting(sync, _LOCK, _CONDITION + index)


@jit
def all_ready(sync, workers, seconds):
    """Whether so many workers have come to wait for jobs, after ``seconds`` at most."""
    began = clock()
    while atomic_load(sync, _READY) < workers:
        if clock() - began > seconds * 1e9:
            return False
        processor.yield_cpu()
    return True


@jit
def release(sync, job):
    """Release all threads that wait at a barrier or for a job. ``job`` is for no thread, and ends the workers."""
    _change(sync, GENERATION, BROKEN)
    _change(sync, JOB, job)

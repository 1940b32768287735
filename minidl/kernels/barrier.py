"""How several threads run one kernel: a job is published to the workers, work is partitioned, barriers keep step.

A kernel for several threads has a `Team` as its first argument. The kernel begins with `start_together`, which
publishes the call to the workers. It takes its part of the rows or columns with `share`. It calls `meet`, a barrier,
wherever one thread reads what another wrote, and at its end.
"""

from typing import NamedTuple

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types

from . import emit
from .emit import intrinsic
from .jit import jit, smaller
from .processor import atomic_add, atomic_load, atomic_store, current_cpu, move_off_cpu, pause, yield_cpu

# Places in ``sync``, two cache lines apart, so that threads that spin on one do not slow down those that write another.
_ARRIVED, _GENERATION, JOB, NEXT_JOB, SYNC_SIZE = 0, 16, 32, 48, 64
# The job's description is stored first, its number last, on one cache line: a waiting worker fetches both at once.
CALLERS_CPU, _FUNCTION, _ARGUMENTS = range(JOB + 1, JOB + 4)
MOST_THREADS = 256
JOB_UNIT = 2 * MOST_THREADS
"""A job is published as its number times this, plus the number of threads it is for."""
_SPINS_BEFORE_YIELD = 200
"""About five microseconds, which is what each wait costs where two threads share a processor."""
_FOREVER = np.int64(2**62)


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
def _spin_while(sync, index, value, most_spins):
    """Return when ``sync[index]`` is no longer ``value``, or after ``most_spins``."""
    spins = 0
    while atomic_load(sync, index) == value and spins < most_spins:
        pause()
        spins += 1
        if spins > _SPINS_BEFORE_YIELD:
            yield_cpu()


@jit
def meet(team):
    """A barrier: returns when all threads have called it. What each wrote before it, all see after it."""
    sync = team.sync
    if team.threads == 1:
        return
    generation = atomic_load(sync, _GENERATION)
    if atomic_add(sync, _ARRIVED, 1) == team.threads - 1:  # the last to arrive releases the others
        atomic_store(sync, _ARRIVED, 0)
        atomic_store(sync, _GENERATION, generation + 1)
    else:
        _spin_while(sync, np.int64(_GENERATION), generation, _FOREVER)


_POINTER = emit.BYTE.as_pointer()
_JOB_TYPE = ir.FunctionType(emit.VOID, [_POINTER, emit.INT])


@intrinsic(types.void)
def _publish_call(builder, sync):
    """Store in ``sync`` how a worker repeats this call of the kernel: a function, and a copy of the arguments.

    The worker calls the kernel with the same arguments but the first, ``team.thread``: that is its own number.
    """
    kernel = builder.function
    results, given = kernel.args[:2], kernel.args[2:]
    kind = ir.LiteralStructType([value.type for value in given])
    kept = cgutils.alloca_once(builder, kind)
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
    inner.call(kernel, [*unused, *taken])
    inner.ret_void()

    for index, pointer in ((_FUNCTION, job), (_ARGUMENTS, kept)):
        builder.store(builder.ptrtoint(pointer, emit.INT), sync.address(emit.constant(index)))


@intrinsic(types.void)
def _run_call(builder, sync, thread):
    """Run what `_publish_call` stored in ``sync``."""
    function, arguments = (
        builder.load(sync.address(emit.constant(index)), typ=emit.INT) for index in (_FUNCTION, _ARGUMENTS)
    )
    function = builder.inttoptr(function, _JOB_TYPE.as_pointer())
    builder.call(function, [builder.inttoptr(arguments, _POINTER), thread])


@jit(inline=True)
def start_together(team):
    """The first line of a kernel for several threads: the caller publishes its call, and the workers join.

    A worker that wakes up on its caller's processor moves to another. Both are always ready to run, and the
    system would let them take turns there for tens of milliseconds before it parts them.
    """
    if team.threads > 1:
        if team.thread == 0:
            atomic_store(team.sync, CALLERS_CPU, current_cpu())
            _publish_call(team.sync)
            atomic_store(team.sync, JOB, atomic_load(team.sync, NEXT_JOB))
        else:
            cpu = current_cpu()
            if cpu == atomic_load(team.sync, CALLERS_CPU):
                move_off_cpu(cpu)


@jit
def work(thread, sync, last_job, most_spins):
    """Run each job that is published for this worker; returns the last one's number.

    It returns after ``most_spins`` without a job, and at once when the job is for no thread: then the workers end.
    """
    while True:
        _spin_while(sync, np.int64(JOB), last_job, most_spins)
        job = atomic_load(sync, JOB)
        if job == last_job or job % JOB_UNIT == 0:
            return job
        last_job = job
        if thread < job % JOB_UNIT:
            _run_call(sync, thread)

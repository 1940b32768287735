"""Our own threads: one kernel run by several at once, meeting at barriers, on one GIL-free call.

A thread-pool launch for every parallel loop costs microseconds, and a training step of a small
net has a dozen such loops. Here a *whole slice of training* is one call: every thread runs the same kernel
with its own number (``thread`` of ``threads``), works on its share of rows or columns, and meets the others
at a barrier, which costs a fraction of a microsecond. It needs no OpenMP and survives a fork.

A helper that has finished lingers in compiled code for a moment, listening for the next call: to wake a
thread that sleeps takes the system ten times as long as a small matrix product. The next call hands it the
kernel's address and arguments, so that it begins at once; over Python it would take microseconds, and longer
where it had to wait for the GIL.
"""

from __future__ import annotations

import os
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .jit import JIT_DISABLED, jit, smaller
from .simd import IS_X86

# two cache lines apart, so that waiters do not disturb each other
_ARRIVED, _GENERATION, _JOB, _NEXT_JOB, _SIZE = 0, 16, 32, 48, 64
# What a job is, told just before its number to those who wait for that: one line fetched, not two.
_CALLERS_CPU, _FUNCTION, _ARGUMENTS = range(_JOB + 1, _JOB + 4)
_MOST_THREADS = 256
_JOB_UNIT = 2 * _MOST_THREADS
"""A job is told as its number times this, plus how many threads it is for."""
_SPINS_BEFORE_YIELD = 200
"""About five microseconds, which is what each wait costs where two threads share a processor."""
_LINGER = 4_200
"""Spins for which a helper listens for the next call: about two milliseconds, most of them in `_yield`."""
ALONE = np.zeros(_SIZE, np.int64)
"""The meeting place of a single thread."""

_CAN_YIELD = sys.platform != "win32"
_KNOWS_CPU = sys.platform == "linux"

if JIT_DISABLED:

    def meet(sync, threads):
        """Nothing to wait for: without compiled code there is one thread."""

    def start_together(thread, sync, threads):
        """There is nobody to tell."""

    def flush_denormals():
        return 0

    def restore_denormals(mode):
        """Nothing was changed."""

else:
    _INT = ir.IntType(64)

    def _element(context, builder, array_type, array, index):
        data = context.make_array(array_type)(context, builder, array).data
        return builder.gep(data, [index], source_etype=_INT)

    def _call_external(builder, result, name, *arguments):
        """Calls an LLVM intrinsic or a function of the C library."""
        arguments = [
            builder.bitcast(argument, ir.IntType(8).as_pointer()) if argument.type.is_pointer else argument
            for argument in arguments
        ]
        function_type = ir.FunctionType(result, [argument.type for argument in arguments])
        function = cgutils.get_or_insert_function(builder.module, function_type, name)
        return builder.call(function, arguments)

    @intrinsic
    def _atomic_add(typingctx, array, index, value):
        def codegen(context, builder, signature, args):
            pointer = _element(context, builder, signature.args[0], args[0], args[1])
            return builder.atomic_rmw("add", pointer, args[2], "acq_rel")

        return types.int64(array, types.intp, types.int64), codegen

    @intrinsic
    def _atomic_load(typingctx, array, index):
        def codegen(context, builder, signature, args):
            pointer = _element(context, builder, signature.args[0], args[0], args[1])
            return builder.load_atomic(pointer, "acquire", 8, typ=_INT)

        return types.int64(array, types.intp), codegen

    @intrinsic
    def _atomic_store(typingctx, array, index, value):
        def codegen(context, builder, signature, args):
            pointer = _element(context, builder, signature.args[0], args[0], args[1])
            builder.store_atomic(args[2], pointer, "release", 8)
            return context.get_dummy_value()

        return types.void(array, types.intp, types.int64), codegen

    @intrinsic
    def _pause(typingctx):
        """Tells the processor that this is a waiting loop."""

        def codegen(context, builder, signature, args):
            if IS_X86:
                _call_external(builder, ir.VoidType(), "llvm.x86.sse2.pause")
            return context.get_dummy_value()

        return types.void(), codegen

    @intrinsic
    def _yield(typingctx):
        """Gives the processor to whoever else needs it (the machine may have fewer free cores than threads)."""

        def codegen(context, builder, signature, args):
            if _CAN_YIELD:
                _call_external(builder, ir.IntType(32), "sched_yield")
            return context.get_dummy_value()

        return types.void(), codegen

    @intrinsic
    def _cpu(typingctx):
        """The processor this thread runs on, or -1 where the system does not tell."""

        def codegen(context, builder, signature, args):
            if not _KNOWS_CPU:
                return ir.Constant(_INT, -1)
            return builder.sext(_call_external(builder, ir.IntType(32), "sched_getcpu"), _INT)

        return types.int64(), codegen

    @intrinsic
    def _leave(typingctx, cpu):
        """Moves this thread to any other processor than ``cpu``, if the system lets it have one.

        A helper that woke up on its caller's processor would have it in turns with the caller, for tens of
        milliseconds: both are always ready to run, and the system is slow to part two threads that just ran.
        """

        def codegen(context, builder, signature, args):
            if not _KNOWS_CPU:
                return context.get_dummy_value()
            # masks of the C library's cpu_set_t; where they are too short, all stay 0, and 0 is refused
            words, result = 16, ir.IntType(32)
            itself, size = ir.Constant(result, 0), ir.Constant(_INT, 8 * words)
            nobody = ir.Constant(ir.ArrayType(_INT, words), None)
            allowed, others = (cgutils.alloca_once_value(builder, nobody) for _ in range(2))
            _call_external(builder, result, "sched_getaffinity", itself, size, allowed)
            builder.store(builder.load(allowed, typ=nobody.type), others)
            index = builder.and_(builder.lshr(args[0], ir.Constant(_INT, 6)), ir.Constant(_INT, words - 1))
            word = builder.gep(builder.bitcast(others, _INT.as_pointer()), [index], source_etype=_INT)
            bit = builder.shl(ir.Constant(_INT, 1), builder.and_(args[0], ir.Constant(_INT, 63)))
            builder.store(builder.and_(builder.load(word, typ=_INT), builder.not_(bit)), word)
            for mask in (others, allowed):
                _call_external(builder, result, "sched_setaffinity", itself, size, mask)
            return context.get_dummy_value()

        return types.void(types.int64), codegen

    @jit
    def _wait_while(sync, index, value, most):
        """Until ``sync[index]`` is no longer ``value``, or for ``most`` spins."""
        spins = 0
        while _atomic_load(sync, index) == value and spins < most:
            _pause()
            spins += 1
            if spins > _SPINS_BEFORE_YIELD:
                _yield()

    _FOREVER = np.int64(2**62)

    @jit
    def meet(sync, threads):
        """Returns when all threads have called it; what each wrote before, all see after."""
        if threads == 1:
            return
        generation = _atomic_load(sync, _GENERATION)
        if _atomic_add(sync, _ARRIVED, 1) == threads - 1:
            _atomic_store(sync, _ARRIVED, 0)
            _atomic_store(sync, _GENERATION, generation + 1)
        else:
            _wait_while(sync, np.int64(_GENERATION), generation, _FOREVER)

    _BYTES = ir.IntType(8).as_pointer()
    _JOB_TYPE = ir.FunctionType(ir.VoidType(), [_BYTES, _INT])

    @intrinsic
    def _tell(typingctx, sync):
        """Leaves in ``sync`` how a helper calls the kernel this stands in: with all its arguments but the first."""

        def codegen(context, builder, signature, args):
            kernel = builder.function
            given = context.call_conv.get_arguments(kernel)
            kind = ir.LiteralStructType([value.type for value in given])
            kept = cgutils.alloca_once(builder, kind)
            for i, value in enumerate(given):
                builder.store(value, cgutils.gep_inbounds(builder, kept, 0, i))

            name = f"{kernel.name}.helper"
            job = ir.Function(builder.module, _JOB_TYPE, name)
            job.linkage = "internal"
            inner = ir.IRBuilder(job.append_basic_block("entry"))
            arguments, thread = job.args
            source = inner.bitcast(arguments, kind.as_pointer())
            taken = [inner.load(cgutils.gep_inbounds(inner, source, 0, i)) for i in range(len(given))]
            taken[0] = thread
            # what it returns or raises, which nobody looks at
            unused = [inner.bitcast(inner.alloca(ir.ArrayType(_INT, 8)), kernel.args[i].type) for i in range(2)]
            inner.call(kernel, [*unused, *taken])
            inner.ret_void()

            for index, pointer in ((_FUNCTION, job), (_ARGUMENTS, kept)):
                place = _element(context, builder, signature.args[0], args[0], ir.Constant(_INT, index))
                builder.store(builder.ptrtoint(pointer, _INT), place)
            return context.get_dummy_value()

        return types.void(sync), codegen

    @intrinsic
    def _do(typingctx, sync, thread):
        """Calls what `_tell` left in ``sync``."""

        def codegen(context, builder, signature, args):
            function, arguments = (
                builder.load(_element(context, builder, signature.args[0], args[0], ir.Constant(_INT, index)))
                for index in (_FUNCTION, _ARGUMENTS)
            )
            function = builder.inttoptr(function, _JOB_TYPE.as_pointer())
            builder.call(function, [builder.inttoptr(arguments, _BYTES), args[1]])
            return context.get_dummy_value()

        return types.void(sync, thread), codegen

    @jit(inline=True)
    def start_together(thread, sync, threads):
        """The first a kernel (thread, threads, sync, ...) does: thread 0 calls the others."""
        if threads > 1:
            if thread == 0:
                _atomic_store(sync, _CALLERS_CPU, _cpu())
                _tell(sync)
                _atomic_store(sync, _JOB, _atomic_load(sync, _NEXT_JOB))
            else:
                cpu = _cpu()
                if cpu == _atomic_load(sync, _CALLERS_CPU):
                    _leave(cpu)

    @jit
    def _serve(thread, sync, seen, most):
        """Does every job for this helper, until none has come for ``most`` spins; returns the last one seen."""
        while True:
            _wait_while(sync, np.int64(_JOB), seen, most)
            job = _atomic_load(sync, _JOB)
            if job == seen:
                return seen
            seen = job
            if thread < job % _JOB_UNIT:
                _do(sync, thread)

    _FLUSH_TO_ZERO_AND_DENORMALS_ARE_ZERO = 0x8040

    @intrinsic
    def _control_word(typingctx):
        def codegen(context, builder, signature, args):
            slot = builder.alloca(ir.IntType(32))
            builder.store(ir.Constant(ir.IntType(32), 0), slot)
            if IS_X86:
                _call_external(builder, ir.VoidType(), "llvm.x86.sse.stmxcsr", slot)
            return builder.load(slot, typ=ir.IntType(32))

        return types.uint32(), codegen

    @intrinsic
    def _set_control_word(typingctx, word):
        def codegen(context, builder, signature, args):
            slot = builder.alloca(ir.IntType(32))
            builder.store(args[0], slot)
            if IS_X86:
                _call_external(builder, ir.VoidType(), "llvm.x86.sse.ldmxcsr", slot)
            return context.get_dummy_value()

        return types.void(types.uint32), codegen

    @jit
    def flush_denormals():
        """Treat denormals as zero on this thread; returns the mode to give to `restore_denormals`.

        A saturated softmax or a dead unit fills Adam's averages with denormals, and each costs a hundred cycles.
        """
        mode = _control_word()
        _set_control_word(np.uint32(mode | np.uint32(_FLUSH_TO_ZERO_AND_DENORMALS_ARE_ZERO)))
        return mode

    @jit
    def restore_denormals(mode):
        _set_control_word(mode)


@jit(inline=True)
def share(total, thread, threads, unit):
    """This thread's part low..high of ``total`` items, cut at multiples of ``unit``."""
    units = (total + unit - 1) // unit
    low = units * thread // threads * unit
    high = units * (thread + 1) // threads * unit
    return smaller(low, total), smaller(high, total)


class _Helper:
    """A thread other than the caller's: it serves while jobs come, then sleeps in the executor's queue."""

    def __init__(self, thread: int, sync: np.ndarray):
        self._thread, self._sync = thread, sync
        self._lock, self._at_work = threading.Lock(), threading.Lock()
        self._expected = self._seen = 0
        self._awake = False

    def expect(self, executor: ThreadPoolExecutor, job: int) -> None:
        """Be there for ``job``; 0: for none."""
        with self._lock:
            self._expected = job
            if job and not self._awake:
                executor.submit(self._work)
                self._awake = True  # only now: after an interrupt in between, the next call wakes it once more

    def _work(self) -> None:
        if not self._at_work.acquire(blocking=False):
            return
        while True:
            self._seen = _serve(self._thread, self._sync, self._seen, _LINGER)
            with self._lock:
                if self._seen >= self._expected:
                    self._awake = False
                    self._at_work.release()
                    return


class _Team:
    """The helpers, and where they meet."""

    def __init__(self, threads: int):
        self.executor = ThreadPoolExecutor(threads - 1, thread_name_prefix="minidl")
        self.sync = np.zeros(_SIZE, np.int64)
        self.helpers = [_Helper(thread, self.sync) for thread in range(1, threads)]
        self.jobs = 0
        _serve(0, self.sync, 0, 0)  # compiled or loaded here, where nobody waits for it

    def run(self, kernel, threads: int, args: tuple) -> None:
        self.jobs += 1
        job = self.jobs * _JOB_UNIT + threads
        self.sync[_NEXT_JOB] = job
        helpers = self.helpers[: threads - 1]
        try:
            for helper in helpers:
                helper.expect(self.executor, job)
            kernel(0, threads, self.sync, *args)
        finally:
            if self.sync[_JOB] != job:  # it never began
                for helper in helpers:
                    helper.expect(self.executor, 0)


_num_threads = 1 if JIT_DISABLED else numba.config.NUMBA_NUM_THREADS
_busy = threading.Lock()
_team: _Team | None = None


def set_num_threads(n: int) -> None:
    """Let a call use ``n`` threads (default: the processors this process may run on). Results do not depend on it.

    Raises:
        TypeError: ``n`` is not an integer.
        ValueError: ``n`` is not in 1..256.
    """
    global _num_threads, _team
    if isinstance(n, (bool, np.timedelta64)) or not isinstance(n, (int, np.integer)):
        raise TypeError(f"n must be an integer, got {n!r}")
    if not 1 <= n <= _MOST_THREADS:
        raise ValueError(f"n must be in 1..{_MOST_THREADS}, got {n}")
    with _busy:
        if _team is not None:
            _team.executor.shutdown()
        _team = None
        _num_threads = 1 if JIT_DISABLED else int(n)


def get_num_threads() -> int:
    """The number of threads a call may use."""
    return _num_threads


_SHORT_FLOPS, _LONG_FLOPS = 1.5e6, 1e8
"""Work that is over before a second thread has begun, and work that is worth waking one for."""
_IN_A_LOOP = 2e-3
"""Seconds between two calls for which the second one finds the helpers awake, or should."""
_last_call = 0.0


def count_for(flops: float) -> int:
    """How many threads a call of that much work should use."""
    global _last_call
    if flops < _SHORT_FLOPS:
        return 1
    before, _last_call = _last_call, time.perf_counter()
    return _num_threads if flops >= _LONG_FLOPS or _last_call - before < _IN_A_LOOP else 1


def _after_fork() -> None:
    """A forked child has none of its parent's threads, and perhaps a lock one of them held."""
    global _busy, _team
    _busy, _team = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def run(kernel, *args, threads: int | None = None) -> None:
    """``kernel(thread, threads, sync, *args)`` on every thread, or on this one where the others are taken.

    The kernel begins with `start_together` and ends with `meet`.
    """
    global _team
    lock = _busy
    if threads == 1 or _num_threads == 1 or not lock.acquire(blocking=False):
        kernel(0, 1, ALONE, *args)
        return
    try:
        # only now: until the lock was taken another thread may have set it, and whoever is missing is waited for
        threads = _num_threads if threads is None else min(threads, _num_threads)
        if threads == 1:
            kernel(0, 1, ALONE, *args)
            return
        if _team is None:
            _team = _Team(_num_threads)
        _team.run(kernel, threads, args)
    finally:
        lock.release()

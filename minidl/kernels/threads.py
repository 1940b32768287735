"""Our own threads: one kernel run by several at once, meeting at barriers, on one GIL-free call.

A thread-pool launch for every parallel loop costs microseconds, and a training step of a small
net has a dozen such loops. Here a *whole slice of training* is one call: every thread runs the same kernel
with its own number (``thread`` of ``threads``), works on its share of rows or columns, and meets the others
at a barrier, which costs a fraction of a microsecond. It needs no OpenMP and survives a fork.
"""

from __future__ import annotations

import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor, wait

import numba
import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .jit import JIT_DISABLED, jit, smaller
from .simd import IS_X86

_ARRIVED, _GENERATION, _START = 0, 16, 32  # two cache lines apart, so that waiters do not disturb each other
_WAIT, _GO, _CANCEL = 0, 1, 2
_SPINS_BEFORE_YIELD = 2000
ALONE = np.zeros(48, np.int64)
"""The meeting place of a single thread."""

_CAN_YIELD = sys.platform != "win32"

if JIT_DISABLED:

    def meet(sync, threads):
        """Nothing to wait for: without compiled code there is one thread."""

    def start_together(thread, sync, threads):
        return True

    def flush_denormals():
        return 0

    def restore_denormals(mode):
        """Nothing was changed."""

else:
    _INT = ir.IntType(64)

    def _element(context, builder, array_type, array, index):
        data = context.make_array(array_type)(context, builder, array).data
        return builder.gep(data, [index], source_etype=_INT)

    def _call_external(builder, result, name, *pointers):
        """Calls an LLVM intrinsic or a function of the C library; all arguments are pointers."""
        byte_pointer = ir.IntType(8).as_pointer()
        function_type = ir.FunctionType(result, [byte_pointer] * len(pointers))
        function = cgutils.get_or_insert_function(builder.module, function_type, name)
        builder.call(function, [builder.bitcast(pointer, byte_pointer) for pointer in pointers])

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

    @jit
    def _wait_while(sync, index, value):
        spins = 0
        while _atomic_load(sync, index) == value:
            _pause()
            spins += 1
            if spins > _SPINS_BEFORE_YIELD:
                _yield()

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
            _wait_while(sync, _GENERATION, generation)

    @jit
    def start_together(thread, sync, threads):
        """Helpers wait for thread 0; False: it was interrupted before it began, so there is nothing to do."""
        if threads == 1:
            return True
        if thread == 0:
            _atomic_store(sync, _START, _GO)
            return True
        _wait_while(sync, _START, _WAIT)
        return _atomic_load(sync, _START) == _GO

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


_num_threads = 1 if JIT_DISABLED else numba.config.NUMBA_NUM_THREADS
_busy = threading.Lock()
_helpers: ThreadPoolExecutor | None = None


def set_num_threads(n: int) -> None:
    """Let a call use ``n`` threads (default: the processors this process may run on). Results do not depend on it.

    Raises:
        TypeError: ``n`` is not an integer.
        ValueError: ``n`` is not in 1..256.
    """
    global _num_threads, _helpers
    if isinstance(n, bool) or not isinstance(n, (int, np.integer)):
        raise TypeError(f"n must be an integer, got {n!r}")
    if not 1 <= n <= 256:
        raise ValueError(f"n must be in 1..256, got {n}")
    with _busy:
        if _helpers is not None:
            _helpers.shutdown()
        _helpers = None
        _num_threads = 1 if JIT_DISABLED else int(n)


def get_num_threads() -> int:
    """The number of threads a call may use."""
    return _num_threads


def _after_fork() -> None:
    """A forked child has none of its parent's threads, and perhaps a lock one of them held."""
    global _busy, _helpers
    _busy, _helpers = threading.Lock(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def run(kernel, *args, threads: int | None = None) -> None:
    """``kernel(thread, threads, sync, *args)`` on every thread, or on this one where the others are taken.

    The kernel begins with `start_together` and ends with `meet`.
    """
    global _helpers
    threads = _num_threads if threads is None else min(threads, _num_threads)
    lock = _busy
    if threads == 1 or not lock.acquire(blocking=False):
        kernel(0, 1, ALONE, *args)
        return
    sync = np.zeros(48, np.int64)
    running = []
    try:
        if _helpers is None:
            _helpers = ThreadPoolExecutor(_num_threads - 1, thread_name_prefix="minidl")
        for thread in range(1, threads):
            running.append(_helpers.submit(kernel, thread, threads, sync, *args))
        kernel(0, threads, sync, *args)
    finally:
        if sync[_START] == _WAIT:  # interrupted on the way in: let the helpers go
            sync[_START] = _CANCEL
        try:
            _wait_whatever_comes(running)
        finally:
            lock.release()


def _wait_whatever_comes(running) -> None:
    """Until the helpers have stopped writing; an interrupt on the way is raised after."""
    interrupt = None
    while True:
        try:
            wait(running)
            break
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt

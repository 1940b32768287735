"""What kernels need of the processor and the system: atomic memory, a clock, ways to wait, denormals.

Functions of the system are called by name; the process has them loaded. What is chosen here by processor and system
was run on x86-64 Linux; `docs/processors.md` says what was run where.
"""

import sys
import time

from llvmlite import ir
from numba.core import cgutils, types

from . import emit
from .emit import intrinsic
from .jit import jit
from .target import IS_ARM, IS_X86

_IS_WINDOWS = sys.platform == "win32"


@intrinsic(types.int64)
def atomic_add(builder, array, index, value):
    """array[index] += value; returns what was there before."""
    return builder.atomic_rmw("add", array.address(index), value, "seq_cst")


@intrinsic(types.int64, plain=lambda array, index: array[index])
def atomic_load(builder, array, index):
    """array[index]. After it, all that its writer stored before is visible."""
    return builder.load_atomic(array.address(index), "seq_cst", 8, typ=emit.INT)


@intrinsic(types.void, plain=lambda array, index, value: array.__setitem__(index, value))
def atomic_store(builder, array, index, value):
    """array[index] = value. A thread that loads it sees all that this thread stored before."""
    builder.store_atomic(value, array.address(index), "seq_cst", 8)


@intrinsic(types.int64, plain=time.monotonic_ns)
def clock(builder):
    """Nanoseconds since some moment."""
    now = cgutils.alloca_once(builder, emit.INT, 2)
    if _IS_WINDOWS:
        emit.call(builder, "QueryPerformanceCounter", emit.INT32, now)
        tick = round(1e9 * time.get_clock_info("perf_counter").resolution)
        return builder.mul(builder.load(now, typ=emit.INT), emit.constant(tick))
    emit.call(builder, "clock_gettime", emit.INT32, ir.Constant(emit.INT32, time.CLOCK_MONOTONIC), now)
    after = builder.gep(now, [emit.constant(1)], source_etype=emit.INT)
    seconds, nanoseconds = (builder.load(part, typ=emit.INT) for part in (now, after))
    return builder.add(builder.mul(seconds, emit.constant(10**9)), nanoseconds)


@intrinsic(types.void)
def pause(builder):
    """Tell the processor that this is a spinning loop."""
    if IS_X86:
        emit.call(builder, "llvm.x86.sse2.pause", emit.VOID)
    elif IS_ARM:  # its `yield` does nothing on most processors; `isb` takes about as long as `pause`
        emit.call(builder, "llvm.aarch64.isb", emit.VOID, ir.Constant(emit.INT32, 15))


@intrinsic(types.void)
def yield_cpu(builder):
    """Give the processor to another thread that is ready."""
    emit.call(builder, "SwitchToThread" if _IS_WINDOWS else "sched_yield", emit.INT32)


# The system's lock and condition variable, in memory of zeros.
if _IS_WINDOWS:
    _INIT, _LOCK, _UNLOCK = (), "AcquireSRWLockExclusive", "ReleaseSRWLockExclusive"
    _WAIT, _WAKE = "SleepConditionVariableSRW", "WakeAllConditionVariable"
    _FOREVER = ir.Constant(emit.INT32, -1), ir.Constant(emit.INT32, 0)
else:
    _INIT, _LOCK, _UNLOCK = (
        ("pthread_mutex_init", "pthread_cond_init"),
        "pthread_mutex_lock",
        "pthread_mutex_unlock",
    )
    _WAIT, _WAKE, _FOREVER = "pthread_cond_wait", "pthread_cond_broadcast", ()


@intrinsic(types.void)
def make_waiting(builder, array, lock, condition):
    """Make a lock in array[lock:] and a condition in array[condition:]."""
    for function, place in zip(_INIT, (lock, condition), strict=False):
        emit.call(
            builder, function, emit.INT32, array.address(place), ir.Constant(emit.BYTE.as_pointer(), None)
        )


def _call_on(function):
    """An intrinsic that calls ``function`` with the address of array[index]."""

    @intrinsic(types.void)
    def call(builder, array, index):
        emit.call(builder, function, emit.INT32, array.address(index))

    return call


lock, unlock, wake_all = _call_on(_LOCK), _call_on(_UNLOCK), _call_on(_WAKE)


@intrinsic(types.void)
def sleep_until_woken(builder, array, condition, lock):
    """Release the lock, sleep until `wake_all`, and take the lock again. Systems may wake a thread without a reason."""
    emit.call(builder, _WAIT, emit.INT32, array.address(condition), array.address(lock), *_FOREVER)


# Denormal numbers are treated as zero while the compiled loop runs. A saturated softmax or a dead unit fills Adam's
# averages with them, and each costs a hundred cycles.
_FLUSH = (1 << 24) if IS_ARM else 0x8040
"""FZ of ARM's FPCR; flush-to-zero and denormals-are-zero of x86's MXCSR."""


@intrinsic(types.int64, plain=lambda: 0)
def _control_word(builder):
    """This thread's floating-point control word; 0 where it is not known."""
    if IS_ARM:
        return emit.call(builder, "llvm.aarch64.get.fpcr", emit.INT)
    slot = cgutils.alloca_once_value(builder, ir.Constant(emit.INT32, 0))
    if IS_X86:
        emit.call(builder, "llvm.x86.sse.stmxcsr", emit.VOID, slot)
    return builder.zext(builder.load(slot, typ=emit.INT32), emit.INT)


@intrinsic(types.void, plain=lambda word: None)
def _set_control_word(builder, word):
    if IS_ARM:
        emit.call(builder, "llvm.aarch64.set.fpcr", emit.VOID, word)
    elif IS_X86:
        slot = cgutils.alloca_once_value(builder, builder.trunc(word, emit.INT32))
        emit.call(builder, "llvm.x86.sse.ldmxcsr", emit.VOID, slot)


@jit
def denormals_mode():
    """How this thread treats denormals, to give to `restore_denormals`."""
    return _control_word()


@jit
def flush_denormals():
    """Treat denormals as zero on this thread; returns the mode before."""
    mode = _control_word()
    _set_control_word(mode | _FLUSH)
    return mode


@jit
def restore_denormals(mode):
    _set_control_word(mode)

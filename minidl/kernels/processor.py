"""What kernels need of the processor and the system: atomic memory, pauses, which processor a thread is on, denormals.

Denormal numbers are treated as zero while the compiled loop runs. A saturated softmax or a dead unit fills Adam's
averages with them, and each costs a hundred cycles.
"""

import sys

from llvmlite import ir
from numba.core import cgutils, types

from . import emit
from .emit import intrinsic
from .jit import jit
from .target import IS_X86

KNOWS_CPU = sys.platform == "linux"
_CPU_SET_WORDS = 16
"""64-bit words of the C library's cpu_set_t. On a machine with more processors the mask stays 0, and 0 is refused."""
_FLUSH_TO_ZERO_AND_DENORMALS_ARE_ZERO = 0x8040


@intrinsic(types.int64)
def atomic_add(builder, array, index, value):
    """array[index] += value; returns what was there before."""
    return builder.atomic_rmw("add", array.address(index), value, "acq_rel")


@intrinsic(types.int64)
def atomic_load(builder, array, index):
    """array[index]; whatever its writer stored before it is visible afterwards."""
    return builder.load_atomic(array.address(index), "acquire", 8, typ=emit.INT)


@intrinsic(types.void)
def atomic_store(builder, array, index, value):
    """array[index] = value; whoever loads it sees all that this thread stored before."""
    builder.store_atomic(value, array.address(index), "release", 8)


@intrinsic(types.void)
def pause(builder):
    """Tell the processor that this is a spinning loop."""
    if IS_X86:
        emit.call(builder, "llvm.x86.sse2.pause", emit.VOID)


@intrinsic(types.void)
def yield_cpu(builder):
    """Give the processor to another thread that is ready."""
    if sys.platform != "win32":
        emit.call(builder, "sched_yield", emit.INT32)


@intrinsic(types.int64)
def current_cpu(builder):
    """The number of the processor this thread runs on, or -1 where the system does not say."""
    if not KNOWS_CPU:
        return emit.constant(-1)
    return builder.sext(emit.call(builder, "sched_getcpu", emit.INT32), emit.INT)


@intrinsic(types.void)
def move_off_cpu(builder, cpu):
    """Move this thread, which runs on ``cpu``, to any other processor that the system allows it.

    ``cpu`` is taken from the processors this thread may use, so that the system moves it at once, then given back.
    """
    if not KNOWS_CPU:
        return
    no_cpu = ir.Constant(ir.ArrayType(emit.INT, _CPU_SET_WORDS), None)
    allowed = builder.bitcast(cgutils.alloca_once_value(builder, no_cpu), emit.INT.as_pointer())
    arguments = ir.Constant(emit.INT32, 0), emit.constant(8 * _CPU_SET_WORDS), allowed  # 0: this thread
    emit.call(builder, "sched_getaffinity", emit.INT32, *arguments)
    index = builder.and_(builder.lshr(cpu, emit.constant(6)), emit.constant(_CPU_SET_WORDS - 1))
    word = builder.gep(allowed, [index], source_etype=emit.INT)
    bit = builder.shl(emit.constant(1), builder.and_(cpu, emit.constant(63)))
    for _ in ("take", "give back"):
        builder.store(builder.xor(builder.load(word, typ=emit.INT), bit), word)
        emit.call(builder, "sched_setaffinity", emit.INT32, *arguments)


@intrinsic(types.int64, plain=lambda: 0)
def _control_word(builder):
    """This thread's floating-point control word; 0 on a processor other than x86."""
    slot = cgutils.alloca_once_value(builder, ir.Constant(emit.INT32, 0))
    if IS_X86:
        emit.call(builder, "llvm.x86.sse.stmxcsr", emit.VOID, slot)
    return builder.zext(builder.load(slot, typ=emit.INT32), emit.INT)


@intrinsic(types.void, plain=lambda word: None)
def _set_control_word(builder, word):
    slot = cgutils.alloca_once_value(builder, builder.trunc(word, emit.INT32))
    if IS_X86:
        emit.call(builder, "llvm.x86.sse.ldmxcsr", emit.VOID, slot)


@jit
def flush_denormals():
    """Treat denormals as zero on this thread; returns the mode to give to `restore_denormals`."""
    mode = _control_word()
    _set_control_word(mode | _FLUSH_TO_ZERO_AND_DENORMALS_ARE_ZERO)
    return mode


@jit
def restore_denormals(mode):
    _set_control_word(mode)

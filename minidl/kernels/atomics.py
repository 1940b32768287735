"""What threads need of the processor and the system: atomic memory, pauses, and which processor a thread is on."""

from __future__ import annotations

import sys

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from . import emit
from .target import IS_X86

CAN_YIELD = sys.platform != "win32"
KNOWS_CPU = sys.platform == "linux"

_CPU_SET_WORDS = 16
"""64-bit words of the C library's cpu_set_t. On a machine with more processors the masks stay 0, and 0 is refused."""


@intrinsic
def atomic_add(typingctx, array, index, value):
    """array[index] += value; returns what was there before."""

    def codegen(context, builder, signature, args):
        pointer = emit.element(context, builder, signature.args[0], args[0], args[1])
        return builder.atomic_rmw("add", pointer, args[2], "acq_rel")

    return types.int64(array, types.intp, types.int64), codegen


@intrinsic
def atomic_load(typingctx, array, index):
    """array[index]; whatever its writer stored before it is visible afterwards."""

    def codegen(context, builder, signature, args):
        pointer = emit.element(context, builder, signature.args[0], args[0], args[1])
        return builder.load_atomic(pointer, "acquire", 8, typ=emit.INT)

    return types.int64(array, types.intp), codegen


@intrinsic
def atomic_store(typingctx, array, index, value):
    """array[index] = value; whoever loads it sees all that this thread stored before."""

    def codegen(context, builder, signature, args):
        pointer = emit.element(context, builder, signature.args[0], args[0], args[1])
        builder.store_atomic(args[2], pointer, "release", 8)
        return context.get_dummy_value()

    return types.void(array, types.intp, types.int64), codegen


@intrinsic
def pause(typingctx):
    """Tell the processor that this is a spinning loop."""

    def codegen(context, builder, signature, args):
        if IS_X86:
            emit.call(builder, "llvm.x86.sse2.pause", emit.VOID)
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def yield_cpu(typingctx):
    """Give the processor to another thread that is ready (there may be fewer free processors than threads)."""

    def codegen(context, builder, signature, args):
        if CAN_YIELD:
            emit.call(builder, "sched_yield", emit.INT32)
        return context.get_dummy_value()

    return types.void(), codegen


@intrinsic
def current_cpu(typingctx):
    """The number of the processor this thread runs on, or -1 where the system does not say."""

    def codegen(context, builder, signature, args):
        if not KNOWS_CPU:
            return emit.constant(-1)
        return builder.sext(emit.call(builder, "sched_getcpu", emit.INT32), emit.INT)

    return types.int64(), codegen


@intrinsic
def move_off_cpu(typingctx, cpu):
    """Move this thread to any processor but ``cpu``, if the system allows it another.

    ``cpu`` is removed from the processors this thread may use, so that the system moves it at once, and then allowed
    again.
    """

    def codegen(context, builder, signature, args):
        if not KNOWS_CPU:
            return context.get_dummy_value()
        this_thread, size = ir.Constant(emit.INT32, 0), emit.constant(8 * _CPU_SET_WORDS)
        no_cpu = ir.Constant(ir.ArrayType(emit.INT, _CPU_SET_WORDS), None)
        allowed, others = (cgutils.alloca_once_value(builder, no_cpu) for _ in range(2))
        allowed_bytes, others_bytes = (
            builder.bitcast(mask, emit.BYTE.as_pointer()) for mask in (allowed, others)
        )
        emit.call(builder, "sched_getaffinity", emit.INT32, this_thread, size, allowed_bytes)
        builder.store(builder.load(allowed, typ=no_cpu.type), others)
        index = builder.and_(builder.lshr(args[0], emit.constant(6)), emit.constant(_CPU_SET_WORDS - 1))
        word = builder.gep(builder.bitcast(others, emit.INT.as_pointer()), [index], source_etype=emit.INT)
        bit = builder.shl(emit.constant(1), builder.and_(args[0], emit.constant(63)))
        builder.store(builder.and_(builder.load(word, typ=emit.INT), builder.not_(bit)), word)
        for mask in (others_bytes, allowed_bytes):
            emit.call(builder, "sched_setaffinity", emit.INT32, this_thread, size, mask)
        return context.get_dummy_value()

    return types.void(types.int64), codegen

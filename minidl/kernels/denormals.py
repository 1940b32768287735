"""Denormal numbers, treated as zero while the compiled loop runs.

A saturated softmax or a dead unit fills Adam's averages with denormals, and each costs a hundred cycles.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from . import emit
from .jit import JIT_DISABLED, jit
from .target import IS_X86

_FLUSH_TO_ZERO_AND_DENORMALS_ARE_ZERO = 0x8040

if JIT_DISABLED:

    def flush_denormals():
        return 0

    def restore_denormals(mode):
        """Nothing was changed."""

else:

    @intrinsic
    def _control_word(typingctx):
        """This thread's floating-point control word; 0 where a processor other than x86 has none."""

        def codegen(context, builder, signature, args):
            slot = builder.alloca(emit.INT32)
            builder.store(ir.Constant(emit.INT32, 0), slot)
            if IS_X86:
                emit.call(
                    builder, "llvm.x86.sse.stmxcsr", emit.VOID, builder.bitcast(slot, emit.BYTE.as_pointer())
                )
            return builder.load(slot, typ=emit.INT32)

        return types.uint32(), codegen

    @intrinsic
    def _set_control_word(typingctx, word):
        def codegen(context, builder, signature, args):
            slot = builder.alloca(emit.INT32)
            builder.store(args[0], slot)
            if IS_X86:
                emit.call(
                    builder, "llvm.x86.sse.ldmxcsr", emit.VOID, builder.bitcast(slot, emit.BYTE.as_pointer())
                )
            return context.get_dummy_value()

        return types.void(types.uint32), codegen

    @jit
    def flush_denormals():
        """Treat denormals as zero on this thread; returns the mode to give to `restore_denormals`."""
        mode = _control_word()
        _set_control_word(np.uint32(mode | np.uint32(_FLUSH_TO_ZERO_AND_DENORMALS_ARE_ZERO)))
        return mode

    @jit
    def restore_denormals(mode):
        _set_control_word(mode)

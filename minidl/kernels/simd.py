"""Explicit-vector building blocks emitted as LLVM IR, each with a plain-Python twin."""

from __future__ import annotations

import llvmlite.binding as llvm
import numba
from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from .jit import JIT_DISABLED


def _target_features() -> frozenset[str]:
    """Instruction-set names of the processor kernels are compiled for (NUMBA_CPU_FEATURES is obeyed)."""
    if numba.config.CPU_FEATURES is not None:
        listed = numba.config.CPU_FEATURES.split(",")
        return frozenset(name[1:] for name in listed if name.startswith("+"))
    return frozenset(name for name, present in llvm.get_host_cpu_features().items() if present)


FEATURES = _target_features()
HAS_FMA = "fma" in FEATURES or "neon" in FEATURES


if JIT_DISABLED:

    def fma(a, b, c):
        return a * b + c

else:

    @intrinsic
    def fma(typingctx, a, b, c):
        """a * b + c, rounded once. Scalar; a loop over it vectorises."""

        def codegen(context, builder, signature, args):
            if not HAS_FMA:  # llvm.fma would become a call into libm for every element
                return builder.fadd(builder.fmul(args[0], args[1]), args[2])
            kind = args[0].type
            name = "llvm.fma.f32" if kind == ir.FloatType() else "llvm.fma.f64"
            function = cgutils.get_or_insert_function(builder.module, ir.FunctionType(kind, [kind] * 3), name)
            return builder.call(function, args)

        if not (isinstance(a, types.Float) and a == b == c):
            raise numba.TypingError(f"fma needs three floats of one type, got {a}, {b}, {c}")
        return a(a, a, a), codegen

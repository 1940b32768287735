"""Short sequences of LLVM instructions that several intrinsics share. Each function appends them to ``builder``."""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types

from .target import HAS_FMA

INT = ir.IntType(64)
INT32 = ir.IntType(32)
BYTE = ir.IntType(8)
VOID = ir.VoidType()
FLOATS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}
_ELEMENTS = {**FLOATS, types.uint8: BYTE, types.int64: INT}


def constant(value: int):
    """A 64-bit integer."""
    return ir.Constant(INT, value)


def suffix(kind) -> str:
    """How LLVM names a float type, or a vector of them, at the end of an intrinsic's name."""
    if isinstance(kind, ir.VectorType):
        return f"v{kind.count}{suffix(kind.element)}"
    return "f32" if kind == ir.FloatType() else "f64"


def call(builder, name, result, *arguments):
    """Call an LLVM intrinsic or a function of the C library."""
    function_type = ir.FunctionType(result, [argument.type for argument in arguments])
    function = cgutils.get_or_insert_function(builder.module, function_type, name)
    return builder.call(function, arguments)


def fma(builder, a, b, c):
    """a * b + c on scalars or vectors, rounded once where the processor can."""
    if not HAS_FMA:  # llvm.fma would become a call into libm for every element
        return builder.fadd(builder.fmul(a, b), c)
    return call(builder, f"llvm.fma.{suffix(a.type)}", a.type, a, b, c)


def element(context, builder, kind, array, at):
    """The address of element ``at`` of a contiguous array (or of a bare pointer), read as flat memory."""
    data = (
        array if isinstance(kind, types.CPointer) else context.make_array(kind)(context, builder, array).data
    )
    return builder.gep(data, [at], source_etype=_ELEMENTS[kind.dtype])


def splat(builder, scalar, lanes):
    """A vector with ``scalar`` in each lane."""
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT32, lanes), [0] * lanes))


def lane_mask(builder, count, lanes):
    """Lane i is on where i < count. A masked load or store does not touch the memory of a lane that is off."""
    indices = ir.Constant(ir.VectorType(INT32, lanes), list(range(lanes)))
    return builder.icmp_signed("<", indices, splat(builder, builder.trunc(count, INT32), lanes))


def masked_load(builder, pointer, align, mask, others):
    """A vector from memory where ``mask`` is on, the lanes of ``others`` where it is off."""
    vector, align = others.type, ir.Constant(INT32, align)
    return call(builder, f"llvm.masked.load.{suffix(vector)}.p0", vector, pointer, align, mask, others)


def masked_store(builder, value, pointer, align, mask):
    """Store the lanes of ``value`` where ``mask`` is on."""
    align = ir.Constant(INT32, align)
    call(builder, f"llvm.masked.store.{suffix(value.type)}.p0", VOID, value, pointer, align, mask)


def prefetch(builder, address, locality):
    """Ask for a cache line that will be read. An address outside every array does no harm.

    ``locality`` 3 fetches into all caches, 2 into the second level.
    """
    flags = [ir.Constant(INT32, flag) for flag in (0, locality, 1)]  # to read, into which cache, data
    call(builder, "llvm.prefetch.p0", VOID, builder.bitcast(address, BYTE.as_pointer()), *flags)

"""The decorator that makes an intrinsic, and short sequences of LLVM instructions that several intrinsics share.

Each function appends its instructions to ``builder``.
"""

import functools

import numba.extending
from llvmlite import ir
from numba.core import cgutils, types

from .jit import JIT_DISABLED
from .target import HAS_FMA

INT, INT32, BYTE, VOID = ir.IntType(64), ir.IntType(32), ir.IntType(8), ir.VoidType()
FLOATS = {types.float32: ir.FloatType(), types.float64: ir.DoubleType()}
_ELEMENTS = {**FLOATS, types.uint8: BYTE, types.int64: INT}


class Memory:
    """A contiguous array, or a bare pointer, as an intrinsic's code sees it: its elements one after the other."""

    def __init__(self, builder, start, dtype, size=None):
        self._builder, self.start, self.size = builder, start, size
        self.element, self.align = _ELEMENTS[dtype], dtype.bitwidth // 8

    def address(self, at):
        """The address of element ``at``."""
        return self._builder.gep(self.start, [at], source_etype=self.element)


def _read_argument(context, builder, kind, value):
    if isinstance(kind, types.BaseTuple):
        parts = [builder.extract_value(value, i) for i in range(len(kind))]
        return [_read_argument(context, builder, *pair) for pair in zip(kind, parts, strict=True)]
    if isinstance(kind, types.Array):
        array = context.make_array(kind)(context, builder, value)
        return Memory(builder, array.data, kind.dtype, array.nitems)
    return Memory(builder, value, kind.dtype) if isinstance(kind, types.CPointer) else value


def intrinsic(result, plain=None):
    """A decorator: makes an intrinsic, a function for kernels, of one that writes its code.

    The decorated function is given ``builder`` and the arguments: arrays as `Memory`, tuples as lists, anything else
    as LLVM values, integers with 64 bits. ``result`` is its result's type, or a function that tells it from the
    arguments' types (None: they do not fit). ``plain`` stands for the intrinsic under ``NUMBA_DISABLE_JIT=1``.
    """

    def decorate(write):
        if JIT_DISABLED:
            return plain

        @functools.wraps(write)  # Numba reads the number of arguments from the signature
        def define(typingctx, *kinds):
            kinds = [types.int64 if isinstance(kind, types.Integer) else kind for kind in kinds]
            kind = result if isinstance(result, types.Type) else result(*kinds)

            def codegen(context, builder, signature, values):
                pairs = zip(kinds, values, strict=True)
                value = write(builder, *(_read_argument(context, builder, *pair) for pair in pairs))
                return context.get_dummy_value() if value is None else value

            return kind and (kind(*kinds), codegen)

        return numba.extending.intrinsic(define)

    return decorate


# min and max of integers; Numba compiles its own anew for every mix of types and literals
@intrinsic(types.int64, plain=min)
def smaller(builder, a, b):
    return builder.select(builder.icmp_signed("<", a, b), a, b)


@intrinsic(types.int64, plain=max)
def larger(builder, a, b):
    return builder.select(builder.icmp_signed(">", a, b), a, b)


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


def splat(builder, scalar, lanes):
    """A vector with ``scalar`` in each lane."""
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(INT32, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(INT32, lanes), [0] * lanes))


def lane_mask(builder, count, lanes):
    """Lane i is on where i < count. A masked load or store does not touch the memory of a lane that is off."""
    indices = ir.Constant(ir.VectorType(INT32, lanes), list(range(lanes)))
    return builder.icmp_signed("<", indices, splat(builder, builder.trunc(count, INT32), lanes))


def load(builder, address, vector, align, mask=None, others=None):
    """A vector from memory. Where ``mask`` is off nothing is read: those lanes are of ``others`` (None: zero)."""
    pointer = builder.bitcast(address, vector.as_pointer())
    if mask is None:
        return builder.load(pointer, align=align, typ=vector)
    others = ir.Constant(vector, None) if others is None else others
    name, align = f"llvm.masked.load.{suffix(vector)}.p0", ir.Constant(INT32, align)
    return call(builder, name, vector, pointer, align, mask, others)


def store(builder, value, address, align, mask=None):
    """Store a vector, or its lanes where ``mask`` is on."""
    pointer = builder.bitcast(address, value.type.as_pointer())
    if mask is None:
        builder.store(value, pointer, align=align)
    else:
        name, align = f"llvm.masked.store.{suffix(value.type)}.p0", ir.Constant(INT32, align)
        call(builder, name, VOID, value, pointer, align, mask)


def merge(builder, *sources):
    """The value that comes from one of several blocks; a source is (value, block)."""
    merged = builder.phi(sources[0][0].type)
    for source in sources:
        merged.add_incoming(*source)
    return merged


def prefetch(builder, address, locality):
    """Ask for a cache line that will be read, into all caches (``locality`` 3) or the second level (2). An address
    outside every array does no harm."""
    flags = [ir.Constant(INT32, flag) for flag in (0, locality, 1)]  # to read, into which cache, data
    call(builder, "llvm.prefetch.p0", VOID, builder.bitcast(address, BYTE.as_pointer()), *flags)

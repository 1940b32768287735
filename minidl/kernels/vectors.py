"""Vectors as values: load, compute, sum and store a register's worth of elements by name.

A sum over a row does not vectorise by itself: strict arithmetic forbids LLVM to reorder it. Here
the partial sums are spelled out: a vector has one lane for each of 64 bytes (16 float32 or
8 float64), whatever the processor; LLVM splits it where registers are shorter. So the order of
every sum is a property of the data alone. Under ``NUMBA_DISABLE_JIT=1`` a vector is a short array.
"""

from __future__ import annotations

import operator

import numpy as np
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import register_default
from numba.core.datamodel.models import PrimitiveModel
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin

from .jit import JIT_DISABLED
from .simd import HAS_FMA

VECTOR_BYTES = 64
CHUNK = 1024
"""Rows are summed in chunks of so many elements, and the chunks in float64."""

_OPERATORS = {operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"}


class Vector(types.Type):
    """The Numba type of a vector of floats."""

    def __init__(self, dtype: types.Float):
        self.dtype = dtype
        self.lanes = VECTOR_BYTES * 8 // dtype.bitwidth
        super().__init__(f"vector({dtype} x {self.lanes})")


@register_default(Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(_llvm_float(kind.dtype), kind.lanes))


def _llvm_float(dtype):
    return ir.FloatType() if dtype == types.float32 else ir.DoubleType()


def _is_float(kind) -> bool:
    return isinstance(kind, (types.Float, Vector))


class Term:
    """A float, or a vector of them, while its code is written: Python's operators append instructions."""

    def __init__(self, builder, value):
        self.builder = builder
        self.value = value
        kind = value.type
        self.lanes = kind.count if isinstance(kind, ir.VectorType) else 0
        self.element = kind.element if self.lanes else kind
        self.is_double = self.element == ir.DoubleType()

    def _new(self, value) -> Term:
        return Term(self.builder, value)

    def _operand(self, other):
        return other.value if isinstance(other, Term) else self.constant(other).value

    def _whole(self, number):
        """An integer constant of the float's width (a vector of them for a vector)."""
        kind = ir.IntType(64 if self.is_double else 32)
        if self.lanes:
            return ir.Constant(ir.VectorType(kind, self.lanes), [number] * self.lanes)
        return ir.Constant(kind, number)

    def constant(self, number) -> Term:
        kind = self.value.type
        return self._new(ir.Constant(kind, [float(number)] * self.lanes if self.lanes else float(number)))

    def __add__(self, other):
        return self._new(self.builder.fadd(self.value, self._operand(other)))

    def __sub__(self, other):
        return self._new(self.builder.fsub(self.value, self._operand(other)))

    def __mul__(self, other):
        return self._new(self.builder.fmul(self.value, self._operand(other)))

    def __truediv__(self, other):
        return self._new(self.builder.fdiv(self.value, self._operand(other)))

    def __rtruediv__(self, other):
        return self.constant(other) / self

    def __rsub__(self, other):
        return self.constant(other) - self

    def __neg__(self):
        return self._new(self.builder.fneg(self.value))

    def fma(self, factor, addend) -> Term:
        """self * factor + addend, rounded once where the processor can."""
        factor, addend = self._operand(factor), self._operand(addend)
        if not HAS_FMA:
            return self._new(self.builder.fadd(self.builder.fmul(self.value, factor), addend))
        return self._new(self.intrinsic("llvm.fma", self.value, factor, addend))

    def abs(self) -> Term:
        return self._new(self.intrinsic("llvm.fabs", self.value))

    def intrinsic(self, name, *operands):
        kind = self.value.type
        suffix = (f"v{self.lanes}" if self.lanes else "") + ("f64" if self.is_double else "f32")
        function_type = ir.FunctionType(kind, [kind] * len(operands))
        function = cgutils.get_or_insert_function(self.builder.module, function_type, f"{name}.{suffix}")
        return self.builder.call(function, list(operands))

    def where(self, comparison, other, if_true, if_false) -> Term:
        """if_true where self <comparison> other, else if_false: a NaN compares as false."""
        mask = self.builder.fcmp_ordered(comparison, self.value, self._operand(other))
        return self._new(self.builder.select(mask, self._operand(if_true), self._operand(if_false)))

    def polynomial(self, coefficients) -> Term:
        """Horner's rule; coefficients from the constant term up."""
        total = self.constant(coefficients[-1])
        for coefficient in reversed(coefficients[:-1]):
            total = total.fma(self, coefficient)
        return total

    @property
    def bits(self):
        return self.builder.bitcast(self.value, self._whole(0).type)

    def from_bits(self, bits) -> Term:
        return self._new(self.builder.bitcast(bits, self.value.type))


def _splat(builder, scalar, lanes):
    undefined = ir.Constant(ir.VectorType(scalar.type, lanes), ir.Undefined)
    first = builder.insert_element(undefined, scalar, ir.Constant(ir.IntType(32), 0))
    zeros = ir.Constant(ir.VectorType(ir.IntType(32), lanes), [0] * lanes)
    return builder.shuffle_vector(first, undefined, zeros)


def _cast(builder, value, kind, dtype):
    if kind == dtype:
        return value
    resize = builder.fptrunc if dtype.bitwidth < kind.bitwidth else builder.fpext
    return resize(value, _llvm_float(dtype))


def _as_vector(builder, value, kind, result):
    if isinstance(kind, Vector) or not isinstance(result, Vector):
        return value
    return _splat(builder, _cast(builder, value, kind, result.dtype), result.lanes)


def _common(kinds):
    """The type of an operation (None: they do not mix). Beside a vector a scalar takes its precision."""
    if not all(_is_float(kind) for kind in kinds):
        return None
    vectors = [kind for kind in kinds if isinstance(kind, Vector)]
    result = vectors[0] if vectors else kinds[0]
    return result if all(kind == result for kind in vectors or kinds) else None


def elementwise(emit, twin):
    """A jit-callable function of floats or vectors: ``emit`` writes it in Terms, ``twin`` is plain NumPy."""
    if JIT_DISABLED:
        return twin

    def define(typingctx, *kinds):
        kinds = kinds[0] if len(kinds) == 1 and isinstance(kinds[0], tuple) else kinds
        result = _common(kinds)
        if result is None:
            return None

        def codegen(context, builder, sig, args):
            pairs = zip(args, kinds, strict=True)
            return emit(*(Term(builder, _as_vector(builder, *pair, result)) for pair in pairs)).value

        return result(*kinds), codegen

    return intrinsic(_with_arity(define, emit.__code__.co_argcount))


def _with_arity(define, count):
    """Numba reads an intrinsic's arity from its signature."""
    if count == 1:
        return lambda typingctx, a: define(typingctx, a)
    if count == 2:
        return lambda typingctx, a, b: define(typingctx, a, b)
    if count == 3:
        return lambda typingctx, a, b, c: define(typingctx, a, b, c)
    return lambda typingctx, a, b, c, d: define(typingctx, a, b, c, d)


multiply_add = elementwise(lambda a, b, c: a.fma(b, c), lambda a, b, c: a * b + c)
"""a * b + c, rounded once where the processor can."""

maximum = elementwise(lambda a, b: a.where(">", b, a, b), lambda a, b: np.where(a > b, a, b))
absolute = elementwise(lambda a: a.abs(), lambda a: np.abs(a))
where_le = elementwise(
    lambda a, b, c, d: a.where("<=", b, c, d), lambda a, b, c, d: np.where(a <= b, c, d)
)
"""where_le(a, b, c, d): c where a <= b, else d; a NaN in a or b gives d."""


if JIT_DISABLED:

    def stay_apart():
        pass

    def pointer(array):
        return array.reshape(-1)

    def lanes(array):
        return VECTOR_BYTES // array.itemsize

    def rounded(array, value):
        return array.dtype.type(value)

    def splat(array, value):
        return np.full(lanes(array), value, array.dtype)

    def load(array, at, count, fill):
        vector = splat(array, fill)
        count = max(0, min(count, len(vector)))
        vector[:count] = array.reshape(-1)[at : at + count]
        return vector

    def store(array, at, count, vector):
        count = max(0, min(count, len(vector)))
        array.reshape(-1)[at : at + count] = vector[:count]

    def get(array, at):
        return array.reshape(-1)[at]

    def put(array, at, value):
        array.reshape(-1)[at] = value

    def keep(vector, count):
        return np.where(np.arange(len(vector)) < count, vector, vector.dtype.type(0))

    def total(vector):
        while len(vector) > 1:
            vector = vector[: len(vector) // 2] + vector[len(vector) // 2 :]
        return vector[0]

    def largest(vector):
        return vector.max()

else:

    @intrinsic
    def stay_apart(typingctx):
        """Called in a kernel: LLVM shall not paste that kernel into its callers.

        Numba optimises a function's callees anew with each caller: without this, code that is
        called from three levels is compiled three times over.
        """

        def codegen(context, builder, sig, args):
            builder.function.attributes.add("noinline")
            return context.get_dummy_value()

        return types.void(), codegen

    def _index(number):
        return ir.Constant(ir.IntType(64), number)

    def _mask(builder, count, lanes):
        """Lane i is on where i < count (count below the number of lanes)."""
        indices = ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(lanes)))
        return builder.icmp_signed("<", indices, _splat(builder, builder.trunc(count, ir.IntType(32)), lanes))

    def _pointer(context, builder, kind, value, at):
        if not isinstance(kind, types.CPointer):
            value = context.make_array(kind)(context, builder, value).data
        return builder.gep(value, [at], source_etype=_llvm_float(kind.dtype))

    def _address(context, builder, kind, value, at):
        vector = ir.VectorType(_llvm_float(kind.dtype), Vector(kind.dtype).lanes)
        return builder.bitcast(_pointer(context, builder, kind, value, at), vector.as_pointer())

    def _masked(builder, kind, what, result, operands):
        suffix = f"v{kind.count}{'f32' if kind.element == ir.FloatType() else 'f64'}.p0"
        function_type = ir.FunctionType(result, [operand.type for operand in operands])
        name = f"llvm.masked.{what}.{suffix}"
        return builder.call(cgutils.get_or_insert_function(builder.module, function_type, name), operands)

    def _alignment(array_type):
        return array_type.dtype.bitwidth // 8

    @intrinsic
    def pointer(typingctx, array):
        """The array's memory: one register to pass on where an array is ten. It keeps nothing alive."""

        def codegen(context, builder, sig, args):
            return context.make_array(array)(context, builder, args[0]).data

        return types.CPointer(array.dtype)(array), codegen

    @intrinsic
    def lanes(typingctx, array):
        """The number of lanes of a vector of the array's elements."""
        return types.intp(array), lambda context, builder, sig, args: _index(Vector(array.dtype).lanes)

    @intrinsic
    def rounded(typingctx, array, value):
        """``value`` in the precision of the array's elements, as vector operations take it."""

        def codegen(context, builder, sig, args):
            return _cast(builder, args[1], value, array.dtype)

        return array.dtype(array, value), codegen

    @intrinsic
    def splat(typingctx, array, value):
        """A vector of the array's type with ``value`` in each lane."""
        kind = Vector(array.dtype)

        def codegen(context, builder, sig, args):
            return _splat(builder, _cast(builder, args[1], value, array.dtype), kind.lanes)

        return kind(array, value), codegen

    @intrinsic
    def load(typingctx, array, at, count, fill):
        """Elements at, at+1, ... of the flat array; lanes from ``count`` on are not read but ``fill``."""
        kind = Vector(array.dtype)

        def codegen(context, builder, sig, args):
            pointer, count = _address(context, builder, array, args[0], args[1]), args[2]
            align, vector = _alignment(array), context.get_value_type(kind)
            full = builder.icmp_signed(">=", count, _index(kind.lanes))
            with builder.if_else(full, likely=True) as (whole, part):
                with whole:
                    loaded = builder.load(pointer, align=align, typ=vector)
                    whole_block = builder.block
                with part:
                    mask, rest = _mask(builder, count, kind.lanes), _as_vector(builder, args[3], fill, kind)
                    operands = [pointer, ir.Constant(ir.IntType(32), align), mask, rest]
                    masked = _masked(builder, vector, "load", vector, operands)
                    part_block = builder.block
            result = builder.phi(vector)
            result.add_incoming(loaded, whole_block)
            result.add_incoming(masked, part_block)
            return result

        return kind(array, types.intp, types.intp, fill), codegen

    @intrinsic
    def store(typingctx, array, at, count, vector):
        """Write the first ``count`` lanes (none if it is negative) from flat index ``at`` on."""
        if vector != Vector(array.dtype):
            return None

        def codegen(context, builder, sig, args):
            pointer, count = _address(context, builder, array, args[0], args[1]), args[2]
            align = _alignment(array)
            full = builder.icmp_signed(">=", count, _index(vector.lanes))
            with builder.if_else(full, likely=True) as (whole, part):
                with whole:
                    builder.store(args[3], pointer, align=align)
                with part, builder.if_then(builder.icmp_signed(">", count, _index(0))):
                    mask = _mask(builder, count, vector.lanes)
                    operands = [args[3], pointer, ir.Constant(ir.IntType(32), align), mask]
                    _masked(builder, args[3].type, "store", ir.VoidType(), operands)
            return context.get_dummy_value()

        return types.void(array, types.intp, types.intp, vector), codegen

    @intrinsic
    def get(typingctx, array, at):
        """Element ``at`` of the flat array (``array.reshape(-1)[at]`` compiles fifty times as much code)."""

        def codegen(context, builder, sig, args):
            pointer = _pointer(context, builder, array, args[0], args[1])
            return builder.load(pointer, align=_alignment(array), typ=_llvm_float(array.dtype))

        return array.dtype(array, types.intp), codegen

    @intrinsic
    def put(typingctx, array, at, value):
        """Write element ``at`` of the flat array."""

        def codegen(context, builder, sig, args):
            number = _cast(builder, args[2], value, array.dtype)
            pointer = _pointer(context, builder, array, args[0], args[1])
            builder.store(number, pointer, align=_alignment(array))
            return context.get_dummy_value()

        return types.void(array, types.intp, value), codegen

    @intrinsic
    def keep(typingctx, vector, count):
        """The vector with zero in the lanes from ``count`` on."""

        def codegen(context, builder, sig, args):
            value, count = args
            full = builder.icmp_signed(">=", count, _index(vector.lanes))
            before = builder.block
            with builder.if_then(builder.not_(full), likely=False):
                mask = _mask(builder, count, vector.lanes)
                kept = builder.select(mask, value, ir.Constant(value.type, None))
                part_block = builder.block
            result = builder.phi(value.type)
            result.add_incoming(value, before)
            result.add_incoming(kept, part_block)
            return result

        return vector(vector, types.intp), codegen

    def _fold(vector, combine):
        """An intrinsic that folds the upper half of the lanes onto the lower until one is left."""

        def codegen(context, builder, sig, args):
            value, lanes = args[0], vector.lanes
            while lanes > 1:
                lanes //= 2
                lower, upper = (
                    ir.Constant(ir.VectorType(ir.IntType(32), lanes), list(range(first, first + lanes)))
                    for first in (0, lanes)
                )
                halves = (builder.shuffle_vector(value, value, picks) for picks in (lower, upper))
                value = combine(*(Term(builder, half) for half in halves)).value
            return builder.extract_element(value, ir.Constant(ir.IntType(32), 0))

        return vector.dtype(vector), codegen

    @intrinsic
    def total(typingctx, vector):
        """The sum of the lanes, pairwise."""
        return _fold(vector, lambda a, b: a + b)

    @intrinsic
    def largest(typingctx, vector):
        """The largest lane."""
        return _fold(vector, lambda a, b: a.where(">", b, a, b))

    def _register(function, instruction):
        @infer_global(function)
        class Operator(AbstractTemplate):
            def generic(self, args, kws):
                if len(args) == 2 and any(isinstance(kind, Vector) for kind in args):
                    result = _common(args)
                    return result and signature(result, *args)

        def codegen(context, builder, sig, args):
            left, right = (
                _as_vector(builder, value, kind, sig.return_type)
                for value, kind in zip(args, sig.args, strict=True)
            )
            return getattr(builder, instruction)(left, right)

        for kinds in ((Vector, Vector), (Vector, types.Float), (types.Float, Vector)):
            lower_builtin(function, *kinds)(codegen)

    for _function, _instruction in _OPERATORS.items():
        _register(_function, _instruction)

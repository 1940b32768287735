"""Vectors as values in kernels: a register's worth of elements, its arithmetic, and formulas for floats and vectors.

A vector has one lane for each element in 64 bytes (16 float32 or 8 float64), whatever the processor; LLVM splits it
where registers are shorter. So the order of every sum is a property of the data alone. Under ``NUMBA_DISABLE_JIT=1``
a vector is a short array.

A sum over a row does not vectorise by itself: strict arithmetic forbids LLVM to reorder it. With vectors the partial
sums are written out, one in each lane, and then added pairwise.
"""

from __future__ import annotations

import inspect
import operator

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.datamodel import register_default
from numba.core.datamodel.models import PrimitiveModel
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import lower_builtin

from . import emit
from .emit import intrinsic
from .jit import JIT_DISABLED

CHUNK = 1024
"""Rows are summed in chunks of this many elements, and the chunks in float64."""
VALUE_BYTES = 64
"""Bytes of a vector."""


class Vector(types.Type):
    """The Numba type of a vector of floats."""

    def __init__(self, dtype: types.Float):
        self.dtype = dtype
        self.lanes = VALUE_BYTES * 8 // dtype.bitwidth
        super().__init__(f"vector({dtype} x {self.lanes})")


@register_default(Vector)
class _VectorModel(PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, ir.VectorType(emit.FLOATS[kind.dtype], kind.lanes))


def _operation(instruction):
    def operate(self, other):
        return self._new(getattr(self.builder, instruction)(self.value, self._operand(other)))

    return operate


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

    __add__, __sub__ = _operation("fadd"), _operation("fsub")
    __mul__, __truediv__ = _operation("fmul"), _operation("fdiv")

    def __rtruediv__(self, other):
        return self.constant(other) / self

    def __rsub__(self, other):
        return self.constant(other) - self

    def __neg__(self):
        return self._new(self.builder.fneg(self.value))

    def fma(self, factor, addend) -> Term:
        """self * factor + addend, rounded once where the processor can."""
        return self._new(emit.fma(self.builder, self.value, self._operand(factor), self._operand(addend)))

    def abs(self) -> Term:
        kind = self.value.type
        return self._new(emit.call(self.builder, f"llvm.fabs.{emit.suffix(kind)}", kind, self.value))

    def sqrt(self) -> Term:
        kind = self.value.type
        return self._new(emit.call(self.builder, f"llvm.sqrt.{emit.suffix(kind)}", kind, self.value))

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


def _cast(builder, value, element):
    """A scalar in the precision ``element``."""
    if value.type == element:
        return value
    resize = builder.fptrunc if element == ir.FloatType() else builder.fpext
    return resize(value, element)


def _splat(builder, value, vector):
    return emit.splat(builder, _cast(builder, value, vector.element), vector.count)


def _alike(builder, values):
    """Operands of one operation: a scalar beside a vector is repeated in each lane, in the vector's precision."""
    vector = next((value.type for value in values if isinstance(value.type, ir.VectorType)), None)
    return [value if vector in (None, value.type) else _splat(builder, value, vector) for value in values]


def _common(*kinds):
    """The type of an operation (None: they do not mix). Beside a vector a scalar takes its precision."""
    if not all(isinstance(kind, (types.Float, Vector)) for kind in kinds):
        return None
    vectors = [kind for kind in kinds if isinstance(kind, Vector)]
    result = vectors[0] if vectors else kinds[0]
    return result if all(kind == result for kind in vectors or kinds) else None


def elementwise(formula, plain):
    """A jit-callable function of floats or vectors: ``formula`` takes Terms, ``plain`` is the same in plain NumPy."""

    def write(builder, *values):
        return formula(*(Term(builder, value) for value in _alike(builder, values))).value

    of_formula = inspect.signature(formula)
    first = inspect.Parameter("builder", inspect.Parameter.POSITIONAL_ONLY)
    write.__signature__ = of_formula.replace(parameters=[first, *of_formula.parameters.values()])
    return intrinsic(_common, plain)(write)


fma = elementwise(lambda a, b, c: a.fma(b, c), lambda a, b, c: a * b + c)
"""a * b + c, rounded once where the processor can. A loop over scalars vectorises."""

maximum = elementwise(lambda a, b: a.where(">", b, a, b), lambda a, b: np.where(a > b, a, b))
absolute = elementwise(lambda a: a.abs(), lambda a: np.abs(a))
sqrt = elementwise(lambda a: a.sqrt(), lambda a: np.sqrt(a))
where_le = elementwise(lambda a, b, c, d: a.where("<=", b, c, d), lambda a, b, c, d: np.where(a <= b, c, d))
"""where_le(a, b, c, d): c where a <= b, else d; a NaN in a or b gives d."""


def _register(function, instruction):
    """Give vectors one of Python's operators."""

    @infer_global(function)
    class Operator(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and any(isinstance(kind, Vector) for kind in args):
                result = _common(*args)
                return result and signature(result, *args)

    def codegen(context, builder, sig, args):
        return getattr(builder, instruction)(*_alike(builder, args))

    for kinds in ((Vector, Vector), (Vector, types.Float), (types.Float, Vector)):
        lower_builtin(function, *kinds)(codegen)


if not JIT_DISABLED:
    _register(operator.add, "fadd")
    _register(operator.sub, "fsub")
    _register(operator.mul, "fmul")
    _register(operator.truediv, "fdiv")


def _plain_part(array, at, count):
    """The elements at, at+1, ... that a `load` or `store` of ``count`` lanes touches."""
    return array.reshape(-1)[at : at + max(0, min(count, lanes(array)))]


def _plain_load(array, at, count, fill):
    part = _plain_part(array, at, count)
    return np.append(part, splat(array, fill)[len(part) :])


def _plain_store(array, at, count, vector):
    part = _plain_part(array, at, count)
    part[:] = vector[: len(part)]


def _plain_total(vector):
    while len(vector) > 1:
        vector = vector[: len(vector) // 2] + vector[len(vector) // 2 :]
    return vector[0]


@intrinsic(types.void, plain=lambda: None)
def stay_apart(builder):
    """A kernel that calls this is never inlined into its callers.

    Numba optimises a function's callees anew with each caller. Without this, code that is called from three
    levels is compiled three times.
    """
    builder.function.attributes.add("noinline")


@intrinsic(lambda array: types.CPointer(array.dtype), plain=lambda array: array.reshape(-1))
def pointer(builder, array):
    """The array's memory: one register to pass on where an array is ten. It keeps nothing alive."""
    return array.start


@intrinsic(types.intp, plain=lambda array: VALUE_BYTES // array.itemsize)
def lanes(builder, array):
    """The number of lanes of a vector of the array's elements."""
    return emit.constant(VALUE_BYTES // array.align)


@intrinsic(lambda array, value: array.dtype, plain=lambda array, value: array.dtype.type(value))
def rounded(builder, array, value):
    """``value`` in the precision of the array's elements, as vector operations take it."""
    return _cast(builder, value, array.element)


def _vector_of(array):
    """The LLVM type of a vector of the elements of `emit.Memory`."""
    return ir.VectorType(array.element, VALUE_BYTES // array.align)


@intrinsic(
    lambda array, value: Vector(array.dtype),
    plain=lambda array, value: np.full(lanes(array), value, array.dtype),
)
def splat(builder, array, value):
    """A vector of the array's type with ``value`` in each lane."""
    return _splat(builder, value, _vector_of(array))


@intrinsic(lambda array, at, count, fill: Vector(array.dtype), _plain_load)
def load(builder, array, at, count, fill):
    """Elements at, at+1, ... of the flat array; lanes from ``count`` on are not read but ``fill``."""
    address, vector = array.address(at), _vector_of(array)
    full = builder.icmp_signed(">=", count, emit.constant(vector.count))
    with builder.if_else(full, likely=True) as (whole, part):
        with whole:
            loaded = emit.load(builder, address, vector, array.align), builder.block
        with part:
            mask, rest = emit.lane_mask(builder, count, vector.count), _splat(builder, fill, vector)
            masked = emit.load(builder, address, vector, array.align, mask, rest), builder.block
    return emit.merge(builder, loaded, masked)


@intrinsic(
    lambda array, at, count, vector: types.void if vector == Vector(array.dtype) else None, _plain_store
)
def store(builder, array, at, count, vector):
    """Write the first ``count`` lanes (none if it is negative) from flat index ``at`` on."""
    address, lanes = array.address(at), vector.type.count
    full = builder.icmp_signed(">=", count, emit.constant(lanes))
    with builder.if_else(full, likely=True) as (whole, part):
        with whole:
            emit.store(builder, vector, address, array.align)
        with part, builder.if_then(builder.icmp_signed(">", count, emit.constant(0))):
            emit.store(builder, vector, address, array.align, emit.lane_mask(builder, count, lanes))


@intrinsic(
    lambda vector, count: vector,
    plain=lambda vector, count: np.where(np.arange(len(vector)) < count, vector, vector.dtype.type(0)),
)
def keep(builder, vector, count):
    """The vector with zero in the lanes from ``count`` on."""
    lanes, before = vector.type.count, builder.block
    partial = builder.icmp_signed("<", count, emit.constant(lanes))
    with builder.if_then(partial, likely=False):
        mask = emit.lane_mask(builder, count, lanes)
        kept = builder.select(mask, vector, ir.Constant(vector.type, None)), builder.block
    return emit.merge(builder, (vector, before), kept)


def _fold(builder, vector, combine):
    """Fold the upper half of the lanes onto the lower until one is left."""
    lanes = vector.type.count
    while lanes > 1:
        lanes //= 2
        halves = (
            ir.Constant(ir.VectorType(emit.INT32, lanes), list(range(first, first + lanes)))
            for first in (0, lanes)
        )
        terms = (Term(builder, builder.shuffle_vector(vector, vector, picks)) for picks in halves)
        vector = combine(*terms).value
    return builder.extract_element(vector, ir.Constant(emit.INT32, 0))


@intrinsic(lambda vector: vector.dtype, _plain_total)
def total(builder, vector):
    """The sum of the lanes, pairwise."""
    return _fold(builder, vector, operator.add)


@intrinsic(lambda vector: vector.dtype, plain=lambda vector: vector.max())
def largest(builder, vector):
    """The largest lane."""
    return _fold(builder, vector, lambda a, b: a.where(">", b, a, b))

"""Vectors as values in kernels: the Numba type, its operators, and formulas written once for scalars and vectors.

A vector has one lane for each element in 64 bytes (16 float32 or 8 float64), whatever the processor; LLVM splits it
where registers are shorter. So the order of every sum is a property of the data alone. Under ``NUMBA_DISABLE_JIT=1``
a vector is a short array.
"""

from __future__ import annotations

import operator

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.core.datamodel import register_default
from numba.core.datamodel.models import PrimitiveModel
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin

from . import emit
from .jit import JIT_DISABLED

VALUE_BYTES = 64
"""Bytes of a vector."""

_OPERATORS = {operator.add: "fadd", operator.sub: "fsub", operator.mul: "fmul", operator.truediv: "fdiv"}


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
        return self._new(emit.fma(self.builder, self.value, self._operand(factor), self._operand(addend)))

    def abs(self) -> Term:
        return self._new(self.intrinsic("llvm.fabs", self.value))

    def intrinsic(self, name, *operands):
        kind = self.value.type
        return emit.call(self.builder, f"{name}.{emit.suffix(kind)}", kind, *operands)

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


def cast(builder, value, kind, dtype):
    """A scalar of type ``kind`` in the precision ``dtype``."""
    if kind == dtype:
        return value
    resize = builder.fptrunc if dtype.bitwidth < kind.bitwidth else builder.fpext
    return resize(value, emit.FLOATS[dtype])


def as_vector(builder, value, kind, result):
    """``value``, a scalar repeated in each lane if ``result`` is a vector."""
    if isinstance(kind, Vector) or not isinstance(result, Vector):
        return value
    return emit.splat(builder, cast(builder, value, kind, result.dtype), result.lanes)


def _common(kinds):
    """The type of an operation (None: they do not mix). Beside a vector a scalar takes its precision."""
    if not all(isinstance(kind, (types.Float, Vector)) for kind in kinds):
        return None
    vectors = [kind for kind in kinds if isinstance(kind, Vector)]
    result = vectors[0] if vectors else kinds[0]
    return result if all(kind == result for kind in vectors or kinds) else None


def elementwise(formula, twin):
    """A jit-callable function of floats or vectors: ``formula`` takes Terms, ``twin`` is the same in plain NumPy."""
    if JIT_DISABLED:
        return twin

    def define(typingctx, *kinds):
        result = _common(kinds)
        if result is None:
            return None

        def codegen(context, builder, sig, args):
            pairs = zip(args, kinds, strict=True)
            return formula(*(Term(builder, as_vector(builder, *pair, result)) for pair in pairs)).value

        return result(*kinds), codegen

    return intrinsic(_with_arity(define, formula.__code__.co_argcount))


def _with_arity(define, count):
    """``define`` with ``count`` named arguments: Numba reads an intrinsic's number of arguments from its signature."""
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
where_le = elementwise(lambda a, b, c, d: a.where("<=", b, c, d), lambda a, b, c, d: np.where(a <= b, c, d))
"""where_le(a, b, c, d): c where a <= b, else d; a NaN in a or b gives d."""


def _register(function, instruction):
    """Give vectors one of Python's operators."""

    @infer_global(function)
    class Operator(AbstractTemplate):
        def generic(self, args, kws):
            if len(args) == 2 and any(isinstance(kind, Vector) for kind in args):
                result = _common(args)
                return result and signature(result, *args)

    def codegen(context, builder, sig, args):
        left, right = (
            as_vector(builder, value, kind, sig.return_type)
            for value, kind in zip(args, sig.args, strict=True)
        )
        return getattr(builder, instruction)(left, right)

    for kinds in ((Vector, Vector), (Vector, types.Float), (types.Float, Vector)):
        lower_builtin(function, *kinds)(codegen)


if not JIT_DISABLED:
    for _function, _instruction in _OPERATORS.items():
        _register(_function, _instruction)

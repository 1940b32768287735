"""Vectors as values: load, sum and store a register's worth of elements by name.

A sum over a row does not vectorise by itself: strict arithmetic forbids LLVM to reorder it. Here the partial sums
are written out, one in each lane of a vector, and then added pairwise. `terms` has the type and its arithmetic.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from . import emit
from .jit import JIT_DISABLED
from .terms import (
    VALUE_BYTES,
    Term,
    Vector,
    absolute,
    as_vector,
    cast,
    elementwise,
    maximum,
    multiply_add,
    where_le,
)

__all__ = [
    "CHUNK", "Term", "absolute", "elementwise", "get", "keep", "lanes", "largest", "load", "maximum", "multiply_add",
    "pointer", "put", "rounded", "splat", "stay_apart", "store", "total", "where_le",
]  # fmt: skip

CHUNK = 1024
"""Rows are summed in chunks of this many elements, and the chunks in float64."""

if JIT_DISABLED:

    def stay_apart():
        pass

    def pointer(array):
        return array.reshape(-1)

    def lanes(array):
        return VALUE_BYTES // array.itemsize

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
        """A kernel that calls this is never inlined into its callers.

        Numba optimises a function's callees anew with each caller. Without this, code that is called from three
        levels is compiled three times.
        """

        def codegen(context, builder, sig, args):
            builder.function.attributes.add("noinline")
            return context.get_dummy_value()

        return types.void(), codegen

    def _address(context, builder, kind, array, at):
        """Where the vector from element ``at`` on begins."""
        pointer = emit.element(context, builder, kind, array, at)
        return builder.bitcast(pointer, context.get_value_type(Vector(kind.dtype)).as_pointer())

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
        return types.intp(array), lambda context, builder, sig, args: emit.constant(Vector(array.dtype).lanes)

    @intrinsic
    def rounded(typingctx, array, value):
        """``value`` in the precision of the array's elements, as vector operations take it."""

        def codegen(context, builder, sig, args):
            return cast(builder, args[1], value, array.dtype)

        return array.dtype(array, value), codegen

    @intrinsic
    def splat(typingctx, array, value):
        """A vector of the array's type with ``value`` in each lane."""
        kind = Vector(array.dtype)

        def codegen(context, builder, sig, args):
            return emit.splat(builder, cast(builder, args[1], value, array.dtype), kind.lanes)

        return kind(array, value), codegen

    @intrinsic
    def load(typingctx, array, at, count, fill):
        """Elements at, at+1, ... of the flat array; lanes from ``count`` on are not read but ``fill``."""
        kind = Vector(array.dtype)

        def codegen(context, builder, sig, args):
            pointer, count = _address(context, builder, array, args[0], args[1]), args[2]
            align, vector = _alignment(array), context.get_value_type(kind)
            full = builder.icmp_signed(">=", count, emit.constant(kind.lanes))
            with builder.if_else(full, likely=True) as (whole, part):
                with whole:
                    loaded = builder.load(pointer, align=align, typ=vector)
                    whole_block = builder.block
                with part:
                    mask, rest = (
                        emit.lane_mask(builder, count, kind.lanes),
                        as_vector(builder, args[3], fill, kind),
                    )
                    masked = emit.masked_load(builder, pointer, align, mask, rest)
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
            full = builder.icmp_signed(">=", count, emit.constant(vector.lanes))
            with builder.if_else(full, likely=True) as (whole, part):
                with whole:
                    builder.store(args[3], pointer, align=align)
                with part, builder.if_then(builder.icmp_signed(">", count, emit.constant(0))):
                    mask = emit.lane_mask(builder, count, vector.lanes)
                    emit.masked_store(builder, args[3], pointer, align, mask)
            return context.get_dummy_value()

        return types.void(array, types.intp, types.intp, vector), codegen

    @intrinsic
    def get(typingctx, array, at):
        """Element ``at`` of the flat array (``array.reshape(-1)[at]`` compiles fifty times as much code)."""

        def codegen(context, builder, sig, args):
            pointer = emit.element(context, builder, array, args[0], args[1])
            return builder.load(pointer, align=_alignment(array), typ=emit.FLOATS[array.dtype])

        return array.dtype(array, types.intp), codegen

    @intrinsic
    def put(typingctx, array, at, value):
        """Write element ``at`` of the flat array."""

        def codegen(context, builder, sig, args):
            number = cast(builder, args[2], value, array.dtype)
            pointer = emit.element(context, builder, array, args[0], args[1])
            builder.store(number, pointer, align=_alignment(array))
            return context.get_dummy_value()

        return types.void(array, types.intp, value), codegen

    @intrinsic
    def keep(typingctx, vector, count):
        """The vector with zero in the lanes from ``count`` on."""

        def codegen(context, builder, sig, args):
            value, count = args
            full = builder.icmp_signed(">=", count, emit.constant(vector.lanes))
            before = builder.block
            with builder.if_then(builder.not_(full), likely=False):
                mask = emit.lane_mask(builder, count, vector.lanes)
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

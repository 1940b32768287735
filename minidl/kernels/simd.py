"""What kernels call for explicit vector code: panel products, transposition, fma, and reads of raw bytes.

Each intrinsic stands with its twin in plain NumPy, which runs under ``NUMBA_DISABLE_JIT=1``. `tiles` writes the
instructions of the products.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba.core import types
from numba.core.errors import TypingError
from numba.extending import intrinsic

from . import emit, tiles
from .jit import JIT_DISABLED
from .target import (
    ALIGNMENT,
    FEATURES,
    HAS_FMA,
    PANEL_BYTES,
    ROW_VECTORS,
    TILE_ROWS,
    TILE_VECTORS,
    VECTOR_BYTES,
    aligned_zeros,
)

__all__ = [
    "ALIGNMENT", "FEATURES", "FROM_BIAS", "FROM_OUTPUT", "FROM_ZERO", "HAS_FMA", "Matrix", "NextRows", "PANEL_BYTES",
    "ROW_VECTORS", "Shape", "Start", "TILE_ROWS", "TILE_VECTORS", "VECTOR_BYTES", "aligned_zeros", "fma",
    "matmul_packing_tile", "matmul_panel", "matmul_prefetching_panel", "read_float32", "read_float64", "reals_at",
    "transpose_block",
]  # fmt: skip

# What the sums of a product start from: zero, what the output holds, or the bias row.
FROM_ZERO, FROM_OUTPUT, FROM_BIAS = 0, 1, 2


class Matrix(NamedTuple):
    """A matrix in flat memory: element (i, j) is ``data[at + i*row_stride + j*column_stride]``."""

    data: np.ndarray
    at: int
    row_stride: int
    column_stride: int


class Shape(NamedTuple):
    """The sizes of a product: C is (m, n), A (m, k), B (k, n)."""

    m: int
    k: int
    n: int


class Start(NamedTuple):
    """What a product's sums start from: FROM_ZERO, FROM_OUTPUT, or FROM_BIAS, the row at ``bias[at:]``."""

    mode: int
    bias: np.ndarray
    at: int


class NextRows(NamedTuple):
    """The stored rows of the next batch, to prefetch: row ``order[first + p]`` becomes column p of the next A = x^T.

    ``stored`` is their transpose, in bytes: a row of it is one feature, a column one sample.
    """

    stored: Matrix
    order: np.ndarray
    first: int


if JIT_DISABLED:

    def fma(a, b, c):
        return a * b + c

    def read_float32(octets, at):
        return octets[at : at + 4].view(np.float32)[0]

    def read_float64(octets, at):
        return octets[at : at + 8].view(np.float64)[0]

    def reals_at(octets, at, like):
        return octets[at:].view(like.dtype)

    def _view(matrix, rows, columns):
        size = matrix.data.itemsize
        strides = matrix.row_stride * size, matrix.column_stride * size
        return np.lib.stride_tricks.as_strided(matrix.data.reshape(-1)[matrix.at :], (rows, columns), strides)

    def matmul_panel(c, a, b, shape, start):
        m, k, n = shape
        out, product = _view(c, m, n), _view(a, m, k) @ _view(b, k, n)
        if start.mode == FROM_OUTPUT:
            product += out
        elif start.mode == FROM_BIAS:
            product += start.bias.reshape(-1)[start.at : start.at + n]
        out[...] = product

    def matmul_packing_tile(c, a, b, shape, start, panel):
        _, k, n = shape
        width = PANEL_BYTES // panel.itemsize
        packed = panel[: k * width].reshape(k, width)
        packed[:, :n] = _view(b, k, n)
        packed[:, n:] = 0
        matmul_panel(c, a, b, Shape(TILE_ROWS, k, n), start)

    def matmul_prefetching_panel(c, a, b, shape, start, next_rows):
        matmul_panel(c, a, b, shape, start)  # plain Python cannot prefetch

    def transpose_block(out, source, rows, columns):
        _view(out, columns, rows)[...] = _view(source, rows, columns).T

else:

    @intrinsic
    def fma(typingctx, a, b, c):
        """a * b + c, rounded once. Scalar; a loop over it vectorises."""
        if not (isinstance(a, types.Float) and a == b == c):
            raise TypingError(f"fma needs three floats of one type, got {a}, {b}, {c}")
        return a(a, a, a), lambda context, builder, signature, args: emit.fma(builder, *args)

    def _reader(result):
        def read(typingctx, octets, at):
            def codegen(context, builder, signature, args):
                kind, address = emit.FLOATS[result], emit.element(context, builder, octets, *args)
                return builder.load(builder.bitcast(address, kind.as_pointer()), align=1, typ=kind)

            return result(octets, types.intp), codegen

        return read

    # The number stored in the bytes octets[at:], in this machine's order, at any alignment.
    read_float32 = intrinsic(_reader(types.float32))
    read_float64 = intrinsic(_reader(types.float64))

    @intrinsic
    def reals_at(typingctx, octets, at, like):
        """The bytes octets[at:] as a vector of ``like``'s dtype; they must be aligned and in this machine's order."""
        kind = types.Array(like.dtype, 1, "C")

        def codegen(context, builder, signature, args):
            # not at the top: it takes a fifth of the time to import minidl, and only compiling needs it
            from numba.np import arrayobj

            source = context.make_array(octets)(context, builder, args[0])
            itemsize = emit.constant(context.get_abi_sizeof(context.get_data_type(kind.dtype)))
            data = emit.element(context, builder, octets, args[0], args[1])
            count = builder.udiv(builder.sub(source.nitems, args[1]), itemsize)
            array = context.make_array(kind)(context, builder)
            arrayobj.populate_array(
                array,
                data=builder.bitcast(data, array.data.type),
                shape=[count],
                strides=[itemsize],
                itemsize=itemsize,
                meminfo=None,
            )
            return array._getvalue()

        return kind(octets, types.intp, like), codegen

    class _Fields:
        """Reads the fields of NamedTuples while an intrinsic is compiled."""

        def __init__(self, context, builder):
            self._context, self._builder = context, builder

        def of(self, value, count):
            return [self._builder.extract_value(value, i) for i in range(count)]

        def address(self, kind, array, at):
            return emit.element(self._context, self._builder, kind, array, at)

        def matrix(self, kind, value):
            """A Matrix as (address, row stride, column stride)."""
            data, at, row, column = self.of(value, 4)
            return self.address(kind[0], data, at), row, column

        def start(self, kind, value, c, c_row):
            """A Start as (address, row stride), a negative stride for zero."""
            mode, bias, at = self.of(value, 3)
            builder = self._builder
            from_output = builder.icmp_signed("==", mode, emit.constant(FROM_OUTPUT))
            from_zero = builder.icmp_signed("==", mode, emit.constant(FROM_ZERO))
            stride = builder.select(from_output, c_row, emit.constant(0))
            stride = builder.select(from_zero, emit.constant(-1), stride)
            return builder.select(from_output, c, self.address(kind[1], bias, at)), stride

    def _panel_product(kinds, besides=None):
        """(signature, code) of an intrinsic with the arguments of `matmul_panel`, and perhaps one more.

        ``besides(fields, kind, value)`` makes of that one what `tiles` does besides the product.
        """

        def codegen(context, builder, signature, args):
            fields = _Fields(context, builder)
            c, c_row, _ = fields.matrix(kinds[0], args[0])
            a, a_row, a_column = fields.matrix(kinds[1], args[1])
            b, b_row, _ = fields.matrix(kinds[2], args[2])
            m, k, n = fields.of(args[3], 3)
            start = fields.start(kinds[4], args[4], c, c_row)
            operands = tiles.Operands(c, c_row, a, a_row, a_column, b, b_row, k, m, n, *start)
            more = None if besides is None else besides(fields, kinds[5], args[5])
            tiles.call_panel(builder, emit.FLOATS[kinds[0][0].dtype], operands, more)
            return context.get_dummy_value()

        return types.void(*kinds), codegen

    @intrinsic
    def matmul_panel(typingctx, c, a, b, shape, start):
        """C (m, n) = start + A (m, k) B (k, n) for one panel of at most two vectors of columns; four if m is 1.

        C, A and B are each a `Matrix`, C and B with a column stride of 1. Each output is one chain of fused
        multiply-adds over k, in order, whatever tile it falls in.
        """
        return _panel_product((c, a, b, shape, start))

    @intrinsic
    def matmul_packing_tile(typingctx, c, a, b, shape, start, panel):
        """`matmul_panel` for exactly TILE_ROWS rows, which also copies B into ``panel``, two vectors a row."""

        def packing(fields, kind, array):
            return tiles.Packing(fields.address(kind, array, emit.constant(0)))

        return _panel_product((c, a, b, shape, start, panel), packing)

    @intrinsic
    def matmul_prefetching_panel(typingctx, c, a, b, shape, start, next_rows):
        """`matmul_panel`, which also prefetches `NextRows`."""

        def prefetching(fields, kind, value):
            stored, order, first = fields.of(value, 3)
            octets, row, column = fields.matrix(kind[0], stored)
            return tiles.Prefetching(octets, fields.address(kind[1], order, first), row, column)

        return _panel_product((c, a, b, shape, start, next_rows), prefetching)

    @intrinsic
    def transpose_block(typingctx, out, source, rows, columns):
        """out[i, j] = source[j, i] for a block of the source, rows and columns 1 to VECTOR_BYTES // itemsize.

        Of out as many as that of both are always written; what the source does not have is undefined.
        """

        def codegen(context, builder, signature, args):
            fields = _Fields(context, builder)
            target, target_row, _ = fields.matrix(out, args[0])
            origin, origin_row, _ = fields.matrix(source, args[1])
            element = emit.FLOATS[out[0].dtype]
            tiles.call_transposition(
                builder, element, target, target_row, origin, origin_row, args[2], args[3]
            )
            return context.get_dummy_value()

        return types.void(out, source, types.intp, types.intp), codegen

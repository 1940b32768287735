"""What kernels call for explicit vector code: panel products, transposition, and reads of raw bytes.

Each intrinsic stands with its twin in plain NumPy, which runs under ``NUMBA_DISABLE_JIT=1``. `tiles` writes the
instructions of the products.
"""

from typing import NamedTuple

import numba.extending
import numpy as np
from llvmlite import ir
from numba.core import types

from . import emit, tiles
from .emit import intrinsic
from .jit import JIT_DISABLED
from .target import PANEL_BYTES, TILE_ROWS

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


def _reader(dtype):
    """The number stored in the bytes octets[at:], in this machine's order, at any alignment."""

    def plain(octets, at):
        return octets[at : at + dtype.bitwidth // 8].view(dtype.name)[0]

    @intrinsic(dtype, plain)
    def read(builder, octets, at):
        kind = emit.FLOATS[dtype]
        return builder.load(builder.bitcast(octets.address(at), kind.as_pointer()), align=1, typ=kind)

    return read


read_float32 = _reader(types.float32)
read_float64 = _reader(types.float64)


def _plain_copy_bytes(out, at, octets, origin, size):
    first = at * out.itemsize
    out.reshape(-1).view(np.uint8)[first : first + size] = octets[origin : origin + size]


@intrinsic(types.void, _plain_copy_bytes)
def copy_bytes(builder, out, at, octets, origin, size):
    """Copy ``size`` bytes from octets[origin:] to ``out``, from its element ``at`` on."""
    _copy(builder, "memcpy", out.address(at), octets.address(origin), size)


def _same_dtype(out, x):
    return types.void if out.dtype == x.dtype else None


@intrinsic(_same_dtype, plain=lambda out, x: out.reshape(-1).__setitem__(slice(None), x.reshape(-1)))
def copy(builder, out, x):
    """out = x, contiguous arrays of one dtype and of equal sizes; they may be the same memory."""
    _copy(builder, "memmove", out.start, x.start, builder.mul(out.size, emit.constant(out.align)))


def _copy(builder, name, *places_and_size):
    *places, size = places_and_size
    places = [builder.bitcast(place, emit.BYTE.as_pointer()) for place in places]
    emit.call(builder, f"llvm.{name}.p0.p0.i64", emit.VOID, *places, size, ir.Constant(ir.IntType(1), 0))


def _array(context, builder, kind, start, *shape):
    """A contiguous array that begins at an address."""
    # not at the top: it takes a fifth of the time to import minidl, and only compiling needs it
    from numba.np import arrayobj

    strides = [emit.constant(kind.dtype.bitwidth // 8)]
    for size in shape[:0:-1]:
        strides.insert(0, builder.mul(strides[0], size))
    array = context.make_array(kind)(context, builder)
    data = builder.bitcast(start, array.data.type)
    arrayobj.populate_array(array, data, shape, strides, itemsize=strides[-1], meminfo=None)
    return array._getvalue()


def _start(context, builder, kind, array, at):
    """The address of element ``at`` of an array."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [at], source_etype=context.get_data_type(kind.dtype))


if JIT_DISABLED:

    def starting_at(matrix, i, j):
        return matrix._replace(at=matrix.at + i * matrix.row_stride + j * matrix.column_stride)

    def reals_at(octets, at, like):
        return octets[at:].view(like.dtype)

    def part_of(array, at, size):
        return array.reshape(-1)[at : at + size]

    def rows_at(buffer, at, size, low, high):
        return part_of(buffer, at + low * size, (high - low) * size).reshape(high - low, size)

else:

    @numba.extending.intrinsic
    def starting_at(typingctx, matrix, i, j):
        """The part of a `Matrix` from element (i, j) on."""

        def codegen(context, builder, signature, args):
            _, at, *strides = (builder.extract_value(args[0], field) for field in range(4))
            for index, stride in zip(args[1:], strides, strict=True):
                at = builder.add(at, builder.mul(index, stride))
            return builder.insert_value(args[0], at, 1)

        return matrix(matrix, types.intp, types.intp), codegen

    @numba.extending.intrinsic
    def reals_at(typingctx, octets, at, like):
        """The bytes octets[at:] as a vector of ``like``'s dtype; they must be aligned and in this machine's order."""
        kind = types.Array(like.dtype, 1, "C")

        def codegen(context, builder, signature, args):
            start = _start(context, builder, octets, *args[:2])
            rest = builder.sub(context.make_array(octets)(context, builder, args[0]).nitems, args[1])
            return _array(
                context, builder, kind, start, builder.udiv(rest, emit.constant(like.dtype.bitwidth // 8))
            )

        return kind(octets, types.intp, like), codegen

    @numba.extending.intrinsic
    def part_of(typingctx, array, at, size):
        """array[at : at + size] of a flat array, unchecked: for a slice Numba writes twenty times as much code."""
        kind = types.Array(array.dtype, 1, "C")

        def codegen(context, builder, signature, args):
            return _array(context, builder, kind, _start(context, builder, array, *args[:2]), args[2])

        return kind(array, types.intp, types.intp), codegen

    @numba.extending.intrinsic
    def rows_at(typingctx, buffer, at, size, low, high):
        """Rows low..high of the (batch, size) matrix that begins at ``buffer[at]``."""
        kind = types.Array(buffer.dtype, 2, "C")

        def codegen(context, builder, signature, args):
            array, at, size, low, high = args
            start = _start(context, builder, buffer, array, builder.add(at, builder.mul(low, size)))
            return _array(context, builder, kind, start, builder.sub(high, low), size)

        return kind(buffer, *[types.intp] * 4), codegen


def _view(matrix, rows, columns):
    size = matrix.data.itemsize
    strides = matrix.row_stride * size, matrix.column_stride * size
    return np.lib.stride_tricks.as_strided(matrix.data.reshape(-1)[matrix.at :], (rows, columns), strides)


def _plain_panel(c, a, b, shape, start, besides=None):
    m, k, n = shape
    out, product = _view(c, m, n), _view(a, m, k) @ _view(b, k, n)
    if start.mode == FROM_OUTPUT:
        product += out
    elif start.mode == FROM_BIAS:
        product += start.bias.reshape(-1)[start.at : start.at + n]
    out[...] = product


def _plain_packing_tile(c, a, b, shape, start, panel):
    _, k, n = shape
    width = PANEL_BYTES // panel.itemsize
    packed = panel[: k * width].reshape(k, width)
    packed[:, :n] = _view(b, k, n)
    packed[:, n:] = 0
    _plain_panel(c, a, b, Shape(TILE_ROWS, k, n), start)


def _plain_transpose_block(out, source, rows, columns):
    _view(out, columns, rows)[...] = _view(source, rows, columns).T


def _place(matrix):
    """(address, row stride, column stride) of a `Matrix`."""
    memory, at, row_stride, column_stride = matrix
    return memory.address(at), row_stride, column_stride


def _write_panel(builder, c, a, b, shape, start, besides=None):
    """Call the panel product. ``besides``: what it does on the way, a tuple of `tiles`."""
    (c_start, c_row, _), (b_start, b_row, _), (m, k, n) = _place(c), _place(b), shape
    mode, bias, at = start
    from_output = builder.icmp_signed("==", mode, emit.constant(FROM_OUTPUT))
    from_zero = builder.icmp_signed("==", mode, emit.constant(FROM_ZERO))
    start = builder.select(from_output, c_start, bias.address(at))
    start_row = builder.select(from_output, c_row, emit.constant(0))
    start_row = builder.select(from_zero, emit.constant(-1), start_row)
    operands = tiles.Operands(c_start, c_row, *_place(a), b_start, b_row, k, m, n, start, start_row)
    tiles.call_panel(builder, c[0].element, operands, besides)


@intrinsic(types.void, _plain_panel)
def matmul_panel(builder, c, a, b, shape, start):
    """C (m, n) = start + A (m, k) B (k, n) for one panel of at most two vectors of columns; four if m is 1.

    C, A and B are each a `Matrix`, C and B with a column stride of 1. Each output is one chain of fused
    multiply-adds over k, in order, whatever tile it falls in.
    """
    _write_panel(builder, c, a, b, shape, start)


@intrinsic(types.void, _plain_packing_tile)
def matmul_packing_tile(builder, c, a, b, shape, start, panel):
    """`matmul_panel` for exactly TILE_ROWS rows, which also copies B into ``panel``, two vectors a row."""
    _write_panel(builder, c, a, b, shape, start, tiles.Packing(panel.start))


@intrinsic(types.void, _plain_panel)  # plain Python cannot prefetch
def matmul_prefetching_panel(builder, c, a, b, shape, start, next_rows):
    """`matmul_panel`, which also prefetches `NextRows`."""
    stored, order, first = next_rows
    octets, row, column = _place(stored)
    besides = tiles.Prefetching(octets, order.address(first), row, column)
    _write_panel(builder, c, a, b, shape, start, besides)


@intrinsic(types.void, _plain_transpose_block)
def transpose_block(builder, out, source, rows, columns):
    """out[i, j] = source[j, i] for a block of the source, rows and columns 1 to VECTOR_BYTES // itemsize.

    Of out as many as that of both are always written; what the source does not have is undefined.
    """
    (target, target_row, _), (origin, origin_row, _) = _place(out), _place(source)
    tiles.call_transposition(builder, out[0].element, target, target_row, origin, origin_row, rows, columns)

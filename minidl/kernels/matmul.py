"""Matrix multiply: panels of B, tiles of C, and the dense layer built on them.

``product`` walks C in panels of two vectors of columns. For each panel, a block of B is copied ("packed") into
contiguous memory where that pays, and `simd.matmul_panel` runs down the rows of C in tiles that stay in registers.
Every output is one chain of multiply-adds over k, in order: blocking, packing and the split among threads change
the speed, never a bit of the result.
"""

from typing import NamedTuple

import numpy as np
from numba.core import types

from . import simd
from .barrier import meet, share, start_together
from .emit import larger, smaller
from .jit import jit
from .simd import Matrix, Shape, Start
from .simd import starting_at as starting_at
from .target import PANEL_BYTES, ROW_VECTORS, TILE_ROWS, TILE_VECTORS, VECTOR_BYTES
from .units import Units, array
from .vectors import lanes, load, splat, store

K_BLOCK = 512
"""Rows of B in a packed panel: 64 KB in float32, read from the second-level cache. With fewer, C is fetched and
stored more often, and rows of C that lie a multiple of 4 KB apart push one another out of the first level."""
M_BLOCK = 96 * TILE_ROWS
"""Rows of A packed at a time."""
A_BYTES = 1 << 20
"""An A larger than this is packed: its rows no longer stay in the second-level cache, or collide there."""


class Panels(NamedTuple):
    """How B is stored. ``rows`` 0: in rows or columns, and its strides say which.

    Else as `store_panels` does, in panels of ``rows`` rows. B is that matrix (column stride 1) or its transpose
    (column stride 0), from column ``first_column`` on.
    """

    rows: int
    first_column: int


NO_PANELS = Panels(0, 0)


class Block(NamedTuple):
    """Rows top..bottom and columns left..right of a matrix."""

    top: int
    bottom: int
    left: int
    right: int


class _Blocking(NamedTuple):
    """One block of a product: where it lies in k, and what is packed for it."""

    first_k: int
    all_k: int
    panel_columns: int
    packs_a: bool
    packs_b: bool


@jit(inline=True)
def by_rows(data, at, columns):
    """The matrix whose rows of ``columns`` elements follow one another from ``data[at]`` on."""
    return Matrix(data, at, columns, np.int64(1))


@jit(inline=True)
def by_columns(data, at, rows):
    """The matrix whose columns of ``rows`` elements follow one another: the transpose of such rows."""
    return Matrix(data, at, np.int64(1), rows)


@jit(inline=True)
def as_matrix(array, transpose):
    """A contiguous array, or its transpose, as a `Matrix`."""
    size, one = array.shape[1], np.int64(1)
    row, column = (one, size) if transpose else (size, one)
    return Matrix(array.reshape(-1), np.int64(0), row, column)


@jit(inline=True)
def from_zero(data):
    """A product that starts from zero; ``data`` stands for the bias, which is not read."""
    return Start(np.int64(simd.FROM_ZERO), data, np.int64(0))


@jit
def pack_transposed(panel, b, k, n):
    """panel[i*width + j] = B[i, j] for a (k, n) block whose columns are contiguous, n at most a panel's width.

    Square blocks are written whole: up to a block's side more of rows and columns.
    """
    side, width = VECTOR_BYTES // panel.itemsize, PANEL_BYTES // panel.itemsize
    for j in range(0, n, side):
        for i in range(0, k, side):
            simd.transpose_block(
                by_rows(panel, i * width + j, width),
                by_rows(b.data, b.at + i + j * b.column_stride, b.column_stride),
                smaller(side, n - j),
                smaller(side, k - i),
            )


@jit
def pack_rows(packed, a, m, k):
    """Tiles of TILE_ROWS rows of A (m, k), column by column, so that a tile's next column is the next memory.

    Rows are turned into columns a square block at a time. A block may be taller than what is left of the tile, and
    then writes into the next column too. So the lowest block comes first, and the next store puts that right.
    """
    side, height = VECTOR_BYTES // packed.itemsize, np.int64(TILE_ROWS)
    blocks = (TILE_ROWS + side - 1) // side
    for i0 in range(0, m, TILE_ROWS):
        rows = smaller(TILE_ROWS, m - i0)
        tile_a = starting_at(a, i0, 0)
        whole_k = k // side * side if a.column_stride == 1 and i0 + blocks * side <= m else 0
        for p in range(0, whole_k, side):
            for block in range(blocks - 1, -1, -1):
                i = block * side
                out = by_rows(packed, i0 * k + p * TILE_ROWS + i, height)
                simd.transpose_block(out, starting_at(tile_a, i, p), side, side)
        for p in range(whole_k, k):
            for i in range(rows):
                packed[i0 * k + p * TILE_ROWS + i] = a.data[starting_at(tile_a, i, p).at]


@jit
def product(c, a, b, panels, shape, start, scratch):
    """C (m, n) = start + A (m, k) B (k, n); each is a `Matrix`, ``shape`` their `Shape`.

    A and B may have any strides; rows of C are contiguous. ``panels`` says how B is stored. ``start`` is a `Start`:
    zero, what C holds (C += A B), or a bias row. ``scratch`` holds at least ``scratch_size(m, k)`` elements.
    """
    m, k, n = shape
    width = PANEL_BYTES // c.data.itemsize
    is_transposed = b.column_stride != 1
    # A panel that many tiles read is worth a copy, unless it lies (nearly) contiguous anyway.
    packs_b = not is_transposed and m > 2 * TILE_ROWS and b.row_stride > 2 * width and panels.rows == 0
    packs_a = n > 8 * width and m * k * c.data.itemsize > A_BYTES
    is_row = m == 1 and not is_transposed and panels.rows == 0
    panel_columns = ROW_VECTORS // TILE_VECTORS * width if is_row else width
    blocks = 1
    if is_transposed or packs_b or packs_a:
        blocks = larger(1, (k + K_BLOCK - 1) // K_BLOCK)
    depth = larger(width, (k + blocks * width - 1) // (blocks * width) * width)
    packed_a = scratch[K_BLOCK * width :]
    for k0 in range(0, larger(k, 1), depth):
        steps = smaller(depth, k - k0)
        block_start = Start(start.mode if k0 == 0 else np.int64(simd.FROM_OUTPUT), start.bias, start.at)
        blocking = _Blocking(k0, k, panel_columns, packs_a, packs_b)
        for m0 in range(0, m, M_BLOCK):
            rows = smaller(M_BLOCK, m - m0)
            block_a = starting_at(a, m0, k0)
            if packs_a:
                pack_rows(packed_a, block_a, rows, steps)
                block_a = by_columns(packed_a, np.int64(0), np.int64(TILE_ROWS))
            rows_of_c, shape = starting_at(c, m0, 0), Shape(rows, steps, n)
            _block_product(rows_of_c, block_a, b, panels, shape, block_start, scratch, blocking)


def prefetching_panel(c, a, b, shape, start, next_rows):
    simd.matmul_prefetching_panel(c, a, b, shape, start, next_rows)


def _matrix_of(data):
    return types.BaseTuple.from_types((data, *[types.int64] * 3), Matrix)


def _product_arguments(real):
    data, whole = array(real), types.int64
    panels, shape = (types.BaseTuple.from_types((whole,) * len(of._fields), of) for of in (Panels, Shape))
    start = types.BaseTuple.from_types((whole, data, whole), Start)
    return *[_matrix_of(data)] * 3, panels, shape, start, data


def _prefetching_arguments(real):
    *matrices, _, shape, start, _ = _product_arguments(real)
    stored = _matrix_of(types.Array(types.uint8, 1, "C", readonly=True))
    next_rows = types.BaseTuple.from_types((stored, array(types.int64), types.int64), simd.NextRows)
    return *matrices, shape, start, next_rows


PRODUCT = Units("matmul", {"product": product}, _product_arguments)
PREFETCHING = Units("matmul", {"prefetching_panel": prefetching_panel}, _prefetching_arguments)
call_product, call_prefetching = PRODUCT.caller, PREFETCHING.caller


@jit(inline=True)
def _block_product(c, a, b, panels, shape, start, scratch, blocking):
    """`product` for rows that fit M_BLOCK and steps of k that fit K_BLOCK, panel by panel."""
    rows, steps, n = shape
    width, j = PANEL_BYTES // c.data.itemsize, np.int64(0)
    while j < n:
        wide = blocking.panel_columns
        columns = wide if n - j >= wide else smaller(width, n - j)
        panel_c, panel_start = starting_at(c, 0, j), Start(start.mode, start.bias, start.at + j)
        panel, first = starting_at(b, blocking.first_k, j), 0
        if b.column_stride != 1:
            _pack_columns(scratch, b, panels, blocking, j, steps, columns)
            panel = by_rows(scratch, np.int64(0), width)
        elif panels.rows:
            at = b.at + (panels.first_column + j) * panels.rows + blocking.first_k * columns
            panel = by_rows(b.data, at, columns)
        elif blocking.packs_b and rows >= TILE_ROWS:
            tile = Shape(np.int64(TILE_ROWS), steps, columns)
            simd.matmul_packing_tile(panel_c, a, panel, tile, panel_start, scratch)
            panel, first = by_rows(scratch, np.int64(0), width), TILE_ROWS
        # a packed A changes its address at every tile, a strided one does not
        height = TILE_ROWS if blocking.packs_a else rows
        for i in range(first, rows, height):
            tile_a = starting_at(a, i, 0)
            if blocking.packs_a:
                tile_a = by_columns(a.data, i * steps, np.int64(TILE_ROWS))
            tile = Shape(smaller(height, rows - i), steps, columns)
            simd.matmul_panel(starting_at(panel_c, i, 0), tile_a, panel, tile, panel_start)
        j += columns


@jit(inline=True)
def _pack_columns(scratch, b, panels, blocking, j, steps, columns):
    """Pack columns j..j+columns of a transposed B, rows first_k..first_k+steps."""
    width, first_k = PANEL_BYTES // scratch.itemsize, blocking.first_k
    if panels.rows:
        for p in range(first_k, first_k + steps, width):
            part = smaller(width, blocking.all_k - p)
            at = b.at + p * panels.rows + (panels.first_column + j) * part
            pack_transposed(scratch[(p - first_k) * width :], by_columns(b.data, at, part), part, columns)
    else:
        pack_transposed(scratch, starting_at(b, first_k, j), steps, columns)


@jit
def store_panels(panels, rows, at, k, n, back):
    """A (k, n) matrix at ``rows[at:]`` into ``panels[at:]``, or ``back``: whole panels, one after the other.

    A panel is all rows of as many columns as a tile has (the last may have fewer). So a product reads it from
    one end to the other, and the weights that one thread changes lie together.
    """
    width = PANEL_BYTES // rows.itemsize
    for j in range(0, n, width):
        columns = smaller(width, n - j)
        for i in range(k):
            row, panel = at + i * n + j, at + j * k + i * columns
            target, to, source, origin = (rows, row, panels, panel) if back else (panels, panel, rows, row)
            for c in range(0, columns, lanes(rows)):
                store(target, to + c, columns - c, load(source, origin + c, columns - c, 0.0))


def scratch_size(m, k, itemsize):
    """Elements `product` needs to pack one panel of B, and one block of A if it is large enough to be packed.

    No more: memory of 128 KB or more may come from the system anew each time, and a product that takes 12 us would
    wait 36 us for its pages.
    """
    rows = min((m + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS, M_BLOCK)
    packed_a = rows * min(k, K_BLOCK) if m * k * itemsize > A_BYTES else 0
    return K_BLOCK * (PANEL_BYTES // itemsize) + packed_a


_scratch_size = jit(scratch_size, inline=True)


@jit
def column_sums(out, x, m, n):
    """out[j] = sum over rows i, in order, of X[i, j]; X is a `Matrix` of (m, n) with contiguous rows."""
    for j in range(0, n, lanes(out)):
        sums = splat(out, 0.0)
        for i in range(m):
            sums = sums + load(x.data, x.at + i * x.row_stride + j, n - j, 0.0)
        store(out, j, n - j, sums)


@jit(allocates=True)
def _multiply(c, a, b, shape, start):
    """`product` of a B without panels, with scratch memory of its own."""
    size, itemsize = _scratch_size(shape.m, shape.k, c.data.itemsize), c.data.itemsize
    # begin on a cache line: vectors that straddle two cost twice
    space = np.empty(size + VECTOR_BYTES // itemsize, c.data.dtype)
    first = -(space.ctypes.data // itemsize) % (VECTOR_BYTES // itemsize)
    product(c, a, b, NO_PANELS, shape, start, space[first : first + size])


@jit
def matmul_part(out, a, b, transpose_a, transpose_b, block):
    """A `Block` of out = op(a) op(b), contiguous matrices; op transposes where its flag is set."""
    k = a.shape[0] if transpose_a else a.shape[1]
    c = starting_at(as_matrix(out, False), block.top, block.left)
    part_a = starting_at(as_matrix(a, transpose_a), block.top, 0)
    part_b = starting_at(as_matrix(b, transpose_b), 0, block.left)
    shape = Shape(block.bottom - block.top, k, block.right - block.left)
    _multiply(c, part_a, part_b, shape, from_zero(c.data))


@jit
def matmul(out, a, b, transpose_a, transpose_b):
    """out = op(a) op(b) for contiguous matrices; op transposes where its flag is set."""
    zero = np.int64(0)
    matmul_part(out, a, b, transpose_a, transpose_b, Block(zero, out.shape[0], zero, out.shape[1]))


@jit
def matmul_on_threads(team, out, a, b, transpose_a, transpose_b):
    """`matmul` with the longer side of ``out`` shared among threads; of a square its rows: none packs all of A."""
    start_together(team)
    (m, n), zero = out.shape, np.int64(0)
    if m >= n:
        first, last = share(m, team, TILE_ROWS)
        block = Block(first, last, zero, n)
    else:
        first, last = share(n, team, PANEL_BYTES // out.itemsize)
        block = Block(zero, m, first, last)
    matmul_part(out, a, b, transpose_a, transpose_b, block)
    meet(team)


@jit
def dense_forward(out, x, weight, bias):
    """out = x weight + bias; x (B, I), weight (I, O), bias (O,) or empty."""
    (m, k), n = x.shape, weight.shape[1]
    start = Start(np.int64(simd.FROM_BIAS if bias.size else simd.FROM_ZERO), bias, np.int64(0))
    _multiply(as_matrix(out, False), as_matrix(x, False), as_matrix(weight, False), Shape(m, k, n), start)


@jit
def dense_backward(dx, dweight, dbias, dout, x, weight):
    """dx = dout weight^T, dweight = x^T dout, dbias = sum of dout's rows; an empty output is skipped."""
    (m, n), k = dout.shape, weight.shape[0]
    rows = as_matrix(dout, False)
    if dbias.size:
        column_sums(dbias, rows, m, n)
    if dweight.size:
        c = as_matrix(dweight, False)
        _multiply(c, as_matrix(x, True), rows, Shape(k, m, n), from_zero(c.data))
    if dx.size:
        c = as_matrix(dx, False)
        _multiply(c, rows, as_matrix(weight, True), Shape(m, n, k), from_zero(c.data))

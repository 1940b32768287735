"""Matrix multiply: panels of B, tiles of C, and the dense layer built on them.

``product`` walks C in panels of two vectors of columns. For each panel a block of B is copied
("packed") into contiguous memory where that pays, and `simd.matmul_panel` runs down the rows of
C in tiles that stay in registers. Every output is one chain of multiply-adds over k, in order:
blocking, packing and the split among threads change the speed, never a bit of the result.
"""

from __future__ import annotations

import numpy as np

from .jit import jit, larger, smaller
from .simd import (
    FROM_BIAS,
    FROM_OUTPUT,
    FROM_ZERO,
    PANEL_BYTES,
    ROW_VECTORS,
    TILE_ROWS,
    TILE_VECTORS,
    VECTOR_BYTES,
    matmul_packing_tile,
    matmul_panel,
    transpose_block,
)
from .threads import meet, share, start_together
from .vectors import lanes, load, store

K_BLOCK = 512
"""Rows of B in a packed panel: 64 KB in float32, read from the second-level cache. With fewer, C is fetched and
stored more often, and rows of C that lie a multiple of 4 KB apart push one another out of the first level."""
M_BLOCK = 96 * TILE_ROWS
"""Rows of A packed at a time."""
A_BYTES = 1 << 20
"""An A larger than this is packed: its rows no longer stay in the second-level cache, or collide there."""


@jit
def pack_transposed(panel, width, b, b_at, b_column, k, n):
    """panel[i*width + j] = b[b_at + i + j*b_column] for a (k, n) block, n <= width: B's columns are contiguous.

    Blocks are written whole: up to a block's side more of rows and columns.
    """
    side = VECTOR_BYTES // panel.itemsize
    for j in range(0, n, side):
        for i in range(0, k, side):
            transpose_block(
                panel, i * width + j, width, b, b_at + i + j * b_column, b_column,
                smaller(side, n - j), smaller(side, k - i),
            )  # fmt: skip


@jit
def pack_rows(packed, a, a_at, a_row, a_column, m, k):
    """Tiles of TILE_ROWS rows, column by column, so that a tile's next column is the next memory.

    Rows are turned into columns a square block at a time. A block may be taller than what is left of the tile; so
    the lowest comes first, and what it writes into the next column the next store puts right.
    """
    side = VECTOR_BYTES // packed.itemsize
    blocks = (TILE_ROWS + side - 1) // side
    for i0 in range(0, m, TILE_ROWS):
        rows = smaller(TILE_ROWS, m - i0)
        tile, at = i0 * k, a_at + i0 * a_row
        whole_k = k // side * side if a_column == 1 and i0 + blocks * side <= m else 0
        for p in range(0, whole_k, side):
            for block in range(blocks - 1, -1, -1):
                i = block * side
                transpose_block(packed, tile + p * TILE_ROWS + i, TILE_ROWS, a, at + i * a_row + p, a_row, side, side)
        for p in range(whole_k, k):
            for i in range(rows):
                packed[tile + p * TILE_ROWS + i] = a[at + i * a_row + p * a_column]


@jit(inline=True)
def _is_large(m, k, itemsize):
    """Whether an A of this size is worth packing, if enough columns of C read it."""
    return m * k * itemsize > A_BYTES


@jit
def product(
    c, c_at, c_row, a, a_at, a_row, a_column, b, b_at, b_row, b_column, m, k, n, start, bias, bias_at, scratch,
    panel_rows, first_column,
):  # fmt: skip
    """C (m, n) = start + A (m, k) B (k, n); arrays are flat memory, ``x_at`` the first element.

    A and B may have any strides (a transpose is two strides swapped); rows of C are contiguous.
    ``start`` is FROM_ZERO, FROM_OUTPUT (C += A B) or FROM_BIAS (the row at ``bias[bias_at:]``).
    ``scratch`` holds at least ``scratch_size(m, k)`` elements.

    ``panel_rows`` 0: B lies in rows or columns. Else it is stored as `store_panels` does, in panels of so
    many rows, and B is that matrix (``b_column`` 1) or its transpose (0) from column ``first_column`` on.
    """
    width = PANEL_BYTES // c.itemsize
    transposed = b_column != 1
    # A panel that many tiles read is worth a copy, unless it lies (nearly) contiguous anyway.
    packs_b = not transposed and m > 2 * TILE_ROWS and b_row > 2 * width and panel_rows == 0
    single = m == 1 and not transposed and panel_rows == 0
    wide = ROW_VECTORS // TILE_VECTORS * width if single else width
    packs_a = n > 8 * width and _is_large(m, k, c.itemsize)
    blocks = 1
    if transposed or packs_b or packs_a:
        blocks = larger(1, (k + K_BLOCK - 1) // K_BLOCK)
    depth = larger(width, (k + blocks * width - 1) // (blocks * width) * width)
    packed_a = scratch[K_BLOCK * width :]
    for k0 in range(0, larger(k, 1), depth):
        steps = smaller(depth, k - k0)
        mode = start if k0 == 0 else FROM_OUTPUT
        for m0 in range(0, m, M_BLOCK):
            rows = smaller(M_BLOCK, m - m0)
            tile, tile_at, tile_row, tile_column = a, a_at + m0 * a_row + k0 * a_column, a_row, a_column
            if packs_a:
                pack_rows(packed_a, a, tile_at, a_row, a_column, rows, steps)
                tile, tile_at, tile_row, tile_column = packed_a, 0, 1, TILE_ROWS
            j = np.int64(0)
            while j < n:
                columns = wide if n - j >= wide else smaller(width, n - j)
                c_block = c_at + m0 * c_row + j
                panel, panel_at, panel_row, first = b, b_at + k0 * b_row + j * b_column, b_row, 0
                if panel_rows and transposed:
                    for p in range(k0, k0 + steps, width):
                        part = smaller(width, k - p)
                        at = b_at + p * panel_rows + (first_column + j) * part
                        pack_transposed(scratch[(p - k0) * width :], width, b, at, part, part, columns)
                elif panel_rows:
                    panel_at = b_at + (first_column + j) * panel_rows + k0 * columns
                    panel_row = columns
                elif transposed:
                    pack_transposed(scratch, width, b, panel_at, b_column, steps, columns)
                elif packs_b and rows >= TILE_ROWS:
                    matmul_packing_tile(
                        c, c_block, c_row, tile, tile_at, tile_row, tile_column, b, panel_at, b_row,
                        steps, columns, mode, bias, bias_at + j, scratch,
                    )  # fmt: skip
                    first = TILE_ROWS
                if transposed or first:
                    panel, panel_at, panel_row = scratch, 0, width
                # a packed A changes its address at every tile, a strided one does not
                height = TILE_ROWS if packs_a else rows
                for i in range(first, rows, height):
                    at = i * steps if packs_a else tile_at + i * a_row
                    matmul_panel(
                        c, c_block + i * c_row, c_row, tile, at, tile_row, tile_column, panel, panel_at,
                        panel_row, steps, smaller(height, rows - i), columns, mode, bias, bias_at + j,
                    )  # fmt: skip
                j += columns


@jit
def store_panels(panels, rows, at, k, n, back):
    """A (k, n) matrix at ``rows[at:]`` into ``panels[at:]``, or ``back``: whole panels, one after the other.

    A panel is all rows of as many columns as a tile has (the last may have fewer). So a product reads it from
    one end to the other, and what a thread changes lies together.
    """
    width = PANEL_BYTES // rows.itemsize
    for j in range(0, n, width):
        columns = smaller(width, n - j)
        for i in range(k):
            row, panel = at + i * n + j, at + j * k + i * columns
            for c in range(0, columns, lanes(rows)):
                left = columns - c
                if back:
                    store(rows, row + c, left, load(panels, panel + c, left, 0.0))
                else:
                    store(panels, panel + c, left, load(rows, row + c, left, 0.0))


@jit(inline=True)
def scratch_size(m, k, itemsize):
    """Elements `product` needs to pack one panel of B, and one block of A if it is large enough to be packed.

    No more: what takes 128 KB or more, the system may hand out anew each time, and a product that takes 12 us
    would wait 36 for its pages.
    """
    rows = smaller((m + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS, M_BLOCK)
    return K_BLOCK * (PANEL_BYTES // itemsize) + (rows * smaller(k, K_BLOCK) if _is_large(m, k, itemsize) else 0)


@jit(inline=True)
def aligned_scratch(size, like):
    """``size`` elements of ``like``'s dtype that begin on a cache line: vectors that straddle two cost twice."""
    space = np.empty(size + VECTOR_BYTES // like.itemsize, like.dtype)
    first = -(space.ctypes.data // like.itemsize) % (VECTOR_BYTES // like.itemsize)
    return space[first : first + size]


@jit
def column_sums(out, x, x_at, x_row, m, n):
    """out[j] = sum over rows i, in order, of X[i, j]."""
    for j in range(n):
        out[j] = 0
    for i in range(m):
        row = x[x_at + i * x_row : x_at + i * x_row + n]
        for j in range(n):
            out[j] += row[j]


@jit(allocates=True)
def matmul_part(out, a, b, transpose_a, transpose_b, rows_from, rows_to, columns_from, columns_to):
    """A rectangle of out = op(a) op(b), contiguous matrices; op transposes where its flag is set."""
    n, m = out.shape[1], rows_to - rows_from
    zero, one, start = np.int64(0), np.int64(1), np.int64(FROM_ZERO)
    k = a.shape[0] if transpose_a else a.shape[1]
    a_row, a_column = (one, a.shape[1]) if transpose_a else (a.shape[1], one)
    b_row, b_column = (one, b.shape[1]) if transpose_b else (b.shape[1], one)
    scratch = aligned_scratch(scratch_size(m, k, out.itemsize), out)
    flat = out.reshape(-1)
    product(
        flat, rows_from * n + columns_from, n, a.reshape(-1), rows_from * a_row, a_row, a_column,
        b.reshape(-1), columns_from * b_column, b_row, b_column,
        m, k, columns_to - columns_from, start, flat, zero, scratch, zero, zero,
    )  # fmt: skip


@jit
def matmul(out, a, b, transpose_a, transpose_b):
    """out = op(a) op(b) for contiguous matrices; op transposes where its flag is set."""
    zero = np.int64(0)
    matmul_part(out, a, b, transpose_a, transpose_b, zero, out.shape[0], zero, out.shape[1])


@jit
def matmul_on_threads(thread, threads, sync, out, a, b, transpose_a, transpose_b):
    """`matmul` with the longer side of ``out`` shared among threads; of a square its rows: none packs all of A."""
    start_together(thread, sync, threads)
    (m, n), zero = out.shape, np.int64(0)
    if m >= n:
        first, last = share(m, thread, threads, TILE_ROWS)
        matmul_part(out, a, b, transpose_a, transpose_b, first, last, zero, n)
    else:
        first, last = share(n, thread, threads, PANEL_BYTES // out.itemsize)
        matmul_part(out, a, b, transpose_a, transpose_b, zero, m, first, last)
    meet(sync, threads)


@jit(allocates=True)
def dense_forward(out, x, weight, bias):
    """out = x weight + bias; x (B, I), weight (I, O), bias (O,) or empty."""
    (m, k), n = x.shape, weight.shape[1]
    scratch = aligned_scratch(scratch_size(m, k, out.itemsize), out)
    zero, one = np.int64(0), np.int64(1)
    product(
        out.reshape(-1), zero, n, x.reshape(-1), zero, k, one, weight.reshape(-1), zero, n, one,
        m, k, n, np.int64(FROM_BIAS if bias.size else FROM_ZERO), bias, zero, scratch, zero, zero,
    )  # fmt: skip


@jit(allocates=True)
def dense_backward(dx, dweight, dbias, dout, x, weight):
    """dx = dout weight^T, dweight = x^T dout, dbias = sum of dout's rows; an empty output is skipped."""
    (m, n), k = dout.shape, weight.shape[0]
    flat_dout, flat_weight = dout.reshape(-1), weight.reshape(-1)
    zero, one, start = np.int64(0), np.int64(1), np.int64(FROM_ZERO)
    size = larger(scratch_size(m, n, dout.itemsize), scratch_size(k, m, dout.itemsize))
    scratch = aligned_scratch(size, dout)
    if dbias.size:
        column_sums(dbias, flat_dout, zero, n, m, n)
    if dweight.size:
        flat = dweight.reshape(-1)
        product(
            flat, zero, n, x.reshape(-1), zero, one, k, flat_dout, zero, n, one,
            k, m, n, start, flat, zero, scratch, zero, zero,
        )  # fmt: skip
    if dx.size:
        flat = dx.reshape(-1)
        product(
            flat, zero, k, flat_dout, zero, n, one, flat_weight, zero, one, n,
            m, n, k, start, flat, zero, scratch, zero, zero,
        )  # fmt: skip

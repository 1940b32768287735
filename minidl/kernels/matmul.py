"""Matrix multiply: panels of B, tiles of C, and the dense layer built on them.

``product`` walks C in panels of two vectors of columns. For each panel a block of B is copied
("packed") into contiguous memory where that pays, and `simd.matmul_panel` runs down the rows of
C in tiles that stay in registers. Every output is one chain of multiply-adds over k, in order:
blocking, packing and the split among threads change the speed, never a bit of the result.
"""

from __future__ import annotations

import numpy as np

from .jit import jit
from .simd import FROM_BIAS, FROM_OUTPUT, FROM_ZERO, PANEL_BYTES, TILE_ROWS, matmul_panel

K_BLOCK = 384
"""Rows of B in a packed panel: 48 KB in float32, half of the second-level cache's share of a step."""
M_BLOCK = 96 * TILE_ROWS
"""Rows of A packed at a time."""


@jit
def pack_panel(panel, width, b, b_at, b_row, b_column, k, n):
    """panel[i*width + j] = B[i, j] for a (k, n) block, n <= width; columns past n become zero."""
    if n < width:
        for i in range(k * width):
            panel[i] = 0
    if b_column == 1:
        for i in range(k):
            source = b[b_at + i * b_row : b_at + i * b_row + n]
            target = panel[i * width : i * width + n]
            for j in range(n):
                target[j] = source[j]
    else:
        for i0 in range(0, k, 16):  # 16 rows: the 32 lines written stay in the first-level cache
            i1 = min(i0 + 16, k)
            for j in range(n):
                for i in range(i0, i1):
                    panel[i * width + j] = b[b_at + i * b_row + j * b_column]


@jit
def pack_rows(packed, a, a_at, a_row, a_column, m, k):
    """Tiles of TILE_ROWS rows, column by column, so that a tile's next column is the next memory."""
    for i0 in range(0, m, TILE_ROWS):
        rows = min(TILE_ROWS, m - i0)
        tile = packed[i0 * k : (i0 + TILE_ROWS) * k]
        if a_column == 1:
            for i in range(rows):
                at = a_at + (i0 + i) * a_row
                for p in range(k):
                    tile[p * TILE_ROWS + i] = a[at + p]
        else:
            for p in range(k):
                at = a_at + i0 * a_row + p * a_column
                for i in range(rows):
                    tile[p * TILE_ROWS + i] = a[at + i * a_row]


@jit
def product(
    c, c_at, c_row, a, a_at, a_row, a_column, b, b_at, b_row, b_column, m, k, n, start, bias, bias_at, scratch
):
    """C (m, n) = start + A (m, k) B (k, n); arrays are flat memory, ``x_at`` the first element.

    A and B may have any strides (a transpose is two strides swapped); rows of C are contiguous.
    ``start`` is FROM_ZERO, FROM_OUTPUT (C += A B) or FROM_BIAS (the row at ``bias[bias_at:]``).
    ``scratch`` holds at least ``scratch_size(m, k)`` elements.
    """
    width = PANEL_BYTES // c.itemsize
    # A panel that many tiles read is worth a copy; so is one whose columns are not contiguous.
    packs_b = b_column != 1 or (m > 2 * TILE_ROWS and b_row > 2 * width)
    packs_a = m > TILE_ROWS and n > 8 * width
    if not packs_b and not packs_a:
        for j in range(0, n, width):
            columns = min(width, n - j)
            matmul_panel(
                c, c_at + j, c_row, a, a_at, a_row, a_column, b, b_at + j, b_row,
                k, m, columns, start, bias, bias_at + j,
            )  # fmt: skip
        return
    blocks = max(1, (k + K_BLOCK - 1) // K_BLOCK)
    depth = (k + blocks - 1) // blocks
    packed_a = scratch[K_BLOCK * width :]
    for k0 in range(0, max(k, 1), max(depth, 1)):
        steps = min(depth, k - k0)
        mode = start if k0 == 0 else FROM_OUTPUT
        for m0 in range(0, m, M_BLOCK):
            rows = min(M_BLOCK, m - m0)
            a_block = a_at + m0 * a_row + k0 * a_column
            if packs_a:
                pack_rows(packed_a, a, a_block, a_row, a_column, rows, steps)
            for j in range(0, n, width):
                columns = min(width, n - j)
                c_block = c_at + m0 * c_row + j
                b_block = b_at + k0 * b_row + j * b_column
                panel, panel_at, panel_row = b, b_block, b_row
                if packs_b:
                    pack_panel(scratch, width, b, b_block, b_row, b_column, steps, columns)
                    panel, panel_at, panel_row = scratch, 0, width
                if not packs_a:
                    matmul_panel(
                        c, c_block, c_row, a, a_block, a_row, a_column, panel, panel_at, panel_row,
                        steps, rows, columns, mode, bias, bias_at + j,
                    )  # fmt: skip
                else:
                    for i in range(0, rows, TILE_ROWS):
                        matmul_panel(
                            c, c_block + i * c_row, c_row, packed_a, i * steps, 1, TILE_ROWS, panel, panel_at,
                            panel_row, steps, min(TILE_ROWS, rows - i), columns, mode, bias, bias_at + j,
                        )  # fmt: skip


@jit
def scratch_size(m, k, itemsize):
    """Elements `product` needs to pack one panel of B and one block of A."""
    rows = min((m + TILE_ROWS - 1) // TILE_ROWS * TILE_ROWS, M_BLOCK)
    return K_BLOCK * (PANEL_BYTES // itemsize) + rows * min(k, K_BLOCK)


@jit
def column_sums(out, x, x_at, x_row, m, n):
    """out[j] = sum over rows i, in order, of X[i, j]."""
    for j in range(n):
        out[j] = 0
    for i in range(m):
        row = x[x_at + i * x_row : x_at + i * x_row + n]
        for j in range(n):
            out[j] += row[j]


@jit
def matmul(out, a, b, transpose_a, transpose_b):
    """out = op(a) op(b) for contiguous matrices; op transposes where its flag is set."""
    m, n = out.shape
    k = a.shape[0] if transpose_a else a.shape[1]
    a_row, a_column = (1, a.shape[1]) if transpose_a else (a.shape[1], 1)
    b_row, b_column = (1, b.shape[1]) if transpose_b else (b.shape[1], 1)
    scratch = np.empty(scratch_size(m, k, out.itemsize), out.dtype)
    flat = out.reshape(-1)
    product(
        flat, 0, n, a.reshape(-1), 0, a_row, a_column, b.reshape(-1), 0, b_row, b_column,
        m, k, n, FROM_ZERO, flat, 0, scratch,
    )  # fmt: skip


@jit
def dense_forward(out, x, weight, bias):
    """out = x weight + bias; x (B, I), weight (I, O), bias (O,) or empty."""
    (m, k), n = x.shape, weight.shape[1]
    scratch = np.empty(scratch_size(m, k, out.itemsize), out.dtype)
    product(
        out.reshape(-1), 0, n, x.reshape(-1), 0, k, 1, weight.reshape(-1), 0, n, 1,
        m, k, n, FROM_BIAS if bias.size else FROM_ZERO, bias, 0, scratch,
    )  # fmt: skip


@jit
def dense_backward(dx, dweight, dbias, dout, x, weight):
    """dx = dout weight^T, dweight = x^T dout, dbias = sum of dout's rows; an empty output is skipped."""
    (m, n), k = dout.shape, weight.shape[0]
    flat_dout, flat_weight = dout.reshape(-1), weight.reshape(-1)
    scratch = np.empty(max(scratch_size(m, n, dout.itemsize), scratch_size(k, m, dout.itemsize)), dout.dtype)
    if dbias.size:
        column_sums(dbias, flat_dout, 0, n, m, n)
    if dweight.size:
        flat = dweight.reshape(-1)
        product(flat, 0, n, x.reshape(-1), 0, 1, k, flat_dout, 0, n, 1, k, m, n, FROM_ZERO, flat, 0, scratch)
    if dx.size:
        flat = dx.reshape(-1)
        product(flat, 0, k, flat_dout, 0, n, 1, flat_weight, 0, 1, n, m, n, k, FROM_ZERO, flat, 0, scratch)

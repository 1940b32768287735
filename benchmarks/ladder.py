"""The rungs between three nested loops and minidl.matmul, each one idea faster than the one before.

Every function computes ``c = a b`` for C-contiguous float32 matrices of any shape.
"""

from __future__ import annotations

import numba
import numpy as np

from minidl.kernels import matmul as kernels
from minidl.kernels.matmul import by_rows, from_zero
from minidl.kernels.simd import Shape, matmul_panel
from minidl.kernels.target import PANEL_BYTES

COLUMNS = 256

_jit = numba.njit(nogil=True, error_model="numpy")


@_jit
def naive(c, a, b):
    """A dot product an element. b is read down its columns, a cache line for every number."""
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            total = c.dtype.type(0)
            for p in range(a.shape[1]):
                total += a[i, p] * b[p, j]
            c[i, j] = total


@_jit
def reordered(c, a, b):
    """The same loops, the column innermost: rows of b and c are read in order, and LLVM vectorises them."""
    c[:] = 0
    for i in range(a.shape[0]):
        for p in range(a.shape[1]):
            for j in range(b.shape[1]):
                c[i, j] += a[i, p] * b[p, j]


@_jit
def blocked(c, a, b):
    """Blocks of four rows and 256 columns of b: they stay in the first-level cache while the rows of c go by,
    and each number of c is loaded and stored a quarter as often.
    """
    c[:] = 0
    (m, k), n = a.shape, b.shape[1]
    fours = k - k % 4
    for j in range(0, n, COLUMNS):
        for p in range(0, fours, 4):
            b0, b1 = b[p, j : j + COLUMNS], b[p + 1, j : j + COLUMNS]
            b2, b3 = b[p + 2, j : j + COLUMNS], b[p + 3, j : j + COLUMNS]
            for i in range(m):
                out = c[i, j : j + COLUMNS]
                a0, a1, a2, a3 = a[i, p], a[i, p + 1], a[i, p + 2], a[i, p + 3]
                for q in range(out.size):
                    out[q] += a0 * b0[q] + a1 * b1[q] + a2 * b2[q] + a3 * b3[q]
        for p in range(fours, k):
            row = b[p, j : j + COLUMNS]
            for i in range(m):
                out = c[i, j : j + COLUMNS]
                for q in range(out.size):
                    out[q] += a[i, p] * row[q]


@_jit
def tiled(c, a, b):
    """minidl's register tile on a and b as they lie: sums leave the registers once, not once a term."""
    (m, k), n = a.shape, b.shape[1]
    width = PANEL_BYTES // c.itemsize
    flat_a, flat_b, flat_c = a.reshape(-1), b.reshape(-1), c.reshape(-1)
    for j in range(0, n, width):
        matmul_panel(
            by_rows(flat_c, j, n), by_rows(flat_a, 0, k), by_rows(flat_b, j, n),
            Shape(m, k, min(width, n - j)), from_zero(flat_c),
        )  # fmt: skip


@_jit
def repeated(c, a, b, transpose_a, transpose_b, count):
    """minidl's kernel on one thread, ``count`` times, called from compiled code."""
    for _ in range(count):
        kernels.matmul(c, a, b, transpose_a, transpose_b)


def packed(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """minidl's kernel on one thread: the tile again, its operands first copied in the order it reads them."""
    kernels.matmul(c, a, b, False, False)

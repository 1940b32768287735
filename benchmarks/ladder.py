"""The rungs between three nested loops and minidl.matmul, each one idea faster than the one before.

Every function computes ``c = a b`` for C-contiguous float32 matrices of any shape.
"""

from __future__ import annotations

import numba
import numpy as np

from minidl.kernels import matmul as kernels
from minidl.kernels.simd import FROM_ZERO, PANEL_BYTES, matmul_panel

BLOCK = 64

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
    """The same on a block of b that stays in the first-level cache while all rows of a go past it."""
    c[:] = 0
    (m, k), n = a.shape, b.shape[1]
    for p0 in range(0, k, BLOCK):
        for j0 in range(0, n, 2 * BLOCK):
            for i in range(m):
                out = c[i, j0 : j0 + 2 * BLOCK]
                for p in range(p0, min(p0 + BLOCK, k)):
                    row = b[p, j0 : j0 + 2 * BLOCK]
                    for j in range(out.size):
                        out[j] += a[i, p] * row[j]


@_jit
def tiled(c, a, b):
    """minidl's register tile on a and b as they lie: sums leave the registers once, not once a term."""
    (m, k), n = a.shape, b.shape[1]
    width = PANEL_BYTES // c.itemsize
    flat_a, flat_b, flat_c = a.reshape(-1), b.reshape(-1), c.reshape(-1)
    for j in range(0, n, width):
        matmul_panel(
            flat_c, j, n, flat_a, 0, k, 1, flat_b, j, n, k, m, min(width, n - j), FROM_ZERO, flat_c, 0
        )


def packed(c: np.ndarray, a: np.ndarray, b: np.ndarray) -> None:
    """minidl's kernel on one thread: the tile again, its operands first copied in the order it reads them."""
    kernels.matmul(c, a, b, False, False)

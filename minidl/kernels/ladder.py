"""The rungs between three nested loops and `matmul`, each one idea faster than the one before.

Every function computes ``c = a b`` for C-contiguous matrices of one dtype and of any shape. Each number of c is one
chain of fused multiply-adds over k, in order, on every rung. So all rungs give the same bits, and differ in nothing but
the time they take.
"""

from .jit import jit
from .matmul import by_rows, from_zero
from .simd import Shape, matmul_panel
from .target import PANEL_BYTES
from .vectors import fma

COLUMNS = 256
"""Columns of b that `blocked` works on at a time: four rows of them are 4 KB in float32."""


@jit
def naive(c, a, b):
    """A dot product for each number of c. b is read down its columns, a cache line for every number."""
    for i in range(a.shape[0]):
        for j in range(b.shape[1]):
            total = c.dtype.type(0)
            for p in range(a.shape[1]):
                total = fma(a[i, p], b[p, j], total)
            c[i, j] = total


@jit
def reordered(c, a, b):
    """The same loops, the column innermost: rows of b and c are read in order, and LLVM vectorises the loop."""
    c[:] = 0
    for i in range(a.shape[0]):
        for p in range(a.shape[1]):
            for j in range(b.shape[1]):
                c[i, j] = fma(a[i, p], b[p, j], c[i, j])


@jit
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
                    out[q] = fma(a3, b3[q], fma(a2, b2[q], fma(a1, b1[q], fma(a0, b0[q], out[q]))))
        for p in range(fours, k):
            row = b[p, j : j + COLUMNS]
            for i in range(m):
                out = c[i, j : j + COLUMNS]
                for q in range(out.size):
                    out[q] = fma(a[i, p], row[q], out[q])


@jit
def tiled(c, a, b):
    """The register tile on a and b as they lie: sums leave the registers once, not once a term."""
    (m, k), n = a.shape, b.shape[1]
    width = PANEL_BYTES // c.itemsize
    flat_a, flat_b, flat_c = a.reshape(-1), b.reshape(-1), c.reshape(-1)
    for j in range(0, n, width):
        matmul_panel(
            by_rows(flat_c, j, n), by_rows(flat_a, 0, k), by_rows(flat_b, j, n),
            Shape(m, k, min(width, n - j)), from_zero(flat_c),
        )  # fmt: skip


def _repeated(rung):
    @jit(name=f"repeated_{rung.__name__}")
    def repeat(c, a, b, count):
        for _ in range(count):
            rung(c, a, b)

    return repeat


REPEATED = {rung.__name__: _repeated(rung) for rung in (naive, reordered, blocked, tiled)}
"""Each rung ``count`` times in one call: a product that fits the first-level cache is too short to be timed alone."""

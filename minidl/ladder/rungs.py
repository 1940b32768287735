"""The rungs: what each computes, what changed, what it waits for, and where its source is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..kernels import ladder, threads
from ..kernels.ladder import blocked, naive, reordered, tiled
from ..kernels.matmul import matmul, matmul_on_threads
from ..kernels.target import PANEL_BYTES, TILE_ROWS, TILE_VECTORS, VECTOR_BYTES
from . import waits
from .figures import Figures

_LANES = VECTOR_BYTES // 4


def plain_python(a: list[list[float]], b: list[list[float]]) -> list[list[float]]:
    """Three nested loops over lists of rows."""
    k, n = len(b), len(b[0]) if b else 0
    c = [[0.0] * n for _ in a]
    for i in range(len(a)):
        for j in range(n):
            total = 0.0
            for p in range(k):
                total += a[i][p] * b[p][j]
            c[i][j] = total
    return c


def packed(c, a, b) -> None:
    """minidl's kernel on one thread."""
    matmul(c, a, b, False, False)


def on_threads(c, a, b) -> None:
    """minidl's kernel on as many threads as are worth using."""
    threads.run(matmul_on_threads, c, a, b, False, False, threads=threads.most_threads())


@dataclass(frozen=True)
class Rung:
    """One rung. ``product(c, a, b)`` writes c; `plain_python` and NumPy are called in their own ways."""

    name: str
    changed: str
    waits: Callable[[Figures], str]
    sources: tuple[tuple[str, str], ...] = ()  # (file below minidl/, function)
    product: Callable | None = None
    near: tuple[str, tuple[int, int, int]] | None = None  # a kernel, and m, k, n that fit a first-level cache
    most_terms: float = float("inf")  # of one call; a slow rung computes some rows of c
    kernel: str = ""  # its inner loop is that of this kernel of kernels/ladder.py


_TILE = "tiled", (2 * TILE_ROWS, min(256, 2**14 // PANEL_BYTES), PANEL_BYTES // 4)

PLAIN = Rung(
    "plain Python",
    "Three nested loops over lists.",
    waits.interpreter,
    (("ladder/rungs.py", "plain_python"),),
    most_terms=6e5,
)
THREADS = Rung(
    "threads",
    "The rows of c are shared out; each thread runs rung 6 on its own, and all meet at the end.",
    waits.cores,
    (("kernels/matmul.py", "matmul_on_threads"), ("kernels/threads.py", "run")),
    on_threads,
)
NUMPY = Rung(
    "NumPy",
    "The product of NumPy's BLAS, for comparison.",
    waits.numpy,
    (("ladder/blas.py", "time_numpy"),),
)
RUNGS = (
    PLAIN,
    Rung(
        "naive Numba",
        "The same loops, compiled: numbers instead of objects.",
        waits.latency,
        (("kernels/ladder.py", "naive"),),
        naive,
        ("naive", (2, 1024, 2)),
        most_terms=3e7,
        kernel="naive",
    ),
    Rung(
        "loops reordered",
        f"The column runs innermost: b and c are read row by row, and the compiler computes {_LANES} "
        "numbers at a time, "
        f"each in a sum of its own.",
        waits.bytes_of_b,
        (("kernels/ladder.py", "reordered"),),
        reordered,
        ("reordered", (4, 8, 512)),
        kernel="reordered",
    ),
    Rung(
        "blocked",
        f"Four rows of b at a time, {ladder.COLUMNS} columns of them: they stay in the first-level cache, "
        "and c is loaded "
        f"and stored a quarter as often.",
        waits.bytes_of_c,
        (("kernels/ladder.py", "blocked"),),
        blocked,
        ("blocked", (8, 16, 256)),
        kernel="blocked",
    ),
    Rung(
        "SIMD micro-kernel",
        f"A tile of {TILE_ROWS} rows and {TILE_VECTORS} vectors of {_LANES} numbers stays in registers: its "
        f"{TILE_ROWS * TILE_VECTORS} sums are stored once, after all of k.",
        waits.far_rows,
        (("kernels/ladder.py", "tiled"), ("kernels/tiles.py", "_tile")),
        tiled,
        _TILE,
        kernel="tiled",
    ),
    Rung(
        "packed",
        "The same tile, but b (and a, where it is large) is first copied in the order in which the tile reads it.",
        waits.lanes_times_clock,
        (("kernels/matmul.py", "product"), ("kernels/matmul.py", "pack_rows")),
        packed,
        _TILE,
    ),
    THREADS,
    NUMPY,
)

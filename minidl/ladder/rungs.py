"""The rungs: what each computes, what changed, what it waits for, and where its source is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..kernels import threads
from ..kernels.ladder import COLUMNS, blocked, naive, reordered, tiled
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
    """One rung. ``product(c, a, b)`` writes c; `plain_python` and NumPy are called in ways of their own."""

    name: str
    changed: str
    waits: Callable[[Figures], str]
    sources: tuple[tuple[str, str], ...]  # (file below minidl/, function)
    product: Callable | None = None
    kernel: str = ""  # the function of kernels/ladder.py whose inner loop it runs
    near: tuple[int, int, int] | None = None  # m, k and n of a product that a first-level cache holds
    most_terms: float = float("inf")  # of one call: a slow rung computes some rows of c


_NEAR_TILE = (2 * TILE_ROWS, min(256, 2**14 // PANEL_BYTES), PANEL_BYTES // 4)

PLAIN = Rung(
    name="plain Python",
    changed="Three nested loops over lists.",
    waits=waits.interpreter,
    sources=(("ladder/rungs.py", "plain_python"),),
    most_terms=6e5,
)
NAIVE = Rung(
    name="naive Numba",
    changed="The same loops, compiled: numbers instead of objects.",
    waits=waits.latency,
    sources=(("kernels/ladder.py", "naive"),),
    product=naive,
    kernel="naive",
    near=(2, 1024, 2),
    most_terms=3e7,
)
REORDERED = Rung(
    name="loops reordered",
    changed="The column runs innermost: b and c are read row by row, and the compiler computes "
    f"{_LANES} numbers at a time, each in a sum of its own.",
    waits=waits.bytes_of_b,
    sources=(("kernels/ladder.py", "reordered"),),
    product=reordered,
    kernel="reordered",
    near=(4, 8, 512),
)
BLOCKED = Rung(
    name="blocked",
    changed=f"Four rows of b at a time, {COLUMNS} columns of them: they stay in the first-level cache, and c is "
    "loaded and stored a quarter as often.",
    waits=waits.bytes_of_c,
    sources=(("kernels/ladder.py", "blocked"),),
    product=blocked,
    kernel="blocked",
    near=(8, 16, 256),
)
TILED = Rung(
    name="SIMD micro-kernel",
    changed=f"A tile of {TILE_ROWS} rows and {TILE_VECTORS} vectors of {_LANES} numbers stays in registers: its "
    f"{TILE_ROWS * TILE_VECTORS} sums are stored once, after all of k.",
    waits=waits.far_rows,
    sources=(("kernels/ladder.py", "tiled"), ("kernels/tiles.py", "_tile")),
    product=tiled,
    kernel="tiled",
    near=_NEAR_TILE,
)
PACKED = Rung(
    name="packed",
    changed="The same tile, but b (and a, where it is large) is first copied in the order in which the tile reads it.",
    waits=waits.lanes_times_clock,
    sources=(("kernels/matmul.py", "product"), ("kernels/matmul.py", "pack_rows")),
    product=packed,
    kernel="tiled",
    near=_NEAR_TILE,
)
THREADS = Rung(
    name="threads",
    changed="The rows of c are shared out; each thread runs rung 6 on its own, and all meet at the end.",
    waits=waits.cores,
    sources=(("kernels/matmul.py", "matmul_on_threads"), ("kernels/threads.py", "run")),
    product=on_threads,
)
NUMPY = Rung(
    name="NumPy",
    changed="The product of NumPy's BLAS, for comparison.",
    waits=waits.numpy,
    sources=(("ladder/blas.py", "time_numpy"),),
)
RUNGS = (PLAIN, NAIVE, REORDERED, BLOCKED, TILED, PACKED, THREADS, NUMPY)

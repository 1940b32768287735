"""Each rung checked, timed, and timed again on data that lies in the first-level cache."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

from ..kernels import ladder
from ..kernels.matmul import matmul, matmul_on_threads
from ..machine import least_seconds
from . import blas
from .figures import Figures, Machine
from .problem import Problem, aligned
from .rungs import NUMPY, PACKED, PLAIN, RUNGS, THREADS, Rung, plain_python

LEAST, MOST = 128, 2048
"""Sizes: a smaller product is over before Python's call of it is, a larger one takes minutes."""


def compile_rungs() -> tuple[float, bool]:
    """(seconds that it took to compile all rungs or to load them from the disk, whether any was compiled)."""
    began = time.perf_counter()
    one = [aligned(1, 1) for _ in "cab"]
    for rung in RUNGS:
        if rung.product is not None:
            rung.product(*one)
        if rung.near is not None:
            ladder.REPEATED[rung.kernel](*one, 1)
    kernels = [*ladder.REPEATED.values(), matmul, matmul_on_threads]
    return time.perf_counter() - began, any(kernel.stats.cache_misses for kernel in kernels)


def climb(machine: Machine, size: int, seconds: float = 0.4) -> Iterator[tuple[Rung, Figures]]:
    """Every rung with its figures, as soon as they are there; about ``seconds`` for each.

    Raises `Wrong` where a rung's product is not NumPy's.
    """
    problem, alone = Problem(size), 0.0
    for rung in RUNGS:
        if rung is THREADS and machine.threads == 1:
            continue
        figures = _measure(rung, problem, machine, seconds)
        if rung is PACKED:
            alone = figures.rate
        yield rung, replace(figures, alone=alone) if rung is THREADS else figures


def _measure(rung: Rung, problem: Problem, machine: Machine, seconds: float) -> Figures:
    size, threads, alone = problem.size, machine.threads if rung in (THREADS, NUMPY) else 1, 0.0
    rows = max(1, int(min(size, rung.most_terms / size**2)))
    if rung is NUMPY:
        best, share = blas.time_numpy(size, seconds, threads)
        if threads > 1:
            alone = 2.0 * size**3 / blas.time_numpy(size, seconds, 1)[0]
    else:
        product = _plain_product(problem, rows) if rung is PLAIN else rung.product
        best, share = problem.time(rung.name, product, rows, seconds, threads)
    return Figures(
        size=size,
        rows=rows,
        rate=2.0 * rows * size**2 / best,
        near=_near_rate(rung, seconds / 2),
        threads=threads,
        share=share,
        machine=machine,
        alone=alone,
    )


def _plain_product(problem: Problem, rows: int):
    """Rung 1, on lists that are made before it is timed."""
    a, b = problem.a[:rows].tolist(), problem.b.tolist()

    def product(c, _a, _b):
        c[...] = plain_python(a, b)

    return product


def _near_rate(rung: Rung, seconds: float) -> float:
    """Operations a second on matrices that the first-level cache holds together; 0 if the rung has no such kernel."""
    if rung.near is None:
        return 0.0
    m, k, n = rung.near
    repeated = ladder.REPEATED[rung.kernel]
    c, a, b = aligned(m, n), aligned(m, k), aligned(k, n)
    return 2.0 * m * k * n / least_seconds(lambda rounds: repeated(c, a, b, rounds), seconds)

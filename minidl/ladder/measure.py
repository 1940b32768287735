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
from .rungs import NUMPY, PLAIN, RUNGS, THREADS, Rung

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
            ladder.REPEATED[rung.near[0]](*one, 1)
    kernels = [getattr(ladder, rung.kernel) for rung in RUNGS if rung.kernel]
    kernels += [*ladder.REPEATED.values(), matmul, matmul_on_threads]
    return time.perf_counter() - began, any(kernel.stats.cache_misses for kernel in kernels)


def climb(machine: Machine, size: int, seconds: float = 0.4) -> Iterator[tuple[Rung, Figures]]:
    """Every rung with its figures, as soon as they are there; about ``seconds`` for each.

    Raises `Wrong` where a rung's product is not NumPy's.
    """
    problem, rates = Problem(size), {}
    for rung in RUNGS:
        if rung is THREADS and machine.threads == 1:
            continue
        figures = _measure(rung, problem, machine, seconds)
        rates[rung] = figures.rate
        if rung is THREADS:
            figures = replace(figures, alone=list(rates.values())[-2])
        yield rung, figures


def _measure(rung: Rung, problem: Problem, machine: Machine, seconds: float) -> Figures:
    size, alone = problem.size, 0.0
    threads = machine.threads if rung in (THREADS, NUMPY) else 1
    rows = max(1, int(min(size, rung.most_terms / size**2)))
    if rung is NUMPY:
        rate, share = blas.time_numpy(size, seconds, threads)
        alone = blas.time_numpy(size, seconds, 1)[0] if threads > 1 else 0.0
        return Figures(size, rows, rate, 0.0, threads, share, machine, alone)
    product = _plain_product(problem, rows) if rung is PLAIN else rung.product
    best, share = problem.time(rung.name, product, rows, seconds, threads)
    return Figures(
        size, rows, 2.0 * rows * size**2 / best, _near_rate(rung, seconds / 4), threads, share, machine
    )


def _plain_product(problem: Problem, rows: int):
    """Rung 1 on lists, which are made before it is timed; its list becomes c when it is checked."""
    from .rungs import plain_python

    a, b = problem.a[:rows].tolist(), problem.b.tolist()

    def product(c, _a, _b):
        c[...] = plain_python(a, b)

    return product


def _near_rate(rung: Rung, seconds: float) -> float:
    """Operations a second on matrices that the first-level cache holds together; 0 if the rung has no such kernel."""
    if rung.near is None:
        return 0.0
    name, (m, k, n) = rung.near
    c, a, b = aligned(m, n), aligned(m, k), aligned(k, n)
    return 2.0 * m * k * n / least_seconds(lambda rounds: ladder.REPEATED[name](c, a, b, rounds), seconds)

"""The product that all rungs compute, its right answer, and the stopwatch."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from ..kernels.target import aligned_zeros
from ..machine import least_seconds


class Wrong(ValueError):
    """A rung's product is not right, so its time means nothing."""


def aligned(m: int, n: int) -> np.ndarray:
    """A float32 matrix that begins on a cache line: a vector that straddles two would cost twice."""
    return aligned_zeros(m * n, np.float32).reshape(m, n)


class Problem:
    """c = a b for random square matrices of float32."""

    def __init__(self, size: int):
        rng = np.random.default_rng(size)
        self.size = size
        self.a, self.b, self.c = (aligned(size, size) for _ in "abc")
        for matrix in (self.a, self.b):
            matrix[...] = rng.standard_normal(matrix.shape, np.float32)
        a, b = self.a.astype(np.float64), self.b.astype(np.float64)
        self._expected, self._magnitude = a @ b, np.abs(a) @ np.abs(b)

    def check(self, name: str, c: np.ndarray) -> None:
        """`Wrong` unless the first rows of the product are NumPy's, in float64, but for the rounding of any order."""
        expected, magnitude = self._expected[: len(c)], self._magnitude[: len(c)]
        limit = np.finfo(np.float32).eps * (4 + self.size**0.5)
        error = float((np.abs(c - expected) / np.maximum(magnitude, 1e-30)).max(initial=0.0))
        if not error <= limit:  # NaN is none
            raise Wrong(
                f"{name} is not timed: its product is wrong by {error:.1e} of what is summed, more than {limit:.1e}"
            )

    def time(
        self, name: str, product: Callable, rows: int, seconds: float, threads: int = 1
    ) -> tuple[float, float]:
        """(the least seconds of ``product(c, a, b)``, the share of its processors it got), once it is checked.

        It computes the first ``rows`` rows of c.
        """
        c, a = self.c[:rows], self.a[:rows]
        c[...] = np.nan
        product(c, a, self.b)
        self.check(name, c)

        def run(rounds: int) -> None:
            for _ in range(rounds):
                product(c, a, self.b)

        wall, own = time.perf_counter(), time.process_time()
        best = least_seconds(run, seconds, threads)
        wall, own = time.perf_counter() - wall, time.process_time() - own
        return best, min(1.0, own / (wall * threads))

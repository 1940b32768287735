"""The small commands of ``python -m minidl``: explain, matmul, info, warmup."""

from __future__ import annotations

import argparse
import math
import platform
import time
from pathlib import Path

import numba
import numpy as np

from . import __version__
from .datasets import mnist
from .distillation.main_job import compile_kernels, parse_numbers
from .distillation.text import format_table
from .explain import explain
from .kernels import target
from .kernels.jit import JIT_DISABLED
from .runtime import get_num_threads, matmul, set_num_threads


def run_explain(options: argparse.Namespace) -> None:
    print(explain(options.temperature, options.learning_rate), end="")


def run_warmup(options: argparse.Namespace) -> None:
    compile_kernels(options.dtype)


def product_shape(text: str) -> tuple[int, ...]:
    """Rows, inner size and columns of a product such as ``128x784x1200``."""
    rule = "a product must look like 128x784x1200"
    numbers = parse_numbers(text, "x", rule)
    if len(numbers) != 3:
        raise argparse.ArgumentTypeError(f"{rule}, got {text!r}")
    return numbers


def run_matmul(options: argparse.Namespace) -> None:
    """Check each product against NumPy's, then time both in turn and give the better of many runs."""
    if options.threads is not None:
        set_num_threads(options.threads)
    shapes = [(32, 784, 64), (32, 64, 64), (128, 784, 1200), (128, 1200, 1200), (1024, 1024, 1024)]
    rows = [_compare(shape, options.dtype) for shape in options.sizes or shapes]
    print(f"{options.dtype}, {get_num_threads()} threads, GFLOP/s")
    print(format_table(("product", "minidl", "numpy", "ratio", "relative error"), rows))


def _compare(shape: tuple[int, ...], dtype: str) -> list[str]:
    """One row of the table: the speed of both products, their ratio and the error of minidl's."""
    m, k, n = shape
    rng = np.random.default_rng(0)
    a, b = (rng.normal(size=size).astype(dtype) for size in ((m, k), (k, n)))
    out = np.empty((m, n), dtype)
    matmul(a, b, out=out)
    expected = a.astype(np.float64) @ b
    error = float(np.abs(out - expected).max() / np.abs(expected).max())
    if not error < 10 * np.finfo(dtype).eps * math.sqrt(k):
        raise ValueError(f"{m}x{k}x{n}: wrong by {error:.1e}")
    ours, theirs = _fastest(lambda: matmul(a, b, out=out), lambda: np.matmul(a, b, out=out))
    gflop = 2e-9 * m * k * n
    speeds = [f"{gflop / ours:.0f}", f"{gflop / theirs:.0f}", f"{theirs / ours:.2f}"]
    return [f"{m}x{k}x{n}", *speeds, f"{error:.0e}"]


def _fastest(*functions, seconds: float = 0.3) -> list[float]:
    """Each function's shortest time. The functions take turns, so that a busy moment slows them all."""
    best = [math.inf] * len(functions)
    end = time.perf_counter() + seconds * len(functions)
    while time.perf_counter() < end:
        for i, function in enumerate(functions):
            started = time.perf_counter()
            function()
            best[i] = min(best[i], time.perf_counter() - started)
    return best


def run_info(options: argparse.Namespace) -> None:
    cache = "off (NUMBA_DISABLE_JIT)" if JIT_DISABLED else Path(target.__file__).parent / "__pycache__"
    rows = {
        "minidl": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "numpy, numba": f"{np.__version__}, {numba.__version__}",
        "vectors": f"{8 * target.VECTOR_BYTES} bits, fused multiply-add: {'yes' if target.HAS_FMA else 'no'}",
        "threads": get_num_threads(),
        "compiled code": cache,
        "data folder": f"{mnist.cache_folder()} (or MINIDL_DATA)",
    }
    width = max(map(len, rows))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in rows.items()))

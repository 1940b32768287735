"""``python -m minidl info``: versions, processor, threads, folders; on request, what the processor can do at most."""

from __future__ import annotations

import argparse
import contextlib
import os
import platform

import llvmlite
import numba
import numpy as np

from . import __version__, machine
from .datasets import mnist
from .kernels import cache, cpu_count, target, threads
from .kernels.jit import JIT_DISABLED
from .kernels.matmul import K_BLOCK
from .machine import rate_text, size_text, time_text

_SECONDS = 0.3
"""For each figure that is measured."""


def run(options: argparse.Namespace) -> None:
    if options.measure and JIT_DISABLED:
        raise ValueError("--measure needs compiled code, and NUMBA_DISABLE_JIT is set")
    rows = _describe()
    width = max(map(len, rows))
    for described in (lambda: rows, *([_measure] if options.measure else [])):
        print("\n".join(f"{name:<{width}}  {value}" for name, value in described().items()), flush=True)


def _describe() -> dict[str, str]:
    height, lower = target.TILE_ROWS, ", ".join(map(str, target.TILE_HEIGHTS[1:]))
    wide, narrow = (f"{height} x {target.PANEL_BYTES // size}" for size in (4, 8))
    why = "NUMBA_DISABLE_JIT" if JIT_DISABLED else cpu_count.explain_default()
    caches = (f"L{cache.level} {size_text(cache.size)}" for cache in machine.caches())
    return {
        "minidl": __version__,
        "python": f"{platform.python_version()} on {platform.system()} {platform.machine()}",
        "numpy": f"{np.__version__} with {machine.blas_name()}",
        "numba, llvmlite": f"{numba.__version__}, {llvmlite.__version__}",
        "processor": machine.processor(),
        "caches": ", ".join(caches) or "unknown",
        "vectors": f"{8 * target.VECTOR_BYTES} bits, fused multiply-add: {'yes' if target.HAS_FMA else 'no'}",
        "tiles": f"{wide} float32, {narrow} float64; then {lower} rows; panels of {K_BLOCK} rows",
        "threads": f"{threads.get_num_threads()} ({why})",
        "compiled code": _describe_cache(),
        "data folder": _describe_data(),
    }


def _describe_cache() -> str:
    if JIT_DISABLED:
        return "off (NUMBA_DISABLE_JIT)"
    kept = cache.folder()
    if kept is None:
        return f"not kept; {cache.ADVICE}"
    sizes = []
    with contextlib.suppress(OSError):  # another process may discard a file meanwhile
        sizes = [file.stat().st_size for file in kept.glob("*.nbc")]
    return f"{kept} ({len(sizes)} files, {size_text(sum(sizes))})"


def _describe_data() -> str:
    try:
        return f"{os.environ.get('MINIDL_DATA') or mnist.cache_folder()} (or MINIDL_DATA)"
    except OSError as error:
        return str(error)


def _measure() -> dict[str, str]:
    """What one thread and all can do: multiply-adds in registers, bytes through each cache and from memory."""
    counts = sorted({1, threads.most_threads()})
    caches, size = machine.caches(), machine.memory_size(machine.caches())
    adds = [machine.MultiplyAdds(count) for count in counts]
    found = {
        "multiply-adds": _on_threads("GFLOP/s", counts, adds) + "; float32, two operations each",
        "a multiply-add": f"{time_text(machine.latency(_SECONDS))}, until the next can use its result",
        "clock": f"{rate_text(machine.clock(_SECONDS))} GHz or somewhat more",
    }
    for level in caches:
        found[f"L{level.level} cache"] = _on_threads("GB/s", [1], [machine.Triad(level.size // 2)])
    streams = [machine.Triad(size, count) for count in counts]
    found["memory"] = _on_threads("GB/s", counts, streams) + f"; a = b + 3c, {size / 1e6:.0f} MB"
    share = min(work.together.share for work in (*adds, *streams))
    if share < 0.9:
        lost = f"at times other processes had {1 - share:.0%} of the time of these processors"
        found["busy"] = f"{lost}; figures are too low"
    return found


def _on_threads(unit: str, counts: list[int], works: list) -> str:
    """Such as "106 GFLOP/s on 1 thread, 211 on 2"."""
    parts = [
        f"{rate_text(machine.rate(work, _SECONDS))} on {count}"
        for count, work in zip(counts, works, strict=True)
    ]
    return ", ".join([parts[0].replace(" on 1", f" {unit} on 1 thread"), *parts[1:]])

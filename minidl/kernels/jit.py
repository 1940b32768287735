"""The one decorator every kernel uses, with each compiler flag explained once."""

import hashlib
from pathlib import Path

import numba

JIT_DISABLED = bool(numba.config.DISABLE_JIT)
"""True under ``NUMBA_DISABLE_JIT=1``: kernels then run as plain Python and NumPy."""


_SOURCES = sorted(Path(__file__).parent.glob("*.py"))
_STAMP = hashlib.sha256(b"".join(path.name.encode() + path.read_bytes() for path in _SOURCES)).hexdigest()
"""A digest of every file in this folder.

Numba's on-disk cache notices an edit in the file of the cached function only. A kernel that calls into another file
would go on running that file's old code, so any edit here discards the compiled code of all kernels.
"""

_FLAGS = {
    # Compile to machine code or fail: never fall back to the interpreter.
    "nopython": True,
    # Release the GIL while a kernel runs, so that Python threads and our own run beside it.
    "nogil": True,
    # x / 0 is inf, as in NumPy. Python's rule (raise) puts a branch in every loop that divides,
    # and a loop with such a branch does not vectorise: Adam takes six times as long.
    "error_model": "numpy",
    # Strict IEEE arithmetic: NaN and inf stay visible, and a formula gives the same bits
    # whether LLVM vectorises it or not. A fused multiply-add is written by name (vectors.fma).
    "fastmath": False,
    # Do not count references to arrays: the caller holds every array that a kernel is given. Counting is atomic, so
    # each slice of an array would wait until all stores before it have left the processor.
    "_nrt": False,
}


def jit(function=None, *, inline: bool = False, allocates: bool = False):
    """Compile ``function`` with the flags above and keep the machine code on disk.

    ``inline=True`` is for helpers: the body is pasted into the caller before LLVM sees it.
    ``allocates=True`` is for kernels that make arrays: those count references. The cache lives in
    ``__pycache__`` beside the source, or in the user's cache folder if that is not writable. If
    neither is, or an access fails later, the code is compiled anew in each process.
    """
    if function is None:
        return lambda wrapped: jit(wrapped, inline=inline, allocates=allocates)
    if JIT_DISABLED:
        return function
    flags = dict(_FLAGS)
    if inline:
        flags["inline"] = "always"
    if allocates:
        flags["_nrt"] = True
    try:
        dispatcher = numba.jit(cache=True, **flags)(function)
    except RuntimeError:  # "no locator available": there is nowhere to write
        return numba.jit(**flags)(function)
    dispatcher._cache._cache_file._source_stamp = _STAMP
    for name in ("save_overload", "load_overload"):
        setattr(dispatcher._cache, name, _forgiving(getattr(dispatcher._cache, name)))
    return dispatcher


def _forgiving(access):
    """An access to the cache whose failure (a full disk, a damaged file) costs a compilation and nothing else."""

    def attempt(*arguments):
        try:
            return access(*arguments)
        except Exception:  # whatever a damaged pickle raises
            return None

    return attempt


@jit(inline=True)
def smaller(a, b):
    """min(a, b) of integers. Numba's own min is compiled anew for every mix of types and literals."""
    return a if a < b else b


@jit(inline=True)
def larger(a, b):
    """max(a, b) of integers."""
    return a if a > b else b


@jit
def copy(out, x):
    """out = x, arrays of equal shapes."""
    flat_out, flat_x = out.reshape(out.size), x.reshape(x.size)
    for i in range(flat_out.size):
        flat_out[i] = flat_x[i]

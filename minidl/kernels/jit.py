"""The one decorator every kernel uses, with each compiler flag explained once."""

import collections

import numba

from .cache import FunctionCache

JIT_DISABLED = bool(numba.config.DISABLE_JIT)
"""True under ``NUMBA_DISABLE_JIT=1``: kernels then run as plain Python and NumPy."""


_FLAGS = {
    # Compile to machine code or fail: never fall back to the interpreter.
    "nopython": True,
    # Release the GIL while a kernel runs, so that Python threads and our own run beside it.
    "nogil": True,
    # No second entry for C callers, which nobody uses.
    "no_cfunc_wrapper": True,
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


_times_used: collections.Counter[str] = collections.Counter()


def jit(function=None, *, inline: bool = False, allocates: bool = False, name: str | None = None):
    """Compile ``function`` with the flags above and keep the machine code on disk (see `cache`).

    ``inline=True`` is for helpers: the body is pasted into the caller before LLVM sees it.
    ``allocates=True`` is for kernels that make arrays: those count references.
    ``name`` tells the function from all others; one made inside another function is not kept without.
    """
    if function is None:
        return lambda wrapped: jit(wrapped, inline=inline, allocates=allocates, name=name)
    if JIT_DISABLED:
        return function
    flags = dict(_FLAGS)
    if inline:
        flags["inline"] = "always"
    if allocates:
        flags["_nrt"] = True
    name = name or function.__qualname__
    # Numba calls machine code by this name and a number that begins anew in each process. Code from two processes could
    # else have one name, and what is loaded second would run what was loaded first.
    _times_used[name] += 1
    function.__qualname__ = name if _times_used[name] == 1 else f"{name}.{_times_used[name]}"
    dispatcher = numba.jit(**flags)(function)
    if "<" not in name:
        dispatcher._cache = FunctionCache(f"{function.__module__.rpartition('.')[2]}.{name}")
    return dispatcher


def assembly(kernel, kinds: tuple) -> str:
    """The machine code of a kernel for arguments of these types, as text. It is compiled anew: only the code itself is
    kept on disk."""
    dispatcher = numba.jit(**_FLAGS)(kernel.py_func)
    dispatcher.compile(kinds)
    return dispatcher.inspect_asm(kinds)


@jit
def copy(out, x):
    """out = x, arrays of equal shapes."""
    flat_out, flat_x = out.reshape(out.size), x.reshape(x.size)
    for i in range(flat_out.size):
        flat_out[i] = flat_x[i]

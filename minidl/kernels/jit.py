"""The one decorator every kernel uses, with each compiler flag explained once."""

import collections
import contextlib

import numba
from numba.core import types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import CPUDispatcher
from numba.core.sigutils import normalize_signature

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


class Kernel(CPUDispatcher):
    """A compiled function. Its entry for Python, which unpacks and checks the arguments, is made where Python calls.

    Most kernels are called by kernels alone. Without the entry they take a sixth less time to compile.
    """

    _inner_cache = None
    """Keeps code without the entry."""

    def __init__(self, *given, **more):
        super().__init__(*given, **more)
        self._addressed: list = []
        """Code that code with an entry has taken the place of: kernels may have its address."""

    def keep_on_disk(self, name: str) -> None:
        self._cache, self._inner_cache = FunctionCache(name), FunctionCache(name, has_entry=False)

    def make(self, kinds: tuple, has_entry: bool) -> None:
        """Load or compile the function for arguments of these types."""
        with contextlib.nullcontext() if has_entry else self._without_entry():
            self.compile(kinds)

    def is_made(self, kinds: tuple, has_entry: bool) -> bool:
        """Whether code for these types is in memory or, whole or not, on disk."""
        if kinds in self.overloads and (can_python_call(self.overloads[kinds]) or not has_entry):
            return True
        return (self._cache if has_entry else self._inner_cache).has(kinds, self.targetctx)

    @contextlib.contextmanager
    def _without_entry(self):
        with global_compiler_lock:  # what is changed here belongs to the thread that compiles
            caches, no_entry = (self._cache, self._inner_cache), "no_cpython_wrapper"
            self._cache, self.targetoptions[no_entry] = self._inner_cache or self._cache, True
            try:
                yield
            finally:
                (self._cache, self._inner_cache), self.targetoptions[no_entry] = caches, False

    def get_call_template(self, args, kws):
        """Called by Numba where a kernel calls this one. A literal counts as a number: else each would have code of its
        own."""
        with self._without_entry():
            return super().get_call_template(tuple(map(types.unliteral, args)), kws)

    def compile(self, sig):
        """Called by Numba where Python calls this kernel with new types."""
        with global_compiler_lock:
            kinds = tuple(normalize_signature(sig)[0])
            known = self.overloads.get(kinds)
            if known is not None and not (
                self.targetoptions.get("no_cpython_wrapper") or can_python_call(known)
            ):
                self._addressed.append(self.overloads.pop(kinds))
            return super().compile(sig)

    def add_overload(self, cres):
        """Python finds code that has the entry; kernels find all."""
        if can_python_call(cres):
            super().add_overload(cres)
        else:
            self.overloads[tuple(cres.signature.args)] = cres


def can_python_call(compiled) -> bool:
    """Whether the code has the entry for Python."""
    return compiled.library.get_pointer_to_function(compiled.fndesc.llvm_cpython_wrapper_name) != 0


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
    kernel = Kernel(function, targetoptions=flags)
    if "<" not in name:
        kernel.keep_on_disk(f"{function.__module__.rpartition('.')[2]}.{name}")
    return kernel


def assembly(kernel, kinds: tuple) -> str:
    """The machine code of a kernel for arguments of these types, as text. It is compiled anew: only the code itself is
    kept on disk."""
    dispatcher = numba.jit(**_FLAGS)(kernel.py_func)
    dispatcher.compile(kinds)
    return dispatcher.inspect_asm(kinds)

"""The machine under the library: the matrix product by itself, threads, and compiling ahead of time."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np

from .kernels import matmul as kernel
from .kernels import network
from .kernels.jit import JIT_DISABLED
from .kernels.threads import count_for, run
from .kernels.threads import get_num_threads as get_num_threads
from .kernels.threads import set_num_threads as set_num_threads
from .validation import REALS, check_array, check_bool, check_dtype, describe

_compiled: set[str] = set()
_under_way: dict[str, Future] = {}
_this_thread = threading.local()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_under_way.clear)  # a child has no compiler thread to wait for


def _are_plain(a, b) -> bool:
    """Two matrices as the kernels take them, for which the general checks would take longer than a small product."""
    return (
        type(a) is type(b) is np.ndarray
        and a.ndim == b.ndim == 2
        and a.dtype is b.dtype
        and a.dtype in REALS
        and a.flags.carray
        and b.flags.carray
    )


def _operand(value: np.ndarray, transpose: bool, dtype: np.dtype) -> tuple[np.ndarray, bool]:
    """``value`` as the kernel takes it: a matrix in row order, or its transpose with the flag turned over."""
    if value.flags.f_contiguous and not value.flags.c_contiguous:
        value, transpose = value.T, not transpose
    return np.require(value, dtype, "CAW"), transpose


def matmul(
    a: np.ndarray,
    b: np.ndarray,
    out: np.ndarray | None = None,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> np.ndarray:
    """The matrix product ``op(a) @ op(b)``, op transposing where its flag is set.

    Parameters
    ----------
    a : (M, K), or (K, M) with ``transpose_a``. b : (K, N), or (N, K) with ``transpose_b``. Real numbers of
        any dtype; strided arrays, transposed views among them, are taken too.
    out : (M, N), C-contiguous, of the result's dtype and not overlapping the others: written and returned.

    Returns
    -------
    float32 where float32 holds all of both dtypes, else float64. Each entry is one chain of multiply-adds
    over k in order, so its bits depend on neither the other entries, nor blocking, nor threads.

    Raises ValueError for shapes that do not match and an ``out`` that does not fit, TypeError for dtypes.
    """
    plain = _are_plain(a, b)
    if not plain:
        a, b = (check_array(name, x, ndim=2, allow_empty=True) for name, x in (("a", a), ("b", b)))
    if not (type(transpose_a) is type(transpose_b) is bool):
        transpose_a, transpose_b = check_bool("transpose_a", transpose_a), check_bool("transpose_b", transpose_b)
    m, k = a.shape
    if transpose_a:
        m, k = k, m
    inner, n = b.shape
    if transpose_b:
        inner, n = n, inner
    if k != inner:
        flags = f"transpose_a={transpose_a}, transpose_b={transpose_b}"
        raise ValueError(
            f"a {a.shape} and b {b.shape} do not fit together with {flags}: {k} columns, {inner} rows"
        )
    dtype = a.dtype
    if not plain:
        dtype = np.dtype(np.float32 if np.result_type(a, b, np.float32) == np.float32 else np.float64)
    if out is None:
        out = np.empty((m, n), dtype)
    else:
        if not isinstance(out, np.ndarray) or out.shape != (m, n) or out.dtype != dtype:
            raise ValueError(f"out must be an array of shape {(m, n)} and dtype {dtype}, got {describe(out)}")
        if not out.flags.carray:
            raise ValueError("out must be C-contiguous, aligned and writeable")
        if np.may_share_memory(out, a) or np.may_share_memory(out, b):
            raise ValueError("out must not share memory with a or b")
    steps = m * k * n
    if steps == 0:
        out[...] = 0
        return out
    if not plain:
        a, transpose_a = _operand(a, transpose_a, dtype)
        b, transpose_b = _operand(b, transpose_b, dtype)
    threads = count_for(2.0 * steps)
    if threads == 1:
        kernel.matmul(out, a, b, transpose_a, transpose_b)
    else:
        run(kernel.matmul_on_threads, out, a, b, transpose_a, transpose_b, threads=threads)
    return out


def warmup(dtype: str = "float32", verbose: bool = True) -> float:
    """Compile all that training and prediction need, or load it from the disk; returns the seconds.

    Without it the first ``fit`` does the same. With ``verbose`` a compilation says so, a load says nothing.
    After Ctrl-C the compilation goes on beside what follows; nothing is lost.
    """
    name, verbose = check_dtype(dtype).name, check_bool("verbose", verbose)
    began = time.perf_counter()
    if JIT_DISABLED:
        return time.perf_counter() - began
    if name not in _under_way:
        compiler = ThreadPoolExecutor(1, thread_name_prefix="minidl-compiler")
        _under_way[name] = compiler.submit(_compile_all, name)
        compiler.shutdown(wait=False)
    # Not on this thread: the compiler would swallow an interrupt, and this thread listens for one as it waits.
    compiling = _under_way[name]
    while not wait([compiling], timeout=0.05).done:
        pass
    _under_way.pop(name, None)
    compiling.result()
    seconds = time.perf_counter() - began
    if verbose and seconds > 2:
        print(f"minidl: compiling for {name} took {seconds:.1f} s; the next process finds it on disk")
    return seconds


def compile_before_fit(dtype: str, aloud: bool) -> None:
    """What a first ``fit`` begins with: a compilation is announced, and is in no epoch's time."""
    if JIT_DISABLED or dtype in _compiled or getattr(_this_thread, "compiles", False):
        return
    compiled = _is_compiled(dtype)
    if aloud and not compiled:
        print("minidl: compiling for this machine, once; it may take half a minute", flush=True)
    if aloud or not compiled:
        warmup(dtype, aloud)
    _compiled.add(dtype)


def _compile_all(dtype: str) -> None:
    _this_thread.compiles = True  # the fit below must not wait for itself
    helper = None if _is_compiled(dtype) else _start_helper(dtype)
    model, x, y = _tiny_training(dtype)
    model.fit(x, y, verbose=0)
    if helper is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            helper.wait(_MOST_SECONDS)
        helper.kill()
    model.evaluate(x, y, verbose=0)
    model.predict(x)
    run(network.search_nonfinite, x.reshape(-1), np.zeros(1, np.int64), threads=1)


def _tiny_training(dtype: str):
    """A model and data that run all kernels there are to compile."""
    from .layers import Dense, Input
    from .models import Sequential

    # names of its own, or those of the user's models would depend on whether this was called
    layers = [Input((2,), name="x"), Dense(2, "relu", name="hidden"), Dense(2, "softmax", name="probs")]
    model = Sequential(layers, name="warmup", dtype=dtype, seed=0)
    model.compile("adam", "sparse_categorical_crossentropy", ["accuracy"])
    return model, np.eye(2, dtype=dtype), np.arange(2)


def _is_compiled(dtype: str) -> bool:
    """Whether the training loop is in memory or on disk for ``dtype``."""
    signatures = list(network.train.signatures) if not JIT_DISABLED else []
    cache_file = getattr(getattr(network.train, "_cache", None), "_cache_file", None)
    if cache_file is not None:
        with contextlib.suppress(Exception):  # a damaged index is none
            signatures += [key[0] for key in cache_file._load_index()]
    single = dtype == "float32"  # a loop in double precision has no array of single
    return any(("array(float32" in str(signature)) == single for signature in signatures)


_MOST_SECONDS = 120.0


def _start_helper(dtype: str) -> subprocess.Popen | None:
    """A second process that compiles the half `fit` comes to last, and leaves it on disk for this one to find.

    It saves a third of the time. Where it cannot run, or dies, this process compiles all itself.
    """
    if JIT_DISABLED or not sys.executable or getattr(sys, "frozen", False) or get_num_threads() == 1:
        return None
    code = f"import sys; sys.path[:] = {sys.path!r}; from minidl import runtime; runtime._help({dtype!r})"
    quiet = subprocess.DEVNULL
    try:
        return subprocess.Popen([sys.executable, "-c", code], stdin=quiet, stdout=quiet, stderr=quiet)
    except OSError:
        return None


def _help(dtype: str) -> None:
    model, x, y = _tiny_training(dtype)
    model.loss.value_and_grad(np.eye(2, dtype=dtype), y)
    model.evaluate(x, y, verbose=0)

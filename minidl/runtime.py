"""The machine under the library: the matrix product by itself, the number of threads, compiling ahead."""

import numpy as np

from .kernels import matmul as kernel
from .kernels.threads import count_for, get_num_threads, run_measured, set_num_threads
from .validation import REALS, check_array, check_bool, describe
from .warmup import warmup

__all__ = ["get_num_threads", "matmul", "set_num_threads", "warmup"]


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
        transpose_a = check_bool("transpose_a", transpose_a)
        transpose_b = check_bool("transpose_b", transpose_b)
    m, k = a.shape[::-1] if transpose_a else a.shape
    inner, n = b.shape[::-1] if transpose_b else b.shape
    if k != inner:
        raise ValueError(
            f"a {a.shape} and b {b.shape} do not fit together with transpose_a={transpose_a}, "
            f"transpose_b={transpose_b}: {k} columns, {inner} rows"
        )
    single = np.float32
    dtype = a.dtype if plain else np.dtype(single if np.result_type(a, b, single) == single else np.float64)
    if out is None:
        out = np.empty((m, n), dtype)
    else:
        _check_out(out, (m, n), dtype, a, b)
    if m * k * n == 0:
        out[...] = 0
        return out
    if not plain:
        a, transpose_a = _operand(a, transpose_a, dtype)
        b, transpose_b = _operand(b, transpose_b, dtype)
    flops = 2.0 * m * k * n
    threads = count_for(flops)
    if threads == 1:
        kernel.matmul(out, a, b, transpose_a, transpose_b)
    else:
        run_measured(
            kernel.matmul_on_threads, out, a, b, transpose_a, transpose_b, threads=threads, flops=flops
        )
    return out


def _are_plain(a, b) -> bool:
    """Whether kernels take both as they are; the general checks would take longer than a small product."""
    return (
        type(a) is type(b) is np.ndarray
        and a.ndim == b.ndim == 2
        and a.dtype is b.dtype
        and a.dtype in REALS
        and a.flags.carray
        and b.flags.carray
    )


def _check_out(out, shape: tuple[int, int], dtype: np.dtype, a: np.ndarray, b: np.ndarray) -> None:
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != dtype:
        raise ValueError(f"out must be an array of shape {shape} and dtype {dtype}, got {describe(out)}")
    if not out.flags.carray:
        raise ValueError("out must be C-contiguous, aligned and writeable")
    if np.may_share_memory(out, a) or np.may_share_memory(out, b):
        raise ValueError("out must not share memory with a or b")


def _operand(value: np.ndarray, transpose: bool, dtype: np.dtype) -> tuple[np.ndarray, bool]:
    """``value`` as the kernel takes it: a matrix in row order, or its transpose with the flag turned over."""
    if value.flags.f_contiguous and not value.flags.c_contiguous:
        value, transpose = value.T, not transpose
    return np.require(value, dtype, "CAW"), transpose

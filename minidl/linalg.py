"""The matrix multiply the engine runs on, as a public function."""

from __future__ import annotations

import numpy as np

from .kernels import matmul as kernels
from .kernels import threads
from .validation import check_array, check_bool, describe

_THREADED_FLOPS = 8e6
"""A product of less work is done before a second thread has begun."""


def matmul(
    a: np.ndarray,
    b: np.ndarray,
    out: np.ndarray | None = None,
    transpose_a: bool = False,
    transpose_b: bool = False,
) -> np.ndarray:
    """``out = op(a) op(b)``, op(m) being m or its transpose.

    Parameters
    ----------
    a, b : matrices of real numbers in any layout; views such as ``a.T`` are not copied. Two float32 matrices
        (or smaller) give float32, anything else float64.
    out : contiguous matrix of the result's shape and dtype to write to; it may be ``a`` or ``b``.

    Each entry is one chain of fused multiply-adds over k, in order: its bits depend neither on the number of
    threads nor on the other entries.

    Raises
    ------
    ValueError, TypeError : shapes that do not fit, or entries that are not real numbers.
    """
    transpose_a, transpose_b = check_bool("transpose_a", transpose_a), check_bool("transpose_b", transpose_b)
    a = check_array("a", a, ndim=2, allow_empty=True)
    b = check_array("b", b, ndim=2, allow_empty=True)
    small = all(np.can_cast(operand.dtype, np.float32) for operand in (a, b))
    is_float = a.dtype.kind == "f" or b.dtype.kind == "f"
    dtype = np.dtype(np.float32 if small and is_float else np.float64)
    (a, flip_a), (b, flip_b) = _contiguous(a, dtype), _contiguous(b, dtype)
    flip_a, flip_b = flip_a != transpose_a, flip_b != transpose_b
    m, k = a.shape[::-1] if flip_a else a.shape
    inner, n = b.shape[::-1] if flip_b else b.shape
    if k != inner:
        raise ValueError(f"a has {k} columns and b has {inner} rows: they must be equal")
    result = out
    if out is None:
        result = np.empty((m, n), dtype)
    else:
        _check_out(out, (m, n), dtype)
        if np.shares_memory(out, a) or np.shares_memory(out, b):
            result = np.empty((m, n), dtype)
    if 2.0 * m * k * n < _THREADED_FLOPS:
        kernels.matmul(result, a, b, flip_a, flip_b)
    else:
        threads.run(kernels.matmul_on_threads, result, a, b, flip_a, flip_b)
    if out is not None and result is not out:
        out[...] = result
        return out
    return result


def _contiguous(matrix: np.ndarray, dtype: np.dtype) -> tuple[np.ndarray, bool]:
    """The matrix or its transpose, whichever is contiguous, and whether it is the transpose; else a copy."""
    flipped = not matrix.flags.c_contiguous and matrix.flags.f_contiguous
    if flipped:
        matrix = matrix.T
    return np.require(matrix, dtype, ["C", "A", "W"]), flipped


def _check_out(out: object, shape: tuple[int, int], dtype: np.dtype) -> None:
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be an array, got {describe(out)}")
    if out.shape != shape:
        raise ValueError(f"out must have shape {shape}, got {out.shape}")
    flags = out.flags
    if out.dtype != dtype or not (flags.c_contiguous and flags.aligned and flags.writeable):
        raise ValueError(f"out must be a contiguous writeable array of {dtype}, got {describe(out)}")

"""The logit cache: a teacher is asked once about each sample, and its answers are kept by index."""

from __future__ import annotations

import numpy as np

from ..validation import check_array, check_finite, check_float, check_int, check_logits, check_rows
from .conversion import as_teacher
from .kinds import ArrayTeacher


def cached_logits(
    teacher: object,
    x: np.ndarray,
    batch_size: int = 1024,
    temperature: float = 1.0,
    dtype: str | np.dtype = "float32",
    classes: int | None = None,
) -> np.ndarray:
    """The teacher's logits ``(N, C)`` for all of ``x``, row i for sample i, computed once.

    Logits kept by index stay with their samples under any shuffling, subset or split. An
    array of logits that has this dtype already is returned as it is, not copied.

    Parameters
    ----------
    teacher : anything ``as_teacher`` takes.
    x : samples ``(N, ...)``, of any real dtype, ``np.memmap`` included; read one batch at a time.
    batch_size : samples per call of the teacher.
    temperature : where the logits will be used; it matters to an arithmetic ``Ensemble`` alone.
    dtype : of the result.
    classes : how many logits a sample must have, where that is known.

    Raises
    ------
    ValueError
        the teacher's rows, classes or values do not fit.
    """
    teacher, dtype = as_teacher(teacher), np.dtype(dtype)
    batch_size = check_int("batch_size", batch_size, minimum=1)
    temperature = check_float("temperature", temperature, above=0)
    x = check_array("x", x)
    if teacher.samples is not None:
        check_rows("teacher", teacher.samples, len(x))
    if classes is not None and teacher.classes not in (None, classes):
        raise ValueError(f"teacher must have {classes} classes, got {teacher.classes}")
    if isinstance(teacher, ArrayTeacher):
        if teacher.array.dtype == dtype:
            return teacher.array
        check_finite("teacher", teacher.array, dtype)  # a finite float64 may be inf in float32
        return teacher.array.astype(dtype)
    out = np.empty((len(x), classes or teacher.classes or 0), dtype)
    for first in range(0, len(x), batch_size):
        rows = slice(first, min(first + batch_size, len(x)))
        batch = np.ascontiguousarray(x[rows])
        if batch.dtype.kind != "f" or batch.dtype.itemsize != dtype.itemsize:
            batch = batch.astype(dtype)
        logits = teacher.logits(batch, rows, temperature)
        if out.shape[1] == 0:  # a function tells the number of classes by its first answer
            out = np.empty((len(x), logits.shape[1]), dtype)
        out[rows] = check_logits(logits, len(batch), out.shape[1], dtype, "what teacher returned")
    return out

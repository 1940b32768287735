"""Checks at the public boundary: bad arguments are named, described and refused before any state changes.

Kernels assume clean input. A data set is looked at block by block and never copied: it may be a memory map.
"""

import difflib
import math
import numbers
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from .frames import is_pandas, pandas_to_array
from .kernels import infer, threads
from .kernels.jit import JIT_DISABLED
from .notices import warn as warn
from .one_input import one_input
from .sparse import SparseRows, is_sparse, to_sparse_rows

_BLOCK_BYTES = 1 << 20
_LARGE_BYTES = 1 << 24
"""From this size on, a second thread pays in the search for NaN."""
REALS = (np.dtype(np.float32), np.dtype(np.float64))
"""What kernels compute in."""
_NOT_NUMBERS = (bool, np.bool_, np.timedelta64)
"""Types that Python or NumPy counts among the integers, and that no user means as one."""


def unknown_name(argument: str, name: object, known: Iterable[str]) -> ValueError:
    """The error for a name that is not in ``known``; the caller raises it."""
    return ValueError(f"unknown {argument} {shorten(name)}: {known_names(name, known)}")


def known_names(name: object, known: Iterable[str]) -> str:
    """The nearest of ``known`` to ``name``, if one is near, and all of them, for an error message."""
    names = sorted(known)
    close = difflib.get_close_matches(str(name), names, n=1, cutoff=0.5)
    close = close or [long for long in names if name == "".join(word[:1] for word in long.split("_"))]  # lr
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(names) or 'none'}"


def check_int(argument: str, value: object, minimum: int | None = None, maximum: int | None = None) -> int:
    """``value`` as a Python int within the limits. Floats and bools are refused."""
    if isinstance(value, _NOT_NUMBERS) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{argument} must be an integer, got {describe(value)}")
    if minimum is not None and value < minimum:
        raise ValueError(f"{argument} must be >= {minimum}, got {value}")
    if maximum is not None and value > maximum:
        raise ValueError(f"{argument} must be <= {maximum}, got {value}")
    return int(value)


def check_float(
    argument: str,
    value: object,
    *,
    above: float | None = None,
    minimum: float | None = None,
    below: float | None = None,
    maximum: float | None = None,
) -> float:
    """``value`` as a finite Python float; ``above`` and ``below`` are exclusive limits."""
    if isinstance(value, np.ndarray) and value.ndim == 0:
        value = value[()]
    if isinstance(value, _NOT_NUMBERS) or not isinstance(value, numbers.Real):
        raise TypeError(f"{argument} must be a number, got {describe(value)}")
    try:
        number = float(value)
    except OverflowError:  # 10**400
        number = np.inf
    if not np.isfinite(number):
        raise ValueError(f"{argument} must be finite, got {value}")
    if above is not None and not number > above:
        raise ValueError(f"{argument} must be > {above:g}, got {value}")
    if minimum is not None and not number >= minimum:
        raise ValueError(f"{argument} must be >= {minimum:g}, got {value}")
    if below is not None and not number < below:
        raise ValueError(f"{argument} must be < {below:g}, got {value}")
    if maximum is not None and not number <= maximum:
        raise ValueError(f"{argument} must be <= {maximum:g}, got {value}")
    return number


def check_bool(argument: str, value: object) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{argument} must be True or False, got {describe(value)}")
    return bool(value)


def check_choice(argument: str, value: object, choices: Sequence) -> object:
    """``value`` if it is one of ``choices``; ``True`` is not taken for 1."""
    for choice in choices:
        if type(value) is type(choice) and value == choice:
            return value
    listed = ", ".join(repr(choice) for choice in choices)
    raise ValueError(f"{argument} must be one of {listed}, got {shorten(value)}")


def check_name(name: object, default: str) -> str:
    """``name``, a string that is not empty; ``default`` for None."""
    if name is None:
        return default
    if not (isinstance(name, str) and name):
        raise TypeError(f"name must be a non-empty string, got {describe(name)}")
    return name


def check_dtype(dtype: object) -> np.dtype:
    """float32 or float64, what the kernels are written for."""
    try:
        found = np.dtype("V" if dtype is None else dtype)  # np.dtype(None) is float64
    except (TypeError, ValueError, SyntaxError):  # "01" is a SyntaxError
        found = np.dtype("V")
    if found not in REALS:
        raise ValueError(f"dtype must be 'float32' or 'float64', got {shorten(dtype)}")
    return found


def check_shape(argument: str, shape: object) -> tuple[int, ...]:
    """A shape without the batch: a positive int or a sequence of them."""
    if isinstance(shape, numbers.Integral) and not isinstance(shape, bool):
        shape = (shape,)
    is_scalar = isinstance(shape, np.ndarray) and shape.ndim == 0
    if is_scalar or isinstance(shape, (str, bytes)) or not isinstance(shape, Iterable):
        raise TypeError(f"{argument} must be an integer or a tuple of integers, got {describe(shape)}")
    sizes = tuple(shape)
    if not sizes:
        raise ValueError(f"{argument} must have at least one axis besides the batch, got ()")
    every_size = f"{argument} {shorten(sizes)}: every size"  # formatted once: a file may hold thousands
    return tuple(check_int(every_size, size, minimum=1) for size in sizes)


def shorten(value: object) -> str:
    """``repr(value)``, cut if it is long: a file may hold a list of thousands."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."


def describe(value: object) -> str:
    """What was received, in a few words: arrays by shape and dtype, the rest by type and value."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape} and dtype {value.dtype}"
    return f"{shorten(value)} ({type(value).__name__})"


def check_array(
    argument: str, value: object, ndim: int | None = None, allow_empty=False, may_be_sparse=False
) -> np.ndarray:
    """``value`` as an array of real numbers, not copied if it is one already (a memory map stays one).

    Lists, frames and series of pandas, and what has ``__array__`` are taken; rows count by their position. A CSR matrix
    of SciPy becomes `SparseRows` if it ``may_be_sparse``. Booleans, integers and floats of any size are real; complex
    numbers, strings, dates, objects are refused.
    """
    if value is None:
        raise ValueError(f"{argument} must be an array, got None")
    array = _as_array(argument, value, may_be_sparse)
    if ndim is not None and array.ndim != ndim:
        raise ValueError(f"{argument} must have {ndim} axes, got shape {array.shape}")
    if array.ndim == 0:
        raise ValueError(f"{argument} must have at least one axis, got a single number {array[()]}")
    if array.size == 0 and not allow_empty:
        raise ValueError(f"{argument} must not be empty, got shape {array.shape}")
    return array


def _as_array(argument: str, value: Any, may_be_sparse: bool) -> Any:
    """`check_array` without the checks of its shape."""
    is_plain = type(value) is np.ndarray  # told first: each step of train_on_batch comes here
    if not is_plain and is_sparse(value):
        if not may_be_sparse:
            kind = type(value).__name__
            raise TypeError(f"{argument} must be a dense array, got a {kind}: write {argument}.toarray()")
        return to_sparse_rows(argument, value)
    if not is_plain and is_pandas(value):
        return pandas_to_array(argument, value)
    try:
        array = np.asanyarray(value)
    except (ValueError, TypeError, RuntimeError) as error:
        raise ValueError(f"{argument} cannot be made an array: {error}") from error
    if isinstance(array, np.ma.MaskedArray):
        wanted = "a plain array, got a masked array: fill or drop its masked entries"
        raise TypeError(f"{argument} must be {wanted}")
    if array.dtype.kind not in "buif":
        received = array if array.ndim else value
        raise TypeError(f"{argument} must hold real numbers, got {describe(received)}")
    return np.asarray(array)


def check_finite(argument: str, array: np.ndarray, dtype: np.dtype | type = np.float64) -> None:
    """Every entry finite, and still finite once converted to ``dtype``; the first bad index is named."""
    sparse = array if isinstance(array, SparseRows) else None
    if sparse is not None:
        array = sparse.stored()
    if array.dtype.kind != "f" or array.size == 0:
        return
    narrows = array.dtype.itemsize > np.dtype(dtype).itemsize
    if not narrows and _kernel_finds_all_finite(array):
        return
    limit = np.finfo(dtype if narrows else array.dtype).max
    found = _first_where(array, lambda block: ~(np.abs(block) <= limit))  # a comparison with NaN is False
    if found is not None:
        rule = f"fit {np.dtype(dtype)}" if np.isfinite(found[0]) else "be finite"
        where = found[1] if sparse is None else sparse.index_of(found[1])
        raise ValueError(f"{argument} must {rule}, got {found[0]} at index {where}")


def _kernel_finds_all_finite(array: np.ndarray) -> bool:
    """Whether a kernel has looked and found every entry finite. False for small arrays, which NumPy looks through."""
    if JIT_DISABLED or array.nbytes < _BLOCK_BYTES or array.dtype not in REALS or not array.flags.carray:
        return False
    if not infer.search_nonfinite.is_made(infer.search_kinds(array.dtype), has_entry=True):
        return False  # nor before a first fit, which compiles it beside all else
    count = threads.most_threads() if array.nbytes >= _LARGE_BYTES else 1
    found = np.zeros(count, np.int64)
    threads.run(infer.search_nonfinite, np.asarray(array).reshape(-1), found, threads=count)
    return not found.any()


def check_range(argument: str, array: np.ndarray, low: float, high: float, why: str = "") -> None:
    """Every entry in [low, high], with slack for rounding; the first bad index is named."""
    slack = 1e-6 * max(1.0, abs(low), abs(high))
    found = _first_where(array, lambda block: ~((block >= low - slack) & (block <= high + slack)))
    if found is not None:
        raise ValueError(
            f"{argument} must be in [{low:g}, {high:g}]{why}, got {found[0]} at index {found[1]}"
        )


def find_no_label(
    array: np.ndarray, low: int, high: int, ignored: int | None = None
) -> tuple[Any, int | tuple[int, ...]] | None:
    """(value, index) of the first entry that is neither a whole number in low..high nor ``ignored``; None: all are."""

    def is_bad(block):
        bad = (block < low) | (block > high)
        if ignored is not None:
            bad &= block != ignored
        return bad | (block != np.trunc(block)) if block.dtype.kind == "f" else bad

    return _first_where(array, is_bad)


def blocks(array: np.ndarray) -> Iterable[tuple[int, np.ndarray]]:
    """(first row, view of some rows) over the whole array, about 1 MB a block."""
    rows = max(1, _BLOCK_BYTES // max(1, array[:1].nbytes))
    for first in range(0, len(array), rows):
        yield first, array[first : first + rows]


def _first_where(array: np.ndarray, is_bad: Callable) -> tuple[Any, int | tuple[int, ...]] | None:
    """(value, index) of the first entry for which ``is_bad``, a function of a block of rows, holds."""
    for first, block in blocks(array):
        bad = is_bad(block)
        if bad.any():
            index = np.unravel_index(int(np.argmax(bad)), block.shape)
            where = (int(index[0]) + first, *(int(i) for i in index[1:]))
            return block[index], where[0] if len(where) == 1 else where
    return None


def check_inputs(
    x: object, input_shape: tuple[int, ...] | None, dtype: np.dtype | type = np.float64, argument: str = "x"
) -> np.ndarray:
    """Samples ``(N, *input_shape)``, real and finite, N >= 1; returned as they are, whatever their dtype."""
    array = check_input_shape(x, input_shape, argument)
    check_finite(argument, array, dtype)
    return array


def check_input_shape(x: object, input_shape: tuple[int, ...] | None, argument: str = "x") -> np.ndarray:
    """`check_inputs` without a look at the values."""
    array = check_array(argument, one_input(argument, x, input_shape), may_be_sparse=True)
    if array.ndim == 1 and input_shape == (1,):
        array = array[:, None]  # Keras reads a vector as N samples of one feature
    if input_shape is not None and array.shape[1:] != tuple(input_shape):
        wanted = ", ".join(str(size) for size in input_shape)
        hint = ""
        if array.shape == tuple(input_shape):
            hint = f"; one sample is {argument}[None]"
        elif array.ndim > 1 and len(input_shape) == 1 and math.prod(array.shape[1:]) == input_shape[0]:
            hint = f"; flatten it with {argument}.reshape(len({argument}), -1) or begin with a Flatten layer"
        raise ValueError(f"{argument} must have shape (N, {wanted}), got {array.shape}{hint}")
    if array.ndim < 2:
        raise ValueError(f"{argument} must have shape (N, features), got {array.shape}")
    return array


def check_rows(argument: str, rows: int, expected: int, of: str = "x") -> None:
    if rows != expected:
        raise ValueError(f"{argument} must have one row per sample of {of}: expected {expected}, got {rows}")


def check_labels(
    y: object, classes: int, argument: str = "y", unlabelled: bool = False, ignored: int | None = None
) -> np.ndarray:
    """Class indices ``(N,)`` or ``(N, 1)`` in 0..classes-1 as int64 ``(N,)``; -1 too if ``unlabelled``, or ``ignored``.

    Floats are taken when they are whole numbers, as a CSV reader gives them.
    """
    array = check_array(argument, y)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        hint = ""
        if array.ndim == 2 and array.shape[1] == classes:
            hint = "; rows of class probabilities go with loss 'categorical_crossentropy'"
        raise ValueError(
            f"{argument} must hold one class index a sample, shape (N,), got {array.shape}{hint}"
        )
    check_finite(argument, array)
    low = -1 if unlabelled else 0
    found = find_no_label(array, low, classes - 1, ignored)
    if found is not None:
        besides = "" if ignored is None else f" or the ignored {ignored}"
        wrapped = low < 0 and array.dtype.kind == "u" and found[0] == np.iinfo(array.dtype).max
        hint = f"; -1, no label, needs a signed dtype: {argument}.astype(int) first" if wrapped else ""
        raise ValueError(
            f"{argument} must hold whole numbers in {low}..{classes - 1} ({classes} classes){besides}, "
            f"got {found[0]} at index {found[1]}{hint}"
        )
    return np.array(array, np.int64)  # a copy: kernels index by it, whatever a callback does to y meanwhile


def check_classes_left(labels: np.ndarray, outputs: int, argument: str = "y", batch: bool = False) -> None:
    """Say so if -1 may be meant as a class: labels that are not -1 have fewer classes than there are ``outputs``.

    One class beside -1 is refused: they are the -1 and +1 of another convention. A ``batch`` may lack any class.
    """
    if labels.min(initial=0) >= 0:
        return
    classes, counts = np.unique(labels, return_counts=True)
    if not 1 < len(classes) <= outputs:
        return
    rule = "-1 means 'no label'. Classes count from 0; of -1 and 1, (y + 1) // 2 makes 0 and 1"
    if batch:  # without numbers: Python shows the same warning once
        warn(f"{argument} is -1 in a batch that has not all {outputs} classes: {rule}")
    elif len(classes) == 2:
        raise ValueError(
            f"{argument} must hold labels of two or more classes, got {classes[1]} {counts[1]} times and "
            f"-1 {counts[0]} times: {rule}"
        )
    else:
        seen = f"{len(classes) - 1} of {outputs} classes"
        warn(f"{argument} is -1 for {counts[0]} of {len(labels)} samples and has {seen}: {rule}")


def check_targets(
    y: object,
    output_shape: tuple[int, ...],
    dtype: np.dtype | type = np.float64,
    argument: str = "y",
    limits: tuple[float, float] | None = None,
) -> np.ndarray:
    """Targets ``(N, *output_shape)``, real and finite, in ``limits`` if given; returned as they are."""
    array = check_array(argument, y)
    if array.ndim == 1 and tuple(output_shape) == (1,):
        array = array[:, None]
    if array.shape[1:] != tuple(output_shape):
        wanted = ", ".join(str(size) for size in output_shape)
        hint = ""
        is_column = array.ndim == 1 or array.shape[1:] == (1,)
        if is_column and array.dtype.kind in "bui" and len(output_shape) == 1:
            hint = (
                "; class indices go with loss 'sparse_categorical_crossentropy', "
                f"or make them rows with minidl.utils.to_categorical({argument}, {output_shape[0]})"
            )
        raise ValueError(f"{argument} must have shape (N, {wanted}), got {array.shape}{hint}")
    check_finite(argument, array, dtype)
    if limits is not None:
        check_range(argument, array, *limits, why=" (probabilities)")
    return array


def check_sample_weight(
    sample_weight: object, rows: int, argument: str = "sample_weight", of: str = "x"
) -> np.ndarray:
    """One weight >= 0 a sample as float64 ``(N,)``."""
    array = check_array(argument, sample_weight)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.ndim != 1:
        raise ValueError(f"{argument} must have shape (N,), got {array.shape}")
    check_rows(argument, array.shape[0], rows, of)
    check_finite(argument, array)
    found = _first_where(array, lambda block: block < 0)
    if found is not None:
        raise ValueError(f"{argument} must be >= 0, got {found[0]} at index {found[1]}")
    return np.require(array, np.float64, "CAW")

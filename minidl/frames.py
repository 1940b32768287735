"""Frames, series and arrays of pandas as NumPy arrays. pandas is never imported: its objects are told by their class.

Rows count by their position, whatever the index says.
"""

from typing import Any

import numpy as np

_INSTEAD = {
    # what to write for a column that holds no numbers, by the kind of its dtype; {0} is the column
    "M": "make numbers of it, as {0}.dt.dayofweek or {0}.dt.hour",
    "m": "make numbers of it, {0}.dt.total_seconds()",
    "c": "take {0}.abs(), or the real and the imaginary part",
}


def is_of(package: str, value: object) -> bool:
    """Whether the class of ``value``, or an ancestor of it, comes from this package."""
    return any(kind.__module__.partition(".")[0] == package for kind in type(value).__mro__)


def is_pandas(value: object) -> bool:
    """Whether ``value`` is data of pandas: a frame, a series, an index or an array of its own types."""
    return is_of("pandas", value) and hasattr(value, "isna")


def pandas_to_array(argument: str, value: Any) -> np.ndarray:
    """(N,) or (N, columns) of numbers; not copied where the columns lie in one NumPy array already.

    A column that holds no numbers is refused by its name, a missing value by its column and row.
    """
    if value.ndim == 1:
        return _column_to_array(argument, value, None)
    names = list(value.columns)
    if len({*value.dtypes}) == 1 and _is_numpys(value.dtypes.iloc[0]):
        array = value.to_numpy()
        if array.dtype.kind != "f" or array.size == 0 or not np.isnan(array.min()):
            return array
    columns = [_column_to_array(argument, value.iloc[:, i], name) for i, name in enumerate(names)]
    dtype = np.result_type(*(column.dtype for column in columns)) if columns else np.dtype(np.float64)
    array = np.empty(value.shape, dtype)
    for place, column in enumerate(columns):
        array[:, place] = column
    return array


def _is_numpys(dtype: Any) -> bool:
    """Whether a column of this dtype is a NumPy array of numbers."""
    return isinstance(dtype, np.dtype) and dtype.kind in "buif"


def _column_to_array(argument: str, column: Any, name: object) -> np.ndarray:
    """A column of this name of a frame, or with None a series."""
    dtype = column.dtype
    kind = getattr(dtype, "kind", "O")
    where, written = ("", argument) if name is None else (f" in column {name!r}", f"{argument}[{name!r}]")
    if kind not in "buif":
        encoded = f"pandas.get_dummies({argument}, columns=[{name!r}])"
        if name is None:
            encoded = f"pandas.factorize({argument})[0]"
        for_words = (
            f"make numbers of its words, {encoded}, of its numbers {{0}}.astype(float), or leave it out"
        )
        advice = _INSTEAD.get(kind, for_words).format(written)
        raise TypeError(f"{argument} must hold real numbers, got dtype {dtype}{where}: {advice}")
    if kind == "f" or not isinstance(dtype, np.dtype):
        missing = np.asarray(column.isna())
        if missing.any():
            row = int(np.argmax(missing))
            raise ValueError(
                f"{argument} must have no missing value, got one{where} at row {row} (rows count from 0): fill or drop "
                f"it, as with {argument}.fillna(0) or {argument}.dropna()"
            )
    if isinstance(dtype, np.dtype):
        return np.asarray(column)
    return np.asarray(column, dtype=getattr(dtype, "numpy_dtype", None) or getattr(dtype, "subtype", None))

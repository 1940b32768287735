"""CSR matrices of SciPy, whose rows become dense a few at a time. SciPy is never imported."""

from typing import Any

import numpy as np

from .frames import is_of


class SparseRows:
    """Some rows of a CSR matrix, in some order. Taking rows of it copies no entries; ``np.asarray`` makes them dense.

    Where training or prediction reads arrays of a foreign dtype slice by slice, it reads this too.
    """

    ndim = 2

    def __init__(
        self, data: np.ndarray, indices: np.ndarray, starts: np.ndarray, ends: np.ndarray, columns: int
    ):
        self._data, self._indices, self._starts, self._ends = data, indices, starts, ends
        self.shape, self.dtype = (len(starts), columns), data.dtype

    @property
    def size(self) -> int:
        """How many entries a dense array would have."""
        return self.shape[0] * self.shape[1]

    @property
    def nbytes(self) -> int:
        """What it would take as a dense array."""
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, rows):
        """These rows, sparse too; a row by its number is a dense vector."""
        starts, ends = self._starts[rows], self._ends[rows]
        if np.ndim(starts) == 0:
            return np.asarray(self[[rows]])[0]
        return SparseRows(self._data, self._indices, starts, ends, self.shape[1])

    def _places(self) -> tuple[np.ndarray, np.ndarray]:
        """(row, place in data) of each entry, in order."""
        lengths = (self._ends - self._starts).astype(np.int64)
        behind = np.cumsum(lengths)
        offset = np.repeat(self._starts - (behind - lengths), lengths)
        return np.repeat(np.arange(len(self)), lengths), np.arange(len(offset)) + offset

    def __array__(self, dtype=None, copy=None) -> np.ndarray:
        rows, places = self._places()
        dense = np.zeros(self.shape, self.dtype if dtype is None else dtype)
        dense[rows, self._indices[places]] = self._data[places]
        return dense

    def stored(self) -> np.ndarray:
        """The entries that are stored, row after row."""
        if np.array_equal(self._starts[1:], self._ends[:-1]):
            return self._data[self._starts[0] : self._ends[-1]] if len(self) else self._data[:0]
        return self._data[self._places()[1]]

    def index_of(self, entry: int) -> tuple[int, int]:
        """(row, column) of an entry, by its number among those that are `stored`."""
        rows, places = self._places()
        return int(rows[entry]), int(self._indices[places[entry]])


def is_sparse(value: object) -> bool:
    """Whether ``value`` is a sparse matrix of SciPy, or rows of one."""
    return isinstance(value, SparseRows) or (is_of("scipy", value) and hasattr(value, "tocsr"))


def to_sparse_rows(argument: str, matrix: Any) -> SparseRows:
    """A CSR matrix as `SparseRows`, on its own memory; other formats are refused by name."""
    if isinstance(matrix, SparseRows):
        return matrix
    if matrix.format != "csr" or matrix.ndim != 2:
        kind = f"a {type(matrix).__name__} of shape {matrix.shape}"
        raise TypeError(
            f"{argument} must be an array or a CSR matrix of rows, got {kind}: write {argument}.tocsr()"
        )
    if matrix.dtype.kind not in "buif":
        raise TypeError(f"{argument} must hold real numbers, got a CSR matrix of dtype {matrix.dtype}")
    data, indices, pointers, columns = matrix.data, matrix.indices, matrix.indptr, matrix.shape[1]
    goes_up = np.all(np.diff(pointers) >= 0) and pointers[0] == 0
    fits = goes_up and pointers[-1] <= min(len(data), len(indices)) and len(pointers) == matrix.shape[0] + 1
    indices = indices[: pointers[-1]]
    if not fits or indices.min(initial=0) < 0 or indices.max(initial=-1) >= columns:
        raise ValueError(
            f"{argument} is a damaged CSR matrix: its indices or its indptr do not fit its shape"
        )
    begins_row = np.zeros(len(indices) + 1, bool)
    begins_row[pointers] = True
    if not np.all((np.diff(indices) > 0) | begins_row[1 : len(indices)]):  # an entry may stand there twice
        matrix = matrix.copy()
        matrix.sum_duplicates()
        data, indices, pointers = matrix.data, matrix.indices, matrix.indptr
    return SparseRows(data, indices, pointers[:-1], pointers[1:], columns)

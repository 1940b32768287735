"""Arrays that end, or begin, at an unmapped page: a read or write outside them kills the process.

Around their other end lie bytes of a known value, which show a stray write.
"""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

PAGE = mmap.PAGESIZE
CANARY = 0xA5
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def _pages_between_unmapped_ones(size: int) -> np.ndarray:
    """At least ``size`` bytes, whole pages, between two pages that nobody may touch."""
    pages = -(-max(size, 1) // PAGE)
    whole = np.frombuffer(mmap.mmap(-1, (pages + 2) * PAGE), np.uint8)
    for page in (0, pages + 1):
        if _libc.mprotect(whole.ctypes.data + page * PAGE, PAGE, 0):
            raise OSError(ctypes.get_errno(), "mprotect failed")
    return whole[PAGE : (pages + 1) * PAGE]


class Guards:
    """Places copies of arrays with their last (``at_end``) or first byte next to an unmapped page."""

    def __init__(self, at_end: bool):
        self._at_end = at_end
        self._slots: list[np.ndarray] = []
        self._around: list[np.ndarray] = []

    def place(self, *arrays: np.ndarray) -> list[np.ndarray]:
        """Copies of ``arrays``, in C order; what was placed before is overwritten."""
        self._around = []
        return [self._put(number, np.ascontiguousarray(array)) for number, array in enumerate(arrays)]

    def _put(self, number: int, array: np.ndarray) -> np.ndarray:
        if number == len(self._slots):
            self._slots.append(_pages_between_unmapped_ones(array.nbytes))
        if self._slots[number].size < array.nbytes:
            self._slots[number] = _pages_between_unmapped_ones(array.nbytes)
        slot, size = self._slots[number], array.nbytes
        first = slot.size - size if self._at_end else 0
        around = slot[max(0, first - PAGE) : first] if self._at_end else slot[size : size + PAGE]
        around[:] = CANARY
        self._around.append(around)
        copy = np.ndarray(array.shape, array.dtype, slot.data, first)
        copy[...] = array
        return copy

    def check(self) -> None:
        """AssertionError if a byte beside one of the arrays placed last was written."""
        for number, around in enumerate(self._around):
            assert (around == CANARY).all(), f"a write beside array {number}"


def guarded(array: np.ndarray, at_end: bool) -> np.ndarray:
    """One such copy of ``array``, in memory of its own."""
    return Guards(at_end).place(array)[0]

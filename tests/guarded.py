"""Arrays that end, or begin, at an unmapped page: a read or write outside them kills the process."""

from __future__ import annotations

import ctypes
import mmap

import numpy as np

PAGE = mmap.PAGESIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]


def guarded(array: np.ndarray, at_end: bool) -> np.ndarray:
    """A copy of ``array`` whose last (``at_end``) or first byte lies next to an unmapped page."""
    array = np.ascontiguousarray(array)
    pages = -(-max(array.nbytes, 1) // PAGE)
    memory = mmap.mmap(-1, (pages + 2) * PAGE)
    whole = np.frombuffer(memory, np.uint8)
    base = whole.ctypes.data
    for page in (0, pages + 1):
        if _libc.mprotect(base + page * PAGE, PAGE, 0):
            raise OSError(ctypes.get_errno(), "mprotect failed")
    start = (pages + 1) * PAGE - array.nbytes if at_end else PAGE
    copy = whole[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy

"""References to tuples, and parts of arrays without a slice: what the parts of a training step are given."""

from typing import NamedTuple

import numpy as np
import pytest
from numba.core.errors import TypingError

from minidl.kernels.jit import JIT_DISABLED, jit
from minidl.kernels.reference import reference
from minidl.kernels.simd import copy_bytes, part_of, rows_at


class Inner(NamedTuple):
    values: np.ndarray
    flag: bool


class Outer(NamedTuple):
    count: int
    inner: Inner
    weights: np.ndarray


@jit
def _read(outer):
    outer.inner.values[0] = 7.0
    return outer.count, outer.inner.flag, outer.inner.values[1], outer.weights[0, 1]


@jit
def read(outer):
    return _read(reference(outer))


@jit
def read_unknown(outer):
    return reference(outer).unknown


@pytest.mark.parametrize("flag", [False, True])
def test_fields_are_read_and_arrays_are_the_callers(flag):
    values = np.array([1.0, 2.0])
    outer = Outer(3, Inner(values, flag), np.array([[4.0, 5.0]], np.float32))
    assert read(outer) == (3, flag, 2.0, 5.0)
    assert values[0] == 7.0


def test_a_field_that_is_not_there_is_refused():
    outer = Outer(3, Inner(np.ones(2), True), np.ones((1, 2), np.float32))
    with pytest.raises(AttributeError if JIT_DISABLED else TypingError, match="unknown"):
        read_unknown(outer)


@jit
def write_parts(buffer, matrix):
    part_of(buffer, 2, 3)[:] = 1.0
    rows = rows_at(buffer, 6, 4, 1, 3)
    rows[1, 2] = 2.0
    empty = rows_at(matrix, 0, matrix.shape[1], 1, 3)
    return rows.shape, rows.size, empty.size, part_of(buffer, 2, 3).size


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_parts_are_the_buffers_memory(dtype):
    buffer, expected = np.zeros(20, dtype), np.zeros(20, dtype)
    assert write_parts(buffer, np.zeros((0, 0), dtype)) == ((2, 4), 8, 0, 3)
    expected[2:5] = 1.0
    expected[6 + 2 * 4 + 2] = 2.0
    np.testing.assert_array_equal(buffer, expected)


@jit
def copy_three(out, octets):
    copy_bytes(out, 1, octets, 3, 3 * out.itemsize)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bytes_are_copied_from_any_alignment(dtype):
    numbers, out = np.array([1.5, -2.0, 3.25], dtype), np.zeros(5, dtype)
    octets = np.frombuffer(b"abc" + numbers.tobytes() + b"defghijk", np.uint8)
    copy_three(out, octets)
    np.testing.assert_array_equal(out, np.array([0, *numbers, 0], dtype))

"""The matrix multiply and the dense layer against the naive product, in bounds and in every shape."""

import subprocess
import sys

import numpy as np
import pytest
import reference
from guarded import guarded
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl.kernels.jit import JIT_DISABLED, jit
from minidl.kernels.matmul import (
    A_BYTES,
    K_BLOCK,
    NO_PANELS,
    Panels,
    by_columns,
    by_rows,
    dense_backward,
    dense_forward,
    from_zero,
    matmul,
    pack_rows,
    product,
    scratch_size,
    store_panels,
)
from minidl.kernels.simd import Matrix, NextRows, Shape, matmul_prefetching_panel
from minidl.kernels.target import PANEL_BYTES, TILE_ROWS

DTYPES = [np.float32, np.float64]
SIZES = range(0, 71, 7 if JIT_DISABLED else 1)
rng = np.random.default_rng(1)


def operand(rows, columns, transpose, dtype):
    matrix = rng.standard_normal((rows, columns)).astype(dtype)
    return np.ascontiguousarray(matrix.T) if transpose else matrix


def assert_close(found, expected, k):
    """|error| <= a few roundings for each of k additions."""
    tolerance = 4 * (k + 1) * np.finfo(found.dtype).eps
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * np.sqrt(k + 1))


def check(m, k, n, transpose_a, transpose_b, dtype):
    a, b = operand(m, k, transpose_a, dtype), operand(k, n, transpose_b, dtype)
    out = np.full((m, n), np.nan, dtype)
    matmul(out, a, b, transpose_a, transpose_b)
    assert_close(out, reference.matmul(a.T if transpose_a else a, b.T if transpose_b else b), k)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transpose", [False, True])
def test_packed_rows_are_whole_columns_of_a_tile_and_nothing_after_them(dtype, transpose):
    for m in range(1, 4 * TILE_ROWS):
        for k in (1, 15, 16, 17, 48):
            a = operand(m, k, transpose, dtype)
            tiles = -(-m // TILE_ROWS)
            packed = np.full(tiles * k * TILE_ROWS + 64, np.nan, dtype)
            pack_rows(packed, Matrix(a.reshape(-1), 0, *((1, m) if transpose else (k, 1))), m, k)
            found = packed[:-64].reshape(tiles, k, TILE_ROWS).swapaxes(1, 2).reshape(-1, k)
            np.testing.assert_array_equal(found[:m], a.T if transpose else a)
            assert np.isnan(packed[-64:]).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transpose_a", [False, True])
@pytest.mark.parametrize("transpose_b", [False, True])
def test_every_size_of_each_axis(dtype, transpose_a, transpose_b):
    for size in SIZES:
        check(size, 33, 45, transpose_a, transpose_b, dtype)
        check(37, size, 41, transpose_a, transpose_b, dtype)
        check(29, 31, size, transpose_a, transpose_b, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@given(shape=st.tuples(*[st.integers(0, 70)] * 3), transpose_a=st.booleans(), transpose_b=st.booleans())
def test_random_shapes(dtype, shape, transpose_a, transpose_b):
    check(*shape, transpose_a, transpose_b, dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    "m, k, n",
    [
        (40, 2 * K_BLOCK + 5, 300),  # blocks of k, B packed by its first tile
        (1300, 300, 600),  # A packed, more than one block of rows
        (128, 1200, 130),  # wide enough to pack, the last panel narrow
        (1, 1000, 1000),
        (1000, 1000, 1),
    ],
)
def test_packed_and_blocked_paths(m, k, n, dtype):
    assert 1300 * 300 * 4 > A_BYTES  # the case above really packs A
    for transpose_a in (False, True):
        for transpose_b in (False, True):
            check(m, k, n, transpose_a, transpose_b, dtype)


def test_a_zeroed_output_would_be_caught():
    a = operand(5, 6, False, np.float32)
    with pytest.raises(AssertionError):
        assert_close(np.zeros((5, 5), np.float32), reference.matmul(a, a.T), 6)


def test_an_error_of_one_column_would_be_caught():
    a, b = operand(9, 6, False, np.float64), operand(6, 33, False, np.float64)
    out = np.empty((9, 33))
    matmul(out, a, b, False, False)
    out[8, 32] *= 1 + 1e-9
    with pytest.raises(AssertionError):
        assert_close(out, reference.matmul(a, b), 6)


@pytest.mark.parametrize("dtype", DTYPES)
def test_dense_layer_by_hand(dtype):
    # x W + b = [1, 2] [[1, 2, 3], [4, 5, 6]] + [10, 20, 30] = [1+8, 2+10, 3+12] + b = [19, 32, 45]
    x, weight = np.array([[1, 2]], dtype), np.array([[1, 2, 3], [4, 5, 6]], dtype)
    out = np.empty((1, 3), dtype)
    dense_forward(out, x, weight, np.array([10, 20, 30], dtype))
    assert out.tolist() == [[19, 32, 45]]
    # with dout = [1, 0, -1]: dx = dout W^T = [1-3, 4-6]; dW = x^T dout; db = dout
    dx, dweight, dbias = np.empty_like(x), np.empty_like(weight), np.empty(3, dtype)
    dense_backward(dx, dweight, dbias, np.array([[1, 0, -1]], dtype), x, weight)
    assert dx.tolist() == [[-2, -2]]
    assert dweight.tolist() == [[1, 0, -1], [2, 0, -2]]
    assert dbias.tolist() == [1, 0, -1]


@pytest.mark.parametrize("dtype", DTYPES)
@given(shape=st.tuples(*[st.integers(1, 70)] * 3))
def test_dense_layer_against_numpy(dtype, shape):
    batch, inputs, outputs = shape
    x, weight = operand(batch, inputs, False, dtype), operand(inputs, outputs, False, dtype)
    bias, dout = rng.standard_normal(outputs).astype(dtype), operand(batch, outputs, False, dtype)
    out, dx, dweight, dbias = (np.full_like(like, np.nan) for like in (dout, x, weight, bias))
    dense_forward(out, x, weight, bias)
    dense_backward(dx, dweight, dbias, dout, x, weight)
    assert_close(out, reference.matmul(x, weight) + bias, inputs)
    assert_close(dx, reference.matmul(dout, weight.T), outputs)
    assert_close(dweight, reference.matmul(x.T, dout), batch)
    assert_close(dbias, dout.sum(axis=0, dtype=np.float64), batch)


def test_dense_backward_skips_empty_outputs():
    x, weight, dout = np.ones((2, 3)), np.ones((3, 4)), np.ones((2, 4))
    dweight = np.empty((3, 4))
    dense_backward(np.empty((0, 0)), dweight, np.empty(0), dout, x, weight)
    assert (dweight == 2).all()


GUARDED_SHAPES = [(m, k, n) for m in (1, 5, 12, 13, 31) for k in (1, 7, 33) for n in range(1, 71, 3)]
GUARDED_SHAPES += [(128, 400, 100), (30, 17, 257), (40, 390, 45)]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("at_end", [True, False])
def test_nothing_outside_the_arrays_is_touched(dtype, at_end):
    for m, k, n in GUARDED_SHAPES:
        for transpose_a, transpose_b in ((False, False), (True, False), (False, True), (True, True)):
            a, b = operand(m, k, transpose_a, dtype), operand(k, n, transpose_b, dtype)
            out = guarded(np.full((m, n), np.nan, dtype), at_end)
            matmul(out, guarded(a, at_end), guarded(b, at_end), transpose_a, transpose_b)
            assert_close(out, reference.matmul(a.T if transpose_a else a, b.T if transpose_b else b), k)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("transpose", [False, True])
def test_the_scratch_of_a_product_is_enough(dtype, transpose):
    for m, k, n in ((32, 784, 64), (13, 505, 40), (1, 600, 40), (300, 900, 264), (1300, 520, 264)):
        a, b = operand(m, k, False, dtype), operand(k, n, transpose, dtype)
        size = scratch_size(m, k, a.itemsize)
        assert (size * a.itemsize > 1 << 17) == (m * k * a.itemsize > A_BYTES)
        scratch, out = guarded(np.full(size, np.nan, dtype), True), np.full((m, n), np.nan, dtype)
        flat, b_matrix = (
            out.reshape(-1),
            by_columns(b.reshape(-1), 0, k) if transpose else by_rows(b.reshape(-1), 0, n),
        )
        a_matrix = by_rows(a.reshape(-1), 0, k)
        product(by_rows(flat, 0, n), a_matrix, b_matrix, NO_PANELS, Shape(m, k, n), from_zero(flat), scratch)
        assert_close(out, a @ (b.T if transpose else b), k)


@jit
def prefetching_panel(c, a, b, stored, order):
    zero, far = np.int64(0), np.int64(1 << 20)
    (k, m), n, flat = a.shape, b.shape[1], c.reshape(-1)
    matmul_prefetching_panel(
        by_rows(flat, zero, n), by_columns(a.reshape(-1), zero, m), by_rows(b.reshape(-1), zero, n),
        Shape(m, k, n), from_zero(flat), NextRows(Matrix(stored, zero, far, far), order, zero),
    )  # fmt: skip


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("at_end", [True, False])
def test_a_panel_that_prefetches_memory_nobody_has_is_a_product(dtype, at_end):
    for m in (1, 4, 12, 13, 31, 50):
        for k in (1, 7, 33):
            for n in range(1, PANEL_BYTES // np.dtype(dtype).itemsize + 1, 3):
                a, b = operand(m, k, True, dtype), operand(k, n, False, dtype)
                out = guarded(np.full((m, n), np.nan, dtype), at_end)
                order = guarded(rng.integers(-1000, 1000, k), at_end)
                stored = guarded(np.zeros(1, np.uint8), at_end)
                prefetching_panel(out, guarded(a, at_end), guarded(b, at_end), stored, order)
                assert_close(out, reference.matmul(a.T, b), k)


def test_the_guard_page_guards():
    code = (
        "from guarded import guarded; import numpy as np\n"
        "x = guarded(np.zeros(5), at_end=True)\n"
        "np.lib.stride_tricks.as_strided(x, (6,)).sum()"
    )
    path = f"import sys; sys.path.insert(0, {str(__file__.rsplit('/', 1)[0])!r})\n"
    assert subprocess.run([sys.executable, "-c", path + code], capture_output=True).returncode < 0


# ---- the public function


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_bits_do_not_depend_on_threads(threads, all_threads):
    a, b = rng.standard_normal((300, 500)).astype("f4"), rng.standard_normal((500, 700)).astype("f4")
    before = minidl.get_num_threads()
    try:
        minidl.set_num_threads(1)
        expected = minidl.matmul(a, b)
        minidl.set_num_threads(threads)
        assert np.array_equal(minidl.matmul(a, b), expected)
    finally:
        minidl.set_num_threads(before)


def panelled_products(weight, x, dout, panels):
    """x weight and dout weight^T by `product`, the weight in rows (``panels`` None) or stored in panels."""
    (k, n), m = weight.shape, len(x)
    stored, layout, stride = (
        (weight.reshape(-1), NO_PANELS, n) if panels is None else (panels, Panels(k, 0), 0)
    )
    scratch = np.empty(scratch_size(m, max(k, n), weight.itemsize), weight.dtype)
    out, dx = np.full((m, n), np.nan, weight.dtype), np.full((m, k), np.nan, weight.dtype)
    product(
        by_rows(out.reshape(-1), 0, n), by_rows(x.reshape(-1), 0, k), by_rows(stored, 0, n),
        layout, Shape(m, k, n), from_zero(stored), scratch,
    )  # fmt: skip
    product(
        by_rows(dx.reshape(-1), 0, k), by_rows(dout.reshape(-1), 0, n), by_columns(stored, 0, stride),
        layout, Shape(m, n, k), from_zero(stored), scratch,
    )  # fmt: skip
    return out, dx


@pytest.mark.parametrize("dtype", DTYPES)
@given(
    m=st.integers(1, 40),
    k=st.one_of(st.integers(1, 70), st.integers(K_BLOCK - 2, K_BLOCK + 40)),
    n=st.one_of(st.integers(1, 70), st.integers(K_BLOCK - 2, K_BLOCK + 40)),
)
def test_a_weight_in_panels_gives_the_same_bits(dtype, m, k, n):
    weight, x, dout = (rng.standard_normal(shape).astype(dtype) for shape in ((k, n), (m, k), (m, n)))
    panels, back = np.full(k * n, np.nan, dtype), np.full((k, n), np.nan, dtype)
    store_panels(panels, weight.reshape(-1), 0, k, n, False)
    store_panels(panels, back.reshape(-1), 0, k, n, True)
    np.testing.assert_array_equal(back, weight)
    # without compiled code it is BLAS that multiplies, and the order of its sums is its own
    tolerance = 4 * (k + n) * np.finfo(dtype).eps if JIT_DISABLED else 0
    for found, expected in zip(
        panelled_products(weight, x, dout, panels), panelled_products(weight, x, dout, None), strict=True
    ):
        np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


def test_a_weight_in_rows_read_as_panels_would_be_caught():
    weight, x, dout = (rng.standard_normal(shape) for shape in ((30, 70), (5, 30), (5, 70)))
    right, wrong = (
        panelled_products(weight, x, dout, None),
        panelled_products(weight, x, dout, weight.reshape(-1)),
    )
    assert not any(np.array_equal(a, b) for a, b in zip(right, wrong, strict=True))

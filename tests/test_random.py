"""The counter-based generator and the kernels that draw from it."""

from __future__ import annotations

from math import erf

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

from minidl.kernels import random
from minidl.kernels.rowwise import rescale

DTYPES = (np.float32, np.float64)
seeds = st.integers(0, 2**63 - 1)
small = st.integers(0, 1000)


key_of = random.key_of


@given(seeds | st.integers(-(2**63), -1), small, small, seeds)
def test_python_and_kernels_make_the_same_keys(seed, purpose, epoch, step):
    assert key_of(seed, purpose, epoch, step) == np.uint64(random.make_key(seed, purpose, epoch, step))


KEY = key_of(1, 2, 3, 4)


def chi_square(counts):
    expected = counts.sum() / counts.size
    return ((counts - expected) ** 2).sum() / expected


def looks_uniform(values, bins=64):
    """Chi-square against uniform on [0, 1): within six standard deviations of its mean."""
    statistic = chi_square(np.histogram(values, bins, (0, 1))[0])
    return abs(statistic - (bins - 1)) < 6 * np.sqrt(2 * (bins - 1))


def uniforms(key, n):
    return np.array([random.uniform(key, index) for index in range(n)])


def normals(key, n):
    out = np.zeros((1, n))
    random.gaussian_noise(out, out, 1.0, key, 0)
    return out[0]


def test_first_output_of_splitmix64():
    # The published first outputs of the generator with state 1234567 (Rosetta Code, "SplitMix64").
    expected = (6457827717110365317, 3203168211198807973, 9817491932198370423)
    for index, value in enumerate(expected):
        assert reference.random_bits(1234567, index) == value
        assert random.uniform(np.uint64(1234567), index) == (value >> 11) / 2.0**53


@given(seeds, small, small, small, st.integers(0, 2**40))
def test_draws_match_the_reference(seed, purpose, epoch, step, index):
    key = key_of(seed, purpose, epoch, step)
    assert int(key) == reference.random_key(seed, purpose, epoch, step)
    assert random.uniform(key, index) == reference.random_uniform(key, index)
    expected = reference.random_normal(key, index)
    np.testing.assert_allclose(random.normal(key, index), expected, rtol=1e-13, atol=1e-14)


def test_every_part_of_a_key_counts():
    keys = {int(key_of(*parts)) for parts in np.ndindex(6, 6, 6, 6)}
    assert len(keys) == 6**4


def test_uniform_is_uniform():
    values = uniforms(KEY, 100_000)
    assert 0 <= values.min() and values.max() < 1
    assert looks_uniform(values)
    # the same index under consecutive steps: what dropout of one unit sees
    across = [random.uniform(key_of(0, 16, 0, step), 5) for step in range(20_000)]
    assert looks_uniform(np.array(across))
    assert not looks_uniform(values**1.05)  # the check has teeth


def test_neighbouring_streams_are_uncorrelated():
    streams = np.array([uniforms(key_of(0, 16, 0, step), 20_000) for step in range(6)])
    streams = np.vstack([streams, np.roll(streams[0], 1), uniforms(key_of(1, 16, 0, 0), 20_000)])
    correlation = np.corrcoef(streams) - np.eye(len(streams))
    assert np.abs(correlation).max() < 5 / np.sqrt(20_000)


def test_normal_is_normal():
    values = normals(KEY, 200_000)
    n = values.size
    assert abs(values.mean()) < 5 / np.sqrt(n)
    assert abs(values.var() - 1) < 5 * np.sqrt(2 / n)
    assert abs((values**3).mean()) < 5 * np.sqrt(15 / n)
    assert abs((values**4).mean() - 3) < 5 * np.sqrt(96 / n)
    cumulative = np.array([(1 + erf(value / np.sqrt(2))) / 2 for value in values[:50_000]])
    assert looks_uniform(cumulative)
    assert not looks_uniform(np.clip(cumulative * 1.03, 0, 1))


@given(st.integers(0, 200), seeds)
def test_permutation_holds_every_index_once(n, seed):
    out = np.full(n, -1)
    random.permutation(out, key_of(seed, random.SHUFFLE, 0, 0))
    assert np.array_equal(np.sort(out), np.arange(n))


def test_permutations_are_equally_likely():
    counts = np.zeros((4, 4, 4))
    out = np.empty(4, np.int64)
    draws = 24_000
    for epoch in range(draws):
        random.permutation(out, key_of(7, random.SHUFFLE, epoch, 0))
        counts[tuple(out[:3])] += 1
    seen = counts[counts > 0]
    assert seen.size == 24
    assert abs(chi_square(seen) - 23) < 6 * np.sqrt(2 * 23)


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.integers(1, 9), st.integers(1, 40), st.floats(0, 0.99), seeds, small)
def test_dropout_matches_the_reference(dtype, rows, columns, rate, seed, first_row):
    key = key_of(seed, random.LAYER, 0, 0)
    x = np.linspace(-2, 3, rows * columns).reshape(rows, columns).astype(dtype)
    out = np.full_like(x, np.nan)
    random.dropout(out, x, rate, key, first_row)
    np.testing.assert_allclose(out, reference.dropout(x, rate, key, first_row), rtol=4 * np.finfo(dtype).eps)
    random.dropout(x, x, rate, key, first_row)
    assert np.array_equal(x, out)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.8])
def test_dropout_keeps_the_mean_and_drops_its_share(rate):
    x = np.ones((200, 500), np.float32)
    out = np.empty_like(x)
    random.dropout(out, x, rate, KEY, 0)
    share = (out == 0).mean()
    assert abs(share - rate) < 5 * np.sqrt(rate * (1 - rate) / x.size)
    assert abs(out.mean() - 1) < 5 * np.sqrt(rate / (1 - rate) / x.size)
    # neither rows nor columns are favoured
    spread = 6 * np.sqrt(rate * (1 - rate) / 200)
    assert np.abs((out == 0).mean(axis=0) - rate).max() < spread
    assert np.abs((out == 0).mean(axis=1) - rate).max() < spread


def test_dropout_of_rate_zero_is_the_identity_and_nan_passes():
    x = np.array([[1.0, np.nan, -3.0]], np.float32)
    out = np.empty_like(x)
    random.dropout(out, x, 0.0, KEY, 0)
    assert np.array_equal(out, x, equal_nan=True)


def within(dy, dx):
    return random.Reach(-dy, dy, -dx, dx)


def apply(name, out, x, key, first_row):
    if name == "dropout":
        random.dropout(out, x, 0.4, key, first_row)
    elif name == "gaussian_noise":
        random.gaussian_noise(out, x, 0.7, key, first_row)
    elif name == "translate":
        random.translate(out, x, random.Image(5, 4, 3), within(2, 1), -1.0, key, first_row, 1)
    else:
        random.translate(out, x, random.Image(5, 4, 3), within(2, 1), 0.0, key, first_row, -1)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["dropout", "gaussian_noise", "translate", "translate_backward"])
def test_splitting_the_rows_changes_no_bit(name, dtype):
    x = normals(KEY, 13 * 60).reshape(13, 60).astype(dtype)
    whole, split, other = np.empty_like(x), np.empty_like(x), np.empty_like(x)
    apply(name, whole, x, KEY, 3)
    for start, stop in ((0, 1), (1, 6), (6, 6), (6, 13)):
        apply(name, split[start:stop], x[start:stop], KEY, 3 + start)
    assert whole.tobytes() == split.tobytes()
    apply(name, other, x, key_of(1, 2, 3, 5), 3)
    assert not np.array_equal(whole, other)
    apply(name, other, x, KEY, 4)
    assert not np.array_equal(whole, other)


@pytest.mark.parametrize("dtype", DTYPES)
def test_gaussian_noise_matches_the_reference(dtype):
    x = np.linspace(-1, 1, 33).reshape(3, 11).astype(dtype)
    out = np.empty_like(x)
    random.gaussian_noise(out, x, 0.3, KEY, 2)
    noise = [reference.random_normal(KEY, 22 + i) for i in range(33)]
    np.testing.assert_allclose(out, x + 0.3 * np.reshape(noise, x.shape), rtol=1e-6, atol=1e-7)
    random.gaussian_noise(x, x, 0.3, KEY, 2)
    assert np.array_equal(x, out)


images = st.tuples(st.integers(1, 4), st.integers(1, 6), st.integers(1, 6), st.integers(1, 3))
reach = st.tuples(st.integers(0, 7), st.integers(0, 7))


@pytest.mark.parametrize("dtype", DTYPES)
@given(images, reach, st.floats(-1, 1, width=32), seeds, small)
def test_translate_matches_the_reference(dtype, shape, most, fill_value, seed, first_row):
    key = key_of(seed, random.LAYER, 0, 0)
    x = np.arange(np.prod(shape), dtype=dtype).reshape(shape)
    out = np.full_like(x, np.nan)
    flat = (shape[0], -1)
    image = random.Image(*shape[1:])
    random.translate(out.reshape(flat), x.reshape(flat), image, within(*most), fill_value, key, first_row, 1)
    shifts = reference.random_shifts(key, shape[0], (-most[0], -most[1]), most, first_row)
    assert np.array_equal(out, reference.translate(x, shifts, fill_value))


@given(images, reach, seeds)
def test_translate_backward_is_the_transpose(shape, most, seed):
    """<dout, A x> = <A' dout, x> for the linear map A (fill value 0)."""
    key = key_of(seed, random.LAYER, 0, 0)
    size = int(np.prod(shape))
    x, dout = normals(key, size).reshape(shape[0], -1), normals(KEY, size).reshape(shape[0], -1)
    out, dx = np.full_like(x, np.nan), np.full_like(x, np.nan)
    random.translate(out, x, random.Image(*shape[1:]), within(*most), 0.0, key, 0, 1)
    random.translate(dx, dout, random.Image(*shape[1:]), within(*most), 0.0, key, 0, -1)
    np.testing.assert_allclose((dout * out).sum(axis=1), (dx * x).sum(axis=1), rtol=1e-12, atol=1e-12)


def test_all_shifts_within_reach_are_equally_likely():
    x = np.zeros((4000, 49), np.float32)
    x[:, 24] = 1  # the middle of 7 x 7
    out = np.empty_like(x)
    random.translate(out, x, random.Image(7, 7, 1), within(2, 1), 0.0, KEY, 0, 1)
    where = out.reshape(-1, 7, 7).sum(axis=0)
    assert where[1:6, 2:5].sum() == 4000
    assert abs(chi_square(where[1:6, 2:5].ravel()) - 14) < 6 * np.sqrt(28)


@pytest.mark.parametrize("dtype", DTYPES)
@given(st.integers(0, 4), st.integers(1, 40), st.floats(-3, 3), st.floats(-3, 3))
def test_rescale(dtype, rows, columns, scale, offset):
    x = np.linspace(-2, 3, rows * columns).reshape(rows, columns).astype(dtype)
    out = np.empty_like(x)
    rescale(out, x, scale, offset)
    np.testing.assert_array_equal(out, x * dtype(scale) + dtype(offset))
    rescale(x, x, scale, offset)
    assert np.array_equal(x, out)

"""Softmax at a temperature: against the oracle, at extreme logits, and what the public functions refuse."""

import numpy as np
import pytest
import reference
from hypothesis import given
from hypothesis import strategies as st

import minidl
from minidl.kernels.softmax import log_softmax_forward, softmax_backward, softmax_forward
from minidl.losses import boltzmann, log_softmax, softmax

DTYPES = [np.float32, np.float64]
TEMPERATURES = st.sampled_from([0.5, 1.0, 4.0, 20.0])
WIDTHS = st.one_of(st.integers(1, 70), st.sampled_from([1000, 1024, 1025, 3000]))


def run(kernel, z, temperature=1.0):
    out = np.full_like(z, 7)
    kernel(out, z, temperature)
    return out


@pytest.mark.parametrize("dtype", DTYPES)
@given(rows=st.integers(1, 4), width=WIDTHS, temperature=TEMPERATURES, seed=st.integers(0, 99))
def test_against_the_oracle(dtype, rows, width, temperature, seed):
    z = np.random.default_rng(seed).normal(0, 5, (rows, width)).astype(dtype)
    tolerance = 40 * np.finfo(dtype).eps
    q = run(softmax_forward, z, temperature)
    np.testing.assert_allclose(q, reference.softmax(z, temperature), rtol=tolerance)
    np.testing.assert_allclose(q.sum(axis=1, dtype=np.float64), 1, rtol=tolerance)
    log_q = run(log_softmax_forward, z, temperature)
    np.testing.assert_allclose(log_q, reference.log_softmax(z, temperature), rtol=tolerance, atol=tolerance)
    softmax_forward(z, z, temperature)
    assert np.array_equal(z, q), "in place"
    if width > 1:  # the other temperature is told apart
        with pytest.raises(AssertionError):
            np.testing.assert_allclose(q, reference.softmax(log_q, temperature * 1.01), rtol=tolerance)


@given(width=st.integers(1, 20), temperature=TEMPERATURES, seed=st.integers(0, 99))
def test_backward_is_the_true_jacobian(width, temperature, seed):
    rng = np.random.default_rng(seed)
    z, dout = rng.normal(size=(2, width)), rng.normal(size=(2, width))
    q, dx = run(softmax_forward, z, temperature), np.empty_like(z)
    softmax_backward(dx, dout, q, temperature)
    expected = reference.differences(lambda at: (run(softmax_forward, at, temperature) * dout).sum(), z)
    np.testing.assert_allclose(dx, expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(dx.sum(axis=1), 0, atol=1e-14)


@pytest.mark.parametrize("dtype", DTYPES)
def test_extreme_logits(dtype):
    z = np.array([[1e4, 0, -1e4], [-1e4, -1e4, -1e4], [1e4, 1e4, 0]], dtype)
    expected = [[1, 0, 0], [1 / 3, 1 / 3, 1 / 3], [0.5, 0.5, 0]]
    np.testing.assert_allclose(run(softmax_forward, z), expected, rtol=1e-6)
    assert np.array_equal(run(log_softmax_forward, z)[0], [0, -1e4, -2e4])


@pytest.mark.parametrize("dtype", DTYPES)
def test_nan_and_inf_are_seen(dtype):
    for bad in (np.nan, np.inf):
        z = np.zeros((2, 20), dtype)
        z[1, 18] = bad
        q = run(softmax_forward, z)
        assert np.isfinite(q[0]).all() and np.isnan(q[1, 18])


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_row_does_not_depend_on_the_others(dtype):
    z = np.random.default_rng(0).normal(size=(5, 33)).astype(dtype)
    whole = run(softmax_forward, z, 2.0)
    assert np.array_equal(whole[3:4], run(softmax_forward, z[3:4].copy(), 2.0))


def test_public_functions():
    z = [[1, 2, 3], [0, 0, 0]]  # any real dtype
    np.testing.assert_allclose(softmax(z, temperature=2.0), reference.softmax(z, 2.0), rtol=1e-15)
    np.testing.assert_allclose(log_softmax(z), reference.log_softmax(z), rtol=1e-15)
    assert softmax(np.zeros((2, 3), np.float32)).dtype == np.float32
    assert softmax(np.zeros((2, 3), np.float16)).dtype == np.float64
    assert softmax(np.zeros((2, 3, 4))).shape == (2, 3, 4) and softmax([1.0, 2.0]).shape == (2,)
    strided = np.random.default_rng(0).normal(size=(6, 8))[::2, ::-2]
    np.testing.assert_allclose(softmax(strided), reference.softmax(strided), rtol=1e-15)
    # the Boltzmann form at T = 2: exp(-0.5) = 0.606531, exp(-1) = 0.367879, and 0.606531 / 0.974410
    np.testing.assert_allclose(boltzmann([1.0, 2.0], 2.0), [0.6224593312, 0.3775406688], rtol=1e-9)
    np.testing.assert_allclose(boltzmann([1.0, 2.0], 0.7), softmax([-1.0, -2.0], 0.7))
    assert minidl.softmax is softmax and minidl.log_softmax is log_softmax and minidl.boltzmann is boltzmann


@pytest.mark.parametrize("function", [softmax, log_softmax, boltzmann])
@pytest.mark.parametrize("temperature", [0, -1.0, np.inf, np.nan])
def test_bad_temperature(function, temperature):
    with pytest.raises(ValueError, match=f"temperature must be (> 0|finite), got {temperature}"):
        function([1.0, 2.0], temperature)


def test_bad_logits():
    with pytest.raises(ValueError, match=r"logits must be finite, got nan at index \(1, 0\)"):
        softmax([[0.0, 1.0], [np.nan, 1.0]])
    with pytest.raises(ValueError, match=r"energies must be finite, got inf"):
        boltzmann([0.0, np.inf])
    with pytest.raises(ValueError, match=r"logits must not be empty, got shape \(0, 3\)"):
        softmax(np.empty((0, 3)))
    with pytest.raises(TypeError, match="logits must hold real numbers"):
        softmax(np.array([1j, 2]))
    with pytest.raises(TypeError, match="temperature must be a number, got 'hot'"):
        softmax([1.0], "hot")

"""Softmax and its logarithm, sigmoid, and the check that numbers are logits and not probabilities."""

import numpy as np

from ..kernels.softmax import log_softmax_forward, softmax_forward
from ..validation import check_array, check_bool, check_finite, check_float, check_range


def softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """``exp(z_i / T) / sum_j exp(z_j / T)`` along the last axis.

    logits (..., C) of any real dtype, finite. float32 gives float32, any other dtype gives float64.
    Raises ValueError for a temperature that is not > 0 and finite, and for NaN or inf in the logits.
    """
    return _along_the_last_axis(softmax_forward, as_real("logits", logits), temperature)


def log_softmax(logits: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """``z_i / T - log(sum_j exp(z_j / T))`` along the last axis. It is finite even where softmax rounds to 0.

    Arguments, dtypes and errors are those of `softmax`.
    """
    return _along_the_last_axis(log_softmax_forward, as_real("logits", logits), temperature)


def boltzmann(energies: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """``exp(-s_i / T) / sum_j exp(-s_j / T)``: softmax of the negative energies, with T = 1 / beta.

    Shapes, dtypes and errors are those of `softmax`.
    """
    return _along_the_last_axis(softmax_forward, -as_real("energies", energies), temperature)


def sigmoid(x: np.ndarray) -> np.ndarray:
    """``1 / (1 + exp(-x))`` in NumPy, without overflow; NaN for NaN."""
    return np.exp(-np.logaddexp(0.0, -x))


def _along_the_last_axis(kernel, z: np.ndarray, temperature: float) -> np.ndarray:
    temperature = check_float("temperature", temperature, above=0)
    out = np.empty_like(z)
    kernel(out.reshape(-1, z.shape[-1]), z.reshape(-1, z.shape[-1]), temperature)
    return out


def as_real(argument: str, value) -> np.ndarray:
    """A finite C-contiguous array: float32 stays, everything else becomes float64."""
    array = check_array(argument, value)
    check_finite(argument, array)
    single = array.dtype.newbyteorder("=") == np.float32
    # also aligned and writeable: the kernels are compiled for such arrays alone
    return np.require(array, np.float32 if single else np.float64, "CAW")


def looks_like_probabilities(array: np.ndarray) -> bool:
    """Whether every row of (N, C) lies in [0, 1] and sums to 1. A single row of logits may do so by chance."""
    if array.shape[1] < 2:
        return False
    if array[0].min() < 0 or array[0].max() > 1:  # the first row almost always tells
        return False
    in_range = array.min() >= 0 and array.max() <= 1
    return bool(in_range and np.allclose(array.sum(axis=1, dtype=np.float64), 1, atol=1e-3))


def check_logits(name: str, array: np.ndarray, from_probs: bool = False) -> np.ndarray:
    """Logits (N, C), finite, as float32 or float64; with ``from_probs`` the logarithms of probabilities.

    Raises ValueError for another shape, for NaN or inf (with the first index), and for rows that are probabilities:
    the softmax of a softmax is nearly uniform and teaches nothing. ``name`` is the argument's name in the message.
    """
    logits = as_real(name, check_array(name, array, ndim=2))
    if check_bool("from_probs", from_probs):
        check_range(name, logits, 0.0, 1.0, why=" (probabilities)")
        return np.log(np.maximum(logits, np.finfo(np.float32).tiny))
    if len(logits) > 1 and looks_like_probabilities(logits):
        raise ValueError(
            f"{name} must be logits, got rows in [0, 1] that sum to 1: those are probabilities. Give what "
            f"comes before the softmax, or convert them: check_logits({name!r}, {name}, from_probs=True)"
        )
    return logits

"""What in the input decides an output? Gradients by the input, taken through the layers' own backward passes."""

import copy
from typing import Any

import numpy as np

from .models import Sequential
from .validation import check_array, check_float, check_inputs, check_int, describe

_CHUNK = 256
"""Rows of one forward and backward pass."""
_MOST_STEPS = 1000
"""Gauss-Legendre nodes are eigenvalues of a matrix of that size."""


def saliency(model: Sequential, x: Any, class_index: Any = None) -> np.ndarray:
    """The gradient of one logit by the input, for each sample: ``out[n] = d f_c(x[n]) / d x[n]``.

    f is what ``predict_logits`` gives: the output before a final softmax or sigmoid, else the output itself. Dropout
    and noise are off, and normalisation uses its moving averages, as in ``predict``. Where an entry is positive, the
    logit grows with that input. Source: Simonyan, Vedaldi and Zisserman 2014 (arXiv 1312.6034), who show ``abs(out)``.

    Parameters
    ----------
    model : Sequential, built, with outputs (N, C). It stays as it was: a copy of it is run.
    x : samples (N, *input_shape), of any real dtype.
    class_index : which of the C outputs: one number for all samples, or (N,). Default: the largest of each sample,
        which is the predicted class.

    Returns
    -------
    Array (N, *input_shape) of the model's dtype.

    Raises
    ------
    ValueError, TypeError
        For a model that is not built or has no single row of outputs, an x that does not fit, and a class_index out
        of range or of another shape.
    """
    twin, x = _checked(model, x)
    return _gradients(twin, x, _check_classes(class_index, twin, x))


def integrated_gradients(
    model: Sequential,
    x: Any,
    class_index: Any = None,
    baseline: Any = None,
    steps: int = 64,
    tolerance: float = 0.01,
) -> np.ndarray:
    """What each input adds to a logit on the straight way from a baseline b to x::

        out[n, i] = (x[n, i] - b[i]) * integral over t in [0, 1] of d f_c(b + t (x[n] - b)) / d x_i

    So ``out[n].sum() = f_c(x[n]) - f_c(b)`` (completeness). The integral is a Gauss-Legendre sum, whose error falls
    fast with ``steps`` in smooth nets and slowly over kinks (relu). No sample may miss completeness by more than
    ``tolerance * abs(out[n]).sum()``: more is refused. f, ``class_index`` and the state of the model are those of
    `saliency`. Source: Sundararajan, Taly and Yan 2017 (arXiv 1703.01365).

    Parameters
    ----------
    model, x, class_index : as in `saliency`.
    baseline : an input that says nothing, (*input_shape) or one for each sample, x's shape. Default: zeros.
    steps : how many points of the way are evaluated, 1 to 1000. Each costs a forward and a backward pass.
    tolerance : of completeness, see above; beside it float32's rounding of f is allowed.

    Returns
    -------
    Array (N, *input_shape) of the model's dtype.

    Raises
    ------
    ValueError
        Also where completeness is missed. It names the sample and both sides, and says to take more steps.
    """
    twin, x = _checked(model, x)
    classes = _check_classes(class_index, twin, x)
    baseline = _check_baseline(baseline, twin, x)
    steps = check_int("steps", steps, minimum=1, maximum=_MOST_STEPS)
    tolerance = check_float("tolerance", tolerance, above=0)
    nodes, weights = np.polynomial.legendre.leggauss(steps)  # on [-1, 1]
    average, way = np.zeros(x.shape), x.astype(np.float64) - baseline
    for t, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        average += weight * _gradients(twin, baseline + t * way, classes)
    attributions = way * average
    ends = [_chosen(_logits(twin, end), classes) for end in (x, np.broadcast_to(baseline, x.shape))]
    _check_completeness(attributions.reshape(len(x), -1), ends, steps, tolerance, twin.dtype)
    return attributions.astype(twin.dtype)


# ---------------------------------------------------------------- gradients


def _gradients(model: Any, x: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """d f_c(x[n]) / d x[n], a chunk of rows at a time: in inference no row depends on another."""
    out = np.empty(x.shape, model.dtype)
    for first in range(0, len(x), _CHUNK):
        rows = slice(first, first + _CHUNK)
        logits = model.forward(x[rows], logits=True)
        dlogits = np.zeros_like(logits)
        dlogits[np.arange(len(logits)), classes[rows]] = 1
        dx = model.backward(dlogits, logits=True)
        if np.shape(dx) != x[rows].shape:  # of a layer of the user's own
            raise ValueError(
                f"backward of the first layer must return dx of shape {x[rows].shape}, got {describe(dx)}"
            )
        out[rows] = dx
    return out


def _logits(model: Any, x: np.ndarray) -> np.ndarray:
    return np.concatenate([model.forward(x[i : i + _CHUNK], logits=True) for i in range(0, len(x), _CHUNK)])


def _chosen(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    return logits[np.arange(len(logits)), classes].astype(np.float64)


# ---------------------------------------------------------------- what is refused


def _checked(model: Any, x: Any) -> tuple[Any, np.ndarray]:
    """A copy of the model, whose layers may keep what they are given, and x in its dtype."""
    if not isinstance(model, Sequential):
        raise TypeError(f"model must be a Sequential, got {describe(model)}")
    if not model.built:
        raise ValueError(f"model must be built, got {model!r}: train it, or call model.build(input_shape)")
    outputs = model.output_shape or ()
    if len(outputs) != 1:
        received = ", ".join(str(size) for size in ("N", *outputs))
        raise ValueError(f"model must have outputs of shape (N, C), got ({received})")
    x = check_inputs(x, model.input_shape, model.dtype)
    if not isinstance(x, np.ndarray):
        raise TypeError(f"x must be a dense array, got {type(x).__name__}: write x.toarray()")
    return copy.deepcopy(model), x.astype(model.dtype)


def _check_classes(class_index: Any, model: Any, x: np.ndarray) -> np.ndarray:
    """One class for each sample, int64 (N,)."""
    count = model.output_shape[0]
    if class_index is None:
        return _logits(model, x).argmax(axis=1)
    if np.ndim(class_index) == 0:
        return np.full(len(x), check_int("class_index", class_index, 0, count - 1))
    classes = check_array("class_index", class_index)
    if classes.dtype.kind not in "iu" or classes.shape != (len(x),):
        raise ValueError(
            f"class_index must be an integer or {len(x)} of them, one for each sample, got {describe(classes)}"
        )
    wrong = np.flatnonzero((classes < 0) | (classes >= count))
    if len(wrong):
        raise ValueError(
            f"class_index must be in 0..{count - 1}, got {classes[wrong[0]]} at index {wrong[0]}"
        )
    return classes.astype(np.int64)


def _check_baseline(baseline: Any, model: Any, x: np.ndarray) -> np.ndarray:
    """float64, of the shape of x or of one sample."""
    if baseline is None:
        return np.zeros(model.input_shape)
    baseline = check_array("baseline", baseline)
    if baseline.shape not in (model.input_shape, x.shape):
        raise ValueError(
            f"baseline must have shape {model.input_shape}, or {x.shape} as x, got {baseline.shape}"
        )
    return check_inputs(np.broadcast_to(baseline, x.shape), model.input_shape, model.dtype, "baseline")


def _check_completeness(
    attributions: np.ndarray, ends: list[np.ndarray], steps: int, tolerance: float, dtype: np.dtype
) -> None:
    """A ValueError that names the worst sample if a sum of attributions is too far from f(x) - f(baseline)."""
    found, wanted = attributions.sum(axis=1), ends[0] - ends[1]
    rounding = 100 * np.finfo(dtype).eps * (1 + np.abs(ends).sum(axis=0))
    size = np.abs(attributions).sum(axis=1)
    excess = np.abs(found - wanted) - tolerance * size - rounding
    worst = int(np.argmax(np.where(np.isnan(excess), np.inf, excess)))
    if not excess[worst] <= 0:
        raise ValueError(
            f"steps must be larger, got {steps}: the attributions of sample {worst} sum to {found[worst]:.6g}, "
            f"f(x) - f(baseline) is {wanted[worst]:.6g}, and {tolerance * size[worst]:.3g} of error is allowed. "
            "If more steps do not help, a backward is wrong: see minidl.check_gradients"
        )

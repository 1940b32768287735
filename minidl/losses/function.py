"""A loss that is a function of the user's: ``(y_true, y_pred) -> (value, gradient)``."""

import inspect
from collections.abc import Callable

import numpy as np

from ..differences import difference
from ..validation import check_sample_weight, describe
from .base import Loss

_TRIED, _MOST_ENTRIES = 16, 200  # samples, and entries of the gradient among theirs
_IN_DOUBLE, _IN_SINGLE = (1e-5, 1e-4, 1e-9), (1e-2, 3e-2, 1e-5)
"""(epsilon, rtol, atol) of a function whose gradient is float64 where its arguments are, and of one that is not."""


class FunctionLoss(Loss):
    """What `compile` makes of ``function(y_true, y_pred)``; the loss is its mean over the samples.

    y_pred (B, C) are the model's outputs, a sample's in one row. y_true are targets of that shape and dtype or, where
    y holds one class index a sample and C > 1, int64 (B,). Both are copies. The function returns ``(value, gradient)``
    with gradient (B, C), either way:

    - value a number, the mean over the B samples, and its gradient by y_pred;
    - value (B,), one a sample, and in each row of gradient that sample's. This takes ``sample_weight``, too.

    As minidl has no autograd, a wrong gradient would train something else in silence. So it is compared with central
    differences on first use, on a few samples, in float64. It trains layer by layer. ``check_gradients`` looks at the
    whole model. Raises ValueError for a gradient that is wrong, with the entry, and TypeError for a function that
    returns something else.
    """

    _is_own = True
    sparse = None
    vector_is_sample = False

    def __init__(self, function: Callable):
        self.name = getattr(function, "__name__", type(function).__name__)
        try:
            inspect.signature(function).bind(None, None)
        except TypeError as error:
            raise TypeError(f"loss {self.name} must be a function of (y_true, y_pred): {error}") from None
        except ValueError:  # compiled code that does not tell
            pass
        super().__init__(name=self.name)
        self.function = function
        self._proven: Callable | None = None  # the function that was found right
        self._gives_a_mean = False

    def holds_labels(self, y: np.ndarray, outputs: int) -> bool:
        return outputs > 1 and (y.ndim == 1 or y.shape[1:] == (1,))

    def value_and_grad(self, logits, y, sample_weight=None) -> tuple[float, np.ndarray]:
        """(mean, its gradient by ``logits``, which are the model's outputs)."""
        pred = np.asarray(logits)
        pred = pred if pred.dtype == np.float32 else pred.astype(np.float64)
        labels, targets = self.check_y(y, pred.shape[1:], len(pred), pred.dtype)
        true = labels if targets is None else targets
        if self._proven is not self.function:
            self._prove(true, pred)
        values, gradient = self._run(true, pred)
        if values.ndim == 0:
            self._check_weighted(sample_weight is not None)
            return float(values), gradient.astype(pred.dtype)
        scale = np.full(len(pred), 1.0 / len(pred))
        if sample_weight is not None:
            scale *= check_sample_weight(sample_weight, len(pred))
        return float(values @ scale), (gradient * scale[:, None]).astype(pred.dtype)

    def check_on(self, model, samples) -> None:
        """Try the function on what the model makes of the first samples."""
        if self._proven is not self.function:
            first = samples.take(slice(0, _TRIED))
            out = model.forward(np.ascontiguousarray(first.x, dtype=model.dtype))
            self._prove(first.y, out.reshape(len(out), -1))
        self._check_weighted(samples.weight.size > 0)

    def _check_weighted(self, weighted: bool) -> None:
        if weighted and self._gives_a_mean:
            raise ValueError(
                f"sample_weight and class_weight need one value a sample, but loss {self.name} returns a mean: return "
                "values of shape (B,), and in each row of the gradient that sample's"
            )

    def _run(self, y_true: np.ndarray, y_pred: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """What the function returns, checked, for copies: it may work in place."""
        true = np.array(y_true, y_true.dtype if y_true.ndim == 1 else y_pred.dtype)
        result = self.function(true, y_pred.copy())
        if not (isinstance(result, (tuple, list)) and len(result) == 2):
            raise TypeError(
                f"loss {self.name} must return (value, gradient), got only {describe(result)}: minidl has no autograd, "
                "so write the gradient of the value by y_pred, too. Of the squared error: e = y_pred - y_true; "
                "return (e**2).mean(), 2 * e / e.size"
            )
        values, gradient = (np.asarray(part) for part in result)
        if values.dtype.kind not in "fiu" or values.shape not in ((), (len(y_pred),)):
            raise ValueError(
                f"value of loss {self.name} must be a number or one a sample, shape ({len(y_pred)},), "
                f"got {describe(values)}"
            )
        if gradient.dtype.kind not in "fiu" or gradient.shape != y_pred.shape:
            raise ValueError(
                f"gradient of loss {self.name} must have the shape of y_pred, {y_pred.shape}, got {describe(gradient)}"
            )
        return values, gradient

    def _prove(self, y_true: np.ndarray, y_pred: np.ndarray) -> None:
        """A ValueError if the gradient is wrong. The first samples are looked at, halfway between their outputs and
        the mean of these: still probabilities, if they were, but further away from 0 and 1, where a loss has its edges.
        """
        true, at = y_true[:_TRIED], y_pred[:_TRIED].astype(np.float64)
        at = (at + at.mean(axis=0)) / 2
        values, gradient = self._run(true, at)
        base, tolerance = float(values.sum()), _IN_DOUBLE if gradient.dtype == np.float64 else _IN_SINGLE
        self._gives_a_mean = values.ndim == 0
        if not np.isfinite(base):
            return  # the next time will tell

        def value() -> float:
            return float(self._run(true, at)[0].sum())

        by_size = np.argsort(-abs(gradient), axis=None, kind="stable")
        some = np.unique(np.linspace(0, at.size - 1, min(at.size, _MOST_ENTRIES)).astype(int))
        for index in zip(*np.unravel_index(by_size[some], at.shape), strict=True):
            got = float(gradient[index])
            expected, error, allowed = difference(value, base, at, index, got, tolerance)
            if np.isfinite(expected) and not error <= allowed:
                place = ", ".join(map(str, index))
                raise ValueError(
                    f"gradient of loss {self.name} is wrong at [{place}]: expected {expected:.6g}, the central "
                    f"difference of the value by y_pred[{place}], got {got:.6g}"
                )
        self._proven = self.function

"""A metric that is a plain function of the user's."""

from collections.abc import Callable

import numpy as np

from .. import validation
from ..losses import CLASS_OF
from .base import OfSums, mean_sums

_EXPECTED = "a number for each sample, shape (B, ...), or one number"


class FunctionMetric(OfSums):
    """The mean over all samples of ``function(y_true, y_pred)``, a plain function of NumPy arrays.

    It is called once a batch. y_true: class indices, int64 (B,), or targets (B, C); y_pred: the model's outputs
    (B, C). It returns a number for each sample, (B,) or more axes, over which the mean is taken; or one number, and
    then the result is the mean over the batches, each counting the same, as in Keras. Which direction is better is not
    known, unless it is one of ``minidl.losses``.

    ``Sequential.compile(metrics=[function])`` makes one of a function; its name is the function's ``__name__``.
    """

    wants_labels = None

    def __init__(self, function: Callable, name: str | None = None):
        if not callable(function):
            raise TypeError(
                f"function must be a function of (y_true, y_pred), got {validation.describe(function)}"
            )
        self.function = function
        super().__init__(self.function_name if name is None else name)

    @property
    def function_name(self) -> str:
        """The function's ``__name__``, or its class's."""
        return getattr(self.function, "__name__", type(self.function).__name__)

    @property
    def direction(self):
        """That of a loss is known, as in Keras."""
        return "down" if any(self.function is loss for loss in CLASS_OF) else None

    def sums(self, pred, labels, targets, weight=None):
        true = labels.copy() if labels.size else np.array(targets, pred.dtype)
        found = self.function(true, pred.copy())  # copies, as it may write to them
        values = self._checked_return(found, len(pred))
        if values.ndim == 0:
            return np.array([float(values), 1.0])
        return mean_sums(values.reshape(len(values), -1).mean(axis=1), weight)

    def _checked_return(self, found, rows: int) -> np.ndarray:
        what = f"metric {self.name!r} must return {_EXPECTED}"
        try:
            values = np.asarray(found)
        except (ValueError, TypeError, RuntimeError) as error:
            raise ValueError(f"{what}: what it returned cannot be made an array: {error}") from error
        if values.dtype.kind not in "buif":
            raise TypeError(f"{what}, got {validation.describe(found)}")
        if values.ndim and (len(values) != rows or not values.size):
            raise ValueError(f"{what}, got an array of shape {values.shape} for {rows} samples")
        return values.astype(np.float64)

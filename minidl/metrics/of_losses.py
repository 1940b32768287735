"""Metrics that are the mean over the samples of a loss, or of something like one. Keras's formulas and defaults."""

import functools

import numpy as np

from .. import losses, validation
from ..kernels.losses import Batch, loss_batch
from ..registry import constructor_arguments, function_of
from .base import METRICS, Metric

EPSILON = 1e-7
"""Keras's: below it nothing is divided by."""


class OfRows(Metric):
    """Base of the means over the samples that no kernel of a metric gives: ``values`` does."""

    has_kernel = False
    needs_output = True
    wants_labels = False


class OfLoss(OfRows):
    """Base of the means of a loss: the kernel of the loss of that name gives its value for each row."""

    loss_class: type[losses.Loss]
    from_logits = False
    label_smoothing = 0.0

    @property
    def loss_kind(self):
        return self._kernel[0]

    @property
    def _kernel(self) -> tuple[int, np.ndarray]:
        return _kernel_of(self.loss_class, self.from_logits, self.label_smoothing)

    def values(self, pred, labels, targets):
        kind, hyper = self._kernel
        values, none = np.empty(len(pred)), np.empty((0, 0), pred.dtype)
        targets = np.require(targets, pred.dtype, "CAW") if targets.size else none
        batch = Batch(pred, labels, targets, none, np.ones(len(pred)))
        loss_batch(kind, values, none, batch, hyper)
        return values


@functools.lru_cache(64)
def _kernel_of(cls: type[losses.Loss], from_logits: bool, label_smoothing: float) -> tuple[int, np.ndarray]:
    """The number and the settings of a loss's kernel."""
    given = {"from_logits": from_logits, "label_smoothing": label_smoothing}
    loss = cls(**{name: given[name] for name in given.keys() & constructor_arguments(cls).keys()})
    return loss.kind(from_logits), loss.hyper


class _Crossentropy(OfLoss):
    def __init__(self, name: str | None = None, from_logits: bool = False, label_smoothing: float = 0.0):
        super().__init__(name)
        self.from_logits = validation.check_bool("from_logits", from_logits)
        self.label_smoothing = validation.check_float(
            "label_smoothing", label_smoothing, minimum=0, maximum=1
        )


@METRICS.register("bce", "BCE")
class BinaryCrossentropy(_Crossentropy):
    """Mean over samples and outputs of ``-[y log o + (1 - y) log(1 - o)]``, o clipped to [1e-7, 1 - 1e-7].

    ``from_logits``: the model's outputs are logits, o is their sigmoid. ``label_smoothing`` as in the loss.
    """

    loss_class = losses.BinaryCrossentropy


@METRICS.register()
class CategoricalCrossentropy(_Crossentropy):
    """Mean over the samples of ``-sum_i y_i log q_i``, y a row of class probabilities.

    q: the outputs, normalised and clipped to [1e-7, 1 - 1e-7], or with ``from_logits`` their softmax. ``axis``, that
    of the classes, is the last: -1 or 1.
    """

    loss_class = losses.CategoricalCrossentropy

    def __init__(
        self,
        name: str | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
    ):
        super().__init__(name, from_logits, label_smoothing)
        self.axis = _check_axis(axis)


@METRICS.register()
class SparseCategoricalCrossentropy(OfLoss):
    """Mean over the samples of ``-log q_y``, y a class index; else as `CategoricalCrossentropy`."""

    loss_class = losses.SparseCategoricalCrossentropy
    wants_labels = True

    def __init__(self, name: str | None = None, from_logits: bool = False, axis: int = -1):
        super().__init__(name)
        self.from_logits = validation.check_bool("from_logits", from_logits)
        self.axis = _check_axis(axis)


@METRICS.register()
class KLDivergence(OfLoss):
    """Mean over the samples of ``sum_i y_i log(y_i / q_i)``, both clipped to [1e-7, 1]."""

    loss_class = losses.KLDivergence


@METRICS.register("mape", "MAPE")
class MeanAbsolutePercentageError(OfRows):
    """100 times the mean over samples and outputs of ``|y - y_pred| / max(|y|, 1e-7)``."""

    def values(self, pred, labels, targets):
        y = np.asarray(targets, np.float64)
        return 100.0 * np.mean(np.abs(y - pred) / np.maximum(np.abs(y), EPSILON), axis=1)


mean_absolute_percentage_error = function_of(MeanAbsolutePercentageError, Metric.rows)


@METRICS.register()
class CosineSimilarity(OfRows):
    """Mean over the samples of the cosine between the rows y and y_pred; the length of a row counts as 1e-7 at least.

    ``axis``, along which the rows lie, is the last: -1 or 1.
    """

    direction = "up"

    def __init__(self, name: str | None = None, axis: int = -1):
        super().__init__(name)
        self.axis = _check_axis(axis)

    def values(self, pred, labels, targets):
        return np.sum(_unit(targets) * _unit(pred), axis=1)


def _unit(rows: np.ndarray) -> np.ndarray:
    rows = np.asarray(rows, np.float64)
    return rows / np.maximum(np.sqrt(np.sum(rows * rows, axis=1, keepdims=True)), EPSILON)


def _check_axis(axis: object) -> object:
    return validation.check_choice("axis", axis, (-1, 1))

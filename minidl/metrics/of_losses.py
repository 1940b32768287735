"""Metrics that are the mean over the samples of a loss. Keras's formulas and defaults.

A class has the loss whose kernel gives its rows' values, and the settings that it takes as Keras does.
"""

import functools

import numpy as np

from .. import losses, validation
from ..kernels.losses import Batch, loss_batch
from ..losses.supervised import check_ignore_class
from ..registry import constructor_arguments
from .base import METRICS, Metric


class OfLoss(Metric):
    """Base: the mean over the samples of ``loss_class``'s loss, without weights of its own."""

    has_kernel = False
    needs_output = True
    wants_labels = False
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
    """Mean over the samples of ``-log q_y``, y a class index; else as `CategoricalCrossentropy`.

    A sample of the class ``ignore_class``, any whole number, has value 0; as in Keras it still counts in the mean,
    unless there is a ``sample_weight``.
    """

    loss_class = losses.SparseCategoricalCrossentropy
    wants_labels = True

    def __init__(
        self,
        name: str | None = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ):
        super().__init__(name)
        self.from_logits = validation.check_bool("from_logits", from_logits)
        self.ignore_class = check_ignore_class(ignore_class)
        self.axis = _check_axis(axis)

    def values(self, pred, labels, targets):
        is_class = (labels >= 0) & (labels < pred.shape[1])
        values = super().values(pred, np.where(is_class, labels, 0), targets)
        values[~is_class] = np.nan  # where the loss ignores a class that this metric does not
        if self.ignore_class is not None:
            values[labels == self.ignore_class] = 0.0
        return values

    def sums(self, pred, labels, targets, weight=None):
        if weight is not None and self.ignore_class is not None:
            weight = weight * (labels != self.ignore_class)
        return super().sums(pred, labels, targets, weight)


@METRICS.register()
class KLDivergence(OfLoss):
    """Mean over the samples of ``sum_i y_i log(y_i / q_i)``, both clipped to [1e-7, 1]."""

    loss_class = losses.KLDivergence


@METRICS.register()
class Poisson(OfLoss):
    """Mean over samples and outputs of ``o - y log(o + 1e-7)``."""

    loss_class = losses.Poisson


@METRICS.register("mape", "MAPE")
class MeanAbsolutePercentageError(OfLoss):
    """100 times the mean over samples and outputs of ``|y - y_pred| / max(|y|, 1e-7)``."""

    loss_class = losses.MeanAbsolutePercentageError


@METRICS.register("msle", "MSLE")
class MeanSquaredLogarithmicError(OfLoss):
    """Mean over samples and outputs of ``[log(1 + y) - log(1 + y_pred)]^2``, y and y_pred at least 1e-7."""

    loss_class = losses.MeanSquaredLogarithmicError


@METRICS.register()
class LogCoshError(OfLoss):
    """Mean over samples and outputs of ``log(cosh(y - y_pred))``. Its name is "logcosh", as in Keras."""

    loss_class = losses.LogCosh

    def __init__(self, name: str | None = None):
        super().__init__("logcosh" if name is None else name)


@METRICS.register()
class Hinge(OfLoss):
    """Mean over samples and outputs of ``max(1 - y y_pred, 0)``, y -1 and 1, or 0 and 1."""

    loss_class = losses.Hinge


@METRICS.register()
class SquaredHinge(OfLoss):
    """Mean over samples and outputs of ``max(1 - y y_pred, 0)^2``, y -1 and 1, or 0 and 1."""

    loss_class = losses.SquaredHinge


@METRICS.register()
class CategoricalHinge(OfLoss):
    """Mean over the samples of ``max(max_j (1 - y_j) o_j - sum_j y_j o_j + 1, 0)``, y a one-hot row."""

    loss_class = losses.CategoricalHinge


@METRICS.register()
class CosineSimilarity(OfLoss):
    """Mean over the samples of the cosine between the rows y and y_pred; the length of a row counts as 1e-7 at least.

    The loss of that name is less by its sign. ``axis``, along which the rows lie, is the last: -1 or 1.
    """

    loss_class = losses.CosineSimilarity
    direction = "up"

    def __init__(self, name: str | None = None, axis: int = -1):
        super().__init__(name)
        self.axis = _check_axis(axis)

    def values(self, pred, labels, targets):
        return -super().values(pred, labels, targets)


def _check_axis(axis: object) -> object:
    return validation.check_choice("axis", axis, (-1, 1))

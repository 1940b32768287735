"""Metrics of right and wrong decisions at thresholds: Precision, Recall, AUC. Keras's formulas and thresholds.

A prediction is positive at a threshold that it exceeds. All three are functions of two histograms: how many
positive and how many negative entries of y have a prediction that exceeds 0, 1, 2, ... of the sorted thresholds.
Adding them up from above gives the true and the false positives at each threshold.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from .. import validation
from .base import EPSILON, METRICS, OfSums, divided, in_single, number_or_array

_NOT_IN_TOP_K = np.float32(-1e10)
"""What takes the place of a prediction that is not among the ``top_k``; alone, it is the threshold of the others."""


class Thresholds(NamedTuple):
    """Ascending, in float32 as in Keras. ``lowest``: how many of them every prediction exceeds."""

    values: np.ndarray
    are_even: bool
    lowest: int

    @property
    def places(self) -> int:
        """How many of them a prediction may exceed: 0, 1, ..., all."""
        return len(self.values) + 1


@functools.lru_cache(64)
def thresholds_of(*values: float) -> Thresholds:
    """These thresholds, sorted; whether they divide [0, 1] evenly is told as Keras tells it."""
    values, count = tuple(sorted(values)), len(values)
    even = np.arange(count, dtype=np.float32) / max(count - 1, 1)
    are_even = count > 2 and np.allclose(values, even, atol=EPSILON)
    return Thresholds(np.float32(values), are_even, int(values[0] < 0 or values[-1] > 1))


@functools.lru_cache(64)
def _even_thresholds(count: int) -> Thresholds:
    return thresholds_of(-EPSILON, *((i + 1) / (count - 1) for i in range(count - 2)), 1 + EPSILON)


def exceeded(pred: np.ndarray, thresholds: Thresholds) -> np.ndarray:
    """How many of the thresholds each prediction exceeds; NaN only one that every prediction exceeds.

    Of evenly spread ones that is computed from a prediction clipped to [0, 1], as Keras does.
    """
    pred = in_single(pred)
    is_nan = np.isnan(pred)
    if thresholds.are_even:
        pred = np.clip(np.where(is_nan, np.float32(0), pred), 0.0, 1.0)
        found = np.ceil(pred * np.float32(len(thresholds.values) - 1)).astype(np.int64)
        return np.maximum(found, thresholds.lowest)
    return np.where(is_nan, thresholds.lowest, np.searchsorted(thresholds.values, pred, side="left"))


def histograms(
    pred: np.ndarray, y: np.ndarray, thresholds: Thresholds, weight: np.ndarray | None, by_output: bool
) -> np.ndarray:
    """(2, thresholds + 1, outputs or 1): the weights of the negative, and of the positive, entries of y (N, outputs)
    by the number of thresholds that their predictions exceed."""
    places, outputs = thresholds.places, y.shape[1]
    column = np.arange(outputs) if by_output else 0
    columns = outputs if by_output else 1
    index = ((y != 0) * places + exceeded(pred, thresholds)) * columns + column
    weights = None if weight is None else np.broadcast_to(weight[:, None], y.shape).ravel()
    found = np.bincount(index.ravel(), weights, 2 * places * columns)
    return found.astype(np.float64).reshape(2, places, columns)


class Confusion(OfSums):
    """Base: its state is the two `histograms`, one after the other."""

    counts = True
    top_k: int | None = None
    class_id: int | None = None

    def _thresholds(self) -> Thresholds:
        raise NotImplementedError

    def _columns(self, outputs: int) -> int:
        return 1

    def check_fits(self, sparse, outputs):
        super().check_fits(sparse, outputs)
        if self.class_id is not None and self.class_id >= outputs:
            raise ValueError(f"class_id of metric {self.name!r} must be < {outputs}, got {self.class_id}")
        if self.top_k is not None and self.top_k > outputs:
            raise ValueError(f"top_k of metric {self.name!r} must be <= {outputs}, got {self.top_k}")

    def update_state(self, y_true, y_pred, sample_weight=None):
        if self.top_k is not None and np.ndim(y_pred) == 1:  # a vector is one row, as in Keras
            y_true, y_pred = np.asarray(y_true)[None], np.asarray(y_pred)[None]
        super().update_state(y_true, y_pred, sample_weight)

    def sums_size(self, outputs):
        return 2 * self._thresholds().places * self._columns(outputs)

    def sums(self, pred, labels, targets, weight=None):
        if self.top_k is not None:
            pred = largest_of(pred, self.top_k)
        if self.class_id is not None:
            pred, targets = (array[:, self.class_id, None] for array in (pred, targets))
        by_output = self._columns(pred.shape[1]) > 1
        return histograms(pred, targets, self._thresholds(), weight, by_output).ravel()

    def _positives(self, sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """(true positives, false positives, positives, negatives): the first two (thresholds, columns), the others
        (columns,)."""
        counts = sums.reshape(2, self._thresholds().places, -1)
        false, true = np.cumsum(counts[:, ::-1], axis=1)[:, ::-1]
        return true[1:], false[1:], true[0], false[0]


def largest_of(pred: np.ndarray, k: int) -> np.ndarray:
    """``pred`` with `_NOT_IN_TOP_K` in all but the k largest places of each row; of equal ones the first count."""
    kept = np.argsort(-pred, axis=1, kind="stable")[:, :k]
    out = np.full(pred.shape, _NOT_IN_TOP_K, np.float32)
    np.put_along_axis(out, kept, in_single(np.take_along_axis(pred, kept, 1)), 1)
    return out


class _AtThresholds(Confusion):
    def __init__(
        self,
        thresholds: float | Iterable[float] | None = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
    ):
        super().__init__(name)
        self.thresholds = None if thresholds is None else _checked_thresholds(thresholds)
        self.top_k = None if top_k is None else validation.check_int("top_k", top_k, minimum=1)
        self.class_id = None if class_id is None else validation.check_int("class_id", class_id, minimum=0)

    def _thresholds(self):
        if self.thresholds is None:
            return thresholds_of(0.5 if self.top_k is None else float(_NOT_IN_TOP_K))
        return thresholds_of(*(self.thresholds if isinstance(self.thresholds, list) else [self.thresholds]))

    def _in_given_order(self, result: np.ndarray) -> float | np.ndarray:
        if self.thresholds is not None and result.size > 1:
            result = result[np.argsort(np.argsort(self.thresholds, kind="stable"))]
        return number_or_array(result)


@METRICS.register()
class Precision(_AtThresholds):
    """TP / (TP + FP): the share of the positive predictions that are right; 0 if there are none.

    Every entry of y counts, or those of the output ``class_id`` alone; an entry that is not 0 is positive.
    ``thresholds``: which a prediction must exceed to be positive, in [0, 1], by default 0.5; of several the result
    has a number for each. ``top_k``: of a row only the k largest can be positive; by default without a threshold.
    """

    def result_of(self, sums):
        true, false, _, _ = self._positives(sums)
        return self._in_given_order(divided(true, true + false)[:, 0])


@METRICS.register()
class Recall(_AtThresholds):
    """TP / (TP + FN): the share of the positive entries of y that are found; 0 if there are none.

    Arguments as of `Precision`.
    """

    def result_of(self, sums):
        true, _, positives, _ = self._positives(sums)
        return self._in_given_order(divided(true, positives)[:, 0])


@METRICS.register()
class AUC(Confusion):
    """The area under the ROC curve, or another ``curve``, from its points at ``num_thresholds`` thresholds.

    They are -1e-7, then evenly spread in (0, 1), then 1 + 1e-7; or ``thresholds`` between the outer two, and then
    ``num_thresholds`` means nothing. Few predictions between two thresholds, or all between the same two, make it
    coarse: probabilities near 0 need ``thresholds`` near 0.

    Parameters
    ----------
    curve : "ROC", recall over the share of false positives; "PR", precision over recall; "PRGAIN", precision gain over
        recall gain (Flach and Kull 2015).
    summation_method : "interpolation" takes the mean height between two points, for "PR" what lies between them if
        true and false positives change evenly (Davis and Goadrich 2006); "minoring" the lower, "majoring" the higher.
    multi_label : an area for each output, and their mean; else all entries of y count as one output's.
    num_labels : the number of outputs, where ``multi_label``; by default that of the first batch.
    from_logits : y_pred are logits, and their sigmoid counts.
    """

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        thresholds: Iterable[float] | None = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: None = None,
        from_logits: bool = False,
    ):
        super().__init__(name)
        self.num_thresholds = validation.check_int("num_thresholds", num_thresholds, minimum=2)
        known = (*_CURVES, *map(str.lower, _CURVES))
        self.curve = str(validation.check_choice("curve", curve, known)).upper()
        methods = ("interpolation", "minoring", "majoring", "Interpolation", "Minoring", "Majoring")
        method = validation.check_choice("summation_method", summation_method, methods)
        self.summation_method = str(method).lower()
        self.thresholds = None if thresholds is None else sorted(_checked_thresholds(thresholds, alone=False))
        self.multi_label = validation.check_bool("multi_label", multi_label)
        self.num_labels = None if num_labels is None else validation.check_int("num_labels", num_labels, 1)
        if num_labels is not None and not multi_label:
            raise ValueError(f"num_labels goes with multi_label=True alone, got num_labels={num_labels}")
        if label_weights is not None:
            received = validation.describe(label_weights)
            raise ValueError(f"label_weights must be None, as all outputs count alike here, got {received}")
        self.label_weights = None
        self.from_logits = validation.check_bool("from_logits", from_logits)

    def _thresholds(self):
        if self.thresholds is None:
            return _even_thresholds(self.num_thresholds)
        return thresholds_of(-EPSILON, *self.thresholds, 1 + EPSILON)

    def _columns(self, outputs):
        return outputs if self.multi_label else 1

    def check_fits(self, sparse, outputs):
        super().check_fits(sparse, outputs)
        if self.num_labels not in (None, outputs):
            raise ValueError(f"num_labels of metric {self.name!r} must be {outputs}, got {self.num_labels}")

    def sums(self, pred, labels, targets, weight=None):
        if self.from_logits:
            with np.errstate(over="ignore"):
                pred = 1 / (1 + np.exp(-np.asarray(pred, np.float64)))
        return super().sums(pred, labels, targets, weight)

    def result_of(self, sums):
        true, false, positives, negatives = self._positives(sums)
        if self.curve == "PR" and self.summation_method == "interpolation":
            parts = _interpolated_precision(true, true + false, positives)
        else:
            x, y = _CURVES[self.curve](true, false, positives, negatives)
            parts = (x[:-1] - x[1:]) * _HEIGHTS[self.summation_method](y[:-1], y[1:])
        return float(np.mean(np.sum(parts, axis=0)))


def _gains(true, false, positives, negatives):
    """Both relative to always saying yes; without a true positive 0 and 1, and a recall below that share counts 0."""
    ratio = divided(positives, negatives)
    recall = np.where(true == 0, 0.0, 1 - ratio * divided(positives - true, true))
    precision = np.where(true == 0, 1.0, 1 - ratio * divided(false, true))
    return np.maximum(recall, 0.0), precision


# (x, y) of each threshold's point
_CURVES = {
    "ROC": lambda true, false, positives, negatives: (divided(false, negatives), divided(true, positives)),
    "PR": lambda true, false, positives, negatives: (divided(true, positives), divided(true, true + false)),
    "PRGAIN": _gains,
}
_HEIGHTS = {
    "interpolation": lambda a, b: (a + b) / 2,
    "minoring": np.minimum,
    "majoring": np.maximum,
}


def _interpolated_precision(true: np.ndarray, predicted: np.ndarray, positives: np.ndarray) -> np.ndarray:
    """The area between each two thresholds, with TP = slope P + intercept between them, P the positive predictions:

    1 / positives * int TP / P dTP = slope / positives * (dTP + intercept log(P_A / P_B))
    """
    d_true, d_predicted = true[:-1] - true[1:], predicted[:-1] - predicted[1:]
    slope = divided(d_true, np.maximum(d_predicted, 0))
    intercept = true[1:] - slope * predicted[1:]
    above = predicted[1:] > 0
    ratio = np.divide(predicted[:-1], predicted[1:], out=np.ones_like(true[1:]), where=above)
    return divided(slope * (d_true + intercept * np.log(ratio)), np.broadcast_to(positives, slope.shape))


def _checked_thresholds(thresholds, alone: bool = True):
    """A float, or a list of floats in [0, 1]; not ``alone``: a list."""
    if alone and (np.ndim(thresholds) == 0 and not isinstance(thresholds, (str, Iterable))):
        return validation.check_float("thresholds", thresholds, minimum=0, maximum=1)
    if isinstance(thresholds, str) or not isinstance(thresholds, Iterable) or np.ndim(thresholds) == 0:
        rule = "a number or a list of numbers" if alone else "a list of numbers"
        raise TypeError(f"thresholds must be {rule}, got {validation.describe(thresholds)}")
    found = [validation.check_float("each of thresholds", each, minimum=0, maximum=1) for each in thresholds]
    if alone and not found:
        raise ValueError("thresholds must not be empty")
    return found

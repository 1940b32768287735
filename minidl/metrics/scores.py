"""F scores and R2, each a function of several sums. Keras's formulas."""

import numpy as np

from .. import validation
from .base import EPSILON, METRICS, OfSums, in_single, number_or_array

_ZERO = np.float32(1e-9)
"""A prediction not larger than this is none, even where it is the largest."""


@METRICS.register()
class FBetaScore(OfSums):
    """``(1 + beta^2) P R / (beta^2 P + R)`` of precision P and recall R, for each class.

    Parameters
    ----------
    average : None, a number for each class; "micro", that of all classes' decisions together; "macro", the mean over
        the classes; "weighted", the mean weighted by how often each class occurs in y.
    beta : how much more recall counts than precision.
    threshold : predictions above it are positive, in (0, 1]; None: the largest of each row is, and all that equal it.
    """

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = None,
    ):
        super().__init__(name)
        self.average = validation.check_choice("average", average, (None, "micro", "macro", "weighted"))
        self.beta = validation.check_float("beta", beta, above=0)
        self.threshold = threshold
        if threshold is not None:
            self.threshold = validation.check_float("threshold", threshold, above=0, maximum=1)

    def sums_size(self, outputs):
        return 3 * (1 if self.average == "micro" else outputs)

    def sums(self, pred, labels, targets, weight=None):
        pred, y = in_single(pred), np.asarray(targets, np.float64)
        if self.threshold is None:
            is_positive = (pred >= pred.max(axis=1, keepdims=True)) & (np.abs(pred) > _ZERO)
        else:
            is_positive = pred > np.float32(self.threshold)
        parts = np.stack([is_positive * y, is_positive * (1 - y), y])  # true and false positives, positives
        found = (parts if weight is None else parts * weight[:, None]).sum(axis=1)
        return (found.sum(axis=1) if self.average == "micro" else found).ravel()

    def result_of(self, sums):
        true, false, positives = sums.reshape(3, -1)
        precision, recall = true / (true + false + EPSILON), true / (positives + EPSILON)
        squared = self.beta**2
        score = (1 + squared) * precision * recall / (squared * precision + recall + EPSILON)
        if self.average == "weighted":
            return float(np.sum(score * positives / (positives.sum() + EPSILON)))
        return number_or_array(score) if self.average is None else float(score.mean())


@METRICS.register()
class F1Score(FBetaScore):
    """``2 P R / (P + R)``: `FBetaScore` with beta 1."""

    def __init__(self, average: str | None = None, threshold: float | None = None, name: str | None = None):
        super().__init__(average, 1.0, threshold, name)


@METRICS.register()
class R2Score(OfSums):
    """``1 - sum (y - y_pred)^2 / sum (y - mean(y))^2`` of each output, and their mean.

    An output whose y are all equal counts 0, and NaN if it is predicted without an error, as in Keras.

    Parameters
    ----------
    class_aggregation : "uniform_average"; "variance_weighted_average", weighted by the variance of each output's y;
        None, a number for each output.
    num_regressors : p > 0 gives the adjusted score ``1 - (1 - R2) (n - 1) / (n - p - 1)``, n the number of all
        entries of y. Where p >= n - 1 it is the plain one, with a warning.
    """

    def __init__(
        self,
        class_aggregation: str | None = "uniform_average",
        num_regressors: int = 0,
        name: str | None = None,
    ):
        super().__init__(name)
        known = (None, "uniform_average", "variance_weighted_average")
        self.class_aggregation = validation.check_choice("class_aggregation", class_aggregation, known)
        self.num_regressors = validation.check_int("num_regressors", num_regressors, minimum=0)

    def sums_size(self, outputs):
        return 5 * outputs

    def sums(self, pred, labels, targets, weight=None):
        y, ones = np.asarray(targets, np.float64), np.ones(targets.shape)
        with np.errstate(over="ignore", invalid="ignore"):  # of a training that diverges
            parts = np.stack([y, y * y, (y - pred) ** 2, ones])
            found = (parts if weight is None else parts * weight[:, None]).sum(axis=1)
        return np.concatenate([found, ones.sum(axis=0)[None]]).ravel()

    def result_of(self, sums):
        total, squares, residual, count, entries = sums.reshape(5, -1)
        with np.errstate(divide="ignore", invalid="ignore"):
            spread = squares - total * (total / count)
            scores = 1 - residual / spread
            scores = np.where(np.isinf(scores), 0.0, scores)
            if self.class_aggregation == "variance_weighted_average":
                scores = np.sum(spread * scores) / np.sum(spread)
            elif self.class_aggregation == "uniform_average":
                scores = scores.mean()
        return number_or_array(self._adjusted(scores, entries.sum()))

    def _adjusted(self, score: np.ndarray, entries: float) -> np.ndarray:
        regressors = self.num_regressors
        if regressors == 0:
            return score
        if regressors >= entries - 1:
            validation.warn(
                f"{self.name} is not adjusted: num_regressors={regressors} must be < {entries - 1:g}, the entries of y "
                "less one"
            )
            return score
        return 1 - (1 - score) * (entries - 1) / (entries - regressors - 1)

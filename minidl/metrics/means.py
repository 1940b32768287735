"""Metrics that are the mean over the samples of a kernel's value: accuracies and errors.

Each class is its kernel, which direction is better, what it needs. Formulas are in ``kernels/metrics.py``.
"""

import math

from .. import validation
from ..kernels import metrics as kernel
from ..registry import function_of
from .base import METRICS, Metric


@METRICS.register("acc")
class Accuracy(Metric):
    """The share of samples that are predicted right. As Keras reads ``"accuracy"``, the form follows from y:
    binary for one output, sparse categorical for class indices, categorical for rows of targets.
    """

    direction = "up"

    def kind_for(self, sparse: bool, outputs: int) -> int:
        if outputs == 1:
            return kernel.BINARY_ACCURACY
        return kernel.SPARSE_CATEGORICAL_ACCURACY if sparse else kernel.CATEGORICAL_ACCURACY

    def needs_output_for(self, outputs: int) -> bool:
        return outputs == 1  # 0.5 is a probability; among several, the largest logit is the largest output


@METRICS.register()
class CategoricalAccuracy(Metric):
    """1 where the largest output is where the largest target is. Of equal ones the first is the largest."""

    kind = kernel.CATEGORICAL_ACCURACY
    direction = "up"


@METRICS.register()
class SparseCategoricalAccuracy(Metric):
    """1 where the largest output is at the label."""

    kind = kernel.SPARSE_CATEGORICAL_ACCURACY
    direction = "up"


@METRICS.register()
class BinaryAccuracy(Metric):
    """The share of a sample's outputs on the right side of 0.5 (0.5 itself counts as 0)."""

    kind = kernel.BINARY_ACCURACY
    direction = "up"
    needs_output = True


@METRICS.register()
class TopKCategoricalAccuracy(Metric):
    """1 where fewer than ``k`` outputs are larger than the one at the largest target."""

    kind = kernel.TOP_K_CATEGORICAL_ACCURACY
    direction = "up"

    def __init__(self, k: int = 5, name: str | None = None):
        self.k = validation.check_int("k", k, minimum=1, maximum=2**31 - 1)
        super().__init__(name)


@METRICS.register()
class SparseTopKCategoricalAccuracy(TopKCategoricalAccuracy):
    """1 where fewer than ``k`` outputs are larger than the one at the label."""

    kind = kernel.SPARSE_TOP_K_CATEGORICAL_ACCURACY


@METRICS.register("mse", "MSE")
class MeanSquaredError(Metric):
    """Mean over a sample's outputs of (y - y_pred)^2."""

    kind = kernel.MEAN_SQUARED_ERROR
    needs_output = True


@METRICS.register("mae", "MAE")
class MeanAbsoluteError(Metric):
    """Mean over a sample's outputs of |y - y_pred|."""

    kind = kernel.MEAN_ABSOLUTE_ERROR
    needs_output = True


@METRICS.register()
class RootMeanSquaredError(MeanSquaredError):
    """The square root of the mean over samples and outputs of (y - y_pred)^2."""

    def result_of(self, sums):
        return math.sqrt(super().result_of(sums))


categorical_accuracy = function_of(CategoricalAccuracy, Metric.rows)
sparse_categorical_accuracy = function_of(SparseCategoricalAccuracy, Metric.rows)
binary_accuracy = function_of(BinaryAccuracy, Metric.rows)
top_k_categorical_accuracy = function_of(TopKCategoricalAccuracy, Metric.rows)
sparse_top_k_categorical_accuracy = function_of(SparseTopKCategoricalAccuracy, Metric.rows)
